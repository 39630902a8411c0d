"""Two DPDK ports joined by a pair of rings (net_ring): what one sends, the other receives, by reference.

The fastest way to put a worker between two others, and a way to feed one from Python, with no kernel in it.
"""
from .dpdk_port import Port
from .environment import running_environment
from .shim import DpdkError, ask, lib


class RingPort(Port):
    """One end of a Cable; `rings` are the addresses of the rings it receives from and sends to."""

    def __init__(self, name, pool, rings, **options):
        self._rings = rings
        super().__init__(f"net_ring_{name}", name, pool, **options)

    def _open(self):
        receiving, sending = self._rings
        self.numbers.append(ask(f"port {self.name!r} cannot be made of two rings", lib.shim_ring_port, self.name.encode(),
                                receiving, sending, max(0, self.pool.socket)))

    def close(self):
        """Frees what waits to be received and removes the port."""
        while self._started:
            burst = self.rx()
            if not len(burst):
                break
            burst.release()
        super().close()


class Cable:
    """Two ports, `ports[0]` and `ports[1]`, on one pool; each ring holds `size` - 1 frames (a power of two)."""

    def __init__(self, name, pool, size=1024):
        if size < 2 or size & (size - 1):
            raise DpdkError(f"cable {name!r}: size = {size}, a power of two is expected")
        self._environment = running_environment()
        self._rings, self.ports = [], []
        try:
            for direction in ("there", "back"):
                self._rings.append(ask(f"ring {name}_{direction}", lib.shim_ring_create, f"{name}_{direction}".encode(),
                                       size, pool.socket))
            there, back = self._rings
            self.ports.append(RingPort(f"{name}_left", pool, (back, there)))
            self.ports.append(RingPort(f"{name}_right", pool, (there, back)))
        except DpdkError:
            self.close()
            raise

    def close(self):
        """Closes both ports, frees the frames between them and the rings."""
        for port in self.ports:
            port.close()
        for ring in self._rings if self._environment.running else ():
            lib.shim_ring_free(ring)
        self._rings, self.ports = [], []
