"""The flow table: 5-tuple to connection and side, in buckets of one cache line.

A bucket has ten 16-bit tags, ten entries (connection * 2 + side), and counts of the entries that found it full and went on:
four counts, each for a quarter of the tags. A miss ends at the first bucket without a count for its tag, and a deletion takes
the counts back, so there are no tombstones. Who goes on takes steps of 1 to 16 buckets, by the tag: entries that share a
bucket do not crowd its neighbours together. The keys are in the hot record of the connection, which the next stages need
anyway.

The size is fixed when a worker is set up, by `connections` in [engine], as that of all else a connection needs: there is
nothing to grow, so nothing that stalls. A hash belongs to the bucket that its upper bits, times the number of buckets, say,
so that number need be no power of two.
"""
import math

import numpy as np
from numpy import int64

from .jit import kernel
from .memory import allocate
from .native import address_of, lanes_with, prefetch, record_at, trailing_zeros

SLOTS = 10
LOAD = 0.8
"""Highest part of the slots that is filled, with all connections open on both sides: of 4 million random keys 6 % are outside
their own bucket then, the farthest 12 steps away, and 12 % of misses have to go on. At 90 % it is 11 %, 35 and 27 %, and a
look-up of 3 million keys takes a third longer (perf/flow_table.py); nothing is refused at either."""
LONGEST = 64
"""Buckets that a key is looked for in. Keys that were chosen to share a bucket are refused beyond it, and cost no more."""
STEPS, CLASSES, MOST_PASSED = 16, 4, 255
FACTORS = 2 * 3 * 5 * 7 * 11 * 13
"""A number of buckets above STEPS has none of these factors in common with any step: every step comes by every bucket."""
EMPTY = 0
BUCKET = np.dtype([("tag", "u2", (SLOTS,)), ("entry", "u4", (SLOTS,)), ("passed", "u1", (CLASSES,))])
"""One cache line of 64 bytes; a tag of 0 marks an empty slot."""
BUCKET_BYTES = BUCKET.itemsize
NOT_FOUND = -1


def buckets_for(connections, load=LOAD):
    """Returns how many buckets there are for two keys a connection, at most `load` of the slots filled."""
    count = max(math.ceil(2 * connections / (SLOTS * load)), 1)
    while count > STEPS and math.gcd(count, FACTORS) > 1:
        count += 1
    return count


def allocate_buckets(connections, load=LOAD, huge=True):
    """Returns that many empty buckets (BUCKET[n])."""
    return allocate(buckets_for(connections, load), BUCKET, huge)


@kernel
def home_of(buckets, hashed):
    """Returns the number of the bucket that a hash belongs to."""
    return (hashed * buckets.shape[0]) >> 32


@kernel
def ask_for_key(buckets, hashed):
    """Asks for the bucket that a hash belongs to, since a key is put into it or taken out shortly."""
    prefetch(address_of(buckets) + home_of(buckets, hashed) * BUCKET_BYTES)


@kernel
def tag_of(hashed):
    """Returns the non-zero 16-bit tag of a hash: the bits that matter least for the bucket."""
    tag = hashed & 0xFFFF
    return tag if tag != EMPTY else 1


@kernel
def following(buckets, number, tag):
    """Returns the number of the bucket to which an entry with this tag goes on from a full one."""
    count = buckets.shape[0]
    further = number + 1 + (tag & (STEPS - 1)) if count > STEPS else number + 1
    return further if further < count else further - count


@kernel
def slots_with(bucket, tag):
    """Returns a bit for each slot of a bucket that has this tag. Without a branch: where a tag stands is not predictable."""
    return lanes_with(bucket, tag) & ((1 << SLOTS) - 1)


@kernel
def same_key(hot, entry, remote, local, remote_port, local_port):
    """Says whether the connection and side of `entry` have this key."""
    record = record_at(hot, entry >> 1)
    side = entry & 1
    differing = ((int64(record.remote_address[side]) ^ remote) | (int64(record.local_address[side]) ^ local)
                 | (int64(record.remote_port[side]) ^ remote_port) | (int64(record.local_port[side]) ^ local_port))
    return differing == 0


@kernel
def find(buckets, hot, hashed, remote, local, remote_port, local_port):
    """Returns the entry (connection * 2 + side) with this key, or NOT_FOUND."""
    number = home_of(buckets, hashed)
    tag = tag_of(hashed)
    for _ in range(LONGEST):
        bucket = record_at(buckets, number)
        found = slots_with(bucket, tag)
        while found != 0:
            entry = int64(bucket.entry[trailing_zeros(found)])
            if same_key(hot, entry, remote, local, remote_port, local_port):
                return entry
            found &= found - 1
        if bucket.passed[tag & (CLASSES - 1)] == 0:
            break
        number = following(buckets, number, tag)
    return NOT_FOUND


@kernel
def count_passed(buckets, number, tag, steps, change):
    """Adds `change` to the counts of the `steps` buckets that an entry with this tag goes by from bucket `number` on."""
    for _ in range(steps):
        bucket = record_at(buckets, number)
        bucket.passed[tag & (CLASSES - 1)] = int64(bucket.passed[tag & (CLASSES - 1)]) + change
        number = following(buckets, number, tag)


@kernel
def insert(buckets, hashed, entry):
    """Adds an entry whose key is not there yet; returns False, with nothing changed, where LONGEST buckets are full."""
    home = number = home_of(buckets, hashed)
    tag = tag_of(hashed)
    for step in range(min(LONGEST, buckets.shape[0])):
        bucket = record_at(buckets, number)
        free = slots_with(bucket, EMPTY)
        if free != 0:
            slot = trailing_zeros(free)
            bucket.tag[slot] = tag
            bucket.entry[slot] = entry
            count_passed(buckets, home, tag, step, 1)
            return True
        if bucket.passed[tag & (CLASSES - 1)] == MOST_PASSED:
            return False
        number = following(buckets, number, tag)
    return False


@kernel
def remove(buckets, hashed, entry):
    """Takes out an entry that was inserted under this hash; returns whether it was there."""
    home = number = home_of(buckets, hashed)
    tag = tag_of(hashed)
    for step in range(LONGEST):
        bucket = record_at(buckets, number)
        found = slots_with(bucket, tag)
        while found != 0:
            slot = trailing_zeros(found)
            if int64(bucket.entry[slot]) == entry:
                bucket.tag[slot] = EMPTY
                count_passed(buckets, home, tag, step, -1)
                return True
            found &= found - 1
        if bucket.passed[tag & (CLASSES - 1)] == 0:
            return False
        number = following(buckets, number, tag)
    return False
