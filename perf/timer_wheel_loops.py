"""Loops over a timer wheel in bulk, by the stop-watch; timer_wheel.py puts the kernels of another wheel in the place of these."""
from pipeline.kernels.jit import loop
from pipeline.kernels.native import ordered_ticks

# the wheel from here
from pipeline.kernels.wheel import advance, cancel, schedule
# the wheel to here


@loop
def schedule_all(wheel, order, deadlines):
    """Sets timers to expire at ticks; returns the TSC ticks it took."""
    start = ordered_ticks()
    for number in range(len(order)):
        schedule(wheel, order[number], deadlines[number])
    return ordered_ticks() - start


@loop
def cancel_all(wheel, order):
    """Stops timers; returns the TSC ticks it took."""
    start = ordered_ticks()
    for number in range(len(order)):
        cancel(wheel, order[number])
    return ordered_ticks() - start


@loop
def turn(wheel, until, expired, handed_out):
    """Turns the wheel tick by tick; returns the TSC ticks it took. `handed_out` (int64[1]): how many timers expired."""
    start, count = ordered_ticks(), 0
    while wheel.now[0] < until or wheel.now[1] != 0:
        count += advance(wheel, wheel.now[0] + 1 if wheel.now[1] == 0 else wheel.now[0], expired)
    handed_out[0] = count
    return ordered_ticks() - start
