"""The rings on which workers hand packets over to each other: one for each worker that gives, worker that takes, and port."""
import numpy as np

from .environment import running_environment
from .shim import DpdkError, ask, lib

LONGEST_NAME = 20
"""RTE_RING_NAMESIZE is 29, and a ring's number follows."""


class HandOverRings:
    """Rings between `workers` workers for each of `ports` ports; each holds `size` - 1 mbufs of `pool` (a power of two).

    `addresses` int64[workers * workers * ports]: the address of the rte_ring from one worker to another of a port, as
    number (from * workers + to) * ports + port; 0 where from is to. `name`: one that no other rings of this process have.
    Raises DpdkError when DPDK has not got the memory; no ring is left then.
    https://doc.dpdk.org/guides-22.11/prog_guide/ring_lib.html
    """

    def __init__(self, workers, ports, size, pool, name="hand_over"):
        if size < 2 or size & (size - 1):
            raise DpdkError(f"rings {name!r}: size = {size}, a power of two is expected")
        if not name.isidentifier() or len(name) > LONGEST_NAME:
            raise DpdkError(f"rings {name!r}: a name of letters, digits and _ is expected, {LONGEST_NAME} at most")
        self._environment, self._pool = running_environment(), pool
        self.addresses = np.zeros(workers * workers * ports, np.int64)
        try:
            for number in range(len(self.addresses)):
                giver, taker = divmod(number // ports, workers)
                if giver != taker:
                    self.addresses[number] = ask(f"ring {name}_{number} from worker {giver} to worker {taker}",
                                                 lib.shim_ring_create, f"{name}_{number}".encode(), size, pool.socket)
        except DpdkError:
            self.close()
            raise

    def close(self):
        """Frees the rings and what lies in them; workers must have stopped. Does nothing the second time."""
        mbufs = np.empty(1024, np.int64)
        for ring in self.addresses[self.addresses != 0].tolist() if self._environment.running else ():
            while self._pool.address and (count := lib.shim_take_over(ring, mbufs.ctypes.data, len(mbufs))) > 0:
                lib.shim_release(mbufs.ctypes.data, count)
            lib.shim_ring_free(ring)
        self.addresses[:] = 0
