"""What the `rules` of a service mean to each select kernel that has them: which matches are right, and the pattern of each."""
import ipaddress
import re
from typing import Callable, NamedTuple

EXACT, PREFIX, SUFFIX = "exact", "prefix", "suffix"
"""How a rule is compared with what the client names."""
_HEXADECIMAL = re.compile(r"0x(?:[0-9A-Fa-f]{2})+")
_HOST = re.compile(r"(\*\.)?[!-)+-.0-9;-Z\[-~]+")
_PATH = re.compile(r"/[!-~]*")
_PRINTABLE = re.compile(r"[!-~]+")


class Pattern(NamedTuple):
    """What a rule becomes for its kernel: `octets`, `how` they are compared, and a `mask` or b""."""

    octets: bytes
    how: str
    mask: bytes = b""


class Content(NamedTuple):
    """What the rules of a select kernel are compared with."""

    right: str
    """What a match must be, as the rest of a sentence."""
    example: str
    is_right: Callable
    pattern: Callable
    """Returns the Pattern of a rule."""
    keys: tuple = ()
    """Keys that a rule may have beside `match` and where it leads."""
    in_order: bool = False
    """Whether the first rule that fits counts; else it is the most specific one."""


def hexadecimal(text):
    """Returns the octets that a text stands for: those of "0x1603" are 16 and 03 in hexadecimal, others are its own in UTF-8."""
    return bytes.fromhex(text[2:]) if _HEXADECIMAL.fullmatch(text) else text.encode()


def plain_name(text):
    """Returns a distinguished name (bytes) in lower case, without the spaces around commas and at its ends (RFC 4514).

    What a backslash stands before is no separator.
    """
    parts = re.findall(rb"(?:\\.|[^,])+|,", text, re.DOTALL)
    return b"".join(re.sub(rb"^ +|(?<!\\) +$", b"", part) for part in parts).lower()


def _host_pattern(rule):
    return Pattern(rule.match[1:].encode(), SUFFIX) if rule.match.startswith("*.") else Pattern(rule.match.encode(), EXACT)


def _path_pattern(rule):
    return Pattern(rule.match.encode(), EXACT if rule.exact else PREFIX)


def _name_pattern(rule):
    return Pattern(rule.match[:-1].encode(), PREFIX) if rule.match.endswith("*") else Pattern(rule.match.encode(), EXACT)


def _distinguished_pattern(rule):
    return Pattern(plain_name(rule.match.encode()), EXACT if rule.exact else SUFFIX)


def _octets_pattern(rule):
    octets = hexadecimal(rule.match)
    return Pattern(octets, EXACT, bytes.fromhex(rule.mask[2:]) if rule.mask else b"\xff" * len(octets))


_HOSTS = Content('a host name without a port, such as "a.example.org", or "*.example.org" for all below it', "a.example.org",
                 lambda match: bool(_HOST.fullmatch(match)), _host_pattern)
_SERVER_NAMES = _HOSTS._replace(is_right=lambda match: bool(_HOST.fullmatch(match)) and not _is_address(match))
_PATHS = Content('a path that begins with "/", such as "/a"', "/a", lambda match: bool(_PATH.fullmatch(match)), _path_pattern,
                 ("exact",))
_NAMES = Content('a name, or the beginning of names and "*"', "a", lambda match: True, _name_pattern)

CONTENTS = {
    "http_path": _PATHS,
    "http_host": _HOSTS,
    "tls_sni": _SERVER_NAMES,
    "tls_alpn": Content('the name of a protocol, such as "h2"', "h2", lambda match: bool(_PRINTABLE.fullmatch(match)),
                        lambda rule: Pattern(rule.match.encode(), EXACT), in_order=True),
    "http2_path": _PATHS,
    "http2_authority": _HOSTS,
    "ldap_dn": Content('a distinguished name, such as "dc=example,dc=org"', "dc=example,dc=org",
                       lambda match: "=" in match and plain_name(match.encode()).strip(b",") == plain_name(match.encode()),
                       _distinguished_pattern, ("exact",)),
    "postgresql_database": _NAMES,
    "postgresql_user": _NAMES,
    "redis_user": _NAMES,
    "mqtt_client_id": _NAMES,
    "octets": Content('text, or octets in hexadecimal such as "0x1603"', "0x1603",
                      lambda match: not match.startswith("0x") or bool(_HEXADECIMAL.fullmatch(match)), _octets_pattern,
                      ("mask", "offset"), in_order=True),
}
"""Our select kernels that work on a service's `rules`."""


def _is_address(text):
    """Says whether a text is an IPv4 address, which no server name is (RFC 6066, section 3)."""
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return True


def ordered(select, rules):
    """Returns the rules of a service in the order in which its select kernel tries them: exact ones first, then the longest.

    A kernel of the user's gets them longest first.
    """
    content = CONTENTS.get(select)
    if content is None:
        return tuple(sorted(rules, key=lambda rule: -len(rule.match)))
    if content.in_order:
        return tuple(rules)
    patterns = {rule: content.pattern(rule) for rule in rules}
    return tuple(sorted(rules, key=lambda rule: (patterns[rule].how != EXACT, -len(patterns[rule].octets))))


def pattern_of(select, rule):
    """Returns the Pattern of a rule for a select kernel; for one of the user's its match as it stands."""
    content = CONTENTS.get(select)
    return content.pattern(rule) if content else Pattern(rule.match.encode(), EXACT)


def same_content(select, rule):
    """Returns what two rules of a service may not have in common: they would fit the same payloads."""
    pattern = pattern_of(select, rule)
    octets = pattern.octets.lower() if CONTENTS[select] in (_HOSTS, _SERVER_NAMES) else pattern.octets
    return octets, pattern.how, pattern.mask, rule.offset
