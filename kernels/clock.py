"""The worker's clock, read once a pass and handed to every kernel as `now`, and what it refills."""
from .jit import kernel
from .native import ticks

SPAN = 1 << 31
"""After this many ticks the clock's anchor moves on, so that the product below stays within 64 bits."""
SECOND = 1_000_000


@kernel
def read_clock(clock):
    """Returns microseconds since the engine's start.

    `clock` (int64 [3]): ticks and microseconds at one moment, and how many microseconds a tick lasts, times 2**32.
    """
    passed = ticks() - clock[0]
    if passed > SPAN:
        clock[0] += passed
        whole = passed >> 16
        clock[1] += ((whole * clock[2]) >> 16) + (((passed & 0xFFFF) * clock[2]) >> 32)
        passed = 0
    return clock[1] + ((passed * clock[2]) >> 32)


@kernel
def refill(budget, now):
    """Gives `budget` (resets left, gained a second, microseconds of the last gain) what the time since then is worth."""
    gained = budget[1] * (now - budget[2]) // SECOND
    if gained > 0:
        budget[0] = min(budget[0] + gained, budget[1])
        budget[2] = now
