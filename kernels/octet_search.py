"""Searching a stream for octets however it is cut: Knuth, Morris and Pratt (SIAM J. Comput. 6, 1977).

What is kept between two pieces is how many octets at the end of the stream are the first ones of the pattern.
"""
from numpy import int64

from .jit import kernel


def failures(pattern):
    """Returns the failure table of a pattern (bytes, at most 255): for each of its beginnings, up to and with that octet, the
    length of the longest shorter beginning that is its end as well (list of int)."""
    table, length = [0] * len(pattern), 0
    for at in range(1, len(pattern)):
        while length and pattern[at] != pattern[length]:
            length = table[length - 1]
        length += pattern[at] == pattern[length]
        table[at] = length
    return table


@kernel
def advance(rule, octets, matched, octet):
    """Returns how many of the first octets of a rule's `search` end with `octet`, before which `matched` did, fewer than all."""
    while matched > 0 and octets[rule.search + matched] != octet:
        matched = int64(octets[rule.search + rule.search_length + matched - 1])
    return matched + int64(octets[rule.search + matched] == octet)


@kernel
def is_searched(rule, position):
    """Says whether the octet with that number in the stream is among those that a rule searches."""
    return rule.first == 0 or position < rule.first
