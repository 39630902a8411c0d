"""Rewrite: what leaves has the other side's addresses, ports and numbers, and checksums that scapy agrees with."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from kernel_bed import CLIENT, SERVICE, KernelBed, address, checked, generated, mac_text
from scapy.layers.inet import IP, TCP, IPOption_Router_Alert
from scapy.layers.l2 import Dot1Q, Ether

from pipeline.kernels.batch import ABSORB, FORWARD, PENDING, REPORT
from pipeline.kernels.connection import CLIENT as CLIENT_SIDE
from pipeline.kernels.connection import TARGET
from pipeline.kernels.neighbours import INCOMPLETE, PROBING, REACHABLE, STATIC
from pipeline.kernels.rewrite import rewrite

BED = KernelBed()
OTHER_MACS = (0x02CC00000001, 0x02DD00000002)
LEFT, RIGHT = BED.knows("10.1.0.99", 0, OTHER_MACS[0]), BED.knows("10.2.0.99", 1, OTHER_MACS[1])
NUMBER, PORT_NUMBER = st.integers(0, 2**32 - 1), st.integers(0, 65535)
EDGES = st.one_of(st.sampled_from([0, 1, 0xFFFF, 0x10000, 0xFFFFFFFF, 0x80000000]), NUMBER)
CONNECTIONS = st.fixed_dictionaries(
    {
        "remote_address": st.tuples(NUMBER, NUMBER),
        "local_address": st.tuples(NUMBER, NUMBER),
        "remote_port": st.tuples(PORT_NUMBER, PORT_NUMBER),
        "local_port": st.tuples(PORT_NUMBER, PORT_NUMBER),
        "shift": st.tuples(EDGES, EDGES),
    }
)
SEGMENTS = st.fixed_dictionaries(
    {
        "sport": PORT_NUMBER,
        "dport": PORT_NUMBER,
        "seq": EDGES,
        "ack": EDGES,
        "window": PORT_NUMBER,
        "flags": st.integers(0, 255),
        "options": st.sampled_from([[], [("Timestamp", (5, 6)), ("NOP", None)], [("NOP", None), ("NOP", None)]]),
    }
)
IPS = st.fixed_dictionaries(
    {"ttl": st.integers(2, 255), "tos": st.integers(0, 255), "id": PORT_NUMBER, "flags": st.sampled_from(["", "DF"])}
)


def dotted(number):
    """Returns an IPv4 address (int) as text."""
    return ".".join(map(str, int(number).to_bytes(4, "big")))


def bound(fields, number=3):
    """Gives connection `number` its fields and a neighbour on each side."""
    hot = BED.connections.hot[number]
    for name, values in fields.items():
        hot[name] = values
    hot.neighbour = (LEFT, RIGHT)
    return hot


def passed(frame, side, number=3, segment_length=None, verdict=FORWARD):
    """Parses one frame, has it rewritten as a segment from `side`, and returns what it has become (bytes)."""
    count = BED.parse([frame], side, segment_length)
    assert count == 1 and BED.batch.verdict[0] == PENDING
    BED.batch.flow[0], BED.batch.verdict[0] = 2 * number + side, verdict
    rewrite(BED.packets, BED.state.base[0], BED.batch, 1, BED.connections, BED.state.network, 0)
    found = BED.frame(0)
    BED.free(1)
    return found


@generated
@given(CONNECTIONS, SEGMENTS, IPS, st.integers(0, 1), st.binary(max_size=70), st.booleans(), st.booleans())
def test_every_header_is_translated_and_nothing_else_changes(fields, tcp, ip, side, payload, tagged, with_options):
    hot, other = bound(fields), 1 - side
    options = [IPOption_Router_Alert()] if with_options else []
    before = Ether(
        BED.segment(
            payload, port=side, ip=ip, ip_options=options, tag={"vlan": 0, "prio": 2} if tagged else None, **tcp
        )
    )
    after = checked(passed(bytes(before), side))
    assert (after.src, after.dst) == (mac_text(BED.macs[other]), mac_text(OTHER_MACS[other]))
    assert BED.batch.out_port[0] == other
    assert (after[IP].src, after[IP].dst) == (dotted(hot.local_address[other]), dotted(hot.remote_address[other]))
    assert (after[TCP].sport, after[TCP].dport) == (hot.local_port[other], hot.remote_port[other])
    assert after[TCP].seq == (before[TCP].seq + int(hot.shift[side])) % 2**32
    assert after[TCP].ack == (before[TCP].ack - int(hot.shift[other])) % 2**32
    assert after[IP].ttl == before[IP].ttl - 1
    for name in ("tos", "id", "flags", "frag", "len", "ihl", "options"):
        assert getattr(after[IP], name) == getattr(before[IP], name), name
    for name in ("window", "flags", "dataofs", "urgptr", "options", "reserved"):
        assert getattr(after[TCP], name) == getattr(before[TCP], name), name
    assert bytes(after[TCP].payload) == bytes(before[TCP].payload) == payload
    assert (Dot1Q in after) == tagged


@generated
@given(CONNECTIONS, SEGMENTS, st.integers(0, 1), st.binary(max_size=40), st.integers(1, 0xFFFE))
def test_a_corrupt_segment_stays_corrupt(fields, tcp, side, payload, wrong_by):
    bound(fields)
    right = Ether(BED.segment(payload, port=side, **tcp))
    wrong = right.copy()
    wrong[TCP].chksum = (right[TCP].chksum + wrong_by) % 0xFFFF
    difference = Ether(passed(bytes(wrong), side))[TCP].chksum - Ether(passed(bytes(right), side))[TCP].chksum
    assert (difference - wrong_by) % 0xFFFF == 0


@generated
@given(CONNECTIONS, SEGMENTS, st.binary(max_size=70))
@example(
    {"remote_address": (0, 0), "local_address": (0, 0), "remote_port": (0, 0), "local_port": (0, 0), "shift": (0, 0)},
    {"sport": 0, "dport": 0, "seq": 0, "ack": 0, "window": 0, "flags": 0, "options": []},
    b"",
)
def test_there_and_back_a_segment_is_what_it_was(fields, tcp, payload):
    """The addresses of both sides are made those of the frame, so that the second way undoes the first."""
    hot = bound(fields)
    hot.remote_address[CLIENT_SIDE], hot.local_address[CLIENT_SIDE] = address(CLIENT), address(SERVICE)
    hot.remote_port[CLIENT_SIDE], hot.local_port[CLIENT_SIDE] = tcp["sport"], tcp["dport"]
    before = BED.segment(payload, **tcp)
    there = Ether(passed(before, CLIENT_SIDE))
    answer = there.copy()
    answer.dst = mac_text(BED.macs[1])
    answer[IP].src, answer[IP].dst = there[IP].dst, there[IP].src
    answer[TCP].sport, answer[TCP].dport = there[TCP].dport, there[TCP].sport
    answer[TCP].seq, answer[TCP].ack = there[TCP].ack, there[TCP].seq
    back = checked(passed(bytes(answer), TARGET))
    assert (back[IP].src, back[IP].dst) == (SERVICE, CLIENT)
    assert (back[TCP].sport, back[TCP].dport, back[TCP].seq, back[TCP].ack) == (
        tcp["dport"],
        tcp["sport"],
        tcp["ack"],
        tcp["seq"],
    )


def test_a_segment_in_several_mbufs_keeps_its_payload():
    bound({"shift": (5, 7)})
    payload = bytes(range(256)) * 4
    after = checked(passed(BED.segment(payload), CLIENT_SIDE, segment_length=100))
    assert bytes(after[TCP].payload) == payload


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"ip": {"ttl": 1}}, "ttl_exceeded"),
        ({"ip": {"ttl": 0}}, "ttl_exceeded"),
        ({"payload": bytes(1461)}, "larger_than_mtu"),
        ({"payload": bytes(1460)}, None),
        ({"payload": bytes(1456), "ip_options": [IPOption_Router_Alert()]}, None),
        ({"payload": bytes(1457), "ip_options": [IPOption_Router_Alert()]}, "larger_than_mtu"),
        ({"payload": bytes(1461), "tag": {"vlan": 0}}, "larger_than_mtu"),
        ({"payload": bytes(1460), "tag": {"vlan": 0}}, None),
    ],
)
def test_what_cannot_go_on_is_dropped_untouched(change, reason):
    bound({"shift": (5, 7)})
    BED.counters.drops[:] = 0
    frame = BED.segment(**change)
    found = passed(frame, CLIENT_SIDE)
    assert BED.batch.verdict[0] == (REPORT if reason else FORWARD)
    assert BED.drops == ({reason: 1} if reason else {})
    assert (found == frame) == bool(reason)


@pytest.mark.parametrize(
    ("state", "goes"), [(0, False), (INCOMPLETE, False), (REACHABLE, True), (PROBING, True), (STATIC, True)]
)
def test_only_a_next_hop_that_is_known_gets_packets(state, goes):
    bound({"shift": (5, 7)})
    entry, frame = BED.state.network.neighbours[RIGHT], BED.segment(b"x")
    BED.counters.drops[:] = 0
    entry.state = state
    found = passed(frame, CLIENT_SIDE)
    entry.state = REACHABLE
    assert (found != frame) == goes and BED.drops == ({} if goes else {"unresolved_neighbour": 1})


def test_rows_with_another_verdict_are_left_alone():
    bound({"shift": (5, 7)})
    frame = BED.segment(b"x")
    assert passed(frame, CLIENT_SIDE, verdict=ABSORB) == frame


def test_offload_marks_of_the_way_in_do_not_go_out():
    bound({"shift": (5, 7)})
    BED.parse([BED.segment(b"x")])
    BED.batch.flow[0], BED.batch.verdict[0] = 6, FORWARD
    mbuf = BED.arena.native.mbuf[int(BED.batch.mbuf[0])]
    mbuf.offload = 1 << 8
    rewrite(BED.packets, BED.state.base[0], BED.batch, 1, BED.connections, BED.state.network, 0)
    assert mbuf.offload == 0
    BED.free(1)
