"""The shape of a configuration: one frozen model a table, with ProxyEngine's words where it has them."""
import ipaddress
import os
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from pipeline import slots
from pipeline.configuration import content_rules, values
from pipeline.configuration.traffic import Traffic
from pipeline.configuration.values import REFUSE, PortRange, choice, rate, seconds, switch, whole
from pipeline.stats_socket import default_path

SLOTS = tuple(slot for slot in slots.SLOTS if slot not in slots.OF_SERVICES)
"""Slots that `[kernels]` can fill; the select kernel is chosen by each service."""
HEADER_ROOM = 128
"""Bytes that are kept before the held ones for a PROXY header that is sent (kernels/proxy_header.py)."""
BALANCING = ("round_robin", "at_random", "weighted_round_robin", "least_connections", "source_hash", "maglev", "two_choices")
"""Our select kernels that look at no payload."""
RULE_SELECTS = tuple(content_rules.CONTENTS)
"""Our select kernels that work on a service's `rules`."""
PAYLOAD_SELECTS = (*RULE_SELECTS, "number_modulo")
"""Our select kernels that need the client's first payload, and so delayed binding."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def available_cores():
    """Returns the sorted numbers of the cores that this process may use."""
    return sorted(os.sched_getaffinity(0))


class Engine(_Section):
    """`[engine]`: what there is once a process."""

    name: values.Name = "proxy"
    mode: Literal["proxy", "forward", "generator"] = choice("proxy", "proxy", "forward", "generator")
    cores: tuple[values.Core, ...] = Field(default_factory=lambda: (available_cores()[-1],),
                                           description="a list of core numbers, such as [1]")
    main_core: values.Core = Field(default_factory=lambda: available_cores()[0])
    oversubscribe: bool = switch(False)
    steering: Literal["auto", "rss", "software"] = choice("auto", "auto", "rss", "software")
    flow_steering: Literal["auto", "port", "address", "rss", "software"] = choice("auto", "auto", "port", "address", "rss",
                                                                                 "software")
    dst_port_mask: int = whole(0, 0, 0xFFFF, " (bits of a source port that tell workers apart; 0: as few as will do)")
    rss_key: values.RssKey | None = None
    isolation: Literal["off", "checked"] = choice("off", "off", "checked")
    mbufs: int = whole(16384, 512, 1 << 22)
    connections: int = whole(65536, 1, 1 << 24)
    burst: int = whole(32, 1, 256)
    idle: Literal["backoff", "spin"] = choice("backoff", "backoff", "spin")
    idle_sleep_us: int = whole(500, 1, 10_000)
    drain_timeout: float = seconds(5.0, 0, 3600)
    detailed_records: bool = switch(True)
    records: int = whole(65536, 1, 1 << 24)
    stats_socket: values.SocketPath | None = None
    huge_pages: Literal["auto", "always", "never"] = choice("auto", "auto", "always", "never")
    network_namespace: values.Name | None = None
    opening_connections: int = whole(0, 0, 1 << 24, " (0: an eighth of connections, and 4096 at least)")
    held_connections: int = whole(4096, 1, 1 << 20)
    held_bytes: int = whole(16384, 64, 65472, ", a multiple of 64")
    waiting_segments: int = whole(4096, 0, 1 << 20)
    waiting_per_connection: int = whole(256, 0, 4096)
    edits: int = whole(4096, 1, 1 << 20)
    first_copies: int = whole(32768, 16, 1 << 24)
    reset_rate: int = whole(1000, 0, 10_000_000)
    syn_cookies: values.SynCookies = "off"
    ack_storm: int = whole(32, 2, 250, " (duplicate acknowledgements of a connection in turn, a second)")

    @property
    def waiting_places(self):
        """How many segments may wait for what they follow (int): never more than a quarter of the mbufs."""
        return min(self.waiting_segments, self.mbufs // 4)

    @property
    def syn_cookies_from(self):
        """Half-open connections of a worker's (int) from which on SYNs are answered with cookies; 0 always, -1 never."""
        words = {"off": -1, "always": 0}
        return words[self.syn_cookies] if self.syn_cookies in words else -(-self.syn_cookies // len(self.cores))

    @property
    def port_mask(self):
        """The bits (int) of a source port that tell workers apart: unless given, the lowest, by which any range is split evenly."""
        return self.dst_port_mask or (1 << max((len(self.cores) - 1).bit_length(), 1)) - 1

    @property
    def stats_socket_path(self):
        """Path (str) of the statistics socket: the configured one, else the default for `name`."""
        return self.stats_socket or default_path(self.name)


class PortFaults(_Section):
    """`[ports.faults]`: what the network at a port does to packets (kernels/faults.py). A reordered packet is held back
    by `reorder_delay` beyond its delay while others pass it; `delay` varies by up to `jitter` either way."""

    loss: float = rate()
    duplicate: float = rate()
    flip: float = rate()
    reorder: float = rate()
    reorder_delay: float = seconds(0.001, 0.0001, 60, " (what a reordered packet is late by)")
    delay: float = seconds(0, 0, 60)
    jitter: float = seconds(0, 0, 60)
    direction: Literal["both", "receive", "transmit"] = choice("both", "both", "receive", "transmit")
    queue: int = whole(4096, 1, 1 << 20, " (mbufs that may wait in each direction)")
    seed: int = whole(1, 0, (1 << 32) - 1)

    @property
    def keeps(self):
        """Whether packets wait here for longer than a pass of the loop."""
        return self.delay > 0 or self.reorder > 0

    def struck(self, direction):
        """Returns whether there is a fault for packets in a `direction`, "receive" or "transmit"."""
        there = self.loss or self.duplicate or self.flip or self.reorder or self.delay
        return bool(there) and self.direction in ("both", direction)

    @property
    def mbufs(self):
        """How many mbufs may wait in both directions together."""
        return self.queue * (self.struck("receive") + self.struck("transmit")) if self.keeps else 0


class ExceptionPort(_Section):
    """`[ports.exception]`: a TAP of the kernel's beside the port, for all that is not ours."""

    device: values.ExceptionDevice
    rxd: int = whole(256, 32, 1024)
    txd: int = whole(256, 32, 1024)

    @property
    def interface(self):
        """Name (str) of the kernel's interface."""
        return arguments_of(self.device)["iface"]


def arguments_of(device):
    """Returns the devargs behind a device's name as a dict of strs, such as {"iface": "px0"}."""
    return dict(part.split("=", 1) for part in device.split(",")[1:] if "=" in part)


class Port(_Section):
    """`[[ports]]`: a device that the engine has to itself, and its addresses there."""

    name: values.Name
    device: values.Device
    addresses: tuple[values.InterfaceAddress, ...] = Field(
        (), description='a list of one or more addresses such as "10.1.0.1/24"')
    mac: values.Mac | None = None
    rxd: int = whole(1024, 32, 32768)
    txd: int = whole(1024, 32, 32768)
    mtu: int = whole(1500, 576, 2026, " (a frame has to fit in one mbuf)")
    checksum: bool = switch(True)
    faults: PortFaults | None = Field(None, description="a table [ports.faults]")
    exception: ExceptionPort | None = Field(None, description="a table [ports.exception]")

    @property
    def driver(self):
        """Driver (str) of a virtual device, such as `net_af_packet`; `pcap` for a recording, `ring` for an end of a cable,
        `pci` for a NIC."""
        if self.device.startswith(("pcap:", "ring:")):
            return self.device.partition(":")[0]
        head = self.device.partition(",")[0]
        return "pci" if ":" in head else head.rstrip("0123456789")

    @property
    def arguments(self):
        """The devargs behind the device's name as a dict of strs, such as {"iface": "px0"}."""
        if self.driver in ("pcap", "ring"):
            return {}
        return arguments_of(self.device)

    @property
    def interface(self):
        """Name (str) of the Linux interface that a virtual device opens or makes, or None."""
        return self.arguments.get("iface")


class Route(_Section):
    """`[[routes]]`: a network behind a gateway."""

    network: values.Network
    gateway: values.Address


class Timeouts(_Section):
    """`[timeouts]`: how long a connection may stay in a state without a packet, in seconds."""

    syn_received: float = seconds(10)
    first_data: float = seconds(30)
    connecting: float = seconds(10)
    established: float = seconds(86400)
    half_closed: float = seconds(3600)
    fin_wait: float = seconds(60)
    time_wait: float = seconds(2)


class ServiceTimeouts(_Section):
    """`[services.timeouts]`: what is other than in `[timeouts]` for the connections of a service."""

    syn_received: float | None = seconds(None)
    first_data: float | None = seconds(None)
    connecting: float | None = seconds(None)
    established: float | None = seconds(None)
    half_closed: float | None = seconds(None)
    fin_wait: float | None = seconds(None)
    time_wait: float | None = seconds(None)


class Limits(_Section):
    """`[services.limits]`: how many connections there may be, and how many new ones a second; what is not named has no limit."""

    connections: int | None = whole(None, 1, 1 << 24)
    connections_per_second: int | None = whole(None, 1, 10_000_000)
    burst: int = whole(1, 1, 1 << 20, " (new connections that may come at once)")
    connections_per_source: int | None = whole(None, 1, 1 << 24)
    connections_per_second_per_source: int | None = whole(None, 1, 10_000_000)
    burst_per_source: int = whole(1, 1, 1 << 20, " (new connections that may come at once)")
    source_prefix: int = whole(32, 1, 32, " (bits of a source's address that count)")

    @property
    def by_source(self):
        """Whether sources are told apart."""
        return self.connections_per_source is not None or self.connections_per_second_per_source is not None

    @property
    def limited(self):
        """Whether there is any limit."""
        return self.by_source or self.connections is not None or self.connections_per_second is not None


class Health(_Section):
    """`[health]`: what is learned of targets from the connections to them: so many failures in a row make one down.

    `release` is what becomes of the connections of a target that is put into maintenance.
    """

    fall: int = whole(0, 0, 1000, " (failures in a row; 0: never)")
    retry: float = seconds(5.0, 0.01, 86400, " (until one connection is let try a target that is down)")
    release: Literal["keep", "reset"] = choice("keep", "keep", "reset")


class Check(_Section):
    """`[targets.check]`: how a target is asked whether it is well."""

    kind: Literal["connect", "send", "http"] = choice(..., "connect", "send", "http")
    send: str = Field("", description="what is sent, text")
    expect: str = Field("", description="what the answer has to contain, text")
    path: values.Path = "/"
    status: int = whole(200, 100, 599)
    interval: float = seconds(2.0, 0.05, 3600)
    timeout: float = seconds(1.0, 0.05, 60)
    rise: int = whole(2, 1, 100, " (answers in a row)")
    fall: int = whole(3, 1, 100, " (failures in a row)")

    def question(self, address, port):
        """Returns what a target at `address` and `port` is sent (bytes)."""
        if self.kind == "http":
            return f"GET {self.path} HTTP/1.0\r\nHost: {address}:{port}\r\nConnection: close\r\n\r\n".encode()
        return self.send.encode()

    def is_answer(self, answer):
        """Says whether `answer` (bytes) is what a target says that is well."""
        if self.kind == "http":
            line = answer.split(b"\r\n")[0].split(b" ")
            return len(line) > 1 and line[0].startswith(b"HTTP/") and line[1] == str(self.status).encode()
        return self.expect.encode() in answer


class Target(_Section):
    """`[[targets]]`: a server; `mac` or `linux_if` (whose MAC is taken) instead of ARP."""

    id: values.TargetId
    ip: values.Address
    port: int = whole(..., 1, 65535)
    mac: values.Mac | None = None
    linux_if: values.LinuxInterface | None = None
    weight: int = whole(1, 0, 1000, " (0: no new connections)")
    max_connections: int | None = whole(None, 1, 1 << 24)
    max_connections_per_second: int | None = whole(None, 1, 10_000_000)
    burst: int = whole(1, 1, 1 << 20, " (new connections that may come at once)")
    check: Check | None = Field(None, description="a table [targets.check]")


class Group(_Section):
    """`[[services.groups]]`: targets among which a balancing kernel chooses where a rule, or the default, names the group."""

    name: values.Name
    targets: tuple[values.TargetId, ...] = Field(min_length=1, description="a list of one or more ids of [[targets]]")
    weights: tuple[values.Weight, ...] = Field((), description="a list of weights from 0 to 1000, one for each of targets")
    balance: Literal[BALANCING] = choice("round_robin", *BALANCING)


class Rule(_Section):
    """A line of a service's `rules`: payloads that match go to a target, or to one of a group."""

    match: values.Match
    target: values.TargetId | None = None
    group: values.Name | None = None
    exact: bool = switch(False)
    mask: values.Mask | None = None
    offset: int = whole(0, 0, 65471, " (bytes of the payload before the match)")


class PayloadRule(_Section):
    """`[[services.payload_rules]]`: a payload kernel of one direction and what it is to do. Rules of a direction are asked in turn."""

    direction: Literal["to_target", "to_client"] = choice(..., "to_target", "to_client")
    kernel: values.Payload
    search: values.Octets | None = Field(None, description=values.OCTETS_IS)
    replace: values.Replacement | None = Field(None, description=values.REPLACEMENT_IS)
    first: int = whole(0, 0, 1 << 40, " (bytes of the stream in which is searched; 0: all)")
    header: values.Header | None = Field(None, description=values.HEADER_IS)
    rate: int | None = whole(None, 1, 1 << 36, " (bytes a second)")
    burst: int | None = whole(None, 1, 1 << 30, " (bytes)")
    refuse_anonymous: bool | None = switch(None)

    @property
    def octets(self):
        """What the kernel looks for, and what it puts there (bytes)."""
        if self.header is not None:
            return b"", self.header.encode() + b"\r\n"
        return (self.search or "").encode(), (self.replace or "").encode()


class Listed(_Section):
    """Who may open connections, by the longest prefix that matches the source; without `allow`, all that are not denied."""

    allow: tuple[values.Sources, ...] = Field((), description='a list of networks such as "10.0.0.0/8", or "file:NAME"')
    deny: tuple[values.Sources, ...] = Field((), description='a list of networks such as "10.0.0.0/8", or "file:NAME"')

    @property
    def allowed(self):
        """All networks that `allow` means, as a tuple of IPv4Network."""
        return tuple(network for entry in self.allow for network in entry)

    @property
    def denied_sources(self):
        """All networks that `deny` means, as a tuple of IPv4Network."""
        return tuple(network for entry in self.deny for network in entry)


class Access(Listed):
    """`[access]`: who may open connections to any service, and what becomes of the SYNs of all others."""

    denied: Literal["drop", "reset"] = choice("drop", "drop", "reset")


class Service(Listed):
    """`[[services]]`: an endpoint that clients connect to, and the targets behind it."""

    name: values.Name
    listen: values.ListenPlace
    binding: Literal["delayed", "immediate", "simple"] = choice("delayed", "delayed", "immediate", "simple")
    select: values.Select = "round_robin"
    payload_to_target: values.Payload | None = None
    payload_to_client: values.Payload | None = None
    payload_rules: tuple[PayloadRule, ...] = Field((), description="[[services.payload_rules]] tables")
    targets: tuple[values.TargetId, ...] = Field((), description="a list of one or more ids of [[targets]]")
    groups: tuple[Group, ...] = Field((), description="[[services.groups]] tables")
    attempts: int = whole(3, 1, 3)
    default: values.Name = REFUSE
    stray: Literal["reset", "drop"] = choice("reset", "reset", "drop")
    proxy_protocol: Literal["off", "v1", "v2"] = choice("off", "off", "v1", "v2")
    toa: bool = switch(False)
    accept_proxy_protocol: tuple[values.Network, ...] = Field((), description='a list of networks such as "10.0.0.0/8"')
    rules: tuple[Rule, ...] = Field((), description='a list of rules such as {match = "/a", target = "a"}')
    source_addresses: tuple[values.Address, ...] = Field((), description='a list of addresses such as "10.2.0.1"')
    source_ports: values.SourcePorts = PortRange(1024, 65535)
    timeouts: ServiceTimeouts = Field(default_factory=ServiceTimeouts, description="a table [services.timeouts]")
    limits: Limits = Field(default_factory=Limits, description="a table [services.limits]")

    @property
    def own_timeouts(self):
        """The time-outs (dict of state -> seconds) that this service has of its own."""
        return {state: span for state, span in self.timeouts if span is not None}

    @property
    def default_target(self):
        """Id (str) of the target for a payload that matches nothing, or None where that is refused or a group's."""
        return None if self.default == REFUSE or self.default_group else self.default

    @property
    def default_group(self):
        """The Group for a payload that matches nothing, or None."""
        return next((group for group in self.groups if group.name == self.default), None)

    @property
    def members(self):
        """The ids (tuple of str) of all its targets: its own, then those of its groups, each once."""
        return tuple(dict.fromkeys([*self.targets, *(identifier for group in self.groups for identifier in group.targets)]))

    @property
    def payloads(self):
        """The names of the payload kernels (tuples of str) for what clients send and for what targets send."""
        return tuple(tuple(name for name, _ in chain) for chain in self.payload_chains)

    @property
    def payload_chains(self):
        """The payload kernels for what clients send and for what targets send: tuples of (name, PayloadRule or None), in turn."""
        alone = (("to_target", self.payload_to_target), ("to_client", self.payload_to_client))
        return tuple((((name, None),) if name else ()) + tuple((rule.kernel, rule) for rule in self.payload_rules
                                                                if rule.direction == direction) for direction, name in alone)

    @property
    def ordered_rules(self):
        """The rules in the order in which the select kernel tries them: the most specific first, but where theirs counts."""
        return content_rules.ordered(self.select, self.rules)


class Host(_Section):
    """A host of the bed: a network namespace with one interface on the network of an engine's port."""

    name: values.HostName
    role: Literal["client", "server"] = choice(..., "client", "server")
    port: values.Name
    address: values.InterfaceAddress
    gateway: values.Address | None = None
    web: bool = switch(False)
    web_port: int = whole(8080, 1, 65535)


class Bed(_Section):
    """`[bed]`: hosts in network namespaces of our own around the engine, so that a configuration runs as it is."""

    device: Literal["af_packet", "tap", "af_xdp"] = choice(..., "af_packet", "tap", "af_xdp")
    hosts: tuple[Host, ...] = Field(min_length=1, description="one or more [[bed.hosts]] tables")


class NextHop(NamedTuple):
    """Where packets to an address leave: `port` (index), `address` to resolve, our `source` address there."""

    port: int
    address: ipaddress.IPv4Address
    source: ipaddress.IPv4Address


class Configuration(_Section):
    """A whole configuration. Made by `load` or `parse`, which also check that its parts fit together."""

    engine: Engine = Field(default_factory=Engine, description="a table [engine]")
    kernels: dict[str, values.Kernel] = Field(default_factory=dict, description="a table [kernels]")
    ports: tuple[Port, ...] = Field(min_length=1, description="one or more [[ports]] tables")
    routes: tuple[Route, ...] = Field((), description="[[routes]] tables")
    timeouts: Timeouts = Field(default_factory=Timeouts, description="a table [timeouts]")
    health: Health = Field(default_factory=Health, description="a table [health]")
    targets: tuple[Target, ...] = Field((), description="one or more [[targets]] tables")
    services: tuple[Service, ...] = Field((), description="one or more [[services]] tables")
    access: Access | None = Field(None, description="a table [access]")
    generator: Traffic | None = Field(None, description="a table [generator]")
    bed: Bed | None = Field(None, description="a table [bed]")

    @property
    def played_targets(self):
        """The targets (tuple of Target) that this engine is itself, as a generator."""
        if self.generator is None or self.generator.servers is None:
            return ()
        named = self.generator.servers.targets
        return tuple(target for target in self.targets if not named or target.id in named)

    @property
    def client_addresses(self):
        """The addresses (tuple of IPv4Address) that this engine's clients have, as a generator."""
        if self.generator is None or self.generator.clients is None:
            return ()
        ranges = self.generator.clients.source_addresses
        named = [ipaddress.IPv4Address(number) for first, last in ranges for number in range(first, last + 1)]
        hop = self.next_hop(self.generator.clients.connect.address)
        return tuple(named) or ((hop.source,) if hop else ())

    @property
    def exception_ports(self):
        """The exception ports, as a tuple of (number of the port beside it, ExceptionPort). They come behind the ports."""
        return tuple((number, port.exception) for number, port in enumerate(self.ports) if port.exception)

    @property
    def port_names(self):
        """The names of all ports a worker has (tuple of str), in the order of their numbers: exception ports are named after those
        beside them."""
        names = [port.name for port in self.ports]
        return (*names, *(f"{names[number]}-exception" for number, _ in self.exception_ports))

    @property
    def port_count(self):
        """How many ports a worker has (int), exception ports among them."""
        return len(self.ports) + len(self.exception_ports)

    @property
    def transmit_descriptors(self):
        """How many mbufs all send queues may keep (int)."""
        return sum(port.txd for port in (*self.ports, *(exception for _, exception in self.exception_ports)))

    @property
    def payload_kernels(self):
        """The names of all payload kernels (tuple of str), in the order of their numbers, which is the alphabet's."""
        return tuple(sorted({name for service in self.services for names in service.payloads for name in names}))

    @property
    def opening_records(self):
        """How many connections may be opening at once (int); all, where payload kernels see them as long as they live."""
        engine = self.engine
        usual = engine.connections if self.payload_kernels else max(engine.connections // 8, 4096)
        return min(engine.opening_connections or usual, engine.connections)

    @property
    def held_stride(self):
        """Bytes (int) that there are for the held bytes of a connection: payload kernels may make four of each."""
        header = HEADER_ROOM if any(service.proxy_protocol != "off" for service in self.services) else 0
        return self.engine.held_bytes * (4 if self.payload_kernels else 1) + header

    def target(self, identifier):
        """Returns the Target with that id; raises KeyError where there is none."""
        return {target.id: target for target in self.targets}[identifier]

    def on_link(self, address):
        """Returns (port index, IPv4Interface of ours) of the longest on-link network with `address`, or None."""
        found = [(interface.network.prefixlen, -index, interface) for index, port in enumerate(self.ports)
                 for interface in port.addresses if address in interface.network]
        if not found:
            return None
        longest = max(prefix for prefix, _, _ in found)
        return next((-index, interface) for prefix, index, interface in found if prefix == longest)

    def next_hop(self, address):
        """Returns the NextHop toward `address` (IPv4Address), longest prefix first, or None where none leads there."""
        direct = self.on_link(address)
        routes = [route for route in self.routes if address in route.network]
        route = max(routes, key=lambda route: route.network.prefixlen, default=None)
        if direct and (route is None or direct[1].network.prefixlen >= route.network.prefixlen):
            return NextHop(direct[0], address, direct[1].ip)
        if route is None:
            return None
        port, interface = self.on_link(route.gateway)
        return NextHop(port, route.gateway, interface.ip)

    def source_addresses(self, service, target):
        """Returns the addresses (tuple of IPv4Address) from which `service` connects to `target` (Target)."""
        return service.source_addresses or (self.next_hop(target.ip).source,)

    def sources(self):
        """Yields (Service, Target, IPv4Address) for each address from which a service connects to a target of its own."""
        named = {target.id: target for target in self.targets}
        for service in self.services:
            for target in map(named.get, service.members):
                for address in self.source_addresses(service, target):
                    yield service, target, address

    def left_out_ports(self, service, address):
        """Returns the sorted ports of `service.source_ports` on which some service listens at `address`."""
        low, high = service.source_ports
        heard = [other.listen.ports for other in self.services if address in other.listen.network]
        return sorted({port for ports in heard for port in range(max(ports.start, low), min(ports.stop, high + 1))})

    @property
    def prefixes(self):
        """The networks (sorted tuple of IPv4Network) of more than one address on which services listen."""
        return tuple(sorted({service.listen.network for service in self.services if service.listen.length < 32}))

    def interface_addresses(self, port):
        """Returns the addresses (tuple of IPv4Interface) that the kernel's interface gets beside the port with that index.

        The port's own with their networks; those that the engine would have answered ARP for besides, alone.
        """
        own = self.ports[port].addresses
        known = {interface.ip for interface in own}
        return own + tuple(ipaddress.IPv4Interface(address) for address in self.answered_addresses(port) if address not in known)

    def answered_addresses(self, port):
        """Returns the addresses that the engine answers ARP for on the port with that index, its own first.

        Beside its own there are listening and source addresses, and those of a generator's ends, in the port's networks.
        `prefixes` on which services listen are not among them, however small.
        """
        own = [interface.ip for interface in self.ports[port].addresses]
        virtual = [service.listen.address for service in self.services if service.listen.length == 32]
        virtual += [address for service in self.services for address in service.source_addresses]
        virtual += [target.ip for target in self.played_targets] + list(self.client_addresses)
        near = [address for address in virtual if (link := self.on_link(address)) and link[0] == port]
        elsewhere = {interface.ip for other in self.ports for interface in other.addresses}
        return tuple(dict.fromkeys(own + [address for address in near if address not in elsewhere]))
