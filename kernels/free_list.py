"""The free connections: a chain through their own cold records, so that it takes no memory.

The one that was given back last is taken first, since its records may still be in the cache. Connections that were never
used are not in the chain: they are taken, in order, once it is empty, so that their memory is not touched before.
"""
import numpy as np
from numpy import int64

from .jit import kernel
from .native import record_at

FIRST, COUNT, UNUSED = range(3)
"""Of `Connections.free`: the first of the chain, how many are free, and the first that was never used."""
NONE = 0xFFFFFFFF


def allocate_free(connections):
    """Returns the `free` (int64 [3]) of so many connections, none of them ever used."""
    return np.array([NONE, connections, 0], np.int64)


def free_numbers(connections):
    """Returns the numbers of the free connections (list), in the order in which they will be taken."""
    found, number = [], int(connections.free[FIRST])
    while number != NONE:
        found.append(number)
        number = int(connections.cold[number].source)
    return [*found, *range(int(connections.free[UNUSED]), len(connections.hot))]


@kernel
def upcoming(connections):
    """Returns the connection that is taken next; any where none is free."""
    first = connections.free[FIRST]
    return first if first != NONE else min(connections.free[UNUSED], connections.hot.shape[0] - 1)


@kernel
def take(connections):
    """Takes a free connection, of which there has to be one; returns its number."""
    free = connections.free
    free[COUNT] -= 1
    first = free[FIRST]
    if first != NONE:
        free[FIRST] = int64(record_at(connections.cold, first).source)
        return first
    free[UNUSED] += 1
    return free[UNUSED] - 1


@kernel
def give(connections, connection):
    """Gives a connection back."""
    free = connections.free
    record_at(connections.cold, connection).source = free[FIRST]
    free[FIRST] = connection
    free[COUNT] += 1
