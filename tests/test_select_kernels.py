"""Select kernels against rules over bytes, with hostile payload at the very end of its array, and cut anywhere."""

import random

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from kernel_bed import EXAMPLES, generated

from pipeline.kernels import services
from pipeline.kernels.rules import EXACT, PREFIX
from pipeline.kernels.select_balancing import round_robin
from pipeline.kernels.select_content import http_host, http_path, number_modulo
from pipeline.kernels.services import NEED_MORE, NO_LIMIT, NO_MATCH

PATHS = [(b"/static/", 1), (b"/a", 0), (b"/b/c", 2), (b"/", 1)]
HOSTS = [(b"one.example", 0), (b"Two.Example", 1), (b"10.0.0.1", 2), (b"x", 1)]
KERNELS = {"number_modulo": number_modulo, "http_path": http_path, "http_host": http_host, "round_robin": round_robin}


def selection(rules=(), members=3, how=EXACT):
    """Returns a `Selection` of two services: number 0 has no rules, number 1 has `rules` [(pattern, member)]."""
    rows = np.zeros(2, services.SERVICE).view(np.recarray)
    rows.members = members
    rows[1].first_rule, rows[1].rules = 0, len(rules)
    patterns, kept = b"", []
    for pattern, member in rules:
        kept.append((len(patterns), len(pattern), member, how, 0, 0))
        patterns += pattern
    return services.Selection(
        rows,
        np.array(kept or [(0,) * len(services.RULE)], services.RULE).view(np.recarray),
        np.frombuffer(patterns or b"\0", np.uint8).copy(),
        np.zeros((2, services.MEMORY), np.int64),
        np.full(1, -1, np.int64),
        np.zeros(64, np.uint8),
        np.full(2, -1, np.int64),
        assembled=np.zeros(64, np.uint8),
        client=np.zeros(4, np.int64),
        tick=np.zeros(1, np.int64),
        target=np.arange(members, dtype=np.int64),
        home=np.arange(members, dtype=np.int64),
        weight=np.ones(members, np.int64),
        current=np.zeros(members, np.int64),
        table=np.zeros(1, np.uint16),
        states=np.zeros(members, np.int64),
        until=np.zeros(members, np.int64),
        pending=np.zeros(members, np.int64),
        counted=np.zeros((members, 5), np.int64),
        limits=np.array([[NO_LIMIT, 0, 0, 0]] * members, np.int64),
        reply=np.zeros(3, np.int64),
    )


RULES = {
    "number_modulo": selection(),
    "http_path": selection(PATHS, how=PREFIX),
    "http_host": selection(HOSTS),
    "round_robin": selection(),
}


def asked(name, payload):
    """What a kernel answers to a payload that ends with its array, so that a read beyond it is out of bounds."""
    view = np.frombuffer(b"0GET /a Host: one.example\n" + payload, np.uint8).copy()[26:]
    assert view.size == len(payload)
    return int(KERNELS[name](view, 1, RULES[name]))


def by_path(payload):
    """The target that the first line of a whole request names, by rules over bytes."""
    path = payload.split(b"\r\n")[0].split(b" ")[1]
    return next((member for pattern, member in PATHS if path.startswith(pattern)), NO_MATCH)


def by_host(payload):
    """The target that the Host field of a whole request names, by rules over bytes."""
    for line in payload.split(b"\r\n\r\n")[0].split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"host":
            value = value.strip(b" ").partition(b":")[0].lower()
            return next((member for pattern, member in HOSTS if pattern.lower() == value), NO_MATCH)
    return NO_MATCH


TOKEN = st.sampled_from([b"GET", b"POST", b"PROPFIND"])
PATH = st.one_of(
    st.sampled_from([b"/", b"/a", b"/ab?c=d", b"/b/c/d", b"/b", b"/static/", b"/static", b"*", b"http://x/"]),
    st.binary(min_size=1, max_size=20).map(lambda octets: b"/" + octets.translate(None, b" \r\n")),
)
HOST = st.one_of(
    st.sampled_from(
        [
            b"one.example",
            b"ONE.example",
            b"two.example:8080",
            b"10.0.0.1:80",
            b"x",
            b"",
            b"one.example.org",
            b"one.exampl",
            b"xx",
        ]
    ),
    st.from_regex(rb"\A[a-z0-9.-]{1,20}\Z"),
)
FIELDS = st.lists(
    st.sampled_from(
        [b"Accept: */*", b"Hos: x", b"Hosts: x", b"X-Host: x", b"Cookie: a=b; Host: x", b"A:", b"Via: a:b:c"]
    ),
    max_size=4,
)
REQUESTS = st.builds(
    lambda method, path, before, name, spaces, host, after, body: (
        b"\r\n".join(
            [
                method + b" " + path + b" HTTP/1.1",
                *before,
                *([name + b":" + b" " * spaces + host + b" " * (spaces // 2)] if name else []),
                *after,
                b"",
                b"",
            ]
        )
        + body
    ),
    TOKEN,
    PATH,
    FIELDS,
    st.sampled_from([b"Host", b"host", b"HOST", b"hOsT", b""]),
    st.integers(0, 3),
    HOST,
    FIELDS,
    st.binary(max_size=12),
)


@generated
@given(REQUESTS)
def test_a_whole_request_gets_the_target_that_it_names(request):
    assert asked("http_path", request) == by_path(request)
    assert asked("http_host", request) == by_host(request)


@generated
@given(REQUESTS)
def test_a_request_cut_anywhere_gets_need_more_or_the_right_target(request):
    for name, right in (("http_path", by_path(request)), ("http_host", by_host(request))):
        answers = [asked(name, request[:length]) for length in range(len(request) + 1)]
        assert set(answers) <= {NEED_MORE, right}, (name, request)
        known = answers.index(right)
        assert all(answer == right for answer in answers[known:]), "an answer once given was taken back"


@pytest.mark.parametrize(
    ("request_line", "member"),
    [
        (b"GET / HTTP/1.1", 1),
        (b"GET /a HTTP/1.1", 0),
        (b"GET /static/x HTTP/1.0", 1),
        (b"GET /b/c HTTP/1.1", 2),
        (b"GET * HTTP/1.1", NO_MATCH),
        (b"GET http://one.example/a HTTP/1.1", NO_MATCH),
    ],
)
def test_paths(request_line, member):
    assert asked("http_path", request_line + b"\r\n\r\n") == member


@pytest.mark.parametrize(
    ("field", "member"),
    [
        (b"Host: one.example", 0),
        (b"host:one.example:81", 0),
        (b"HOST:   TWO.EXAMPLE  ", 1),
        (b"Host: one.example.", NO_MATCH),
        (b"Host:", NO_MATCH),
        (b"Host: ", NO_MATCH),
        (b"Host : one.example", NO_MATCH),
        (b"Accept: one.example", NO_MATCH),
        (b"Host: :80", NO_MATCH),
        (b"Host: 10.0.0.1", 2),
    ],
)
def test_hosts(field, member):
    assert asked("http_host", b"GET / HTTP/1.1\r\n" + field + b"\r\nAccept: x\r\n\r\n") == member


def test_the_first_host_field_counts_and_the_body_does_not():
    assert asked("http_host", b"GET / HTTP/1.1\r\nHost: x\r\nHost: one.example\r\n\r\n") == 1
    assert asked("http_host", b"POST / HTTP/1.1\r\nA: b\r\n\r\nHost: one.example\r\n") == NO_MATCH
    assert asked("http_host", b"GET / HTTP/1.1\nHost: one.example\n\n") == 0


@generated
@given(st.integers(0, 10**18 - 1), st.sampled_from([b"\n", b" is my number\r\n", b",5", b"/", b":"]))
@example(10**18 - 1, b"\n")
def test_a_number_is_taken_modulo_the_targets(number, rest):
    """Cut inside its digits a number cannot be told from a shorter one: it is that, or more is needed."""
    payload = str(number).encode() + rest
    for length in range(len(payload) - len(rest) + 1, len(payload) + 1):
        assert asked("number_modulo", payload[:length]) == number % 3
    for length in range(1, len(payload) - len(rest)):
        assert asked("number_modulo", payload[:length]) in (NEED_MORE, int(payload[:length]) % 3)
    assert asked("number_modulo", b"") == NEED_MORE


@pytest.mark.parametrize("payload", [b"x1", b" 1", b"-1", b"/1", b":1", b"\xff1", b"\n"])
def test_what_does_not_start_with_a_digit_is_no_number(payload):
    assert asked("number_modulo", payload) == NO_MATCH


def test_of_a_number_that_never_ends_the_first_digits_count():
    for length in (19, 20, 64, 2048):
        assert asked("number_modulo", b"9" * length) == int("9" * 18) % 3


def test_round_robin_takes_each_target_in_turn_for_each_service():
    rules = selection()
    payload = np.zeros(0, np.uint8)
    assert [int(round_robin(payload, 0, rules)) for _ in range(7)] == [0, 1, 2, 0, 1, 2, 0]
    assert [int(round_robin(payload, 1, rules)) for _ in range(2)] == [0, 1]
    assert int(round_robin(payload, 0, rules)) == 1


HOSTILE = st.one_of(
    st.binary(max_size=64),
    st.lists(
        st.sampled_from(
            [
                b"GET",
                b" ",
                b"/",
                b"/a",
                b"\n",
                b"\r",
                b"\r\n",
                b"Host:",
                b"host",
                b":",
                b"H",
                b"Ho",
                b"Hos",
                b"Host",
                b"\x00",
                b"\xff",
                b"1",
                b"999999999999999999",
                b"one.example",
            ]
        ),
        max_size=16,
    ).map(b"".join),
)


@pytest.mark.parametrize("name", KERNELS)
@generated
@given(payload=HOSTILE)
def test_hostile_octets_get_a_member_or_no_match_or_need_more(name, payload):
    for length in range(len(payload) + 1):
        assert asked(name, payload[:length]) in (0, 1, 2, NO_MATCH, NEED_MORE)


def test_a_flood_of_hostile_octets_is_answered():
    generator = random.Random(7)
    alphabet = [b"GET ", b" ", b"\n", b"\r\n", b"Host:", b"host: x", b"/a", b":", b"1", b"\xfe"]
    for _ in range(EXAMPLES * 10):
        payload = b"".join(generator.choice(alphabet) for _ in range(generator.randrange(12))) + generator.randbytes(2)
        for name in KERNELS:
            assert asked(name, payload) in (0, 1, 2, NO_MATCH, NEED_MORE)


def test_a_service_without_rules_matches_nothing():
    payload = np.frombuffer(b"GET /a HTTP/1.1\r\nHost: one.example\r\n\r\n", np.uint8).copy()
    assert http_path(payload, 0, selection(PATHS)) == NO_MATCH and http_host(payload, 0, selection(HOSTS)) == NO_MATCH


@pytest.mark.parametrize("members, excluded, answers", [(3, (1, -1), [0, 2, 0]), (3, (0, 1), [2, 2, 2]), (2, (1, 0), [-1, -1, -1])])
def test_round_robin_passes_over_what_has_failed(members, excluded, answers):
    chosen = selection(members=members)
    chosen.excluded[:] = excluded
    assert [int(round_robin(np.zeros(0, np.uint8), 0, chosen)) for _ in answers] == answers
