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
import signal
import sys

import click
import measurement
import numpy as np
from peers import BUSY, Turns, label, stand
from peers_bed import Bed

from pipeline import compose, configuration
from pipeline.errors import RunError
from pipeline.generator_report import percentiles
from pipeline.io.frame_rows import fill_mbufs
from pipeline.io.memory_pool import ELEMENT
from pipeline.io.tcp_ends import TcpEnds
from pipeline.kernels import memory_device
from pipeline.kernels.histogram import BUCKETS
from pipeline.memory_engine import MemoryEngine

SHARES = ("p50", "p90", "p99", "p99.9", "max")
INTERRUPTED = 100e-6
"""Seconds above which a pass of the loop was interrupted: a whole burst takes 5 µs."""
CALLS = 1000
"""Empty passes by which the driver's own cost is found."""
PAYLOAD = 6
"""Octets of payload in a frame of 60: with the check sequence of the wire, 64."""
FRACTION = 20
"""Binary digits of the number of nanoseconds that a tick lasts."""
FULL = "full"
"""The case in which all packets are due at once: it tells the rate that the loads are shares of."""
DRIVER = """
from pipeline.kernels.memory_device import dequeue, enqueue
from pipeline.kernels.histogram import count_value
from pipeline.kernels.native import ticks


@loop
def paced(state, device, mbufs, due, order, scratch, latency, scale, fraction, element, longest):
    fed, out, total, last = 0, 0, mbufs.shape[0], state.outbox.filled.shape[0] - 1
    strange, away = 0, 0
    start = before = ticks()
    while out < total:
        passed, until = ticks() - start, fed
        while until < total and due[until] <= passed:
            until += 1
        if until > fed:
            fed += enqueue(device.received, 0, mbufs, fed, until - fed)
        run(state, 1, -1)
        count = dequeue(device.sent, last, scratch, strange, scratch.shape[0] - strange)
        after = ticks()
        interrupted = after - before > longest
        if interrupted:
            start += after - before
            away += 1
        before, passed = after, after - start
        for place in range(strange, strange + count):
            number = order[scratch[place] // element]
            if number < 0:
                scratch[strange] = scratch[place]
                strange += 1
                continue
            if not interrupted:
                count_value(latency, max(((passed - due[number]) * scale) >> fraction, 0))
            out += 1
        if passed > due[total - 1] + 10_000_000_000:
            break
    return ticks() - start, out, strange, away


@loop
def calls(state, passes):
    start = ticks()
    run(state, passes, -1)
    middle = ticks()
    for _ in range(passes):
        run(state, 1, -1)
    return (ticks() - middle) - (middle - start)
"""
"""`order` (int64) has a packet's number by the place of its mbuf, -1 for an mbuf that is not ours: a frame of the engine's
own, of which `strange` were found and left at the start of `scratch`. It gives up when packets are missing for seconds.
A pass of more than `longest` ticks was interrupted (`away` times): it is taken out, as if the clock had stood still.
`calls` returns the ticks by which empty passes take longer if each is a call of its own, as the driver has to make it."""
CONFIGURATION = """
[engine]
idle = "spin"
detailed_records = false
connections = {connections}
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
[[targets]]
id = "target"
ip = "10.200.0.2"
port = 8080
[[services]]
name = "service"
listen = "10.0.0.1:80"
targets = ["target"]
"""
SERVICE, FIRST_CLIENT = (0x0A000001, 80), 0x0A010000


class Bench:
    """An engine on memory ports with established connections, and `packets` frames of theirs that go through it each run."""

    def __init__(self, connections, packets, say):
        self.random, self.connections = np.random.default_rng(1), connections
        settings = configuration.parse(CONFIGURATION.format(connections=max(connections, 1024)), "perf/latency.py")
        say("compiling the loop, unless it is cached")
        with compose.compiling():
            self.module = measurement.module_of(compose.source({}, ["round_robin"], "memory") + DRIVER, "latency")
        ring = 1 << max(packets, 2048).bit_length()
        self.engine = MemoryEngine(settings, mbufs=2 * packets + 8192, ring_size=ring)
        say(f"opening {connections} connections")
        numbers = np.arange(connections)
        self.ends = TcpEnds(self.engine, (FIRST_CLIENT + numbers // 64, 1024 + numbers % 64), SERVICE, self.random)
        self.ends.open()
        self.pool = self.engine.pool
        self.mbufs = self.pool.allocate(packets)
        self.order = np.full(self.pool.mbufs, -1, np.int64)
        self.scratch = np.empty(2 * ring, np.int64)
        self.latency = np.zeros(BUCKETS, np.int64)
        self.scale = round((1 << FRACTION) * 1e9 / measurement.tsc_hertz())
        stale = memory_device.dequeue(self.pool.device.sent, 1, self.scratch, 0, self.scratch.size)
        self.pool.release(self.scratch[:stale])
        self.rate, self.interrupted = 0.0, 0

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
        state = self.engine.state
        state.clock[:] = measurement.read_clock(), self.engine.now, round((1 << 32) * 1e6 / hertz)
        taken, out, strange, away = self.module.paced(state, self.pool.device, self.mbufs, due, self.order, self.scratch,
                                                      self.latency, self.scale, FRACTION, ELEMENT, int(INTERRUPTED * hertz))
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
    called = [bench.module.calls(bench.engine.state, CALLS) * 1e6 / measurement.tsc_hertz() / CALLS for _ in range(runs)]
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
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
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
