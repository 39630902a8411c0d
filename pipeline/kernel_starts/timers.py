from typing import NamedTuple

import numpy as np
from numpy import int64

from pipeline.kernels.jit import kernel

# This file brings timers of its own, as simple as they can be: every tick looks at all of them. That will do for some thousand
# connections. Without allocate_wheel, schedule and cancel the kernel below would work on our wheel (kernels/wheel.py).
FARTHEST = (1 << 31) - 1


class Wheel(NamedTuple):
    """What the functions below work on. `now` has to be there: the loop looks at it."""

    timers: np.ndarray   # records with the fields place (here: 1 where it is pending) and deadline, both 32 bits wide
    cursor: np.ndarray   # int64 [1] where the next call goes on
    now: np.ndarray      # int64 [2] the tick reached; 1 where it has timers left


def allocate_wheel(timers, records=None):
    """Plain Python, called once: timers 0 .. timers - 1, none of them pending, at tick 0."""
    return Wheel(records, np.zeros(1, np.int64), np.zeros(2, np.int64))


@kernel
def schedule(wheel, timer, deadline):
    """Sets a timer, pending or not, to expire at a tick, at the next one where that has passed."""
    now = wheel.now[0]
    wheel.timers[timer].place = 1
    wheel.timers[timer].deadline = min(max(deadline, now + 1), now + FARTHEST) & 0xFFFFFFFF


@kernel
def cancel(wheel, timer):
    """Stops a timer; one that is not pending stays so."""
    wheel.timers[timer].place = 0


def turn(wheel, tick, expired):
    """Writes the timers that are due to `expired` and returns how many; where there is no more room it stands still."""
    count = 0
    if wheel.now[1] == 0:
        wheel.now[0] = max(tick, wheel.now[0])
        wheel.cursor[0] = 0
    for timer in range(wheel.cursor[0], wheel.timers.shape[0]):
        record = wheel.timers[timer]
        if record.place != 0 and (wheel.now[0] - int64(record.deadline)) & 0xFFFFFFFF <= FARTHEST:
            if count == expired.shape[0]:
                wheel.cursor[0], wheel.now[1] = timer, 1
                return count
            record.place = 0
            expired[count] = timer
            count += 1
    wheel.now[1] = 0
    return count
