"""A select kernel by the user that a Redis client's first command authenticates (RESP2, RESP3 and inline). The slot `select`."""
import numpy as np
from numpy import int64

from .jit import apart, kernel
from .rules import find_rule, lower
from .services import NEED_MORE, NO_MATCH

CR, LF, SPACE, TAB, DOLLAR, STAR = 13, 10, 32, 9, 36, 42
MOST_ARGUMENTS, MOST_OF_ARGUMENT, MOST_DIGITS = 64, 4096, 5
"""More than HELLO can have, and than a name has."""
AUTH, HELLO, SETNAME = (np.frombuffer(word, np.uint8) for word in (b"auth", b"hello", b"setname"))
DEFAULT = np.frombuffer(b"default", np.uint8)
"""The user of who does not say one (Redis ACL)."""


@kernel
def read_count(payload, at, mark):
    """Returns the number in a line such as `*3` or `$4` that begins with `mark`, and what follows it; or NEED_MORE or NO_MATCH."""
    if at < payload.shape[0] and payload[at] != mark:
        return NO_MATCH, 0
    number, digits = 0, 0
    for place in range(at + 1, payload.shape[0]):
        octet = int64(payload[place])
        if octet == CR and digits > 0:
            if place + 1 == payload.shape[0]:
                return NEED_MORE, 0
            return (number, place + 2) if payload[place + 1] == LF else (NO_MATCH, 0)
        if octet < 48 or octet > 57 or digits == MOST_DIGITS:
            return NO_MATCH, 0
        number, digits = number * 10 + octet - 48, digits + 1
    return NEED_MORE, 0


@kernel
def inline_argument(payload, at):
    """Returns where an argument of an inline command starts and stops; start == stop behind the last one.

    Or NEED_MORE, where its line may still grow.
    """
    while at < payload.shape[0] and (payload[at] == SPACE or payload[at] == TAB):
        at += 1
    stop = at
    while stop < payload.shape[0]:
        octet = payload[stop]
        if octet == SPACE or octet == TAB or octet == CR or octet == LF:
            return at, stop
        stop += 1
    return NEED_MORE, 0


@kernel
def next_argument(payload, at, inline):
    """Returns where the argument at `at` starts and stops, and where the next one is; or NEED_MORE or NO_MATCH, 0 and 0."""
    if inline:
        start, stop = inline_argument(payload, at)
        return start, stop, stop
    length, start = read_count(payload, at, DOLLAR)
    if length < 0:
        return length, 0, 0
    if length > MOST_OF_ARGUMENT:
        return NO_MATCH, 0, 0
    if start + length > payload.shape[0]:
        return NEED_MORE, 0, 0
    return start, start + length, start + length + 2


@kernel
def says(argument, word):
    """Says whether an argument is a word, in any case."""
    if argument.shape[0] != word.shape[0]:
        return False
    for at in range(word.shape[0]):
        if lower(argument[at]) != word[at]:
            return False
    return True


@kernel
def auth_user(payload, at, count, inline):
    """Returns where the user of an AUTH stands: start and stop, start == stop for the default one; or NEED_MORE or NO_MATCH and 0.

    It names one where it has two arguments.
    """
    start, stop, at = next_argument(payload, at, inline)
    if start < 0:
        return start, 0
    second = count == 3
    if inline:
        behind, behind_stop, _ = next_argument(payload, at, inline)
        if behind < 0:
            return behind, 0
        second = behind < behind_stop
    return (start, stop) if second else (0, 0)


@kernel
def hello_user(payload, at, count, inline):
    """Returns where the user stands in the options of a HELLO, behind its version: as `auth_user` does."""
    user_follows, name_follows = False, False
    for number in range(1, count):
        start, stop, at = next_argument(payload, at, inline)
        if start < 0:
            return start, 0
        if inline and start == stop:
            return 0, 0
        if user_follows:
            return start, stop
        if number > 1 and not name_follows:
            user_follows, name_follows = says(payload[start:stop], AUTH), says(payload[start:stop], SETNAME)
        else:
            name_follows = False
    return 0, 0


@kernel
def find_user(payload, at, count, inline):
    """Returns where the user stands in a command of `count` arguments at `at`: as `auth_user` does."""
    start, stop, at = next_argument(payload, at, inline)
    if start < 0:
        return start, 0
    if says(payload[start:stop], AUTH):
        return auth_user(payload, at, count, inline)
    if says(payload[start:stop], HELLO):
        return hello_user(payload, at, count, inline)
    return 0, 0


@apart
def redis_user(payload, service, selection):
    """The rule for the user whom the first command authenticates, that for `default` where it is any other command."""
    if payload.shape[0] == 0:
        return NEED_MORE
    inline, at, count = payload[0] != STAR, 0, MOST_ARGUMENTS
    if not inline:
        count, at = read_count(payload, 0, STAR)
        if count < 0:
            return count
        if count > MOST_ARGUMENTS:
            return NO_MATCH
    start, stop = find_user(payload, at, count, inline)
    if start < 0:
        return start
    if start == stop:
        return find_rule(DEFAULT, DEFAULT.shape[0], False, service, selection)
    return find_rule(payload[start:stop], stop - start, False, service, selection)
