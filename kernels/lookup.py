"""Look-up: the flow of every TCP packet of a burst, in passes, so that a table larger than the cache costs bandwidth.

Hash all and prefetch their buckets; take the first entry whose tag fits and prefetch its connection; then compare.
"""
from numpy import int64

from .batch import KIND_TCP, NO_FLOW, PENDING
from .connection import HOT
from .flow_table import BUCKET, find, hash_key, same_key, slots_with, tag_of
from .jit import kernel
from .native import address_of, prefetch, record_at, trailing_zeros

BUCKET_BYTES, HOT_BYTES = BUCKET.itemsize, HOT.itemsize


@kernel
def hash_all(batch, count, buckets):
    """Hashes every row's key and asks for the bucket that it lies in. Rows of other kinds get a harmless hash."""
    first, mask = address_of(buckets), buckets.shape[0] - 1
    for row in range(count):
        hashed = hash_key(batch.source[row], batch.destination[row], batch.source_port[row], batch.destination_port[row])
        batch.hash[row] = hashed
        prefetch(first + (hashed & mask) * BUCKET_BYTES)


@kernel
def candidates(batch, count, buckets, hot):
    """Puts the first entry with a fitting tag in `flow`, unverified, and asks for its connection."""
    first, mask = address_of(hot), buckets.shape[0] - 1
    for row in range(count):
        hashed = batch.hash[row]
        bucket = record_at(buckets, hashed & mask)
        found = slots_with(bucket, tag_of(hashed))
        entry = int64(bucket.entry[trailing_zeros(found)]) if found != 0 else NO_FLOW
        batch.flow[row] = entry
        if entry >= 0:
            prefetch(first + (entry >> 1) * HOT_BYTES)


@kernel
def bucketed(batch, count, buckets, hot):
    """Fills `flow` of rows 0 .. count - 1: connection * 2 + side, or NO_FLOW. The slot `lookup`."""
    hash_all(batch, count, buckets)
    candidates(batch, count, buckets, hot)
    for row in range(count):
        entry = batch.flow[row]
        remote, local = batch.source[row], batch.destination[row]
        remote_port, local_port = batch.source_port[row], batch.destination_port[row]
        if batch.kind[row] != KIND_TCP or batch.verdict[row] != PENDING:
            batch.flow[row] = NO_FLOW
        elif entry < 0 or not same_key(hot, entry, remote, local, remote_port, local_port):
            batch.flow[row] = find(buckets, hot, batch.hash[row], remote, local, remote_port, local_port)
