"""Packet memory: one run of octets in which every mbuf lies, and the overlays through which it is read."""
import functools

from pipeline.kernels.headers import overlays


class Arena:
    """Packet memory at the address `base` (int), seen as `octets` (uint8[n]); nothing is ever copied.

    An mbuf's handle is its byte offset from `base`. `native` has the overlays in the machine's byte order, for
    kernels, `wire` the same in network order, for Python (`pipeline.kernels.headers.Packets`).
    """

    def __init__(self, octets, base):
        self.octets = octets
        self.base = base

    @functools.cached_property
    def native(self):
        """The overlays in the machine's byte order."""
        return overlays(self.octets, native=True)

    @functools.cached_property
    def wire(self):
        """The overlays in network byte order."""
        return overlays(self.octets, native=False)
