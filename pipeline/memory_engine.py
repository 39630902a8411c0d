"""An engine on memory ports, stepped by its caller on a time of the caller's: for tests, replays and measurements."""
from pipeline import assemble, compose, isolation
from pipeline.io.frame_rows import take_rows
from pipeline.io.memory_port import MemoryNetwork
from pipeline.kernels.faults import earliest
from pipeline.steering import ALONE

SECOND = 1_000_000


class MemoryEngine:
    """One worker for a Configuration, its devices replaced by memory ports; `state` is what its loop works on.

    `mbufs` and `ring_size` (a power of two) are those of the MemoryNetwork, unless the caller has a `network`. `now` is the
    time in microseconds that the loop is given; it stands still unless `step` moves it. `run` is a loop composed for this
    configuration, where the caller has one; else one that can be `profiled`, if so asked. `share` (steering.Share) is the worker's,
    where others have the rest.
    """

    def __init__(self, configuration, mbufs=16384, ring_size=4096, run=None, network=None, share=ALONE, profiled=False):
        self.configuration = configuration
        self.network = network or MemoryNetwork(configuration.port_count, mbufs, ring_size)
        self.ports, self.pool, self.arena = self.network.ports, self.network.pool, self.network.arena
        self.macs = [port.mac for port in self.ports]
        self.now = SECOND
        checked = configuration.engine.isolation == "checked"
        state, selects = assemble.make_state(configuration, self.network.device, self.network.arena, self.macs, 0, 1e9,
                                             share)
        self.state, = isolation.isolated([state], checked)
        with compose.compiling():
            self.run = run or compose.compose(configuration.kernels, selects, "memory", configuration.engine.mode,
                                              configuration.payload_kernels, checked, profiled=profiled)
            compose.first_call(self.run, self.state, configuration.kernels, [*selects, *configuration.payload_kernels])

    def feed(self, number, mbufs):
        """Lets port `number` receive the frames at the offsets `mbufs`; raises RuntimeError where they do not fit."""
        fed = self.ports[number].feed_mbufs(mbufs)
        if fed != len(mbufs):
            raise RuntimeError(f"the ring of port {number} had room for {fed} of {len(mbufs)} frames")

    def take(self, number, width):
        """Takes and frees what port `number` has sent: rows of `width` octets and lengths (see io.frame_rows)."""
        return take_rows(self.ports[number], width)

    def step(self, microseconds=0):
        """Moves the time on and runs the loop until everything fed has been received and dealt with.

        That includes what faults have delayed and is due now, not what is due later.
        """
        self.now += microseconds
        burst, passes = int(self.state.burst[0]), 2
        while passes:
            self.run(self.state, max(-(-port.waiting // burst) for port in self.ports) + passes, self.now)
            passes = 2 if earliest(self.state.faults) <= self.now else 0
