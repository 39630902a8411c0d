"""ICMP: echo to our addresses is answered as scapy would answer it; everything else is counted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_bed import CLIENT, CLIENT_MAC, SERVICE, KernelBed, checked, generated, mac_text
from scapy.layers.inet import ICMP, IP, IPOption_Router_Alert
from scapy.layers.l2 import Ether

from pipeline.kernels.batch import ANSWER, DROP, PENDING
from pipeline.kernels.icmp import answer_icmp

BED = KernelBed()


def echo(payload=b"", destination=SERVICE, port=0, ip_options=(), ip=None, **icmp):
    """Returns an ICMP packet to `destination` as a frame; an echo request unless told otherwise."""
    return bytes(
        Ether(src=mac_text(CLIENT_MAC), dst=mac_text(BED.macs[port]))
        / IP(src=CLIENT, dst=destination, options=list(ip_options), **(ip or {}))
        / ICMP(**{"type": 8, **icmp})
        / payload
    )


def answered(frame, port=0):
    """Hands one frame to the kernel; returns verdict and what the mbuf holds then."""
    BED.counters.drops[:] = 0
    BED.counters.notices[:] = 0
    count = BED.parse([frame], port)
    assert BED.batch.verdict[0] == PENDING
    answer_icmp(BED.packets, BED.batch, count, BED.state.network, BED.counters)
    verdict, found = int(BED.batch.verdict[0]), BED.frame(0)
    BED.free(count)
    return verdict, found


@generated
@given(
    st.binary(max_size=80),
    st.integers(0, 65535),
    st.integers(0, 65535),
    st.integers(0, 255),
    st.integers(0, 255),
    st.booleans(),
)
def test_an_echo_request_becomes_its_reply(payload, identifier, sequence, ttl, tos, options):
    request = echo(
        payload,
        id=identifier,
        seq=sequence,
        ip={"ttl": ttl, "tos": tos},
        ip_options=[IPOption_Router_Alert()] if options else [],
    )
    verdict, frame = answered(request)
    reply = checked(frame)
    assert verdict == ANSWER and BED.notices["echo_replies"] == 1 and not BED.drops
    assert (reply.src, reply.dst) == (mac_text(BED.macs[0]), mac_text(CLIENT_MAC))
    assert (reply[IP].src, reply[IP].dst, reply[IP].ttl, reply[IP].tos) == (SERVICE, CLIENT, 64, tos)
    assert (reply[ICMP].type, reply[ICMP].code, reply[ICMP].id, reply[ICMP].seq) == (0, 0, identifier, sequence)
    assert bytes(reply[ICMP].payload) == payload


@pytest.mark.parametrize("destination", ["10.1.0.1", "10.2.0.1"])
@pytest.mark.parametrize("port", [0, 1])
def test_every_address_of_ours_answers_by_the_port_of_the_question(destination, port):
    verdict, frame = answered(echo(b"abc", destination, port), port)
    assert verdict == ANSWER and checked(frame).src == mac_text(BED.macs[port]) and BED.batch.out_port[0] == port


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"chksum": 0x1234}, "icmp_invalid"),
        ({"destination": "10.1.0.77"}, "not_ours"),
        ({"type": 0}, "icmp_other"),
        ({"type": 13}, "icmp_other"),
        ({"type": 4}, "icmp_other"),
        ({"type": 5, "code": 1}, "icmp_other"),
        ({"code": 1}, "icmp_other"),
    ],
)
def test_everything_else_is_counted_and_left_as_it_is(change, reason):
    frame = echo(b"payload", **change)
    verdict, after = answered(frame)
    assert (verdict, BED.drops, after, BED.notices) == (DROP, {reason: 1}, frame, {})


@pytest.mark.parametrize("kind", [3, 11, 12])
def test_errors_are_left_to_the_next_stage(kind):
    frame = echo(b"payload", type=kind)
    assert answered(frame) == (PENDING, frame) and not BED.drops


@generated
@given(st.binary(min_size=1, max_size=40), st.data())
def test_one_wrong_bit_anywhere_is_found(payload, data):
    frame = bytearray(echo(payload))
    bit = data.draw(st.integers(34 * 8, len(frame) * 8 - 1))
    frame[bit // 8] ^= 1 << (bit % 8)
    assert answered(bytes(frame))[0] == DROP and BED.drops == {"icmp_invalid": 1}


def test_padding_behind_the_packet_is_not_summed():
    verdict, frame = answered(echo(b"x") + b"\xff" * 9)
    assert verdict == ANSWER
    checked(frame[:-9])
