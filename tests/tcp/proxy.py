"""Workers' loops on virtual time, and the ends that talk through them: clients on port 0, targets on port 1.

There is one worker, unless `PIPELINE_TEST_WORKERS` says otherwise: "2:port", "2:address", "2:rss" or "2:software" puts two
behind a model of a NIC, which steers by these means (issue 4). What a test sees of them is the sum. So that every test can
expect the same, all connections are then the second worker's, whose share of everything is what a test asks for: its packets
still have to come to it. How connections spread is what `test_workers` is about.

Numbers in tests are relative, as Wireshark shows them: an end's SYN has number 0, its first byte number 1. Whatever
an engine sends must be taken by `expect`; what is left over fails the test.
"""
import collections
import contextlib
import datetime
import ipaddress
import os

import numpy as np
import pytest
from scapy.layers.l2 import Ether

from memory_loop import own, started
from pipeline import assemble, configuration, snapshot
from pipeline.io.memory_pool import filling
from pipeline.io.memory_port import MemoryNetwork
from pipeline.io.nic_model import NicModel
from pipeline.kernels import connection, counters, memory_device, neighbours
from pipeline.kernels.arp import ANNOUNCEMENTS
from pipeline.kernels.faults import earliest
from pipeline.kernels.hand_over import AT_HAND, BY_ADDRESS, BY_HASH, BY_PORT, by_hash
from pipeline.kernels.initial_number import half_siphash
from pipeline.kernels.toeplitz import KEY, make_tables, toeplitz
from pipeline.state import DRAIN, STOP
from pipeline.steering import Share, steering_rules
from tcp.conservation import conserved, free_sources, open_connections
from tcp.segments import MASK, build, mac_of, read

SERVICE = "10.1.0.1"
SOURCE = "10.2.0.1"
TARGETS = {"a": ("10.2.0.11", 8080), "b": ("10.2.0.12", 8080), "c": ("10.2.0.13", 8080), "few": ("10.2.0.14", 8080)}
TURNS, PATH, STRICT, NUMBER, FIRST, FEW = 7000, 80, 81, 7001, 22, 7002
"""Ports of the services: targets a, b, c in turn; by path, anything else to c; by path or refused, strays dropped; by
number; a or b bound at the SYN; the target `few`, toward which there are but three source ports."""
WORKERS, STEERED = os.environ.get("PIPELINE_TEST_WORKERS", "1:software").split(":")
WORKERS = int(WORKERS)
ALIKE = WORKERS > 1
"""Whether one of the workers is to have all connections."""
STEERINGS = {"port": (AT_HAND, BY_PORT), "address": (AT_HAND, BY_ADDRESS), "rss": (AT_HAND, BY_HASH), "software": (BY_HASH, BY_PORT)}
"""How packets find their worker, by `flow_steering`; clients' by RSS, but with "software"."""
OTHER_KEY = bytes(range(40))
"""The NIC's key where steering is by software: it brings half of all packets to the wrong worker."""
one_worker = pytest.mark.skipif(ALIKE, reason="of several workers: what comes by two queues has no order, each has source ports and an "
                                              "address of its own, and the engine says when a drain is over")
SHARED = ("connections", "opening_connections", "held_connections", "edits", "first_copies", "records", "reset_rate",
          "waiting_segments")
"""What each worker gets a share of."""
SOURCES = [SOURCE, "10.2.0.2"]
"""The addresses that connect to targets where workers are told apart by them."""
SECOND = 1_000_000
MACS = ("02:00:00:00:00:01", "02:00:00:00:00:02", "02:00:00:00:00:03")
HELD_BYTES = 1024
TIMEOUTS = {"syn_received": 10, "first_data": 30, "connecting": 10, "established": 600, "half_closed": 300,
            "fin_wait": 60, "time_wait": 2}
RULES = '[{ match = "/a", target = "a" }, { match = "/b", target = "b" }]'


def _tables(name, rows):
    return "\n".join(f"[[{name}]]\n" + "\n".join(f"{key} = {value}" for key, value in row.items()) for row in rows)


SIMPLE, CALM = 7003, 7004
"""A service in mode `simple`, a or b in turn; one of a and b with the fall-back b for clients that do not say enough."""


def few_ports(steered):
    """Returns the range of source ports (TOML) of which the second of two workers gets three."""
    if steered != "rss":
        return "[20000, 20002]" if steered == "address" else "[20000, 20005]"
    key = [int(ipaddress.IPv4Address(end)) for end in (TARGETS["few"][0], SOURCE)]
    owners = [toeplitz(make_tables(), *key, TARGETS["few"][1], port) & 1 for port in range(20000, 20100)]
    last = next(place for place in range(len(owners)) if sum(owners[:place]) == 3 and not all(owners[:place]))
    return f"[20000, {20000 + last - 1}]"


def configuration_text(timeouts, engine, faults=None, services=(), workers=1, steered="software",
                       exception=False, access=None):
    """Returns the tests' configuration (TOML); the arguments are dicts of what differs from the usual, of the faults of the
    clients' port, and of further services; for so many workers, steered so; `exception`: whether there is an exception port beside that; `access`: the table of that name (dict)."""
    engine = {"held_bytes": HELD_BYTES, "held_connections": 64, "connections": 256, "burst": 64, "idle": '"spin"',
              "records": 4096, **engine}
    engine |= {key: workers * engine[key] for key in SHARED if key in engine and ALIKE}
    services = [
        *services,
        {"name": '"turns"', "listen": f'"{SERVICE}:{TURNS}"', "targets": '["a", "b", "c"]'},
        {"name": '"path"', "listen": f'"{SERVICE}:{PATH}"', "targets": '["a", "b", "c"]', "select": '"http_path"',
         "rules": RULES, "default": '"c"'},
        {"name": '"strict"', "listen": f'"{SERVICE}:{STRICT}"', "targets": '["a", "b"]',
         "select": '"http_path"', "rules": RULES, "stray": '"drop"'},
        {"name": '"number"', "listen": f'"{SERVICE}:{NUMBER}"', "targets": '["a", "b", "c"]',
         "select": '"number_modulo"'},
        {"name": '"first"', "listen": f'"{SERVICE}:{FIRST}"', "targets": '["a", "b"]', "binding": '"immediate"'},
        {"name": '"simple"', "listen": f'"{SERVICE}:{SIMPLE}"', "targets": '["a", "b"]', "binding": '"simple"'},
        {"name": '"calm"', "listen": f'"{SERVICE}:{CALM}"', "targets": '["a", "b"]', "select": '"http_path"',
         "rules": '[{ match = "/a", target = "a" }]', "default": '"b"'},
        {"name": '"few"', "listen": f'"{SERVICE}:{FEW}"', "targets": '["few"]', "source_ports": "[20000, 20002]" if workers == 1 else few_ports(steered)},
    ]
    sources = {"source_addresses": str(SOURCES).replace("'", '"')} if steered == "address" else {}
    services = [{"source_ports": "[10000, 13999]", **sources, **service} for service in services]
    targets = [{"id": f'"{name}"', "ip": f'"{ip}"', "port": port, "mac": f'"{mac_of(ip)}"'}
               for name, (ip, port) in TARGETS.items()]
    ports = [{"name": '"clients"', "device": '"net_null0"', "addresses": f'["{SERVICE}/24"]'},
             {"name": '"servers"', "device": '"net_null1"', "addresses": f'["{SOURCE}/24"]'}]
    if exception:
        ports[0]["exception"] = '{ device = "net_tap7,iface=kx0" }'
    if faults:
        ports[0]["faults"] = "{" + ", ".join(f"{key} = {value}" for key, value in faults.items()) + "}"
    heads = [f"[{name}]\n" + "\n".join(f"{key} = {value}" for key, value in table.items())
             for name, table in (("engine", engine), ("timeouts", {**TIMEOUTS, **timeouts}), *([("access", access)] if access else []))]
    return "\n".join([*heads, _tables("ports", ports), _tables("targets", targets), _tables("services", services)])


class Proxy:
    """An engine's workers on virtual time, `now` microseconds since its start.

    `mbufs` and `ring_size` are those of its memory ports; then `timeouts` (dict), `faults` of the clients' port (dict), further
    `services` (dicts), how many `workers`, how they are `steered` (one of STEERINGS), whether the clients' port has
    an `exception` port, which is port 2, the table `access` (dict), and keys of `[engine]`.
    """

    def __init__(self, mbufs=2048, timeouts=None, ring_size=1024, faults=None, services=(), workers=WORKERS, steered=STEERED,
                 exception=False, access=None, **engine):
        self.configuration = configuration.parse(configuration_text(timeouts or {}, engine, faults, services, workers, steered,
                                                                    exception, access),
                                                 "the tests' configuration")
        if workers == 1:
            self.network = MemoryNetwork(self.configuration.port_count, mbufs, ring_size)
        else:
            key = KEY if steered != "software" else OTHER_KEY
            self.network = NicModel(self.configuration.port_count, workers, mbufs * (workers + 1) // 2, ring_size, key)
        macs = [int(mac.replace(":", ""), 16) for mac in MACS[:self.configuration.port_count]]
        self.shares = [Share(worker, workers, STEERINGS[steered], KEY, (1 << (workers - 1).bit_length()) - 1, ruled=steered == "port")
                       for worker in range(workers)]
        states = []
        for share, device in zip(self.shares, self.network.pool.devices, strict=True):
            state, selects = assemble.make_state(self.configuration, device, self.network.arena, macs, 0, 1e9, share)
            state.connections.secret[:] = 0x01234567, 0x89ABCDEF
            state.network.announced[0] = ANNOUNCEMENTS
            states.append(state)
        self.workers = own(states)
        if steered in ("port", "address") and workers > 1:
            for number in range(len(self.configuration.ports)):
                for rule in steering_rules(self.configuration, self.shares[0], number):
                    self.network.add_rule(rule)
        self._run = started(self.state, tuple(selects), self.configuration.payload_kernels)
        self.sources_at_start = [free_sources(state) for state in self.workers]
        self.now = SECOND
        self.received = collections.defaultdict(collections.deque)
        self.others = []
        self.clients = 0
        self.run()

    @property
    def state(self):
        """The state of the worker that has all connections."""
        return self.workers[-1]

    def know(self, address, port):
        """Puts a host (address as str) into the neighbour table for good, so that it need not answer ARP."""
        for state in self.workers:
            number = neighbours.add_neighbour(state.network, int(ipaddress.IPv4Address(address)), port)
            entry = state.network.neighbours[number]
            entry.mac_high, entry.mac_low = assemble.split_mac(int(mac_of(address).replace(":", ""), 16))
            entry.state = neighbours.STATIC

    def burst(self, *frames, port=0):
        """Has the worker receive these frames (bytes) by one port, at once, and deal with them."""
        assert self.network.ports[port].feed(list(frames)) == len(frames)
        self.run()

    def run(self, passes=2):
        """Runs the loop without time passing until no fed frame waits, nor a delayed one that is due; takes what it sent."""
        while True:
            for state in self.workers:
                self._run(state, passes, self.now)
            if not any(port.waiting for port in self.network.ports) and all(map(self._rests, self.workers)):
                break
        self._take()

    def _rests(self, state):
        rings = self.network.pool.device.handed
        handed = any(filling(rings, ring) for ring in range(len(rings.slots)))
        return state.connections.waiting.again_first.max() < 0 and earliest(state.faults) > self.now and not handed

    def wait(self, seconds, step=0.01):
        """Lets time pass in steps of `step` seconds."""
        end = self.now + round(seconds * SECOND)
        while self.now < end:
            self.now = min(self.now + round(step * SECOND), end)
            self.run()

    def _take(self):
        for port in self.network.ports:
            for frame in port.taken():
                if frame[12:14] != b"\x08\0" or frame[23] != 6 or port.number >= len(self.configuration.ports):
                    self.others.append((port.number, frame))
                    continue
                segment = read(frame, port.number, MACS[port.number])
                self.received[segment.destination, segment.source].append(segment)

    def client(self, service=TURNS, address="10.1.0.2", port=None, isn=1000, known=True):
        """Returns the client's End of a connection to `service`; nothing is sent yet.

        One that is not `known` has to be learnt from its SYN.
        """
        self.clients += 1
        if known:
            self.know(address, 0)
        return End(self, 0, (address, port or self._port(address, service)), (SERVICE, service), isn)

    def _port(self, address, service):
        """Returns the port of a further client: where there are several workers, one that leads to the last of them."""
        port = 40000 + self.clients
        key = [int(ipaddress.IPv4Address(end)) for end in (address, SERVICE)]
        while ALIKE and by_hash(self.state.steering, *key, port, service) != len(self.workers) - 1:
            self.clients += 1
            port = 40000 + self.clients
        return port

    def accept(self, target="a", isn=700_000, **fields):
        """Takes the SYN that must have come to `target`; returns the target's End of that connection."""
        return self.accept_any(TARGETS[target], isn, **fields)

    def accept_any(self, endpoint, isn=700_000, flags="S", **fields):
        """Takes the first SYN, with these flags, that has come to a target's (address, port); returns that End."""
        for (to, origin), segments in self.received.items():
            if to == endpoint and segments and segments[0].flags == flags:
                end = End(self, 1, to, origin, isn, segments[0].seq)
                end.syn = end.expect(flags, seq=0, **fields)
                return end
        raise AssertionError(f"no SYN has come to {endpoint}; waiting: {self.waiting()}")

    def waiting(self):
        """Returns what was sent and not yet expected (list of str)."""
        return [str(segment) for segments in self.received.values() for segment in segments] + [
            f"port {port}: {Ether(frame).summary()}" for port, frame in self.others]

    def taken_others(self, port):
        """Takes the frames (list of bytes) that were no TCP and left by one port."""
        taken = [frame for number, frame in self.others if number == port]
        self.others = [other for other in self.others if other[0] != port]
        return taken

    def silent(self):
        """Asserts that nothing was sent that has not been expected."""
        assert self.waiting() == []

    def conserved(self):
        """Asserts that nothing was lost (`tcp.conservation`)."""
        waiting = sum(int(state.connections.waiting.used[0]) for state in self.workers)
        for state, sources in zip(self.workers, self.sources_at_start, strict=True):
            conserved(state, self.network.pool, waiting, sources)

    def count(self, name):
        """Returns a drop, notice or total by its name."""
        for names, kind in ((counters.DROP_REASONS, "drops"), (counters.NOTICES, "notices"), (counters.TOTALS, "totals")):
            if name in names:
                return int(self._counted(kind)[names.index(name)])
        raise KeyError(name)

    def _counted(self, kind):
        return sum(getattr(state.counters, kind) for state in self.workers)

    def event(self, side, name):
        """Returns the counter `name` of counters.EVENTS on "client" or "target" side."""
        return int(self._counted("events")[snapshot.SIDES.index(side), counters.EVENTS.index(name)])

    def drops(self):
        """Returns all drops that are not 0 (dict)."""
        counted = zip(counters.DROP_REASONS, self._counted("drops"), strict=True)
        return {name: int(count) for name, count in counted if count}

    def states(self):
        """Returns how many connections are in each state, where there are any (dict)."""
        return {name: int(count) for name, count in zip(connection.STATES, self._counted("states"), strict=True)
                if count and name != "free"}

    def number_of(self, client):
        """Returns the number of a client's connection at its worker, or None."""
        return self._found(client)[1]

    def _found(self, client):
        for state in self.workers:
            hot = state.connections.hot
            for number in open_connections(state):
                if (int(hot["remote_address"][number, 0]), int(hot["remote_port"][number, 0])) == client.key():
                    return state, int(number)
        return None, None

    def state_of(self, client):
        """Returns the name of the state of a client's connection, "free" where it has none."""
        state, number = self._found(client)
        return "free" if state is None else connection.STATES[state.connections.hot["state"][number]]

    def records(self):
        """Returns the records finished so far and not yet fetched (list of dict)."""
        return snapshot.taken_records(self.configuration, self.workers, datetime.datetime.fromtimestamp(0, datetime.timezone.utc))

    def start_at(self, now):
        """Sets fresh workers' clocks, without their wheels turning through all the ticks up to there."""
        self.now = now
        for state in self.workers:
            state.wheel.now[0] = now // 10_000
        self.run()

    def start_for_isn(self, client, isn):
        """Sets the clock so that `client`, opening now, is given this initial number (RFC 6528's clock)."""
        ports = client.own[1] << 16 | client.other[1]
        hashed = half_siphash(*map(int, self.state.connections.secret), client.key()[0],
                              int(ipaddress.IPv4Address(client.other[0])), ports)
        self.start_at(((isn - hashed) & MASK) << 2)

    @contextlib.contextmanager
    def starving(self, left):
        """Within this, the worker has no more than `left` free mbufs."""
        taken = []
        for device in self.network.pool.devices:
            mbufs = np.empty(memory_device.available(device) - left, np.int64)
            assert memory_device.allocate(device, mbufs, len(mbufs)) == len(mbufs)
            taken.append(mbufs)
        yield
        for device, mbufs in zip(self.network.pool.devices, taken, strict=True):
            memory_device.release(device, mbufs, len(mbufs))

    def drain(self):
        """Tells the workers to open nothing new and to end with the last connection."""
        for state in self.workers:
            state.control[0] = DRAIN
        self.run()

    def stop(self):
        """Tells the workers to end; returns how many passes they took."""
        passes = 0
        for state in self.workers:
            state.control[0] = STOP
            passes += self._run(state, -1, self.now)
        self._take()
        return passes

    def finish(self):
        """Ends a test: nothing unexpected was sent, nothing is lost, and stopping leaves nothing behind."""
        self.silent()
        self.conserved()
        self.stop()
        self.conserved()
        assert self.states() == {} and self.count("open") == 0


class End:
    """One end of a connection, played by a test. `seq` and `ack` are what it sends next, relative numbers."""

    def __init__(self, proxy, port, own, other, isn, other_isn=None):
        self.proxy, self.port, self.own, self.other = proxy, port, own, other
        self.isn, self.other_isn = isn, other_isn
        self.seq, self.ack = 0, 0
        self.syn = None

    def key(self):
        """Returns (address as int, port) of this end."""
        return int(ipaddress.IPv4Address(self.own[0])), self.own[1]

    def segment(self, flags, data=b"", seq=None, ack=None, **fields):
        """Returns a frame (bytes) of this end's; without `seq` its next number, which moves on by what it sends."""
        if seq is None:
            seq = self.seq
            self.seq += len(data) + ("S" in flags) + ("F" in flags)
        absolute = ((self.ack if ack is None else ack) + (self.other_isn or 0)) if "A" in flags else ack or 0
        return build(self.own, self.other, MACS[self.port], flags, self.isn + seq, absolute, data, **fields)

    def send(self, flags, data=b"", seq=None, ack=None, **fields):
        """Sends one segment (see `segment`) as a burst of its own."""
        self.proxy.burst(self.segment(flags, data, seq, ack, **fields), port=self.port)

    def expect(self, flags, seq=None, ack=None, data=b"", intact=True, **fields):
        """Takes the first segment that has come and returns it; it must be exactly this one, and follow what was
        taken before unless `seq` or `ack` say otherwise (`ack=None`: whatever it is, `fields` as in Segment)."""
        waiting = self.proxy.received[self.own, self.other]
        assert waiting, f"{flags} was to come to {self.own}, nothing has; waiting: {self.proxy.waiting()}"
        segment = waiting.popleft()
        if self.other_isn is None and "S" in segment.flags:
            self.other_isn = segment.seq
        came = {"flags": segment.flags, "data": segment.data, "intact": segment.intact}
        wanted = {"flags": flags, "data": data, "intact": intact}
        if seq is not None:
            came["seq"], wanted["seq"] = signed(segment.seq - (self.other_isn or 0)), seq
        if ack is not None:
            came["ack"], wanted["ack"] = signed(segment.ack - self.isn), ack
        came.update((name, getattr(segment, name)) for name in fields)
        assert came == wanted | fields, f"{came} came, not {wanted | fields}"
        if segment.flags != "R" and "R" not in flags:
            stop = signed(segment.seq - self.other_isn) + len(data) + ("S" in flags) + ("F" in flags)
            self.ack = max(self.ack, stop)
        return segment

    def nothing(self):
        """Asserts that nothing more has come to this end."""
        assert not self.proxy.received[self.own, self.other], self.proxy.waiting()


def signed(number):
    """Returns a difference of sequence numbers as the nearest to 0."""
    return ((number + 0x80000000) & MASK) - 0x80000000


def handshake(client, **fields):
    """Opens a client's connection up to the acknowledgement of our SYN-ACK, which is not looked at further."""
    client.send("S", **fields)
    client.expect("SA", seq=0, ack=1)
    client.send("A")


def connect(proxy, client, data=b"hello", target="a", isn=700_000, **fields):
    """Opens a connection up to the target, with `data` held and acknowledged; returns the target's End."""
    handshake(client)
    client.send("PA", data)
    server = proxy.accept(target, isn)
    server.send("SA", mss=1460, **fields)
    server.expect("PA", seq=1, ack=1, data=data)
    server.send("A")
    client.expect("A", seq=1, ack=1 + len(data))
    return server


def close(client, server):
    """Closes a connection from the client's side in four segments."""
    client.send("FA")
    server.expect("FA", ack=server.seq)
    server.send("A")
    client.expect("A", ack=client.seq)
    server.send("FA")
    client.expect("FA", ack=client.seq)
    client.send("A")
    server.expect("A", ack=server.seq)


def settings(**chosen):
    """Marks a test to get a `proxy` made with these arguments of Proxy."""
    return pytest.mark.parametrize("proxy", [chosen], indirect=True, ids=[""])
