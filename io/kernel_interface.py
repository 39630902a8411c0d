"""The interface of the kernel's that net_af_packet or net_af_xdp opens, looked at in the calling thread's network namespace."""
import contextlib
import os
import socket

from pyroute2.ethtool.ioctl import EthtoolError, IoctlEthtool

from .devargs import argument, driver_of, first_queue
from .shim import DpdkError

NEEDS_INTERFACE = ("net_af_packet", "net_af_xdp")
NEEDS_ROOT = ("net_af_packet", "net_af_xdp", "net_tap")


def receive_queues(interface):
    """Returns how many queues an interface receives on now, or None where its driver does not tell (ethtool -l)."""
    with contextlib.suppress(EthtoolError, OSError), contextlib.closing(IoctlEthtool(interface)) as ethtool:
        channels = ethtool.get_channels()
        return channels.rx_count + channels.combined_count
    return None


def check_interface(name, device, queues):
    """Returns the interface that the devargs `device` of port `name` open, None of a driver that opens none.

    Raises DpdkError when it is missing, when it needs root, or when net_af_xdp wants more queues than it has.
    """
    driver = driver_of(device)
    if driver not in NEEDS_INTERFACE:
        return None
    interface = argument(device, "iface")
    if interface is None:
        raise DpdkError(f"port {name!r}: device = {device!r} lacks iface=, the interface to open")
    try:
        socket.if_nametoindex(interface)
    except OSError as error:
        raise DpdkError(f"port {name!r}: there is no interface {interface!r} in this network namespace") from error
    if driver == "net_af_xdp":
        if os.geteuid():
            raise DpdkError(f"port {name!r} ({device}) cannot be opened: it needs root")
        wanted, there = first_queue(device) + queues, receive_queues(interface)
        if there is not None and wanted > there:
            raise DpdkError(f"port {name!r} ({device}): queues = {queues}, interface {interface!r} receives on {there}; "
                            f"ethtool -L {interface} rx {wanted} tx {wanted} gives it more, or combined {wanted} on a NIC")
    return interface
