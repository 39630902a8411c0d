"""How many TSC ticks the timer wheel takes for a timer: set, stop, set again, expire; and for a turn with nothing due.

    python perf/timer_wheel.py                          1 k to 10 M pending timers
    python perf/timer_wheel.py --timers 100000 --json   one JSON document

That many timers are pending, some minutes away. Up to 65,536 more, whose numbers lie anywhere among those, are set and stopped
again in random order, twice, the second time by the watch; and as many of the pending ones are set to a later and to an earlier
time. Then those more are set to some moment of the next two
seconds, and the wheel turns through these, handing out at most 64 timers at a time as the engine's does (`expire`); and
the same with moments 3 to 9 seconds away, so that each comes down a level first (`expire, far`). `turn`: a tick of 10 ms
with nothing due. Beside it DPDK's rte_timer, a skip list: its turn is a call of rte_timer_manage.
"""
import contextlib
import functools
import pathlib
import time

import measurement

import click
import numpy as np

from pipeline.kernels import single_wheel, wheel
from pipeline.kernels.wheel import TICK_MICROSECONDS
from pipeline.state import TIMERS_A_PASS

WHEELS = {"hierarchical": wheel, "single": single_wheel}
"""Ours by name (`[kernels] timers`)."""
COUNTS = "1000,10000,100000,1000000,10000000"
SAMPLE = 1 << 16
OPERATIONS = ("schedule", "cancel", "later", "sooner", "expire", "expire_far", "turn")
NEAR, FAR, TURNS = (1, 200), (300, 900), 100
A_RUN = NEAR[1] + FAR[1] + TURNS
"""Ticks of 10 ms that the wheel turns in a run: pending timers are further away than all the runs."""
SPAN = 60_000
"""Ticks over which the pending timers are spread."""
HURRY = 1000
"""rte_timer runs on real time: what it is to see expire is so many times nearer, else the script would wait for minutes."""


@functools.cache
def drivers(kind):
    """Returns the loops that set and stop timers in bulk and turn a wheel, for a wheel (module).

    They are a module of their own each: Numba's cache does not know a loop again that has kernels from around it (a closure).
    """
    found = measurement.composed(pathlib.Path(__file__).with_name("timer_wheel_loops.py"),
                                 f"from {kind.__name__} import advance, cancel, schedule\n")
    return found.schedule_all, found.cancel_all, found.turn


class Ours:
    """Our wheel with `pending` timers that do not expire, and `others` more that are not set; they are numbered at random."""

    def __init__(self, pending, others, first, random, kind=wheel):
        self.schedule_all, self.cancel_all, self.turn = drivers(kind)
        self.wheel, self.number = kind.allocate_wheel(pending + others), random.permutation(pending + others)
        self.expired = np.zeros(TIMERS_A_PASS, np.int64)
        self.schedule(random.permutation(pending), random.integers(first, first + SPAN, pending))

    def schedule(self, order, away):
        """Sets timers to expire in so many ticks; returns TSC ticks a timer."""
        return self.schedule_all(self.wheel, self.number[order], self.wheel.now[0] + away) / len(order)

    schedule_soon = schedule

    def cancel(self, order):
        """Stops timers; returns TSC ticks a timer."""
        return self.cancel_all(self.wheel, self.number[order]) / len(order)

    def expire(self, count, furthest):
        """Turns the wheel until `count` timers have expired; returns TSC ticks a timer."""
        handed_out = np.zeros(1, np.int64)
        taken = self.turn(self.wheel, self.wheel.now[0] + furthest, self.expired, handed_out)
        if handed_out[0] != count:
            raise click.ClickException(f"{handed_out[0]} timers expired, {count} should have")
        return taken / count

    def turns(self):
        """Turns the wheel with nothing due; returns TSC ticks a tick of the wheel."""
        return self.turn(self.wheel, self.wheel.now[0] + TURNS, self.expired, np.zeros(1, np.int64)) / TURNS


class RteTimer:
    """DPDK's timers, the same way. Its time is the TSC: one tick of ours is `tick` of its own."""

    def __init__(self, shim, pending, others, first, random):
        self.lib, self.ffi, self.shim = shim.lib, shim.ffi, shim
        self.tick = int(measurement.tsc_hertz() * TICK_MICROSECONDS / 1e6)
        shim.ask("rte_timer does not start", self.lib.yardstick_timer_start)
        self.timers = np.zeros((pending + others, self.lib.yardstick_timer_size()), np.uint8)
        self.number = random.permutation(pending + others)
        self.schedule(random.permutation(pending), random.integers(first, first + SPAN, pending))

    def timed(self, function, order, *more):
        """Calls a function of the shim for timers; returns TSC ticks a timer."""
        columns = [self.ffi.from_buffer("int64_t[]", np.ascontiguousarray(column, np.int64))
                   for column in (self.number[order], *more)]
        timers = self.ffi.from_buffer("char[]", self.timers)
        return self.shim.ask("rte_timer refuses a timer", function, timers, *columns, len(order)) / len(order)

    def schedule(self, order, away):
        """Sets timers to expire in so many ticks of 10 ms; returns TSC ticks a timer."""
        return self.timed(self.lib.yardstick_timer_schedule, order, away * self.tick)

    def schedule_soon(self, order, away):
        """Sets timers to expire HURRY times sooner; returns TSC ticks a timer."""
        return self.timed(self.lib.yardstick_timer_schedule, order, away * (self.tick // HURRY))

    def cancel(self, order):
        """Stops timers; returns TSC ticks a timer."""
        return self.timed(self.lib.yardstick_timer_cancel, order)

    def expire(self, count, furthest):
        """Waits until the timers that are due first are due, and has them expire; returns TSC ticks a timer."""
        time.sleep(furthest * TICK_MICROSECONDS / 1e6 / HURRY)
        expired = self.ffi.new("int64_t *")
        taken = self.shim.ask("rte_timer", self.lib.yardstick_timer_expire, expired)
        if expired[0] != count:
            raise click.ClickException(f"{expired[0]} of rte_timer's timers expired, {count} should have")
        return taken / count

    def turns(self):
        """Calls rte_timer_manage with nothing due; returns TSC ticks a call."""
        return self.lib.yardstick_timer_tick(TURNS) / TURNS

    def close(self):
        """Ends rte_timer, so that nothing points at these timers any more."""
        self.lib.yardstick_timer_end()


def run(timers, pending, others, first, random):
    """Returns TSC ticks of all OPERATIONS; whatever was pending before is pending afterwards."""
    extra, some = pending + random.permutation(others), random.permutation(pending)[:others]
    for _ in range(2):
        set_and_stopped = [timers.schedule(extra, random.integers(first, first + SPAN, others)),
                           timers.cancel(random.permutation(extra))]
    taken = [*set_and_stopped, timers.schedule(some, random.integers(first + SPAN, first + 2 * SPAN, len(some))),
             timers.schedule(random.permutation(some), random.integers(first, first + SPAN, len(some)))]
    for nearest, furthest in (NEAR, FAR):
        timers.schedule_soon(extra, random.integers(nearest, furthest + 1, others))
        taken.append(timers.expire(others, furthest))
    return [*taken, timers.turns()]


def measure(pending, shim, most, runs, say, kind):
    """Returns the rows (list of dict) of one number of pending timers: ours, then rte_timer's up to `most`."""
    say(f"{pending:,} timers")
    others, first = min(pending, SAMPLE), A_RUN * (runs + 2)
    kinds = {"ours": Ours(pending, others, first, np.random.default_rng(pending), WHEELS[kind])}
    if shim is not None and pending <= most:
        kinds["rte_timer"] = RteTimer(shim, pending, others, first, np.random.default_rng(pending))
    numbers = {name: 0 for name in kinds}

    def case(name):
        numbers[name] += 1
        return run(kinds[name], pending, others, first, np.random.default_rng([pending, numbers[name]]))
    taken = measurement.in_turns({name: lambda name=name: case(name) for name in kinds}, runs, lambda words: None)
    if "rte_timer" in kinds:
        kinds["rte_timer"].close()
    rows = []
    for name in kinds:
        cells = {operation: measurement.quartiles(taken[name][:, place]) for place, operation in enumerate(OPERATIONS)}
        both = measurement.quartiles(taken[name][:, 0] + taken[name][:, 1])
        rows.append({"timers": pending, "kind": name, "schedule_and_cancel": both, **cells})
    return rows


def show(console, result):
    """Prints the result as a table."""
    rows, names = [], ("schedule_and_cancel", *OPERATIONS)
    for row in result["rows"]:
        if rows and row["kind"] == "ours":
            rows.append(None)
        rows.append([f"{row['timers']:,}", row["kind"], *(measurement.spread(row[name]) for name in names)])
    titles = ["timers", "", "set + stop", "set", "stop", "set later", "set sooner", "expire", "expire, far", "turn"]
    console.print(measurement.table(result["unit"], titles, rows))
    console.print("Medians, in brackets the quartiles.")


def draw(axes, result):
    """Draws what is done to a timer by the number that is pending."""
    ours = [row for row in result["rows"] if row["kind"] == "ours"]
    curves = {operation.replace("_", ", "): [row[operation] for row in ours] for operation in OPERATIONS[:-1]}
    measurement.curves(axes, [row["timers"] for row in ours], curves, "pending timers", result["unit"])


@contextlib.contextmanager
def peer(say):
    """Starts EAL; yields the shim, or None where there is no DPDK."""
    try:
        from pipeline.io import shim
        from pipeline.io.environment import Environment
    except ImportError as error:
        say(f"without rte_timer: {error}")
        yield None
        return
    with contextlib.closing(Environment(memory=128, hugepages=False)):
        yield shim


@measurement.script(__doc__, show, draw, runs=15)
@click.option("--timers", "counts", default=COUNTS, show_default=True,
              callback=measurement.numbers(1, 100_000_000, "numbers of timers"), help="How many timers are pending.")
@click.option("--rte-most", "most", default=1_000_000, show_default=True, type=click.IntRange(0),
              help="With more than so many, rte_timer is left out: 10 million take it minutes.")
@click.option("--wheel", "kind", default="hierarchical", show_default=True, type=click.Choice(list(WHEELS)), help="Which wheel of ours.")
def main(runs, say, counts, most, kind):
    """Measures and returns the result."""
    with peer(say) as shim:
        rows = [row for count in counts for row in measure(count, shim, most, runs, say, kind)]
    return {"unit": "TSC ticks a timer", "kind": kind, "rows": rows}


if __name__ == "__main__":
    main()
