"""Ports without DPDK: frames are fed to workers' rings and taken from them, by tests, replays and measurements."""
import numpy as np

from pipeline.kernels import memory_device

from .burst import Burst
from .frames import frame_bytes, write_frames
from .memory_pool import MemoryPool, filling


class MemoryNetwork:
    """`ports` memory ports over one pool of `mbufs` mbufs; `device` is what the kernels of the one worker get.

    One worker and one other thread may use it at the same time. `ring_size` (a power of two) is how many frames
    a port holds in each direction. With several workers it is a `nic_model.NicModel`.
    """

    def __init__(self, ports=1, mbufs=8192, ring_size=1024):
        self.pool = MemoryPool(mbufs, ports, ring_size)
        self.arena, self.devices, self.device = self.pool.arena, self.pool.devices, self.pool.device
        self.ports = [MemoryPort(self.pool, number) for number in range(ports)]


class MemoryPort:
    """One port of a memory network: `feed` is the wire's end, `rx` and `tx` what a worker does in Python."""

    def __init__(self, pool, number, mac=0x020000000001):
        self.pool = pool
        self.number = number
        self.mac = mac + number
        self._scratch = np.empty(len(pool.devices) * pool.device.received.slots.shape[1], np.int64)

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
        return sum(filling(device.received, self.number) for device in self.pool.devices)

    def _emptied(self, side):
        """Takes all that lies in the port's rings `side` ("received" or "sent"), worker after worker; offsets of mbufs."""
        count = 0
        for device in self.pool.devices:
            count += memory_device.dequeue(getattr(device, side), self.number, self._scratch, count, self._scratch.size - count)
        return self._scratch[:count].copy()

    def taken_mbufs(self):
        """Takes what workers have sent, in order: offsets of mbufs (int64[n]), which are the caller's."""
        return self._emptied("sent")

    def taken(self):
        """Takes what workers have sent, in order: a list of frames (bytes); their mbufs are freed."""
        mbufs = self.taken_mbufs()
        frames = [frame_bytes(self.pool.arena, int(mbuf)) for mbuf in mbufs]
        self.pool.release(mbufs)
        return frames

    def rx(self, limit=32, queue=0):
        """Receives at most `limit` frames, as the worker of that queue would: a Burst."""
        mbufs = np.empty(limit, np.int64)
        count = memory_device.receive(self.pool.devices[queue], self.number, mbufs, limit)
        return Burst(mbufs[:count], self.pool)

    def tx(self, burst, queue=0):
        """Sends a Burst, as a worker would; returns how many frames had room, the rest stays the caller's."""
        return memory_device.transmit(self.pool.devices[queue], self.number, burst.mbufs, 0, len(burst))

    def close(self):
        """Frees whatever still lies in the port's rings."""
        for side in ("received", "sent"):
            self.pool.release(self._emptied(side))
