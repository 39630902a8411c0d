"""A table of IPv4 prefixes for longest match: DIR-24-8 (Gupta, Lin, McKeown, INFOCOM 1998).

One look-up serves every list of the engine: an address has a class, and a class says what each list makes of it.
"""
from typing import NamedTuple

import numpy as np
from numpy import int64

from .jit import kernel

FIRST_BITS, LAST_BITS = 24, 8


class PrefixTable(NamedTuple):
    """`first` has an entry for every prefix of 24 bits: a class, or -1 - n where longer ones are told apart in block n."""

    first: np.ndarray    # int32 [1 << 24], or [1] where there are no lists
    blocks: np.ndarray   # int32 [blocks << 8] classes
    denied: np.ndarray   # int64 [classes, lists] whether a list denies the addresses of a class


@kernel
def class_of(table, address):
    """Returns the class of an IPv4 address (host order)."""
    entry = int64(table.first[address >> LAST_BITS])
    if entry >= 0:
        return entry
    return int64(table.blocks[((-1 - entry) << LAST_BITS) | (address & 0xFF)])
