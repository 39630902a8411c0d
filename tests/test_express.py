"""Express: usual segments leave as the stages would have sent them, and everything else is left to the stages."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_bed import NOW, KernelBed, checked, generated, mac_text
from numba.core import config
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether

from pipeline.kernels import express, outbox, rewrite, transition
from pipeline.kernels.batch import PENDING, SENT
from pipeline.kernels.connection import (
    BOUND,
    ESTABLISHED,
    FIN_SEEN,
    HOLDS,
    OFFERED_SCALE,
    OWNS,
    PROMISED_SCALING,
    RST_SEEN,
    SCALED,
    SPECIAL,
    SPLICED,
    STAMPED,
    STATES,
)
from pipeline.kernels.counters import RECEIVED_PAYLOAD, SENT_PAYLOAD
from pipeline.kernels.neighbours import INCOMPLETE, REACHABLE

OTHER_MACS = (0x02CC00000001, 0x02DD00000002)
NUMBERS = 3, 5
"""Connections whose segments share a burst."""
PORTS = {3: 40003, 5: 40005}


class Bed(KernelBed):
    """A worker's state with two spliced connections and a next hop on each side."""

    def __init__(self):
        super().__init__()
        self.hops = self.knows("10.1.0.99", 0, OTHER_MACS[0]), self.knows("10.2.0.99", 1, OTHER_MACS[1])
        self.counters.states[ESTABLISHED] = len(NUMBERS)

    def splice(self, number, **fields):
        """Makes a connection an established one: client 1000 and target 5000 come next, both have acknowledged all."""
        hot, cold = self.connections.hot[number], self.connections.cold[number]
        cold.target, cold.special, cold.agreed = 0, 0, PROMISED_SCALING | 10 << OFFERED_SCALE
        hot.remote_address, hot.local_address = (0x0A010002, 0x0A02000B), (0x0A010001, 0x0A020001)
        hot.remote_port, hot.local_port = (PORTS[number], 8080), (80, 50000 + number)
        hot.neighbour, hot.state, hot.closing, hot.options, hot.scales = self.hops, ESTABLISHED, 0, BOUND | SPLICED, 0
        hot.shift, hot.next, hot.acked, hot.stamp, hot.timestamp_shift = (0, 7), (1000, 5000), (5007, 1000), 9, 0
        for name, value in fields.items():
            hot[name] = value
        return hot

    def arrive(self, rows):
        """Parses segments ((number, side, frame) each) into the batch, with their flows."""
        frames = [frame for _, _, frame in rows]
        self.write(frames)
        for row, (number, side, _) in enumerate(rows):
            self.parse_row(row, side)
            self.batch.flow[row] = 2 * number + side

    def parse_row(self, row, port):
        """Parses one row as received by a port."""
        from pipeline.kernels.parse import parse

        columns = type(self.batch)(*(column[row:] for column in self.batch))
        parse(self.packets, self.base, columns, 1, port, self.state.network, self.counters)

    def express(self, count):
        """Has the express kernel go over the batch; returns how many rows it leaves."""
        return express.usual(self.packets, self.batch, count, self.connections, self.state.network, self.state.outbox, NOW)

    def stages(self, count):
        """Has the stages behind it deal with the batch."""
        state = self.state
        transition.transition(self.packets, self.base, self.batch, count, self.connections, state.selection.services,
                              state.targets, state.network, state.records, NOW)
        rewrite.rewrite(self.packets, self.base, self.batch, count, self.connections, state.network, NOW)
        outbox.dispose(self.batch, count, self.connections.parts, state.outbox, self.counters)

    def empty(self, count):
        """Frees what has been discarded, forgets what was ordered; returns the posted frames of both ports."""
        state = self.state
        self.pool.release(state.outbox.released[:state.outbox.to_release[0]].copy())
        state.outbox.to_release[0] = 0
        for listed in (self.connections.touched, self.connections.releases, self.connections.segments):
            listed.filled[0] = 0
        return [self.posted(port) for port in (0, 1)]


BED = Bed()


def segment(number, side, seq, ack, payload=b"", **fields):
    """Returns a segment of one side of a connection, in that side's own numbers."""
    ports = ({"sport": PORTS[number], "dport": 80} if side == 0 else {"sport": 8080, "dport": 50000 + number})
    return BED.segment(payload, port=side, seq=seq % 2**32, ack=ack % 2**32, **ports, **fields)


def one(side, seq, ack, payload=b"", before=None, **fields):
    """Has one segment of connection 3 come; returns whether express has sent it, its frame then, and what was posted."""
    frame = segment(3, side, seq, ack, payload, **fields)
    BED.arrive([(3, side, frame)])
    left = BED.express(1)
    sent = BED.batch.verdict[0] == SENT
    assert left == int(not sent)
    if not sent:
        assert BED.batch.verdict[0] == PENDING and BED.frame(0) == frame
        BED.free(1)
    return sent, BED.empty(1)[1 - side]


def test_a_segment_leaves_translated_and_moves_the_numbers_on():
    hot, events = BED.splice(3), BED.counters.events
    events[:] = 0
    sent, (frame,) = one(0, 1000, 5007, b"hello")
    after = checked(frame)
    assert sent and (after.src, after.dst) == (mac_text(BED.macs[1]), mac_text(OTHER_MACS[1]))
    assert (after[IP].src, after[IP].dst, after[IP].ttl) == ("10.2.0.1", "10.2.0.11", 63)
    assert (after[TCP].sport, after[TCP].dport, after[TCP].seq, after[TCP].ack) == (50003, 8080, 1000, 5000)
    assert hot.next[0] == 1005 and hot.stamp == NOW // 10_000
    assert (events[0, RECEIVED_PAYLOAD], events[1, SENT_PAYLOAD]) == (1, 1)
    sent, (frame,) = one(1, 5000, 1005, b"world")
    after = checked(frame)
    assert sent and (after[IP].src, after[IP].dst) == ("10.1.0.1", "10.1.0.2")
    assert (after[TCP].seq, after[TCP].ack) == (5007, 1005)
    assert (hot.next[1], hot.acked[1]) == (5005, 1005)


def test_windows_and_timestamps_are_translated():
    BED.splice(3, options=BOUND | SPLICED | SCALED | STAMPED, scales=7 | 3 << 4, timestamp_shift=1_000_000)
    stamps = [("NOP", None), ("NOP", None), ("Timestamp", (70, 1_000_090))]
    sent, (frame,) = one(0, 1000, 5007, b"x", window=512, options=stamps)
    assert sent and checked(frame)[TCP].options[2] == ("Timestamp", (70, 90)) and checked(frame)[TCP].window == 512
    stamps = [("NOP", None), ("NOP", None), ("Timestamp", (95, 70))]
    sent, (frame,) = one(1, 5000, 1001, b"y", window=0x8000, options=stamps)
    assert sent and checked(frame)[TCP].options[2] == ("Timestamp", (1_000_095, 70))
    assert checked(frame)[TCP].window == 0x8000 >> 7


@pytest.mark.parametrize("fields", [
    *({"state": state} for state in range(len(STATES)) if state != ESTABLISHED),
    {"options": SPLICED}, {"options": BOUND | SPLICED | HOLDS}, {"options": BOUND | SPLICED | SPECIAL},
    {"closing": FIN_SEEN}, {"closing": RST_SEEN},
])
def test_what_is_not_an_established_connection_as_usual_is_left(fields):
    BED.splice(3, **fields)
    assert one(0, 1000, 5007, b"hello") == (False, [])


@pytest.mark.parametrize("change", [
    {"flags": "S"}, {"flags": "FA"}, {"flags": "R"}, {"flags": "RA"}, {"flags": "SA"}, {"flags": "P"}, {"flags": ""},
    {"options": [("SAck", (1, 2))]}, {"options": [("NOP", None)] * 4},
    {"options": [("Timestamp", (5, 6)), ("NOP", None), ("NOP", None)]}, {"ip": {"ttl": 1}}, {"payload": bytes(1461)},
])
def test_a_segment_that_is_not_usual_is_left(change):
    BED.splice(3)
    assert one(0, 1000, 5007, **{"payload": b"x", **change}) == (False, [])


@pytest.mark.parametrize(("seq", "length", "usual"), [
    (1000, 0, False), (1000, 1, True), (999, 0, False), (999, 1, True), (999, 2, True), (1000 + 65535, 1, True),
    (1000 + 65535, 2, False), (1000 - 10, 5, False), (2**31 + 1000, 5, False),
])
def test_only_what_is_in_the_window_and_says_something_is_usual(seq, length, usual):
    hot = BED.splice(3)
    assert one(0, seq, 5007, bytes(length))[0] == usual
    assert hot.next[0] == max(1000, seq + length) if usual else hot.next[0] == 1000
    hot = BED.splice(3)
    assert one(0, 1000, 5007 + 1, b"")[0] and hot.acked[0] == 5007, "nothing was sent that this could acknowledge"


def test_numbers_that_begin_anew_are_left():
    hot = BED.splice(3, next=(2**32 - 4, 5000), acked=(5007, 2**32 - 4))
    assert not one(0, 2**32 - 4, 5007, bytes(8))[0] and not one(0, 2, 5007, b"ab")[0]
    assert one(0, 2**32 - 4, 5007, bytes(3))[0] and hot.next[0] == 2**32 - 1


def test_a_next_hop_has_to_be_known():
    BED.splice(3)
    entry = BED.state.network.neighbours[BED.hops[1]]
    entry.state = INCOMPLETE
    assert not one(0, 1000, 5007, b"x")[0]
    entry.state = REACHABLE
    assert one(0, 1000, 5007, b"x")[0]


def test_a_segment_waits_for_one_of_its_connection_that_is_left():
    for number in NUMBERS:
        BED.splice(number)
    rows = [(3, 0, segment(3, 0, 1000, 5007, b"first")), (3, 0, segment(3, 0, 1005, 5007, flags="FA")),
            (5, 0, segment(5, 0, 1000, 5007, b"other")), (3, 0, segment(3, 0, 1000, 5007, b"first")),
            (3, 1, segment(3, 1, 5000, 1005, b"back"))]
    BED.arrive(rows)
    assert BED.express(5) == 3
    assert BED.batch.verdict[:5].tolist() == [SENT, PENDING, SENT, PENDING, PENDING]
    sent = [Ether(frame)[TCP].sport for frame in BED.empty(5)[1]]
    assert sent == [50003, 50005]
    BED.pool.release(BED.batch.mbuf[[1, 3, 4]])


def test_a_target_that_may_take_back_our_own_acknowledgement_is_left():
    BED.splice(3, options=BOUND | SPLICED | OWNS)
    assert not one(1, 5000, 1000, b"x")[0] and one(0, 1000, 5007, b"x")[0]


def test_rows_of_no_connection_are_left():
    BED.arrive([(3, 0, segment(3, 0, 1000, 5007, b"x"))])
    BED.batch.flow[0] = -1
    assert BED.express(1) == 1 and BED.batch.verdict[0] == PENDING
    BED.free(1)


NEAR = st.sampled_from([-70_000, -2, -1, 0, 1, 2, 1460, 65_535, 65_536, 70_000])
ROWS = st.lists(st.tuples(
    st.sampled_from(NUMBERS), st.integers(0, 1), NEAR, NEAR, st.sampled_from([0, 1, 2, 1460]),
    st.sampled_from(["A", "A", "A", "A", "PA", "PA", "FA", "R", "S", "UA", "EA"]), st.integers(0, 65535),
    st.sampled_from(["", "", "stamps", "stamps", "sack", "odd"])), min_size=1, max_size=6)
STARTS = st.tuples(st.sampled_from([1000, 2**32 - 1, 2**32 - 1460, 0, 2**31]), st.sampled_from([5000, 0, 2**32 - 2]),
                   st.sampled_from([0, 7, 2**32 - 1]), st.sampled_from([0, SCALED, STAMPED, SCALED | STAMPED, OWNS | STAMPED]),
                   st.integers(0, 14), st.integers(0, 14), st.sampled_from([0, 1, 0xFFFFFFFF]))
OPTIONS = {"": [], "stamps": [("NOP", None), ("NOP", None), ("Timestamp", (70, 90))],
           "sack": [("NOP", None), ("NOP", None), ("SAck", (5000, 5010))],
           "odd": [("Timestamp", (70, 90)), ("NOP", None), ("NOP", None)]}


if config.DISABLE_JIT:  # test_unjitted.py runs it as plain Python: compiled, all stages would have to be for its own ports
    @generated
    @given(STARTS, ROWS)
    def test_all_is_as_without_it(start, rows):
        """A burst with and without: the same frames in the same order for each connection, and the same state afterwards."""
        client, target, shift, options, scale, target_scale, stamp_shift = start
        found = []
        for with_express in (True, False):
            bed = Bed()
            for number in NUMBERS:
                bed.splice(number, next=(client, target), shift=(0, shift), acked=((target + shift) % 2**32, client),
                           options=BOUND | SPLICED | options, scales=scale | target_scale << 4, timestamp_shift=stamp_shift)
            made = []
            for number, side, seq, ack, length, flags, window, kind in rows:
                own, theirs = ((client, target + shift), (target, client))[side]
                made.append((number, side, segment(number, side, own + seq, theirs + ack, bytes(length), flags=flags, window=window,
                                                   options=OPTIONS[kind])))
            bed.arrive(made)
            count = len(rows)
            left = bed.express(count) if with_express else count
            if left > 0:
                bed.stages(count)
            found.append(told(bed, count))
        assert found[0] == found[1]


def told(bed, count):
    """What came of a burst: frames by port and connection, records, counters."""
    ordered = [column[:int(bed.connections.segments.filled[0])].tolist() for column in bed.connections.segments[1:]]
    by_connection = {}
    for port, frames in enumerate(bed.empty(count)):
        for frame in frames:
            seen = Ether(frame)
            by_connection.setdefault((port, seen[TCP].sport, seen[TCP].dport), []).append(frame)
    records = {(kind, number, name): np.asarray(getattr(bed.connections, kind)[number][name]).tolist() for kind in ("hot", "cold")
               for number in NUMBERS for name in getattr(bed.connections, kind).dtype.names}
    return by_connection, ordered, records, bed.counters.events.tolist(), bed.counters.states.tolist(), bed.drops, bed.notices
