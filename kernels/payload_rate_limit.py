"""Payload kernel: limits how fast a connection sends, by dropping what is too fast. The slot `payload`.

A token bucket that polices (RFC 2697 has one): what comes while there are tokens passes and may take more of them than there
are; what comes while there are none is dropped, for its sender to repeat. So in any time t at most `burst` + `rate` * t octets
and one segment pass. No packet is kept.
"""
from .jit import kernel
from .shaping import SHOW_AGAIN

SECOND = 1_000_000
"""Tokens are counted in millionths of an octet: a microsecond brings `rate` of them."""


@kernel
def rate_limit(payload, length, position, tailroom, user, given):
    """user[0]: tokens; user[1]: when they were counted, in microseconds. The first piece always passes."""
    rule, full = given.rows[given.number], given.rows[given.number].burst * SECOND
    if position == 0:
        user[0], user[1] = full, given.now
    passed = min(max(given.now - user[1], 0), (full - user[0]) // rule.rate + 1)
    user[0], user[1] = min(user[0] + passed * rule.rate, full), given.now
    if user[0] <= 0:
        given.hits[given.number] += 1
        return SHOW_AGAIN
    user[0] -= length * SECOND
    return length
