"""What payload kernels are given: the rules of the configuration, and the octets that these look for and put there.

A kernel that stands in `payload_to_target` or `payload_to_client` is a rule without parameters. The rules of a direction of
a service lie one behind the other, in the order in which they are asked.
"""
from typing import NamedTuple

import numpy as np

PAYLOAD_RULE = np.dtype([
    ("kernel", "i8"), ("first_cell", "i8"), ("cells", "i8"), ("search", "i8"), ("search_length", "i8"),
    ("replacement", "i8"), ("replacement_length", "i8"), ("first", "i8"), ("rate", "i8"), ("burst", "i8"), ("strict", "i8"),
])
"""`kernel`: its number among those composed into the loop; `first_cell`, `cells`: its cells among those of a connection.
`search`, `replacement`: where these begin in `octets`; behind `search` stands its failure table, as long (`octet_search`).
`first`: in how many bytes of the stream is searched; `rate`, `burst`: bytes a second, bytes; `strict`: 0 or 1."""


CELLS = {"ldap_guard": 80}
"""int64 cells of a connection that a rule has to itself, where these are not `shaping.USER_CELLS`."""


class PayloadRules(NamedTuple):
    """All payload rules of a worker."""

    rows: np.ndarray      # PAYLOAD_RULE [n]
    octets: np.ndarray    # uint8
    hits: np.ndarray      # int64 [n] what each has found, changed, or refused
    chains: np.ndarray    # int64 [services, 2 sides, 2] the first rule, and the one behind the last


class Given(NamedTuple):
    """What a payload kernel is given as its sixth parameter. Its own rule is rows[number], its counter hits[number]."""

    rows: np.ndarray
    octets: np.ndarray
    hits: np.ndarray
    number: int           # int64
    pushed: int           # int64: 1 where more may not come for now (PSH or FIN, RFC 9293, section 3.9.1), else 0
    now: int              # int64, microseconds


def allocate_payload_rules(rules, services, octets):
    """Returns `PayloadRules`, all zeros, for so many rules, services and octets."""
    return PayloadRules(np.zeros(max(rules, 1), PAYLOAD_RULE).view(np.recarray), np.zeros(max(octets, 1), np.uint8),
                        np.zeros(max(rules, 1), np.int64), np.zeros((services, 2, 2), np.int64))
