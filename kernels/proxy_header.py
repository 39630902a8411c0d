"""PROXY header: the octets by which a proxy tells whose connection it passes on (HAProxy's proxy-protocol.txt, versions 1 and 2).

An origin is int64[4]: address and port of the client, then the address and port that it has connected to.
"""
import numpy as np
from numpy import int64

from .jit import kernel

V1, V2 = 1, 2
INCOMPLETE, MALFORMED = 0, -1
"""What `read_header` answers instead of a length."""
TEXT_START = np.frombuffer(b"PROXY ", np.uint8)
TEXT_FAMILY = np.frombuffer(b"TCP4 ", np.uint8)
TEXT_OTHER = np.frombuffer(b"TCP6 ", np.uint8)
TEXT_UNKNOWN = np.frombuffer(b"UNKNOWN", np.uint8)
SIGNATURE = np.frombuffer(b"\r\n\r\n\0\r\nQUIT\n", np.uint8)
LONGEST_TEXT = 107
"""Octets of a header of version 1, line end and all (section 2.1)."""
FIXED, INET = 16, 12
"""Octets of version 2 before the addresses, and of two IPv4 addresses with their ports (section 2.2)."""
PROXIED, LOCAL = 0x21, 0x20
STREAM_INET = 0x11
HIGHEST_FAMILY, HIGHEST_PROTOCOL = 3, 2
HEADER_ROOM = 128
"""Octets that are kept for a header that is sent: a multiple of 64 that the longest one fits in."""
SPACE, DOT, ZERO, CARRIAGE_RETURN, LINE_FEED = 0x20, 0x2E, 0x30, 0x0D, 0x0A


@kernel
def write_octets(octets, at, constant):
    """Writes constant octets; returns where they end."""
    for number in range(constant.shape[0]):
        octets[at + number] = constant[number]
    return at + constant.shape[0]


@kernel
def write_decimal(octets, at, value):
    """Writes a number in decimal digits; returns where they end."""
    size, rest = 1, value // 10
    while rest > 0:
        size, rest = size + 1, rest // 10
    rest = value
    for place in range(size):
        octets[at + size - 1 - place] = ZERO + rest % 10
        rest //= 10
    return at + size


@kernel
def write_dotted(octets, at, address):
    """Writes an IPv4 address as text; returns where it ends."""
    for shift in range(24, -1, -8):
        at = write_decimal(octets, at, (address >> shift) & 0xFF)
        if shift > 0:
            octets[at] = DOT
            at += 1
    return at


@kernel
def write_number(octets, at, value, size):
    """Writes a number in network byte order; returns where it ends."""
    for place in range(size):
        octets[at + place] = (value >> (8 * (size - 1 - place))) & 0xFF
    return at + size


@kernel
def write_text_header(octets, origin):
    """Writes a header of version 1; returns its length."""
    at = write_octets(octets, write_octets(octets, 0, TEXT_START), TEXT_FAMILY)
    for field in range(4):
        value = int64(origin[field * 2 if field < 2 else field * 2 - 3])
        at = write_dotted(octets, at, value) if field < 2 else write_decimal(octets, at, value)
        octets[at] = SPACE
        at += 1
    octets[at - 1], octets[at] = CARRIAGE_RETURN, LINE_FEED
    return at + 1


@kernel
def write_binary_header(octets, origin):
    """Writes a header of version 2; returns its length."""
    at = write_octets(octets, 0, SIGNATURE)
    octets[at], octets[at + 1] = PROXIED, STREAM_INET
    at = write_number(octets, at + 2, INET, 2)
    at = write_number(octets, write_number(octets, at, int64(origin[0]), 4), int64(origin[2]), 4)
    return write_number(octets, write_number(octets, at, int64(origin[1]), 2), int64(origin[3]), 2)


@kernel
def write_header(octets, version, origin):
    """Writes the header of an origin in a version, into HEADER_ROOM octets; returns its length."""
    return write_text_header(octets, origin) if version == V1 else write_binary_header(octets, origin)


@kernel
def begins_with(octets, at, stop, constant):
    """Says whether what lies from `at` to below `stop` is `constant`, or the first part of it."""
    for number in range(min(constant.shape[0], stop - at)):
        if octets[at + number] != constant[number]:
            return False
    return True


@kernel
def has(octets, at, stop, constant):
    """Says whether `constant` lies at `at`, all of it below `stop`."""
    return stop - at >= constant.shape[0] and begins_with(octets, at, stop, constant)


@kernel
def read_decimal(octets, at, stop, most):
    """Reads a number of at most `most`, without leading zeros; returns it, or -1, and where it ends."""
    value, first = 0, at
    while at < stop and ZERO <= octets[at] <= ZERO + 9:
        value = value * 10 + int64(octets[at]) - ZERO
        at += 1
        if value > most:
            return -1, at
    if at == first or (octets[first] == ZERO and at > first + 1):
        return -1, at
    return value, at


@kernel
def read_dotted(octets, at, stop):
    """Reads an IPv4 address; returns it, or -1, and where it ends."""
    address = 0
    for place in range(4):
        part, at = read_decimal(octets, at, stop, 255)
        if part < 0:
            return -1, at
        address = address << 8 | part
        if place < 3:
            if at >= stop or octets[at] != DOT:
                return -1, at
            at += 1
    return address, at


@kernel
def read_text_addresses(octets, at, stop, origin):
    """Reads the four fields of version 1 that fill `at` to below `stop`; says whether they are right, and then sets `origin`."""
    source, at = read_dotted(octets, at, stop)
    if source < 0 or at >= stop or octets[at] != SPACE:
        return False
    destination, at = read_dotted(octets, at + 1, stop)
    if destination < 0 or at >= stop or octets[at] != SPACE:
        return False
    source_port, at = read_decimal(octets, at + 1, stop, 0xFFFF)
    if source_port < 0 or at >= stop or octets[at] != SPACE:
        return False
    destination_port, at = read_decimal(octets, at + 1, stop, 0xFFFF)
    if destination_port < 0 or at != stop:
        return False
    origin[0], origin[1], origin[2], origin[3] = source, source_port, destination, destination_port
    return True


@kernel
def read_text_header(octets, length, origin):
    """Reads a header of version 1, which is known to begin as one. See `read_header`."""
    stop, most = 0, min(length, LONGEST_TEXT)
    while stop < most and octets[stop] != LINE_FEED:
        stop += 1
    if stop == most:
        return INCOMPLETE if length < LONGEST_TEXT else MALFORMED
    at, end = TEXT_START.shape[0], stop - 1
    if end < at or octets[end] != CARRIAGE_RETURN:
        return MALFORMED
    if has(octets, at, end, TEXT_UNKNOWN) or has(octets, at, end, TEXT_OTHER):
        return stop + 1
    if has(octets, at, end, TEXT_FAMILY) and read_text_addresses(octets, at + TEXT_FAMILY.shape[0], end, origin):
        return stop + 1
    return MALFORMED


@kernel
def read_number(octets, at, size):
    """Reads a number in network byte order."""
    value = 0
    for place in range(size):
        value = value << 8 | int64(octets[at + place])
    return value


@kernel
def read_binary_header(octets, length, most, origin):
    """Reads a header of version 2, which is known to begin as one. See `read_header`."""
    if length < FIXED:
        return INCOMPLETE
    command, kind, size = int64(octets[12]), int64(octets[13]), read_number(octets, 14, 2)
    if command != PROXIED and command != LOCAL:
        return MALFORMED
    if kind >> 4 > HIGHEST_FAMILY or kind & 0x0F > HIGHEST_PROTOCOL or FIXED + size > most:
        return MALFORMED
    known = command == PROXIED and kind == STREAM_INET
    if known and size < INET:
        return MALFORMED
    if length < FIXED + size:
        return INCOMPLETE
    if known:
        origin[0], origin[2] = read_number(octets, 16, 4), read_number(octets, 20, 4)
        origin[1], origin[3] = read_number(octets, 24, 2), read_number(octets, 26, 2)
    return FIXED + size


@kernel
def read_header(octets, length, most, origin):
    """Reads the header that the first `length` octets begin with, of at most `most`; returns its length, INCOMPLETE or MALFORMED.

    Sets `origin` where the header tells one for TCP over IPv4; else (LOCAL, UNKNOWN, other families) the connection's own ends
    stand (sections 2.1 and 2.2). What follows the addresses in version 2 is skipped.
    """
    if length > 0 and octets[0] == TEXT_START[0]:
        if not begins_with(octets, 0, length, TEXT_START):
            return MALFORMED
        return read_text_header(octets, length, origin)
    if not begins_with(octets, 0, length, SIGNATURE):
        return MALFORMED
    return read_binary_header(octets, length, most, origin)
