"""Services, targets, the rules by which payload chooses among them, and the source ports toward each target."""
from typing import NamedTuple

import numpy as np

from .counters import OF_TARGET_OPEN
from .jit import kernel
from .wheel import TICK_MICROSECONDS

NO_MATCH, NEED_MORE, ANSWER_CLIENT = -1, -2, -3
"""What a select kernel answers beside the number of a target: none fits; the payload so far does not tell; the payload begins with
a request that is ours to answer (`Selection.reply`)."""
REFUSE_CLIENT = -1 << 40
"""What is answered in its place for a client that gets no target at all, whatever the service's default is."""
AWAIT_CLIENT = REFUSE_CLIENT - 1
"""What is answered in its place while the client has not acknowledged an answer of ours: nothing is done until then."""
GROUP = 1 << 20
"""A select kernel (by a rule's `member`) answers GROUP + row of `Selection.services` to have a group's own kernel choose."""
UP, DOWN, DRAIN, MAINTENANCE = 0, 1, 2, 3
STATES = ("up", "down", "drain", "maintenance")
MOST_OPEN, AN_INTERVAL, MAY_BE_EARLY, NEXT_DUE = range(4)
"""Columns of `Selection.limits`: connections at once; nanoseconds a new one, 0 for any rate; nanoseconds it may come early; when the
next is due."""
NO_LIMIT = 1 << 62
A_TICK = 1000 * TICK_MICROSECONDS
"""Nanoseconds."""

DELAYED, IMMEDIATE, SIMPLE = 0, 1, 2
STRAY_RESET, STRAY_DROP = 0, 1
UNKNOWN_SCALE = -1
ONE_ADDRESS = 0xFFFFFFFF

SERVICE = np.dtype([
    ("address", "i8"), ("port", "i8"), ("last_port", "i8"), ("mask", "i8"), ("binding", "i8"), ("stray", "i8"), ("select", "i8"),
    ("first_member", "i8"), ("members", "i8"), ("fallback", "i8"), ("first_rule", "i8"), ("rules", "i8"),
    ("offer", "i8"), ("mss", "i8"), ("attempts", "i8"), ("payload_kernel", "i8", (2,)), ("scale", "i8"),
    ("table", "i8"), ("places", "i8"),
])
"""It listens on the ports `port` to `last_port` of all addresses that are `address` under `mask`. A group is a row too, behind the
services: nobody listens at its ports (-1), and its members are members of its service.

`select` numbers the kernel among those composed into the loop; `fallback` is a target, or -1 to refuse.
`offer` (PROMISED_* bits) is what every target of the service is believed to support: clients are promised no more.
`mss`: the least that a target of it is known to take, and what our ports take (SPLICE 2.6).
`attempts`: how many targets are tried for a connection before its client gets a RST (SPLICE 3.1).
`payload_kernel`: the number of the payload kernel for what the client sends and for what the target sends, or -1.
`scale`: the window scale that clients are offered, the largest that a target of it has shown, or UNKNOWN_SCALE (SPLICE 2.3).
`fallback` may be GROUP + row. `table`, `places`: where its Maglev table starts in `Selection.table`, and its length (a prime) or 0."""

TARGET = np.dtype([("address", "i8"), ("port", "i8"), ("neighbour", "i8"), ("pool", "i8"), ("stamps_known", "i8"),
                   ("scale", "i8")])
"""`stamps_known`: whether the target is known to use timestamps; until then its MSS leaves room for them (SPLICE 2.5).
`scale`: the window scale that it has shown last, or UNKNOWN_SCALE."""
RULE = np.dtype([("pattern", "i8"), ("length", "i8"), ("member", "i8"), ("how", "i8"), ("mask", "i8"), ("offset", "i8")])
"""Where the pattern starts in `Selection.patterns`, its length in bytes, and the member of the service it chooses.
`how` it is compared (kernels/rules.py), where its mask starts in `patterns`, if any, and at which byte of the payload it lies."""

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
    assembled: np.ndarray   # uint8 [4 * held_stride] where a kernel puts together what the payload has in pieces
    client: np.ndarray      # int64 [4] address and port of the client that is asked for, and what it connected to
    tick: np.ndarray        # int64 [1] now
    target: np.ndarray      # int64 [m] target of each member: first_member + member of a row (as Targets.members)
    home: np.ndarray        # int64 [m] which member of its service a group's member is
    weight: np.ndarray      # int64 [m] 0: gets no new connection
    current: np.ndarray     # int64 [m] what smooth weighted round robin remembers
    table: np.ndarray       # uint16, Maglev tables one behind the other: the member of each place
    states: np.ndarray      # int64 [t] UP, DOWN, DRAIN, MAINTENANCE of each target (as Targets.states)
    until: np.ndarray       # int64 [t] (as Targets.until)
    pending: np.ndarray     # int64 [t] connections of this burst that will be given to each target
    counted: np.ndarray     # int64 [t, OF_TARGET] the counters of targets
    limits: np.ndarray      # int64 [t, 4] see MOST_OPEN
    reply: np.ndarray       # int64 [3] with ANSWER_CLIENT: how many octets of the payload are taken away, and the octet (not 0)
                            # that the client is sent; how many requests of this connection have been answered before


class Targets(NamedTuple):
    """The targets, and which of them a service has: members first_member .. first_member + members - 1."""

    rows: np.ndarray        # TARGET [n]
    members: np.ndarray     # int64, target of each member
    states: np.ndarray      # int64 [n] UP, DOWN, DRAIN, MAINTENANCE: written by Python alone, read without a lock
    failures: np.ndarray    # int64 [n] failures in a row, as connections have met them
    until: np.ndarray       # int64 [n] tick until which passive health holds a target for down, or 0
    health: np.ndarray      # int64 [5] failures in a row that make a target down, or 0 for never; ticks until one is let try;
                            # walks over all connections that Python wants, that have been made; connections looked at


@kernel
def find_service(services, address, port):
    """Returns the number of the service that listens there, or -1: of several that with the longest prefix, then the fewest ports."""
    found, longest, fewest = -1, -1, 0
    for number in range(services.shape[0]):
        first, last, mask = services[number].port, services[number].last_port, services[number].mask
        # One branch that is nearly always taken: of two, for many services, each is a guess (104 ticks instead of 48 for 64).
        if (port - first) | (last - port) < 0 or address & mask != services[number].address:
            continue
        if first == last and mask == ONE_ADDRESS:
            return number
        if mask > longest or (mask == longest and last - first < fewest):
            found, longest, fewest = number, mask, last - first
    return found


@kernel
def is_excluded(selection, member):
    """Says whether a member of the service has already failed the connection that is being asked about."""
    return member == selection.excluded[0] or member == selection.excluded[1]


@kernel
def is_full(selection, target):
    """Says whether a target has as many connections as it may have, or has just been given one (kernels/limits.py)."""
    limits = selection.limits
    if selection.counted[target, OF_TARGET_OPEN] + selection.pending[target] >= limits[target, MOST_OPEN]:
        return True
    return limits[target, NEXT_DUE] > selection.tick[0] * A_TICK + limits[target, MAY_BE_EARLY]


@kernel
def is_usable(selection, target):
    """Says whether a target may be given a connection: it is up, not held for down until later, and within its limits."""
    return selection.states[target] == UP and selection.until[target] <= selection.tick[0] and not is_full(selection, target)


@kernel
def is_available(selection, service, member):
    """Says whether a balancing kernel may choose a member: it has weight, is usable, and has not failed this connection."""
    place = selection.services[service].first_member + member
    return selection.weight[place] > 0 and is_usable(selection, selection.target[place]) and not is_excluded(selection, member)


@kernel
def claim(selection, targets, target):
    """Counts a connection that will be given to a target; of one that is held for down, no second one until later."""
    selection.pending[target] += 1
    limits = selection.limits
    if limits[target, AN_INTERVAL] > 0:
        limits[target, NEXT_DUE] = max(limits[target, NEXT_DUE], selection.tick[0] * A_TICK) + limits[target, AN_INTERVAL]
    if targets.until[target] != 0:
        targets.until[target] = selection.tick[0] + targets.health[1]


@kernel
def note_failure(targets, target, tick):
    """Counts a target's failure to take a connection; so many in a row, and it is held for down (passive health)."""
    targets.failures[target] += 1
    if 0 < targets.health[0] <= targets.failures[target]:
        targets.until[target] = tick + targets.health[1]


@kernel
def note_success(targets, target):
    """A target has taken a connection: it is no longer held for down."""
    targets.failures[target] = 0
    targets.until[target] = 0
