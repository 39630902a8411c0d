"""One run of the fuzz: an engine with hundreds of live connections, fed half round by half round, and judged."""
import random

import numpy as np

from . import before_binding, moves, own_segments, rest, splice, translation
from .ends import (
    CLIENT,
    CONNECTING,
    ECN,
    FREE,
    NO,
    SACK,
    SCALING,
    STAMPS,
    STATES,
    SYN_RECEIVED,
    TARGET,
    TIME_WAIT,
    Connection,
    Fault,
    kind_of,
)
from .engine import Engine
from .services import TIMEOUTS, configuration_text, make_services, request
from .wire import CWR, ECE, FIN, IP_SUM, MASK, RST, SYN, TCP_SUM, Came, flags_text, matrix, ones_sum, seal, sums

SECOND, TICK = 1_000_000, 10_000
LIVE, A_ROUND, CAPACITY = 500, 512, 4096
CLIENTS = [0x0A010002 + number for number in range(100)]
TIMEOUT = [round(TIMEOUTS[name] * SECOND) if name in TIMEOUTS else 0 for name in STATES]


def _drawn(weights, size=1024):
    """Returns the moves, each as often as its weight says, so that one is drawn in a single step."""
    total = sum(weights.values())
    return [move for move, weight in weights.items() for _ in range(max(round(weight / total * size), 1))]


ORDINARY, EDGE = _drawn(moves.ORDINARY), _drawn(moves.EDGE)
OPENING, FIRST, LEAVING = _drawn(moves.OPENING), _drawn(moves.FIRST), _drawn(moves.LEAVING)
ANSWERING = _drawn(moves.ANSWERING)
NAMES_OF_EDGES = moves.EDGES


class Episode:
    """Plays `segments` segments against a fresh engine; everything follows from `seed`. `play` raises Fault."""

    def __init__(self, seed, segments, coverage):
        self.seed, self.segments, self.coverage = seed, segments, coverage
        self.dice = random.Random(seed)
        self.services = make_services(self.dice)
        self.engine = Engine(configuration_text(self.services, CAPACITY), CLIENTS, self.dice)
        self.now, self.made, self.number = SECOND, 0, 0
        self.live, self.quiet, self.gone = [], [], []
        self.by_client, self.by_local, self.by_isn, self.uses = {}, {}, {}, {}
        self.declined, self.declined_by = {}, {}
        self.places = iter(self._client_places())
        self.strays, self.waiting = {}, {}
        self.touched = {}
        self.entries, self.identity = [], 0
        self.index, self.parts = np.full(1 << 16, -1, np.int64), {}

    def _client_places(self):
        ports = list(range(1024, 65536))
        self.dice.shuffle(ports)
        for port in ports:
            for address in CLIENTS:
                yield address, port

    # What is played.

    def play(self):
        """Plays all segments, lets all time-outs pass, and sees that nothing is left."""
        try:
            self._clock(TICK)
            while self.made < self.segments:
                moves.WIDE[0] = 0.2 if self.dice.random() < 0.06 else 0.0
                for side in (CLIENT, TARGET):
                    self._half_round(side)
            self._finish()
        except Fault as fault:
            if fault.args and "seed" not in str(fault):
                raise Fault(f"{fault}\nseed {self.seed}, segment {self.made}, virtual time {self.now} us") from fault
            raise

    def _finish(self):
        left = None
        for _ in range(400):
            self._clock(100_000)
            left = [connection for connection in self.live + self.quiet if not connection.over and connection.seen[TARGET]]
            if not left:
                break
        if left:
            raise Fault(f"{len(left)} connections have not ended\n{left[0].story()}")
        self.engine.conserved()

    def _half_round(self, side):
        dice = self.dice
        chance = dice.random()
        self._clock(dice.randrange(100, 9000) if chance < 0.6 else dice.randrange(10_000, 60_000) if chance < 0.9
                    else dice.randrange(100_000, 350_000))
        while len(self.live) < LIVE:
            self._new_connection()
        self._clear()
        able = self.live if side == CLIENT else [
            each for each in self.live if each.bound or each.ends[TARGET] and each.states >> CONNECTING & 1]
        while len(self.entries) < A_ROUND:
            chance = dice.random()
            if chance < 0.91 and able:
                self._segments(able[int(dice.random() * len(able))], side)
            else:
                self._rest(side, dice)
            if not able and len(self.entries) > 50:
                break
        self._exchange(side)

    def _new_connection(self):
        dice, place = self.dice, next(self.places)
        service = dice.choice(self.services)
        connection = Connection(self.number, service, place, request(service, dice))
        self.number += 1
        self._equip(connection)
        self.live.append(connection)
        self.by_client[place] = connection

    def _equip(self, connection):
        """Gives a client its initial number, often near 2**32, and its options."""
        dice, client = self.dice, connection.ends[CLIENT]
        client.isn = -1 - self.number % 2000 & MASK if dice.random() < 0.5 else dice.randrange(1 << 32)
        self.by_isn[client.isn] = connection
        connection.offer = dice.choice((7, 7, 7, 0, SACK, STAMPS, SCALING, SACK | STAMPS)) | dice.choice((0, ECN))
        connection.uses = self.uses
        connection.client_scale = dice.choice((0, 2, 7, 10, 14)) if connection.offer & SCALING else 0
        client.takes = dice.choice((1460, 1460, 1400, 536, 100))
        client.stamp_start = dice.choice((-2000, 0, dice.randrange(1 << 32))) & MASK
        client.window = dice.choice((65535, 8192, 1024, 100))

    # What is sent.

    def _segments(self, connection, side):
        """Has an end send one segment, or a few in a row."""
        dice = self.dice
        if connection.number in self.touched and self.touched[connection.number][1]:
            return
        if dice.random() < 0.0008 and connection in self.live:  # else it was opened anew
            self.live.remove(connection)
            self.quiet.append(connection)
            return
        for _ in range(1 if dice.random() < 0.75 else dice.randrange(2, 5)):
            if connection.over or not self._one(connection, side):
                break

    def _move(self, connection, side):
        """Draws what an end does next."""
        dice = self.dice
        if connection.bound:
            if connection.ends[side].dead:
                return moves.reset_of_the_dead
            if (side == CLIENT and connection.states == 1 << TIME_WAIT and connection.number not in self.touched
                    and dice.random() < 0.1):
                return None
            if connection.gives_port_back():
                return moves.acknowledgement
            if side == TARGET and connection.service.rule == "first" and dice.random() < 0.05 and splice.untouched(connection):
                return moves.reset_exact
            table = ORDINARY if dice.random() < 0.27 else EDGE
        elif side == TARGET:
            table = ANSWERING
        elif connection.states == 1 << FREE:
            return moves.open_connection
        elif connection.leaving:
            table = LEAVING
        else:
            table = OPENING if connection.states == 1 << SYN_RECEIVED else FIRST
        return table[int(dice.random() * len(table))]

    def _one(self, connection, side):
        """Makes one segment; returns whether another may follow at once."""
        dice = self.dice
        move = self._move(connection, side)
        if move is None:
            self._reopen(connection)
            return False
        segment = move(connection, side, dice)
        if segment is None:
            if connection.ends[side].dead or not connection.bound and (side == TARGET or connection.states < 4):
                return False
            segment, move = moves.acknowledgement(connection, side, dice), moves.acknowledgement
        self._send(connection, segment, move in NAMES_OF_EDGES)
        return connection.number not in self.touched or not self.touched[connection.number][1]

    def _reopen(self, connection):
        """A new SYN in TIME_WAIT: the old connection is over, the client has a new one (RFC 9293, 3.6.1; RFC 6191)."""
        old, client = connection, connection.ends[CLIENT]
        self.live.remove(old)
        fresh = Connection(self.number, old.service, old.client_place, request(old.service, self.dice))
        self.number += 1
        self._equip(fresh)
        fresh.ends[CLIENT].isn = client.isn + max(client.top_may, client.sent) + self.dice.choice((1, 2, 1000)) & MASK
        if old.agreed & fresh.offer & STAMPS and self.dice.random() < 0.5:
            fresh.ends[CLIENT].isn = client.isn - self.dice.choice((0, 1, 1000, 1 << 30)) & MASK
            fresh.ends[CLIENT].stamp_start = client.stamp_start + self.dice.choice((1, 1000, 1 << 30)) & MASK
        self.by_isn[fresh.ends[CLIENT].isn] = fresh
        fresh.above = old.seen[TARGET] + old.ends[TARGET].top & MASK
        self.coverage.count(TIME_WAIT, CLIENT, "SYN", SYN_RECEIVED)
        old.end()
        old.replaced = True
        self.gone.append(old)
        self.live.append(fresh)
        self.by_client[old.client_place] = fresh
        self._send(fresh, moves.open_connection(fresh, CLIENT, self.dice), True)

    def _send(self, connection, segment, edge):
        """Dresses a segment, tells the model of it, and lists its frame."""
        dice, side = self.dice, segment.side
        me, before = connection.ends[side], connection.state()
        if connection.number not in self.touched:
            connection.mark()
        moves.stamped(connection, segment, self.now, dice)
        if dice.random() < 0.3:
            segment.ttl, segment.tos = dice.randrange(2, 256), dice.randrange(64) << 2
            if connection.bound and segment.ttl == 2 and not segment.control & (RST | SYN | 1):
                segment.ttl = 1
        if not segment.control & (SYN | RST) and connection.bound and (
                connection.agreed if side == CLIENT else connection.accepted) & ECN and dice.random() < 0.3:
            segment.tos |= dice.randrange(4)
            segment.control |= dice.choice((0, 0, ECE, CWR, ECE | CWR))
        if not connection.bound and side == CLIENT and segment.length and connection.agreed & ECN and dice.random() < 0.2:
            segment.tos |= 3
            connection.marked = True
        segment.intact = dice.random() > 0.025 or before == FREE
        if segment.kind in ("fin", "first fin", "early fin"):
            me.fin = segment.end - 1
        if segment.position <= me.sent or segment.jump or segment.kind == "early fin":
            if segment.kind not in ("at end", "beyond end", "first edge", "first gap", "no ack", "first no ack", "after fin",
                                    "far") or segment.jump:
                me.sent = max(me.sent, segment.end) if not segment.control & (SYN | RST) else me.sent
        parts = 1 + segment.length // translation.LEAST_PART if segment.length > translation.LEAST_PART else 1
        identity = self._identity(parts)
        octets = translation.encode(connection, segment, identity, dice)
        if not connection.bound and side == CLIENT and (segment.length or segment.control & FIN):
            for part in range(parts):                    # behind a gap it may wait, and pass once it is bound
                self.waiting[identity + part] = segment
        where = connection.ends[1 - side].told if connection.bound else connection.have + 1 + (connection.fin_held != NO)
        kind = kind_of(segment, where)
        self._tell(connection, segment)
        after = connection.state()
        connection.note("{} at {} us: {} (seq {}) now {}", len(self.entries) + self.made, self.now, segment,
                        me.isn + segment.position & MASK, connection.states)
        stop = after is None or not connection.bound and (after != before or bool(set(connection.owes) - {"more"}))
        if segment.intact and before is not None and before != FREE or before == FREE and segment.control & SYN:
            if after is not None:
                self.coverage.count(before, side, kind, after)
            else:
                connection.before = before, side, kind
        self.touched[connection.number] = connection, stop
        self.entries.append((segment, octets))
        if connection.perhaps_refused or connection.replaces and before is not None and not connection.bound:
            self._excuse(connection)
        self.coverage.shares["live" if segment.intact else "corrupt"] += 1
        if segment.intact and edge:
            self.coverage.shares["edge"] += 1
        self.coverage.shares["kind " + segment.kind] += 1

    def _excuse(self, connection):
        """Its target has reset it before anything was sent: what came of that before in the same burst need not pass."""
        for each, _ in self.entries:
            if each is not None and each.connection is connection:
                each.want = min(each.want, splice.MAY)

    def _tell(self, connection, segment):
        if connection.bound:
            splice.relay(connection, segment, self.now)
        elif segment.side == TARGET:
            before_binding.from_target(connection, segment, self.now)
            if connection.bound:
                lacking = connection.asked & ~connection.accepted
                name, target = connection.service.name, connection.target.name
                self.declined[name] = self.declined.get(name, 0) | lacking
                self.declined_by[target] = self.declined_by.get(target, 0) | lacking
        elif connection.states == 1 << FREE:
            connection.declined = self.declined.get(connection.service.name, 0)
            for target in connection.service.targets:
                connection.declined_shared |= self.declined_by.get(target.name, 0)
            before_binding.opens(connection, segment, self.now)
        else:
            before_binding.from_client(connection, segment, self.now)

    def _rest(self, side, dice):
        """A frame that belongs to no live connection."""
        identity, chance = self._identity(), dice.random()
        if chance < 0.3:
            self.entries.append((None, rest.malformed(side, identity, dice)))
            self.coverage.shares["malformed"] += 1
            return
        if chance < 0.6 and self.gone:
            connection = self.gone[int(dice.random() * len(self.gone))]
            if connection.over and not connection.replaced and (
                    side == CLIENT or connection.bound and self.uses[connection.local, connection.target.place] is connection):
                self._late(connection, side, identity)
                return
        octets, places, answers = rest.stray(self.services, side, identity, dice)
        self.strays.setdefault(places, []).extend(answers)
        self.entries.append((None, octets))
        self.coverage.shares["stray"] += 1

    def _late(self, connection, side, identity):
        """A segment of a connection that is over."""
        segment = moves.acknowledgement(connection, side, self.dice)
        segment.length = self.dice.choice((0, 0, 9))
        octets = translation.encode(connection, segment, identity, self.dice)
        came = Came(octets, side)
        self.strays.setdefault((came.destination, came.source), []).extend(
            rest.answers(came.control, came.seq, came.ack, segment.length))
        self.entries.append((None, octets))
        self.coverage.shares["late"] += 1

    def _clear(self):
        """Begins a half round: nothing is on its way but what waits in the proxy."""
        self.entries, self.touched = [], {}
        self.index.fill(-1)
        self.parts = {}

    def _identity(self, parts=1):
        """Returns the IPv4 identification of the next frame, with room for its parts should it be split.

        None comes again while a frame may still be on its way.
        """
        if self.identity + parts > 0xFFFF:
            self.identity = 0
        first = self.identity + 1
        self.identity += parts
        self.index[first:first + parts] = len(self.entries)
        return first

    # What comes of it.

    def _clock(self, microseconds):
        """Lets time pass; what is due comes out."""
        self.now += microseconds
        own_segments.CLOCK[0] = True
        self._clear()
        for _ in range(1 + (len(self.live) + len(self.quiet)) // 256):
            self.engine.run(self.now, 6)
            self._collect(None)
        own_segments.CLOCK[0] = False
        self._settle(True)
        self.touched = {}

    def _exchange(self, side):
        rows, lengths = matrix([octets for _, octets in self.entries])
        whole = np.array([segment is not None or self._sealed(octets) for segment, octets in self.entries])
        part = rows[whole]
        seal(part)
        rows[whole] = part
        for number, (segment, _) in enumerate(self.entries):
            if segment is not None and not segment.intact:
                rows[number, TCP_SUM + self.dice.randrange(2)] ^= self.dice.randrange(1, 255)
        self.engine.remember_drops()
        self.engine.feed(side, rows, lengths)
        self.made += len(self.entries)
        self.engine.run(self.now, len(rows) // 64 + 4)
        self._collect(side)
        self._settle(False)

    @staticmethod
    def _sealed(octets):
        """Says whether a frame of the rest gets right checksums: all that have the headers for it."""
        return len(octets) >= 54

    def _collect(self, side):
        """Takes what came out of both ports and judges every frame."""
        passed = np.zeros(len(self.entries), np.int64)
        for port in (CLIENT, TARGET):
            rows, lengths = self.engine.take(port)
            if len(rows) == 0:
                continue
            ip, tcp = sums(np.ascontiguousarray(rows))
            if not ((rows[:, 12] == 8) & (rows[:, 13] == 0) & (ip == 0xFFFF)).all():
                raise Fault(f"a frame that is not IPv4, or its checksum wrong: {rows[ip != 0xFFFF][:1, :64].tobytes().hex()}")
            identities = rows[:, 18].astype(np.int64) << 8 | rows[:, 19]
            numbers = self.index[identities]
            through = (numbers >= 0) & (port == (1 - side if side is not None else -1))
            self._through(rows[through], lengths[through], (numbers[through], identities[through]), tcp[through] == 0xFFFF, passed)
            errors = (rows[:, 23] == 1) & ~through
            for number in np.flatnonzero(errors).tolist():
                self._icmp_error(port, rows[number, :lengths[number]].tobytes())
            for number in np.flatnonzero(~through & ~errors).tolist():
                self._own(port, rows[number, :lengths[number]].tobytes(), tcp[number] == 0xFFFF)
        for number, (segment, _) in enumerate(self.entries):
            if segment is not None and (passed[number] > 1 or passed[number] == 0 and segment.want == splice.MUST):
                self._blame(segment.connection, f"{'passed twice' if passed[number] else 'did not pass'}: {segment}")

    def _through(self, rows, lengths, named, right, passed):
        """Frames that the proxy has passed on: each has to be the translation of the one with its identification."""
        if len(rows) == 0:
            return
        numbers, identities = named
        np.add.at(passed, numbers, 1)
        wanted = []
        for number, identity in zip(numbers.tolist(), identities.tolist(), strict=True):
            segment = self.entries[number][0]
            if segment is None:
                raise Fault(f"a frame of no live connection has passed: {self.entries[number][1].hex()}")
            connection = segment.connection
            if segment.want == 0:
                self._blame(connection, f"must not pass: {segment}")
            wanted.append(translation.expected(connection, segment, identity))
        expected, sizes = matrix(wanted, rows.shape[1])
        given = np.zeros_like(expected)
        given[:, :rows.shape[1]] = rows
        for at in (IP_SUM, TCP_SUM):
            given[:, at:at + 2] = 0
        same = (given == expected).all(1) & (sizes == lengths)
        for row, (number, alike, whole, length) in enumerate(zip(numbers.tolist(), same.tolist(), right.tolist(),
                                                                 lengths.tolist(), strict=True)):
            segment = self.entries[number][0]
            connection = segment.connection
            if not alike and self._is_part(segment, rows[row, :length].tobytes(), passed, number):
                continue
            if not alike:
                self._compare(connection, segment, rows[row, :length].tobytes())
            if segment.side == CLIENT and segment.stamps and connection.accepted & STAMPS:
                value = segment.stamps[0] + connection.client_shift & MASK
                if connection.last_stamp is None:  # that of our SYN
                    client = connection.ends[CLIENT]
                    connection.last_stamp = client.stamp_start + client.first_stamp + connection.client_shift & MASK
                if 0 < (value - connection.last_stamp & MASK) < 1 << 31:
                    connection.last_stamp = value
            if whole != segment.intact:
                self._blame(connection, f"rule 1.5: its TCP checksum is {'right' if whole else 'wrong'}: {segment}")
            translation.deliver(connection, segment, whole)

    def _compare(self, connection, segment, octets):
        self._judge(connection, lambda: translation.compare(connection, segment, octets, self.now), segment)

    def _is_part(self, segment, octets, passed, number):
        """Says whether a frame is a part of a segment that was split (SPLICE 2.6); the parts have to join up, in order."""
        if segment.side == TARGET or not segment.length:
            return False
        length = len(Came(octets, TARGET).payload)
        if length >= segment.length or not segment.intact:
            return False
        done = self.parts.get(number, 0)
        self._judge(segment.connection, lambda: translation.compare_part(segment.connection, segment, octets, done,
                                                                             self.now), segment)
        self.parts[number] = done + length
        if done + length < segment.length:
            passed[number] -= 1         # it has passed once its last part has
        else:
            translation.deliver(segment.connection, segment, True)
            self.coverage.shares["split"] += 1
        return True

    def _icmp_error(self, port, octets):
        """Only a segment whose TTL is spent is answered with an ICMP error, which quotes it (RFC 792; RFC 1812, 5.3.1)."""
        quoted = octets[42:]
        number = int(self.index[int.from_bytes(quoted[4:6])])
        segment, sent = self.entries[number] if number >= 0 else (None, b"")
        spent = segment is not None and octets[34:36] == b"\x0b\0" and segment.ttl == 1
        large = octets[34:36] == b"\3\4" and len(sent) > 14 + 1500
        own_segments.require(segment is not None and port == segment.side and (spent or large), "an ICMP error has a cause",
                             octets.hex())
        own_segments.require(octets[30:34] == sent[26:30] and quoted[:10] == sent[14:24] and quoted[12:28] == sent[26:42],
                             "an ICMP error quotes what it answers", octets.hex(), sent.hex())
        own_segments.require(ones_sum(octets[34:]) == 0xFFFF, "the checksum of an ICMP error", octets.hex())
        self.coverage.shares["ICMP errors"] += 1

    def _own(self, port, octets, right):
        """A frame of the proxy's own."""
        came = Came(octets, port)
        if not right:
            raise Fault(f"the TCP checksum of a frame of the proxy's own is wrong: {came}")
        answers = self.strays.get((came.source, came.destination))
        answer = came.control, came.seq, came.ack
        if answers and answer in answers:
            answers.remove(answer)
            return
        known = self.by_client.get(came.destination) if port == CLIENT else self._of_target(came)
        if known is None:
            if port == TARGET and came.control == RST and self.engine.client_of(came.source, came.destination) in self.by_client:
                raise Fault(f"rule 3.1: a segment for a target given up goes to its successor: {came}")
            raise Fault(f"a frame for an end that has sent nothing: {came}")
        if known.number not in self.touched:
            known.mark()
        known.note("  proxy at {} us: {}", self.now, came)
        if came.identity and port == TARGET:
            self._has_waited(known, came)
            return
        self._judge(known, lambda: own_segments.sent(known, port, came, self.now, self.dice), came)
        if known.local == came.source and port == TARGET:
            self.by_local[came.source, came.destination] = known
        self.touched.setdefault(known.number, (known, False))

    def _has_waited(self, connection, came):
        """A client's segment that came before its turn, and before binding, passes now: translated like any other."""
        segment = self.waiting.pop(came.identity, None)
        if segment is None or segment.connection is not connection or not segment.intact:
            self._blame(connection, f"passed, and nobody has sent it: {came}")
        since = connection.reset_since
        splice.relay(connection, segment, self.now)
        connection.reset_since = since      # it may have passed before what came in this half round
        if segment.want == 0:
            self._blame(connection, f"must not pass: {segment}")
        if not self._is_part(segment, came.octets, {id(segment): 0}, id(segment)):
            self._compare(connection, segment, came.octets)
            translation.deliver(connection, segment, True)
        self.coverage.shares["waited"] += 1
        self.touched.setdefault(connection.number, (connection, False))

    def _of_target(self, came):
        """Returns the connection of a frame toward a target: by places, for a SYN by the engine's table or the client's number."""
        if came.control & SYN:
            found = self.by_client.get(self.engine.client_of(came.source, came.destination))
            return found if found and found.ends[CLIENT].isn == came.seq else self.by_isn.get(came.seq) or found
        return self.by_local.get((came.source, came.destination))

    def _judge(self, connection, judgement, shown):
        try:
            judgement()
        except Fault as fault:
            self._blame(connection, f"{fault}\n  in {shown}")

    def _blame(self, connection, what):
        raise Fault(f"{what}\nseed {self.seed}, segment {self.made}, virtual time {self.now} us; drops in this half round: "
                    f"{self.engine.drops()}\n{connection.story()}")

    # In which state the proxy is.

    def _settle(self, time_passed):
        """Compares every connection's state with what is allowed, and sees that nothing is still owed."""
        watched = self.live + self.quiet
        missing = [each for each in watched if each.row < 0 and each.seen[TARGET] is not None]
        if missing:
            rows = self.engine.rows()
            for each in missing:
                each.row = rows.get(each.client_place[0] << 16 | each.client_place[1], -1)
        rows = np.array([each.row for each in watched], np.int64)
        keys = np.array([each.client_place[0] << 16 | each.client_place[1] for each in watched], np.int64)
        ended = False
        for connection, state in zip(watched, self.engine.states(rows, keys).tolist(), strict=True):
            if connection.states != 1 << state or connection.over:
                self._adopt(connection, state)
                ended |= connection.over
            if time_passed:
                self._late_timers(connection, state)
        for connection, _ in self.touched.values():
            self._debts(connection)
        if ended:
            self.gone += [each for each in watched if each.over]
            del self.gone[:-200]
            self.live = [each for each in self.live if not each.over]
            self.quiet = [each for each in self.quiet if not each.over]
        self.strays = {}

    def _adopt(self, connection, state):
        """Takes over the state that the proxy has chosen among those allowed, or finds that it is none of them."""
        allowed = connection.states >> state & 1
        if state == FREE and not allowed:
            self._timed_out(connection)
            return
        if not allowed and not connection.loose:
            self._blame(connection, f"the proxy is in {STATES[state]}")
        before = connection.before[0] if connection.before else None
        if connection.before is not None:
            self.coverage.count(*connection.before, state)
            connection.before = None
        if state == FREE:
            if connection.seen[TARGET] is None and not connection.over:
                return
            connection.end()
            return
        connection.adopt(state, before, self.now)

    def _timed_out(self, connection):
        """A connection that is gone must have been idle for its time, and its ends told so (SPLICE 4.2, issue 3, part 5)."""
        since = connection.quiet_since or connection.entered
        soonest, states = 1 << 60, [number for number in range(8) if connection.states >> number & 1]
        for number in states:
            start = since if connection.bound else connection.entered
            soonest = min(soonest, start + TIMEOUT[number] - 2 * TICK)
        silent = False
        if connection.reset_since is not None:
            silent = self.now >= connection.reset_since + TIMEOUT[TIME_WAIT] - 2 * TICK
            soonest = min(soonest, connection.reset_since + TIMEOUT[TIME_WAIT] - 2 * TICK)
        if self.now < soonest and not connection.loose:
            self._blame(connection, f"ended without cause, {soonest - self.now} us before its time-out")
        told = connection.resets
        wanted = (states != [SYN_RECEIVED], connection.ends[TARGET] is not None)
        if not silent and TIME_WAIT not in states and not all(told[side] or not wanted[side] for side in (0, 1)):
            self._blame(connection, f"timed out without RST to both sides: {told}")
        for number in states[:1]:
            self.coverage.count(number, None, "silent end" if silent and not any(told) else "time-out", FREE)
        connection.end()

    def _late_timers(self, connection, state):
        """What should have ended by now, or been sent again."""
        if state == FREE:
            return
        if any(connection.resets) and not connection.lingers:
            self._blame(connection, "a RST to an end, but the connection lives on")
        latest = connection.active + max(TIMEOUT[number] for number in range(8)
                                         if connection.states >> number & 1 or number == state)
        if self.now > latest + 12 * TICK:
            self._blame(connection, f"still in {STATES[state]}, idle for {self.now - connection.active} us")
        if connection.due and self.now > connection.patience and not connection.loose:
            self._blame(connection, f"rule 3.1: {connection.due} was not sent again")

    def _debts(self, connection):
        """What the proxy had to send by now."""
        owes = connection.owes
        if "held" in owes:
            target = connection.ends[TARGET]
            least = min(connection.have, target.edge - 1, 1)
            if connection.covered >= least and (least or connection.fin_sent):
                del owes["held"]
        if owes and not connection.over and not connection.loose:
            self._blame(connection, f"the proxy owes {sorted(owes)}")
        unanswered = [answer for answer in connection.answers if answer[3]]
        if unanswered and not connection.loose:
            self._blame(connection, f"unanswered: {[(flags_text(each[1]), each[2]) for each in unanswered]}")
        owes.clear()
        connection.may.clear()
        connection.answers.clear()
        connection.perhaps_refused = False
