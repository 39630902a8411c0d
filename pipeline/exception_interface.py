"""The kernel's end of an exception port: what the interface needs so that the kernel is at home on the engine's port.

Whatever the operator has set up already, on an interface that outlives the engine, stays as it is.
"""
import contextlib
import pathlib
import socket
import time

from pyroute2.netlink.exceptions import NetlinkError

from pipeline.checksum_offload import without_checksum_offload
from pipeline.errors import ConfigurationError, RunError

SETTINGS = pathlib.Path("/proc/sys/net/ipv4/conf")
APPEARS_WITHIN = 5.0
"""Seconds that a driver may take until its interface is there."""


def index_of(netlink, interface):
    """Returns the index of an interface (int), waiting for it; raises RunError where it does not appear."""
    deadline = time.monotonic() + APPEARS_WITHIN
    while not (found := netlink.link_lookup(ifname=interface)):
        if time.monotonic() > deadline:
            raise RunError(f"the exception port's interface {interface!r} has not appeared in the engine's network namespace; "
                           "its device must make one (net_tap, or net_virtio_user on /dev/vhost-net)")
        time.sleep(0.01)
    return found[0]


def check_local_ports(configuration):
    """Raises ConfigurationError where the kernel takes its own source ports from those of a service, on the same address.

    To be called in the network namespace of the engine (ip(7), ip_local_port_range).
    """
    lowest, highest = map(int, pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    kernels = {interface.ip for number, _ in configuration.exception_ports
               for interface in configuration.interface_addresses(number)}
    for number, service in enumerate(configuration.services):
        low, high = service.source_ports
        for target in map(configuration.target, service.members):
            shared = kernels & set(configuration.source_addresses(service, target))
            if shared and low <= highest and lowest <= high:
                raise ConfigurationError(
                    f"services[{number}].source_ports = [{low}, {high}] on {min(shared)}, which the kernel has as well by the "
                    f"exception port, overlaps the ports that it takes for connections of its own, {lowest} to {highest}; the two "
                    f"must be apart, such as {apart(lowest, highest)} here, or sysctl net.ipv4.ip_local_port_range must be another")


def apart(lowest, highest):
    """Returns the larger range of ports beside the kernel's, as TOML."""
    return f"[1024, {lowest - 1}]" if lowest - 1024 > 65535 - highest else f"[{highest + 1}, 65535]"


def settle(netlink, interface, mac, mtu, addresses, routes):
    """Gives an exception port's interface the MAC address (int) and MTU of the port beside it; returns its index.

    It gets `addresses` (IPv4Interface) unless it has an IPv4 address, and `routes` (network, gateway) that lead nowhere
    yet. Its new MAC address is announced once it is up (arp_notify). Raises RunError.
    """
    try:
        index = index_of(netlink, interface)
        without_checksum_offload(interface)
        if not netlink.get_addr(family=socket.AF_INET, index=index):
            for address in addresses:
                netlink.addr("add", index=index, address=str(address.ip), prefixlen=address.network.prefixlen)
        write_setting(interface, "arp_notify", 1)
        netlink.link("set", index=index, address=mac.to_bytes(6, "big").hex(":"), mtu=mtu)
        netlink.link("set", index=index, state="up")
        for network, gateway in routes:
            if not leads_somewhere(netlink, network):
                netlink.route("add", dst=str(network), gateway=str(gateway), oif=index)
    except (NetlinkError, OSError) as error:
        raise RunError(f"the exception port's interface {interface!r} cannot be set up: {error}") from error
    return index


def leads_somewhere(netlink, network):
    """Says whether the kernel has a route of its own to a network (IPv4Network)."""
    for route in netlink.get_routes(family=socket.AF_INET, table=254):
        if (route.get("dst") or "0.0.0.0", route["dst_len"]) == (str(network.network_address), network.prefixlen):
            return True
    return False


@contextlib.contextmanager
def deaf(interface):
    """Within this, the kernel drops what it receives by itself on an interface that af_packet reads: it gets it from us.

    Without, it would answer everything a second time, and TCP for our services with a RST: its addresses are its own on
    every interface. Packets come from hosts that it reaches by the exception port, so the strict reverse-path filter
    (RFC 3704, section 2.2) takes them all; af_packet sees them before. Raises RunError where the filter cannot be strict.
    """
    if read_setting("all", "rp_filter") > 1:
        raise RunError("net.ipv4.conf.all.rp_filter = 2 keeps the reverse-path filter loose on all interfaces; with an exception "
                       f"port it must be 0 or 1, so that the kernel does not answer on {interface} as well")
    wanted = {SETTINGS / interface / "rp_filter": "1", SETTINGS / interface / "arp_ignore": "8",
              pathlib.Path("/proc/sys/net/ipv6/conf") / interface / "disable_ipv6": "1"}
    with contextlib.ExitStack() as around:
        for path, value in wanted.items():
            if path.exists():
                around.enter_context(changed(path, value))
        yield


@contextlib.contextmanager
def changed(path, value):
    """Within this, a setting of the kernel's has another value. The open file is that of the network namespace it was opened in."""
    with open(path, "r+", buffering=1) as file:
        before = file.read()
        file.seek(0)
        file.write(value + "\n")
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # the interface has gone, and its settings with it
                file.seek(0)
                file.write(before)


def read_setting(interface, name):
    """Returns one of the kernel's IPv4 settings of an interface (int)."""
    return int((SETTINGS / interface / name).read_text())


def write_setting(interface, name, value):
    """Writes one of the kernel's IPv4 settings of an interface."""
    (SETTINGS / interface / name).write_text(str(value))
