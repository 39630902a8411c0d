"""`redis_user` against the commands that a client begins with, as arrays and inline, cut and damaged."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_bed import generated
from select_bed import DAMAGES, ask, ask_all_cuts, damaged, selection

from pipeline.kernels.select_redis import redis_user
from pipeline.kernels.services import NEED_MORE, NO_MATCH

USERS = selection("redis_user", "red", "default", "team-*")


def by_user(user):
    """The member that USERS has for a user (bytes)."""
    return {b"red": 0, b"default": 1}.get(user, 2 if user.startswith(b"team-") else NO_MATCH)


def array(arguments):
    """Returns a command as clients send it."""
    return b"*%d\r\n" % len(arguments) + b"".join(b"$%d\r\n%s\r\n" % (len(each), each) for each in arguments)


def inline(arguments):
    """Returns a command as one types it."""
    return b" ".join(arguments) + b"\r\n"


def user_of(arguments):
    """The user whom a command authenticates, by the rules of Redis' manual."""
    command = arguments[0].lower()
    if command == b"auth" and len(arguments) == 3:
        return arguments[1]
    at = 2
    while command == b"hello" and at < len(arguments):
        option = arguments[at].lower()
        if option == b"auth" and at + 1 < len(arguments):
            return arguments[at + 1]
        at += 2 if option == b"setname" else 1
    return b"default"


USER = st.sampled_from([b"red", b"green", b"team-1", b"default", b"auth", b"setname", b"Red", b"x" * 90])
COMMANDS = st.one_of(
    st.tuples(st.sampled_from([b"AUTH", b"auth"]), USER, st.just(b"pass")), st.tuples(st.just(b"AUTH"), USER),
    st.lists(st.sampled_from([b"AUTH", b"SETNAME", b"red", b"team-1", b"word", b"setname", b"auth"]), max_size=6).map(
        lambda options: (b"HELLO", b"3", *options)),
    st.sampled_from([(b"PING",), (b"HELLO",), (b"GET", b"auth", b"red"), (b"COMMAND", b"DOCS"), (b"SELECT", b"1")]))


@generated
@given(COMMANDS, st.binary(max_size=5))
def test_the_user_of_the_first_command_is_found(arguments, behind):
    assert ask_all_cuts(redis_user, USERS, array(arguments) + behind) == by_user(user_of(arguments))
    assert ask_all_cuts(redis_user, USERS, inline(arguments) + behind) == by_user(user_of(arguments))


@pytest.mark.parametrize("payload", [b"*x", b"*3\r\n+4", b"*3\r\n$4\rx", b"*-1\r\n", b"*\r\n", b"*65\r\n", b"*3\r\n$999999\r\n",
                                     b"*3\r\n$5000\r\n", b"*999999"])
def test_what_is_no_command_does_not_wait_for_more(payload):
    assert ask(redis_user, USERS, payload) == NO_MATCH


@pytest.mark.parametrize("payload", [b"", b"*", b"*3", b"*3\r", b"*3\r\n$4\r\nAUTH\r\n$3\r\nre", b"AUTH red", b"AUTH red ", b"   "])
def test_what_may_become_one_does(payload):
    assert ask(redis_user, USERS, payload) == NEED_MORE


@generated
@given(COMMANDS, DAMAGES)
def test_damaged_commands_are_answered_and_nothing_is_taken_back(arguments, damages):
    ask_all_cuts(redis_user, USERS, damaged(array(arguments), damages))
    ask_all_cuts(redis_user, USERS, damaged(inline(arguments), damages))


@generated
@given(st.lists(st.sampled_from([b"*", b"$", b"3", b"0", b"-", b"\r\n", b"\r", b"\n", b"AUTH", b"HELLO", b" ", b"red", b"\0", b"\xff"]),
                max_size=14).map(b"".join))
def test_any_bytes_are_answered(payload):
    ask_all_cuts(redis_user, USERS, payload)
