"""Mbufs without DPDK: the same layout as rte_pktmbuf_pool_create gives them, in memory of numpy's."""
import numpy as np

from pipeline.kernels import memory_device
from pipeline.kernels.headers import BUFFER, HEADROOM, MBUF, MBUF_ALIGNMENT
from pipeline.kernels.memory import on_lines

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
    """Returns `count` empty rings of `size` places, a power of two (`memory_device.Rings`), on cache lines of their own."""
    counters = (count, memory_device.COUNTER_STRIDE)
    return memory_device.Rings(*(on_lines(np.zeros(shape, np.int64)) for shape in ((count, size), counters, counters)))


def filling(rings, ring=0):
    """Returns how many values lie in a ring."""
    return int(rings.written[ring, 0] - rings.read[ring, 0])


class MemoryPool:
    """`mbufs` mbufs in numpy memory, at home in equal shares with each of `workers` workers and the thread that feeds them.

    `devices` are the workers' sides (`memory_device.Device`), `device` the first of them, `feeding` the other side:
    `allocate` and `release` here are the feeder's. `ports` and `ring_size` (a power of two) size the rings that each worker
    shares with the feeder, and those by which workers hand packets over to each other.
    """

    def __init__(self, mbufs=8192, ports=1, ring_size=1024, workers=1):
        if workers < 1:
            raise ValueError(f"workers = {workers}: a memory pool needs at least one")
        self.sides = workers + 1
        if mbufs < self.sides:
            raise ValueError(f"mbufs = {mbufs}: a memory pool needs at least {self.sides}, one for each side")
        if ring_size < 2 or ring_size & (ring_size - 1):
            raise ValueError(f"ring_size = {ring_size}: a ring's size is a power of two, 1024 for instance")
        self.mbufs = mbufs
        self.arena = make_arena(mbufs)
        bounds = [-(-mbufs * side // self.sides) for side in range(self.sides + 1)]
        shared = {"base": np.array([self.arena.base], np.int64), "mbuf": self.arena.native.mbuf,
                  "handed": make_rings(workers ** 2 * ports, ring_size), "ends": np.array(bounds[1:], np.int64) * ELEMENT,
                  "homeward": make_rings(self.sides ** 2, 1 << (-(-mbufs // self.sides)).bit_length())}
        own = [(make_rings(ports, ring_size), make_rings(ports, ring_size)) for _ in range(workers)]
        self.feeding, *self.devices = (self._side(number, *bounds[number:number + 2], *rings, shared)
                                       for number, rings in enumerate((own[0], *own)))
        self.device = self.devices[0]

    def _side(self, number, first, end, received, sent, shared):
        """Returns the Device of the side that mbufs number `first` to `end - 1` belong to.

        Around the count of its free ones, which it writes all the time, nothing lies that another side needs.
        """
        free = on_lines(np.arange(end - 1, first - 1, -1, dtype=np.int64) * ELEMENT)
        free_count = np.zeros(3 * memory_device.COUNTER_STRIDE, np.int64)[memory_device.COUNTER_STRIDE:][:1]
        free_count[0] = free.size
        foreign = memory_device.Rings(*(part[number * self.sides:][:self.sides] for part in shared["homeward"]))
        return memory_device.Device(home=on_lines(np.array([first, end], np.int64) * ELEMENT), received=received, sent=sent,
                                    side=on_lines(np.array([number], np.int64)), foreign=foreign, free=free,
                                    free_count=free_count, **shared)

    @property
    def available(self):
        """How many mbufs are free, on any side or on the way home; exact while the workers stand still."""
        coming = sum(filling(self.device.homeward, ring) for ring in range(self.sides ** 2))
        return coming + sum(int(side.free_count[0]) for side in (*self.devices, self.feeding))

    def allocate(self, count):
        """Returns the offsets of `count` fresh mbufs (int64[count]); raises MemoryError when there are too few."""
        mbufs = np.empty(count, np.int64)
        if count and memory_device.allocate(self.feeding, mbufs, count) == 0:
            raise MemoryError(f"the memory pool has {int(self.feeding.free_count[0])} free mbufs on the feeding side and {count} "
                              f"are needed; it was made with mbufs = {self.mbufs}, shared alike by {self.sides} sides")
        return mbufs

    def release(self, mbufs):
        """Frees the frames that start with the mbufs at the offsets `mbufs` (int64[n]), all segments."""
        mbufs = np.ascontiguousarray(mbufs, np.int64)
        memory_device.release(self.feeding, mbufs, len(mbufs))
