"""Segments larger than the target takes are split; the least MSS is learnt (SPLICE 2.6), on virtual time."""
import random

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether

from tcp.negotiated import SACK, STAMP, STAMPS, offer, scale, stamped
from tcp.proxy import FEW, NUMBER, TURNS, handshake, settings

DATA = random.Random(6).randbytes(1460)


def narrow(proxy, target_mss, options=(), agreed=(), client_mss=1460, **fields):
    """Returns client and target of a connection that is bound, whose target takes less than the client was told."""
    client, answer = offer(proxy, list(options), client_mss, **fields)
    client.send("PA", b"0", options=stamped(STAMP + 2, 0) if any(name == "Timestamp" for name, _ in options) else [])
    server = proxy.accept("a")
    server.send("SA", options=list(agreed), mss=target_mss)
    server.expect("PA", data=b"0")
    server.send("A", options=stamped(7, STAMP) if any(name == "Timestamp" for name, _ in agreed) else [])
    client.expect("A")
    return client, server


def parts(proxy, server):
    """Takes what has come to a target; returns [(relative number, flags, payload)]; every checksum is right."""
    segments = proxy.received.pop((server.own, server.other), ())
    assert all(segment.intact for segment in segments)
    return [((segment.seq - server.other_isn) % 2**32, segment.flags, segment.data) for segment in segments]


def test_rule_2_6_a_segment_larger_than_the_target_takes_is_split(proxy):
    client, server = narrow(proxy, 600)
    client.send("PA", DATA)
    assert parts(proxy, server) == [(2, "A", DATA[:600]), (602, "A", DATA[600:1200]), (1202, "PA", DATA[1200:])]
    assert proxy.count("split") == 1
    server.send("A", ack=1462)
    client.expect("A", ack=1462)


@pytest.mark.parametrize("length", [1, 599, 600])
def test_rule_2_6_what_fits_passes_in_one_piece(proxy, length):
    client, server = narrow(proxy, 600)
    client.send("PA", DATA[:length])
    server.expect("PA", seq=2, data=DATA[:length], ttl=63)
    assert proxy.count("split") == 0


@pytest.mark.parametrize("length, lengths", [(601, [600, 1]), (1200, [600, 600]), (1201, [600, 600, 1])])
def test_rule_2_6_every_part_but_the_last_is_full(proxy, length, lengths):
    client, server = narrow(proxy, 600)
    client.send("PA", DATA[:length])
    assert [len(data) for _, _, data in parts(proxy, server)] == lengths


def test_rule_2_6_fin_and_push_are_the_last_parts_and_cwr_the_first_ones(proxy):
    client, server = narrow(proxy, 600)
    client.send("FPAEC", DATA)
    assert [flags for _, flags, _ in parts(proxy, server)] == ["AEC", "AE", "FPAE"]
    assert proxy.state_of(client) == "half_closed"
    server.send("A", ack=1463)
    client.expect("A", ack=1463)


def test_rule_2_6_urgent_data_stay_where_they_are(proxy):
    client, server = narrow(proxy, 600)
    client.send("PAU", DATA, urgent=700)
    segments = proxy.received.pop((server.own, server.other))
    assert [("U" in segment.flags, segment.urgent) for segment in segments] == [(True, 700), (True, 100), (False, 0)]


def test_rule_2_6_options_and_header_fields_are_copied(proxy):
    lead = [*SACK, *STAMPS, *scale(7)]
    client, server = narrow(proxy, 600, lead, [*SACK, ("Timestamp", (7, STAMP)), *scale(2)])
    client.send("A", DATA[:1400], options=stamped(STAMP + 9, 0), window=77, tos=0x28, ttl=33)
    frames = [Ether(segment.frame) for segment in proxy.received.pop((server.own, server.other))]
    assert [len(frame[TCP].payload) for frame in frames] == [588, 588, 224]
    assert {(frame[IP].tos, frame[IP].ttl, frame[TCP].window, frame[TCP].options[-1][1][0]) for frame in frames} == {
        (0x28, 32, 77, STAMP + 9)}
    assert [frame[IP].id - frames[0][IP].id for frame in frames] == [0, 1, 2]


def test_rule_2_6_parts_leave_in_order_and_before_what_follows_them(proxy):
    client, server = narrow(proxy, 600)
    proxy.burst(client.segment("PA", DATA[:100]), client.segment("PA", DATA), client.segment("PA", DATA[:50]),
                client.segment("A", DATA[:700]))
    got = parts(proxy, server)
    assert [(number, len(data)) for number, _, data in got] == [
        (2, 100), (102, 600), (702, 600), (1302, 260), (1562, 50), (1612, 600), (2212, 100)]


def test_rule_2_6_a_corrupt_segment_is_not_split_but_dropped(proxy):
    client, server = narrow(proxy, 600)
    client.send("PA", DATA, corrupt=True)
    assert proxy.drops() == {"tcp_checksum": 1}


def test_rule_2_6_the_other_direction_is_left_as_it_is(proxy):
    client, server = narrow(proxy, 600)
    server.send("PA", DATA)
    client.expect("PA", data=DATA)


def test_rule_2_6_without_mbufs_a_segment_that_was_to_be_split_is_lost_and_counted(proxy):
    client, server = narrow(proxy, 600)
    with proxy.starving(2):
        client.send("PA", DATA)
    assert proxy.drops() == {"no_mbuf": 3}


@settings(mbufs=4096, ring_size=2048)
def test_rule_2_6_more_parts_than_a_pass_can_make_are_counted(proxy):
    client, server = narrow(proxy, 64)
    proxy.burst(*(client.segment("A", DATA) for _ in range(30)))
    whole = 512 // 23
    assert len(parts(proxy, server)) == whole * 23 and proxy.drops() == {"segments_full": 30 - whole}


def test_rule_2_6_the_next_client_is_told_the_least_mss_of_the_group(proxy):
    client, server = narrow(proxy, 1000)
    other, answer = offer(proxy, [], service=NUMBER)
    assert answer.mss == 1000
    other.send("R")
    other, answer = offer(proxy, [], service=TURNS)
    assert answer.mss == 1000, "the target stands behind that service too"
    other.send("R")
    other, answer = offer(proxy, [], service=FEW)
    assert answer.mss == 1460
    other.send("R")


def test_rule_2_6_the_syn_ack_sent_again_tells_the_same(proxy):
    narrow(proxy, 1000)
    client = proxy.client(NUMBER)
    client.send("S")
    client.expect("SA", mss=1000)
    proxy.wait(1.25)
    client.expect("SA", mss=1000)
    client.send("R", seq=1)


def test_rule_2_6_a_target_that_names_no_mss_takes_536(proxy):
    client, server = narrow(proxy, None)
    client.send("PA", DATA[:1000])
    assert [len(data) for _, _, data in parts(proxy, server)] == [536, 464]
    assert offer(proxy, [])[1].mss == 536


def test_rule_2_6_a_larger_mss_of_the_target_changes_nothing(proxy):
    client, server = narrow(proxy, 8960)
    client.send("PA", DATA)
    server.expect("PA", seq=2, data=DATA)
    assert offer(proxy, [])[1].mss == 1460


def test_rule_2_6_a_client_that_was_told_sends_what_fits(proxy):
    narrow(proxy, 1000)
    client, answer = offer(proxy, [])
    client.send("PA", b"0" * 1000)
    server = proxy.accept("a")
    server.send("SA", mss=1000)
    server.expect("PA", data=b"0" * 1000)
    server.send("A")
    client.expect("A")
    client.send("PA", DATA[:1000])
    server.expect("PA", seq=1001, data=DATA[:1000])
    assert proxy.count("split") == 0


@pytest.mark.parametrize("seed", range(4))
def test_rule_2_6_the_parts_make_up_the_stream(proxy, seed):
    dice = random.Random(seed)
    mss = dice.choice((64, 100, 536, 1300))
    client, server = narrow(proxy, mss, STAMPS, [("Timestamp", (7, STAMP))])
    got = {}
    sent = b""
    for _ in range(20):
        data = dice.randbytes(dice.randrange(1, 1448))
        client.send(dice.choice(("A", "PA")), data, options=stamped(STAMP + 3, 0))
        sent += data
        for number, _, part in parts(proxy, server):
            assert len(part) <= max(mss - 12, 64)
            got[number] = part
    assert b"".join(got[number] for number in sorted(got)) == sent
    handshake(proxy.client())
    proxy.received.clear()
