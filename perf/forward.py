"""Packets a second on one core, and TSC ticks a packet, in established connections; testpmd beside it in the same run.

    python perf/forward.py                              a table: 64, 512 and 1500 octets over 1 k to 4 M connections
    python perf/forward.py --connections 1000           fewer
    python perf/forward.py --json --plot forward.png    one JSON document, and a picture

Segments with payload go both ways through established connections, those in random order, in 16 k distinct mbufs that lie
in no order: every run has new segments with new numbers, and a sample of what came out is verified frame by frame: MAC
addresses, TTL, both checksums, sequence number, acknowledgement and each octet of the payload. Octets are those of a frame
with its check sequence, which memory does not carry.

Two kinds of ports: `memory`, numpy arrays, and `net_ring`, DPDK's, through the shim. testpmd's macswap and 5tswap forward
between net_ring ports that are looped to themselves, as many mbufs as ours, in turns with ours: like with like is
`net_ring`. All figures are of busy passes: receiving, forwarding and sending, not waiting.
"""
import contextlib
import os

import click
import measurement
import numpy as np
from measured_engine import SELECTS, MeasuredEngine, configuration_for, whole
from testpmd import Testpmd

from pipeline import compiled_loop, compose
from pipeline.io.frame_rows import fill_mbufs, load, read_rows
from pipeline.io.tcp_ends import HOST_MACS, WIDEST, Received, wrap

CONNECTIONS = (1_000, 64_000, 1_000_000, 4_000_000)
OCTETS = (64, 512, 1500)
CHECK_SEQUENCE, HEADERS = 4, 54
MBUFS = 16384
SAMPLE = 128
"""Frames of each port and run that are verified."""
MODES = ("macswap", "5tswap")
TTL = 22
"""Where the TTL lies in a frame."""


class Ports:
    """Where the frames of one kind of port lie: `mbufs`, the arena, and how they go in and come out; the loop's `entry`."""

    def __init__(self, kind, entry, state, arena, mbufs, wires):
        self.kind, self.entry, self.state, self.arena, self.mbufs, self.wires = kind, entry, state, arena, mbufs, wires


class MemoryWire:
    """The other end of one of the engine's memory ports."""

    def __init__(self, bench, port):
        self.bench, self.port = bench, port

    def send(self, mbufs):
        """Lets the engine receive mbufs."""
        self.bench.engine.feed(self.port, mbufs)

    def receive(self):
        """Returns the mbufs that the engine has sent."""
        return self.bench.sent(self.port)


class RingWire:
    """The other end of one of the engine's net_ring ports."""

    def __init__(self, port, pool):
        self.port, self.pool = port, pool

    def send(self, mbufs):
        """Lets the engine receive mbufs."""
        from pipeline.io.burst import Burst

        if self.port.tx(Burst(mbufs, self.pool)) != len(mbufs):
            raise click.ClickException("the ring of a net_ring port was full")

    def receive(self):
        """Returns the mbufs that the engine has sent."""
        return self.port.rx(2 * MBUFS).mbufs


class RingPorts:
    """Two net_ring ports and their other ends, opened once a process; `of(bench)` drives a bench's connections over them."""

    def __init__(self, around):
        from pipeline.io import dpdk
        from pipeline.kernels import native

        around.enter_context(contextlib.closing(dpdk.Environment(memory=320)))
        self.pool = around.enter_context(contextlib.closing(dpdk.Pool("mbufs", 3 * MBUFS)))
        cables = [around.enter_context(contextlib.closing(dpdk.Cable(name, self.pool, 2 * MBUFS)))
                  for name in ("clients", "servers")]
        native.use_shim(str(dpdk.PATH))
        self.device = dpdk.device(self.pool, [cable.ports[0] for cable in cables])
        self.wires = [RingWire(cable.ports[1], self.pool) for cable in cables]
        self.mbufs = self.pool.allocate(MBUFS)

    def of(self, bench):
        """Returns Ports: the state of a bench's engine, its device replaced by ours."""
        arena = self.pool.arena
        state = bench.state._replace(device=self.device, packets=arena.native, base=np.array([arena.base], np.int64))
        with compose.compiling():
            run = compose.compose({}, SELECTS, "dpdk")
            run(state, 0, 0)
        entry = compiled_loop.entry(run, state)
        whole(entry, state, 0)
        return Ports("net_ring", entry, state, arena, self.mbufs, self.wires)


class Bench(MeasuredEngine):
    """An engine with that many established connections, and frames of theirs."""

    def __init__(self, connections, burst, say):
        super().__init__(configuration_for(connections, burst), connections, MBUFS + 4096, 2 * MBUFS, say)
        self.burst = burst
        say(f"opening {connections} connections")
        self.ends.open()

    def memory_ports(self):
        """Returns Ports of this engine's own."""
        return Ports("memory", self.entry, self.state, self.engine.arena, self.pool.allocate(MBUFS),
                     [MemoryWire(self, 0), MemoryWire(self, 1)])

    def frames(self, side, count, payload):
        """Returns rows and lengths of new segments of one side, of all connections alike, in random order."""
        clients = len(self.ends.address)
        made, left = [], count
        while left > 0:
            which = self.random.permutation(clients)[:left]
            made.append(self.ends.segments(side, which, payload))
            left -= len(which)
        return np.concatenate([rows for rows, _ in made]), np.concatenate([lengths for _, lengths in made])

    def forward(self, ports, octets):
        """Has all mbufs go through the engine, half of them each way; returns the ticks a packet."""
        payload, half = octets - CHECK_SEQUENCE - HEADERS, MBUFS // 2
        ports.mbufs = self.random.permutation(ports.mbufs)
        for side in (0, 1):
            mbufs = ports.mbufs[side * half:(side + 1) * half]
            rows, lengths = self.frames(side, half, payload)
            fill_mbufs(ports.arena, mbufs, rows, lengths)
            ports.wires[side].send(mbufs)
        self.start_clock(ports.state)
        taken = int(whole(ports.entry, ports.state, -(-half // self.burst)))
        self.engine.now += int(taken * 1e6 / measurement.tsc_hertz()) + 1
        received = self.ends.received.copy()
        for side in (0, 1):
            self.verify(ports, side, ports.wires[side].receive())
            self.ends.received[:] = received
        self.ends.received[:] = self.ends.sent
        return taken / MBUFS

    def verify(self, ports, side, mbufs):
        """Verifies a sample of what came for a side; raises ClickException for the first frame that is wrong."""
        ends, ours = self.ends, np.isin(mbufs, ports.mbufs)
        if int(ours.sum()) != MBUFS // 2:
            raise click.ClickException(f"{MBUFS // 2} packets went in and {int(ours.sum())} came out toward side {side}")
        sample = np.sort(self.random.permutation(np.flatnonzero(ours))[:SAMPLE])
        got = Received(*read_rows(ports.arena, mbufs[sample], WIDEST))
        which = ends.connections_of(side, got)
        own = (ends.client_first, ends.server_first)[side][which]
        right = {"TCP or IPv4 checksum": got.tcp_right & got.ipv4_right, "connection": which >= 0,
                 "MAC address": load(got.rows, 0, 6) == HOST_MACS[side], "TTL": got.rows[:, TTL] == 63,
                 "acknowledgement": got.ack == wrap(own + 1 + ends.received[side, which])}
        for what, fine in right.items():
            if not fine.all():
                raise click.ClickException(f"{int((~fine).sum())} of {len(fine)} frames toward side {side}: wrong {what}")
        if ends.accept(side, got) != (len(sample), 0):
            raise click.ClickException(f"sequence numbers toward side {side} are wrong")
        if not ours.all():
            ports_pool = self.pool if ports.kind == "memory" else ports.wires[0].pool
            ports_pool.release(mbufs[~ours])


def cell(ticks):
    """Returns a result (dict) for the ticks a packet of all runs."""
    found = measurement.quartiles(ticks)
    return {"ticks": found, "packets_a_second": round(measurement.tsc_hertz() / found["median"])}


def measure(runs, say, connections, octets, burst, without_net_ring, without_testpmd):
    """Returns the whole result (dict, JSON-able)."""
    rows, (core,) = [], os.sched_getaffinity(0)
    with contextlib.ExitStack() as around:
        beside = {} if without_testpmd else {
            size: around.enter_context(contextlib.closing(Testpmd(core, size - CHECK_SEQUENCE, MBUFS, burst))) for size in octets}
        rings = None if without_net_ring else RingPorts(around)
        for count in connections:
            bench = Bench(count, burst, say)
            kinds = [bench.memory_ports()] + ([rings.of(bench)] if rings else [])
            cases = {}
            for size in octets:
                for ports in kinds:
                    cases[ports.kind, size] = lambda ports=ports, size=size: bench.forward(ports, size)
                for mode in MODES if beside else ():
                    cases[mode, size] = lambda mode=mode, size=size: beside[size].ticks(mode)
            taken = measurement.in_turns(cases, runs, say)
            for size in octets:
                row = {"connections": count, "octets": size, **{who: cell(taken[who, size]) for who, at in cases if at == size}}
                if rings and beside:
                    row["of_macswap"] = round(float(np.median(taken["macswap", size] / taken["net_ring", size])), 3)
                rows.append(row)
    return {"unit": "TSC ticks a packet", "burst": burst, "mbufs": MBUFS, "verified": SAMPLE * 2, "rows": rows}


def show(console, result):
    """Prints the result as a table."""
    names = [name for name in ("memory", "net_ring", *MODES) if name in result["rows"][0]]
    rows = [(f"{row['connections']:,}", row["octets"], *(words for name in names for words in (
        measurement.spread(row[name]["ticks"]), f"{row[name]['packets_a_second'] / 1e6:.1f}")), row.get("of_macswap", "-"))
        for row in result["rows"]]
    columns = ["connections", "octets", *(words for name in names for words in (name, "M/s")), "of macswap"]
    console.print(measurement.table("Ticks a packet on the established path, and million packets a second", columns, rows))
    console.print(f"Medians (and quartiles) of {result['runs']} runs of {result['mbufs']:,} packets in bursts of "
                  f"{result['burst']}, {result['verified']} of each run verified. Of macswap: our speed over net_ring by "
                  f"testpmd's, pairs of runs. {measurement.TICKS}")


def draw(axes, result):
    """Draws the ticks of a packet of the smallest size by the number of connections."""
    least = min(row["octets"] for row in result["rows"])
    rows = [row for row in result["rows"] if row["octets"] == least]
    names = [name for name in ("memory", "net_ring", *MODES) if name in rows[0]]
    measurement.curves(axes, [row["connections"] for row in rows], {name: [row[name]["ticks"] for row in rows] for name in names},
                       f"connections, {least} octets", result["unit"])


@measurement.script(__doc__, show, draw, runs=20)
@click.option("--connections", default=",".join(map(str, CONNECTIONS)), show_default=True, help="Established connections.",
              callback=measurement.numbers(1, 4_000_000, "numbers"))
@click.option("--octets", default=",".join(map(str, OCTETS)), show_default=True, help="Sizes of frames.",
              callback=measurement.numbers(64, 1518, "sizes"))
@click.option("--burst", default=32, show_default=True, type=click.IntRange(1, 256), 
              help="Most packets a burst, ours and testpmd's.")
@click.option("--without-net-ring", is_flag=True, help="Memory ports alone: no DPDK, no testpmd.")
@click.option("--without-testpmd", is_flag=True, help="Do without testpmd.")
def main(**options):
    """Measures and prints."""
    return measure(**options)


if __name__ == "__main__":
    main()
