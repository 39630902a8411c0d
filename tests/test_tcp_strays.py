"""Segments of no connection: reset or dropped, never a RST for a RST, and not too many (SPLICE 4.6)."""
import pytest

from tcp.proxy import FEW, MACS, NUMBER, SERVICE, SOURCE, STRICT, TARGETS, TURNS, connect, settings
from tcp.segments import build


@pytest.mark.parametrize("flags, data, seq, ack, answer, answer_seq, answer_ack", [
    ("A", b"", 5000, 777, "R", 777, 0),
    ("PA", b"hello", 5000, 777, "R", 777, 0),
    ("FA", b"", 5000, 0, "R", 0, 0),
    ("SA", b"", 5000, 777, "R", 777, 0),
    ("P", b"hello", 5000, 0, "RA", 0, 5005),
    ("F", b"", 5000, 0, "RA", 0, 5001),
    ("FP", b"hello", 2**32 - 3, 0, "RA", 0, 3),
    ("", b"", 5000, 0, "RA", 0, 5000),
])
def test_the_rst_has_the_numbers_of_rfc_9293_3_10_7_1(proxy, flags, data, seq, ack, answer, answer_seq, answer_ack):
    client = proxy.client(isn=0)
    client.send(flags, data, seq=seq, ack=ack)
    rst = client.expect(answer, window=0, ttl=64, urgent=0, options=[])
    assert (rst.seq, rst.ack) == (answer_seq, answer_ack) and len(rst.frame) == 54
    assert proxy.count("resets_sent") == 1 and proxy.count("opened") == 0


@pytest.mark.parametrize("flags", ["R", "RA", "RFA", "SR"])
def test_a_rst_is_never_answered(proxy, flags):
    client = proxy.client()
    client.send(flags, seq=5, ack=7)
    assert proxy.drops() == {"stray_segment": 1}


@pytest.mark.parametrize("flags", ["A", "PA", "FA", "R", "SA"])
def test_rule_4_6_a_service_may_drop_strays(proxy, flags):
    client = proxy.client(STRICT)
    client.send(flags, b"hello", seq=5, ack=7)
    assert proxy.drops() == {"stray_segment": 1}


def test_a_syn_to_no_service_is_refused(proxy):
    client = proxy.client(1234, isn=5000)
    client.send("S", seq=0, mss=1460)
    rst = client.expect("RA", window=0, options=[])
    assert (rst.seq, rst.ack) == (0, 5001) and proxy.count("opened") == 0


def test_a_syn_with_payload_to_no_service_is_refused_with_all_of_it_acknowledged(proxy):
    client = proxy.client(1234, isn=5000)
    client.send("S", b"early data", seq=0)
    assert client.expect("RA").ack == 5011


@pytest.mark.parametrize("flags", ["S", "A", "PA", "R"])
def test_what_is_not_for_our_addresses_is_dropped(proxy, flags):
    client = proxy.client()
    client.other = ("10.1.0.77", TURNS)
    client.send(flags, b"hello" if "P" in flags else b"", seq=0, ack=7)
    assert proxy.drops() == {"not_ours": 1} and proxy.count("opened") == 0


def test_a_service_does_not_listen_at_our_other_address(proxy):
    client = proxy.client()
    client.other = (SOURCE, TURNS)
    client.send("S")
    client.expect("RA", ack=1)


def test_a_stray_of_a_target_to_our_source_address_is_reset(proxy):
    frame = build(TARGETS["a"], (SOURCE, 12345), MACS[1], "PA", 5, 77, b"who are you")
    proxy.burst(frame, port=1)
    [rst] = proxy.received.pop((TARGETS["a"], (SOURCE, 12345)))
    assert (rst.flags, rst.seq, rst.port) == ("R", 77, 1)


def test_rule_4_5_a_syn_of_a_target_to_our_source_address_opens_nothing(proxy):
    proxy.burst(build(TARGETS["a"], (SOURCE, 12345), MACS[1], "S", 5), port=1)
    proxy.silent()
    assert proxy.drops() == {"syn_of_target": 1} and proxy.count("opened") == 0


def test_a_targets_segment_to_a_source_port_of_another_connection_is_a_stray(proxy):
    client = proxy.client(FEW)
    server = connect(proxy, client, b"x", "few")
    proxy.burst(build(TARGETS["a"], server.other, MACS[1], "PA", 5, 77, b"not yours"), port=1)
    [rst] = proxy.received.pop((TARGETS["a"], server.other))
    assert rst.flags == "R" and proxy.state_of(client) == "established"
    client.nothing()


def test_a_segment_from_another_port_of_the_client_is_a_stray(proxy):
    client = proxy.client(NUMBER)
    server = connect(proxy, client, b"0")
    other = proxy.client(NUMBER)
    other.send("PA", b"not mine", seq=8, ack=1)
    other.expect("R", seq=1)
    server.nothing()


@settings(reset_rate=10)
def test_rule_4_6_resets_are_rate_limited_and_the_budget_comes_back(proxy):
    client = proxy.client()
    for _ in range(3):
        proxy.burst(*(client.segment("A", seq=seq, ack=7) for seq in range(20)))
    assert len(proxy.received.pop((client.own, client.other))) == 10
    assert proxy.drops() == {"reset_rate_limit": 50}
    proxy.wait(0.5)
    proxy.burst(*(client.segment("A", seq=seq, ack=7) for seq in range(20)))
    assert len(proxy.received.pop((client.own, client.other))) == 5
    proxy.wait(60, 1)
    proxy.burst(*(client.segment("A", seq=seq, ack=7) for seq in range(20)))
    assert len(proxy.received.pop((client.own, client.other))) == 10


@settings(reset_rate=0)
def test_a_rate_of_none_answers_nothing(proxy):
    client = proxy.client()
    client.send("A", seq=5, ack=7)
    assert proxy.drops() == {"reset_rate_limit": 1}


@pytest.mark.parametrize("flags", ["S", "A", "R", "FA"])
def test_rule_1_5_a_corrupt_stray_is_not_answered(proxy, flags):
    client = proxy.client()
    client.send(flags, seq=5, ack=7, corrupt=True)
    assert proxy.drops() == {"tcp_checksum": 1}


def test_a_stray_with_options_and_payload_gets_a_plain_rst(proxy):
    client = proxy.client()
    client.send("PA", b"x" * 1200, seq=5, ack=7, options=[("NOP", None), ("NOP", None), ("Timestamp", (1, 2))])
    assert len(client.expect("R", seq=7).frame) == 54


def test_strays_and_a_syn_of_one_client_in_one_burst(proxy):
    client = proxy.client()
    proxy.burst(client.segment("A", seq=5, ack=7), client.segment("S", seq=0), client.segment("PA", b"x", seq=1, ack=9))
    client.expect("SA", seq=0, ack=1)
    assert {client.expect("R", seq=None).flags for _ in range(2)} == {"R"}
    assert proxy.state_of(client) == "syn_received"


def test_the_service_address_is_answered_from_that_address(proxy):
    client = proxy.client()
    client.send("A", seq=5, ack=7)
    rst = client.expect("R")
    assert rst.source == (SERVICE, TURNS) and rst.destination == client.own and rst.port == 0
