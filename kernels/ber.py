"""BER as LDAP has it (RFC 4511, section 5.1: definite lengths only), in octets that a connection's cells keep, seven a cell."""
from .jit import kernel

PER_CELL = 7
MALFORMED = 0
LONG, MOST_LENGTH_OCTETS = 0x80, 4


@kernel
def octet_at(cells, at):
    """Returns octet `at`."""
    return (cells[at // PER_CELL] >> (8 * (at % PER_CELL))) & 0xFF


@kernel
def keep_octet(cells, at, octet):
    """Keeps octet `at`."""
    place, shift = at // PER_CELL, 8 * (at % PER_CELL)
    cells[place] = (cells[place] & ~(0xFF << shift)) | (octet << shift)


@kernel
def content_at(cells, count, at):
    """Returns where the content of the element at `at` begins, of `count` octets that are there; less than 0: so many octets,
    negated, are needed to tell; MALFORMED where its length is none."""
    if count < at + 2:
        return -(at + 2)
    first = octet_at(cells, at + 1)
    octets = first & 0x7F if first >= LONG else 0
    if first == LONG or octets > MOST_LENGTH_OCTETS:
        return MALFORMED
    return at + 2 + octets if count >= at + 2 + octets else -(at + 2 + octets)


@kernel
def length_at(cells, at):
    """Returns the length of the content of the element at `at`, whose head is there."""
    first, length = octet_at(cells, at + 1), 0
    if first < LONG:
        return first
    for number in range(first & 0x7F):
        length = (length << 8) | octet_at(cells, at + 2 + number)
    return length


@kernel
def put_head(payload, into, tag, length):
    """Writes a tag and a length of four octets; returns where the content goes."""
    payload[into], payload[into + 1] = tag, LONG | MOST_LENGTH_OCTETS
    for number in range(MOST_LENGTH_OCTETS):
        payload[into + 2 + number] = (length >> (24 - 8 * number)) & 0xFF
    return into + 2 + MOST_LENGTH_OCTETS


HEAD = 2 + MOST_LENGTH_OCTETS
"""Octets that `put_head` writes."""
