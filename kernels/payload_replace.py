"""Payload kernel: replaces octets by others, of the same length or another, however the stream is cut. The slot `payload`.

What may be the beginning of a match at the end of a piece is kept back until the next one, but for what its sender has pushed:
that may be all for now, and whoever waits for it must get it. So a match that lies across a push is passed as it is.
"""
from numpy import int64

from .jit import kernel
from .octet_search import advance, is_searched
from .shaping import END_CONNECTION


@kernel
def move_back(payload, length, tailroom):
    """Moves the first `length` octets to the end of the room behind them; what is made of them is then written from the start."""
    for at in range(length - 1, -1, -1):
        payload[at + tailroom] = payload[at]


@kernel
def put(payload, into, stop, octets, start, count):
    """Writes octets[start:start + count] to payload[into:stop]; returns where the next one goes, -1 without room for all."""
    if into < 0 or into + count > stop:
        return -1
    for number in range(count):
        payload[into + number] = octets[start + number]
    return into + count


@kernel
def pass_unmatched(payload, into, at, rule, given, before, matched):
    """Passes on what octet `at` has shown to be no part of a match: of the `before` that were kept back all but `matched`, and
    the octet itself where nothing matches. Returns where the next one goes, -1 without room."""
    octet, released = payload[at], before + 1 - matched
    into = put(payload, into, at + 1, given.octets, rule.search, min(released, before))
    if released > before and into >= 0:
        if into > at:
            return -1
        payload[into] = octet
        into += 1
    return into


@kernel
def replace(payload, length, position, tailroom, user, given):
    """Each match of `search`, from the left, that ends within the `first` octets, becomes `replace`; user[0] are kept back.

    A piece that has no room for what it becomes ends the connection: to pass it as it is would be a way around.
    """
    rule, into, matched = given.rows[given.number], 0, user[0]
    move_back(payload, length, tailroom)
    for at in range(tailroom, tailroom + length):
        before, matched = matched, 0
        if is_searched(rule, position + at - tailroom):
            matched = advance(rule, given.octets, before, int64(payload[at]))
        if matched == rule.search_length:
            into = put(payload, into, at + 1, given.octets, rule.replacement, rule.replacement_length)
            given.hits[given.number] += 1
            matched = 0
        else:
            into = pass_unmatched(payload, into, at, rule, given, before, matched)
        if into < 0:
            return END_CONNECTION
    if given.pushed != 0:
        into = put(payload, into, length + tailroom, given.octets, rule.search, matched)
        matched = 0
    user[0] = matched
    return into if into >= 0 else END_CONNECTION
