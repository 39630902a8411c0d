"""`tls_sni` and `tls_alpn` against a reference over bytes, with ClientHellos of OpenSSL's and our own, in any records, cut and damaged."""

import ssl
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_bed import generated
from select_bed import DAMAGES, ask, ask_all_cuts, damaged, selection

from pipeline.kernels.select_tls import tls_alpn, tls_sni
from pipeline.kernels.services import NEED_MORE, NO_MATCH

NAMES = selection("tls_sni", "one.example", "*.Two.example", "x.two.example")
PROTOCOLS = selection("tls_alpn", "h2", "http/1.1", "mqtt")


def named(name):
    """The member that NAMES has for a server's name (bytes)."""
    name = name.lower()
    return {b"one.example": 0, b"x.two.example": 2}.get(name, 1 if name.endswith(b".two.example") and len(name) > 12 else NO_MATCH)


def offered(protocols):
    """The member that PROTOCOLS has for a list of protocols (bytes)."""
    return next((member for member, name in enumerate((b"h2", b"http/1.1", b"mqtt")) if name in protocols), NO_MATCH)


class Reader:
    """Takes fields off the front of bytes; raises ValueError where they end first."""

    def __init__(self, octets):
        self.octets = octets

    def take(self, count):
        """Returns the next `count` bytes."""
        if count > len(self.octets):
            raise ValueError
        taken, self.octets = self.octets[:count], self.octets[count:]
        return taken

    def vector(self, size):
        """Returns the content of a vector whose length has `size` bytes."""
        return self.take(int.from_bytes(self.take(size), "big"))


def hello_of(payload):
    """Returns the ClientHello in a payload's records, NEED_MORE or NO_MATCH."""
    message = b""
    while True:
        if message[:1] not in (b"", b"\1"):
            return NO_MATCH
        if len(message) >= 4 and len(message) - 4 >= int.from_bytes(message[1:4], "big"):
            return message[4 : 4 + int.from_bytes(message[1:4], "big")]
        if len(message) >= 4 and int.from_bytes(message[1:4], "big") + 4 > 4 * 4096:
            return NO_MATCH
        if payload[:1] not in (b"", b"\x16") or payload[1:2] not in (b"", b"\3"):
            return NO_MATCH
        if len(payload) < 5:
            return NEED_MORE
        length = int.from_bytes(payload[3:5], "big")
        if not 1 <= length <= 16384:
            return NO_MATCH
        message, payload = message + payload[5 : 5 + length], payload[5 + length :]


def extension_of(hello, wanted):
    """Returns the list in an extension of a ClientHello, which may end behind it in any way; None without it."""
    reader = Reader(hello)
    try:
        reader.take(34)
        for size in (1, 2, 1):
            reader.vector(size)
        extensions = Reader(reader.vector(2))
        while True:
            kind, content = int.from_bytes(extensions.take(2), "big"), extensions.vector(2)
            if kind == wanted:
                inner = Reader(content)
                listed = inner.vector(2)
                return None if inner.octets else listed
    except ValueError:
        return None


def by_name(payload):
    """What `tls_sni` should answer."""
    hello = hello_of(payload)
    listed = Reader(extension_of(hello, 0) or b"") if isinstance(hello, bytes) else None
    if listed is None:
        return hello
    try:
        while True:
            kind, name = listed.take(1), listed.vector(2)
            if kind == b"\0":
                return named(name)
    except ValueError:
        return NO_MATCH


def by_protocol(payload):
    """What `tls_alpn` should answer, where the list is in order."""
    hello, names = hello_of(payload), []
    if not isinstance(hello, bytes):
        return hello
    listed = Reader(extension_of(hello, 16) or b"")
    try:
        while listed.octets:
            names.append(listed.vector(1))
    except ValueError:
        pass
    return offered(names)


def openssl_hello(name, protocols):
    """Returns the ClientHello that OpenSSL sends for a server's name and protocols (strs)."""
    context, sent = ssl.create_default_context(), ssl.MemoryBIO()
    if protocols:
        context.set_alpn_protocols(protocols)
    try:
        context.wrap_bio(ssl.MemoryBIO(), sent, server_hostname=name).do_handshake()
    except ssl.SSLWantReadError:
        return sent.read()


def in_records(hello, lengths):
    """Returns a handshake message in records of these lengths, the rest in one."""
    records = []
    for length in lengths:
        records.append(hello[:length])
        hello = hello[length:]
    return b"".join(b"\x16\3\1" + struct.pack("!H", len(part)) + part for part in [*records, hello] if part)


def made_hello(session, suites, extensions):
    """Returns a ClientHello message of these contents; `extensions` [(kind, content)]."""
    block = b"".join(struct.pack("!HH", kind, len(content)) + content for kind, content in extensions)
    body = b"\3\3" + bytes(32) + bytes([len(session)]) + session + struct.pack("!H", len(suites)) + suites + b"\1\0"
    body += struct.pack("!H", len(block)) + block
    return b"\1" + len(body).to_bytes(3, "big") + body


def server_names(names):
    """Returns the content of the extension server_name for [(kind, name)]."""
    listed = b"".join(bytes([kind]) + struct.pack("!H", len(name)) + name for kind, name in names)
    return struct.pack("!H", len(listed)) + listed


def protocol_names(names):
    """Returns the content of the extension for protocols."""
    listed = b"".join(bytes([len(name)]) + name for name in names)
    return struct.pack("!H", len(listed)) + listed


NAME = st.sampled_from([b"one.example", b"ONE.example", b"x.two.example", b"y.two.example", b"two.example", b".two.example", b"",
                        b"one.example."]) | st.binary(max_size=12)
PROTOCOL = st.sampled_from([b"h2", b"http/1.1", b"mqtt", b"h3", b"http/1.0", b"h"])
EXTENSION = st.one_of(
    st.builds(lambda names: (0, server_names(names)), st.lists(st.tuples(st.sampled_from([0, 0, 0, 1]), NAME), max_size=3)),
    st.builds(lambda names: (16, protocol_names(names)), st.lists(PROTOCOL, max_size=4)),
    st.tuples(st.sampled_from([0, 10, 13, 16, 43, 51]), st.binary(max_size=40)))
HELLOS = st.builds(made_hello, st.binary(max_size=32), st.binary(max_size=20), st.lists(EXTENSION, max_size=5))
RECORDS = st.lists(st.integers(1, 80), max_size=6)


@pytest.mark.parametrize("name", ["one.example", "y.two.example", "other.example"])
@pytest.mark.parametrize("protocols", [[], ["http/1.1"], ["h3", "mqtt", "h2"], ["imap"]])
def test_what_openssl_asks_for_is_found_however_it_is_cut(name, protocols):
    hello = openssl_hello(name, protocols)
    member, protocol = named(name.encode()), offered([each.encode() for each in protocols])
    for payload in (hello, in_records(hello[5:], [1, 2, 3, 100, 90]), in_records(hello[5:], [40] * 8), hello + b"more"):
        assert ask_all_cuts(tls_sni, NAMES, payload) == member
        assert ask_all_cuts(tls_alpn, PROTOCOLS, payload) == protocol


@generated
@given(HELLOS, RECORDS, st.binary(max_size=3))
def test_a_whole_hello_in_any_records_gets_what_it_names(hello, lengths, behind):
    payload = in_records(hello, lengths) + behind
    assert ask_all_cuts(tls_sni, NAMES, payload, 7) == by_name(payload)
    assert ask_all_cuts(tls_alpn, PROTOCOLS, payload, 7) == by_protocol(payload)


@generated
@given(HELLOS, RECORDS, DAMAGES)
def test_a_damaged_hello_is_read_as_the_reference_reads_it(hello, lengths, damages):
    payload = damaged(in_records(hello, lengths), damages)
    assert ask_all_cuts(tls_sni, NAMES, payload, 11) == by_name(payload)
    assert ask_all_cuts(tls_alpn, PROTOCOLS, payload, 11) == by_protocol(payload)


@generated
@given(st.binary(max_size=80) | st.binary(max_size=80).map(lambda octets: b"\x16\3\1\0" + octets))
def test_any_bytes_are_answered(payload):
    assert ask_all_cuts(tls_sni, NAMES, payload) == by_name(payload)
    assert ask_all_cuts(tls_alpn, PROTOCOLS, payload) == by_protocol(payload)


@pytest.mark.parametrize("payload", [b"GET / HTTP/1.1\r\n", b"\x80\x2e\1\3\1", b"\x16\3\1\0\0", b"\x16\3\1\x40\1", b"\x15\3\3\0\2\2\x28",
                                     b"\x16\3\1\0\4\1\xff\xff\xff", b"\x16\3\1\0\4\2\0\0\0", b"\x16\3\1\0\4\1\0\0\0"])
def test_what_is_no_hello_does_not_wait_for_more(payload):
    assert ask(tls_sni, NAMES, payload) == ask(tls_alpn, PROTOCOLS, payload) == NO_MATCH


def test_a_hello_longer_than_its_room_is_no_match():
    assert ask(tls_sni, NAMES, in_records(b"\1" + (20000).to_bytes(3, "big"), [4])) == NO_MATCH
    assert ask(tls_sni, NAMES, in_records(b"\1" + (16380).to_bytes(3, "big"), [4])) == NEED_MORE
