"""A pool of mbufs on one virtually contiguous memzone of DPDK's."""
import numpy as np

from pipeline.kernels.headers import BUFFER, HEADROOM, MBUF, MBUF_ALIGNMENT

from .arena import Arena
from .environment import running_environment
from .shim import DpdkError, ask, ffi, lib

CACHE = 256
"""Mbufs that a registered thread keeps for itself (RTE_MEMPOOL_CACHE_MAX_SIZE is 512)."""
LONGEST_NAME = 19
"""RTE_MEMZONE_NAMESIZE is 32, and DPDK puts a prefix and a suffix to a pool's name."""


class Pool:
    """`mbufs` mbufs named `name` on NUMA node `socket` (-1: any); `arena` is their memory, `address` DPDK's handle.

    Without a physical NIC objects may cross pages: nothing translates their addresses, the pool takes 40 % less
    memory on 4 KiB pages, and net_af_xdp in 22.11 takes the pool's memory for a plain array.
    Raises DpdkError when DPDK has not got the memory.
    """

    def __init__(self, name="mbufs", mbufs=8192, socket=-1):
        self._environment = environment = running_environment()
        if not name.isidentifier() or len(name) > LONGEST_NAME:
            raise DpdkError(f"pool {name!r}: a name of letters, digits and _ is expected, {LONGEST_NAME} at most")
        if isinstance(mbufs, bool) or not isinstance(mbufs, int) or mbufs < 64:
            raise DpdkError(f"pool {name!r}: mbufs = {mbufs!r}, a whole number of 64 or more is expected")
        dense = not environment.pci
        cache = min(CACHE, mbufs // 8)
        self.address = ask(
            f"pool {name!r} of {mbufs} mbufs", lib.shim_pool_create, name.encode(), mbufs, HEADROOM + BUFFER, cache,
            socket, dense, hint=f"it takes {mbufs * 2368 >> 20} MiB at least, and memory is {environment.memory} MiB")
        self.name, self.socket = name, socket
        self.mbufs = mbufs
        described = ffi.new("struct shim_pool *")
        lib.shim_pool_describe(self.address, described)
        memory = ffi.buffer(ffi.cast("uint8_t *", described.base), described.length)
        self.arena = Arena(np.frombuffer(memory, np.uint8), described.base)
        self._check_layout()
        environment.pools.append(self)

    def _check_layout(self):
        """Looks at one mbuf: the kernels rely on its alignment, its place in the arena and its headroom."""
        mbuf = self.allocate(1)
        record = self.arena.native.mbuf[mbuf[0]]
        sound = (mbuf[0] % MBUF_ALIGNMENT == 0 and record.data_off == HEADROOM
                 and record.buffer_length == HEADROOM + BUFFER
                 and record.buffer_address == self.arena.base + mbuf[0] + MBUF.itemsize)
        self.release(mbuf)
        if not sound:
            lib.shim_pool_free(self.address)
            raise DpdkError(f"pool {self.name!r}: DPDK lays mbufs out otherwise than kernels/headers.py says")

    def of_worker(self, worker):
        """Returns the pool that a worker allocates from: this one, as for every other (see node_pools)."""
        return self

    @property
    def available(self):
        """How many mbufs are in the pool, those in caches of threads included."""
        return lib.shim_pool_available(self.address)

    def allocate(self, count):
        """Returns the offsets of `count` fresh mbufs (int64[count]); raises MemoryError when there are too few."""
        mbufs = np.empty(count, np.int64)
        if count and lib.shim_allocate(self.address, mbufs.ctypes.data, count) == 0:
            raise MemoryError(f"pool {self.name!r} has {self.available} free mbufs, {count} are needed")
        mbufs -= self.arena.base
        return mbufs

    def release(self, mbufs):
        """Frees the frames that start with the mbufs at the offsets `mbufs` (int64[n]), all segments."""
        addresses = np.ascontiguousarray(mbufs, np.int64) + self.arena.base
        lib.shim_release(addresses.ctypes.data, len(addresses))

    def close(self):
        """Gives the memory back; ports that use the pool are closed first. Does nothing the second time."""
        if self.address:
            lib.shim_pool_free(self.address)
            self.address = 0
            self._environment.pools.remove(self)
