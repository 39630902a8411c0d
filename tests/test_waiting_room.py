"""The waiting room's lists against a plain list: order, number, first copies and the runs that are acknowledged selectively."""
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.kernels import waiting_room
from pipeline.kernels.sequence import MASK

FLOW, PLACES = 5, 40


class Rows(NamedTuple):
    """The columns of a batch that sitting down needs."""

    mbuf: np.ndarray
    port: np.ndarray


ROWS = Rows(np.zeros(1, np.int64), np.zeros(1, np.int64))


def run_of(kept, number):
    """Returns the run of (first, last) pairs, in order, around a number; (number, number) without one."""
    runs = []
    for first, last in kept:
        if runs and first <= runs[-1][1]:
            runs[-1][1] = max(runs[-1][1], last)
        else:
            runs.append([first, last])
    return next((tuple(run) for run in runs if run[0] <= number < run[1]), (number, number))


def listed(room, base):
    """Returns what waits in the flow's list, as pairs relative to `base`."""
    place, pairs = waiting_room.first_of(room, FLOW), []
    while place != waiting_room.NONE:
        pairs.append((int(room.seq[place]) - base & MASK, int(room.stop[place]) - base & MASK))
        place = int(room.following[place])
    return pairs


def check(room, base, kept):
    """Asserts that the list is the one kept, with its tail, its count and every run."""
    assert listed(room, base) == kept
    if kept:
        first = waiting_room.first_of(room, FLOW)
        tail = room.tail[first]
        assert room.count[first] == len(kept) and room.following[tail] == waiting_room.NONE
        assert (int(room.seq[tail]) - base & MASK, int(room.stop[tail]) - base & MASK) == kept[-1]
    for first, last in kept:
        for number in (first, last - 1, last):
            left, right = waiting_room.run_around(room, FLOW, base + number & MASK)
            assert (int(left) - base & MASK, int(right) - base & MASK) == run_of(kept, number)


@pytest.mark.parametrize("base", [0, 2**32 - 20, 2**31 - 20], ids=str)
@given(st.lists(st.tuples(st.sampled_from(("come", "come", "come", "next", "leave", "front")), st.integers(0, 60),
                          st.integers(1, 6)), max_size=40))
@settings(max_examples=150, deadline=None)
def test_a_list_is_as_a_plain_one(base, moves):
    room, kept, tail = waiting_room.allocate_waiting_room(PLACES, PLACES, 1), [], 0
    for move, first, length in moves:
        if move == "next":                # in order behind the last one
            first = tail
        if move in ("come", "next"):
            seq, stop = base + first & MASK, base + first + length & MASK
            before, count = waiting_room.find_place(room, FLOW, seq, stop)
            assert count == len(kept)
            if before != -2:
                waiting_room.sit_down(room, ROWS, 0, FLOW, seq, stop, before, 0)
                at = sum(each[0] <= first for each in kept)
                kept.insert(at, (first, first + length))
            else:
                assert any(each[0] <= first and first + length <= each[1] for each in kept)
            tail = first + length
        elif kept:
            number, place = first % len(kept) if move == "leave" else 0, waiting_room.first_of(room, FLOW)
            for _ in range(number):
                place = int(room.following[place])
            waiting_room.take_out(room, FLOW, place)
            waiting_room.give_place_back(room, place)
            del kept[number]
        check(room, base, kept)
    assert room.used[0] == len(kept)
