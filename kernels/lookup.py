"""Look-up: the flow of every TCP packet of a burst, in passes, so that a table larger than the cache costs bandwidth.

Hash and prefetch the buckets; take the first entry whose tag fits and prefetch its connection; do that in the next bucket for
those that may be there; then compare. The passes go over the whole burst: in chunks of 64 rows they took a third longer.
"""
from numpy import int64

from .batch import KIND_TCP, NO_FLOW, PENDING
from .connection import HOT_BYTES
from .flow_hash import hash_key
from .flow_table import BUCKET_BYTES, CLASSES, SLOTS, find, following, home_of, same_key, slots_with, tag_of
from .jit import kernel
from .native import address_of, prefetch_many, record_at, trailing_zeros

FURTHER = -2
"""`flow`, between two passes: not in the bucket that it belongs to, but perhaps in the next."""


@kernel
def hash_all(batch, count, buckets):
    """Hashes every row's key and asks for the bucket that it lies in. Rows of other kinds get a harmless hash."""
    lines = address_of(buckets)
    for row in range(count):
        hashed = hash_key(batch.source[row], batch.destination[row], batch.source_port[row], batch.destination_port[row])
        batch.hash[row] = hashed
        prefetch_many(lines + home_of(buckets, hashed) * BUCKET_BYTES)


@kernel
def candidates(batch, count, buckets, hot):
    """Puts the first entry with a fitting tag in `flow`, unverified, or NO_FLOW or FURTHER.

    Asks for its connection, or for the next bucket. Lists the rows that are FURTHER in `above`, which has another meaning only
    later, and returns how many. No branch depends on what is found: that is not predictable.
    """
    lines, connections, further = address_of(buckets), address_of(hot), 0
    for row in range(count):
        hashed = batch.hash[row]
        tag, number = tag_of(hashed), home_of(buckets, hashed)
        bucket = record_at(buckets, number)
        found = slots_with(bucket, tag)
        goes_on = int64(bucket.passed[tag & (CLASSES - 1)] != 0) & int64(found == 0)
        entry = int64(bucket.entry[trailing_zeros(found | (1 << (SLOTS - 1)))])
        next_line = lines + (following(buckets, number, tag) if goes_on != 0 else number) * BUCKET_BYTES
        batch.flow[row] = entry if found != 0 else NO_FLOW - goes_on
        batch.above[further] = row
        further += goes_on
        prefetch_many(connections + (entry >> 1) * HOT_BYTES if found != 0 else next_line)
    return further


@kernel
def further_candidates(batch, further, buckets, hot):
    """Looks in the next bucket of the `further` rows listed in `above`, and asks for the connections found there.

    Left to the comparison, which has to wait for each, these 6 to 11 % of the rows took a fifth of the time.
    """
    connections = address_of(hot)
    for number in range(further):
        row = batch.above[number]
        hashed = batch.hash[row]
        tag = tag_of(hashed)
        bucket = record_at(buckets, following(buckets, home_of(buckets, hashed), tag))
        found = slots_with(bucket, tag)
        goes_on = int64(bucket.passed[tag & (CLASSES - 1)] != 0)
        entry = int64(bucket.entry[trailing_zeros(found | (1 << (SLOTS - 1)))])
        batch.flow[row] = entry if found != 0 else NO_FLOW - goes_on
        prefetch_many(connections + (entry >> 1 if found != 0 else 0) * HOT_BYTES)


@kernel
def compare(batch, count, buckets, hot):
    """Compares whole keys; what is not among the first candidates is looked for one by one."""
    for row in range(count):
        entry = batch.flow[row]
        remote, local = batch.source[row], batch.destination[row]
        remote_port, local_port = batch.source_port[row], batch.destination_port[row]
        if batch.kind[row] != KIND_TCP or batch.verdict[row] != PENDING:
            batch.flow[row] = NO_FLOW
        elif entry == FURTHER or (entry >= 0 and not same_key(hot, entry, remote, local, remote_port, local_port)):
            batch.flow[row] = find(buckets, hot, batch.hash[row], remote, local, remote_port, local_port)


@kernel
def bucketed(batch, count, buckets, hot):
    """Fills `flow` of rows 0 .. count - 1: connection * 2 + side, or NO_FLOW. The slot `lookup`."""
    hash_all(batch, count, buckets)
    further_candidates(batch, candidates(batch, count, buckets, hot), buckets, hot)
    compare(batch, count, buckets, hot)
