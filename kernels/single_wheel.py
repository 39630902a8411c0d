"""A timer wheel of one level (Varghese and Lauck, 1987, scheme 6), the other kind beside `wheel`. The slot `timers`.

A timer lies in the slot of its deadline modulo SLOTS, in a list; one that is a round or more away is passed over, and put back,
when its slot comes before its deadline does. So what is further than SLOTS ticks (41 seconds) costs a look a round, where a
hierarchy costs one a level. As there, setting a pending timer to a later time changes its deadline alone.
"""
from typing import NamedTuple

import numpy as np
from numpy import int64

from .jit import kernel
from .memory import allocate
from .native import address_of, prefetch, record_at

SLOTS = 4096
FARTHEST = (1 << 32) - SLOTS - 1
"""Ticks that a deadline can be away."""
NONE, PENDING = 0, 1
MOVES = 16
"""Timers that one call may look at for each that `expired` takes: a slot full of timers that come early is no stall."""
TIMER = np.dtype([("place", "u4"), ("deadline", "u4")])
LINK = np.dtype([("following", "u4"), ("before", "u4")])
LINK_BYTES = LINK.itemsize


class Wheel(NamedTuple):
    """A wheel. Each list is closed by a link of its own: behind those of the timers come those of the slots, then that of what
    is due now."""

    timers: np.ndarray   # TIMER [timers], or records that have its fields: place NONE or PENDING, deadline a tick
    links: np.ndarray    # LINK [timers + SLOTS + 1]
    now: np.ndarray      # int64 [2] the tick whose slot is being, or was last, emptied; 1 where it is not empty yet


def allocate_wheel(timers, records=None):
    """Returns a `Wheel` at tick 0 for timers 0 .. timers - 1, none of them pending.

    `records` are zeroed records with the fields of TIMER, one a timer; by default the wheel has its own.
    """
    links = allocate(timers + SLOTS + 1, LINK)
    links.following[timers:] = links.before[timers:] = np.arange(timers, timers + SLOTS + 1)
    return Wheel(allocate(timers, TIMER) if records is None else records, links, np.zeros(2, np.int64))


@kernel
def list_of(wheel, deadline):
    """Returns the link that closes the list of a deadline's slot."""
    return wheel.links.shape[0] - 1 - SLOTS + (deadline & (SLOTS - 1))


@kernel
def link(wheel, deadline, timer):
    """Puts a timer at the end of its slot's list."""
    links, end = wheel.links, list_of(wheel, deadline)
    closing, mine = record_at(links, end), record_at(links, timer)
    last = int64(closing.before)
    mine.following, mine.before = end, last
    record_at(links, last).following = timer
    closing.before = timer
    record_at(wheel.timers, timer).place = PENDING


@kernel
def unlink(wheel, timer):
    """Takes a timer out of the list that it is in."""
    links, mine = wheel.links, record_at(wheel.links, timer)
    before, following = int64(mine.before), int64(mine.following)
    record_at(links, before).following = following
    record_at(links, following).before = before
    record_at(wheel.timers, timer).place = NONE


@kernel
def ask_for_timer(wheel, timer):
    """Asks for a timer that is soon to be set."""
    prefetch(address_of(wheel.timers) + timer * wheel.timers.itemsize)
    prefetch(address_of(wheel.links) + timer * LINK_BYTES)


@kernel
def schedule(wheel, timer, deadline):
    """Sets a timer, pending or not, to expire at tick `deadline`, at the next tick where that has passed."""
    now, record = wheel.now[0], record_at(wheel.timers, timer)
    deadline = min(max(deadline, now + 1), now + FARTHEST)
    if record.place != NONE:
        if deadline - now >= (int64(record.deadline) - now) & 0xFFFFFFFF:
            record.deadline = deadline & 0xFFFFFFFF
            return
        unlink(wheel, timer)
    record.deadline = deadline & 0xFFFFFFFF
    link(wheel, deadline, timer)


@kernel
def cancel(wheel, timer):
    """Stops a timer; one that is not pending stays so."""
    if record_at(wheel.timers, timer).place != NONE:
        unlink(wheel, timer)


@kernel
def come_to(wheel, tick):
    """Comes to a tick: all that lies in its slot goes to the list of what is due, which is empty."""
    links, due = wheel.links, wheel.links.shape[0] - 1
    wheel.now[0] = tick
    slot = list_of(wheel, tick)
    closing, waiting = record_at(links, slot), record_at(links, due)
    first, last = int64(closing.following), int64(closing.before)
    if first != slot:
        waiting.following, waiting.before = first, last
        record_at(links, first).before = due
        record_at(links, last).following = due
        closing.following, closing.before = slot, slot


@kernel
def advance(wheel, tick, expired):
    """Moves the wheel on to `tick`, writes timers that expired to `expired` (int64) and returns how many.

    Where `expired` is full, or MOVES times as many timers have been looked at, the wheel stands still (`now[1]`); calling
    again goes on from there.
    """
    count, left, due = 0, MOVES * expired.shape[0], wheel.links.shape[0] - 1
    while True:
        now = wheel.now[0]
        timer = int64(record_at(wheel.links, due).following)
        while timer != due:
            if count == expired.shape[0] or left <= 0:
                wheel.now[1] = 1
                return count
            left -= 1
            unlink(wheel, timer)
            away = (int64(record_at(wheel.timers, timer).deadline) - now) & 0xFFFFFFFF
            if away == 0:
                expired[count] = timer
                count += 1
            else:
                link(wheel, now + away, timer)
            timer = int64(record_at(wheel.links, due).following)
        wheel.now[1] = 0
        if now >= tick:
            return count
        come_to(wheel, now + 1)
