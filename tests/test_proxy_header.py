"""PROXY headers, octet by octet: against a plain reference, every cut of them, and whatever else may come (proxy-protocol.txt)."""
import ipaddress
import re

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from kernel_bed import generated
from pipeline.configuration.models import HEADER_ROOM as KEPT
from pipeline.kernels.proxy_header import HEADER_ROOM, INCOMPLETE, LONGEST_TEXT, MALFORMED, V1, V2, read_header, write_header

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
MOST = 2048
origins = st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 65535), st.integers(0, 2**32 - 1), st.integers(0, 65535))


def reference_written(version, origin):
    """Returns the header (bytes) of an origin."""
    source, source_port, destination, destination_port = origin
    if version == V1:
        return f"PROXY TCP4 {ipaddress.IPv4Address(source)} {ipaddress.IPv4Address(destination)} {source_port} {destination_port}\r\n".encode()
    return (SIGNATURE + b"\x21\x11\0\x0c" + source.to_bytes(4, "big") + destination.to_bytes(4, "big")
            + source_port.to_bytes(2, "big") + destination_port.to_bytes(2, "big"))


def text_read(octets):
    """Returns what a header of version 1 comes to: (length or answer, origin or None)."""
    line = octets[:LONGEST_TEXT].partition(b"\n")
    if not line[1]:
        return (INCOMPLETE if len(octets) < LONGEST_TEXT else MALFORMED), None
    told, length = line[0], len(line[0]) + 1
    if not told.startswith(b"PROXY ") or not told.endswith(b"\r"):
        return MALFORMED, None
    if re.match(rb"PROXY (UNKNOWN|TCP6 )", told[:-1]):
        return length, None
    number = rb"(0|[1-9][0-9]*)"
    fields = re.fullmatch(rb"PROXY TCP4 " + rb"\.".join([number] * 4) + b" " + rb"\.".join([number] * 4) + b" " + number + b" " + number, told[:-1])
    if not fields:
        return MALFORMED, None
    numbers = [int(field) for field in fields.groups()]
    if max(numbers[:8]) > 255 or max(numbers[8:]) > 65535:
        return MALFORMED, None
    return length, (int.from_bytes(numbers[:4], "big"), numbers[8], int.from_bytes(numbers[4:8], "big"), numbers[9])


def reference_read(octets):
    """Returns what a header comes to: (length or answer, origin or None)."""
    if octets[:1] == b"P":
        return text_read(octets) if b"PROXY ".startswith(octets[:6]) else (MALFORMED, None)
    if not SIGNATURE.startswith(octets[:12]):
        return MALFORMED, None
    if len(octets) < 16:
        return INCOMPLETE, None
    command, family, size = octets[12], octets[13], int.from_bytes(octets[14:16], "big")
    known = command == 0x21 and family == 0x11
    if command not in (0x20, 0x21) or family >> 4 > 3 or family & 15 > 2 or 16 + size > MOST or (known and size < 12):
        return MALFORMED, None
    if len(octets) < 16 + size:
        return INCOMPLETE, None
    if not known:
        return 16 + size, None
    ends = octets[16:28]
    return 16 + size, (int.from_bytes(ends[:4], "big"), int.from_bytes(ends[8:10], "big"),
                       int.from_bytes(ends[4:8], "big"), int.from_bytes(ends[10:12], "big"))


def read(octets):
    """Returns what the kernel makes of them, and asserts that it looks at nothing behind: that is changed, and the answer is not."""
    answers = []
    for behind in (0, 0x31, 0x0A):
        room, origin = np.full(len(octets) + 64, behind, np.uint8), np.full(4, -1, np.int64)
        room[:len(octets)] = np.frombuffer(octets, np.uint8)
        length = int(read_header(room[:len(octets)], len(octets), MOST, origin))
        answers.append((length, None if origin[0] < 0 else tuple(map(int, origin))))
    assert answers[0] == answers[1] == answers[2]
    return answers[0]


@generated
@given(origins, st.sampled_from([V1, V2]))
@example((0xFFFFFFFF, 65535, 0xFFFFFFFF, 65535), V1)
@example((0, 0, 0, 0), V1)
def test_what_is_written_is_the_reference_and_reads_back_from_every_cut(origin, version):
    octets = np.zeros(HEADER_ROOM, np.uint8)
    length = int(write_header(octets, version, np.array(origin, np.int64)))
    written = octets[:length].tobytes()
    assert written == reference_written(version, origin)
    assert read(written + b"GET /") == (length, origin)
    for cut in range(length):
        assert read(written[:cut]) == (INCOMPLETE, None)


@st.composite
def nearly_headers(draw):
    """Headers with octets changed, taken out, put in, and with lengths that lie."""
    octets = bytearray(reference_written(draw(st.sampled_from([V1, V2])), draw(origins)))
    for _ in range(draw(st.integers(0, 4))):
        at, octet = draw(st.integers(0, max(len(octets) - 1, 0))), draw(st.integers(0, 255) | st.sampled_from(b" .\r\n0159PT"))
        kind = draw(st.integers(0, 2))
        octets[at:at + (kind != 2)] = b"" if kind == 0 else bytes([octet])
    return bytes(octets) + draw(st.binary(max_size=150))


@generated
@given(nearly_headers() | st.binary(max_size=64) | st.binary(max_size=40).map(lambda rest: SIGNATURE + rest)
       | st.text("PROXY TCP46UNKW0123456789.: \r\n", max_size=120).map(lambda text: b"PROXY " + text.encode()))
@example(b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n")
@example(b"PROXY TCP4 256.0.0.1 1.1.1.1 1 1\r\n")
@example(b"PROXY TCP4 1.1.1.1 1.1.1.1 1 1\n")
@example(b"PROXY \n")
@example(SIGNATURE + b"\x21\x11\xff\xff")
@example(SIGNATURE + b"\x21\x11\0\x0b" + bytes(11))
def test_whatever_comes_is_read_as_by_the_reference_and_no_further_than_it_goes(octets):
    assert read(octets) == reference_read(octets)


def test_the_configuration_keeps_as_much_room_as_the_longest_header_takes():
    assert KEPT == HEADER_ROOM >= LONGEST_TEXT and KEPT % 64 == 0
