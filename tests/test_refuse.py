"""Refuse: the RST that answers a segment of no connection (RFC 9293, section 3.10.7.1), and when there is none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_bed import CLIENT, CLIENT_MAC, PORT, SERVICE, KernelBed, checked, generated, mac_text
from scapy.layers.inet import IP, TCP, IPOption_Router_Alert

from pipeline.kernels.batch import ANSWER, DROP, PENDING, REFUSE
from pipeline.kernels.headers import ACK, FIN, RST, SYN
from pipeline.kernels.refuse import refuse

BED = KernelBed()
NUMBER, PORT_NUMBER = st.integers(0, 2**32 - 1), st.integers(0, 65535)


def refuse_all(count, now=0):
    """Runs the kernel over the first rows of the bed's batch."""
    state = BED.state
    refuse(BED.packets, BED.batch, count, state.connections, state.selection.services, state.targets, state.network, now)


def answered(frames, port=0, budget=100, segment_length=None):
    """Has segments refused; returns the verdicts and the frames that the mbufs hold then."""
    BED.counters.drops[:] = 0
    BED.counters.notices[:] = 0
    BED.state.budget[0] = budget
    count = BED.parse(frames, port, segment_length)
    assert (BED.batch.verdict[:count] == PENDING).all()
    BED.batch.verdict[:count] = REFUSE
    refuse_all(count)
    found = [BED.frame(row) for row in range(count)]
    verdicts = BED.batch.verdict[:count].tolist()
    BED.free(count)
    return verdicts, found


@generated
@given(
    NUMBER,
    NUMBER,
    st.integers(0, 255).filter(lambda control: not control & RST),
    st.binary(max_size=60),
    PORT_NUMBER,
    st.sampled_from([PORT, 1, 65535]),
    st.booleans(),
    st.booleans(),
    st.binary(max_size=6),
)
def test_the_reset_is_the_one_of_the_standard(seq, ack, control, payload, sport, dport, tagged, options, padding):
    frame = BED.segment(
        payload,
        seq=seq,
        ack=ack,
        flags=control,
        sport=sport,
        dport=dport,
        tag={"vlan": 0, "prio": 1} if tagged else None,
        ip_options=[IPOption_Router_Alert()] if options else [],
        options=[("MSS", 1460)],
    )
    (verdict,), (answer,) = answered([frame + padding])
    reset = checked(answer)
    assert verdict == ANSWER and BED.notices["resets_sent"] == 1 and not BED.drops
    assert (reset.src, reset.dst) == (mac_text(BED.macs[0]), mac_text(CLIENT_MAC))
    assert (reset[IP].src, reset[IP].dst, reset[IP].ihl, reset[IP].len) == (SERVICE, CLIENT, 5, 40)
    tcp = reset[TCP]
    assert (tcp.sport, tcp.dport, tcp.options, tcp.window) == (dport, sport, [], 0)
    if control & ACK:
        assert (tcp.seq, tcp.ack, int(tcp.flags)) == (ack, 0, RST)
    else:
        occupied = len(payload) + bool(control & SYN) + bool(control & FIN)
        assert (tcp.seq, tcp.ack, int(tcp.flags)) == (0, (seq + occupied) % 2**32, RST | ACK)
    assert len(answer) == 54 + 4 * tagged


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"flags": "R"}, "stray_segment"),
        ({"flags": "RA"}, "stray_segment"),
        ({"dport": 81}, "stray_segment"),
        ({"dport": 81, "flags": "S"}, "stray_segment"),
        ({"destination": "10.1.0.77"}, "not_ours"),
    ],
)
def test_some_get_no_reset(change, reason):
    frame = BED.segment(b"x", **change)
    verdicts, (after,) = answered([frame])
    assert verdicts == [DROP] and BED.drops == {reason: 1} and after == frame and not BED.notices
    assert BED.state.budget[0] == 100


def test_resets_stop_when_the_budget_is_spent():
    verdicts, _ = answered([BED.segment(seq=number, flags="S") for number in range(5)], budget=2)
    assert verdicts == [ANSWER] * 2 + [DROP] * 3
    assert BED.drops == {"reset_rate_limit": 3} and BED.state.budget[0] == 0 and BED.notices == {"resets_sent": 2}


def test_a_segment_in_several_mbufs_is_dropped_whole():
    frame = BED.segment(bytes(200))
    verdicts, (after,) = answered([frame], segment_length=100)
    assert verdicts == [DROP] and sum(BED.drops.values()) == 1 and after == frame


def test_the_answer_leaves_by_the_port_of_the_question():
    BED.parse([BED.segment(port=1, destination="10.2.0.1")], 1)
    BED.batch.verdict[0], BED.batch.out_port[0], BED.state.budget[0] = REFUSE, 0, 1
    mbuf = BED.arena.native.mbuf[int(BED.batch.mbuf[0])]
    mbuf.offload = 1 << 8
    refuse_all(1)
    assert BED.batch.out_port[0] == 1 and mbuf.offload == 0
    assert checked(BED.frame(0)).src == mac_text(BED.macs[1])
    BED.free(1)


def test_rows_with_another_verdict_are_left_alone():
    frame = BED.segment(b"x")
    count = BED.parse([frame])
    refuse_all(count)
    assert BED.batch.verdict[0] == PENDING and BED.frame(0) == frame
    BED.free(count)
