"""One kernel at a time on a recorded burst, in Python: what it makes of the columns. See README, "From Python"."""
import inspect

import numpy as np

from pipeline import assemble
from pipeline.errors import ConfigurationError
from pipeline.io.frames import frame_bytes, write_frames
from pipeline.io.memory_port import MemoryNetwork
from pipeline.kernels.batch import BURST, Batch

MBUFS = 4 * BURST


class Workbench:
    """The state of a worker for a Configuration, fresh, on which kernels are called by hand.

    `put` a burst on it, `run` kernels, one after the other, look at `columns` and `frames`. `macs` are those of the ports (ints),
    as in a recording's description: frames to other ones are not ours.
    """

    def __init__(self, configuration, macs=()):
        network = MemoryNetwork(configuration.port_count, MBUFS)
        for port, mac in zip(network.ports, macs, strict=False):
            port.mac = mac if mac is not None else port.mac
        self.configuration, self.pool, self.arena = configuration, network.pool, network.arena
        self.state, _ = assemble.make_state(configuration, network.device, network.arena, [port.mac for port in network.ports], 0, 1e9)
        self.count, self.port, self.now = 0, 0, 0

    def put(self, burst):
        """Puts a burst (recording.BurstView) into mbufs; one that was there is taken away. Returns this workbench."""
        if burst.count > BURST:
            raise ConfigurationError(f"a burst of {burst.count} packets: it must have at most {BURST}")
        self.pool.release(self.state.batch.mbuf[:self.count].copy())
        mbufs = write_frames(self.pool, [burst.block.whole_frame(number) for number in range(burst.first, burst.first + burst.count)])
        names = [port.name for port in self.configuration.ports]
        self.count, self.port, self.now = len(mbufs), names.index(burst.port), burst.time
        self.state.batch.mbuf[:self.count] = mbufs
        return self

    def arguments(self):
        """Returns what kernels may ask for (dict), by the names of their parameters (see pipeline/slots.py)."""
        state = self.state
        return {**state._asdict(), **state.connections._asdict(), **state.selection._asdict(), "base": int(state.base[0]),
                "count": self.count, "port": self.port, "now": self.now, "connections": state.connections, "targets": state.targets,
                "records": state.records, "wheel": state.wheel, "counters": state.counters}

    def run(self, kernel):
        """Runs a kernel on the burst, its parameters by their names; returns what it returns."""
        known = self.arguments()
        names = list(inspect.signature(getattr(kernel, "py_func", kernel)).parameters)
        missing = [name for name in names if name not in known]
        if missing:
            raise ConfigurationError(f"the kernel {kernel.__name__} asks for {', '.join(missing)}, which a workbench does not have")
        return kernel(*(known[name] for name in names))

    @property
    def columns(self):
        """The columns of the burst's rows: a Batch of copies, int64[count] each."""
        return Batch(*(np.array(column[:self.count]) for column in self.state.batch))

    @property
    def frames(self):
        """The burst's frames as they are now (list of bytes)."""
        return [frame_bytes(self.arena, int(mbuf)) for mbuf in self.state.batch.mbuf[:self.count]]
