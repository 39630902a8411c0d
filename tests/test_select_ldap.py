"""`ldap_dn` against names that requests were made of, in any BER lengths and spelling, cut and damaged."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_bed import generated
from select_bed import DAMAGES, ask, ask_all_cuts, damaged, selection

from pipeline.configuration.content_rules import plain_name
from pipeline.kernels.select_ldap import ldap_dn
from pipeline.kernels.services import NEED_MORE, NO_MATCH

RULES = "dc=example,dc=org", "ou=People, DC=example,dc=org", {"match": "cn=admin,dc=example,dc=org", "exact": True}
NAMES = selection("ldap_dn", *RULES)


def by_name(name):
    """The member that NAMES has for a name (bytes)."""
    plain = plain_name(name)
    if plain == b"cn=admin,dc=example,dc=org":
        return 2
    for member, suffix in ((1, b"ou=people,dc=example,dc=org"), (0, b"dc=example,dc=org")):
        head = plain.removesuffix(suffix)
        backslashes = len(head[:-1]) - len(head[:-1].rstrip(b"\\"))
        if plain.endswith(suffix) and (not head or head.endswith(b",") and backslashes % 2 == 0):
            return member
    return NO_MATCH


def element(tag, content, long=0):
    """Returns a BER element whose length has `long` octets, or the fewest."""
    length = len(content)
    if not long and length < 128:
        return bytes([tag, length]) + content
    size = max(long, (length.bit_length() + 7) // 8)
    return bytes([tag, 0x80 | size]) + length.to_bytes(size, "big") + content


def bind(name, password=b"secret", number=1, long=0):
    """Returns a simple bind request."""
    operation = element(2, b"\3") + element(4, name, long) + element(0x80, password)
    return element(0x30, element(2, bytes([number])) + element(0x60, operation, long), long)


def about(tag, name, long=0):
    """Returns another request that begins with a name, or is one (a delete)."""
    content = name if tag == 0x4A else element(4, name, long) + b"\n\1\2\n\1\0"
    return element(0x30, element(2, b"\1\0") + element(tag, content, long), long)


NAME = st.one_of(
    st.sampled_from([b"cn=admin,dc=example,dc=org", b"CN=Admin , DC=Example, dc=ORG ", b"uid=a,ou=people,dc=example,dc=org",
                     b"ou=people,dc=example,dc=org", b"ou=x,cn=admin,dc=example,dc=org", b"xdc=example,dc=org", b"dc=example,dc=com",
                     b"cn=a\\,dc=example,dc=org", b"cn=a\\\\,dc=example,dc=org", b"cn=a\\ , dc=example,dc=org", b""]),
    st.lists(st.sampled_from([b" ", b",", b"\\", b"dc=example", b"dc=org", b"ou=People", b"x", b"\xc3\xa9"]), max_size=9).map(b"".join))


@generated
@given(NAME, st.integers(0, 4), st.sampled_from([0x60, 0x63, 0x66, 0x68, 0x4A, 0x6C, 0x6E]), st.binary(max_size=3))
def test_the_name_of_the_first_request_is_found(name, long, tag, behind):
    payload = bind(name, long=long) if tag == 0x60 else about(tag, name, long)
    assert ask_all_cuts(ldap_dn, NAMES, payload + behind) == by_name(name)


@pytest.mark.parametrize("payload", [
    b"GET /", b"\x30\x80", b"\x30\x85\1\1\1\1\1", b"\x30\x0c\4\1\1", b"\x30\x0c\2\1\1\x77\7", b"\x30\x0c\2\1\1\x42\0", b"\x30\5\2\6\1\1\1",
    b"\x30\x0c\2\1\1\x60\x20\2\1\3", b"\x30\x0c\2\1\1\x60\7\2\1\3\4\3", b"\x30\x0c\2\1\1\x60\7\2\1\3\5\2", b"\x30\0", b"\x30\3\2\1\1\x60\0"])
def test_what_is_no_request_does_not_wait_for_more(payload):
    assert ask(ldap_dn, NAMES, payload) == NO_MATCH


@pytest.mark.parametrize("payload", [b"", b"\x30", b"\x30\x84\xff\xff", b"\x30\x84\xff\xff\xff\xff\2\1\1", b"\x30\x0c\2\1\1\x60\7\2\1\3"])
def test_what_may_become_one_does(payload):
    assert ask(ldap_dn, NAMES, payload) == NEED_MORE


def test_a_name_longer_than_its_room_is_no_match():
    assert ask(ldap_dn, selection("ldap_dn", "dc=org"), bind(b"x" * 20000 + b",dc=org")) == NO_MATCH


@generated
@given(NAME, st.integers(0, 2), DAMAGES)
def test_damaged_requests_are_answered_and_nothing_is_taken_back(name, long, damages):
    ask_all_cuts(ldap_dn, NAMES, damaged(bind(name, long=long), damages))
    ask_all_cuts(ldap_dn, NAMES, damaged(about(0x63, name, long), damages))


@generated
@given(st.binary(max_size=40) | st.binary(max_size=40).map(lambda octets: b"\x30\x20\2\1\1\x60" + octets))
def test_any_bytes_are_answered(payload):
    ask_all_cuts(ldap_dn, NAMES, payload)
