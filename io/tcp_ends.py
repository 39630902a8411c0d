"""Both ends of many TCP connections at once, in columns: the clients and servers around an engine that is stepped.

The clients lie behind port 0 of the engine, the servers behind its last port. Nothing is lost on the way to it, so an
end sends each segment once and takes what comes; each octet of a stream tells where it belongs.
"""
import numpy as np

from pipeline.kernels.headers import ACK, ETHERTYPE_ARP, FIN, PSH, SYN

from .frame_rows import (
    HEADERS,
    NETWORK,
    TRANSPORT,
    folded,
    load,
    ones_sum,
    pseudo_sum,
    store,
    tcp_rows,
    write_rows,
)

HOST_MACS = 0x02AA00000001, 0x02BB00000001
"""MAC of all hosts on the clients' side, and of all on the servers'."""
WIDEST = 1536
"""Octets of a frame that are looked at; more than an Ethernet frame has."""


def wrap(numbers):
    """Returns sequence numbers within 32 bits."""
    return numbers & 0xFFFFFFFF


def content(connections, direction, positions, width):
    """Returns `width` octets of each connection's stream from `positions` on (uint8[n, width])."""
    at = np.asarray(positions)[:, None] + np.arange(width)
    return (at * 167 + (at >> 8) * 59 + np.asarray(connections)[:, None] * 101 + direction * 53).astype(np.uint8)


def arp_reply(requests, mac):
    """Returns the frames that answer ARP requests (rows), as the host `mac` that has every address asked for."""
    rows = requests.copy()
    rows[:, 0:6], rows[:, 32:38] = requests[:, 6:12], requests[:, 22:28]
    rows[:, 38:42], rows[:, 28:32] = requests[:, 28:32], requests[:, 38:42]
    store(rows, 6, 6, mac)
    store(rows, 20, 2, 2)
    store(rows, 22, 6, mac)
    return rows


class Received:
    """Frames that came out of one port (rows, lengths), and the TCP headers of those that have no tag and options."""

    def __init__(self, rows, lengths):
        self.rows, self.lengths = rows, lengths
        ethertype = load(rows, 12, 2)
        self.arp = ethertype == ETHERTYPE_ARP
        self.plain = (ethertype == 0x0800) & (rows[:, NETWORK] == 0x45) & (rows[:, NETWORK + 9] == 6)
        self.ipv4_right = (ones_sum(rows[:, NETWORK:TRANSPORT]) == 0xFFFF) | ~self.plain
        self.segment = load(rows, NETWORK + 2, 2) - 20
        total = folded(ones_sum(rows[:, TRANSPORT:]) + pseudo_sum(rows, self.segment))
        self.tcp_right = self.plain & (total == 0xFFFF)
        self.source, self.destination = load(rows, NETWORK + 12, 4), load(rows, NETWORK + 16, 4)
        self.source_port, self.destination_port = load(rows, TRANSPORT, 2), load(rows, TRANSPORT + 2, 2)
        self.seq, self.ack = load(rows, TRANSPORT + 4, 4), load(rows, TRANSPORT + 8, 4)
        self.control = rows[:, TRANSPORT + 13].astype(np.int64)
        self.payload_length = self.segment - (rows[:, TRANSPORT + 12].astype(np.int64) >> 4) * 4

    def __len__(self):
        return len(self.rows)


class TcpEnds:
    """Clients and servers of connections through `engine`; client n has an address and port of `clients`.

    The engine is a pipeline.memory_engine.MemoryEngine or has the same `macs`, `pool`, `feed`, `step` and `take`.
    `clients`: addresses and ports (int64[n] each), `service`: address and port (ints). Initial numbers are random.
    `sent` and `received` (int64[2, n]) count payload octets from the client (row 0) and from the server (row 1).
    """

    def __init__(self, engine, clients, service, generator):
        self.engine, self.service = engine, service
        self.ports = (0, len(engine.macs) - 1)
        self.macs = [(engine.macs[number], mac) for number, mac in zip(self.ports, HOST_MACS, strict=True)]
        self.address, self.port = (np.asarray(column, np.int64) for column in clients)
        count = len(self.address)
        self.client_first = wrap(generator.permutation(count) + int(generator.integers(1 << 32)))
        self.server_first = generator.integers(0, 1 << 32, count)
        self.proxy_first, self.proxy_port, self.proxy_address, self.target, self.target_port = (
            np.full(count, -1, np.int64) for _ in range(5))
        self.sent, self.received = np.zeros((2, count), np.int64), np.zeros((2, count), np.int64)
        self._by_client = self._sorted(self.address << 16 | self.port)
        self._by_number = self._sorted(self.client_first)
        self._by_server = None

    @staticmethod
    def _sorted(keys):
        order = np.argsort(keys)
        if (np.diff(keys[order]) == 0).any():
            raise ValueError("two connections have the same ends")
        return keys[order], order

    @staticmethod
    def _find(table, keys):
        """Returns the connection (int64[n]) that each key belongs to, -1 for none."""
        known, order = table
        place = np.minimum(np.searchsorted(known, keys), len(known) - 1)
        return np.where(known[place] == keys, order[place], -1)

    def frames(self, side, which, seq, ack, control, payload=None, lengths=None, options=b""):
        """Returns rows and lengths of segments that clients (`side` 0) or servers (1) number `which` send."""
        if side == 0:
            return tcp_rows(self.macs[0], (self.address[which], self.service[0]),
                            (self.port[which], self.service[1]), (seq, ack), control, payload, lengths, options)
        return tcp_rows(self.macs[1], (self.target[which], self.proxy_address[which]),
                        (self.target_port[which], self.proxy_port[which]), (seq, ack), control, payload, lengths,
                        options)

    def _exchange(self, side, frames):
        self.engine.feed(self.ports[side], write_rows(self.engine.pool, *frames))
        self.engine.step()

    def take(self, side):
        """Takes what came out toward the clients (0) or the servers (1); ARP requests are answered."""
        got = Received(*self.engine.take(self.ports[side], WIDEST))
        asked = got.arp & (load(got.rows, 20, 2) == 1) & (load(got.rows, 28, 4) != load(got.rows, 38, 4))
        if asked.any():
            self._exchange(side, (arp_reply(got.rows[asked], HOST_MACS[side])[:, :60], 60))
        return got

    def open(self, at_once=1024):
        """Opens all connections: handshakes on both sides, a first payload of each client's, its acknowledgement."""
        self.engine.step()
        self.take(1)
        self.take(0)
        for start in range(0, len(self.address), at_once):
            self._open(np.arange(start, min(start + at_once, len(self.address))))
        self._by_server = self._sorted(self.target << 16 | self.proxy_port)

    def _open(self, which):
        mss = bytes([2, 4, 5, 0xB4])
        self._exchange(0, self.frames(0, which, self.client_first[which], 0, SYN, options=mss))
        answers = self.take(0)
        found = self._find(self._by_client, answers.destination << 16 | answers.destination_port)
        self.proxy_first[found[found >= 0]] = answers.seq[found >= 0]
        first = content(which, 0, np.zeros(len(which), np.int64), 32)
        self._exchange(0, self.frames(0, which, wrap(self.client_first[which] + 1), wrap(self.proxy_first[which] + 1),
                                      ACK | PSH, first))
        self.sent[0, which] = 32
        syns = self.take(1)
        found = self._find(self._by_number, syns.seq)
        found, syns_of = found[found >= 0], found >= 0
        self.target[found], self.target_port[found] = syns.destination[syns_of], syns.destination_port[syns_of]
        self.proxy_address[found], self.proxy_port[found] = syns.source[syns_of], syns.source_port[syns_of]
        if (self.target[which] < 0).any():
            raise RuntimeError(f"{int((self.target[which] < 0).sum())} of {len(which)} connections got no target")
        ours = wrap(self.client_first[which] + 1)
        self._exchange(1, self.frames(1, which, self.server_first[which], ours, SYN | ACK, options=mss))
        held = self.take(1)
        self.received[0, which] = 32
        came = int((held.payload_length == 32).sum())
        if came != len(which):
            raise RuntimeError(f"{len(which)} held payloads were to come, {came} came")
        self._exchange(1, self.frames(1, which, wrap(self.server_first[which] + 1), wrap(ours + 32), ACK))
        self.take(0)

    def numbers(self, side, which):
        """Returns what `side` puts into seq and ack of its next segment."""
        first, theirs = (self.client_first, self.proxy_first) if side == 0 else (self.server_first, self.client_first)
        return (wrap(first[which] + 1 + self.sent[side, which]),
                wrap(theirs[which] + 1 + self.received[1 - side, which]))

    def segments(self, side, which, lengths, back=0, control=ACK | PSH):
        """Returns rows and lengths of segments with the next payload of connections `which`, which counts as sent.

        `back` (octets before the end of what was sent, one for each or for all) makes them copies of old payload.
        """
        lengths = np.broadcast_to(lengths, len(which))
        seq, ack = self.numbers(side, which)
        positions = self.sent[side, which] - back
        payload = content(which, side, positions, int(lengths.max(initial=1)))
        if not np.any(back):
            self.sent[side, which] += lengths
        return self.frames(side, which, wrap(seq - back), ack, control, payload, lengths)

    def connections_of(self, side, got):
        """Returns the connection (int64[n]) that each frame for a side belongs to, -1 for none."""
        # A server's connection is found by the server's address and the proxy's port, which differs for each of them.
        keys = (got.destination << 16) | (got.source_port if side else got.destination_port)
        return self._find(self._by_server if side else self._by_client, keys)

    def accept(self, side, got):
        """Takes in what came for `side`; returns how many segments are new and how many copies of old ones.

        Raises ValueError where octets are wrong or a new segment comes twice.
        """
        rows = np.flatnonzero(got.tcp_right & (got.payload_length > 0))
        which = self.connections_of(side, got)[rows]
        rows, which = rows[which >= 0], which[which >= 0]
        first = (self.proxy_first if side == 0 else self.client_first)[which] + 1
        have, lengths = self.received[1 - side, which], got.payload_length[rows]
        away = wrap(got.seq[rows] - first - have)
        position = have + np.where(away >= 1 << 31, away - (1 << 32), away)
        width = got.rows.shape[1] - HEADERS
        inside = np.arange(width) < lengths[:, None]
        expected = content(which, 1 - side, position, width)
        wrong = ((got.rows[rows, HEADERS:] != expected) & inside).any(1)
        if wrong.any():
            raise ValueError(f"{int(wrong.sum())} segments toward side {side} carry wrong octets")
        new = position >= have
        np.add.at(self.received[1 - side], which[new], lengths[new])
        if len(np.unique(which[new] << 32 | got.seq[rows][new])) != int(new.sum()):
            raise ValueError(f"a segment toward side {side} came twice")
        return int(new.sum()), int((~new).sum())

    def close(self):
        """Closes all connections in order, the client first; what comes out is taken and not looked at."""
        which = np.arange(len(self.address))
        for side in (0, 1):
            seq, ack = self.numbers(side, which)
            self._exchange(side, self.frames(side, which, seq, wrap(ack + side), FIN | ACK))
            self.take(1 - side)
        seq, ack = self.numbers(0, which)
        self._exchange(0, self.frames(0, which, wrap(seq + 1), wrap(ack + 1), ACK))
        self.take(1)
