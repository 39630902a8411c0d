"""Generators and proxies over memory ports, joined by cables, on one virtual time: for tests of `mode = "generator"`."""
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether

from configuration_text import table
from kernel_bed import checked
from pipeline import configuration, generator_report
from pipeline.kernels.counters import TOTAL_OPEN
from pipeline.kernels.headers import ETHERTYPE_IPV4
from pipeline.memory_engine import MemoryEngine

TARGETS = {"a": "10.0.0.11", "b": "10.0.0.12"}
PORT = 80
STEP = 10_000
"""Microseconds of a tick of the wheel, by which the time goes on."""


def settings_for(role, traffic=None, faults=None, hosts=TARGETS, **chosen):
    """Returns the Configuration of a generator that plays `role`, "clients" or "servers", on the network 10.0.0.0/24.

    `traffic` is for [generator], `chosen` for the role's own table, `faults` for the port.
    """
    clients = {"connect": f"{TARGETS['a']}:{PORT}", "source_ports": [5000, 5999], "targets": ["a"]}
    own = {**(clients if role == "clients" else {}), **chosen}
    rows = "".join(table("[[targets]]", {"id": name, "ip": ip, "port": PORT}) for name, ip in hosts.items())
    text = "\n".join([
        table("[engine]", {"name": role, "mode": "generator", "connections": 512}),
        table("[[ports]]", {"name": "p", "device": "net_null0", "addresses": [f"10.0.0.{2 if role == 'clients' else 3}/24"]}),
        table("[ports.faults]", faults) if faults else "", rows,
        table("[timeouts]", {"connecting": 20, "established": 60, "time_wait": 0.1}),
        table("[generator]", traffic or {}), table(f"[generator.{role}]", own)])
    return configuration.parse(text, f"{role}.toml")


class Joined:
    """Engines (MemoryEngine) joined by cables: `cables` are pairs of (engine, number of its port).

    `pass_on(sender, frame)` may be replaced: it returns the frames (list of bytes) that come out for one that an engine has
    sent. `frames` are all IPv4 frames that have been sent, (engine, bytes).
    """

    def __init__(self, *cables):
        self.cables = [*cables, *((right, left) for left, right in cables)]
        self.engines = list(dict.fromkeys(engine for (engine, _), _ in self.cables))
        self.frames, self.pass_on = [], lambda sender, frame: [frame]

    def carry(self, microseconds=0):
        """Moves the time on, and carries frames until no engine has more to send."""
        for engine in self.engines:
            engine.step(microseconds)
        moved = True
        while moved:
            moved = False
            for (sender, port), (receiver, into) in self.cables:
                for frame in sender.ports[port].taken():
                    if int.from_bytes(frame[12:14], "big") == ETHERTYPE_IPV4:
                        self.frames.append((sender, frame))
                    receiver.ports[into].feed(self.pass_on(sender, frame))
                    moved = True
            for engine in self.engines:
                engine.step()

    def run(self, seconds, until=lambda: False):
        """Lets that much virtual time pass, tick by tick, or less once `until()` holds; returns whether it does."""
        for _ in range(round(seconds * 1_000_000 / STEP)):
            self.carry(STEP)
            if until():
                return True
        return until()

    def segments(self):
        """Returns all segments that were sent, (engine, scapy's packet), lengths and checksums found right."""
        return [(sender, checked(frame)[IP]) for sender, frame in self.frames]

    def told(self):
        """Returns all segments as words, such as "> S", "< SA": `>` is what the first engine sends."""
        return [f"{'>' if sender is self.engines[0] else '<'} {packet[TCP].flags}" for sender, packet in self.segments()]


class Pair(Joined):
    """A generator's clients joined to another's servers; `clients` and `servers` are what they have come to."""

    def __init__(self, traffic=None, faults=None, server_traffic=None, server_targets=TARGETS, server=None, **clients):
        self.settings = (settings_for("clients", traffic, faults, **clients),
                         settings_for("servers", traffic if server_traffic is None else server_traffic,
                                      hosts=server_targets, **(server or {})))
        self.client, self.server = map(MemoryEngine, self.settings)
        super().__init__(((self.client, 0), (self.server, 0)))

    @property
    def clients(self):
        """What the clients have come to (dict)."""
        return generator_report.of_generator(self.settings[0], self.client.state)["clients"]

    @property
    def servers(self):
        """What the servers have come to (dict)."""
        return generator_report.of_generator(self.settings[1], self.server.state)["servers"]

    def finish(self, seconds=120):
        """Runs until all clients' connections have ended and nothing is left of any; returns how both ended."""
        size = self.settings[0].generator.clients.test_size
        assert self.run(seconds, lambda: self.clients["opened"] == size and not self.left()), (self.clients, self.servers)
        return self.clients, self.servers

    def left(self):
        """Returns how many ends are not free, those in TIME_WAIT too, and fails where an mbuf is lost."""
        open_ends = sum(int(engine.state.counters.totals[TOTAL_OPEN]) for engine in self.engines)
        if not open_ends:
            for engine in self.engines:
                assert engine.pool.available + waiting(engine) == engine.pool.mbufs, "an mbuf is lost"
                assert not engine.state.connections.buckets["tag"].any(), "a key is left in the flow table"
        return open_ends


def waiting(engine):
    """Returns how many mbufs wait in an engine's faults."""
    stage = engine.state.faults
    return int((stage.written - stage.read).sum())


def edited(frame, change):
    """Returns a frame with its TCP payload replaced by `change(payload)`, and a checksum that is right again."""
    packet = Ether(frame)
    payload = bytes(packet[TCP].payload)[:packet[IP].len - 4 * packet[IP].ihl - 4 * packet[TCP].dataofs]
    packet[TCP].remove_payload()
    del packet[TCP].chksum
    return bytes(packet / change(payload))
