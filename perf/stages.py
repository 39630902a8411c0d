"""How many TSC ticks each kernel of the loop takes for a packet, by the size of the burst.

    python perf/stages.py                     a table
    python perf/stages.py --json              one JSON document
    python perf/stages.py --plot stages.png   the table and a picture

Packets of 64 octets (60 and the check sequence) of established connections go from clients to targets, through memory
ports: no device and no operating system has a part in it. Each kernel that pipeline/loop.py calls is timed by itself:
it goes over all prepared bursts before the next one does, between two readings of the time-stamp counter. The whole
pass is timed in the loop as it is, with its clock, its timers and the poll of the other, empty port.
"""
import ast
import functools
import json

import click
import measurement
import numpy as np

from pipeline import compose, configuration
from pipeline.io.frame_rows import fill_mbufs, write_rows
from pipeline.io.tcp_ends import TcpEnds
from pipeline.kernels import memory_device
from pipeline.kernels.batch import Batch
from pipeline.memory_engine import MemoryEngine

BURSTS = (1, 2, 4, 8, 16, 32, 64)
PAYLOAD = 6
"""Octets of payload in a frame of 60: with the check sequence of the wire, 64."""
A_TARGET = 32768
"""Connections that one target gets at most: fewer than there are source ports toward it."""
SERVICE = 0x0A000001, 80
FIRST_CLIENT = 0x0A010000
FIRST, LAST = "receive", "dispose, send"
"""What a pass does before `stages`, and the last kernel with what comes behind it: they share the outbox of a burst."""
DRIVER = """

@loop
def whole(state, passes):
    start = ticks()
    run(state, passes, -1)
    return ticks() - start


@kernel
def nth(columns, number):
    return Batch({columns})


@loop
def alone(state, columns, taken, port, count, draining, now):
{assignments}
    bursts = columns.mbuf.shape[0]
{loops}
"""
"""`whole` makes passes of the loop as it is and returns the ticks that they took. `alone` receives a burst into each
row of `columns` and has each kernel go over all of them; `taken` (int64, one a kernel) gets the ticks."""
A_LOOP = """
    start = ticks()
    for number in range(bursts):
        batch = nth(columns, number)
        {call}
    taken[{place}] = ticks() - start
"""


def configuration_for(connections):
    """Returns a Configuration with targets enough for that many connections."""
    targets = [f"t{number}" for number in range(-(-connections // A_TARGET))]
    rows = "".join(f'[[targets]]\nid = "{name}"\nip = "10.200.{number // 200}.{2 + number % 200}"\nport = 8080\n'
                   for number, name in enumerate(targets))
    text = f"""
    [engine]
    idle = "spin"
    connections = {max(connections, 1024)}
    detailed_records = false
    [[ports]]
    name = "clients"
    device = "net_null0"
    addresses = ["10.0.0.1/9"]
    [[ports]]
    name = "servers"
    device = "net_null1"
    addresses = ["10.200.0.1/16"]
    [timeouts]
    established = 86400
    """ + rows + f"""
    [[services]]
    name = "service"
    listen = "10.0.0.1:80"
    targets = {json.dumps(targets)}
    """
    return configuration.parse(text, "perf/stages.py")


def with_drivers(selects):
    """Returns the source of the composed loop with `whole` and `alone` behind it, and the names of its kernels."""
    text = compose.source({}, selects, "memory")
    (stages,) = [node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef) and node.name == "stages"]
    assignments = [ast.unparse(node) for node in stages.body if isinstance(node, ast.Assign)]
    calls = [node.value for node in ast.walk(stages) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)]
    calls.sort(key=lambda call: call.lineno)
    names = [FIRST, *(call.func.id for call in calls[:-1]), LAST]
    if calls[-1].func.id != "dispose":
        raise click.ClickException(f"pipeline/loop.py ends `stages` with {calls[-1].func.id}, dispose is expected")
    lines = ["receive(state.device, port, 0, batch.mbuf, count)", *map(ast.unparse, calls)]
    lines[-1] += "; send(state, now, draining)"
    driver = DRIVER.format(
        columns=", ".join(f"columns.{field}[number]" for field in Batch._fields),
        assignments="\n".join(f"    {line}" for line in assignments),
        loops="".join(A_LOOP.format(call=line, place=place) for place, line in enumerate(lines)))
    imports = "from pipeline.kernels.batch import Batch\nfrom pipeline.kernels.native import ticks\n"
    return f"{text}\n{imports}{driver}", names


class Bench:
    """An engine with established connections, and `packets` frames of theirs that go through it again and again."""

    def __init__(self, connections, packets, say):
        self.random = np.random.default_rng(1)
        settings = configuration_for(connections)
        with compose.compiling():
            text, self.names = with_drivers(["round_robin"])
            self.module = measurement.module_of(text, "stages")
        say("compiling the loop, unless it is cached")
        self.hertz = measurement.tsc_hertz()
        ring = 1 << max(packets, 2048).bit_length()
        self.engine = MemoryEngine(settings, mbufs=2 * packets + 8192, ring_size=ring)
        self.state = self.engine.state
        say(f"opening {connections} connections")
        numbers = np.arange(connections)
        self.ends = TcpEnds(self.engine, (FIRST_CLIENT + numbers // 64, 1024 + numbers % 64), SERVICE, self.random)
        self.ends.open()
        self.mbufs = write_rows(self.engine.pool, *self.frames(packets))
        self.scratch = np.empty(2 * ring, np.int64)
        self.empty(0)

    def frames(self, packets):
        """Returns rows and lengths of new segments of all connections, as many of each, in random order."""
        order = [self.random.permutation(len(self.ends.address)) for _ in range(-(-packets // len(self.ends.address)))]
        which, made = np.concatenate(order)[:packets], []
        for start in range(0, packets, len(self.ends.address)):
            made.append(self.ends.segments(0, which[start:start + len(self.ends.address)], PAYLOAD))
        return np.concatenate([rows for rows, _ in made]), np.concatenate([lengths for _, lengths in made])

    def refill(self, burst):
        """Puts new segments into the mbufs and as many whole bursts of these as there are into the ring of port 0.

        Returns how many bursts that is. The mbufs lie in no order: a pool's are soon shuffled.
        """
        bursts = len(self.mbufs) // burst
        self.mbufs = self.random.permutation(self.mbufs)
        fill_mbufs(self.engine.arena, self.mbufs, *self.frames(len(self.mbufs)))
        self.state.burst[0] = burst
        self.engine.feed(0, self.mbufs[:bursts * burst])
        return bursts

    def empty(self, expected):
        """Takes the mbufs back from the ring of the last port; all are there, beside what the engine says itself."""
        sent = self.engine.pool.device.sent
        count = memory_device.dequeue(sent, len(self.engine.ports) - 1, self.scratch, 0, self.scratch.size)
        ours = np.isin(self.scratch[:count], self.mbufs)
        if int(ours.sum()) != expected:
            raise click.ClickException(f"{expected} packets went in and {int(ours.sum())} came out")
        self.engine.pool.release(self.scratch[:count][~ours])

    def alone(self, burst):
        """Returns how many TSC ticks a packet each kernel of `names` takes by itself."""
        bursts = self.refill(burst)
        columns = Batch(*(np.zeros((bursts, burst), np.int64) for _ in Batch._fields))
        taken = np.zeros(len(self.names), np.int64)
        self.module.alone(self.state, columns, taken, 0, burst, 0, self.engine.now)
        self.empty(bursts * burst)
        return taken / (bursts * burst)

    def whole(self, burst):
        """Returns how many TSC ticks a packet the whole loop takes, pass after pass of one burst each."""
        bursts = self.refill(burst)
        self.state.clock[:] = measurement.read_clock(), self.engine.now, round((1 << 32) * 1e6 / self.hertz)
        taken = self.module.whole(self.state, bursts)
        self.engine.now += int(taken * 1e6 / self.hertz) + 1
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
              callback=measurement.numbers(1, 64, "sizes"))
def main(**options):
    """Measures and prints."""
    return measure(**options)


if __name__ == "__main__":
    main()
