"""A hierarchical timer wheel (Varghese and Lauck, 1987, scheme 7) of circular lists, one timer a connection.

Four levels of 256 slots reach 2**32 ticks, so that a time-out of days costs the same as one of milliseconds. Nodes
0 .. 1023 are the heads of the slots, node 1024 + t is timer t: linking and unlinking know no special case.
"""
from typing import NamedTuple

import numpy as np
from numpy import int64

from .jit import kernel

TICK_MICROSECONDS = 10_000
"""One tick of the wheel."""
LEVELS, BITS = 4, 8
SLOTS = 1 << BITS
HEADS = LEVELS * SLOTS
NODE = np.dtype([("next", "u4"), ("previous", "u4"), ("deadline", "u4")])


class Wheel(NamedTuple):
    """A wheel; `now` is the tick whose slot was last expired."""

    nodes: np.ndarray   # NODE [HEADS + timers]
    now: np.ndarray     # int64 [1]


def allocate_wheel(timers):
    """Returns a `Wheel` at tick 0 for timers 0 .. timers - 1, none of them pending."""
    nodes = np.zeros(HEADS + timers, NODE).view(np.recarray)
    nodes.next = nodes.previous = np.arange(HEADS + timers)
    return Wheel(nodes, np.zeros(1, np.int64))


@kernel
def unlink(nodes, node):
    """Takes a node out of its list; a node in no list is linked to itself, and stays so."""
    following, previous = int64(nodes[node].next), int64(nodes[node].previous)
    nodes[previous].next = following
    nodes[following].previous = previous
    nodes[node].next = node
    nodes[node].previous = node


@kernel
def link(nodes, head, node):
    """Puts a node at the end of the list of `head`."""
    last = int64(nodes[head].previous)
    nodes[last].next = node
    nodes[node].previous = last
    nodes[node].next = head
    nodes[head].previous = node


@kernel
def head_of(now, deadline):
    """Returns the head of the slot for a deadline (tick) after `now`: the nearer, the finer its level."""
    away = deadline - now
    level = int64(away >= SLOTS) + int64(away >= SLOTS ** 2) + int64(away >= SLOTS ** 3)
    return level * SLOTS + ((deadline >> (level * BITS)) & (SLOTS - 1))


@kernel
def schedule(wheel, timer, deadline):
    """Sets a timer, pending or not, to expire at tick `deadline`, at the next tick where that has passed."""
    now = wheel.now[0]
    node = HEADS + timer
    unlink(wheel.nodes, node)
    deadline = min(max(deadline, now + 1), now + (1 << 32) - SLOTS ** 3 - 1)
    wheel.nodes[node].deadline = deadline & 0xFFFFFFFF
    link(wheel.nodes, head_of(now, deadline), node)


@kernel
def cancel(wheel, timer):
    """Stops a timer; one that is not pending stays so."""
    unlink(wheel.nodes, HEADS + timer)


@kernel
def cascade(wheel, level, now):
    """Moves the timers of the slot of `level` whose time has come down to finer levels."""
    nodes = wheel.nodes
    head = level * SLOTS + ((now >> (level * BITS)) & (SLOTS - 1))
    node = int64(nodes[head].next)
    nodes[head].next = head
    nodes[head].previous = head
    while node != head:
        following = int64(nodes[node].next)
        away = (int64(nodes[node].deadline) - now) & 0xFFFFFFFF
        link(nodes, head_of(now, now + away), node)
        node = following


@kernel
def advance(wheel, tick, expired):
    """Moves the wheel on to `tick`, writes timers that expired to `expired` (int64) and returns how many.

    Where `expired` is full the wheel stands still at that slot; calling again goes on from there.
    """
    nodes = wheel.nodes
    count = 0
    while True:
        now = wheel.now[0]
        head = now & (SLOTS - 1)
        node = int64(nodes[head].next)
        while node != head and count < expired.shape[0]:
            following = int64(nodes[node].next)
            unlink(nodes, node)
            expired[count] = node - HEADS
            count += 1
            node = following
        if node != head or now >= tick:
            return count
        now += 1
        wheel.now[0] = now
        for level in range(1, LEVELS):
            if now & ((1 << (level * BITS)) - 1) == 0:
                cascade(wheel, level, now)
