"""Where the loop's time goes, by stage, by path and by size of burst; and what it costs to look.

    python perf/profile.py                                tables of both workloads, and the cost
    python perf/profile.py --every 8 --runs 100           one burst in 8
    python perf/profile.py --json --plot profile.png      one JSON document, and stacked bars by size of burst

Workloads: `connections`, that of perf/cps.py (whole connections, all of them closed and opened anew), and `forwarding`, that of
perf/forward.py (segments of 64 octets both ways through established connections); both on memory ports.

The cost is measured in turns: the loop as it is without --profile, which has no marks; with marks that are switched off; and with the
profile on, all on the same engine and its same state. The sum of the stages is set beside whole passes twice: in the runs
that are profiled, beside their passes that are not sampled; and run by run beside the run before it that is not profiled.
"""
import functools

import click
import cps
import forward
import measurement
import numpy as np
from measured_engine import SELECTS, whole

from pipeline import compiled_loop, compose, processor_counters, profile_report, profiling
from pipeline.kernels.profile import IDLE
from pipeline.profile_marks import stage_names
from pipeline.spread import ratio_interval

WAYS = ("off", "marked", "on")
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
OCTETS = 64


def marked_loop(state):
    """Returns the loop with marks."""
    with compose.compiling():
        run = compose.compose({}, SELECTS, "memory", profiled=True)
        run(state, 0, 0)
    whole(compiled_loop.entry(run, state), state, 0)
    return run


class Connections(cps.Rotation):
    """Whole connections: see perf/cps.py."""

    unit = "a connection"

    def performed(self):
        """Makes a run; returns the ticks of one connection."""
        return float(self.run().sum())


class Forwarding(forward.Bench):
    """Segments of established connections: see perf/forward.py."""

    unit = "a packet"

    def __init__(self, connections, burst, say):
        super().__init__(connections, burst, say)
        self.ports = self.memory_ports()

    def performed(self):
        """Makes a run; returns the ticks of one packet."""
        self.ports.entry = self.entry
        return self.forward(self.ports, OCTETS)

    def use_bursts(self, size):
        """Makes bursts of at most so many packets from now on."""
        self.burst = self.state.burst[0] = size


class Bench:
    """A workload that is run in each of WAYS; what is profiled adds up."""

    def __init__(self, workload, every, overhead):
        self.workload, self.every, self.states = workload, every, [workload.state]
        loop = marked_loop(workload.state)
        marked, self.names = compiled_loop.entry(loop, workload.state), stage_names(loop)
        self.entries = {"off": workload.entry, "marked": marked, "on": marked}
        profiling.start(self.states, every, 0, measurement.tsc_hertz(), overhead)
        profiling.stop(self.states)

    def run(self, way):
        """Makes a run; returns its ticks, and of a profiled one the ticks that its stages sum up to, else 0."""
        self.workload.entry = self.entries[way]
        before = self.summed()
        if way == "on":
            profiling.resume(self.states, self.every)
        taken = self.workload.performed()
        profiling.stop(self.states)
        ticks, sampled, passes = self.summed() - before
        return taken, ticks / sampled * passes if sampled else np.nan

    def summed(self):
        """Returns the ticks of all stages, the sampled passes and all passes so far."""
        counted = self.states[0].profile
        return np.array([counted.ticks[:IDLE].sum(), counted.passes[1, :IDLE, 0].sum(), counted.passes[:, :IDLE, 0].sum()], float)

    def report(self):
        """Returns what the profile has found."""
        return profile_report.report(self.states, self.names, measurement.tsc_hertz())


def interval(ratios):
    """Returns the median of ratios and its bootstrapped interval of 95 % (dict)."""
    return dict(zip(("median", "low", "high"), (round(value, 4) for value in ratio_interval(ratios)), strict=True))


def measure(runs, say, open_connections, burst, together, every, bursts, without_sizes):
    """Returns the whole result (dict, JSON-able)."""
    overhead, counters = profiling.ticks_of_a_mark(), processor_counters.ProcessorCounters()
    workloads = {"connections": Connections(open_connections, together, burst, False, say).fill(),
                 "forwarding": Forwarding(open_connections, burst, say)}
    benches = {name: Bench(workload, every, overhead) for name, workload in workloads.items()}
    cases = {(name, way): functools.partial(bench.run, way) for name, bench in benches.items() for way in WAYS}
    taken, found = measurement.in_turns(cases, runs, say), {}
    for name, bench in benches.items():
        ticks = {way: taken[name, way][:, 0] for way in WAYS}
        found[name] = {
            "unit": f"TSC ticks {bench.workload.unit}", "ticks": {way: measurement.quartiles(ticks[way]) for way in WAYS},
            "cost_of_marks": interval(ticks["marked"] / ticks["off"]), "cost_on": interval(ticks["on"] / ticks["off"]),
            "least_of_marks": round(float(ticks["marked"].min() / ticks["off"].min()), 4),
            "least_on": round(float(ticks["on"].min() / ticks["off"].min()), 4), "profile": bench.report()}
    result = {"every": every, "burst": burst, "open": open_connections, "ticks_of_a_mark": overhead, "workloads": found}
    if not without_sizes:
        forwarding = benches["forwarding"]
        profiling.start(forwarding.states, every, 0, measurement.tsc_hertz(), overhead)
        for size in bursts:
            say(f"bursts of {size}")
            forwarding.workload.use_bursts(size)
            for _ in range(max(runs // 10, 2)):
                forwarding.run("on")
        result["by_size"] = forwarding.report()
    result["counters"] = processor_counters.counted([counters])
    counters.close()
    return result


def show(console, result):
    """Prints the result as tables."""
    for name, found in result["workloads"].items():
        console.print(f"\n[bold]{name}[/bold], bursts of {result['burst']}, {result['open']:,} connections open")
        for part in profile_report.tables(found["profile"]):
            console.print(part, highlight=False)
    if "by_size" in result:
        console.print("\n[bold]forwarding, by size of burst")
        console.print(profile_report.tables(result["by_size"])[2])
    rows = [(name, *(measurement.spread(found["ticks"][way]) for way in WAYS),
             *(f"{found[cost]['median'] - 1:+.2%} ({found[cost]['low'] - 1:+.2%} to {found[cost]['high'] - 1:+.2%})"
               for cost in ("cost_of_marks", "cost_on")), f"{found['least_of_marks'] - 1:+.2%}, {found['least_on'] - 1:+.2%}",
             f"{found['profile']['sum_of_stages']['ratio'] or 0:.1%}") for name, found in result["workloads"].items()]
    console.print(measurement.table("What looking costs", ("workload", *WAYS, "marks cost", "on costs", "best runs",
                                                           "sum of stages"), rows))
    console.print(f"Medians (and quartiles) of {result['runs']} runs in turns; costs are medians of the ratios of neighbours and, in "
                  f"brackets, their bootstrapped interval of 95 %. One burst in {result['every']} is sampled. {measurement.TICKS}")
    console.print(f"Whole run: {processor_counters.line(result['counters'])}.", highlight=False)


def draw(axes, result):
    """Draws the stages of a packet, stacked, by the size of the burst."""
    profile_report.draw(axes, result.get("by_size") or result["workloads"]["forwarding"]["profile"])


@measurement.script(__doc__, show, draw, runs=60)
@click.option("--open", "open_connections", default=1000, show_default=True, type=click.IntRange(32, 4_000_000), help="Connections open.")
@click.option("--burst", default=32, show_default=True, type=click.IntRange(1, 256), help="Most packets a burst.")
@click.option("--together", default=2048, show_default=True, type=click.IntRange(1, 16384),
              help="Connections that are at the same step at a time.")
@click.option("--every", default=profiling.EVERY, show_default=True, type=click.IntRange(1, 1_000_000), help="Sample one burst in so many.")
@click.option("--bursts", default=",".join(map(str, SIZES)), show_default=True, help="Sizes of bursts of `forwarding`.",
              callback=measurement.numbers(1, 256, "sizes"))
@click.option("--without-sizes", is_flag=True, help="Do without the sizes of bursts.")
def main(**options):
    """Measures and prints."""
    return measure(**options)


if __name__ == "__main__":
    main()
