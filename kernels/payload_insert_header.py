"""Payload kernel: inserts a line behind the request line of the first HTTP/1 request (RFC 9112, section 3). The slot `payload`."""
from numpy import int64

from .jit import kernel
from .payload_replace import move_back, put
from .shaping import END_CONNECTION

BEFORE, WITHIN, DONE = range(3)
"""user[0]: before the request line, within it, behind it (or there is none)."""
CR, LF, SPACE, TILDE = 13, 10, 32, 126
SEVEN_OCTETS = (1 << 56) - 1
VERSION = int.from_bytes(b"TTP/1.", "big")
"""What a request line ends with, but for its first letter and its last digit."""


@kernel
def step(user, octet):
    """Takes in an octet; returns whether the line goes behind it. user[1] has the last seven octets of the request line."""
    if user[0] == BEFORE and (octet == CR or octet == LF):
        return False
    user[0] = WITHIN
    if octet == LF:
        user[0] = DONE
        return user[1] >> 8 == VERSION
    if octet != CR:
        user[1] = ((user[1] << 8) | octet) & SEVEN_OCTETS
        if octet < SPACE or octet > TILDE:
            user[0] = DONE
    return False


@kernel
def insert_header(payload, length, position, tailroom, user, given):
    """The first request gets a header; what is no HTTP/1 request passes as it is."""
    if user[0] == DONE:
        return length
    rule, at = given.rows[given.number], 0
    while at < length and user[0] != DONE:
        at += 1
        if step(user, int64(payload[at - 1])):
            if tailroom < rule.replacement_length:
                return END_CONNECTION
            move_back(payload[at:], length - at, rule.replacement_length)
            put(payload, at, length + tailroom, given.octets, rule.replacement, rule.replacement_length)
            given.hits[given.number] += 1
            return length + rule.replacement_length
    return length
