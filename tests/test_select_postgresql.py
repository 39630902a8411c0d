"""`postgresql_database` and `postgresql_user` against what StartupMessages were made of, cut and damaged."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_bed import generated
from select_bed import DAMAGES, SERVICE, ask, ask_all_cuts, damaged, selection

from pipeline.kernels.select_postgresql import postgresql_database, postgresql_user
from pipeline.kernels.services import ANSWER_CLIENT, NEED_MORE, NO_MATCH

DATABASES = selection("postgresql_database", "shop", "app_*", "app_x")
USERS = selection("postgresql_user", "shop", "app_*", "app_x")


def by_name(name):
    """The member that both have for a name (bytes or None)."""
    return {b"shop": 0, b"app_x": 2, None: NO_MATCH}.get(name, 1 if name and name.startswith(b"app_") else NO_MATCH)


def startup(parameters, version=0x30000):
    """Returns a StartupMessage with these parameters (dict of bytes)."""
    body = b"".join(name + b"\0" + content + b"\0" for name, content in parameters.items()) + b"\0"
    return struct.pack("!II", len(body) + 8, version) + body


NAME = st.sampled_from([b"shop", b"app_x", b"app_y", b"app_", b"app", b"Shop", b"shop2", b"x" * 63])
PARAMETERS = st.fixed_dictionaries({}, optional={
    b"application_name": st.sampled_from([b"psql", b"", b"database"]), b"database": NAME, b"client_encoding": st.just(b"UTF8"),
    b"user": NAME, b"options": st.just(b"-c database=shop")})


@generated
@given(PARAMETERS, st.sampled_from([0x30000, 0x30002]), st.binary(max_size=3))
def test_a_startup_message_gets_what_it_was_made_of(parameters, version, behind):
    payload = startup(parameters, version) + behind
    user = parameters.get(b"user")
    assert ask_all_cuts(postgresql_database, DATABASES, payload) == by_name(parameters.get(b"database", user))
    assert ask_all_cuts(postgresql_user, USERS, payload) == by_name(user)


@pytest.mark.parametrize("payload", [b"GET / HT", b"\0\0\x27\x11", b"\0\0\0\7\0\3\0\0", startup({b"user": b"shop"}, 0x20000),
                                     struct.pack("!IIII", 16, 80877102, 7, 9), b"\x16\3\1\2", startup({}), startup({b"": b"shop"})])
def test_what_is_no_startup_message_does_not_wait_for_more(payload):
    assert ask(postgresql_database, DATABASES, payload) == ask(postgresql_user, USERS, payload) == NO_MATCH


@pytest.mark.parametrize("payload", [b"", b"\0\0", b"\0\0\x27\x10\0\3\0", startup({b"user": b"shop"})[:-1]])
def test_what_may_become_one_does(payload):
    assert ask(postgresql_database, DATABASES, payload) == ask(postgresql_user, USERS, payload) == NEED_MORE


@pytest.mark.parametrize("behind", [b"", b"\0", startup({b"user": b"shop"})])
@pytest.mark.parametrize("code", [80877103, 80877104])
def test_requests_for_encryption_are_ours_to_answer_twice(code, behind):
    for kernel, chosen in ((postgresql_database, DATABASES), (postgresql_user, USERS)):
        payload = struct.pack("!II", 8, code) + behind
        assert ask_all_cuts(kernel, chosen, payload) == ANSWER_CLIENT and chosen.reply.tolist() == [8, ord("N"), 0]
        for answered, wanted in ((1, ANSWER_CLIENT), (2, NO_MATCH)):
            chosen.reply[2] = answered
            assert kernel(np.frombuffer(payload, np.uint8).copy(), SERVICE, chosen) == wanted


@pytest.mark.parametrize("payload", [struct.pack("!II", 8, 80877102), struct.pack("!II", 8, 80877105), struct.pack("!II", 8, 0x30000),
                                     struct.pack("!II", 7, 80877103), struct.pack("!II", 9, 80877103) + b"\0"])
def test_what_is_nearly_such_a_request_is_not(payload):
    assert ask(postgresql_database, DATABASES, payload) == ask(postgresql_user, USERS, payload) == NO_MATCH


def test_an_empty_database_is_that_of_the_users_name():
    assert ask(postgresql_database, DATABASES, startup({b"user": b"shop", b"database": b""})) == 0


@generated
@given(PARAMETERS, DAMAGES)
def test_damaged_messages_are_answered_and_nothing_is_taken_back(parameters, damages):
    ask_all_cuts(postgresql_database, DATABASES, damaged(startup(parameters), damages))
    ask_all_cuts(postgresql_user, USERS, damaged(startup(parameters), damages))


@generated
@given(st.binary(max_size=40), st.integers(0, 60))
def test_any_bytes_are_answered(octets, length):
    ask_all_cuts(postgresql_database, DATABASES, struct.pack("!II", length, 0x30000) + octets)
    ask_all_cuts(postgresql_user, USERS, octets)
