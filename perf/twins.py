"""How fast kernels are against their C twins: parse, look-up, rewrite and the established path, by the size of the burst.

    python perf/twins.py                         a table
    python perf/twins.py --bursts 32 --json      one JSON document

Segments of 60 octets with payload of established connections, in random order, from mbufs in random order: each burst is
parsed, looked up and rewritten, or sent on by `express` in the next one, by the kernel in one round and by its twin in the
next, with the stop-watch read behind a fence around every stage. The twins are compiled with -O3 -march=native, the kernels by
LLVM as the loop compiles them, but without the rest of the loop around them.
"""
import functools

import click
import measurement
import numpy as np
from measured_engine import FIRST_CLIENT, SERVICE, configuration_for

from pipeline import assemble
from pipeline.io.frame_rows import fill_mbufs, tcp_rows, write_rows
from pipeline.io.memory_port import MemoryNetwork
from pipeline.kernels import express, lookup, neighbours, parse, rewrite, twins
from pipeline.kernels.batch import ABSORB, FORWARD, PENDING, SENT
from pipeline.kernels.connection import BOUND, ESTABLISHED
from pipeline.kernels.flow_hash import hash_key
from pipeline.kernels.flow_table import insert
from pipeline.kernels.headers import ACK
from pipeline.kernels.jit import kernel, loop
from pipeline.kernels.native import ordered_ticks

STAGES = ("parse", "lookup", "rewrite", "express")
TARGET, OURS = (0x0AC80002, 8080), 0x0AC80001
"""The first target of `configuration_for`, and the engine's own address beside it."""
A_CLIENT = 64
INTERRUPTED = 10


@loop
def insert_clients(buckets, addresses, ports, service, service_port):
    """Puts the clients' key of every connection into the table; returns how many found a place."""
    placed = 0
    for number in range(len(addresses)):
        placed += insert(buckets, hash_key(addresses[number], service, ports[number], service_port), 2 * number)
    return placed


@kernel
def rewritten(in_c, state, burst):
    """Has one burst rewritten by the kernel or its twin; returns the ticks."""
    packets, base, batch, connections = state.packets, state.base[0], state.batch, state.connections
    for row in range(burst):
        batch.verdict[row] = FORWARD if batch.verdict[row] == PENDING and batch.flow[row] >= 0 else ABSORB
    start = ordered_ticks()
    if in_c:
        twins.rewrite(packets, base, batch, burst, connections, state.network, 0)
    else:
        rewrite.rewrite(packets, base, batch, burst, connections, state.network, 0)
    return ordered_ticks() - start


@kernel
def sent_on(in_c, state, burst):
    """Has `express` or its twin send one burst on; returns the ticks."""
    packets, batch, connections = state.packets, state.batch, state.connections
    start = ordered_ticks()
    if in_c:
        twins.express(packets, batch, burst, connections, state.network, state.outbox, 0)
    else:
        express.usual(packets, batch, burst, connections, state.network, state.outbox, 0)
    spent = ordered_ticks() - start
    state.outbox.filled[:] = 0
    return spent


@loop
def stages(in_c, state, mbufs, burst, taken):
    """Takes bursts through the kernels, or the twins; `taken` (int64[bursts, 4]) gets the ticks, each burst's of three stages.

    Returns how many packets were rewritten or sent on.
    """
    packets, base, batch, connections, done = state.packets, state.base[0], state.batch, state.connections, 0
    for number in range(taken.shape[0]):
        for row in range(burst):
            batch.mbuf[row] = mbufs[number * burst + row]
        first = ordered_ticks()
        if in_c:
            twins.parse(packets, base, batch, burst, 0, state.network, connections.counters)
        else:
            parse.parse(packets, base, batch, burst, 0, state.network, connections.counters)
        second = ordered_ticks()
        if in_c:
            twins.lookup(batch, burst, connections.buckets, connections.hot)
        else:
            lookup.bucketed(batch, burst, connections.buckets, connections.hot)
        taken[number, 0], taken[number, 1] = second - first, ordered_ticks() - second
        if number & 1 == 0:
            taken[number, 2] = rewritten(in_c, state, burst)
        else:
            taken[number, 3] = sent_on(in_c, state, burst)
        for row in range(burst):
            done += batch.verdict[row] == FORWARD or batch.verdict[row] == SENT
    return done


class Bench:
    """A worker's state with established connections, and packets of theirs."""

    def __init__(self, connections, packets):
        settings = configuration_for(connections)
        self.network = MemoryNetwork(2, 2 * packets + 1024, 1024)
        self.macs = [port.mac for port in self.network.ports]
        self.state = assemble.make_state(settings, self.network.device, self.network.arena, self.macs, 0, 1e9)[0]
        self.random = np.random.default_rng(1)
        numbers, hot = np.arange(connections), self.state.connections.hot[:connections]
        self.addresses, self.ports = FIRST_CLIENT + numbers // A_CLIENT, 1024 + numbers % A_CLIENT
        hot.remote_address, hot.local_address = np.c_[self.addresses, numbers * 0 + TARGET[0]], (SERVICE[0], OURS)
        hot.remote_port, hot.local_port = np.c_[self.ports, numbers * 0 + TARGET[1]], np.c_[numbers * 0 + 80, numbers & 0xFFFF]
        hot.shift, hot.state, hot.options = self.random.integers(0, 2**32, hot.shift.shape), ESTABLISHED, BOUND
        hot.next[:, 0], hot.acked[:, 1] = 1000, hot.shift[:, 0] + np.uint32(1000)
        hot.neighbour = [self.hop(FIRST_CLIENT, 0), self.hop(TARGET[0], 1)]
        if insert_clients(self.state.connections.buckets, self.addresses, self.ports, *SERVICE) < connections:
            raise click.ClickException("the flow table refuses a key")
        self.mbufs = write_rows(self.network.pool, *self.frames(packets))

    def hop(self, address, port):
        """Returns the number of a next hop that is REACHABLE."""
        number = int(neighbours.add_neighbour(self.state.network, address, port))
        entry = self.state.network.neighbours[number]
        entry.state, entry.mac_high, entry.mac_low = neighbours.REACHABLE, 0x02CC, number
        return number

    def frames(self, packets):
        """Returns rows and lengths of segments of connections in random order."""
        which = self.random.integers(0, len(self.addresses), packets)
        numbers = np.c_[which * 0 + 1000, self.random.integers(0, 2**32, packets)].T
        return tcp_rows((self.macs[0], 0x02AA00000001), (self.addresses[which], SERVICE[0]), (self.ports[which], SERVICE[1]),
                        numbers, ACK, np.zeros((packets, 6), np.uint8))

    def run(self, in_c, burst):
        """Returns the ticks a packet of each stage, but for bursts during which others had the core."""
        self.mbufs = self.random.permutation(self.mbufs)
        fill_mbufs(self.network.arena, self.mbufs, *self.frames(len(self.mbufs)))
        taken = np.zeros((len(self.mbufs) // burst, len(STAGES)), np.int64)
        done = stages(in_c, self.state, self.mbufs, burst, taken)
        if done != len(taken) * burst:
            raise click.ClickException(f"{done} of {len(taken) * burst} packets were rewritten or sent on")
        columns = (column[column > 0] for column in taken.T)
        return [column[column <= INTERRUPTED * np.median(column)].mean() / burst for column in columns]


def show(console, result):
    """Prints the result as a table."""
    rows = []
    for burst, stages in result["bursts"].items():
        for name, cells in stages.items():
            rows.append([burst, name, measurement.spread(cells["numba"]), measurement.spread(cells["c"]), f"{cells['ratio']:.2f}"])
        rows.append(None)
    title = f"{result['unit']}, {result['connections']:,} connections"
    console.print(measurement.table(title, ["packets a burst", "stage", "kernel", "C twin", "speed"], rows[:-1]))
    console.print("Medians, in brackets the quartiles. speed: the kernel's, where the twin's is 1.")


def draw(axes, result):
    """Draws both by the size of the burst."""
    curves = {f"{name}, {kind}": [stages[name][kind] for stages in result["bursts"].values()]
              for name in STAGES for kind in ("numba", "c")}
    measurement.curves(axes, [int(burst) for burst in result["bursts"]], curves, "packets a burst", result["unit"])


@measurement.script(__doc__, show, draw, runs=20)
@click.option("--bursts", default="1,8,32,64", show_default=True, callback=measurement.numbers(1, 64, "sizes"),
              help="Sizes of bursts.")
@click.option("--connections", default=10_000, show_default=True, type=click.IntRange(1, 4_000_000),
              help="Established connections that the packets belong to.")
@click.option("--packets", default=2048, show_default=True, type=click.IntRange(64, 1 << 16), help="Packets a run.")
def main(runs, say, bursts, connections, packets):
    """Measures and returns the result."""
    bench = Bench(connections, packets)
    cases = {(kind, burst): functools.partial(bench.run, kind == "c", burst) for burst in bursts for kind in ("numba", "c")}
    taken, rows = measurement.in_turns(cases, runs, say), {}
    for burst in bursts:
        rows[str(burst)] = {}
        for place, name in enumerate(STAGES):
            mine, theirs = (taken[kind, burst][:, place] for kind in ("numba", "c"))
            rows[str(burst)][name] = {"numba": measurement.quartiles(mine), "c": measurement.quartiles(theirs),
                                      "ratio": round(float(np.median(theirs) / np.median(mine)), 3)}
    return {"unit": "TSC ticks a packet", "connections": connections, "packets": packets, "bursts": rows}


if __name__ == "__main__":
    main()
