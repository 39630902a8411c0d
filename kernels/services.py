"""Services, targets, the rules by which payload chooses among them, and the source ports toward each target."""
from typing import NamedTuple

import numpy as np

from .jit import kernel

NO_MATCH, NEED_MORE = -1, -2
"""What a select kernel answers beside the number of a target: none fits; the payload so far does not tell."""

DELAYED, IMMEDIATE, SIMPLE = 0, 1, 2
STRAY_RESET, STRAY_DROP = 0, 1
UNKNOWN_SCALE = -1

SERVICE = np.dtype([
    ("address", "i8"), ("port", "i8"), ("binding", "i8"), ("stray", "i8"), ("select", "i8"),
    ("first_member", "i8"), ("members", "i8"), ("fallback", "i8"), ("first_rule", "i8"), ("rules", "i8"),
    ("offer", "i8"), ("mss", "i8"), ("attempts", "i8"), ("payload_kernel", "i8", (2,)), ("scale", "i8"),
])
"""`select` numbers the kernel among those composed into the loop; `fallback` is a target, or -1 to refuse.
`offer` (PROMISED_* bits) is what every target of the service is believed to support: clients are promised no more.
`mss`: the least that a target of it is known to take, and what our ports take (SPLICE 2.6).
`attempts`: how many targets are tried for a connection before its client gets a RST (SPLICE 3.1).
`payload_kernel`: the number of the payload kernel for what the client sends and for what the target sends, or -1.
`scale`: the window scale that clients are offered, the largest that a target of it has shown, or UNKNOWN_SCALE (SPLICE 2.3)."""

TARGET = np.dtype([("address", "i8"), ("port", "i8"), ("neighbour", "i8"), ("pool", "i8"), ("stamps_known", "i8"),
                   ("scale", "i8")])
"""`stamps_known`: whether the target is known to use timestamps; until then its MSS leaves room for them (SPLICE 2.5).
`scale`: the window scale that it has shown last, or UNKNOWN_SCALE."""
RULE = np.dtype([("pattern", "i8"), ("length", "i8"), ("member", "i8")])
"""Where the pattern starts in `Selection.patterns`, its length in bytes, and the member of the service it chooses."""

MEMORY = 8
"""int64 cells that a select kernel has to itself for each service."""


class Selection(NamedTuple):
    """What select kernels see beside the payload."""

    services: np.ndarray    # SERVICE [n]
    rules: np.ndarray       # RULE [m]
    patterns: np.ndarray    # uint8, all patterns one behind the other
    memory: np.ndarray      # int64 [n, MEMORY]
    rewrite: np.ndarray     # int64 [1] how many bytes in `scratch` are to be held instead, or -1 (SPLICE 5.3)
    scratch: np.ndarray     # uint8 [held_bytes]
    excluded: np.ndarray    # int64 [2] members of the service that have failed this connection, or -1


class Targets(NamedTuple):
    """The targets, and which of them a service has: members first_member .. first_member + members - 1."""

    rows: np.ndarray        # TARGET [n]
    members: np.ndarray     # int64, target of each member


@kernel
def find_service(services, address, port):
    """Returns the number of the service that listens there, or -1."""
    for number in range(services.shape[0]):
        if services[number].port == port and services[number].address == address:
            return number
    return -1


@kernel
def is_excluded(selection, member):
    """Says whether a member of the service has already failed the connection that is being asked about."""
    return member == selection.excluded[0] or member == selection.excluded[1]
