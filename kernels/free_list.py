"""Free records: a chain through the records themselves, by their field `opening`, so that it takes no memory.

The one that was given back last is taken first, since it may still be in the cache. Records that were never used are not in
the chain: they are taken, in order, once it is empty, so that their memory is not touched before.
"""
import numpy as np
from numpy import int64

from .jit import kernel
from .native import record_at

FIRST, COUNT, UNUSED = range(3)
"""Of a free list: the first record of the chain, how many are free, and the first that was never used."""
NONE = 0xFFFFFFFF


def allocate_free(records):
    """Returns the free list (int64 [3]) of so many records, none of them ever used."""
    return np.array([NONE, records, 0], np.int64)


def free_numbers(free, records):
    """Returns the numbers of the free records (list), in the order in which they will be taken."""
    found, number = [], int(free[FIRST])
    while number != NONE:
        found.append(number)
        number = int(records["opening"][number])
    return [*found, *range(int(free[UNUSED]), len(records))]


@kernel
def upcoming(free, records):
    """Returns the record that is taken next; any where none is free."""
    first = free[FIRST]
    return first if first != NONE else min(free[UNUSED], records.shape[0] - 1)


@kernel
def take(free, records):
    """Takes a free record, of which there has to be one; returns its number."""
    free[COUNT] -= 1
    first = free[FIRST]
    if first != NONE:
        free[FIRST] = int64(record_at(records, first).opening)
        return first
    free[UNUSED] += 1
    return free[UNUSED] - 1


@kernel
def give(free, records, number):
    """Gives a record back."""
    record_at(records, number).opening = free[FIRST]
    free[FIRST] = number
    free[COUNT] += 1
