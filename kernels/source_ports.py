"""Source ports toward the targets, and what was last sent from each of them (SPLICE 3.2).

A port goes back when its connection comes into TIME_WAIT: a target that closes first would else use all of them up. The
ring makes it the last to be taken again; whoever takes it then ends what is left of the old connection. Within two
maximum segment lifetimes the new connection's numbers and timestamps lie above the old one's, so that a target whose
end is still in TIME_WAIT takes the SYN for what it is (RFC 6191).
"""
from typing import NamedTuple

import numpy as np
from numpy import int64

from .connection import (
    AGED,
    BOUND,
    CLIENT,
    FIN_SEEN,
    LENT,
    PROMISED_TIMESTAMPS,
    SPECIAL,
    TARGET,
    TIME_WAIT,
)
from .jit import kernel
from .native import record_at
from .opening import client_stamp
from .sequence import distance, wrap

TWO_LIFETIMES = 12_000
"""Ticks after which nothing of an old connection is left in the network or at the target: 120 s, twice the TIME_WAIT of Linux."""
NUMBERS_APART = 65_537
"""How far above the last number of an old connection a new one begins, further than any window without scaling."""
STAMPS_APART = 40_000
"""Milliseconds that a client's clock may have gone on between its SYN and ours: the time-outs of the states between. As much
is left between the last TSval that is known and what may have passed unnoticed."""
FARTHEST = (1 << 31) - (1 << 28)
"""How far above the last number or TSval that is known a new one may lie. What the target really had last lies lower, by
STAMPS_APART at least and by the days that a connection lasted at most: to it, one half the circle above ours is an old one."""

LAST = np.dtype([("seq", "u4"), ("stamp", "u4"), ("tick", "u4"), ("stamped", "u1"), ("used", "u1")])
"""Of each port: the number behind the last one sent, the highest TSval, when, whether with timestamps, whether ever."""
LAST_BYTES = LAST.itemsize


class SourcePorts(NamedTuple):
    """Free source ports toward each target, the one unused for the longest time first."""

    ring: np.ndarray        # uint32 [pools, size] entries: index of the source address << 16 | port
    head: np.ndarray        # int64 [pools] next to be taken
    free: np.ndarray        # int64 [pools] how many are free
    address: np.ndarray     # int64 [pools, n] source addresses
    last: np.ndarray        # LAST [pools, n * 65536], by entry


@kernel
def take_source(sources, pool):
    """Takes the oldest free entry of a pool; returns it, or -1 where none is free."""
    if sources.free[pool] == 0:
        return -1
    head = sources.head[pool]
    entry = int64(sources.ring[pool, head])
    sources.head[pool] = head + 1 if head + 1 < sources.ring.shape[1] else 0
    sources.free[pool] -= 1
    return entry


@kernel
def next_source(sources, pool):
    """Returns the entry of a pool that will be taken next; any where none is free."""
    return int64(sources.ring[pool, sources.head[pool]])


@kernel
def give_source(sources, pool, entry):
    """Gives an entry back to its pool, behind all that are free."""
    size = sources.ring.shape[1]
    tail = sources.head[pool] + sources.free[pool]
    sources.ring[pool, tail if tail < size else tail - size] = entry
    sources.free[pool] += 1


@kernel
def note_last(connections, last, hot, cold):
    """Notes what was last sent from a connection's port.

    Its client's TSval is known where that has closed, whatever its clock. Where it has not, the target keeps nothing that a
    new SYN would have to exceed, unless it has missed our RST: then a clock of milliseconds, the fastest allowed, is assumed
    (RFC 7323, section 5.4), from when the port was taken (`tick`).
    """
    last.seq = wrap(int64(hot.next[CLIENT]) + int64(hot.shift[CLIENT]))
    last.stamped = int64(cold.agreed & PROMISED_TIMESTAMPS != 0)
    gone = 0
    if hot.closing & (FIN_SEEN << CLIENT) == 0:
        gone = 10 * max(distance(int64(hot.stamp), int64(last.tick)), 0)
    if cold.special & AGED:
        gone += int64(cold.stamp_shift)
    last.stamp = wrap(client_stamp(connections, cold) + gone + STAMPS_APART)
    last.used = 1


@kernel
def give_back_source(connections, connection, targets, sources, tick):
    """Gives a connection's source port back, unless that is done, and notes what was last sent from it."""
    hot, cold = record_at(connections.hot, connection), record_at(connections.cold, connection)
    if cold.special & LENT:
        return
    pool, entry = int64(record_at(targets.rows, int64(cold.target)).pool), (int64(cold.source) << 16) | int64(hot.local_port[TARGET])
    note_last(connections, sources.last[pool, entry], hot, cold)
    sources.last[pool, entry].tick = wrap(tick)
    cold.special |= LENT
    give_source(sources, pool, entry)


@kernel
def lend(connections, targets, sources, tick):
    """Gives back the source ports of all connections in `touched` that have come into TIME_WAIT."""
    touched = connections.touched
    for number in range(touched.filled[0]):
        hot = record_at(connections.hot, touched.connection[number])
        if hot.state == TIME_WAIT and hot.options & BOUND:
            give_back_source(connections, touched.connection[number], targets, sources, tick)


@kernel
def is_old(value, last):
    """Says whether a number or TSval may be an old one to a target, whose last one was `last`, or somewhat before."""
    ahead = distance(value, last)
    return ahead <= 0 or ahead > FARTHEST


@kernel
def begin_above(connections, connection, last, tick):
    """Chooses our SYN's initial number: the client's own, less a PROXY header, or one above the last sent from this port.

    Timestamps alike.
    """
    hot, cold = record_at(connections.hot, connection), record_at(connections.cold, connection)
    opening = record_at(connections.openings, int64(cold.opening))
    initial = wrap(int64(opening.client_isn) - int64(opening.header))
    delta = wrap(int64(hot.shift[CLIENT]) - int64(opening.syn_isn) + initial)
    number, stamp, stamp_shift = initial, int64(opening.first_stamp), 0
    if last.used and distance(wrap(tick), int64(last.tick)) < TWO_LIFETIMES:
        if is_old(number, int64(last.seq)):
            number = wrap(int64(last.seq) + NUMBERS_APART)
        if cold.agreed & PROMISED_TIMESTAMPS and last.stamped and is_old(stamp, int64(last.stamp)):
            stamp_shift = wrap(int64(last.stamp) + 1 - stamp)
    last.tick = wrap(tick)
    opening.syn_isn = number
    hot.shift[CLIENT] = wrap(number - initial + delta)
    cold.stamp_shift = stamp_shift
    if stamp_shift != 0:
        cold.special |= AGED
        hot.options |= SPECIAL
    else:
        cold.special &= 0xFFFF ^ AGED
