"""The waiting room: segments that came before what they follow wait as mbufs, and come again once that is there.

They are taken up by the loop's receive step and go through all stages as if they had just come in. A segment comes again
only when the in-order point of its flow has reached it, so none goes round for ever. A flow is connection * 2 + side.
"""
from typing import NamedTuple

import numpy as np
from numpy import int64

from .batch import DROP, WAIT
from .connection import ESTABLISHED, FREE, SPECIAL, UNUSUAL, WAITS
from .counters import (
    DROP_WAITED_TOO_LONG,
    DROP_WAITING_ALREADY,
    DROP_WAITING_ROOM_FULL,
    NOTICE_SEGMENTS_WAITED,
)
from .headers import FIN
from .jit import kernel
from .native import record_at
from .sequence import distance, wrap

NONE = -1
LONGEST_WAIT, LONGEST_IN_SPLICE = 100, 1000
"""Ticks after which a segment no longer waits: one second, by which its sender will have sent it again; ten where the sender
was told that it has come (`own_acknowledgement`): the gap may take two or three time-outs to be filled, and what is thrown
away costs another, by which the sender finds out (RFC 2018, section 8)."""


class WaitingRoom(NamedTuple):
    """Places for mbufs, each free, in the list of its flow (in the order of its numbers), or in its port's list `again`.

    int64. A list ends with NONE; free places are linked by `following` too. A flow's list is found by `heads`: next to none
    has one, so that a column of all connections would be 8 bytes of each for nothing.
    """

    free: np.ndarray         # [1] first free place
    used: np.ndarray         # [1] places in use
    most: np.ndarray         # [1] places that one flow may have
    heads: np.ndarray        # [power of two] the first place of one of the lists of the flows that share it
    other: np.ndarray        # [places] of a list's first place: the first place of the next list that shares its head
    tail: np.ndarray         # [places] of a list's first place: its last one
    count: np.ndarray        # [places] of a list's first place: how many there are
    run: np.ndarray          # [places] the run, without a gap, up to this place: its first number, and the one behind its last
    reach: np.ndarray        # [places]
    following: np.ndarray    # [places] the next place of the same list
    flow: np.ndarray         # [places] NONE unless in the list of a flow
    mbuf: np.ndarray         # [places]
    port: np.ndarray         # [places] the port by which it came in
    seq: np.ndarray          # [places] its first number, and the one behind its last
    stop: np.ndarray         # [places]
    since: np.ndarray        # [places] tick
    again_first: np.ndarray  # [ports]
    again_last: np.ndarray   # [ports]
    leaving: np.ndarray      # [places] mbufs to be freed at the end of the pass
    left: np.ndarray         # [1] how many


def allocate_waiting_room(places, most, ports):
    """Returns an empty `WaitingRoom`: `places` for all, at most `most` for one flow."""
    following = np.arange(1, places + 1, dtype=np.int64)
    following[places - 1:] = NONE
    columns = [np.zeros(max(places, 1), np.int64) for _ in range(5)]
    of_lists = [np.full(max(places, 1), NONE, np.int64) for _ in range(5)]
    heads = np.full(1 << (2 * places).bit_length(), NONE, np.int64)
    return WaitingRoom(np.array([0 if places else NONE]), np.zeros(1, np.int64), np.array([most]),
                       heads, *of_lists, np.resize(following, max(places, 1)),
                       np.full(max(places, 1), NONE, np.int64), *columns, np.full(ports, NONE, np.int64),
                       np.full(ports, NONE, np.int64), np.zeros(max(places, 1), np.int64), np.zeros(1, np.int64))


@kernel
def first_of(room, flow):
    """Returns the first place of a flow's list, or NONE."""
    place = room.heads[flow & (room.heads.shape[0] - 1)]
    while place != NONE and room.flow[place] != flow:
        place = room.other[place]
    return place


@kernel
def begin_with(room, flow, before, place):
    """Lets a flow's list begin with `place` instead of `before`; NONE stands for no list."""
    head = flow & (room.heads.shape[0] - 1)
    if before == NONE:
        room.other[place] = room.heads[head]
        room.heads[head] = place
        return
    last, at = NONE, room.heads[head]
    while at != before:
        last, at = at, room.other[at]
    following = room.other[before]
    if place != NONE:
        room.other[place] = following
        following = place
    if last == NONE:
        room.heads[head] = following
    else:
        room.other[last] = following


@kernel
def find_place(room, flow, seq, stop):
    """Returns the place of a flow's list behind which numbers seq .. stop - 1 belong (NONE: at its front) and how many
    there are; -2 where one place holds all of them already: the first copy wins.

    What comes behind one gap comes in order, as a rule: it belongs behind the last place, however many wait.
    """
    place = first_of(room, flow)
    if place == NONE:
        return NONE, 0
    before, count, tail = NONE, room.count[place], room.tail[place]
    if distance(room.seq[tail], seq) <= 0:
        return -2 if distance(room.stop[tail], stop) >= 0 else tail, count
    while place != NONE and distance(room.seq[place], seq) <= 0:
        before = place
        if distance(room.stop[place], stop) >= 0:
            return -2, count
        place = room.following[place]
    return before, count


@kernel
def run_around(room, flow, number):
    """Returns the first number of the run of waiting numbers with `number` in it, and the one behind its last; equal if
    nothing waits there."""
    left, right, place = number, number, first_of(room, flow)
    if place == NONE:
        return number, number
    tail = room.tail[place]
    if distance(room.seq[tail], number) <= 0:
        return (room.run[tail], room.reach[tail]) if distance(room.reach[tail], number) > 0 else (number, number)
    begun = False
    while place != NONE:
        if not begun or distance(room.seq[place], right) > 0:
            if begun and distance(right, number) > 0:
                break
            left, right, begun = room.seq[place], room.stop[place], True
        elif distance(room.stop[place], right) > 0:
            right = room.stop[place]
        place = room.following[place]
    inside = begun and distance(number, left) >= 0 and distance(right, number) > 0
    return (left, right) if inside else (number, number)


@kernel
def know_runs(room, place):
    """Finds out anew in which run each place of a list from `place` on is, where one has come or gone in its midst."""
    run = reach = room.seq[max(place, 0)]
    while place != NONE:
        if distance(room.seq[place], reach) > 0:
            run = room.seq[place]
        if distance(room.stop[place], reach) > 0:
            reach = room.stop[place]
        room.run[place], room.reach[place] = run, reach
        place = room.following[place]


@kernel
def begin_later(room, flow, first, place, left):
    """Lets a flow's list, that has begun with `first`, begin with `place`, of which there are `left` from there on."""
    if place != NONE:
        room.tail[place], room.count[place] = room.tail[first], left
    begin_with(room, flow, first, place)


@kernel
def sit_down(room, batch, row, flow, seq, stop, before, tick):
    """Puts the mbuf of a row into the first free place, in the flow's list behind the place `before`."""
    place, first = room.free[0], first_of(room, flow)
    room.free[0] = room.following[place]
    room.used[0] += 1
    room.flow[place], room.mbuf[place], room.port[place] = flow, batch.mbuf[row], batch.port[row]
    room.seq[place], room.stop[place], room.since[place] = seq, stop, tick
    room.run[place], room.reach[place] = seq, stop
    if before == NONE:
        room.following[place] = first
        room.tail[place], room.count[place] = (place, 1) if first == NONE else (room.tail[first], room.count[first] + 1)
        begin_with(room, flow, first, place)
    else:
        room.following[place] = room.following[before]
        room.following[before] = place
        room.count[first] += 1
    if before != NONE and before == room.tail[first]:
        room.tail[first] = place
        if distance(room.reach[before], seq) >= 0:
            room.run[place] = room.run[before]
            room.reach[place] = stop if distance(stop, room.reach[before]) > 0 else room.reach[before]
    else:
        know_runs(room, place if before == NONE else first)


@kernel
def wait(batch, row, connections, flow, tick):
    """Lets a row wait until its flow's numbers have come to it: verdict WAIT, or DROP where it cannot, counted."""
    room, counters = connections.waiting, connections.counters
    hot, cold = record_at(connections.hot, flow >> 1), record_at(connections.cold, flow >> 1)
    seq = batch.seq[row]
    stop = wrap(seq + batch.payload_length[row] + int64(batch.control[row] & FIN))
    before, count = find_place(room, flow, seq, stop)
    batch.verdict[row] = DROP
    if before == -2:
        counters.drops[DROP_WAITING_ALREADY] += 1
    elif room.free[0] == NONE or count >= room.most[0]:
        counters.drops[DROP_WAITING_ROOM_FULL] += 1
    else:
        sit_down(room, batch, row, flow, seq, stop, before, tick)
        counters.notices[NOTICE_SEGMENTS_WAITED] += 1
        batch.verdict[row] = WAIT
        hot.options |= SPECIAL
        cold.special |= WAITS


@kernel
def nobody_waits(connections, flow):
    """Takes the mark off a connection of which no segment waits any more."""
    room, hot, cold = connections.waiting, record_at(connections.hot, flow >> 1), record_at(connections.cold, flow >> 1)
    if first_of(room, flow) == NONE and first_of(room, flow ^ 1) == NONE:
        cold.special &= 0xFFFF ^ WAITS
        if cold.special & UNUSUAL == 0:
            hot.options &= 0xFF ^ SPECIAL


@kernel
def line_up(room, place):
    """Puts a place that is in no list (any more) at the end of what comes again by its port."""
    port = room.port[place]
    room.flow[place], room.following[place] = NONE, NONE
    if room.again_first[port] == NONE:
        room.again_first[port] = place
    else:
        room.following[room.again_last[port]] = place
    room.again_last[port] = place


@kernel
def come_next(batch, row, connections):
    """Has a row come again with the next burst, whatever it is; one that finds no place is dropped, counted."""
    room, counters = connections.waiting, connections.counters
    place = room.free[0]
    if place == NONE:
        batch.verdict[row] = DROP
        counters.drops[DROP_WAITING_ROOM_FULL] += 1
        return
    room.free[0] = room.following[place]
    room.used[0] += 1
    room.mbuf[place], room.port[place] = batch.mbuf[row], batch.port[row]
    line_up(room, place)
    counters.notices[NOTICE_SEGMENTS_WAITED] += 1
    batch.verdict[row] = WAIT


@kernel
def come_again(connections, flow, reach, everything):
    """Has the segments of a flow come again whose numbers join on to what ends before `reach`, or all that wait."""
    room = connections.waiting
    place = first = first_of(room, flow)
    left = room.count[first] if first != NONE else 0
    while place != NONE and (everything or distance(room.seq[place], reach) <= 0):
        if distance(room.stop[place], reach) > 0:
            reach = room.stop[place]
        following = room.following[place]
        line_up(room, place)
        place = following
        left -= 1
    if place != first:
        begin_later(room, flow, first, place, left)
    nobody_waits(connections, flow)


@kernel
def give_place_back(room, place):
    """Makes a place free that is in no list any more."""
    room.flow[place] = NONE
    room.following[place] = room.free[0]
    room.free[0] = place
    room.used[0] -= 1


@kernel
def take_again(room, port, mbufs, limit):
    """Takes at most `limit` mbufs that come again by a port; returns how many."""
    count, place = 0, room.again_first[port]
    while place != NONE and count < limit:
        mbufs[count] = room.mbuf[place]
        count += 1
        following = room.following[place]
        give_place_back(room, place)
        place = following
    room.again_first[port] = place
    return count


@kernel
def leave(room, place):
    """Has the mbuf of a place freed at the end of the pass."""
    room.leaving[room.left[0]] = room.mbuf[place]
    room.left[0] += 1
    give_place_back(room, place)


@kernel
def send_away(connections, connection):
    """Frees all that waits of a connection that has ended."""
    room = connections.waiting
    for flow in range(connection * 2, connection * 2 + 2):
        place = first_of(room, flow)
        if place != NONE:
            begin_with(room, flow, place, NONE)
        while place != NONE:
            following = room.following[place]
            leave(room, place)
            place = following
        nobody_waits(connections, flow)


@kernel
def take_out(room, flow, place):
    """Takes a place out of the list of a flow, whose runs it may have joined."""
    before = first = first_of(room, flow)
    if first == place:
        first = room.following[place]
        begin_later(room, flow, place, first, room.count[place] - 1)
        know_runs(room, first)
        return
    while room.following[before] != place:
        before = room.following[before]
    room.following[before] = room.following[place]
    room.count[first] -= 1
    if room.tail[first] == place:
        room.tail[first] = before
    know_runs(room, first)


@kernel
def send_oldest_away(connections, tick):
    """Frees what has waited too long, counted; what is not in the list of a flow comes again anyway."""
    room = connections.waiting
    for place in range(room.flow.shape[0] if room.used[0] > 0 else 0):
        flow = room.flow[place]
        if flow == NONE or tick - room.since[place] < LONGEST_WAIT:
            continue
        state = record_at(connections.hot, flow >> 1).state
        if state == FREE or (state >= ESTABLISHED and tick - room.since[place] < LONGEST_IN_SPLICE):
            continue
        take_out(room, flow, place)
        leave(room, place)
        connections.counters.drops[DROP_WAITED_TOO_LONG] += 1
        nobody_waits(connections, flow)
