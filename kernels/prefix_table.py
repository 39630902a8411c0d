"""A table of IPv4 prefixes for longest match: DIR-24-8 (Gupta, Lin, McKeown, INFOCOM 1998).

One look-up serves every list of the engine: an address has a class, and a class says what each list makes of it.
"""
from typing import NamedTuple

import numpy as np
from numpy import int64

from .jit import kernel
from .native import address_of, prefetch

FIRST_BITS, LAST_BITS, ENTRY_BYTES = 24, 8, 4


class PrefixTable(NamedTuple):
    """Two halves: one is read while the other one is made anew.

    `first` has an entry for every prefix of 24 bits: a class, or -1 - n where longer ones are told apart in block n.
    """

    first: np.ndarray    # int32 [2, 1 << 24], or [2, 1] where there are no lists
    blocks: np.ndarray   # int32 [2, blocks << 8] classes
    denied: np.ndarray   # int64 [2, classes, lists] whether a list denies the addresses of a class


@kernel
def ask_for_entry(table, half, address):
    """Asks for the cache line of an address's entry."""
    prefetch(address_of(table.first) + (half * table.first.shape[1] + (address >> LAST_BITS)) * ENTRY_BYTES)


@kernel
def ask_for_block(table, half, address):
    """Asks for the cache line of an address in its block, where its entry, which has come by now, names one."""
    entry = int64(table.first[half, address >> LAST_BITS])
    if entry < 0:
        prefetch(address_of(table.blocks) + (half * table.blocks.shape[1] + place_in_block(entry, address)) * ENTRY_BYTES)


@kernel
def place_in_block(entry, address):
    """Returns where the class of an address lies in a half's blocks."""
    return ((-1 - entry) << LAST_BITS) | (address & 0xFF)


@kernel
def class_of(table, half, address):
    """Returns the class of an IPv4 address (host order)."""
    entry = int64(table.first[half, address >> LAST_BITS])
    return entry if entry >= 0 else int64(table.blocks[half, place_in_block(entry, address)])
