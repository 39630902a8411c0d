"""A select kernel by the distinguished name that an LDAP client's first request is about (RFC 4511). The slot `select`."""
from numpy import int64

from .jit import apart, kernel
from .rules import EXACT, lower
from .select_tls import number_at
from .services import NEED_MORE, NO_MATCH

SEQUENCE, INTEGER, OCTET_STRING = 0x30, 0x02, 0x04
BIND, SEARCH, MODIFY, ADD, DELETE, RENAME, COMPARE = 0x60, 0x63, 0x66, 0x68, 0x4A, 0x6C, 0x6E
"""Tags of the requests that begin with a name, a bind after its version; that of DELETE is the name itself."""
MOST_OF_LENGTH = 4
SPACE, COMMA, BACKSLASH = 32, 44, 92


@kernel
def read_element(payload, at, bound):
    """Returns tag, start and stop of the BER element at `at` (X.690, section 8.1), which ends at `bound` or before.

    The tag is NEED_MORE where its head is cut by the payload's end, NO_MATCH where it cannot be.
    """
    if at + 2 > bound:
        return NO_MATCH, 0, 0
    if at + 2 > payload.shape[0]:
        return NEED_MORE, 0, 0
    tag, length, start = int64(payload[at]), int64(payload[at + 1]), at + 2
    if length >= 0x80:
        size = length & 0x7F
        if size == 0 or size > MOST_OF_LENGTH or start + size > bound:
            return NO_MATCH, 0, 0
        if start + size > payload.shape[0]:
            return NEED_MORE, 0, 0
        length, start = number_at(payload, start, size), start + size
    if length > bound - start:
        return NO_MATCH, 0, 0
    return tag, start, start + length


@kernel
def name_in(payload, at, bound):
    """Returns where an LDAPDN that starts at `at` starts and stops in its request, or NEED_MORE or NO_MATCH and 0."""
    tag, start, stop = read_element(payload, at, bound)
    if tag != OCTET_STRING:
        return NEED_MORE if tag == NEED_MORE else NO_MATCH, 0
    return start, stop


@kernel
def request_name(payload):
    """Returns where the name in an LDAPMessage (RFC 4511, section 4.1.1) starts and stops, or NEED_MORE or NO_MATCH and 0."""
    if payload.shape[0] > 0 and payload[0] != SEQUENCE:
        return NO_MATCH, 0
    tag, at, bound = read_element(payload, 0, 1 << 40)
    if tag == SEQUENCE:
        tag, _, at = read_element(payload, at, bound)
        if tag != INTEGER:
            return NEED_MORE if tag == NEED_MORE else NO_MATCH, 0
        tag, at, bound = read_element(payload, at, bound)
    if tag == NEED_MORE:
        return NEED_MORE, 0
    if tag == DELETE:
        return at, bound
    if tag == BIND:
        version, _, at = read_element(payload, at, bound)
        if version != INTEGER:
            return NEED_MORE if version == NEED_MORE else NO_MATCH, 0
        return name_in(payload, at, bound)
    if tag == SEARCH or tag == MODIFY or tag == ADD or tag == RENAME or tag == COMPARE:
        return name_in(payload, at, bound)
    return NO_MATCH, 0


@kernel
def write_plain_name(name, room):
    """Writes a name in lower case, without spaces around its commas and ends, into `room`; returns its length, -1 without room.

    What a backslash stands before is no separator (RFC 4514, section 2.4). A space behind a backslash stays.
    """
    filled, begin, escaped = 0, True, False
    for at in range(name.shape[0] + 1):
        octet = int64(name[at]) if at < name.shape[0] else COMMA
        separates = octet == COMMA and not escaped or at == name.shape[0]
        while separates and filled > 0 and room[filled - 1] == SPACE and (filled < 2 or room[filled - 2] != BACKSLASH):
            filled -= 1
        if at == name.shape[0] or begin and octet == SPACE:
            continue
        if filled == room.shape[0]:
            return -1
        room[filled] = lower(octet)
        filled += 1
        begin, escaped = separates, octet == BACKSLASH and not escaped
    return filled


@kernel
def is_separator(name, at):
    """Says whether a comma with no backslash, or an even number of them, before it is at `at`."""
    if name[at] != COMMA:
        return False
    before = at
    while before > 0 and name[before - 1] == BACKSLASH:
        before -= 1
    return (at - before) % 2 == 0


@kernel
def is_below(name, rule, patterns):
    """Says whether a rule's name is this one, or, unless it is exact, one that it lies below."""
    start = name.shape[0] - int64(rule.length)
    if start < 0 or start > 0 and (rule.how == EXACT or not is_separator(name, start - 1)):
        return False
    for at in range(rule.length):
        if name[start + at] != patterns[rule.pattern + at]:
            return False
    return True


@apart
def ldap_dn(payload, service, selection):
    """The longest rule that ends the name in the client's first request: who binds, or where one searches that does not bind."""
    start, stop = request_name(payload)
    if start < 0:
        return start
    if stop > payload.shape[0]:
        return NEED_MORE
    length = write_plain_name(payload[start:stop], selection.assembled)
    if length < 0:
        return NO_MATCH
    row = selection.services[service]
    for number in range(row.first_rule, row.first_rule + row.rules):
        rule = selection.rules[number]
        if is_below(selection.assembled[:length], rule, selection.patterns):
            return int64(rule.member)
    return NO_MATCH
