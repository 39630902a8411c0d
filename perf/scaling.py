"""How the work grows with the workers: one, two copies of one, an engine of two, and all of it with hand-over.

    python perf/scaling.py                          a table: 1 k and 100 k connections open at each worker
    python perf/scaling.py --open 1000 --runs 5     quicker
    python perf/scaling.py --json --plot scaling.png

Connections are opened and closed as in cps.py, as many at each worker, in turns by

    alone     one worker on the last core, nothing on the other one;
    copies    two engines that share nothing, each a worker on its own core, at the same time: what two cores can do here;
    workers   one engine of two workers, whose packets all come to their owner: clients' by the queue that they are fed to,
              servers' because each worker takes source ports of its own;
    handed    another such engine, but every packet of a server comes to the other worker, who hands it over.

A worker's clients and servers run in the worker's own thread, between the calls of its loop, and are left out of the count. At
each step all workers wait for each other before their loops begin, so that these run at the same time. What was handed over
and not yet taken when all have received their share is dealt with in passes of its own; no pass is empty.

A worker's rate is connections by the ticks of its loop; a scaling is the sum of the workers' rates by that of one alone.
"""
import functools
import os
import pathlib

import click
import measurement
import numpy as np
from cps import STEPS, Rotation, mbufs_for, ring_for, rotation_options
from worker_network import Threads, WorkerNetwork, in_step

from pipeline.io.memory_pool import MemoryPool
from pipeline.kernels.counters import NOTICE_HANDED_OVER
from pipeline.kernels.hand_over import AT_HAND, BY_PORT
from pipeline.steering import Share

OPEN = "1000,100000"
WORKERS, PORTS = 2, 2
BY_SERVERS = 3
"""Packets of a connection that come from its server."""
SLOWER = 64
"""By how much the workers' clocks go more slowly than time: who is kept from the core for long has nothing sent again for that."""
OF_COPIES, MORE_HANDED = 0.95, 1.3
"""What issue 5 asks: scaling by that of two copies at least, ticks with hand-over by those without at most."""
WAYS = ("alone", "copies", "workers", "handed")


class Part(Rotation):
    """The connections of one worker, driven from the worker's own thread: `run_in` at a Meeting.

    The pool has mbufs of its own for each of `share.workers`.
    """

    def __init__(self, opened, together, burst, say, pool, share):
        super().__init__(opened, together, burst, False, say, WorkerNetwork(pool, share.worker, PORTS), share)
        self.meeting, self.place, self.is_crossed, self.meets = None, 0, False, False
        self.start_clock()
        self.state.clock[2] //= SLOWER

    def run_in(self, what, is_crossed, meeting, place):
        """Does `what` (fill or run) among all who come to a meeting; crossed: servers speak to the worker before this one."""
        self.meeting, self.place, self.is_crossed = meeting, place, is_crossed
        return what(self)

    def said(self, side, frames):
        """The same, in step with the others; where they are crossed, what the servers of another one say comes to this one."""
        if self.is_crossed and side == 1:
            frames = self.meeting.swap(self.place, frames)
        self.meets = True
        return super().said(side, frames)

    def wait_out(self, count, left):
        """The same, in step with the others."""
        self.meets = True
        return super().wait_out(count, left)

    def timed(self, passes):
        """The same; the first passes of a step are made at the same time as the others make theirs."""
        cells, place = (self.meeting.cells, self.place) if self.meets else (np.zeros(1, np.int64), 0)
        self.meets = False
        taken = int(in_step(self.entry, self.state, passes, cells, place, self.engine.now))
        self.engine.now += (taken * int(self.state.clock[2]) >> 32) + 1
        return taken

    @property
    def handed(self):
        """How many packets this worker has handed over."""
        return int(self.state.counters.notices[NOTICE_HANDED_OVER])


def parts_of(workers, opened, together, burst, say):
    """Returns the Parts of one engine of so many workers, none of them filled; they share nothing but a pool's arena."""
    together = min(together, opened)
    pool = MemoryPool((workers + 1) * 2 * mbufs_for(together), PORTS, ring_for(together), workers)
    return [Part(opened, together, burst, say, pool, Share(worker, workers, (AT_HAND, BY_PORT), mask=1))
            for worker in range(workers)]


class Bench:
    """All four ways to serve `opened` connections a worker, each filled."""

    def __init__(self, threads, opened, together, burst, say):
        self.threads, self.together = threads, min(together, opened)
        self.copies = [part for _ in range(WORKERS) for part in parts_of(1, opened, together, burst, say)]
        self.workers, self.handed = (parts_of(WORKERS, opened, together, burst, say) for _ in range(2))
        say(f"opening {opened} connections at each of {3 * WORKERS} workers")
        for parts in (self.copies, self.workers, self.handed):
            self.together_do(Part.fill, parts)

    def together_do(self, what, parts, is_crossed=False):
        """Has Parts do something (fill or run) at the same time; returns what each has returned."""
        return self.threads.each([functools.partial(part.run_in, what, is_crossed) for part in parts])

    def run(self, way):
        """Returns the ticks a connection of each step, one row a worker."""
        parts = {"alone": self.copies[-1:], "copies": self.copies, "workers": self.workers}.get(way, self.handed)
        before = sum(part.handed for part in parts)
        taken = np.array(self.together_do(Part.run, parts, way == "handed"))
        handed, wanted = sum(part.handed for part in parts) - before, BY_SERVERS * (way == "handed")
        # Beside them there is an ARP reply now and then, which each worker has to see.
        if not 0 <= handed / (self.together * len(parts)) - wanted < 0.1:
            raise click.ClickException(f"{way}: {handed} packets of {self.together * len(parts)} connections were handed over, "
                                       f"{wanted} of each should be")
        return taken


def compared(opened, taken):
    """Returns a row of the result for what `in_turns` returned: arrays of ticks a connection, [runs, workers, steps]."""
    whole = {way: found.sum(2) for way, found in taken.items()}
    rates = {way: (measurement.tsc_hertz() / found).sum(1) for way, found in whole.items()}
    row = {"open": opened}
    for way in WAYS:
        row[way] = {"ticks": [measurement.quartiles(ticks) for ticks in whole[way].T],
                    "connections_a_second": measurement.quartiles(rates[way]),
                    "scaling": measurement.quartiles_of_ratios(rates[way], rates["alone"]),
                    "steps": {step: measurement.quartiles(taken[way][:, :, place].mean(1)) for place, step in enumerate(STEPS)}}
    row["of_copies"] = measurement.quartiles_of_ratios(rates["workers"], rates["copies"])
    row["with_hand_over"] = measurement.quartiles_of_ratios(whole["handed"].sum(1), whole["workers"].sum(1))
    return row


def goals(rows):
    """Returns what issue 5 asks (list of dict: what, value, at least or at most, reached)."""
    found = []
    for row in rows:
        value, cost = row["of_copies"]["median"], row["with_hand_over"]["median"]
        found += [{"what": f"{row['open']:,} open: scaling of two workers, by that of two copies", "value": value,
                   "bound": f"at least {OF_COPIES:g}", "reached": value >= OF_COPIES},
                  {"what": f"{row['open']:,} open: ticks a connection with hand-over, by those without", "value": cost,
                   "bound": f"at most {MORE_HANDED:g}", "reached": cost <= MORE_HANDED}]
    return found


def topology(cores):
    """Returns in words what the machine says of these cores."""
    def told(core, path):
        file = pathlib.Path(f"/sys/devices/system/cpu/cpu{core}/{path}")
        return file.read_text().strip() if file.exists() else "unknown"
    siblings = told(cores[0], "topology/thread_siblings_list")
    threads = "are threads of one core" if siblings == told(cores[1], "topology/thread_siblings_list") != "unknown" else (
        "are different cores, or so the machine says")
    shared = told(cores[0], "cache/index3/shared_cpu_list")
    cache = "share their last cache" if shared == told(cores[1], "cache/index3/shared_cpu_list") != "unknown" else (
        "do not share a third-level cache, or do not say so")
    virtual = ("; it is a virtual machine: what the host puts on the same hardware, and whether these are hyper-threads of one "
               "core there, it does not tell" if " hypervisor" in pathlib.Path("/proc/cpuinfo").read_text() else "")
    return f"CPUs {cores[0]} and {cores[1]} {threads}, and {cache}{virtual}."


def one_layout(threads, opened, together, burst, runs, say):
    """Returns what `in_turns` returns of engines made for this alone."""
    bench = Bench(threads, opened, together, burst, say)
    return measurement.in_turns({way: functools.partial(bench.run, way) for way in WAYS}, runs, say)


def measure(runs, say, opened, together, burst):
    """Returns the whole result (dict, JSON-able)."""
    cores = sorted(os.sched_getaffinity(0))[-WORKERS:]
    if len(cores) < WORKERS:
        raise click.ClickException(f"two workers need two cores, and this process may use {len(cores)}")
    rows = []
    with Threads(cores) as threads:
        for count in opened:
            layouts = range(measurement.LAYOUTS)
            taken = [one_layout(threads, count, together, burst, -(-runs // len(layouts)), say) for _ in layouts]
            rows.append(compared(count, measurement.joined(taken)))
    return {"unit": "TSC ticks a connection", "burst": burst, "together": together, "cores": cores, "steps": STEPS,
            "topology": topology(cores), "says": SAYS, "rows": rows, "goals": goals(rows)}


SAYS = ("This claims that a second worker costs the first no more than a second engine beside it would, and what a hand-over costs "
        "two cores that do nothing else. It does not claim what two cores do against one as such (copies show that, they share "
        "a cache and memory), nor anything of more than two, of another NUMA node, or of a NIC.")


def show(console, result):
    """Prints the result as tables."""
    rows = []
    for row in result["rows"]:
        rows += [None] * bool(rows)
        for way in WAYS:
            cell = row[way]
            rows.append((f"{row['open']:,}", way, " ".join(measurement.spread(ticks, 0) for ticks in cell["ticks"]),
                         measurement.spread(cell["connections_a_second"], 0), measurement.spread(cell["scaling"], 3)))
    console.print(measurement.table("A whole proxied connection at one worker and two", (
        "open at each", "", "ticks a connection, worker by worker", "connections/s", "scaling"), rows))
    for row in result["rows"]:
        steps = [(step, *(f"{row[way]['steps'][step]['median']:,.0f}" for way in WAYS)) for step in result["steps"]]
        console.print(measurement.table(f"Ticks a connection of each step, {row['open']:,} open",
                                        ("what comes in", *WAYS), steps))
    for row in result["rows"]:
        console.print(f"{row['open']:,} open: two workers scale {measurement.spread(row['of_copies'], 3)} of two copies; hand-over "
                      f"takes {measurement.spread(row['with_hand_over'], 3)} of the ticks without.", highlight=False)
    for goal in result["goals"]:
        console.print(f"{goal['what']}: {goal['value']:.3f} ({goal['bound']}: {'reached' if goal['reached'] else 'MISSED'})",
                      highlight=False)
    console.print(f"Medians (and quartiles) of {result['runs']} runs in turns, with engines made {measurement.LAYOUTS} times, "
                  f"{result['together']:,} connections a worker at a time, in bursts of {result['burst']}. {measurement.TICKS} {result['topology']} {result['says']}",
                  highlight=False)


def draw(axes, result):
    """Draws the scaling of each way by how many connections are open."""
    rows = {way: [row[way]["scaling"] for row in result["rows"]] for way in WAYS[1:]}
    measurement.curves(axes, [row["open"] for row in result["rows"]], rows, "connections open at each worker",
                       "rate by that of one worker alone")


@measurement.script(__doc__, show, draw, runs=40, pinned=False)
@rotation_options(OPEN, 1_000_000, 2048)
def main(**options):
    """Measures and prints."""
    return measure(**options)


if __name__ == "__main__":
    main()
