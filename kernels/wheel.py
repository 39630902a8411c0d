"""A hierarchical timer wheel (Varghese and Lauck, 1987, scheme 7), one timer a connection.

Four levels of 256 slots reach 2**32 ticks, so that a time-out of days costs the same as one of milliseconds. A slot is
a stack of chunks of one cache line, 14 timers each, all full but the last: whoever empties a slot reads timers line by
line and knows the next ones early enough to prefetch them, where a list would make it wait for each. A timer knows its
place, so it is taken out by moving the slot's last timer there. Setting a pending timer to a later time changes its
deadline alone (lazy): it is found to be early when its slot comes, and goes to the right one then.
"""
from typing import NamedTuple

import numpy as np
from numpy import int64

from .jit import kernel
from .memory import allocate
from .native import address_of, prefetch, record_at

TICK_MICROSECONDS = 10_000
"""One tick of the wheel."""
LEVELS, BITS = 4, 8
SLOTS = 1 << BITS
HEADS = LEVELS * SLOTS
FARTHEST = (1 << 32) - SLOTS ** 3 - 1
"""Ticks that a deadline can be away."""
CHUNK_BITS = 4
CHUNK = 1 << CHUNK_BITS
"""Words of a chunk: where the chunk before it ends, its slot, and timers. A free one's first word is the next free one."""
OWNER, FIRST = 1, 2
TIMERS_A_CHUNK = CHUNK - FIRST
NONE = 0
"""Place of a timer that is not pending."""
EMPTY = CHUNK - 1
"""End of an empty slot: that of chunk 0, which is never used, as if it were full."""
MOVES = 16
"""Timers that one call may look at for each that `expired` takes: a slot full of timers that come early is no stall."""
TIMER = np.dtype([("place", "u4"), ("deadline", "u4")])
WORD = np.dtype([("value", "u4")])


class Wheel(NamedTuple):
    """A wheel. A place is a chunk's number * CHUNK + one of its words."""

    timers: np.ndarray   # TIMER [timers], or records that have its fields: place in the chunks, tick
    words: np.ndarray    # WORD [chunks * CHUNK]
    ends: np.ndarray     # WORD [HEADS] place of each slot's last timer
    free: np.ndarray     # int64 [1] the first free chunk
    now: np.ndarray      # int64 [2] the tick whose slot is being, or was last, emptied; 1 where it is not empty yet


def chunks_for(timers):
    """Returns how many chunks hold that many timers, in whatever slots they are."""
    return 2 + min(timers, timers // TIMERS_A_CHUNK + HEADS)


def allocate_wheel(timers, records=None):
    """Returns a `Wheel` at tick 0 for timers 0 .. timers - 1, none of them pending.

    `records` are zeroed records with the fields of TIMER, one a timer; by default the wheel has its own.
    """
    chunks = chunks_for(timers)
    words, ends = allocate(chunks * CHUNK, WORD), allocate(HEADS, WORD)
    words.value[::CHUNK] = np.arange(1, chunks + 1)
    ends.value[:] = EMPTY
    return Wheel(allocate(timers, TIMER) if records is None else records, words, ends, np.ones(1, np.int64), np.zeros(2, np.int64))


@kernel
def retry_at(tick):
    """Returns a tick as a connection's `retry` keeps it, in 32 bits: 0 means none there, so the next one stands for it."""
    return max(tick & 0xFFFFFFFF, 1)


@kernel
def link(wheel, head, timer):
    """Puts a timer at the end of a slot; there are chunks enough for all timers in any slots."""
    words, end = wheel.words, record_at(wheel.ends, head)
    last = int64(end.value)
    place = last + 1
    if last & (CHUNK - 1) == CHUNK - 1:
        chunk = wheel.free[0] << CHUNK_BITS
        wheel.free[0] = int64(record_at(words, chunk).value)
        record_at(words, chunk).value = last
        record_at(words, chunk + OWNER).value = head
        place = chunk + FIRST
    record_at(words, place).value = timer
    end.value = place
    record_at(wheel.timers, timer).place = place


@kernel
def shorten(wheel, last):
    """Returns where a slot ends without its last timer, which was at the place `last`; gives back an empty chunk."""
    if last & (CHUNK - 1) != FIRST:
        return last - 1
    begin = record_at(wheel.words, last - FIRST)
    before = int64(begin.value)
    begin.value = wheel.free[0]
    wheel.free[0] = last >> CHUNK_BITS
    return before


@kernel
def unlink(wheel, timer):
    """Takes a pending timer out of its slot: the slot's last timer takes its place."""
    words, record = wheel.words, record_at(wheel.timers, timer)
    place = int64(record.place)
    end = record_at(wheel.ends, int64(record_at(words, (place & -CHUNK) + OWNER).value))
    last = int64(end.value)
    moved = int64(record_at(words, last).value)
    record_at(words, place).value = moved
    record_at(wheel.timers, moved).place = place
    record.place = NONE
    end.value = shorten(wheel, last)


@kernel
def head_of(now, deadline):
    """Returns the slot for a deadline (tick) after `now`: the nearer, the finer its level."""
    away = deadline - now
    level = int64(away >= SLOTS) + int64(away >= SLOTS ** 2) + int64(away >= SLOTS ** 3)
    return level * SLOTS + ((deadline >> (level * BITS)) & (SLOTS - 1))


@kernel
def ask_for_timer(wheel, timer):
    """Asks for a timer that is soon to be set."""
    prefetch(address_of(wheel.timers) + timer * wheel.timers.itemsize)


@kernel
def comes_earlier(wheel, timer, deadline):
    """Says whether a timer is pending and a deadline (tick) before its own, so that it is not enough to note it down."""
    now, record = wheel.now[0], record_at(wheel.timers, timer)
    return record.place != NONE and deadline - now < (int64(record.deadline) - now) & 0xFFFFFFFF


@kernel
def ask_for_place(wheel, timer):
    """Asks for the chunk that a timer is in, once the timer itself is at hand."""
    prefetch(address_of(wheel.words) + (int64(record_at(wheel.timers, timer).place) & -CHUNK) * 4)


@kernel
def ask_for_last(wheel, timer, before):
    """Asks for the timer that takes a timer's place when it is taken out, `before` others of its slot having been so.

    Left to `unlink`, four misses in turn: with them asked for ahead, of 100,000 timers, one is moved in 40 ticks, not 100.
    """
    words, place = wheel.words, int64(record_at(wheel.timers, timer).place)
    last = int64(record_at(wheel.ends, int64(record_at(words, (place & -CHUNK) + OWNER).value)).value)
    prefetch(address_of(wheel.words) + (last & -CHUNK) * 4)
    ask_for_timer(wheel, int64(record_at(words, max(last - before, (last & -CHUNK) + FIRST)).value))


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
    link(wheel, head_of(now, deadline), timer)


@kernel
def cancel(wheel, timer):
    """Stops a timer; one that is not pending stays so."""
    if record_at(wheel.timers, timer).place != NONE:
        unlink(wheel, timer)


@kernel
def take(wheel, head, taken, count):
    """Moves timers from the end of a slot to `taken` from row `count` on; returns how many rows are filled then.

    The timers do not know it yet (`settle`), but what they know is on its way to the cache.
    """
    words, end = wheel.words, record_at(wheel.ends, head)
    last = int64(end.value)
    while last != EMPTY and count < taken.shape[0]:
        begin = last & -CHUNK
        before = int64(record_at(words, begin).value)
        prefetch(address_of(words) + (before & -CHUNK) * 4)
        stop = max(begin + FIRST - 1, last - (taken.shape[0] - count))
        while last > stop:
            timer = int64(record_at(words, last).value)
            ask_for_timer(wheel, timer)
            taken[count] = timer
            count += 1
            last -= 1
        if last == begin + FIRST - 1:
            last = shorten(wheel, begin + FIRST)
    end.value = last
    return count


@kernel
def settle(wheel, now, taken, first, count):
    """Deals with timers first .. count - 1 of `taken`: those that are due stay there, the others go to their slot.

    Returns how many rows of `taken` are filled then.
    """
    for number in range(first, count):
        timer = taken[number]
        record = record_at(wheel.timers, timer)
        away = (int64(record.deadline) - now) & 0xFFFFFFFF
        if away == 0:
            record.place = NONE
            taken[first] = timer
            first += 1
        else:
            link(wheel, head_of(now, now + away), timer)
    return first


@kernel
def advance(wheel, tick, expired):
    """Moves the wheel on to `tick`, writes timers that expired to `expired` (int64) and returns how many.

    Where `expired` is full, or MOVES times as many timers have been looked at, the wheel stands still (`now[1]`); calling
    again goes on from there. Rows of `expired` behind those are scratch.
    """
    count, left = 0, MOVES * expired.shape[0]
    while True:
        now = wheel.now[0]
        for level in range(LEVELS if now & (SLOTS - 1) == 0 else 1):
            if now & ((1 << (level * BITS)) - 1) != 0:
                break
            head = level * SLOTS + ((now >> (level * BITS)) & (SLOTS - 1))
            while record_at(wheel.ends, head).value != EMPTY:
                if count == expired.shape[0] or left <= 0:
                    wheel.now[1] = 1
                    return count
                filled = take(wheel, head, expired, count)
                left -= filled - count
                count = settle(wheel, now, expired, count, filled)
        wheel.now[1] = 0
        if now >= tick:
            return count
        wheel.now[0] = now + 1
