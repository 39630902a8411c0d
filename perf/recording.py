"""What recording costs: on the connections workload of cps.py, and on the established path of forward.py.

    python perf/recording.py                           a table: at least ten million packets recorded, snap length 128
    python perf/recording.py --packets 500000 --without-forward
    python perf/recording.py --json --plot recording.png

Three engines with the same connections take turns: one whose loop has no recorder in it, one that records every packet that
comes in (`run --record`), and one that captures what it sends as well (`--pcap-out`); files are of our own format. The writer's
thread runs meanwhile, as in `run`, on whatever core is free. What had to be dropped for want of a buffer is counted and told:
the cost of recording is that of recording all. All engines are made anew several times: by where its memory happens to lie,
the same engine takes 5 to 15 % more or fewer ticks.
"""
import contextlib
import os
import pathlib
import tempfile

import click
import cps
import forward
import measurement
import numpy as np
from measured_engine import SELECTS

from pipeline import compiled_loop, compose
from pipeline.recorders import Recorded, Recorders

KINDS = {"record": lambda folder, name, snap, buffer: Recorded(f"{folder}/{name}.in", None, snap, buffer=buffer),
         "both": lambda folder, name, snap, buffer: Recorded(f"{folder}/{name}.in", f"{folder}/{name}.out", snap, buffer=buffer)}
PACKETS_A_CONNECTION = 7
"""That come in, without the target's acknowledgement of the payload, which is one more."""
OFF = "off"
WORST = 0.15


def with_recorders(bench, recorded, around):
    """Has the engine of a bench (a MeasuredEngine) record from now on; returns its Recorders, which end with `around`."""
    recorders = around.enter_context(Recorders(recorded, os.sched_getaffinity(0)))
    engine = bench.engine
    engine.state = bench.state = recorders.equip(engine.state)
    with compose.compiling():
        engine.run = compose.compose({}, SELECTS, "memory", taps=recorders.source)
        engine.run(engine.state, 0, 0)
    bench.entry = compiled_loop.entry(engine.run, engine.state)
    bench.timed(0)
    recorders.begin(engine.configuration, engine.macs, [engine.state], 0)
    return recorders


def row_of(name, taken, counts):
    """Returns the row (dict) of a kind of recording: its ticks, what it costs by pairs of runs, and what became of packets.

    `counts` are numbers of packets, recorded and dropped, one row for each time that a Recorders was made.
    """
    cell = {"recording": name, "ticks": measurement.quartiles(taken[name])}
    if counts:
        cell["cost"] = measurement.quartiles_of_ratios(taken[name], taken[OFF])
        cell["packets"], cell["dropped"] = (sum(column) for column in zip(*counts, strict=True))
    return cell


def counted(recorders):
    """Returns how many packets a Recorders has recorded and dropped so far, what came in and what was sent together."""
    taps = recorders.summary().values()
    return sum(tap["packets"] for tap in taps), sum(tap["dropped"] for tap in taps)


def one_layout(folder, runs, say, opened, together, burst, snap, buffer, kinds):
    """Returns what `in_turns` returns of connections at engines made for this alone, and what each kind has `counted`."""
    with contextlib.ExitStack() as around:
        engines, recorders = {}, {}
        for name in (OFF, *kinds):
            bench = engines[name] = cps.Rotation(opened, together, burst, False, say)
            if name in kinds:
                recorders[name] = with_recorders(bench, KINDS[name](folder, f"cps-{name}", snap, buffer), around)
            say(f"opening {opened} connections, recording {name}")
            bench.fill()
        taken = measurement.in_turns({name: lambda bench=bench: bench.run().sum() for name, bench in engines.items()}, runs, say)
        return taken, {name: counted(recorders[name]) for name in kinds}


def connections(folder, runs, say, opened, together, burst, packets, snap, buffer, kinds):
    """Returns the rows of the connections workload, with as many runs as it takes to record that many packets."""
    runs = -(-max(runs, packets / (min(together, opened) * (PACKETS_A_CONNECTION + 1))) // measurement.LAYOUTS)
    found = []
    for layout in range(measurement.LAYOUTS):
        inside = folder / f"layout-{layout}"
        inside.mkdir()
        found.append(one_layout(inside, int(runs), say, opened, together, burst, snap, buffer, kinds))
    taken = measurement.joined([ticks for ticks, _ in found])
    return [row_of(name, taken, [counts[name] for _, counts in found if name in counts]) for name in taken]


def forwarding(folder, runs, say, opened, burst, octets, snap, buffer, kinds):
    """Returns the rows of the established path."""
    rows = []
    with contextlib.ExitStack() as around:
        cases, recorders = {}, {}
        for name in (OFF, *kinds):
            bench = forward.Bench(opened, burst, say)
            if name in kinds:
                recorders[name] = with_recorders(bench, KINDS[name](folder, f"forward-{name}", snap, buffer), around)
            cases[name] = bench, bench.memory_ports()
        for size in octets:
            taken = measurement.in_turns({name: lambda bench=bench, ports=ports, size=size: bench.forward(ports, size)
                                          for name, (bench, ports) in cases.items()}, runs, say)
            rows += [{"octets": size, **row_of(name, taken, [counted(recorders[name])] if name in kinds else [])} for name in cases]
    return rows


def measure(runs, say, opened, together, burst, packets, snap, buffer, octets, without_forward, without_capture, folder):
    """Returns the whole result (dict, JSON-able)."""
    kinds = [name for name in KINDS if name != "both" or not without_capture]
    with tempfile.TemporaryDirectory(prefix="recording-", dir=folder) as inside:
        place = pathlib.Path(inside)
        found = {"connections": connections(place, runs, say, opened[0], together, burst, packets, snap, buffer, kinds)}
        if not without_forward:
            found["forward"] = forwarding(place, runs, say, opened[0], burst, octets, snap, buffer, kinds)
    return {"unit": "TSC ticks", "burst": burst, "together": together, "open": opened[0], "snap": snap, "buffer_mib": buffer,
            "worst": WORST, **found}


def words_of(cell):
    """Returns the cells of a table for a row."""
    if "cost" not in cell:
        return measurement.spread(cell["ticks"]), "", "", ""
    cost = (f"{cell['cost'][place] - 1:+.1%}" for place in ("median", "low", "high"))
    return measurement.spread(cell["ticks"]), "{} ({} to {})".format(*cost), f"{cell['packets']:,}", f"{cell['dropped']:,}"


def show(console, result):
    """Prints the result as tables."""
    columns = ("recording", "ticks", "cost", "recorded", "dropped")
    console.print(measurement.table(f"A whole proxied connection, {result['open']:,} open, snap length {result['snap']}", columns,
                                    [(row["recording"], *words_of(row)) for row in result["connections"]]))
    if "forward" in result:
        console.print(measurement.table("A packet of an established connection", ("octets, " + columns[0], *columns[1:]),
                                        [(f"{row['octets']}, {row['recording']}", *words_of(row)) for row in result["forward"]]))
    console.print(f"Medians (and quartiles) of {result['runs']} runs or more, of connections with engines made {measurement.LAYOUTS} times, costs of "
                  f"pairs of runs; at most {result['worst']:.0%} is allowed for `record` on connections. {measurement.TICKS}")


def draw(axes, result):
    """Draws the costs as bars."""
    rows = [(f"connection\n{row['recording']}", row) for row in result["connections"] if "cost" in row]
    rows += [(f"{row['octets']} octets\n{row['recording']}", row) for row in result.get("forward", ()) if "cost" in row]
    costs = np.array([100 * (row["cost"]["median"] - 1) for _, row in rows])
    axes.bar([name for name, _ in rows], costs)
    axes.axhline(100 * result["worst"], linestyle="--", color="gray")
    axes.set_ylabel("% more ticks")
    axes.grid(alpha=0.3)


@measurement.script(__doc__, show, draw, runs=20)
@cps.rotation_options("1000", 4_000_000, 2048)
@click.option("--packets", default=10_000_000, show_default=True, type=click.IntRange(1), help="Packets of connections to record at least.")
@click.option("--snap", default=128, show_default=True, type=click.IntRange(14, 16384), help="Octets that are kept of a packet.")
@click.option("--buffer", default=64, show_default=True, type=click.IntRange(1, 65536), help="MiB for packets that are not written yet.")
@click.option("--octets", default="64,512,1500", show_default=True, help="Sizes of frames of the established path.",
              callback=measurement.numbers(64, 1518, "sizes"))
@click.option("--without-forward", is_flag=True, help="Connections alone.")
@click.option("--without-capture", is_flag=True, help="What comes in alone.")
@click.option("--folder", default=None, type=click.Path(exists=True, file_okay=False), help="Where the recordings go for a while.")
def main(**options):
    """Measures and prints."""
    return measure(**options)


if __name__ == "__main__":
    main()
