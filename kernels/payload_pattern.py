"""Payload kernels that look for a pattern, however the stream is cut, and change nothing. The slot `payload`."""
from numpy import int64

from .jit import kernel
from .octet_search import advance, is_searched
from .shaping import END_CONNECTION


@kernel
def count_matches(payload, length, position, user, given):
    """Returns how many matches of `search`, none overlapping another, end in payload[:length]; user[0] octets of the next one
    have come."""
    rule, matched, found = given.rows[given.number], user[0], 0
    for at in range(length):
        if not is_searched(rule, position + at):
            break
        matched = advance(rule, given.octets, matched, int64(payload[at]))
        if matched == rule.search_length:
            found, matched = found + 1, 0
    user[0] = matched
    return found


@kernel
def count_pattern(payload, length, position, tailroom, user, given):
    """Counts matches."""
    given.hits[given.number] += count_matches(payload, length, position, user, given)
    return length


@kernel
def refuse_pattern(payload, length, position, tailroom, user, given):
    """Ends the connection at the first match; what it ends in reaches nobody."""
    if count_matches(payload, length, position, user, given) == 0:
        return length
    given.hits[given.number] += 1
    return END_CONNECTION
