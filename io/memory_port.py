"""Ports without DPDK: frames are fed to a worker's rings and taken from them, by tests, replays and measurements."""
import numpy as np

from pipeline.kernels import memory_device

from .burst import Burst
from .frames import frame_bytes, write_frames
from .memory_pool import MemoryPool, filling


class MemoryNetwork:
    """`ports` memory ports over one pool of `mbufs` mbufs; `device` is what the kernels of the one worker get.

    One worker and one other thread may use it at the same time. `ring_size` (a power of two) is how many frames
    a port holds in each direction.
    """

    def __init__(self, ports=1, mbufs=8192, ring_size=1024):
        self.pool = MemoryPool(mbufs, ports, ring_size)
        self.arena = self.pool.arena
        self.device = self.pool.device
        self.ports = [MemoryPort(self.pool, number) for number in range(ports)]


class MemoryPort:
    """One port of a memory network: `feed` is the wire's end, `rx` and `tx` what a worker does in Python."""

    def __init__(self, pool, number, mac=0x020000000001):
        self.pool = pool
        self.number = number
        self.mac = mac + number
        self._scratch = np.empty(pool.device.received.slots.shape[1], np.int64)

    def feed(self, frames, segment_length=None):
        """Lets the worker receive `frames` (bytes each), in order; returns how many found room in the ring.

        `segment_length` cuts each frame into chained mbufs of that many octets (default: as few as possible).
        Raises MemoryError when the pool runs short, with nothing fed.
        """
        rings = self.pool.device.received
        room = rings.slots.shape[1] - filling(rings, self.number)
        mbufs = write_frames(self.pool, frames[:room], segment_length)
        return self.feed_mbufs(mbufs)

    def feed_mbufs(self, mbufs):
        """Lets the worker receive the frames whose first mbufs are at `mbufs` (int64[n]); returns how many had room."""
        self.pool.arena.native.mbuf["port"][mbufs] = self.number
        return memory_device.enqueue(self.pool.device.received, self.number, mbufs, 0, len(mbufs))

    @property
    def waiting(self):
        """How many frames were fed and not yet received."""
        return filling(self.pool.device.received, self.number)

    def taken(self):
        """Takes what the worker has sent, in order: a list of frames (bytes); their mbufs are freed."""
        count = memory_device.dequeue(self.pool.device.sent, self.number, self._scratch, 0, self._scratch.size)
        frames = [frame_bytes(self.pool.arena, int(mbuf)) for mbuf in self._scratch[:count]]
        self.pool.release(self._scratch[:count])
        return frames

    def rx(self, limit=32):
        """Receives at most `limit` frames, as a worker would: a Burst."""
        mbufs = np.empty(limit, np.int64)
        count = memory_device.receive(self.pool.device, self.number, mbufs, limit)
        return Burst(mbufs[:count], self.pool)

    def tx(self, burst):
        """Sends a Burst, as a worker would; returns how many frames had room, the rest stays the caller's."""
        return memory_device.transmit(self.pool.device, self.number, burst.mbufs, 0, len(burst))

    def close(self):
        """Frees whatever still lies in the port's rings."""
        for rings in (self.pool.device.received, self.pool.device.sent):
            count = memory_device.dequeue(rings, self.number, self._scratch, 0, self._scratch.size)
            self.pool.release(self._scratch[:count])
