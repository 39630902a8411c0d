"""An engine with open connections that a script in perf/ drives and times: over memory ports, and over net_ring.

The loop is the one that runs in production; `whole` makes passes of it and returns the ticks that they took. Its clock runs by
the time-stamp counter while it is timed and stands still in between.
"""
import ast
import json

import measurement
import numpy as np

from pipeline import compiled_loop, compose, configuration
from pipeline.io.tcp_ends import TcpEnds
from pipeline.kernels import memory_device
from pipeline.kernels.jit import loop
from pipeline.kernels.native import ticks
from pipeline.kernels.wheel import TICK_MICROSECONDS
from pipeline.memory_engine import MemoryEngine
from pipeline.profile_marks import UNTIMED
from pipeline.steering import ALONE

A_TARGET = 32768
"""Connections that one target gets at most: fewer than there are source ports toward it."""
SERVICE = 0x0A000001, 80
FIRST_CLIENT = 0x64400001
"""100.64.0.1: clients are behind a router, as clients mostly are; the engine knows 16,384 hosts on-link."""
SELECTS = ["round_robin"]


@loop
def whole(entry, state, passes):
    """Makes passes of the loop that has this entry; returns the ticks that they took."""
    start = ticks()
    compiled_loop.call(entry, state, passes, -1)
    return ticks() - start


def configuration_for(connections, burst=32, capacity=None, records=False, mbufs=65536, time_wait=2.0, held=4096):
    """Returns a Configuration with targets enough for `connections` and room for `capacity` of them (default: as many)."""
    room = capacity or connections
    targets = [f"t{number}" for number in range(-(-room // A_TARGET))]
    rows = "".join(f'[[targets]]\nid = "{name}"\nip = "10.200.{number // 200}.{2 + number % 200}"\nport = 8080\n'
                   for number, name in enumerate(targets))
    text = f"""
    [engine]
    idle = "spin"
    burst = {burst}
    connections = {max(room, 1024)}
    mbufs = {mbufs}
    held_connections = {held}
    held_bytes = 2048
    detailed_records = {str(records).lower()}
    records = 65536
    [[ports]]
    name = "clients"
    device = "net_null0"
    addresses = ["10.0.0.1/24"]
    [[ports]]
    name = "servers"
    device = "net_null1"
    addresses = ["10.200.0.1/16"]
    [[routes]]
    network = "100.64.0.0/10"
    gateway = "10.0.0.2"
    [timeouts]
    established = 86400
    time_wait = {time_wait}
    """ + rows + f"""
    [[services]]
    name = "service"
    listen = "10.0.0.1:80"
    targets = {json.dumps(targets)}
    """
    return configuration.parse(text, "perf/measured_engine.py")


def stage_calls():
    """Returns what `stages` in pipeline/loop.py does, in order: assignments (source), and (kernel, call, condition) each.

    A call is the source of a statement; its condition is that of the `if` that it stands in, or None.
    """
    text = compose.source({}, SELECTS, "memory")
    (stages,) = [node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef) and node.name == "stages"]
    assignments, calls = [], []

    def walk(nodes, condition):
        for node in nodes:
            if isinstance(node, ast.If):
                walk(node.body, ast.unparse(node.test))
            elif isinstance(getattr(node, "value", None), ast.Call) and node.value.func.id not in UNTIMED:
                calls.append((node.value.func.id, ast.unparse(node), condition))
            elif isinstance(node, ast.Assign):
                assignments.append(ast.unparse(node))
    walk(stages.body, None)
    return assignments, calls


class MeasuredEngine:
    """A MemoryEngine for `settings` and both ends of `clients` connections through it (`ends`, a TcpEnds).

    `mbufs` is how many each side of the memory network has, `ring` how many frames a port holds; `entry` is its loop's.
    One of several workers has its `share` (steering.Share), a `network` of its own, and other clients than the others have.
    """

    def __init__(self, settings, clients, mbufs, ring, say, network=None, share=ALONE):
        self.random = np.random.default_rng(1)
        say("compiling the loop, unless it is cached")
        self.engine = MemoryEngine(settings, mbufs=2 * mbufs, ring_size=ring, network=network, share=share)
        self.state, self.pool = self.engine.state, self.engine.pool
        self.entry = compiled_loop.entry(self.engine.run, self.state)
        whole(self.entry, self.state, 0)  # compiled here: not while the engine's clock runs
        numbers = share.worker * clients + np.arange(clients)
        self.ends = TcpEnds(self.engine, (FIRST_CLIENT + numbers // 64, 1024 + numbers % 64), SERVICE, self.random)
        self.scratch = np.empty(2 * ring, np.int64)

    def start_clock(self, state=None):
        """Lets the clock of the loop go on from where the engine's time stands."""
        (state or self.state).clock[:] = (measurement.read_clock(), self.engine.now,
                                          round((1 << 32) * 1e6 / measurement.tsc_hertz()))

    def timed(self, passes):
        """Makes that many passes of the loop; returns the ticks that they took, by which the engine's time goes on."""
        self.start_clock()
        taken = int(whole(self.entry, self.state, passes))
        # Where this process was kept from its core just before, the loop's clock was further than what it took says.
        self.engine.now = max(self.engine.now + int(taken * 1e6 / measurement.tsc_hertz()) + 1,
                              int(self.state.wheel.now[0]) * TICK_MICROSECONDS)
        return taken

    def sent(self, port):
        """Takes what a port has sent: the offsets of its mbufs (int64[n]), which are the caller's."""
        count = memory_device.dequeue(self.pool.device.sent, port, self.scratch, 0, self.scratch.size)
        return self.scratch[:count].copy()
