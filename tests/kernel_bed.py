"""A worker's state over memory ports and on virtual time, for tests of single kernels and of the whole loop.

Everything that is drawn at random when an engine starts is fixed here, so that two runs give the same bytes. All of it
works in both modes: jitted, and as plain Python under `NUMBA_DISABLE_JIT=1`.
"""

import os

import numpy as np
from hypothesis import HealthCheck, Phase, settings
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Dot1Q, Ether

from configuration_text import two_networks
from pipeline import assemble, configuration
from pipeline.io.frames import frame_bytes, write_frames
from pipeline.io.memory_port import MemoryNetwork
from pipeline.kernels import counters, parse
from pipeline.kernels.neighbours import REACHABLE, add_neighbour

EXAMPLES = int(os.environ.get("KERNEL_EXAMPLES", "60"))
"""Examples that hypothesis tries for a property; the runs un-jitted and with bounds checked ask for fewer."""

generated = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

SERVICE, PORT, CLIENT, GATEWAY = "10.1.0.1", 80, "10.1.0.2", "10.2.0.254"
TARGETS = ("10.2.0.11", "10.2.0.12", "10.9.0.13")
CLIENT_MAC, TARGET_MAC = 0x02AA00000002, 0x02BB00000011
NOW = 1_000_000
"""Microseconds on the engine's clock at which the tests of kernels take place."""

ENGINE = {"name": "kernel-bed", "connections": 64, "held_connections": 8, "held_bytes": 2048, "records": 64,
          "detailed_records": True, "reset_rate": 100, "idle": "spin"}


def configuration_text(select, exceptions=()):
    """Returns the bed's configuration (TOML), all of whose services have one select kernel; `exceptions` are names of ports."""
    services = ({"name": "web", "listen": f"{SERVICE}:{PORT}", "select": select, "targets": ["a", "b", "c"]},
                {"name": "silent", "listen": f"{SERVICE}:{PORT + 1}", "select": select, "targets": ["a"], "stray": "drop"})
    return two_networks(ENGINE, gateway=GATEWAY, targets=dict(zip("abc", TARGETS, strict=True)), services=services,
                        exceptions=exceptions)


def address(text):
    """Returns an IPv4 address in text as an int."""
    return int.from_bytes(bytes(int(part) for part in text.split(".")), "big")


def mac_text(mac):
    """Returns a MAC address (int) as scapy writes it."""
    return ":".join(f"{octet:02x}" for octet in mac.to_bytes(6, "big"))


class KernelBed:
    """`state` of one worker with two memory ports, "left" toward clients and "right" toward targets.

    Exception ports, beside those named in `exceptions`, come behind them.
    """

    def __init__(self, select="round_robin", mbufs=1024, exceptions=()):
        self.configuration = configuration.parse(configuration_text(select, exceptions), "kernel_bed.toml")
        self.network = MemoryNetwork(self.configuration.port_count, mbufs)
        self.macs = [port.mac for port in self.network.ports]
        state, self.selects = assemble.make_state(
            self.configuration, self.network.device, self.network.arena, self.macs, 0, 1e9
        )
        self.pool, self.arena = self.network.pool, self.network.arena
        self.work_on(state)
        self.connections.secret[:] = 0x01234567, 0x89ABCDEF
        for pool in range(len(self.state.sources.ring)):
            self.state.sources.ring[pool].sort()

    def work_on(self, state):
        """Makes `state` that of this bed."""
        self.state, self.connections, self.batch = state, state.connections, state.batch
        self.counters, self.packets, self.base = self.connections.counters, state.packets, state.base[0]

    def resolve(self):
        """Makes the MAC of every next hop toward targets known, TARGET_MAC plus its number; returns how many."""
        known = int(self.state.network.known[0])
        for number in range(known):
            self.hears(number, TARGET_MAC + number)
        return known

    def hears(self, number, mac, tick=NOW // 10_000):
        """Puts a neighbour into the state REACHABLE."""
        entry = self.state.network.neighbours[number]
        entry.mac_high, entry.mac_low, entry.state, entry.confirmed = mac >> 32, mac & 0xFFFFFFFF, REACHABLE, tick

    def knows(self, text, port, mac):
        """Adds a neighbour that is REACHABLE; returns its number."""
        number = int(add_neighbour(self.state.network, address(text), port))
        self.hears(number, mac)
        return number

    def write(self, frames, segment_length=None):
        """Writes frames (bytes each) into mbufs and lists these in the batch; returns how many."""
        mbufs = write_frames(self.pool, frames, segment_length)
        self.batch.mbuf[: len(mbufs)] = mbufs
        return len(mbufs)

    def parse(self, frames, port=0, segment_length=None):
        """Writes frames into mbufs and parses them as received by `port`; returns how many rows there are."""
        count = self.write(frames, segment_length)
        parse.parse(self.packets, self.base, self.batch, count, port, self.state.network, self.counters)
        return count

    def frame(self, row):
        """Returns the bytes of the frame in a row of the batch."""
        return frame_bytes(self.arena, int(self.batch.mbuf[row]))

    def free(self, count):
        """Frees the frames of rows 0 .. count - 1."""
        self.pool.release(self.batch.mbuf[:count].copy())

    def posted(self, port):
        """Takes the frames (bytes) that kernels have posted to `port` out of the outbox; their mbufs are freed."""
        outbox = self.state.outbox
        mbufs = outbox.mbuf[port, : outbox.filled[port]].copy()
        frames = [frame_bytes(self.arena, int(mbuf)) for mbuf in mbufs]
        outbox.filled[port] = 0
        self.pool.release(mbufs)
        return frames

    @property
    def drops(self):
        """The drop counters that are not 0, by reason."""
        return {
            name: int(count) for name, count in zip(counters.DROP_REASONS, self.counters.drops, strict=True) if count
        }

    @property
    def notices(self):
        """The notices that are not 0, by name."""
        return {name: int(count) for name, count in zip(counters.NOTICES, self.counters.notices, strict=True) if count}

    def segment(
        self,
        payload=b"",
        source=CLIENT,
        destination=SERVICE,
        mac=CLIENT_MAC,
        port=0,
        tag=None,
        ip=None,
        ip_options=(),
        **tcp,
    ):
        """Returns a TCP segment to the engine's `port` as a frame, its lengths and checksums made by scapy."""
        fields = {"sport": 40000, "dport": PORT, "flags": "A", "seq": 1, "ack": 1, **tcp}
        packet = Ether(src=mac_text(mac), dst=mac_text(self.macs[port]))
        if tag is not None:
            packet /= Dot1Q(**tag)
        return bytes(
            packet / IP(src=source, dst=destination, options=list(ip_options), **(ip or {})) / TCP(**fields) / payload
        )


def checked(frame):
    """Returns a frame as scapy's packet, after its lengths and checksums were found to be those that scapy computes."""
    seen, fresh = Ether(frame), Ether(frame)
    fresh[IP].remove_payload()
    payload = seen[IP].payload.copy()
    for layer, fields in ((fresh[IP], ("len", "chksum", "ihl")), (payload, ("chksum", "dataofs"))):
        for field in fields:
            if field in layer.fields:
                delattr(layer, field)
    made = Ether(bytes(fresh / payload))
    assert (seen[IP].len, seen[IP].chksum) == (made[IP].len, made[IP].chksum), "IPv4 length or checksum"
    assert seen[IP].payload.chksum == made[IP].payload.chksum, "checksum of the transport header"
    if TCP in seen:
        assert seen[TCP].dataofs == made[TCP].dataofs
    return seen


def as_array(payload):
    """Returns bytes as uint8[n], writable."""
    return np.frombuffer(payload, np.uint8).copy()
