"""Payload kernels of ours against plain references, over streams that are cut anywhere, and over hostile bytes."""
import random

import numpy as np
import pytest
from hypothesis import example, given, strategies as st

from kernel_bed import generated
from ldap_messages import bind, message, rewritten, sasl, search
from pipeline.kernels import octet_search, payload_rules
from pipeline.kernels.payload_insert_header import insert_header
from pipeline.kernels.payload_ldap_guard import ldap_guard
from pipeline.kernels.payload_pattern import count_pattern, refuse_pattern
from pipeline.kernels.payload_rate_limit import rate_limit
from pipeline.kernels.payload_replace import replace
from pipeline.kernels.shaping import EDIT_BYTES, END_CONNECTION, SHOW_AGAIN

BEHIND = 64
"""Octets behind the room that a kernel has: it must not touch them."""


class Stream:
    """One direction of a connection through one rule: what it has passed, and how it has ended."""

    def __init__(self, kernel, search=b"", replacement=b"", first=0, rate=1, burst=1, strict=1, room=EDIT_BYTES):
        octets = search + bytes(octet_search.failures(search)) + replacement
        self.rules = payload_rules.allocate_payload_rules(1, 1, len(octets))
        self.rules.octets[:len(octets)] = np.frombuffer(octets, np.uint8)
        self.rules.rows[0] = (0, 0, 8, 0, len(search), 2 * len(search), len(replacement), first, rate, burst, strict)
        self.kernel, self.room, self.passed, self.position, self.answer = kernel, room, b"", 0, 0
        self.user = np.zeros(payload_rules.CELLS["ldap_guard"] if kernel is ldap_guard else 8, np.int64)

    @property
    def hits(self):
        return int(self.rules.hits[0])

    def show(self, piece, pushed=0, now=0):
        """Shows a piece of at most 2,048 octets; returns the answer."""
        buffer = np.full(self.room + BEHIND, 0xA5, np.uint8)
        buffer[:len(piece)] = np.frombuffer(piece, np.uint8)
        told = payload_rules.Given(self.rules.rows, self.rules.octets, self.rules.hits, 0, pushed, now)
        self.answer = int(self.kernel(buffer[:self.room], len(piece), self.position, self.room - len(piece), self.user, told))
        assert self.answer in (END_CONNECTION, SHOW_AGAIN) or 0 <= self.answer <= self.room
        assert (buffer[self.room:] == 0xA5).all(), "written behind the room"
        if self.answer >= 0:
            self.passed += buffer[:self.answer].tobytes()
        if self.answer != SHOW_AGAIN:
            self.position += len(piece)
        return self.answer

    def run(self, stream, cuts=(), pushed=1):
        """Shows a whole stream, cut at these places, its end pushed; returns self."""
        places = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
        for start, stop in zip(places, places[1:], strict=False):
            if self.show(stream[start:stop], int(stop == len(stream)) * pushed) == END_CONNECTION:
                break
        return self


few = st.integers(0, 2).map(lambda octet: b"abc"[octet:octet + 1])
text = st.lists(few, max_size=60).map(b"".join)
pattern = st.lists(few, min_size=1, max_size=5).map(b"".join)
places = st.lists(st.integers(0, 200), max_size=12)


@generated
@given(text, pattern, st.lists(few, max_size=9).map(b"".join), places)
@example(b"aabaabaac", b"aabaac", b"", [1, 2, 3, 4, 5, 6, 7, 8])
def test_replace_makes_of_any_cut_what_python_makes_of_the_whole(stream, searched, replacement, cuts):
    made = Stream(replace, searched, replacement).run(stream, cuts)
    assert made.passed == stream.replace(searched, replacement) and made.hits == stream.count(searched)


@generated
@given(text, pattern, pattern, places, st.integers(1, 40))
def test_replace_looks_for_what_ends_within_the_first_octets(stream, searched, replacement, cuts, first):
    made = Stream(replace, searched, replacement, first).run(stream, cuts)
    assert made.passed == stream[:first].replace(searched, replacement) + stream[first:]


@generated
@given(st.lists(text, max_size=6), pattern, pattern)
def test_replace_keeps_nothing_back_of_what_is_pushed(pushed, searched, replacement):
    made = Stream(replace, searched, replacement)
    for part in pushed:
        made.show(part, 1)
    assert made.passed == b"".join(part.replace(searched, replacement) for part in pushed)


def test_replace_that_has_no_room_ends_the_connection():
    assert Stream(replace, b"a", b"x" * 255).run(b"a" * 2000).answer == END_CONNECTION
    assert Stream(replace, b"ab", b"x" * 8).run(b"ab" * 1000).passed == b"x" * 8000


@generated
@given(text, pattern, places, st.integers(0, 40))
def test_count_and_refuse_find_what_python_finds(stream, searched, cuts, first):
    seen = stream[:first or None]
    counted, refused = (Stream(kernel, searched, first=first).run(stream, cuts) for kernel in (count_pattern, refuse_pattern))
    assert counted.hits == seen.count(searched) and counted.passed == stream
    assert (refused.answer == END_CONNECTION) == (searched in seen) and refused.hits == int(searched in seen)
    assert searched not in refused.passed[:first or None] and stream.startswith(refused.passed)


HEADER = b"X-Via: proxy\r\n"
REQUESTS = (b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n", b"\r\n\r\nPOST /b?c HTTP/1.0\nHost: a\n\nHTTP/1.1\n", b"GET / HTTP/1.1\r\n")
OTHERS = (b"SSH-2.0-OpenSSH\r\n", b"\x16\3\1\2\0HTTP/1.1\r\n", b"GET /\r\nHTTP/1.1\r\n", b"", b"\r\n\r\n", b"GET / HTTP/1.1")


@generated
@given(st.sampled_from(REQUESTS), places, st.binary(max_size=40))
def test_a_header_goes_behind_the_first_request_line_however_it_is_cut(request, cuts, more):
    made = Stream(insert_header, replacement=HEADER).run(request + more, cuts)
    line = request.index(b"\n", request.index(b"/")) + 1
    assert made.passed == request[:line] + HEADER + request[line:] + more and made.hits == 1


@generated
@given(st.sampled_from(OTHERS), places)
def test_what_is_no_http_gets_no_header(stream, cuts):
    made = Stream(insert_header, replacement=HEADER).run(stream, cuts)
    assert made.passed == stream and made.hits == 0


@generated
@given(st.lists(st.tuples(st.integers(1, 1460), st.integers(0, 3_000_000)), max_size=40), st.integers(1, 10_000), st.integers(1, 20_000))
def test_a_bucket_passes_at_most_the_burst_its_rate_and_a_segment(steps, rate, burst):
    made, now, passed, first = Stream(rate_limit, rate=rate, burst=burst), 5_000_000, 0, 5_000_000
    for number, (length, pause) in enumerate(steps):
        now += pause
        if made.show(b"x" * length, now=now) != SHOW_AGAIN:
            passed += length
            assert (passed - length) * 1_000_000 <= burst * 1_000_000 + (now - first) * rate
        assert number > 0 or made.answer >= 0
    refused = Stream(rate_limit, rate=rate, burst=burst)
    refused.show(b"x" * 2000, now=now)
    if burst < 2000:
        assert refused.show(b"x", now=now) == SHOW_AGAIN and refused.hits == 1
        assert refused.show(b"x", now=now + (2000 - burst + 1) * 1_000_000 // rate + 1) == 1


OURS, THEIRS = b"dc=a,dc=org", b"ou=people,dc=example,dc=com"
HONEST = bind(b"cn=me," + OURS, b"secret")
names = st.sampled_from([b"", OURS, b"cn=x," + OURS, b"xdc=a,dc=org", b"dc=org", b"ou=y,dc=z"])
operations = st.one_of(names.map(search), st.builds(search, names, st.binary(max_size=300).map(lambda rest: b"\4\x82" + len(rest).to_bytes(2, "big") + rest),
                                                    st.integers(0, 4)), st.just(b"\x42\0"), st.just(b"\x4a\3abc"))


@generated
@given(st.lists(st.tuples(st.integers(0, 65535), operations, st.sampled_from([b"", b"\xa0\2\4\0"])), max_size=5), places)
def test_bases_are_rewritten_and_all_lengths_with_them_however_it_is_cut(told, cuts):
    stream = b"".join([message(1, HONEST), *(message(*each) for each in told)])
    made = Stream(ldap_guard, OURS, THEIRS).run(stream, cuts)
    assert made.answer >= 0 and rewritten(made.passed, b"", b"") == rewritten(stream, OURS, THEIRS)


@pytest.mark.parametrize("base", [b"DC=A,dc=Org", b"dc=a, dc=org", b"cn=x, dc=a,dc=org"])
def test_a_base_is_compared_without_case_and_blanks_behind_commas(base):
    made = Stream(ldap_guard, OURS, THEIRS).run(message(1, HONEST) + message(2, search(base)))
    assert made.hits == 1 and THEIRS in made.passed


ANONYMOUS = [bind(b"", b""), bind(b"cn=me", b""), sasl(b"ANONYMOUS"), sasl(b"anonymous"), search(OURS), b"\x4a\3abc"]


@pytest.mark.parametrize("operation", ANONYMOUS, ids=str)
def test_anonymous_clients_are_refused_however_they_cut(operation):
    stream = message(1, operation)
    for cut in range(len(stream)):
        assert Stream(ldap_guard).run(stream, [cut]).answer == END_CONNECTION
    assert Stream(ldap_guard).run(message(1, HONEST) + stream).answer == (END_CONNECTION if operation[0] == 0x60 else len(message(1, HONEST) + stream))
    assert Stream(ldap_guard, strict=0).run(stream).passed == stream


@pytest.mark.parametrize("operation", [HONEST, sasl(b"PLAIN"), sasl(b"ANONYMOUSE"), b"\x77\0", b"\x42\0", b"\x50\1\1"], ids=str)
def test_others_pass_unchanged(operation):
    assert Stream(ldap_guard, OURS, THEIRS).run(message(300, operation)).passed == message(300, operation)


def test_a_message_that_is_not_whole_reaches_nobody_and_one_too_long_to_judge_ends_the_connection():
    stream = message(1, HONEST)
    assert Stream(ldap_guard).run(stream[:-8]).passed == b""
    assert Stream(ldap_guard).run(message(1, bind(b"x" * 600, b"secret"))).answer == END_CONNECTION


@pytest.mark.parametrize("kernel", [replace, count_pattern, refuse_pattern, insert_header, ldap_guard, rate_limit], ids=lambda kernel: kernel.__name__)
def test_hostile_bytes_are_always_answered_and_nothing_is_touched_beyond_the_room(kernel):
    dice = random.Random(7)
    for _ in range(400):
        stream = bytearray(message(1, HONEST) + message(2, search(OURS)) + REQUESTS[0])
        for _ in range(dice.randrange(4)):
            stream[dice.randrange(len(stream))] = dice.choice((0, 0x30, 0x7F, 0x80, 0x84, 0xFF, dice.randrange(256)))
        stream = bytes(stream[:dice.randrange(len(stream) + 1)]) + dice.randbytes(dice.randrange(50))
        made = Stream(kernel, b"dc=a,dc=org", b"q" * dice.choice((0, 11, 255)), strict=dice.randrange(2), room=dice.choice((700, EDIT_BYTES)))
        made.run(stream, [dice.randrange(600) for _ in range(dice.randrange(6))])
