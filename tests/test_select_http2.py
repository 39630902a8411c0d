"""`http2_path` and `http2_authority` against what a request was made of: HPACK in any spelling, frames in any cut, and damage."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_bed import generated
from select_bed import DAMAGES, ask, ask_all_cuts, damaged, selection

from pipeline.kernels import hpack
from pipeline.kernels.select_http2 import http2_authority, http2_path
from pipeline.kernels.services import NEED_MORE, NO_MATCH

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HOSTS = selection("http2_authority", "one.example", "*.two.example", "Host.example")
PATHS = selection("http2_path", "/", {"match": "/index.html", "exact": True}, "/a/")
STATIC = {":authority": 1, ":method": 2, ":path": 4, ":scheme": 6, "accept": 19, "host": 38, "user-agent": 58}
APPENDIX_C = [
    ("www.example.com", "f1e3c2e5f23a6ba0ab90f4ff"), ("no-cache", "a8eb10649cbf"), ("custom-key", "25a849e95ba97d7f"),
    ("Mon, 21 Oct 2013 20:13:21 GMT", "d07abe941054d444a8200595040b8166e082a62d1bff"), ("302", "6402"),
    ("https://www.example.com", "9d29ad171863c78f0b97c8e9ae82ae43d3"), ("gzip", "9bd9ab"),
    ("foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
     "94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007"),
]
"""Strings in the Huffman code of RFC 7541, appendix C.4 and C.6."""


def codes():
    """Returns the code of each octet as a text of binary digits, from the lengths alone: the code is canonical."""
    code, before, made = 0, 0, {}
    for symbol in hpack.SYMBOLS.tolist():
        length = int(hpack._LENGTHS[symbol])
        code <<= length - before
        made[symbol], before = f"{code:0{length}b}", length
        code += 1
    return made


CODES = codes()


def huffman(octets):
    """Returns octets in Huffman's code."""
    bits = "".join(CODES[octet] for octet in octets)
    bits += "1" * (-len(bits) % 8)
    return bytes(int(bits[at : at + 8], 2) for at in range(0, len(bits), 8))


def integer(value, bits, first):
    """Returns an integer behind the upper bits of its `first` octet."""
    most = (1 << bits) - 1
    if value < most:
        return bytes([first | value])
    octets, value = [first | most], value - most
    while value > 127:
        octets.append(value & 127 | 128)
        value >>= 7
    return bytes([*octets, value])


def string(text, coded):
    """Returns a string, in Huffman's code or as it is."""
    octets = huffman(text) if coded else text
    return integer(len(octets), 7, 0x80 if coded else 0) + octets


def field(name, value, form=0, indexed=True, coded=True):
    """Returns a literal field: form 0 is added to the dynamic table, 1 is not, 2 never is."""
    bits, first = ((6, 0x40), (4, 0), (4, 0x10))[form]
    if indexed and name in STATIC:
        return integer(STATIC[name], bits, first) + string(value, coded)
    return bytes([first]) + string(name.encode(), coded) + string(value, coded)


def frame(kind, flags, stream, content):
    """Returns an HTTP/2 frame."""
    return struct.pack("!I", len(content))[1:] + bytes([kind, flags]) + struct.pack("!I", stream) + content


def request(block, cuts=(), padding=None, priority=False, before=b""):
    """Returns a connection's first bytes: preface, SETTINGS, and a header block cut into frames."""
    parts, last = [], 0
    for cut in sorted(cut % (len(block) + 1) for cut in cuts):
        parts.append(block[last:cut])
        last = cut
    parts.append(block[last:])
    head = b"" if padding is None else bytes([padding])
    head += b"\x80\0\0\0\x10" if priority else b""
    flags = (8 if padding is not None else 0) | (0x20 if priority else 0)
    frames = [frame(1, flags | (4 if len(parts) == 1 else 0), 1, head + parts[0] + bytes(padding or 0))]
    frames += [frame(9, 4 if number == len(parts) - 1 else 0, 1, part) for number, part in enumerate(parts) if number]
    return PREFACE + frame(4, 0, 0, b"\0\3\0\0\0\x64") + before + b"".join(frames)


def by_authority(authority):
    """The member that HOSTS has for an authority."""
    host = authority.lower().split(b":")[0]
    known = {b"one.example": 0, b"host.example": 2}
    return known.get(host, 1 if host.endswith(b".two.example") and len(host) > 12 else NO_MATCH)


def by_path(path):
    """The member that PATHS has for a path."""
    if path.partition(b"?")[0] == b"/index.html":
        return 1
    return 2 if path.startswith(b"/a/") else 0 if path.startswith(b"/") else NO_MATCH


AUTHORITY = st.sampled_from([b"one.example", b"ONE.example:80", b"x.two.example", b"two.example", b"", b"h"])
PATH = st.sampled_from([b"/", b"/index.html", b"/index.html?a", b"/a/b", b"/a", b"*", b"/index.htm"]) | st.binary(max_size=20)
SPELLING = st.tuples(st.integers(0, 2), st.booleans(), st.booleans())
OTHERS = st.lists(st.sampled_from([b"\x82", b"\x86", b"\x3f\x81\x1f", b"\x20", b"\xbe", field("accept", b"*/*"),
                                   field("x-host", b"one.example", 1, False, False), field("user-agent", b"\xff" * 200)]), max_size=3)
CUTS = st.lists(st.integers(0, 300), max_size=3)
BEFORE = st.lists(st.sampled_from([frame(8, 0, 0, b"\0\0\1\0"), frame(4, 1, 0, b""), frame(6, 0, 0, bytes(8)),
                                   frame(0xBA, 0, 0, b"any")]), max_size=2).map(b"".join)


@pytest.mark.parametrize(("text", "coded"), APPENDIX_C)
def test_huffmans_code_is_that_of_the_rfc(text, coded):
    room = np.zeros(100, np.uint8)
    length = hpack.decode_huffman(np.frombuffer(bytes.fromhex(coded), np.uint8).copy(), room)
    assert room[:length].tobytes() == text.encode() and huffman(text.encode()).hex() == coded


@generated
@given(st.binary(max_size=40), st.integers(0, 60))
def test_huffmans_code_is_read_back(octets, size):
    room = np.full(100, 7, np.uint8)
    length = hpack.decode_huffman(np.frombuffer(huffman(octets) or b"", np.uint8).copy(), room[:size])
    assert length == (len(octets) if len(octets) <= size else -1) and (room[size:] == 7).all()
    assert length < 0 or room[:length].tobytes() == octets


@pytest.mark.parametrize("coded", ["ff", "fe", "fffffffc", "00fe", "1e", "ffffffff"])
def test_wrong_padding_and_the_end_of_a_string_are_not_read(coded):
    assert hpack.decode_huffman(np.frombuffer(bytes.fromhex(coded), np.uint8).copy(), np.zeros(9, np.uint8)) == -1


@generated
@given(AUTHORITY, PATH, SPELLING, SPELLING, OTHERS, OTHERS, CUTS, st.none() | st.integers(0, 20), st.booleans(), BEFORE)
def test_a_request_gets_what_it_was_made_of(authority, path, spelled, spelled_path, first, between, cuts, padding, priority, before):
    block = b"".join([*first, field(":authority", authority, *spelled), *between, field(":path", path, *spelled_path)])
    payload = request(block, cuts, padding, priority, before)
    assert ask_all_cuts(http2_authority, HOSTS, payload, 13) == by_authority(authority)
    assert ask_all_cuts(http2_path, PATHS, payload, 13) == by_path(path)


@pytest.mark.parametrize(("block", "authority", "path"), [
    (b"\x84", NO_MATCH, 0), (b"\x85", NO_MATCH, 1), (b"\x82\x86\x84" + field("host", b"host.example"), 2, 0),
    (field("host", b"host.example") + field(":authority", b"one.example"), 0, NO_MATCH), (b"", NO_MATCH, NO_MATCH),
    (b"\x81" + field("host", b"host.example"), NO_MATCH, NO_MATCH), (b"\xff\xff\xff\xff\xff\xff\xff", NO_MATCH, NO_MATCH),
    (b"\x41\xff\xff\xff\xff\xff\x0f", NO_MATCH, NO_MATCH), (b"\x41\x0cone.example", NO_MATCH, NO_MATCH),
])
def test_blocks_of_all_sorts(block, authority, path):
    assert ask_all_cuts(http2_authority, HOSTS, request(block)) == authority
    assert ask_all_cuts(http2_path, PATHS, request(block)) == path


@pytest.mark.parametrize("payload", [
    b"PRI * HTTP/1", b"GET / HTTP/1.1\r\n\r\n", PREFACE + frame(1, 4, 1, b"\x84"), PREFACE + frame(4, 0, 0, b"") + frame(9, 4, 1, b"\x84"),
    PREFACE + frame(4, 0, 0, b"") + frame(1, 0, 1, b"") + frame(9, 4, 3, b"\x84"),
    PREFACE + frame(4, 0, 0, b"") + frame(1, 0, 1, b"") + frame(6, 0, 0, bytes(8)),
    PREFACE + frame(4, 0, 0, b"") + frame(1, 4, 0, b"\x84"), PREFACE + frame(4, 0, 0, b"") + frame(1, 12, 1, b"\x02\x84"),
    PREFACE + frame(4, 0, 0, b"") + frame(1, 12, 1, b""), PREFACE + frame(4, 0, 0, b"") + b"\0\x40\1\1\4\0\0\0\1",
    PREFACE + frame(4, 0, 0, b"") + frame(1, 0x24, 1, b"\x84")])
def test_what_is_no_request_does_not_wait_for_more(payload):
    assert ask_all_cuts(http2_path, PATHS, payload) == ask_all_cuts(http2_authority, HOSTS, payload) == NO_MATCH


@generated
@given(AUTHORITY, PATH, SPELLING, OTHERS, CUTS, DAMAGES)
def test_damaged_requests_are_answered_and_nothing_is_taken_back(authority, path, spelled, others, cuts, damages):
    block = b"".join([field(":authority", authority, *spelled), *others, field(":path", path, *spelled)])
    payload = damaged(request(block, cuts), damages)
    ask_all_cuts(http2_authority, HOSTS, payload, 5)
    ask_all_cuts(http2_path, PATHS, payload, 5)


@generated
@given(st.binary(max_size=60))
def test_any_block_is_answered(block):
    assert ask(http2_authority, HOSTS, request(block)) != NEED_MORE
    assert ask(http2_path, PATHS, request(block)) != NEED_MORE
