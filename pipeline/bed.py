"""The bed: hosts with real kernel TCP stacks in network namespaces of our own, joined to the engine's ports.

    host "client"                 the engine's namespace                          host "server-a"
    eth0 ═══ veth ═══ bridge ═══ (veth or TAP) ═ the engine ═ (veth or TAP) ═══ bridge ═══ veth ═══ eth0

Each port of the engine has a bridge, and each host a veth pair into the bridge of its port. Ports of hosts are
isolated from each other (bridge(8)), so that also in a bed of one port everything has to go through the engine.
Only namespaces that the bed has made are touched, never the machine's own interfaces.
"""
import atexit
import contextlib
import ipaddress
import os
import pathlib
import shutil
import subprocess
import time

import pyroute2
from pyroute2.netlink.exceptions import NetlinkError

from pipeline import bed_register, network_namespace, web_server
from pipeline.checksum_offload import without_checksum_offload
from pipeline.errors import RunError
from pipeline.network_namespace import enter, entered

__all__ = ["Bed", "BedError", "enter", "entered"]

READY_WITHIN = 10.0
"""Seconds that an interface of the engine or a web server may take to appear."""


class BedError(RunError):
    """The bed cannot be made as configured; the message names the part at fault."""


class Bed:
    """Hosts round an engine. In this order: `prepare`, (the engine opens its ports), `attach`, `serve`, `remove`.

    `configuration` has `device` ("af_packet", "af_xdp" or "tap") and `hosts`, each with `name`, `port` (the name of
    an engine's port), `address` ("10.1.0.2/24"), `gateway` (or None), `web` and `web_port`. `namespace` is the
    engine's; a host's is called NAMESPACE-HOST. `ports` have `name` and `interface` (what `iface=` in their devargs
    names). `say(text)` hears of each step. `queues`: how many the interfaces that the engine opens receive on and send on,
    as many as it has workers; the kernel spreads what comes out of a bridge over them by the senders' hash.
    """

    def __init__(self, configuration, namespace, ports, say=print, queues=1):
        self.configuration = configuration
        self.namespace = namespace
        self.interfaces = {port.name: port.interface for port in ports}
        self.bridges = {port.name: f"bridge{index}" for index, port in enumerate(ports)}
        self.say = say
        self._queues = queues
        self._entry = None
        self._processes: dict[str, subprocess.Popen] = {}
        self._started: list[subprocess.Popen] = []

    def prepare(self):
        """Make the namespaces, the bridges and the hosts, and what af_packet or af_xdp opens.

        Raises BedError, or WebServerError where a host wants a web server and none is installed.
        """
        if os.geteuid() != 0:
            raise BedError("a bed of network namespaces can only be made by root")
        if any(host.web for host in self.configuration.hosts):
            web_server.program()
        bed_register.clear_leftovers(self.say)
        try:
            self._entry = bed_register.Entry(self.namespace)
        except (bed_register.BedTaken, OSError) as error:
            raise BedError(str(error)) from error
        atexit.register(self.remove)
        try:
            self._create_namespaces()
            with self._netlink(self.namespace) as netlink:
                for port, interface in self.interfaces.items():
                    _add_bridge(netlink, self.bridges[port])
                    if self.configuration.device != "tap":
                        _add_engine_pair(netlink, interface, self.bridges[port], self._queues)
            for host in self.configuration.hosts:
                self._add_host(host)
        except (NetlinkError, network_namespace.NamespaceError, OSError) as error:
            self.remove()
            raise BedError(f"the bed {self.namespace!r} could not be made: {error}") from error
        except BaseException:
            self.remove()
            raise
        self.say(f"bed {self.namespace}: " + ", ".join(
            f"{host.name} {host.address} on {host.port}" for host in self.configuration.hosts))

    def attach(self):
        """Join the TAPs that the engine has opened to their bridges. Raises BedError if one does not appear."""
        if self.configuration.device != "tap":
            return
        with self._netlink(self.namespace) as netlink:
            for port, interface in self.interfaces.items():
                _join_tap(netlink, interface, self.bridges[port])

    def serve(self):
        """Start the web server of every host that has one, and wait until each answers. Raises BedError.

        Call it from a thread that lives as long as the bed: the kernel ends the servers when that thread ends.
        """
        hosts = [host for host in self.configuration.hosts if host.web]
        if not hosts:
            return
        if self._entry.folder is None:
            self._entry.folder = bed_register.temporary_folder()
            self._entry.write()
        try:
            for host in hosts:
                arguments = web_server.prepare(self._web_folder(host.name), host.name, address_of(host), host.web_port)
                self._processes[host.name] = self.run_in(host.name, arguments, stdin=subprocess.DEVNULL,
                                                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            for host in hosts:
                self._wait_for_web_server(host)
        except web_server.WebServerError as error:
            raise BedError(str(error)) from error
        self.say("web servers: " + ", ".join(f"{host.name} {address_of(host)}:{host.web_port}" for host in hosts))

    def files_of(self, host: str) -> pathlib.Path:
        """The folder whose files the host's web server answers as /files/NAME; there once `serve` has run."""
        return self._web_folder(host) / "files"

    def run_in(self, host: str, arguments, **options) -> subprocess.Popen:
        """Start a program in a host's namespace (or, by its name, in the engine's). Options are Popen's.

        The kernel ends the program when the calling thread ends, and `remove` ends it at the latest. It is in a
        session of its own, so that Ctrl-C at a terminal reaches it through us, in the order of our own clearing up.
        """
        command = ["nsenter", f"--net={network_namespace.path(self.namespace_of(host))}",
                   "setpriv", "--pdeathsig", "TERM", "--", *map(str, arguments)]
        self._started = [process for process in self._started if process.poll() is None]
        process = subprocess.Popen(command, **{"start_new_session": True, **options})
        self._started.append(process)
        return process

    def inside(self, host: str):
        """A context in which the calling thread is in the host's namespace: sockets made there are the host's."""
        return entered(self.namespace_of(host))

    def namespace_of(self, host: str) -> str:
        """The name, as `ip netns` has it, of a host's namespace."""
        if host == self.namespace:
            return host
        if host not in {each.name for each in self.configuration.hosts}:
            raise BedError(f"the bed {self.namespace!r} has no host {host!r}")
        return f"{self.namespace}-{host}"

    def remove(self):
        """End the programs and delete the namespaces. Safe at any time, after a failure half way, and twice."""
        entry, self._entry = self._entry, None
        if entry is None or entry.owner != os.getpid():
            return
        _end(self._started)
        for namespace in entry.namespaces:
            network_namespace.delete(namespace)
        if entry.folder:
            shutil.rmtree(entry.folder, ignore_errors=True)
        entry.close()
        atexit.unregister(self.remove)

    def _create_namespaces(self):
        names = [self.namespace, *(self.namespace_of(host.name) for host in self.configuration.hosts)]
        for name in names:
            if network_namespace.exists(name):
                raise BedError(f"network namespace {name!r} exists already and is not a bed's: delete it "
                               f"(ip netns delete {name}) or choose another engine.network_namespace")
        self._entry.namespaces = names
        self._entry.write()
        for name in names:
            network_namespace.create(name)
            _settle(name)
        for name in names[1:]:  # hosts: as many connections from an address as there can be
            _write_settings(name, {"ipv4/ip_local_port_range": "1024 65535"})
        # Beside an exception port the kernel has the engine's addresses: it shall not answer for them on the bridges.
        _write_settings(self.namespace, {"ipv4/conf/all/rp_filter": "1"})

    def _add_host(self, host):
        namespace = self.namespace_of(host.name)
        inner_end = f"to-{host.name}"
        with self._netlink(self.namespace) as netlink, open(network_namespace.path(namespace), "rb") as there:
            netlink.link("add", ifname=inner_end, kind="veth", peer={"ifname": "eth0", "net_ns_fd": there.fileno()})
            _join(netlink, inner_end, self.bridges[host.port])
            netlink.brport("set", index=_index(netlink, inner_end), isolated=1)
        with self._netlink(namespace) as netlink:
            without_checksum_offload("eth0")
            interface = ipaddress.ip_interface(str(host.address))
            index = _index(netlink, "eth0")
            netlink.addr("add", index=index, address=str(interface.ip), prefixlen=interface.network.prefixlen)
            netlink.link("set", index=index, state="up")
            if host.gateway:
                netlink.route("add", dst="default", gateway=str(host.gateway))

    def _web_folder(self, host):
        if self._entry is None or self._entry.folder is None:
            raise BedError("the bed serves nothing yet")
        return pathlib.Path(self._entry.folder) / host

    def _wait_for_web_server(self, host):
        process, folder = self._processes[host.name], self._web_folder(host.name)
        deadline = time.monotonic() + READY_WITHIN
        while not web_server.is_listening(folder):
            if process.poll() is not None or time.monotonic() > deadline:
                raise BedError(f"the web server of host {host.name!r} did not start: {web_server.complaint(folder)}")
            time.sleep(0.02)

    @contextlib.contextmanager
    def _netlink(self, namespace):
        """A netlink socket of that namespace, the calling thread being in it meanwhile."""
        with entered(namespace), pyroute2.IPRoute() as netlink:
            yield netlink


def address_of(host) -> str:
    """A host's address without its prefix length."""
    return str(ipaddress.ip_interface(str(host.address)).ip)


def _settle(namespace):
    """No IPv6 (its chatter only fills captures), no packet filter on bridges, loopback up."""
    _write_settings(namespace, {"ipv6/conf/all/disable_ipv6": "1", "ipv6/conf/default/disable_ipv6": "1",
                                "bridge/bridge-nf-call-iptables": "0"})
    with entered(namespace), pyroute2.IPRoute() as netlink:
        netlink.link("set", index=_index(netlink, "lo"), state="up")


def _write_settings(namespace, settings):
    """Write the kernel's settings of a namespace, as far as it has them."""
    with entered(namespace):
        for setting, value in settings.items():
            file = pathlib.Path("/proc/sys/net") / setting
            if file.exists():
                file.write_text(value)


def _add_bridge(netlink, bridge):
    netlink.link("add", ifname=bridge, kind="bridge", br_stp_state=0, br_forward_delay=0, br_mcast_snooping=0)
    netlink.link("set", index=_index(netlink, bridge), state="up")


def _add_engine_pair(netlink, interface, bridge, queues):
    """A veth pair: DPDK opens the one end by its name, the other end is in the bridge.

    A host's interface has one queue alone: what its second one sent would come out of the bridge on the first. A veth leaves
    queue 1 noted as it was sent, and skb_tx_hash reads that as received on queue 0 (Linux 6.18).
    """
    other_end, each = f"behind-{bridge}", {"num_tx_queues": queues, "num_rx_queues": queues}
    netlink.link("add", ifname=interface, kind="veth", **each, peer={"ifname": other_end, **each})
    for end in (interface, other_end):
        without_checksum_offload(end)
    netlink.link("set", index=_index(netlink, interface), state="up")
    _join(netlink, other_end, bridge)


def _join_tap(netlink, interface, bridge):
    """Put a TAP into its bridge.

    Its kernel end gets another MAC address than DPDK's end has: what is addressed to a bridge port's own address
    a bridge keeps for itself instead of sending it out of the port.
    """
    deadline = time.monotonic() + READY_WITHIN
    while not netlink.link_lookup(ifname=interface):
        if time.monotonic() > deadline:
            raise BedError(f"the engine's TAP {interface!r} has not appeared in the engine's namespace")
        time.sleep(0.02)
    address = bytes([0x02]) + os.urandom(5)
    netlink.link("set", index=_index(netlink, interface), address=address.hex(":"))
    _join(netlink, interface, bridge)


def _join(netlink, interface, bridge):
    netlink.link("set", index=_index(netlink, interface), master=_index(netlink, bridge), state="up")


def _index(netlink, interface):
    found = netlink.link_lookup(ifname=interface)
    if not found:
        raise BedError(f"there is no interface {interface!r} in the bed")
    return found[0]


def _end(processes):
    """Ask the processes to end, wait a little, end them."""
    for process in processes:
        if process.poll() is None:
            process.terminate()
    deadline = time.monotonic() + 3
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    processes.clear()
