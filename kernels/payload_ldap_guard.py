"""Payload kernel: refuses anonymous LDAP clients, and rewrites the base of their searches (RFC 4511, RFC 4513). The slot `payload`.

The head of each message, up to what decides on it, is kept back until it has come: no server can answer it before. user[0] is
how many octets of it are kept, user[1] how many of the message are still to pass, user[2] whether the client has bound with a
name and a password, user[3] how many octets are needed to decide; the octets are from user[HEADER] on.
"""
import numpy as np
from numpy import int64

from .ber import HEAD, PER_CELL, content_at, keep_octet, length_at, octet_at, put_head
from .jit import kernel
from .payload_replace import move_back
from .shaping import END_CONNECTION

HEADER = 4
KEPT, LEFT, KNOWN, NEEDED = range(HEADER)
SEQUENCE, INTEGER, OCTETS = 0x30, 0x02, 0x04
BIND, UNBIND, SEARCH, ABANDON, EXTENDED = 0x60, 0x42, 0x63, 0x50, 0x77
SIMPLE, SASL = 0x80, 0xA3
ANONYMOUS = np.frombuffer(b"ANONYMOUS", np.uint8)
"""The SASL mechanism of RFC 4505."""
REFUSED = 0
COMMA, BLANK = 44, 32


@kernel
def element_end(cells, count, at, tag, stop):
    """Returns where the element at `at` ends, which has to have this tag and to end at `stop` at most; less than 0: so many
    octets, negated, are needed; REFUSED where it is not so."""
    content = content_at(cells, count, at)
    if content <= 0:
        return content
    end = content + length_at(cells, at)
    return end if octet_at(cells, at) == tag and end <= stop else REFUSED


@kernel
def operation_at(cells, count):
    """Returns where the operation of a message begins, behind its number; else as `element_end`."""
    content = content_at(cells, count, 0)
    if content <= 0:
        return content
    if octet_at(cells, 0) != SEQUENCE:
        return REFUSED
    at = element_end(cells, count, content, INTEGER, content + length_at(cells, 0))
    if at <= 0 or at > content + HEAD + 4:
        return min(at, REFUSED)
    if count < at + 1:
        return -(at + 1)
    return at


@kernel
def decide_bind(cells, count, at, stop):
    """Returns how many octets of a bind have to be there to say that it is not anonymous, REFUSED where it is or is malformed,
    or as `element_end`; `at`: its content. Without a password it is anonymous whatever its name (RFC 4513, 5.1.2)."""
    version = element_end(cells, count, at, INTEGER, stop)
    name = element_end(cells, count, version, OCTETS, stop) if version > 0 else version
    if name <= 0:
        return name
    content = content_at(cells, count, name)
    if content <= 0:
        return content
    kind, length = octet_at(cells, name), length_at(cells, name)
    if content + length > stop or length == 0 or (kind != SIMPLE and kind != SASL):
        return REFUSED
    if kind == SIMPLE:
        return content
    mechanism = element_end(cells, count, content, OCTETS, stop)
    if mechanism <= 0 or count < mechanism:
        return min(mechanism, -mechanism)
    differs = length_at(cells, content) != ANONYMOUS.shape[0]
    for number in range(0 if differs else ANONYMOUS.shape[0]):
        differs |= octet_at(cells, mechanism - ANONYMOUS.shape[0] + number) & 0xDF != ANONYMOUS[number]
    return mechanism if differs else REFUSED


@kernel
def decide(cells, count, user, strict):
    """Returns how many octets of a message decide that it passes, all of which have come; less than 0: so many, negated, are
    needed; REFUSED where it must not pass."""
    at = operation_at(cells, count)
    content = content_at(cells, count, at) if at > 0 else at
    if content <= 0:
        return content
    tag, stop, end = octet_at(cells, at), content + length_at(cells, at), content_at(cells, count, 0) + length_at(cells, 0)
    if stop > end:
        return REFUSED
    if tag == BIND and strict:
        decided = decide_bind(cells, count, content, stop)
        user[KNOWN] = int64(decided > 0)
        return decided
    if strict and user[KNOWN] == 0 and tag != UNBIND and tag != ABANDON and tag != EXTENDED:
        return REFUSED
    if tag != SEARCH:
        return content
    base = element_end(cells, count, content, OCTETS, stop)
    return -base if count < base else base


@kernel
def lower(octet):
    """Returns a letter of ASCII as a small one, anything else as it is."""
    return octet + 32 if 65 <= octet <= 90 else octet


@kernel
def suffix_at(cells, start, end, given, rule):
    """Returns where the DN in start .. end - 1 goes on with `search` up to its end, or -1: letters of either size, with or
    without a blank behind a comma."""
    at, left = end, rule.search_length
    while left > 0 and at > start:
        at -= 1
        octet = octet_at(cells, at)
        if lower(octet) == lower(int64(given.octets[rule.search + left - 1])):
            left -= 1
        elif octet != BLANK or at == start or octet_at(cells, at - 1) != COMMA:
            return -1
    return at if left == 0 and (at == start or octet_at(cells, at - 1) == COMMA or (
        octet_at(cells, at - 1) == BLANK and at - 1 > start and octet_at(cells, at - 2) == COMMA)) else -1


@kernel
def put_kept(payload, into, cells, start, stop):
    """Writes kept octets start .. stop - 1; returns where the next one goes."""
    for at in range(start, stop):
        payload[into + at - start] = octet_at(cells, at)
    return into + stop - start


@kernel
def put_search(payload, into, cells, suffix, base, rule, given):
    """Writes the head of a search whose base, which ends at `base`, has another suffix from `suffix` on; all lengths with it."""
    message, at = content_at(cells, base, 0), operation_at(cells, base)
    content = content_at(cells, base, at)
    name = content_at(cells, base, content)
    length = suffix - name + rule.replacement_length
    inner = length_at(cells, at) - (base - content) + HEAD + length
    controls = message + length_at(cells, 0) - content - length_at(cells, at)
    into = put_head(payload, into, SEQUENCE, at - message + HEAD + inner + controls)
    into = put_kept(payload, into, cells, message, at)
    into = put_head(payload, into, SEARCH, inner)
    into = put_head(payload, into, OCTETS, length)
    into = put_kept(payload, into, cells, name, suffix)
    for number in range(rule.replacement_length):
        payload[into + number] = given.octets[rule.replacement + number]
    return into + rule.replacement_length


@kernel
def pass_head(payload, into, stop, user, given, decided):
    """Writes the head of a message, which is decided on; returns where the next octet goes, -1 where there is no room up to `stop`."""
    cells, rule, count = user[HEADER:], given.rows[given.number], user[KEPT]
    end = content_at(cells, count, 0) + length_at(cells, 0)
    at, suffix = operation_at(cells, count), -1
    if octet_at(cells, at) == SEARCH and rule.search_length > 0:
        content = content_at(cells, count, at)
        suffix = suffix_at(cells, content_at(cells, count, content), decided, given, rule)
    user[KEPT], user[LEFT], user[NEEDED] = 0, end - count, 0
    if into + count + 3 * HEAD + rule.replacement_length > stop:
        return -1
    if suffix < 0:
        return put_kept(payload, into, cells, 0, count)
    given.hits[given.number] += 1
    return put_search(payload, into, cells, suffix, decided, rule, given)


@kernel
def take_octet(user, octet, strict):
    """Keeps an octet of a message's head; returns as `decide`, from the state that it has then."""
    cells, count = user[HEADER:], user[KEPT] + 1
    if count > PER_CELL * cells.shape[0]:
        return REFUSED
    keep_octet(cells, count - 1, octet)
    user[KEPT] = count
    if count < user[NEEDED]:
        return -user[NEEDED]
    decided = decide(cells, count, user, strict)
    user[NEEDED] = max(-decided, 0)
    return decided


@kernel
def ldap_guard(payload, length, position, tailroom, user, given):
    """Malformed messages, and heads longer than there is room for, end the connection like anonymous ones."""
    into, at, stop, strict = 0, tailroom, tailroom + length, given.rows[given.number].strict != 0
    move_back(payload, length, tailroom)
    while at < stop:
        if user[LEFT] > 0:
            part = min(user[LEFT], stop - at)
            for number in range(part):
                payload[into + number] = payload[at + number]
            into, at, user[LEFT] = into + part, at + part, user[LEFT] - part
            continue
        decided = take_octet(user, int64(payload[at]), strict)
        at += 1
        if decided > 0:
            into = pass_head(payload, into, at, user, given, decided)
        if decided == REFUSED or into < 0:
            given.hits[given.number] += 1
            return END_CONNECTION
    return into
