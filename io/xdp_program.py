"""The XDP program that net_af_xdp attaches to an interface, and in DPDK 22.11 leaves there when it closes.

With the program left behind the interface's frames go nowhere, and the device cannot be opened a second time.
"""
import contextlib
import ctypes
import os
import socket

import pyroute2
import pyroute2.netns


def silence():
    """Keeps libbpf and libxdp from writing their progress to standard error, which is all they do by default."""
    for library, function in (("libbpf.so.1", "libbpf_set_print"), ("libxdp.so.1", "libxdp_set_print")):
        with contextlib.suppress(OSError):  # Debian's driver has them, another build may do without
            getattr(ctypes.CDLL(library), function)(None)


class XdpProgram:
    """What an interface of the calling thread's network namespace has attached, from before a device is opened."""

    def __init__(self, interface):
        self._index = socket.if_nametoindex(interface)
        self._namespace = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self._was_there = self._attached()

    def _attached(self):
        with pyroute2.IPRoute() as route:
            for link in route.get_links(self._index):
                return bool(dict(link.get_attr("IFLA_XDP")["attrs"]).get("IFLA_XDP_PROG_ID"))
        return False

    def detach(self):
        """Takes the program off, unless one was there before. Does nothing if the interface has gone."""
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            pyroute2.netns.setns(self._namespace)
            with contextlib.suppress(pyroute2.NetlinkError):  # the interface went first
                if not self._was_there and self._attached():
                    with pyroute2.IPRoute() as route:
                        route.link("set", index=self._index, xdp_fd=-1)
        finally:
            pyroute2.netns.setns(before)
            os.close(before)
            os.close(self._namespace)
