"""A flow table with linear probing (Knuth, volume 3, section 6.4), the other kind beside `flow_table`. The slot `lookup`.

A slot has a tag, which is the whole hash of a key, and its entry (connection * 2 + side); eight slots are a cache line. A key
lies in the first free slot behind its home. What is taken out leaves no tombstone: slots behind it move back (algorithm R),
which they can do by their tags alone. At a load of a half a hit looks at 1.5 slots on average, a miss at 2.5, but for keys
that were chosen to share a home: those are refused beyond LONGEST.
"""
import numpy as np
from numpy import int64

from .batch import KIND_TCP, NO_FLOW, PENDING
from .connection import HOT_BYTES
from .flow_hash import hash_key
from .flow_table import NOT_FOUND, same_key
from .jit import kernel
from .memory import allocate
from .native import address_of, prefetch, prefetch_many, record_at

SLOTS_A_CONNECTION = 4
"""For two keys: no more than half of the slots are ever filled."""
LONGEST = 512
"""Slots that a key is looked for in."""
EMPTY = 0
SLOT = np.dtype([("tag", "u4"), ("entry", "u4")])
SLOT_BYTES = SLOT.itemsize


def allocate_buckets(connections):
    """Returns the empty slots (SLOT[n]) for the keys of that many connections."""
    return allocate(max(SLOTS_A_CONNECTION * connections, 8), SLOT)


@kernel
def tag_of(hashed):
    """Returns the tag of a hash: itself, but never that of an empty slot."""
    return hashed if hashed != EMPTY else 1


@kernel
def home_of(buckets, tag):
    """Returns the slot that a tag belongs to."""
    return (tag * buckets.shape[0]) >> 32


@kernel
def following(buckets, place):
    """Returns the slot behind one."""
    return place + 1 if place + 1 < buckets.shape[0] else 0


@kernel
def distance(buckets, home, place):
    """Returns how many slots `place` lies behind `home`."""
    return place - home if place >= home else place - home + buckets.shape[0]


@kernel
def ask_for_key(buckets, hashed):
    """Asks for the cache line that a hash belongs to."""
    prefetch(address_of(buckets) + home_of(buckets, tag_of(hashed)) * SLOT_BYTES)


@kernel
def find(buckets, hot, hashed, remote, local, remote_port, local_port):
    """Returns the entry (connection * 2 + side) with this key, or NOT_FOUND."""
    tag = tag_of(hashed)
    place = home_of(buckets, tag)
    for _ in range(LONGEST):
        slot = record_at(buckets, place)
        if slot.tag == EMPTY:
            break
        if int64(slot.tag) == tag and same_key(hot, int64(slot.entry), remote, local, remote_port, local_port):
            return int64(slot.entry)
        place = following(buckets, place)
    return NOT_FOUND


@kernel
def insert(buckets, hashed, entry):
    """Adds an entry whose key is not there yet; returns False, with nothing changed, where LONGEST slots are filled."""
    tag = tag_of(hashed)
    place = home_of(buckets, tag)
    for _ in range(min(LONGEST, buckets.shape[0])):
        slot = record_at(buckets, place)
        if slot.tag == EMPTY:
            slot.tag, slot.entry = tag, entry
            return True
        place = following(buckets, place)
    return False


@kernel
def close_gap(buckets, gap):
    """Empties a slot; those behind it that may lie nearer to their homes move back."""
    place = following(buckets, gap)
    for _ in range(buckets.shape[0]):
        slot = record_at(buckets, place)
        if slot.tag == EMPTY or place == gap:
            break
        if distance(buckets, home_of(buckets, int64(slot.tag)), place) >= distance(buckets, gap, place):
            moved = record_at(buckets, gap)
            moved.tag, moved.entry = int64(slot.tag), int64(slot.entry)
            gap = place
        place = following(buckets, place)
    freed = record_at(buckets, gap)
    freed.tag, freed.entry = EMPTY, 0


@kernel
def remove(buckets, hashed, entry):
    """Takes out an entry that was inserted under this hash; returns whether it was there."""
    place = home_of(buckets, tag_of(hashed))
    for _ in range(LONGEST):
        slot = record_at(buckets, place)
        if slot.tag == EMPTY:
            break
        if int64(slot.entry) == entry:
            close_gap(buckets, place)
            return True
        place = following(buckets, place)
    return False


@kernel
def candidate(buckets, tag):
    """Returns the first entry with this tag, or NO_FLOW."""
    place = home_of(buckets, tag)
    for _ in range(LONGEST):
        slot = record_at(buckets, place)
        if int64(slot.tag) == tag:
            return int64(slot.entry)
        if slot.tag == EMPTY:
            break
        place = following(buckets, place)
    return NO_FLOW


@kernel
def linear(batch, count, buckets, hot):
    """Fills `flow` of rows 0 .. count - 1: connection * 2 + side, or NO_FLOW. The slot `lookup`.

    In passes: what a pass is going to read, the one before it has asked for.
    """
    lines, connections = address_of(buckets), address_of(hot)
    for row in range(count):
        hashed = hash_key(batch.source[row], batch.destination[row], batch.source_port[row], batch.destination_port[row])
        batch.hash[row] = hashed
        prefetch_many(lines + home_of(buckets, tag_of(hashed)) * SLOT_BYTES)
    for row in range(count):
        entry = candidate(buckets, tag_of(batch.hash[row]))
        batch.flow[row] = entry
        prefetch_many(connections + (max(entry, 0) >> 1) * HOT_BYTES)
    for row in range(count):
        entry = batch.flow[row]
        remote, local = batch.source[row], batch.destination[row]
        remote_port, local_port = batch.source_port[row], batch.destination_port[row]
        if batch.kind[row] != KIND_TCP or batch.verdict[row] != PENDING:
            batch.flow[row] = NO_FLOW
        elif entry >= 0 and not same_key(hot, entry, remote, local, remote_port, local_port):
            batch.flow[row] = find(buckets, hot, batch.hash[row], remote, local, remote_port, local_port)
