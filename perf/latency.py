"""How long a packet spends in the engine, from rx to tx, at low and at high load; and what that adds to a round trip.

    python perf/latency.py                       tables (as root: over real ports too)
    python perf/latency.py --loads 1,50,90       shares of what the engine can do, in percent
    python perf/latency.py --json                one JSON document

Memory ports: packets of established connections arrive at random (Poisson) at a share of the rate that the engine managed
just before; a driver around the loop puts each into the receive ring when it is due, and reads the time-stamp counter when
the packet lies in the other port's send ring. What it waited in the ring, because the engine was busy with others, counts.
A histogram gives the percentiles (at most 1 / 128 too large). A pass of more than 100 µs, twenty times the longest, means
that the core was given to somebody else: it is taken out with its packets, and how often that was is told.

Real ports: a client asks a server, one request at a time (low load) and many (high), through the engine as a proxy and as a
plain wire (mode = "forward"), both on net_af_packet in turns: what the proxy adds to a round trip is the difference.
"""
import functools
import os

import click
import measurement
import numpy as np
from measured_engine import MeasuredEngine, configuration_for
from peers import BUSY, Turns, label, stand
from peers_bed import Bed

from pipeline import compose
from pipeline.compiled_loop import call
from pipeline.errors import RunError
from pipeline.generator_report import percentiles
from pipeline.io.frame_rows import fill_mbufs
from pipeline.io.memory_pool import ELEMENT
from pipeline.kernels.histogram import BUCKETS, count_value
from pipeline.kernels.jit import kernel, loop
from pipeline.kernels.memory_device import dequeue, enqueue
from pipeline.kernels.native import ticks

SHARES = ("p50", "p90", "p99", "p99.9", "max")
INTERRUPTED = 100e-6
"""Seconds above which a pass of the loop was interrupted: a whole burst takes 5 µs."""
CALLS = 1000
"""Empty passes by which the driver's own cost is found."""
PAYLOAD = 6
"""Octets of payload in a frame of 60: with the check sequence of the wire, 64."""
FRACTION = 20
"""Binary digits of the number of nanoseconds that a tick lasts."""
GIVEN_UP = 10_000_000_000
"""Ticks after the last packet was due; those that have not come by then are missing."""
FULL = "full"
"""The case in which all packets are due at once: it tells the rate that the loads are shares of."""
SEND_RING = 1
"""The port that what comes by the first one leaves by."""


@kernel
def feed(device, mbufs, due, fed, passed):
    """Puts the packets that are due into the receive ring; returns how many have been put there."""
    until = fed
    while until < due.shape[0] and due[until] <= passed:
        until += 1
    return fed + enqueue(device.received, 0, mbufs, fed, until - fed) if until > fed else fed


@loop
def paced(entry, state, device, mbufs, due, order, scratch, latency, scale, longest):
    """Has the loop pass on every packet when it is due (ticks), and counts the nanoseconds that each takes in `latency`.

    `order` (int64) has a packet's number by the place of its mbuf, -1 for an mbuf that is not ours: a frame of the engine's
    own, of which `strange` were found and left at the start of `scratch`. It gives up when packets are missing for seconds.
    A pass of more than `longest` ticks was interrupted (`away` times): it is taken out, as if the clock had stood still.
    Returns the ticks that all took, how many came out, `strange` and `away`.
    """
    fed, out, total, strange, away = 0, 0, mbufs.shape[0], 0, 0
    start = before = ticks()
    while out < total:
        fed = feed(device, mbufs, due, fed, ticks() - start)
        call(entry, state, 1, -1)
        count = dequeue(device.sent, SEND_RING, scratch, strange, scratch.shape[0] - strange)
        after = ticks()
        interrupted = after - before > longest
        if interrupted:
            start += after - before
            away += 1
        before, passed = after, after - start
        for place in range(strange, strange + count):
            number = order[scratch[place] // ELEMENT]
            if number < 0:
                scratch[strange] = scratch[place]
                strange += 1
                continue
            if not interrupted:
                count_value(latency, max(((passed - due[number]) * scale) >> FRACTION, 0))
            out += 1
        if passed > due[total - 1] + GIVEN_UP:
            break
    return ticks() - start, out, strange, away


@loop
def calls(entry, state, passes):
    """Returns the ticks by which empty passes take longer if each is a call of its own, as the driver has to make it."""
    start = ticks()
    call(entry, state, passes, -1)
    middle = ticks()
    for _ in range(passes):
        call(entry, state, 1, -1)
    return (ticks() - middle) - (middle - start)


class Bench(MeasuredEngine):
    """An engine on memory ports with established connections, and `packets` frames of theirs that go through it each run."""

    def __init__(self, connections, packets, say):
        super().__init__(configuration_for(connections), connections, packets + 4096, 1 << max(packets, 2048).bit_length(), say)
        say(f"opening {connections} connections")
        self.ends.open()
        self.connections = connections
        self.mbufs = self.pool.allocate(packets)
        self.order = np.full(self.pool.mbufs, -1, np.int64)
        self.latency = np.zeros(BUCKETS, np.int64)
        self.scale = round((1 << FRACTION) * 1e9 / measurement.tsc_hertz())
        self.pool.release(self.sent(SEND_RING))
        self.rate, self.interrupted = 0.0, 0
        with compose.compiling():
            self.paced([], [])
            calls(self.entry, self.state, 0)

    def refill(self):
        """Puts new segments of all connections, in random order, into the mbufs, which lie in no order."""
        made, left = [], len(self.mbufs)
        while left > 0:
            made.append(self.ends.segments(0, self.random.permutation(self.connections)[:left], PAYLOAD))
            left -= len(made[-1][0])
        self.mbufs = self.random.permutation(self.mbufs)
        fill_mbufs(self.engine.arena, self.mbufs, *map(np.concatenate, zip(*made, strict=True)))
        self.engine.arena.native.mbuf["port"][self.mbufs] = 0
        self.order[:] = -1
        self.order[self.mbufs // ELEMENT] = np.arange(len(self.mbufs))

    def paced(self, mbufs, due):
        """Has packets go through when they are due; returns what `paced` does."""
        return paced(self.entry, self.state, self.pool.device, np.array(mbufs, np.int64), np.array(due, np.int64), self.order,
                     self.scratch, self.latency, self.scale, int(INTERRUPTED * measurement.tsc_hertz()))

    def run(self, load):
        """Has all packets go through at a load (FULL, or a share of the rate of the last FULL); returns microseconds by SHARES.

        For FULL the last is the number of packets a second instead.
        """
        self.refill()
        count, hertz = len(self.mbufs), measurement.tsc_hertz()
        due = np.zeros(count, np.int64)
        if load != FULL:
            due[:] = np.cumsum(self.random.exponential(hertz / (load * self.rate), count))
        self.latency[:] = 0
        self.start_clock()
        taken, out, strange, away = self.paced(self.mbufs, due)
        self.engine.now += int(taken * 1e6 / hertz) + 1
        self.interrupted += away
        self.pool.release(self.scratch[:strange])
        if out != count:
            raise click.ClickException(f"{count} packets went in and {out} came out")
        if load == FULL:
            self.rate = count * hertz / taken
            return [self.rate] * len(SHARES)
        found = percentiles(self.latency)
        return [found.get(share, 0) / 1e3 for share in SHARES]


def over_memory(runs, say, connections, packets, loads):
    """Returns `rows` (list of dict: load, and microseconds by SHARES) and the packets a second at a load of 100 %."""
    bench = Bench(connections, packets, say)
    bench.run(FULL)
    called = [calls(bench.entry, bench.state, CALLS) * 1e6 / measurement.tsc_hertz() / CALLS for _ in range(runs)]
    cases = {FULL: functools.partial(bench.run, FULL)}
    cases |= {load: functools.partial(bench.run, load / 100) for load in loads}
    taken = measurement.in_turns(cases, runs, say)
    rows = [{"load": load, **{share: measurement.quartiles(taken[load][:, place]) for place, share in enumerate(SHARES)}}
            for load in loads]
    return {"packets_a_second": measurement.quartiles(taken[FULL][:, 0]), "interrupted": bench.interrupted,
            "driver": measurement.quartiles(called), "rows": rows}


def over_ports(runs, say, device, seconds, cores):
    """Returns microseconds of round trips (dict by peer: p50 and p99, alone and busy), and what does not stand."""
    with Bed() as bed:
        peers, absent = stand(bed, ["wire", "engine"], [device], cores[-1], say)
        turns = Turns(bed, peers, seconds)
        turns.pin_ends(cores[0])
        taken = measurement.in_turns({name: functools.partial(turns.round_trips, peer) for name, peer in peers.items()}, runs, say)
    keys = [f"{load}_{share}" for load in ("alone", "busy") for share in ("p50", "p99")]
    rows = {name: {key: measurement.quartiles(taken[name][:, place]) for place, key in enumerate(keys)} for name in peers}
    return {"device": device, "run_seconds": seconds, "rows": rows, "missing": absent, "failed": sum(turns.failed.values())}


def show(console, result):
    """Prints the result as tables."""
    memory, ports = result["memory"], result["ports"]
    console.print(measurement.table(
        f"Microseconds from rx to tx, {result['connections']:,} connections, 64 octets, memory ports", ("load", *SHARES),
        [(f"{row['load']} %", *(measurement.spread(row[share], 2 if share == "p50" else 1) for share in SHARES))
         for row in memory["rows"]]))
    console.print(f"A load of 100 % is what the engine managed of packets that were all there: "
                  f"{memory['packets_a_second']['median'] / 1e6:.1f} million a second. Arrivals are random, waiting for the engine "
                  f"counts. The core was given to others {memory['interrupted']:,} times, which is taken out. "
                  f"The driver's own call, once a pass, is {memory['driver']['median']:.2f} µs of it.", highlight=False)
    if "rows" in ports:
        keys = list(next(iter(ports["rows"].values())))
        rows = [(label(name), *(measurement.spread(row[key], 0 if "99" in key else 1) for key in keys))
                for name, row in ports["rows"].items()]
        proxy, wire = (ports["rows"].get(f"{kind} {ports['device']}") for kind in ("engine", "wire"))
        if proxy and wire:
            rows += [None, ("the proxy adds", *(f"{proxy[key]['median'] - wire[key]['median']:+.1f}" for key in keys))]
        console.print(measurement.table(f"Microseconds of a round trip between two kernels, {ports['device']}",
                                        ("", "alone p50", "p99", f"{BUSY} at once p50", "p99"), rows))
    for reason in [ports["skipped"]] if "skipped" in ports else [f"{label(name)}: {why}" for name, why in ports["missing"].items()]:
        console.print(f"Real ports: {reason}", highlight=False)
    console.print(f"Medians (and quartiles) of {result['runs']} runs in turns.")


def draw(axes, result):
    """Draws the percentiles in memory by the load."""
    rows = result["memory"]["rows"]
    measurement.curves(axes, [row["load"] for row in rows], {share: [row[share] for row in rows] for share in SHARES[:-1]},
                       "load, % of what the engine can do", "microseconds from rx to tx", logarithmic=False)
    axes.set_yscale("log")
    axes.set_ylim(bottom=None)


@measurement.script(__doc__, show, draw, runs=7, pinned=False)
@click.option("--loads", default="1,50,80,95", show_default=True, callback=measurement.numbers(1, 99, "percentages"),
              help="Loads in percent.")
@click.option("--connections", default=10_000, show_default=True, type=click.IntRange(1, 30_000), help="Established connections.")
@click.option("--packets", default=16384, show_default=True, type=click.IntRange(64, 1 << 16), help="Packets a run.")
@click.option("--device", default="af_packet", show_default=True, type=click.Choice(["af_packet", "af_xdp", "tap"]),
              help="DPDK's device for real ports.")
@click.option("--seconds", default=1.0, show_default=True, type=click.FloatRange(0.05, 60), help="A run over real ports.")
@click.option("--without-ports", is_flag=True, help="Memory ports alone.")
def main(runs, say, loads, connections, packets, device, seconds, without_ports):
    """Measures."""
    measurement.end_on_sigterm()
    cores = sorted(os.sched_getaffinity(0))
    measurement.pin(cores[-1])
    memory = over_memory(runs, say, connections, packets, loads)
    os.sched_setaffinity(0, cores)
    ports = {"skipped": "left out" if without_ports else "they need root: network namespaces are made"}
    if not without_ports and os.geteuid() == 0:
        try:
            ports = over_ports(runs, say, device, seconds, cores)
        except RunError as error:
            raise click.ClickException(str(error)) from error
    return {"connections": connections, "packets": packets, "memory": memory, "ports": ports}


if __name__ == "__main__":
    main()
