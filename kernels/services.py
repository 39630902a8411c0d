"""Services, targets, the rules by which payload chooses among them, and the source ports toward each target."""
from typing import NamedTuple

import numpy as np

from .jit import kernel

NO_MATCH, NEED_MORE = -1, -2
"""What a select kernel answers beside the number of a target: none fits; the payload so far does not tell."""

DELAYED, IMMEDIATE = 0, 1
STRAY_RESET, STRAY_DROP = 0, 1

SERVICE = np.dtype([
    ("address", "i8"), ("port", "i8"), ("binding", "i8"), ("stray", "i8"), ("select", "i8"),
    ("first_member", "i8"), ("members", "i8"), ("fallback", "i8"), ("first_rule", "i8"), ("rules", "i8"),
    ("offer", "i8"),
])
"""`select` numbers the kernel among those composed into the loop; `fallback` is a target, or -1 to refuse.
`offer` (PROMISED_* bits) is what every target of the service is believed to support: clients are promised no more."""

TARGET = np.dtype([("address", "i8"), ("port", "i8"), ("neighbour", "i8"), ("pool", "i8"), ("stamps_known", "i8")])
"""`stamps_known`: whether the target is known to use timestamps; until then its MSS leaves room for them (SPLICE 2.5)."""
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


class Targets(NamedTuple):
    """The targets, and which of them a service has: members first_member .. first_member + members - 1."""

    rows: np.ndarray        # TARGET [n]
    members: np.ndarray     # int64, target of each member


class SourcePorts(NamedTuple):
    """Free source ports toward each target, the one unused for the longest time first (SPLICE 3.2)."""

    ring: np.ndarray        # uint32 [pools, size] entries: index of the source address << 16 | port
    head: np.ndarray        # int64 [pools] next to be taken
    free: np.ndarray        # int64 [pools] how many are free
    address: np.ndarray     # int64 [pools, n] source addresses


@kernel
def find_service(services, address, port):
    """Returns the number of the service that listens there, or -1."""
    for number in range(services.shape[0]):
        if services[number].port == port and services[number].address == address:
            return number
    return -1


@kernel
def take_source(sources, pool):
    """Takes the oldest free entry of a pool; returns it, or -1 where none is free."""
    if sources.free[pool] == 0:
        return -1
    head = sources.head[pool]
    entry = np.int64(sources.ring[pool, head])
    sources.head[pool] = head + 1 if head + 1 < sources.ring.shape[1] else 0
    sources.free[pool] -= 1
    return entry


@kernel
def give_source(sources, pool, entry):
    """Gives an entry back to its pool, behind all that are free."""
    size = sources.ring.shape[1]
    tail = sources.head[pool] + sources.free[pool]
    sources.ring[pool, tail if tail < size else tail - size] = entry
    sources.free[pool] += 1
