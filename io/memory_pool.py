"""Mbufs without DPDK: the same layout as rte_pktmbuf_pool_create gives them, in memory of numpy's."""
import numpy as np

from pipeline.kernels import memory_device
from pipeline.kernels.headers import BUFFER, HEADROOM, MBUF, MBUF_ALIGNMENT

from .arena import Arena

ELEMENT = MBUF.itemsize + HEADROOM + BUFFER
"""Octets from one mbuf to the next; a multiple of MBUF_ALIGNMENT."""
PAGE = 4096


def make_arena(mbufs):
    """Returns an Arena of `mbufs` fresh mbufs, ELEMENT apart from offset 0, initialised as rte_pktmbuf_init does."""
    if ELEMENT % MBUF_ALIGNMENT:
        raise ValueError(f"an mbuf of {ELEMENT} octets would not keep the next one aligned to {MBUF_ALIGNMENT}")
    memory = np.zeros(mbufs * ELEMENT + PAGE, np.uint8)
    start = -memory.ctypes.data % PAGE
    octets = memory[start:start + mbufs * ELEMENT]
    arena = Arena(octets, octets.ctypes.data)
    records = arena.native.mbuf[::ELEMENT]
    records["buffer_address"] = arena.base + np.arange(mbufs, dtype=np.uint64) * ELEMENT + MBUF.itemsize
    records["buffer_length"] = HEADROOM + BUFFER
    records["data_off"] = HEADROOM
    records["refcnt"] = records["segments"] = 1
    records["port"] = memory_device.NO_PORT
    return arena


def make_rings(count, size):
    """Returns `count` empty rings of `size` places, a power of two (`memory_device.Rings`)."""
    counters = (count, memory_device.COUNTER_STRIDE)
    return memory_device.Rings(np.zeros((count, size), np.int64), np.zeros(counters, np.int64),
                               np.zeros(counters, np.int64))


def filling(rings, ring=0):
    """Returns how many values lie in a ring."""
    return int(rings.written[ring, 0] - rings.read[ring, 0])


class MemoryPool:
    """`mbufs` mbufs in numpy memory, half of them at home with the worker, half with the thread that feeds it.

    `device` is the worker's side (`memory_device.Device`), `feeding` the other: `allocate` and `release` here are
    the feeder's. `ports` and `ring_size` (a power of two) size the rings that both share.
    """

    def __init__(self, mbufs=8192, ports=1, ring_size=1024):
        if mbufs < 2:
            raise ValueError(f"mbufs = {mbufs}: a memory pool needs at least 2, one for each side")
        if ring_size < 2 or ring_size & (ring_size - 1):
            raise ValueError(f"ring_size = {ring_size}: a ring's size is a power of two, 1024 for instance")
        self.mbufs = mbufs
        self.arena = make_arena(mbufs)
        received, sent = make_rings(ports, ring_size), make_rings(ports, ring_size)
        to_worker, to_feeder = (make_rings(1, 1 << mbufs.bit_length()) for _ in range(2))
        half = mbufs - mbufs // 2
        self.device = self._side(0, half, received, sent, to_worker, to_feeder)
        self.feeding = self._side(half, mbufs, received, sent, to_feeder, to_worker)

    def _side(self, first, end, received, sent, returned, foreign):
        """Returns the Device of the side that mbufs number `first` to `end - 1` belong to."""
        free = np.arange(end - 1, first - 1, -1, dtype=np.int64) * ELEMENT
        return memory_device.Device(
            base=np.array([self.arena.base], np.int64), home=np.array([first * ELEMENT, end * ELEMENT], np.int64),
            mbuf=self.arena.native.mbuf, received=received, sent=sent, returned=returned, foreign=foreign,
            free=free, free_count=np.array([free.size], np.int64))

    @property
    def available(self):
        """How many mbufs are free, on either side or on the way home; exact while the worker stands still."""
        return sum(int(side.free_count[0]) + filling(side.returned) for side in (self.device, self.feeding))

    def allocate(self, count):
        """Returns the offsets of `count` fresh mbufs (int64[count]); raises MemoryError when there are too few."""
        mbufs = np.empty(count, np.int64)
        if count and memory_device.allocate(self.feeding, mbufs, count) == 0:
            raise MemoryError(f"the memory pool has {int(self.feeding.free_count[0])} free mbufs on the feeding side "
                              f"and {count} are needed; it was made with mbufs = {self.mbufs}, half for each side")
        return mbufs

    def release(self, mbufs):
        """Frees the frames that start with the mbufs at the offsets `mbufs` (int64[n]), all segments."""
        mbufs = np.ascontiguousarray(mbufs, np.int64)
        memory_device.release(self.feeding, mbufs, len(mbufs))
