"""Maglev: consistent hashing over a table of prime size (Eisenbud et al., NSDI 2016, section 3.4).

The table never changes while the engine runs. Where the target of a place cannot be had, a hash of the hash leads to another
place: the connections of a target that is gone are spread over the others evenly, not one of theirs moves (in a table built
anew some would), and there is nothing to build when states change. The next place would not do: where two orders run side
by side, one target would inherit far more than the others.
"""
import hashlib

import numpy as np
from numpy import int64

from .hash_multiply import mixed, multiply
from .jit import kernel
from .select_source_hash import AGAIN, MOST_TRIES
from .services import NO_MATCH, is_available

SMALL, LARGE = 65537, 655373
"""Primes: the paper's two sizes. The shares of equal targets differ by less than 1 % with 100 places for each."""

FREE = 0xFFFF


@kernel
def maglev(payload, service, selection):
    """The target of the place in the table that a hash of the client's address and port leads to, or of another place."""
    row = selection.services[service]
    number = multiply(selection.client[0], 0, selection.client[1], 0)
    for _ in range(MOST_TRIES):
        member = int64(selection.table[row.table + (number * row.places >> 32)])
        if is_available(selection, service, member):
            return member
        number = mixed(number ^ AGAIN)
    for member in range(row.members):
        if is_available(selection, service, member):
            return member
    return NO_MATCH


@kernel
def fill(table, offset, skip, weight):
    """Fills a table (uint16) from the permutations of the members, by `offset`, `skip` and `weight` (int64 [n], not all 0).

    In each round a member gains its weight, and for as much as the heaviest has it takes the next place of its own order.
    """
    places, heaviest, filled, turn = table.shape[0], 0, 0, 0
    for member in range(weight.shape[0]):
        heaviest = max(heaviest, weight[member])
    table[:] = FREE
    while filled < places:
        turn += 1
        for member in range(weight.shape[0]):
            earned = turn * weight[member] // heaviest - (turn - 1) * weight[member] // heaviest
            while earned > 0 and filled < places:
                place = offset[member]
                offset[member] = (place + skip[member]) % places
                if int64(table[place]) == FREE:
                    table[place] = member
                    filled += 1
                    earned = 0


def make_table(names, weights):
    """Returns the table (uint16) of members with these `names` (str) and `weights` (int): the same in every engine."""
    places = SMALL if len(names) * 100 <= SMALL else LARGE
    digests = [hashlib.sha256(name.encode()).digest() for name in names]
    offset = np.array([int.from_bytes(digest[:8], "big") % places for digest in digests], np.int64)
    skip = np.array([int.from_bytes(digest[8:16], "big") % (places - 1) + 1 for digest in digests], np.int64)
    weight, table = np.array(weights, np.int64), np.zeros(places, np.uint16)
    if weight.any():
        fill(table, offset, skip, weight)
    return table
