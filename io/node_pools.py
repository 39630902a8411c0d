"""Mbufs of several NUMA nodes: a pool on each, all in one arena, so that an mbuf of any goes through every worker."""
import contextlib

import numpy as np

from .arena import Arena
from .dpdk_pool import Pool
from .shim import ffi


def spanning(arenas):
    """Returns an Arena from where the first of `arenas` begins to where the last ends.

    Between them lies address space that is not theirs, and perhaps nobody's: nothing may touch it but by an mbuf's offset.
    """
    base = min(arena.base for arena in arenas)
    end = max(arena.base + len(arena.octets) for arena in arenas)
    memory = ffi.buffer(ffi.cast("uint8_t *", base), end - base)
    return Arena(np.frombuffer(memory, np.uint8), base)


class NodePools:
    """`mbufs` mbufs on the NUMA nodes of `nodes` (int a worker, -1: any), on each as many as it has workers.

    Takes a Pool's place for ports, rings and devices: `arena` is that of all, `mbufs` and `available` are sums; who is no
    worker allocates from the first. Raises DpdkError when DPDK has not got the memory; no pool is left then.
    """

    def __init__(self, name, mbufs, nodes):
        made = {}
        with contextlib.ExitStack() as around:
            for node in sorted(set(nodes)):
                own = name if len(set(nodes)) == 1 else f"{name}_{'any' if node < 0 else node}"
                made[node] = around.enter_context(contextlib.closing(
                    Pool(own, mbufs * nodes.count(node) // len(nodes), socket=node)))
            self._around = around.pop_all()
        self._each, self._by_worker = list(made.values()), [made[node] for node in nodes]
        if len(self._each) > 1:
            arena = spanning([pool.arena for pool in self._each])
            for pool in self._each:
                pool.arena = arena
        first = self._by_worker[0]
        self.arena, self.socket, self.allocate, self.release = first.arena, first.socket, first.allocate, first.release
        self.mbufs = sum(pool.mbufs for pool in self._each)

    def of_worker(self, worker):
        """Returns the Pool on the node of the worker with that number; beyond those in `nodes`, of these in turn."""
        return self._by_worker[worker % len(self._by_worker)]

    @property
    def address(self):
        """DPDK's handle of the first worker's pool, 0 once closed."""
        return self._by_worker[0].address

    @property
    def available(self):
        """How many mbufs are in the pools, those in caches of threads included."""
        return sum(pool.available for pool in self._each)

    def close(self):
        """Gives the memory back; ports that use the pools are closed first. Does nothing the second time."""
        self._around.close()
