"""Switches the profile of workers on and off, while they run or not; see kernels/profile.py."""
import time
from typing import NamedTuple

import numpy as np

from pipeline.kernels import profile
from pipeline.kernels.jit import loop
from pipeline.kernels.native import ticks
from pipeline.worker import read_ticks

EVERY = 32
"""One burst in so many is sampled unless something else is asked for."""
WARM_UP = 1.0
MARKS, TRIES = 2000, 25
PATIENCE = 2.0
"""Seconds that a worker gets to end what it is at: one that backs off sleeps for a millisecond."""


class Asked(NamedTuple):
    """A profile as it is asked for: one burst in `every`, from `warm_up` seconds on; a picture goes to the file `plot`, or None."""

    every: int = EVERY
    warm_up: float = WARM_UP
    plot: str | None = None


@loop
def ticks_of_marks(counted, marks):
    """Returns the ticks that so many marks take."""
    start = ticks()
    for _ in range(marks):
        profile.mark(counted, profile.AT_PASS)
    return ticks() - start


def ticks_of_a_mark():
    """Returns how many ticks a mark takes (int): the least of many tries, which nobody has interrupted."""
    counted = profile.allocate_profile()
    counted.control[profile.SAMPLED] = profile.COUNTED
    return min(int(ticks_of_marks(counted, MARKS)) for _ in range(TRIES)) // MARKS


def start(states, every=EVERY, warm_up=0.0, hertz=1e9, overhead=None, seed=1, longest=profile.LONGEST):
    """Has the workers of `states` sample one pass in `every` from `warm_up` seconds on, with all counts at zero.

    `hertz` is how many ticks the kernels' clock makes in a second; `overhead` the ticks of a mark, measured here if None; what
    takes more than `longest` ticks was interrupted.
    """
    stop(states)
    overhead = ticks_of_a_mark() if overhead is None else overhead
    now = int(read_ticks())
    for number, state in enumerate(states):
        for cells in state.profile:
            cells[:] = 0
        control = state.profile.control
        control[profile.RANDOM], control[profile.OVERHEAD] = seed + number, overhead
        control[profile.MOST] = longest
        control[profile.COUNT_FROM] = now + round(warm_up * hertz)
        control[profile.LEFT] = (seed + number) * 7919 % (profile.TOGETHER * (every - 1) + 1)
        control[profile.EVERY] = every  # last of all: from now on the worker looks at it


def resume(states, every):
    """Goes on sampling where `stop` has ended it: what has been counted stays."""
    for state in states:
        state.profile.control[profile.EVERY] = every


def stop(states, workers_run=False):
    """Ends the sampling; what has been counted stays. Waits for workers that run to have noticed."""
    for state in states:
        if state.profile.control[profile.EVERY] != 0:
            state.profile.control[profile.EVERY] = profile.STOP_SAMPLING
    deadline = time.monotonic() + PATIENCE
    while workers_run and time.monotonic() < deadline and any(state.profile.control[profile.EVERY] != 0 for state in states):
        time.sleep(0.001)


def total(states):
    """Returns a `Profile` with the sums of all workers' counts; `control` is the first one's."""
    cells = [np.sum([column.astype(np.int64) for column in columns], axis=0)
             for columns in zip(*(state.profile for state in states), strict=True)]
    cells[0] = states[0].profile.control.copy()
    cells[0][profile.MARKS] = sum(int(state.profile.control[profile.MARKS]) for state in states)
    return profile.Profile(*cells)
