"""Both timer wheels against a plain model, by what a wheel has to promise: never early, in its own tick, a bounded look a call."""

import numpy as np
import pytest
from hypothesis import given
from kernel_bed import generated
from test_wheel import STARTS, STEPS, TIMERS

from pipeline.kernels import single_wheel, wheel

WHEELS = {"hierarchical": wheel, "single": single_wheel}
ROUND = single_wheel.SLOTS


def advance_all(kind, made, tick, room):
    """Advances with an `expired` of `room` rows until the wheel has come to `tick`; returns [(timer, wheel's tick)]."""
    expired, found = np.zeros(room, np.int64), []
    for _ in range(10_000):
        count = kind.advance(made, tick, expired)
        assert count <= room
        found += [(int(timer), int(made.now[0])) for timer in expired[:count]]
        if made.now[1] == 0 and made.now[0] >= tick:
            return found
    raise AssertionError("the wheel never comes to its tick")


@pytest.mark.parametrize("name", WHEELS)
@generated
@given(start=STARTS, steps=STEPS)
def test_timers_expire_in_their_own_tick(name, start, steps):
    kind = WHEELS[name]
    made, pending, now = kind.allocate_wheel(TIMERS), {}, start
    made.now[0] = start
    for step, number, amount in steps:
        if step == "schedule":
            kind.schedule(made, number, now + amount)
            pending[number] = max(now + amount, now + 1)
        elif step == "cancel":
            kind.cancel(made, number)
            pending.pop(number, None)
        else:
            found = []
            for tick in range(now + 1, now + amount + 1):
                found += advance_all(kind, made, tick, number)
            now += amount
            due = {timer: deadline for timer, deadline in pending.items() if deadline <= now}
            assert dict(found) == due and len(found) == len(due)
            pending = {timer: deadline for timer, deadline in pending.items() if deadline > now}


@pytest.mark.parametrize("away", [1, ROUND - 1, ROUND, ROUND + 1, 3 * ROUND + 5])
def test_a_timer_rounds_away_is_passed_over_until_its_round_comes(away):
    made = single_wheel.allocate_wheel(3)
    for timer in range(3):
        single_wheel.schedule(made, timer, away + timer)
    single_wheel.cancel(made, 1)
    found = [expired for tick in range(1, away + 10) for expired in advance_all(single_wheel, made, tick, 2)]
    assert found == [(0, away), (2, away + 2)]
    assert (made.links.following[3:] == np.arange(3, len(made.links))).all(), "all lists are empty again"


def test_a_slot_full_of_timers_that_come_early_is_dealt_with_in_parts():
    made, expired, calls = single_wheel.allocate_wheel(1000), np.zeros(4, np.int64), 0
    for timer in range(1000):
        single_wheel.schedule(made, timer, 300 + ROUND)
    while made.now[0] < 301 or made.now[1]:
        assert single_wheel.advance(made, 301, expired) == 0
        calls += 1
    assert calls >= 1000 // (4 * single_wheel.MOVES)
    assert sorted(timer for timer, _ in advance_all(single_wheel, made, 300 + ROUND, 64)) == list(range(1000))


def test_the_wheel_stands_still_where_expired_is_full_and_a_timer_may_be_stopped_meanwhile():
    made, expired = single_wheel.allocate_wheel(6), np.zeros(2, np.int64)
    for timer in range(5):
        single_wheel.schedule(made, timer, 10)
    assert single_wheel.advance(made, 100, expired) == 2 and made.now.tolist() == [10, 1]
    left = {0, 1, 2, 3, 4} - set(expired.tolist())
    stopped = left.pop()
    single_wheel.cancel(made, stopped)
    single_wheel.schedule(made, 5, 3)
    assert sorted(timer for timer, _ in advance_all(single_wheel, made, 100, 2)) == sorted(left | {5})
