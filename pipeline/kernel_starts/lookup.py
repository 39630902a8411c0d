import numpy as np

from pipeline.kernels.batch import KIND_TCP, NO_FLOW, PENDING
from pipeline.kernels.flow_hash import hash_key
from pipeline.kernels.flow_table import same_key
from pipeline.kernels.jit import kernel

# This file brings a table of its own: chains. `buckets` is one int64 array: the upper half has, for each entry, the one behind it
# in its chain; the lower half has the first of each chain. All are kept as entry + 1, and 0 is the end.
# Without allocate_buckets, find, insert and remove the kernel below would work on our table (kernels/flow_table.py).


def allocate_buckets(connections):
    """Plain Python, called once: an array, or a NamedTuple of arrays, for two entries a connection."""
    return np.zeros(4 * connections, np.int64)


@kernel
def half(buckets):
    """Where the second half begins."""
    return buckets.shape[0] >> 1


@kernel
def chain_of(buckets, hashed):
    """The chain of a hash of 32 bits."""
    return (hashed * half(buckets)) >> 32


@kernel
def find(buckets, hot, hashed, remote, local, remote_port, local_port):
    """The entry (connection * 2 + side) with this key, or -1. The keys themselves are in the connections' records."""
    entry = buckets[chain_of(buckets, hashed)] - 1
    while entry >= 0 and not same_key(hot, entry, remote, local, remote_port, local_port):
        entry = buckets[half(buckets) + entry] - 1
    return entry


@kernel
def insert(buckets, hashed, entry):
    """Adds an entry whose key is not there; would return False, with nothing changed, if there were no room."""
    chain = chain_of(buckets, hashed)
    buckets[half(buckets) + entry] = buckets[chain]
    buckets[chain] = entry + 1
    return True


@kernel
def remove(buckets, hashed, entry):
    """Takes an entry out; returns whether it was there."""
    place = chain_of(buckets, hashed)
    while buckets[place] != 0 and buckets[place] != entry + 1:
        place = half(buckets) + buckets[place] - 1
    there = buckets[place] != 0
    if there:
        buckets[place] = buckets[half(buckets) + entry]
    return there


def probe(batch, count, buckets, hot):
    """One row after the other. Ours goes over the burst in passes, and asks for memory ahead: that is where the time is won."""
    for row in range(count):
        remote, local = batch.source[row], batch.destination[row]
        remote_port, local_port = batch.source_port[row], batch.destination_port[row]
        batch.hash[row] = hash_key(remote, local, remote_port, local_port)
        batch.flow[row] = NO_FLOW
        if batch.kind[row] == KIND_TCP and batch.verdict[row] == PENDING:
            batch.flow[row] = find(buckets, hot, batch.hash[row], remote, local, remote_port, local_port)
