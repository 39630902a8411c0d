"""What kernels are tried on: a worker's state with bursts of many kinds, alike for each kernel that is tried on it.

`outcome` runs a kernel and puts everything back as it was, so that another starts from the same.
"""
import numpy as np

from pipeline import assemble, configuration
from pipeline.io.frame_rows import NETWORK, TRANSPORT, fill_mbufs, seal_ipv4, seal_tcp, store, tcp_rows
from pipeline.io.memory_port import MemoryNetwork
from pipeline.kernels.batch import BURST, Batch
from pipeline.kernels.headers import ACK, ETHERNET_LENGTH, FIN, HEADROOM, PSH, RST, SYN

NOW = 60_000_000
"""Microseconds on the engine's clock at which kernels are tried."""
CONNECTIONS = 256
WIDTH = 256
SERVICE = 0x0A010001, 80
TEXT = f"""
[engine]
name = "kernels-check"
connections = {CONNECTIONS}
[[ports]]
name = "left"
device = "net_af_packet0,iface=left"
addresses = ["10.1.0.1/16"]
[[ports]]
name = "right"
device = "net_af_packet1,iface=right"
addresses = ["10.2.0.1/16"]
[[targets]]
id = "a"
ip = "10.2.0.11"
port = 8080
[[targets]]
id = "b"
ip = "10.2.0.12"
port = 8080
[[targets]]
id = "c"
ip = "10.2.0.13"
port = 8080
[[services]]
name = "web"
listen = "10.1.0.1:80"
targets = ["a", "b", "c"]
[[services]]
name = "paths"
listen = "10.1.0.1:81"
select = "http_path"
targets = ["a", "b"]
rules = [{{match = "/a", target = "a"}}, {{match = "/b", target = "b"}}]
[[services]]
name = "hosts"
listen = "10.1.0.1:82"
select = "http_host"
targets = ["a", "b"]
rules = [{{match = "a.example", target = "a"}}, {{match = "b.example", target = "b"}}]
"""


def settings():
    """Returns the Configuration that kernels are tried with: three targets and three services."""
    return configuration.parse(TEXT, "kernels check")


def arrays_of(value, name="state"):
    """Yields (name, array) of all arrays of a NamedTuple, but for the device's, and the overlays of the packets."""
    if isinstance(value, np.ndarray):
        yield name, value
    else:
        for field in value._fields:
            if field not in ("packets", "device"):
                yield from arrays_of(getattr(value, field), f"{name}.{field}")


def outcome(kernel, arguments, watched):
    """Runs a kernel; returns what it has returned, and copies of the arrays `watched` (dict) behind it. They are put back."""
    before = {name: array.copy() for name, array in watched.items()}
    answer = kernel(*arguments)
    after = {name: array.copy() for name, array in watched.items()}
    for name, array in watched.items():
        array[...] = before[name]
    return answer, after


def differing(name, wanted, found, rows=slice(None)):
    """Returns a sentence on the first place where two arrays differ within `rows`, or None."""
    mine, theirs = np.atleast_1d(wanted)[rows], np.atleast_1d(found)[rows]
    if mine.tobytes() == theirs.tobytes():
        return None
    flat = (mine != theirs).reshape(len(mine), -1).any(1) if mine.dtype.names is None else np.array(
        [one.tobytes() != other.tobytes() for one, other in zip(mine, theirs, strict=True)])
    place = int(np.flatnonzero(flat)[0])
    return f"{name}[{place}]: the reference has {mine[place].tolist()}, this kernel {theirs[place].tolist()}"


class Bench:
    """A worker's state over memory ports that nothing has been received by yet; numbers are random and the same each time."""

    def __init__(self):
        self.configuration = settings()
        self.network = MemoryNetwork(self.configuration.port_count, 2048)
        self.macs = [port.mac for port in self.network.ports]
        self.state, _ = assemble.make_state(self.configuration, self.network.device, self.network.arena, self.macs, 0, 1e9)
        self.random = np.random.default_rng(7)
        self.mbufs = self.network.pool.allocate(BURST)

    def watched(self):
        """Returns all arrays (dict by name) that a kernel could change."""
        return dict(arrays_of(self.state)) | {"packets.octets": self.network.arena.octets}

    def soil(self):
        """Fills the columns of the batch with what an earlier burst could have left there."""
        for column in self.state.batch:
            column[:] = self.random.integers(0, 1 << 16, len(column))

    def frames(self, count):
        """Returns rows (uint8[count, WIDTH]) and lengths: TCP of all sorts, then most of it spoilt in some way."""
        random, rows = self.random, np.zeros((count, WIDTH), np.uint8)
        lengths = random.integers(0, 100, count)
        control = random.choice([ACK, ACK | PSH, SYN, SYN | ACK, FIN | ACK, RST], count)
        options = [b"", bytes([2, 4, 5, 0xB4]), bytes([1, 1, 8, 10, 0, 0, 0, 9, 0, 0, 0, 0]), bytes([2, 4, 5, 0xB4, 1, 3, 3, 7])]
        made, lengths = tcp_rows((self.macs[0], 0x02AA00000001), (0x0A010002 + random.integers(0, 9, count), SERVICE[0]),
                                 (random.integers(1, 65536, count), SERVICE[1]), tuple(random.integers(0, 1 << 32, (2, count))), control,
                                 random.integers(0, 256, (count, 100), np.uint8), lengths, options[int(random.integers(0, 4))])
        rows[:, :made.shape[1]] = made
        for row in range(count):
            lengths[row] = self._spoil(rows[row:row + 1], int(lengths[row]), int(random.integers(0, 10)))
        return rows, lengths

    def _spoil(self, rows, length, kind):
        """Changes one frame in place; returns its new length."""
        random = self.random
        if kind == 0:
            rows[0, int(random.integers(0, min(length, 60)))] ^= int(random.integers(1, 256))
        elif kind == 1:
            length = int(random.integers(0, length))
            rows[0, length:] = 0
        elif kind == 2:  # a tag of the priority alone, or of a VLAN
            rows[0, 16:] = rows[0, 12:-4].copy()
            rows[0, 12:16] = (0x81, 0, int(random.integers(0, 16)) << 4, int(random.integers(0, 2)))
            length += 4
        elif kind == 3:  # other protocols: ICMP, UDP; else a fragment
            store(rows, NETWORK + 9, 1, int(random.choice([1, 17])))
            store(rows, NETWORK + 6, 2, int(random.choice([0x4000, 0x2000, 5])))
            seal_ipv4(rows)
        elif kind == 4:  # header lengths of all sorts
            rows[0, int(random.choice([NETWORK, TRANSPORT + 12]))] = int(random.integers(0, 256))
            seal_ipv4(rows)
        elif kind == 5:
            store(rows, 12, 2, int(random.choice([0x0806, 0x86DD])))
        elif kind == 6:
            rows[0, TRANSPORT:TRANSPORT + 40] = random.integers(0, 256, 40)
            seal_tcp(rows, np.array([length - ETHERNET_LENGTH - 20]))
        return length

    def receive(self, rows, lengths):
        """Puts frames into mbufs, as fresh ones, and lists these in the batch."""
        records = self.network.arena.native.mbuf
        fill_mbufs(self.network.arena, self.mbufs[:len(rows)], rows, lengths)
        records["segments"][self.mbufs], records["data_off"][self.mbufs] = 1, HEADROOM
        self.state.batch.mbuf[:len(rows)] = self.mbufs[:len(rows)]


def columns_differ(wanted, found, rows, columns=Batch._fields):
    """Returns a sentence on the first column of the batch that differs in one of `rows`, or None; both are dicts of arrays."""
    for column in columns:
        name = f"state.batch.{column}"
        for row in rows:
            if wanted[name][row] != found[name][row]:
                return f"batch.{column}[{row}]: the reference has {wanted[name][row]}, this kernel {found[name][row]}"
    return None
