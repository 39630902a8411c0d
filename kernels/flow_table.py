"""The flow table: 5-tuple to connection and side, in buckets of one cache line.

A bucket has eight 16-bit tags, eight entries (connection * 2 + side) and a count of the entries that found it full
and went on to the next bucket. A miss ends at the first bucket with no such count, and a deletion takes the count back,
so there are no tombstones. The keys are in the hot record of the connection, which the next stages need anyway.
"""
import numpy as np
from numpy import int64

from .jit import kernel
from .native import crc32c, record_at, trailing_zeros

SLOTS = 8
EMPTY = 0
BUCKET = np.dtype([("tag", "u2", (SLOTS,)), ("entry", "u4", (SLOTS,)), ("passed", "u2"), ("rest", "u1", (14,))])
"""One cache line of 64 bytes; a tag of 0 marks an empty slot."""
NOT_FOUND = -1


def allocate_buckets(connections):
    """Returns empty buckets for two keys a connection at no more than about 80 % load, a power of two."""
    count = 1
    while count * SLOTS * 0.8 < 2 * connections:
        count *= 2
    whole = np.zeros(count * BUCKET.itemsize + 64, np.uint8)
    first = -whole.ctypes.data % 64
    return whole[first:first + count * BUCKET.itemsize].view(BUCKET).view(np.recarray)


@kernel
def hash_key(remote, local, remote_port, local_port):
    """Returns the 32-bit hash of a key, as its packets from the remote end carry it."""
    return crc32c(crc32c(0x9E3779B9, (remote << 31) ^ local), (remote_port << 16) | local_port)


@kernel
def tag_of(hashed):
    """Returns the non-zero 16-bit tag of a hash: the bits that do not choose the bucket."""
    tag = (hashed >> 16) & 0xFFFF
    return tag if tag != EMPTY else 1


@kernel
def slots_with(bucket, tag):
    """Returns a bit for each slot of a bucket that has this tag. Without a branch: where a tag stands is not predictable."""
    found = 0
    for slot in range(SLOTS):
        found |= int64(int64(bucket.tag[slot]) == tag) << slot
    return found


@kernel
def same_key(hot, entry, remote, local, remote_port, local_port):
    """Says whether the connection and side of `entry` have this key."""
    record = record_at(hot, entry >> 1)
    side = entry & 1
    return (int64(record.remote_address[side]) == remote and int64(record.local_address[side]) == local
            and int64(record.remote_port[side]) == remote_port and int64(record.local_port[side]) == local_port)


@kernel
def find(buckets, hot, hashed, remote, local, remote_port, local_port):
    """Returns the entry (connection * 2 + side) with this key, or NOT_FOUND."""
    mask = buckets.shape[0] - 1
    number = hashed & mask
    tag = tag_of(hashed)
    for _ in range(buckets.shape[0]):
        bucket = record_at(buckets, number)
        found = slots_with(bucket, tag)
        while found != 0:
            entry = int64(bucket.entry[trailing_zeros(found)])
            if same_key(hot, entry, remote, local, remote_port, local_port):
                return entry
            found &= found - 1
        if bucket.passed == 0:
            break
        number = (number + 1) & mask
    return NOT_FOUND


@kernel
def insert(buckets, hashed, entry):
    """Adds an entry whose key is not there yet; returns False, with nothing changed, where every bucket is full."""
    mask = buckets.shape[0] - 1
    home = hashed & mask
    for step in range(buckets.shape[0]):
        bucket = record_at(buckets, (home + step) & mask)
        for slot in range(SLOTS):
            if bucket.tag[slot] == EMPTY:
                bucket.tag[slot] = tag_of(hashed)
                bucket.entry[slot] = entry
                for passed in range(step):
                    record_at(buckets, (home + passed) & mask).passed += 1
                return True
    return False


@kernel
def remove(buckets, hashed, entry):
    """Takes out an entry that was inserted under this hash; returns whether it was there."""
    mask = buckets.shape[0] - 1
    home = hashed & mask
    tag = tag_of(hashed)
    for step in range(buckets.shape[0]):
        bucket = record_at(buckets, (home + step) & mask)
        for slot in range(SLOTS):
            if int64(bucket.tag[slot]) == tag and int64(bucket.entry[slot]) == entry:
                bucket.tag[slot] = EMPTY
                for passed in range(step):
                    record_at(buckets, (home + passed) & mask).passed -= 1
                return True
        if bucket.passed == 0:
            return False
    return False
