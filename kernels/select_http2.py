"""Select kernels by the first request of an HTTP/2 connection with prior knowledge (RFC 9113). The slot `select`."""
import numpy as np
from numpy import int64

from .hpack import decode_string, read_integer, read_string
from .jit import apart, kernel
from .rules import find_rule
from .select_content import QUESTION_MARK, find_octet, without_port
from .select_tls import number_at
from .services import NEED_MORE, NO_MATCH

PREFACE = np.frombuffer(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", np.uint8)
FRAME_HEADER, MOST_OF_FRAME = 9, 16384
"""A frame (section 4.1): length (24 bits), type, flags, stream. No larger one is sent before the server has allowed it."""
HEADERS, SETTINGS, CONTINUATION = 1, 4, 9
END_HEADERS, PADDED, PRIORITY, PRIORITY_LENGTH = 4, 8, 0x20, 5
AUTHORITY_INDEX, PATH_INDEX, INDEX_PATH_INDEX, HOST_INDEX = 1, 4, 5, 38
"""Places in HPACK's static table (RFC 7541, appendix A); the two paths there are / and /index.html."""
OTHER, AUTHORITY, PATH, HOST = 0, 1, 2, 3
AUTHORITY_NAME = np.frombuffer(b":authority", np.uint8)
PATH_NAME = np.frombuffer(b":path", np.uint8)
HOST_NAME = np.frombuffer(b"host", np.uint8)
INDEX_PATH = np.frombuffer(b"/index.html", np.uint8)


@kernel
def check_preface(payload):
    """Returns 0 where a payload begins with the client's preface (section 3.4), NEED_MORE or NO_MATCH."""
    for at in range(min(PREFACE.shape[0], payload.shape[0])):
        if payload[at] != PREFACE[at]:
            return NO_MATCH
    return 0 if payload.shape[0] >= PREFACE.shape[0] else NEED_MORE


@kernel
def fragment(payload, start, stop, flags):
    """Returns where the header block's part of a HEADERS frame starts and stops (section 6.2), start > stop where it cannot."""
    padding = 0
    if flags & PADDED:
        if start >= stop:
            return 1, 0
        padding = int64(payload[start])
        start += 1
    if flags & PRIORITY:
        start += PRIORITY_LENGTH
    return start, stop - padding


@kernel
def assemble_block(payload, room):
    """Puts the first header block together in `room`; returns how long it is, NEED_MORE or NO_MATCH.

    Its frames follow one another, of one stream (section 6.10); the first frame of all is SETTINGS (section 3.4).
    """
    at, filled, stream = int64(PREFACE.shape[0]), 0, 0
    found = check_preface(payload)
    if found < 0:
        return found
    while at + FRAME_HEADER <= payload.shape[0]:
        length, kind, flags = number_at(payload, at, 3), int64(payload[at + 3]), int64(payload[at + 4])
        of_stream, start = number_at(payload, at + 5, 4) & 0x7FFFFFFF, at + FRAME_HEADER
        wrong = length > MOST_OF_FRAME or at == PREFACE.shape[0] and kind != SETTINGS
        if wrong or (kind == CONTINUATION) != (stream != 0) or stream != 0 and of_stream != stream:
            return NO_MATCH
        at = start + length
        if kind != HEADERS and kind != CONTINUATION:
            continue
        if at > payload.shape[0]:
            return NEED_MORE
        stop, stream = at, of_stream
        if kind == HEADERS:
            start, stop = fragment(payload, start, stop, flags)
        if start > stop or stream == 0 or stop - start > room.shape[0] - filled:
            return NO_MATCH
        for place in range(start, stop):
            room[filled] = payload[place]
            filled += 1
        if flags & END_HEADERS:
            return filled
    return NEED_MORE


@kernel
def is_text(octets, text):
    """Says whether two arrays hold the same bytes."""
    if octets.shape[0] != text.shape[0]:
        return False
    for at in range(text.shape[0]):
        if octets[at] != text[at]:
            return False
    return True


@kernel
def field_named(name):
    """Returns which field a name in a header block is."""
    if is_text(name, AUTHORITY_NAME):
        return AUTHORITY
    if is_text(name, PATH_NAME):
        return PATH
    return HOST if is_text(name, HOST_NAME) else OTHER


@kernel
def field_at_index(index):
    """Returns which field has an index of HPACK's static table."""
    if index == AUTHORITY_INDEX:
        return AUTHORITY
    if index == PATH_INDEX or index == INDEX_PATH_INDEX:
        return PATH
    return HOST if index == HOST_INDEX else OTHER


@kernel
def read_name(block, at, bits, room):
    """Returns which field a literal one with the index at `at` is, and where its value is, or -1 (RFC 7541, section 6.2)."""
    index, after = read_integer(block, at, bits)
    if after < 0 or index > 0:
        return field_at_index(index), after
    start, stop, coded = read_string(block, after)
    if start < 0:
        return OTHER, -1
    length = decode_string(block[start:stop], coded, room)
    if length < 0:
        return OTHER, -1
    return field_named(room[:length]), stop


@kernel
def write_indexed(index, room):
    """Writes the value that a path of the static table has; returns its length, 0 for other fields."""
    if index == PATH_INDEX and room.shape[0] > 0:
        room[0] = INDEX_PATH[0]
        return 1
    if index == INDEX_PATH_INDEX:
        return decode_string(INDEX_PATH, False, room)
    return 0


@kernel
def find_field(block, wanted, room):
    """Writes the value of the first field that is `wanted` into `room`; returns its length, NO_MATCH without one.

    Where there is no authority, the Host field stands for it (RFC 9113, section 8.3.1).
    """
    at, kept, kept_stop, kept_coded = 0, -1, -1, False
    while at >= 0 and at < block.shape[0]:
        octet = int64(block[at])
        if octet & 0x80:
            index, at = read_integer(block, at, 7)
            if at >= 0 and field_at_index(index) == wanted:
                return write_indexed(index, room)
        elif octet & 0xE0 == 0x20:
            _, at = read_integer(block, at, 5)
        else:
            field, at = read_name(block, at, 6 if octet & 0x40 else 4, room)
            start, at, coded = read_string(block, at)
            if start >= 0 and field == wanted:
                return decode_string(block[start:at], coded, room)
            if start >= 0 and field == HOST and kept < 0:
                kept, kept_stop, kept_coded = start, at, coded
    if at < 0 or wanted != AUTHORITY or kept < 0:
        return NO_MATCH
    return decode_string(block[kept:kept_stop], kept_coded, room)


@apart
def http2_path(payload, service, selection):
    """The first rule that begins the path of an HTTP/2 request, or is all of it without the query where it is an exact one."""
    length = assemble_block(payload, selection.assembled)
    if length < 0:
        return length
    room = selection.assembled[length:]
    size = find_field(selection.assembled[:length], PATH, room)
    if size < 0:
        return NO_MATCH
    query = find_octet(room[:size], QUESTION_MARK, 0)
    return find_rule(room[:size], query if query >= 0 else size, False, service, selection)


@apart
def http2_authority(payload, service, selection):
    """The rule for the authority of an HTTP/2 request, in any case, its port left out."""
    length = assemble_block(payload, selection.assembled)
    if length < 0:
        return length
    room = selection.assembled[length:]
    size = find_field(selection.assembled[:length], AUTHORITY, room)
    if size < 0:
        return NO_MATCH
    size = without_port(room[:size])
    return find_rule(room[:size], size, True, service, selection)
