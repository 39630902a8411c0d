"""The timer wheel against a sorted list: never early, never later than the advance, on all four levels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_bed import generated
from numba.core import config

from pipeline.kernels.wheel import (
    CHUNK,
    EMPTY,
    FARTHEST,
    FIRST,
    MOVES,
    NONE,
    OWNER,
    SLOTS,
    TIMERS_A_CHUNK,
    advance,
    allocate_wheel,
    cancel,
    schedule,
)

TIMERS = 40
EDGES = [SLOTS - 1, SLOTS, SLOTS + 1, 2 * SLOTS, SLOTS**2 - 1, SLOTS**2, SLOTS**2 + SLOTS + 1, SLOTS**3 - 1, SLOTS**3]
STARTS = st.one_of(
    st.just(0),
    st.integers(0, 2**20),
    st.builds(
        lambda edge, times, back: max(edge * times - back, 0),
        st.sampled_from([SLOTS, SLOTS**2, SLOTS**3, 2**32]),
        st.integers(0, 5),
        st.integers(0, 300),
    ),
)
AWAY = st.one_of(st.integers(-5, 20), st.sampled_from(EDGES), st.integers(0, 3 * SLOTS), st.integers(0, 2 * SLOTS**2))
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("schedule"), st.integers(0, TIMERS - 1), AWAY),
        st.tuples(st.just("cancel"), st.integers(0, TIMERS - 1), st.just(0)),
        st.tuples(
            st.just("advance"), st.integers(1, 5), st.one_of(st.integers(0, 40), st.sampled_from([255, 256, 257, 700]))
        ),
    ),
    max_size=40,
)


def wheel_at(tick, timers=TIMERS):
    wheel = allocate_wheel(timers)
    wheel.now[0] = tick
    return wheel


def is_sound(wheel):
    """Every pending timer lies in its place, every chunk but a slot's last is full, and no chunk is lost."""
    words, lying, used = wheel.words.value.astype(int), {}, {0}
    for slot, end in enumerate(wheel.ends.value.astype(int)):
        while end != EMPTY:
            chunk = end // CHUNK
            assert chunk not in used and words[chunk * CHUNK + OWNER] == slot
            used.add(chunk)
            lying |= {int(words[place]): place for place in range(chunk * CHUNK + FIRST, end + 1)}
            end = words[chunk * CHUNK]
            assert end % CHUNK == CHUNK - 1
    free = int(wheel.free[0])
    while free < len(words) // CHUNK:
        assert free not in used
        used.add(free)
        free = words[free * CHUNK]
    places = wheel.timers.place.astype(int)
    pending = {timer: place for timer, place in enumerate(places) if place != NONE}
    return lying == pending and len(used) == len(words) // CHUNK


def advance_all(wheel, tick, room):
    """Advances with an `expired` of `room` rows until the wheel has come to `tick`; returns [(timer, wheel's tick)]."""
    expired, found = np.zeros(room, np.int64), []
    for _ in range(10_000):
        count = advance(wheel, tick, expired)
        assert count <= room
        found += [(int(timer), int(wheel.now[0])) for timer in expired[:count]]
        if count < room and wheel.now[0] >= tick:
            return found
    raise AssertionError("the wheel never comes to its tick")


@generated
@given(STARTS, STEPS)
def test_timers_expire_when_a_sorted_list_says(start, steps):
    wheel, pending, now = wheel_at(start), {}, start
    for step, number, amount in steps:
        if step == "schedule":
            schedule(wheel, number, now + amount)
            pending[number] = max(now + amount, now + 1)
        elif step == "cancel":
            cancel(wheel, number)
            pending.pop(number, None)
        else:
            now += amount
            found = advance_all(wheel, now, number)
            due = {timer: deadline for timer, deadline in pending.items() if deadline <= now}
            assert sorted(timer for timer, _ in found) == sorted(due)
            deadlines = [due[timer] for timer, _ in found]
            assert deadlines == sorted(deadlines), "a later timer came before an earlier one"
            assert number != 1 or all(due[timer] <= tick for timer, tick in found)
            for timer in due:
                del pending[timer]
        assert wheel.now[0] == now and is_sound(wheel)


@generated
@given(STARTS, st.lists(st.integers(1, 3 * SLOTS), min_size=1, max_size=TIMERS))
def test_advancing_tick_by_tick_each_timer_expires_in_its_own_tick(start, distances):
    wheel = wheel_at(start)
    for timer, distance in enumerate(distances):
        schedule(wheel, timer, start + distance)
    expired = np.zeros(TIMERS, np.int64)
    for tick in range(start, start + max(distances) + 1):
        count = advance(wheel, tick, expired)
        assert sorted(expired[:count].tolist()) == [
            timer for timer, away in enumerate(distances) if start + away == tick
        ]


@pytest.mark.parametrize("start", [0, 1, 255, 256, 300, SLOTS**2 - 300, SLOTS**2 - 1, SLOTS**3 - 257, 2**32 - 300])
def test_deadlines_on_the_edge_of_a_slot_expire_in_their_own_tick(start):
    edges = [edge for edge in range(start - start % SLOTS, start + 4 * SLOTS, SLOTS) if edge > start + 1]
    deadlines = [edge + beside for edge in edges for beside in (-1, 0, 1)]
    wheel = wheel_at(start, len(deadlines))
    for timer, deadline in enumerate(deadlines):
        schedule(wheel, timer, deadline)
    for timer, deadline in enumerate(deadlines):
        assert advance_all(wheel, deadline, 4) == [(timer, deadline)]


@pytest.mark.parametrize("room", [1, 2, 3])
def test_the_wheel_stands_still_where_expired_is_full_and_goes_on_from_there(room):
    wheel = wheel_at(0)
    for timer in range(5):
        schedule(wheel, timer, 10)
    schedule(wheel, 5, 11)
    expired = np.zeros(room, np.int64)
    assert advance(wheel, 100, expired) == room and wheel.now.tolist() == [10, 1]
    left = {0, 1, 2, 3, 4} - set(expired.tolist())
    cancel(wheel, 4)
    schedule(wheel, 3, 5)
    rest = advance_all(wheel, 100, room)
    assert sorted(timer for timer, _ in rest) == sorted((left - {4}) | {3, 5}) and wheel.now.tolist() == [100, 0]
    assert advance(wheel, 100, expired) == 0


def test_without_room_nothing_expires_and_nothing_is_lost():
    wheel = wheel_at(7)
    schedule(wheel, 0, 8)
    assert advance(wheel, 20, np.zeros(0, np.int64)) == 0 and wheel.now[0] == 8
    assert advance_all(wheel, 20, 4) == [(0, 20)]


def test_a_timer_set_again_expires_once_at_its_new_time():
    wheel = wheel_at(0)
    for deadline in (5, 500, 70_000, 30):
        schedule(wheel, 3, deadline)
    assert advance_all(wheel, 29, 4) == [] and advance_all(wheel, 30, 4) == [(3, 30)]
    assert advance_all(wheel, 80_000, 4) == []


def test_a_deadline_in_the_past_expires_at_the_next_tick():
    wheel = wheel_at(1000)
    schedule(wheel, 0, 3)
    assert advance_all(wheel, 1000, 4) == [] and advance_all(wheel, 1001, 4) == [(0, 1001)]


def test_cancelling_what_is_not_pending_changes_nothing():
    wheel = wheel_at(0)
    before = [column.tobytes() for column in wheel]
    cancel(wheel, 0)
    assert [column.tobytes() for column in wheel] == before


@pytest.mark.parametrize("timers", [1, TIMERS_A_CHUNK, TIMERS_A_CHUNK + 1, 1000])
def test_there_are_chunks_for_all_timers_in_one_slot_and_for_each_in_another(timers):
    wheel = wheel_at(0, timers)
    for timer in range(timers):
        schedule(wheel, timer, 200)
    assert is_sound(wheel)
    for timer in range(timers):
        schedule(wheel, timer, timer // 5 + 1 if timer % 3 else 150)
        if timer % 50 == 0:
            assert is_sound(wheel)
    for timer in range(0, timers, 2):
        cancel(wheel, timer)
    assert is_sound(wheel)
    assert len(advance_all(wheel, 300, 7)) == timers // 2 and is_sound(wheel)


def test_a_pending_timer_set_to_a_later_time_is_left_where_it_is_until_its_slot_comes():
    wheel = wheel_at(0)
    schedule(wheel, 0, 10)
    assert wheel.ends[10].value != EMPTY
    schedule(wheel, 0, 400)
    assert wheel.ends[10].value != EMPTY and wheel.timers[0].deadline == 400
    schedule(wheel, 0, 300)
    assert wheel.ends[10].value == EMPTY and wheel.ends[SLOTS + 1].value != EMPTY
    schedule(wheel, 0, 70_000)
    assert advance_all(wheel, 69_999, 4) == [] and is_sound(wheel)
    assert advance_all(wheel, 70_000, 4) == [(0, 70_000)]


def test_a_slot_full_of_timers_that_come_early_is_dealt_with_in_parts():
    wheel, expired = wheel_at(0, 1000), np.zeros(4, np.int64)
    for timer in range(1000):
        schedule(wheel, timer, 300)
        schedule(wheel, timer, 5000)
    calls = 0
    while wheel.now[0] < 256 or wheel.now[1]:
        assert advance(wheel, 256, expired) == 0
        calls += 1
    assert calls >= 1000 // (4 * MOVES) and is_sound(wheel)
    assert sorted(timer for timer, _ in advance_all(wheel, 5000, 64)) == list(range(1000))


@pytest.mark.skipif(config.DISABLE_JIT, reason="20 million ticks one by one take minutes as plain Python")
@pytest.mark.parametrize("start", [0, 5, 2**24 - 3, 2**32 - 2**24 - 77])
def test_the_coarsest_level_comes_down_through_all_the_others(start):
    distances = [SLOTS**3 + extra for extra in (0, 1, 255, 256, 65_535, 65_536, 3_000_000)]
    wheel = wheel_at(start)
    for timer, away in enumerate(distances):
        schedule(wheel, timer, start + away)
    for timer, away in enumerate(distances):
        assert advance_all(wheel, start + away - 1, 4) == []
        assert advance_all(wheel, start + away, 4) == [(timer, start + away)]
    assert is_sound(wheel)


@pytest.mark.parametrize("away", [FARTHEST - 1, FARTHEST, FARTHEST + 1, 2**32, 2**33])
def test_what_is_further_than_the_wheel_reaches_is_set_as_far_as_it_goes(away):
    wheel = wheel_at(12_345)
    schedule(wheel, 0, 12_345 + away)
    assert wheel.timers[0].deadline == (12_345 + min(away, FARTHEST)) % 2**32
    assert advance_all(wheel, 12_345 + 700, 4) == []
