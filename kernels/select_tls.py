"""Select kernels by what a TLS client asks for: the server's name, or the protocol within. The slot `select`."""
from numpy import int64

from .jit import apart, kernel
from .rules import find_rule, fits
from .services import NEED_MORE, NO_MATCH

RECORD_HEADER, MOST_OF_RECORD, HANDSHAKE, MAJOR_VERSION = 5, 16384, 22, 3
"""TLSPlaintext (RFC 8446, section 5.1): type, version, length (16 bits)."""
MESSAGE_HEADER, CLIENT_HELLO = 4, 1
"""Handshake (section 4): type, length (24 bits)."""
BEFORE_SESSION = 2 + 32
"""ClientHello (section 4.1.2): version and random, before the session id."""
SERVER_NAME, HOST_NAME, ALPN = 0, 0, 16
"""Extensions (RFC 6066, section 3, and RFC 7301, section 3.1)."""


@kernel
def number_at(octets, at, size):
    """Returns the number of `size` bytes at `at`, the highest first; there are that many."""
    number = 0
    for place in range(at, at + size):
        number = number << 8 | int64(octets[place])
    return number


@kernel
def assemble_hello(payload, room):
    """Puts the ClientHello together in `room`, without its header; returns how long it is, NEED_MORE or NO_MATCH.

    It may come in several records, whose fragments are never empty (RFC 8446, section 5.1).
    """
    at, filled, total = 0, 0, MESSAGE_HEADER
    while filled < total:
        if payload.shape[0] > at and payload[at] != HANDSHAKE or payload.shape[0] > at + 1 and payload[at + 1] != MAJOR_VERSION:
            return NO_MATCH
        if payload.shape[0] < at + RECORD_HEADER:
            return NEED_MORE
        length = number_at(payload, at + 3, 2)
        if length == 0 or length > MOST_OF_RECORD:
            return NO_MATCH
        at += RECORD_HEADER
        for place in range(at, min(at + length, payload.shape[0])):
            if filled == room.shape[0]:
                return NO_MATCH
            room[filled] = payload[place]
            filled += 1
        at += length
        if filled > 0 and room[0] != CLIENT_HELLO:
            return NO_MATCH
        if filled >= MESSAGE_HEADER:
            total = MESSAGE_HEADER + number_at(room, 1, 3)
        if total > room.shape[0]:
            return NO_MATCH
        if filled < total and at > payload.shape[0]:
            return NEED_MORE
    return total


@kernel
def find_extension(hello, wanted):
    """Returns where the content of an extension starts and stops in a ClientHello behind its header; (-1, -1) without it."""
    at = BEFORE_SESSION
    for size in (1, 2, 1):  # of the lengths of session id, cipher suites and compression methods
        if at + size > hello.shape[0]:
            return -1, -1
        at += size + number_at(hello, at, size)
    if at + 2 > hello.shape[0]:
        return -1, -1
    end = at + 2 + number_at(hello, at, 2)
    at += 2
    if end > hello.shape[0]:
        return -1, -1
    while at + 4 <= end:
        kind, start = number_at(hello, at, 2), at + 4
        at = start + number_at(hello, at + 2, 2)
        if at > end:
            return -1, -1
        if kind == wanted:
            return start, at
    return -1, -1


@kernel
def list_within(hello, start, stop):
    """Returns where a list with a length of 16 bits starts and stops in an extension that it fills; (-1, -1) where it does not."""
    if start < 0 or start + 2 > stop or start + 2 + number_at(hello, start, 2) != stop:
        return -1, -1
    return start + 2, stop


@apart
def tls_sni(payload, service, selection):
    """The rule for the server's name in a TLS ClientHello, in any case (RFC 6066, section 3)."""
    length = assemble_hello(payload, selection.assembled)
    if length < 0:
        return length
    hello = selection.assembled[MESSAGE_HEADER:length]
    start, stop = find_extension(hello, SERVER_NAME)
    start, stop = list_within(hello, start, stop)
    while start >= 0 and start + 3 <= stop:
        size = number_at(hello, start + 1, 2)
        if start + 3 + size > stop:
            return NO_MATCH
        if hello[start] == HOST_NAME:
            return find_rule(hello[start + 3:start + 3 + size], size, True, service, selection)
        start += 3 + size
    return NO_MATCH


@kernel
def offers(hello, start, stop, rule, patterns):
    """Says whether a rule's protocol is in a list of protocols (RFC 7301, section 3.1)."""
    while start < stop:
        size = int64(hello[start])
        if start + 1 + size > stop:
            return False
        if fits(hello[start + 1:start + 1 + size], size, rule, patterns, False):
            return True
        start += 1 + size
    return False


@apart
def tls_alpn(payload, service, selection):
    """The first rule for a protocol that a TLS ClientHello offers: the order of the rules counts, not the client's."""
    length = assemble_hello(payload, selection.assembled)
    if length < 0:
        return length
    hello = selection.assembled[MESSAGE_HEADER:length]
    start, stop = find_extension(hello, ALPN)
    start, stop = list_within(hello, start, stop)
    row = selection.services[service]
    for number in range(row.first_rule, row.first_rule + row.rules if start >= 0 else 0):
        rule = selection.rules[number]
        if offers(hello, start, stop, rule, selection.patterns):
            return int64(rule.member)
    return NO_MATCH
