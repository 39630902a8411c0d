"""What the generator's clients and servers say, and whether what they hear is that.

What is said in a connection is a stream of bytes that target and role determine: a text that names the target, four
bytes with the connection's serial number (a server repeats its client's), then filling. So both sides can tell, whatever
has become of the segments on their way, a wrong target (MISMATCHED), an answer to somebody else (CROSSED) and bytes that
have been changed (CORRUPTED).
"""
from numpy import int64

from .generator_ends import CORRUPTED, CROSSED, MISMATCHED, SERVER
from .jit import kernel
from .native import record_at

ROW, HEAD = 4096, 1024
"""Bytes that are kept of each stream's beginning, and how many of them a text can have."""
FILLING = 1 << 16
"""Bytes after which the filling begins again."""
SERIAL_LENGTH = 4


@kernel
def place_of(contents, role, target, position):
    """Returns where byte `position` of a stream stands in `contents`; at least 2,048 bytes follow in one piece."""
    rows, targets = contents.total.shape
    if position < HEAD:
        return (role * targets + target) * ROW + position
    return rows * targets * ROW + (position & (FILLING - 1))


@kernel
def write_payload(packets, at, contents, role, target, serial, position, length):
    """Writes bytes of a stream at byte offset `at` of the arena; returns their sum (RFC 1071), unfolded."""
    place, total, whole = place_of(contents, role, target, position), 0, length & ~3
    for offset in range(0, whole, 4):
        word = int64(record_at(contents.words, place + offset).value)
        record_at(packets.word32, at + offset).value = word
        total += word
    for offset in range(whole, length):
        octet = int64(contents.octets[place + offset])
        packets.octets[at + offset] = octet
        total += octet << (8 * (offset & 1))
    first = contents.serial_at[role, target] - position
    if first > -SERIAL_LENGTH and first < length:
        for number in range(SERIAL_LENGTH):
            offset = first + number
            if offset >= 0 and offset < length:
                octet = (serial >> (8 * number)) & 0xFF
                packets.octets[at + offset] = octet
                total += octet << (8 * (offset & 1))
    return total


@kernel
def differs(packets, at, contents, place, length):
    """Returns 0 where `length` bytes at offset `at` of the arena are those at `place`, else another number."""
    found, whole = 0, length & ~3
    for offset in range(0, whole, 4):
        found |= int64(record_at(packets.word32, at + offset).value) ^ int64(record_at(contents.words, place + offset).value)
    for offset in range(whole, length):
        found |= int64(packets.octets[at + offset]) ^ int64(contents.octets[place + offset])
    return found


@kernel
def is_of_another(packets, at, contents, role, target, length):
    """Says whether `length` bytes at the start of a stream are what is said to, or by, another target."""
    for other in range(contents.total.shape[1]):
        if other != target and differs(packets, at, contents, place_of(contents, role, other, 0), length) == 0:
            return True
    return False


@kernel
def read_serial(packets, at, end, role, first, length):
    """Reads as much of the serial number as a segment has; a server keeps it, a client is told whether it is its own."""
    wrong = 0
    for number in range(SERIAL_LENGTH):
        offset = first + number
        if offset >= 0 and offset < length:
            octet, shift = int64(packets.octets[at + offset]), 8 * number
            if role == SERVER:
                end.serial = (int64(end.serial) & ~(0xFF << shift)) | (octet << shift)
            else:
                wrong |= octet ^ ((int64(end.serial) >> shift) & 0xFF)
    return wrong


@kernel
def verify_payload(packets, at, contents, end, role, position, length):
    """Looks at the bytes from `position` on of what an end of `role` hears; returns what is wrong with them (flags), 0 if
    nothing."""
    speaker, target = 1 - role, int64(end.target)
    if position + length > contents.total[speaker, target]:
        return CORRUPTED
    first, wrong, bad = contents.serial_at[speaker, target] - position, 0, 0
    if first > -SERIAL_LENGTH and first < length:
        wrong = read_serial(packets, at, end, role, first, length)
    for part in range(2):
        start = 0 if part == 0 else min(max(first + SERIAL_LENGTH, 0), length)
        stop = min(max(first, 0), length) if part == 0 else length
        if first <= -SERIAL_LENGTH and part == 0:
            continue
        bad |= differs(packets, at + start, contents, place_of(contents, speaker, target, position) + start, stop - start)
    if bad != 0:
        text = min(length, max(first, 1)) if contents.serial_at[speaker, target] >= 0 else length
        return MISMATCHED if position == 0 and is_of_another(packets, at, contents, speaker, target, text) else CORRUPTED
    return CROSSED if wrong != 0 else 0
