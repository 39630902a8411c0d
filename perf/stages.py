"""How many TSC ticks each kernel of the loop takes for a packet, by the size of the burst.

    python perf/stages.py                     a table
    python perf/stages.py --json              one JSON document
    python perf/stages.py --plot stages.png   the table and a picture

Packets of 64 octets (60 and the check sequence) of established connections go from clients to targets, through memory
ports: no device and no operating system has a part in it. Each kernel that pipeline/loop.py calls is timed by itself:
it goes over all prepared bursts before the next one does, between two readings of the time-stamp counter. The whole
pass is timed in the loop as it is, with its clock, its timers and the poll of the other, empty port.
"""
import functools

import click
import measurement
import numpy as np
from measured_engine import SELECTS, MeasuredEngine, configuration_for, stage_calls

from pipeline import compose
from pipeline.io.frame_rows import fill_mbufs, write_rows
from pipeline.kernels.batch import Batch
from pipeline.kernels.headers import ACK

BURSTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
PAYLOAD = 6
"""Octets of payload in a frame of 60: with the check sequence of the wire, 64."""
HALF_A_WINDOW = 32768
FIRST = "receive"
"""What a pass does before `stages`."""
POSTING = ("express", "dispose")
"""Kernels that post packets: what they have posted is sent at once, since the outbox has room for a burst's."""
DRIVER = """
from pipeline.kernels.batch import Batch
from pipeline.kernels.native import ticks


@kernel
def nth(columns, number):
    return Batch({columns})


@loop
def alone(state, columns, taken, rest, port, count, draining, now):
{assignments}
    handed, bursts = False, columns.mbuf.shape[0]
{loops}
"""
"""`alone` receives a burst into each row of `columns` and has each kernel go over all of them; `taken` (int64, one a
kernel) gets the ticks; `rest` (int64, one a burst) keeps what `express` has left of each."""
A_LOOP = """
    start = ticks()
    for number in range(bursts):
        batch, left = nth(columns, number), rest[number]
        if {condition}:
            {call}
        rest[number] = left
    taken[{place}] = ticks() - start
"""


def driver():
    """Returns the module of `alone`, the loop's own source with it behind, and the names of the kernels that it times."""
    assignments, calls = stage_calls()
    calls.insert(0, (FIRST, "receive(state.device, port, batch.mbuf, count)", None))
    missing = {*POSTING} - {name for name, _, _ in calls}
    if missing:
        raise click.ClickException(f"`stages` in pipeline/loop.py calls no {', '.join(missing)}, which is expected to post packets")
    calls = [(f"{name}, send", f"{line}; send(state, now, draining)", condition) if name in POSTING else (name, line, condition)
             for name, line, condition in calls]
    text = DRIVER.format(
        columns=", ".join(f"columns.{field}[number]" for field in Batch._fields),
        assignments="\n".join(f"    {line}" for line in assignments),
        loops="".join(A_LOOP.format(call=line, condition=condition or "True", place=place)
                      for place, (_, line, condition) in enumerate(calls)))
    module = measurement.module_of(compose.source({}, SELECTS, "memory") + text, "stages")
    return module, [name for name, _, _ in calls]


class Bench(MeasuredEngine):
    """An engine with established connections, and `packets` frames of theirs that go through it again and again."""

    def __init__(self, connections, packets, say):
        super().__init__(configuration_for(connections), connections, packets + 4096, 1 << max(packets, 2048).bit_length(), say)
        self.module, self.names = driver()
        say(f"opening {connections} connections")
        self.ends.open()
        self.mbufs = write_rows(self.pool, *self.frames(packets))
        self.empty(0)

    def frames(self, packets):
        """Returns rows and lengths of new segments of all connections, as many of each, in random order."""
        ends = self.ends
        order = [self.random.permutation(len(ends.address)) for _ in range(-(-packets // len(ends.address)))]
        which, made = np.concatenate(order)[:packets], []
        for start in range(0, packets, len(ends.address)):
            made.append(ends.segments(0, which[start:start + len(ends.address)], PAYLOAD))
        return np.concatenate([rows for rows, _ in made]), np.concatenate([lengths for _, lengths in made])

    def acknowledge(self):
        """Has the servers acknowledge all that was sent, before it is more than a window."""
        ends, count = self.ends, len(self.ends.address)
        ends.received[0] = ends.sent[0]
        for start in range(0, count, 1024):
            which = np.arange(start, min(start + 1024, count))
            self.engine.feed(1, write_rows(self.pool, *ends.frames(1, which, *ends.numbers(1, which), ACK)))
            self.engine.step()
            ends.take(0)

    def refill(self, burst):
        """Puts new segments into the mbufs and as many whole bursts of these as there are into the ring of port 0.

        Returns how many bursts that is. The mbufs lie in no order: a pool's are soon shuffled.
        """
        bursts = len(self.mbufs) // burst
        if (self.ends.sent[0] - self.ends.received[0]).max() > HALF_A_WINDOW:
            self.acknowledge()
        self.mbufs = self.random.permutation(self.mbufs)
        fill_mbufs(self.engine.arena, self.mbufs, *self.frames(len(self.mbufs)))
        self.state.burst[0] = burst
        self.engine.feed(0, self.mbufs[:bursts * burst])
        return bursts

    def empty(self, expected):
        """Takes the mbufs back from the ring of the last port; all are there, beside what the engine says itself."""
        sent = self.sent(len(self.engine.ports) - 1)
        ours = np.isin(sent, self.mbufs)
        if int(ours.sum()) != expected:
            raise click.ClickException(f"{expected} packets went in and {int(ours.sum())} came out")
        self.pool.release(sent[~ours])

    def alone(self, burst):
        """Returns how many TSC ticks a packet each kernel of `names` takes by itself."""
        bursts = self.refill(burst)
        columns = Batch(*(np.zeros((bursts, burst), np.int64) for _ in Batch._fields))
        taken, rest = np.zeros(len(self.names), np.int64), np.zeros(bursts, np.int64)
        self.module.alone(self.state, columns, taken, rest, 0, burst, 0, self.engine.now)
        self.empty(bursts * burst)
        return taken / (bursts * burst)

    def whole(self, burst):
        """Returns how many TSC ticks a packet the whole loop takes, pass after pass of one burst each."""
        bursts = self.refill(burst)
        taken = self.timed(bursts)
        self.empty(bursts * burst)
        return taken / (bursts * burst)


def measure(runs, say, connections, packets, bursts):
    """Returns the whole result (dict, JSON-able)."""
    bench = Bench(connections, packets, say)
    cases = {(kind, burst): functools.partial(getattr(bench, kind), burst) for burst in bursts for kind in ("alone", "whole")}
    taken = measurement.in_turns(cases, runs, say)
    rows = {name: {str(burst): measurement.quartiles(taken["alone", burst][:, number]) for burst in bursts}
            for number, name in enumerate(bench.names)}
    passes = {str(burst): measurement.quartiles(taken["whole", burst]) for burst in bursts}
    result = {"unit": "TSC ticks a packet", "connections": connections, "packets": packets, "octets": 64, "bursts": bursts,
              "stages": rows, "pass": passes}
    if {1, 32} <= set(bursts):
        result["ratio_32_to_1"] = round(passes["32"]["median"] / passes["1"]["median"], 3)
    return result


def show(console, result):
    """Prints the result as a table."""
    bursts = [str(burst) for burst in result["bursts"]]
    rows = [(name, *(f"{row[burst]['median']:.1f}" for burst in bursts)) for name, row in result["stages"].items()]
    totals = [sum(row[burst]["median"] for row in result["stages"].values()) for burst in bursts]
    rows += [None, ("sum of these", *(f"{total:.1f}" for total in totals))]
    rows += [(name, *(f"{result['pass'][burst][key]:.1f}" for burst in bursts)) for key, name in (
        ("median", "[bold]whole pass"), ("low", "  a quarter of runs below"), ("high", "  a quarter of runs above"))]
    console.print(measurement.table(f"TSC ticks a packet, {result['connections']:,} connections, {result['octets']} octets",
                                    ("packets a burst", *bursts), rows))
    console.print(f"Medians of {result['runs']} runs of {result['packets']:,} packets. {measurement.TICKS}")
    if "ratio_32_to_1" in result:
        ratio = result["ratio_32_to_1"]
        console.print(f"A packet in a burst of 32 costs {ratio:.2f} of one in a burst of 1: "
                      + ("at most half, as it has to." if ratio <= 0.5 else "it should be at most half."))


def draw(axes, result):
    """Draws the whole pass and the dearest stages by the size of the burst."""
    places, largest = result["bursts"], str(result["bursts"][-1])
    dearest = sorted(result["stages"], key=lambda name: -result["stages"][name][largest]["median"])[:8]
    rows = {"whole pass": list(result["pass"].values())} | {name: list(result["stages"][name].values()) for name in dearest}
    measurement.curves(axes, places, rows, "packets a burst", result["unit"])
    axes.set_yscale("symlog", linthresh=10)


@measurement.script(__doc__, show, draw, runs=50)
@click.option("--connections", default=10_000, show_default=True, type=click.IntRange(1, 4_000_000),
              help="Established connections that the packets belong to.")
@click.option("--packets", default=1024, show_default=True, type=click.IntRange(64, 1 << 16), help="Packets a run.")
@click.option("--bursts", default=",".join(map(str, BURSTS)), show_default=True, help="Sizes of bursts.",
              callback=measurement.numbers(1, 256, "sizes"))
def main(**options):
    """Measures and prints."""
    return measure(**options)


if __name__ == "__main__":
    main()
