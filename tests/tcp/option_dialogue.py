"""One connection between two hosts that each support what their Offer says: every frame that leaves is judged.

The hosts behave as real stacks do: they use what both sides of *their* handshake agreed to and nothing else, cut what
they send to the MSS that they were told less their options (RFC 6691), and echo the last timestamp they have seen.
What the engine has to make of a segment is worked out here from SPLICE.md alone. Numbers are relative to each side's SYN.
"""
import collections
from typing import NamedTuple

from tcp.proxy import MACS, NUMBER, SERVICE, TARGETS, Proxy
from tcp.raw_frames import ACK, CWR, ECE, FIN, MSS, NOP, PSH, RST, SACK, SACK_PERMITTED, SCALE, STAMPS, SYN, decode, encode, option
from tcp.segments import mac_of

MASK = 0xFFFFFFFF
LEAST_MSS = 536
FIRST_FLIGHT = b"0 " + bytes(range(32, 122)) * 10
ECT0, CE = 2, 3


class Offer(NamedTuple):
    """What a host supports: its window scale and MSS (None: it does not name one), and whether the other options."""

    scale: int | None = None
    sack: bool = False
    stamps: bool = False
    mss: int | None = None
    ecn: bool = False

    def options(self):
        """Returns the values of the options of its SYN but for timestamps' (dict)."""
        named = {MSS: self.mss, SCALE: self.scale, SACK_PERMITTED: True if self.sack else None,
                 STAMPS: True if self.stamps else None}
        return {kind: value for kind, value in named.items() if value is not None}


class Bed(Proxy):
    """A worker whose frames are kept as octets by port, and all frames in and out with their times in `journal`."""

    def __init__(self, journal, **chosen):
        self.journal = journal
        self.frames = collections.defaultdict(collections.deque)
        super().__init__(**chosen)
        self.know("10.1.0.2", 0)
        self.learnt = [(array, array.copy()) for array in (self.state.selection.services, self.state.targets.rows)]

    def forget(self):
        """Takes back what the engine has learnt of its targets."""
        for array, start in self.learnt:
            array[:] = start

    def _take(self):
        for port in self.network.ports:
            for frame in port.taken():
                if frame[12:14] == b"\x08\x00":
                    self.journal.append((self.now, frame))
                    self.frames[port.number].append(frame)

    def host_sends(self, port, frame):
        """Feeds one frame and runs the worker; the wire takes a tenth of a millisecond."""
        self.now += 100
        self.journal.append((self.now, frame))
        self.burst(frame, port=port)


class Host:
    """One end; `turn` varies the layout of its options and where its numbers start."""

    def __init__(self, bed, port, own, other, offer, turn, isn=None):
        self.bed, self.port, self.own, self.other, self.offer, self.turn = bed, port, own, other, offer, turn
        self.isn = (turn * 0x9E3779B1 + port * 0x1234567) & MASK if isn is None else isn
        self.seq = self.ack = 0
        self.other_isn = None
        self.start, self.sent, self.sent_at = turn * 0x85EBCA6B, 0, 0
        self.echo = 0
        self.agreed = {}                # options of this side's handshake, with the engine's values
        self.ecn = False

    def options(self, sack=()):
        """Returns the octets of the options of a segment that is no SYN, padded in one of four ways."""
        parts = []
        if STAMPS in self.agreed:
            parts.append(option(STAMPS, (self.clock, self.echo)))
        if sack:
            parts.append(option(SACK, [(edge + self.other_isn) & MASK for edge in sack]))
        if len(parts) == 2 and self.turn & 4:
            parts.reverse()
        length = sum(map(len, parts))
        lead = min(self.turn % 4, 40 - length) if parts else 0
        return bytes((NOP,)) * lead + b"".join(parts)

    def syn_options(self, answers=None):
        """Returns the octets of a SYN's options in one of several orders; `answers`: only what was offered to it."""
        values = {kind: value for kind, value in self.offer.options().items() if answers is None or kind in (*answers, MSS)}
        kinds = sorted(values)
        kinds = kinds[self.turn % max(len(kinds), 1):] + kinds[:self.turn % max(len(kinds), 1)]
        return b"".join(option(kind, (self.clock, self.echo) if kind == STAMPS else values[kind]) for kind in kinds)

    @property
    def clock(self):
        """The TSval of the next or last segment: milliseconds, and one more with each segment."""
        return (self.start + self.sent + self.sent_at // 1000) & MASK

    @property
    def most(self):
        """How many octets of payload this host may put into a segment."""
        return self.agreed.get(MSS, LEAST_MSS) - -(-len(self.options()) // 4) * 4

    def send(self, flags, data=b"", seq=None, ack=None, window=8192, sack=(), tos=0, answers=None):
        """Sends one segment; `answers`: to what options its SYN answers."""
        if seq is None:
            seq = self.seq
            self.seq += len(data) + (flags & SYN != 0) + (flags & FIN != 0)
        self.sent, self.sent_at = self.sent + 1, self.bed.now
        options = self.syn_options(answers) if flags & SYN else self.options(sack)
        ack = ((self.ack if ack is None else ack) + self.other_isn) & MASK if flags & ACK else 0
        self.bed.host_sends(self.port, encode(self.own, self.other, (MACS[self.port], mac_of(self.own[0])), flags,
                                              self.isn + seq, ack, window, options, data, tos))

    def take(self):
        """Returns the next Frame that has come, its numbers relative, and does as a stack does with it."""
        assert self.bed.frames[self.port], "nothing has come"
        frame = decode(self.bed.frames[self.port].popleft())
        assert (frame.source, frame.destination) == (self.other, self.own)
        if self.other_isn is None:
            self.other_isn = frame.seq
        if STAMPS in frame.options:
            self.echo = frame.options[STAMPS][0]
        seq = (frame.seq - self.other_isn) & MASK
        ack = (frame.ack - self.isn) & MASK if frame.flags & ACK else 0
        stop = seq + len(frame.data) + (frame.flags & SYN != 0) + (frame.flags & FIN != 0)
        if seq <= self.ack:
            self.ack = max(self.ack, stop)
        return frame._replace(seq=seq, ack=ack)


class Dialogue:
    """A connection of a `client` Offer with a `target` Offer through a Bed; see `run`."""

    def __init__(self, bed, client, target, turn):
        self.bed, self.turn = bed, turn
        self.client = Host(bed, 0, ("10.1.0.2", 1024 + turn % 60000), (SERVICE, NUMBER), client, turn)
        self.target = Host(bed, 1, TARGETS["a"], None, target, turn + 1)
        self.shown = []              # TSvals that the client has seen
        self.shift = None            # from the target's clock to what the client sees
        self.promised_at = self.first_clock = self.elapsed = 0

    def run(self, promised, in_short=False):
        """Handshakes, held data, data and losses both ways, windows, challenges, and one of four closes.

        `promised` is the set of option kinds (and "ecn") that the SYN-ACK has to agree to.
        """
        self.open(promised)
        self.hand_over()
        self.converse()
        if not in_short:
            self.lose(self.target, self.client)
            self.lose(self.client, self.target)
            self.windows()
            self.challenges()
        self.close()

    def open(self, promised):
        """The client's handshake; its first flight is held and the SYN goes to the target."""
        client, offer = self.client, self.client.offer
        client.send(SYN | (ECE | CWR if offer.ecn else 0), window=5000)
        answer = client.take()
        kinds = set(answer.options) - {MSS} | ({"ecn"} if answer.flags & ECE else set())
        assert answer.flags & ~ECE == SYN | ACK and answer.ack == 1 and not answer.data
        assert kinds == promised, f"agreed to {kinds}, not to {promised}"
        assert 0 < answer.window <= 1024 and LEAST_MSS <= answer.options[MSS] <= 1460
        if STAMPS in kinds:
            assert answer.options[STAMPS][1] == client.clock
            self.shown = [answer.options[STAMPS][0]]
            self.promised_at = self.bed.now
        client.agreed, client.ecn = answer.options, "ecn" in kinds
        client.send(ACK, window=700)
        for at in range(0, len(FIRST_FLIGHT), client.most):
            client.send(PSH | ACK, FIRST_FLIGHT[at:at + client.most], window=700)
        self.syn(kinds, client.clock)

    def syn(self, kinds, clock):
        """The SYN to the target offers exactly what the SYN-ACK agreed; the target answers what it supports of that."""
        client, target = self.client, self.target
        target.other = decode(self.bed.frames[1][0]).source
        syn = target.take()
        assert syn.flags == SYN | (ECE | CWR if "ecn" in kinds else 0) and not syn.data
        assert set(syn.options) == kinds - {"ecn"} | {MSS}
        assert syn.options.get(SCALE) == (client.offer.scale if SCALE in kinds else None)
        assert syn.options[MSS] <= min(client.offer.mss or LEAST_MSS, 1460)
        if STAMPS in kinds:
            first, echoed = syn.options[STAMPS]
            assert echoed == 0 and 0 <= (clock - first) & MASK <= 1000, "TSval of the SYN"
        target.agreed = {kind: value for kind, value in syn.options.items() if kind == MSS or kind in target.offer.options()}
        target.ecn = "ecn" in kinds and target.offer.ecn
        if self.turn % 5 == 0:
            assert self.again(target) == [syn]
        target.send(SYN | ACK | (ECE if target.ecn else 0), answers=set(syn.options), window=6000)
        self.first_clock, self.elapsed = target.clock, (self.bed.now - self.promised_at) // 1000

    def again(self, end):
        """Waits until something comes to an end that has not acknowledged what it got; returns the frames (list)."""
        for _ in range(60):
            if self.bed.frames[end.port]:
                break
            self.bed.now += 50_000
            self.bed.run()
        frames = [end.take()]
        while self.bed.frames[end.port]:
            frames.append(end.take())
        return frames

    def hand_over(self):
        """The held octets reach the target, cut to its MSS, and its acknowledgement the client."""
        target, came = self.target, {}
        while sum(len(frame.data) for frame in came.values()) < len(FIRST_FLIGHT):
            frame = target.take()
            assert frame.flags & ~PSH == ACK and frame.ack == 1 and frame.seq == 1 + sum(len(frame.data) for frame in came.values())
            assert 0 < len(frame.data) <= (target.offer.mss or LEAST_MSS) - (12 if STAMPS in target.agreed else 0)
            assert (STAMPS in frame.options) == (STAMPS in target.agreed)
            assert STAMPS not in frame.options or frame.options[STAMPS][1] == target.clock
            assert frame.window == (min(700 << (self.client.offer.scale or 0), 65535)
                                    if SCALE in self.client.agreed and SCALE not in target.agreed else 700)
            came[frame.seq] = frame
        assert b"".join(frame.data for frame in came.values()) == FIRST_FLIGHT
        if self.turn % 3 == 0:
            for frame in self.again(target):
                assert frame.data and frame.data == FIRST_FLIGHT[frame.seq - 1:][:len(frame.data)]
                assert frame.options.get(STAMPS) == came[1].options.get(STAMPS) and frame.window == came[1].window
        assert not self.bed.frames[1]
        self.passes(target, ACK)

    def passes(self, sender, flags, data=b"", seq=None, ack=None, window=8192, sack=(), tos=0):
        """A segment of `sender` comes out at the other end as SPLICE says, in pieces where it is too long, and nothing else."""
        receiver = self.target if sender is self.client else self.client
        start, number = sender.seq if seq is None else seq, sender.ack if ack is None else ack
        sack = sack if SACK_PERMITTED in sender.agreed else ()
        sender.send(flags, data, seq, ack, window, sack, tos)
        pieces = [receiver.take()]
        while sum(len(piece.data) for piece in pieces) < len(data):
            pieces.append(receiver.take())
        declines = receiver is self.target and self.client.ecn and not self.target.ecn
        flags, tos = (flags & ~(ECE | CWR), tos & ~3) if declines else (flags, tos)
        most = receiver.offer.mss or LEAST_MSS
        edges = tuple((edge + receiver.isn) & MASK for edge in sack) if SACK_PERMITTED in receiver.agreed else ()
        for piece in pieces:
            assert (piece.seq, piece.ack, piece.urgent, piece.ttl, piece.tos) == (start, number, 0, 63, tos)
            assert piece.data == data[:len(piece.data)] and piece.length - 40 <= most, "longer than the MSS allows"
            assert piece.window == self.shown_window(sender, window)
            assert piece.options.get(SACK, ()) == edges, f"SACK {piece.options.get(SACK)}, not {edges}"
            self.timestamps(sender, receiver, piece)
            start, data = start + len(piece.data), data[len(piece.data):]
        self.flags_of_pieces(pieces, flags)
        assert len(pieces) == 1 or sum(len(piece.data) for piece in pieces) + pieces[0].length - 40 - len(pieces[0].data) > most
        assert not self.bed.frames[0] and not self.bed.frames[1]

    def flags_of_pieces(self, pieces, flags):
        """CWR is the first piece's (RFC 3168, section 6.1.2), FIN the last one's, and so is PSH unless all have it."""
        assert pieces[-1].flags & ~CWR == flags & ~CWR and pieces[0].flags & CWR == flags & CWR
        for piece in pieces[:-1]:
            assert piece.flags & ~(CWR | PSH) == flags & ~(CWR | PSH | FIN) and piece.flags & PSH <= flags & PSH
        assert not any(piece.flags & CWR for piece in pieces[1:])

    def shown_window(self, sender, window):
        """Returns the window that the other end has to see (SPLICE 2.3)."""
        if SCALE not in self.client.agreed:
            return window
        scaled = SCALE in self.target.agreed
        if sender is self.client:
            return window if scaled else min(window << self.client.offer.scale, 65535)
        return min((window << (self.target.offer.scale if scaled else 0)) >> self.client.agreed[SCALE], 65535)

    def timestamps(self, sender, receiver, frame):
        """Timestamps stand where they were agreed, and are shifted by a constant in the target's numbers (SPLICE 2.4)."""
        assert (STAMPS in frame.options) == (STAMPS in receiver.agreed), f"timestamps: {frame.options}"
        if STAMPS not in frame.options:
            return
        value, echoed = frame.options[STAMPS]
        if receiver is self.target:
            assert value == sender.clock and echoed == (sender.echo - self.shift) & MASK
            return
        self.client_sees(value)
        if STAMPS in sender.agreed:
            if self.shift is None:
                self.shift = (value - sender.clock) & MASK
                assert ((self.shift - self.shown[0] + self.first_clock - self.elapsed + 1) & MASK) <= 2, "shift of the timestamps"
            assert (value, echoed) == ((sender.clock + self.shift) & MASK, sender.echo)

    def client_sees(self, value):
        """The client's idea of our clock never goes back: RFC 7323 (section 5) would have it drop the segment."""
        assert (value - self.shown[-1]) & MASK < 1 << 31, f"TSval goes back from {self.shown[-1]} to {value}"
        self.shown.append(value)

    def converse(self):
        """Full segments both ways, with congestion marks where they were agreed (RFC 3168)."""
        client, target = self.client, self.target
        ect = [ECT0 if end.ecn else 0 for end in (client, target)]
        self.passes(target, PSH | ACK, b"t" * min(target.most, 1460), tos=0xB8 | (CE if target.ecn else 0))
        self.passes(client, ACK | (ECE if target.ecn else 0))
        self.passes(target, PSH | ACK | (CWR if target.ecn else 0), b"odd", tos=ect[1])
        self.passes(client, ACK)
        self.passes(client, PSH | ACK | (CWR if client.ecn else 0), b"c" * min(client.most, 1460), tos=0x28 | ect[0])
        self.passes(target, ACK)

    def lose(self, sender, receiver):
        """Every other segment of a sender is lost on its way to the engine: blocks, then what was lost, then a D-SACK."""
        start = sender.seq
        for hole in range(3):
            sender.seq += 100
            self.passes(sender, ACK, bytes([hole]) * 100)
            blocks = [(start + 100 + 200 * block, start + 200 + 200 * block) for block in range(hole, -1, -1)]
            self.passes(receiver, ACK, ack=start, sack=sum(blocks, ()))
        for hole in range(3):
            self.passes(sender, PSH | ACK, b"lost!" * 20, seq=start + 200 * hole)
            receiver.ack = start + 200 * (hole + 1)
            self.passes(receiver, ACK, sack=(start + 200 * hole, start + 200 * hole + 50))

    def windows(self):
        """Windows from nothing to the widest, each way."""
        for window in (0, 1, 1000, 65535):
            self.passes(self.client, ACK, window=window)
            self.passes(self.target, ACK, window=window)

    def challenges(self):
        """A SYN in the window is answered by the engine itself, with the last numbers relayed and the options agreed."""
        for end, flags in ((self.client, SYN), (self.target, SYN | ACK)):
            end.send(flags, seq=end.seq if end is self.client else 0)
            answer = end.take()
            assert (answer.flags, answer.data, answer.seq, answer.ack) == (ACK, b"", end.ack, end.seq)
            assert set(answer.options) == ({STAMPS} & set(end.agreed))
            if end is self.client and STAMPS in answer.options and STAMPS not in self.target.agreed:
                self.client_sees(answer.options[STAMPS][0])
        assert not self.bed.frames[0] and not self.bed.frames[1]

    def close(self):
        """The client first, with payload; the target first; both at once; or a RST."""
        first, second = (self.client, self.target) if self.turn & 1 else (self.target, self.client)
        if self.turn % 8 == 0:
            first.send(RST | ACK)
            assert second.take().flags == RST | ACK
        elif self.turn % 4 == 2:
            self.passes(first, FIN | ACK)
            self.passes(second, FIN | ACK, ack=second.ack - 1)
            self.passes(first, ACK)
            self.passes(second, ACK)
        else:
            self.passes(first, FIN | PSH | ACK, b"bye")
            self.passes(second, ACK)
            self.passes(second, FIN | ACK)
            self.passes(first, ACK)
        self.bed.now += 2_100_000
        self.bed.run()
        assert self.bed.states() == {} and not self.bed.frames[0] and not self.bed.frames[1]
