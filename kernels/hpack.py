"""HPACK (RFC 7541): integers, strings and the Huffman code, as far as the first header block of a connection needs them.

Its dynamic table is empty, and what the block itself adds to it are no pseudo-header fields that it could name again.
"""
import numpy as np
from numpy import int64

from .jit import kernel

_LENGTHS = bytes.fromhex(
    "0d171c1c1c1c1c1c1c181e1c1c1e1c1c1c1c1c1c1c1c1e1c1c1c1c1c1c1c1c1c"
    "060a0a0c0d06080b0a0a080b0806060605050506060606060606070 80f060c0a"
    "0d06070707070707070707070707070707070707070707070807080d130d0e06"
    "0f0506050605060606050707060606050607060505060707070707 0f0b0e0d1c"
    "141614141616161716171717171718171818161718171717171516171617 1718"
    "1615141616171715171616181516171715151615171617171416161617161617"
    "1a1a141316171619 1a1a1a1b1b1a18191315 1a1b1b1a1b1815151a1a1c1b1b1b"
    "14181415161515171616191918181a171a1b1a1a1b1b1b1b1b1c1b1b1b1b1b1a".replace(" ", "")) + b"\x1e"
"""Bits of the code of each octet and of the end of a string (appendix B): the code is canonical, these are all of it."""
END_OF_STRING, LONGEST_CODE, MOST_PADDING = 256, 30, 7
SYMBOLS = np.array(sorted(range(257), key=lambda symbol: (_LENGTHS[symbol], symbol)), np.int64)
COUNTS = np.bincount(np.frombuffer(_LENGTHS, np.uint8), minlength=LONGEST_CODE + 1).astype(np.int64)
"""How many codes there are of each length; each is one more than the one before it, those of a length behind all shorter ones."""
LONGEST_INTEGER = 28
"""Bits of an integer behind its first octet that are read: more stand for lengths that cannot be."""


@kernel
def read_integer(block, at, bits):
    """Returns the integer whose first octet, at `at`, gives it `bits` bits, and where the next octet is, or -1 (section 5.1)."""
    most = (1 << bits) - 1
    value = int64(block[at]) & most
    at += 1
    if value < most:
        return value, at
    for shift in range(0, LONGEST_INTEGER, 7):
        if at >= block.shape[0]:
            return 0, -1
        octet = int64(block[at])
        value += (octet & 0x7F) << shift
        at += 1
        if octet & 0x80 == 0:
            return value, at
    return 0, -1


@kernel
def read_string(block, at):
    """Returns where a string's octets start and stop, and whether they are Huffman's; start is -1 where it is cut (section 5.2)."""
    if at < 0 or at >= block.shape[0]:
        return -1, -1, False
    coded = block[at] & 0x80 != 0
    length, start = read_integer(block, at, 7)
    if start < 0 or start + length > block.shape[0]:
        return -1, -1, False
    return start, start + length, coded


@kernel
def decode_huffman(octets, room):
    """Writes what octets in Huffman's code stand for into `room`; returns how many there are, -1 where that is not right or not room."""
    code, first, before, bits, filled = 0, 0, 0, 0, 0
    for place in range(octets.shape[0] * 8):
        code = code << 1 | (int64(octets[place >> 3]) >> (7 - (place & 7)) & 1)
        bits += 1
        count = COUNTS[bits]
        if code - first < count:
            symbol = SYMBOLS[before + code - first]
            if symbol == END_OF_STRING or filled == room.shape[0]:
                return -1
            room[filled] = symbol
            filled += 1
            code, first, before, bits = 0, 0, 0, 0
        else:
            first, before = (first + count) << 1, before + count
            if bits == LONGEST_CODE:
                return -1
    return filled if bits <= MOST_PADDING and code == (1 << bits) - 1 else -1


@kernel
def decode_string(octets, coded, room):
    """Writes a string's text into `room`; returns its length, or -1."""
    if coded:
        return decode_huffman(octets, room)
    if octets.shape[0] > room.shape[0]:
        return -1
    for at in range(octets.shape[0]):
        room[at] = octets[at]
    return octets.shape[0]
