"""FIRST_DATA: the client is connected, and its first payload has to name a target."""
import random

import pytest

from tcp.proxy import FIRST, HELD_BYTES, NUMBER, PATH, STRICT, TARGETS, close, handshake, one_worker, settings

REQUEST = b"GET /b/index.html HTTP/1.1\r\nHost: x\r\n\r\n"


def test_the_acknowledgement_alone_sends_no_syn_to_any_target(proxy):
    client = proxy.client()
    handshake(client)
    proxy.wait(5)
    proxy.silent()
    assert proxy.state_of(client) == "first_data" and proxy.event("target", "sent_syn") == 0


def test_the_first_payload_sends_the_syn(proxy):
    client = proxy.client()
    handshake(client, mss=1300, window=5000)
    client.send("PA", b"hello", window=4000)
    proxy.accept("a", window=4000, mss=1300, ttl=64, dont_fragment=True)
    assert proxy.state_of(client) == "connecting"
    assert proxy.event("client", "received_payload") == 1 and proxy.event("target", "sent_syn") == 1


def test_payload_in_the_handshakes_last_segment(proxy):
    client = proxy.client()
    client.send("S")
    client.expect("SA")
    client.ack = 1
    client.send("PA", b"hello")
    server = proxy.accept("a")
    server.send("SA")
    server.expect("PA", seq=1, ack=1, data=b"hello")


def test_rule_1_2_payload_is_not_acknowledged_by_the_proxy(proxy):
    client = proxy.client()
    handshake(client)
    client.send("PA", b"hello")
    proxy.accept("a")
    proxy.wait(0.9)
    client.nothing()


@pytest.mark.parametrize("path, target", [(b"/a", "a"), (b"/b/x", "b"), (b"/", "c"), (b"/else", "c")])
def test_the_path_names_the_target(proxy, path, target):
    client = proxy.client(PATH)
    handshake(client)
    client.send("PA", b"GET " + path + b" HTTP/1.1\r\n\r\n")
    proxy.accept(target)


@pytest.mark.parametrize("number", [0, 1, 2, 7, 999_999_999_999])
def test_the_number_names_the_target(proxy, number):
    client = proxy.client(NUMBER)
    handshake(client)
    client.send("PA", b"%d and more" % number)
    proxy.accept("abc"[number % 3])


def test_targets_in_turn(proxy):
    for name in "abcabc":
        client = proxy.client()
        handshake(client)
        client.send("PA", b"hello")
        proxy.accept(name)


def test_a_payload_that_matches_nothing_is_refused_with_a_rst(proxy):
    client = proxy.client(STRICT)
    handshake(client)
    client.send("PA", b"GET /c HTTP/1.1\r\n\r\n")
    client.expect("RA", seq=1, ack=20)
    assert proxy.state_of(client) == "free" and proxy.count("refused_by_select") == 1
    [record] = proxy.records()
    assert record["release"] == {"client": "Refused", "target": "ActiveRst"} and record["octets"]["client"] == 19
    assert record["target"] is None


def test_need_more_waits_for_the_rest_of_the_request_line(proxy):
    client = proxy.client(PATH)
    handshake(client)
    client.send("PA", REQUEST[:7])
    client.expect("A", seq=1, ack=8)
    proxy.wait(0.2)
    proxy.silent()
    assert proxy.state_of(client) == "first_data"
    client.send("PA", REQUEST[7:])
    server = proxy.accept("b")
    server.send("SA")
    server.expect("PA", seq=1, ack=1, data=REQUEST)


def test_need_more_octet_by_octet(proxy):
    client = proxy.client(PATH)
    handshake(client)
    proxy.burst(*(client.segment("A", REQUEST[at:at + 1]) for at in range(len(REQUEST))))
    server = proxy.accept("b")
    server.send("SA")
    server.expect("PA", seq=1, ack=1, data=REQUEST)


def test_need_more_that_fills_the_held_bytes_goes_to_the_default(proxy):
    client = proxy.client(PATH)
    handshake(client)
    data = b"x" * HELD_BYTES
    client.send("A", data[:-1])
    client.expect("A", seq=1, ack=HELD_BYTES, window=1)
    client.send("A", data[-1:])
    server = proxy.accept("c")
    server.send("SA", mss=1460)
    server.expect("PA", seq=1, ack=1, data=data)


def test_rule_1_3_need_more_that_fills_the_held_bytes_is_refused_without_a_default(proxy):
    client = proxy.client(STRICT)
    handshake(client)
    client.send("A", b"x" * HELD_BYTES)
    client.expect("RA", seq=1, ack=1 + HELD_BYTES)
    assert proxy.records()[0]["release"]["client"] == "Refused"


def test_more_than_the_held_bytes_is_cut_and_the_rest_sent_again_by_the_client(proxy):
    client = proxy.client()
    handshake(client)
    data = bytes(range(256)) * 5
    client.send("PA", data)
    server = proxy.accept("a")
    client.send("PA", data, seq=1)
    assert proxy.drops() == {"first_data_too_long": 1}
    server.send("SA", mss=1460)
    server.expect("PA", seq=1, ack=1, data=data[:HELD_BYTES])
    server.send("A", ack=1 + HELD_BYTES)
    client.expect("A", seq=1, ack=1 + HELD_BYTES)
    client.send("PA", data[HELD_BYTES:], seq=1 + HELD_BYTES)
    server.expect("PA", seq=1 + HELD_BYTES, data=data[HELD_BYTES:])


def test_rule_1_4_the_first_copy_of_each_octet_wins(proxy):
    client = proxy.client(PATH)
    handshake(client)
    client.send("PA", b"GET /b")
    client.expect("A", seq=1, ack=7)
    client.send("PA", b"GET /a", seq=1)
    client.expect("A", seq=1, ack=7)
    client.send("PA", b"PUT /b/c HTTP/1.1\r\n\r\n", seq=1)
    server = proxy.accept("b")
    server.send("SA")
    server.expect("PA", seq=1, ack=1, data=b"GET /b/c HTTP/1.1\r\n\r\n")
    assert proxy.drops() == {"held_already": 1}


def test_a_segment_from_before_the_first_byte_is_cut(proxy):
    client = proxy.client()
    handshake(client)
    client.send("PA", b"\0hello", seq=0)
    server = proxy.accept("a")
    server.send("SA")
    server.expect("PA", seq=1, ack=1, data=b"hello")


@pytest.mark.parametrize("seq", [1 << 30, -(1 << 30), -5000])
def test_far_off_payload_changes_nothing(proxy, seq):
    client = proxy.client()
    handshake(client)
    client.send("PA", b"hello", seq=seq)
    proxy.silent()
    assert proxy.state_of(client) == "first_data" and sum(proxy.drops().values()) == 1


def test_rule_1_5_corrupt_payload_is_dropped(proxy):
    client = proxy.client()
    handshake(client)
    client.send("PA", b"hello", seq=1, corrupt=True)
    assert proxy.drops() == {"tcp_checksum": 1} and proxy.state_of(client) == "first_data"


def test_payload_that_acknowledges_what_was_never_sent_is_answered_with_ours(proxy):
    client = proxy.client()
    handshake(client)
    client.send("PA", b"hello", seq=1, ack=500)
    client.expect("A", seq=1, ack=1)
    assert proxy.state_of(client) == "first_data"


def test_a_fin_without_payload_is_answered_by_the_proxy_alone(proxy):
    client = proxy.client()
    handshake(client)
    client.send("FA")
    client.expect("FA", seq=1, ack=2)
    assert proxy.state_of(client) == "fin_wait"
    client.send("A")
    assert proxy.state_of(client) == "free"
    [record] = proxy.records()
    assert record["release"] == {"client": "PassiveClose", "target": "ActiveClose"} and record["target"] is None
    assert record["octets"] == {"client": 0, "target": 0}
    assert [name for name, _ in record["states"]["client"]] == ["SynReceived", "Established", "CloseWait", "LastAck"]


def test_our_fin_is_sent_again_until_it_is_acknowledged(proxy):
    client = proxy.client()
    handshake(client)
    client.send("FA")
    first = client.expect("FA", seq=1, ack=2)
    proxy.wait(0.32)
    assert client.expect("FA").frame == first.frame
    client.send("FA", seq=1, ack=1)
    assert client.expect("FA").frame == first.frame
    client.send("A")
    proxy.wait(3)
    assert proxy.state_of(client) == "free"


def test_a_client_that_closes_and_never_answers_times_out(proxy):
    client = proxy.client()
    handshake(client)
    client.send("FA")
    proxy.wait(61)
    while proxy.received[client.own, client.other][0].flags == "FA":
        client.expect("FA", seq=1, ack=2)
    client.expect("RA", seq=1, ack=2)
    assert proxy.records()[0]["release"] == {"client": "Timeout", "target": "Timeout"}


def test_a_fin_with_the_payload_is_handed_over_behind_it(proxy):
    client = proxy.client()
    handshake(client)
    client.send("FPA", b"bye")
    server = proxy.accept("a")
    server.send("SA")
    server.expect("FPA", seq=1, ack=1, data=b"bye")
    assert proxy.state_of(client) == "half_closed"


def test_a_fin_ends_the_waiting_for_more(proxy):
    client = proxy.client(PATH)
    handshake(client)
    client.send("PA", b"GET /b")
    client.expect("A", seq=1, ack=7)
    client.send("FA")
    server = proxy.accept("c")
    server.send("SA")
    server.expect("FPA", seq=1, ack=1, data=b"GET /b")


def test_a_fin_ends_the_waiting_for_more_with_a_rst_without_a_default(proxy):
    client = proxy.client(STRICT)
    handshake(client)
    client.send("FPA", b"GET /b")
    client.expect("RA", seq=1, ack=8)
    assert proxy.state_of(client) == "free"


def test_an_out_of_order_fin_is_taken_only_with_what_it_follows(proxy):
    client = proxy.client()
    handshake(client)
    client.send("FA", seq=6)
    client.expect("A", seq=1, ack=1)
    proxy.silent()
    assert proxy.state_of(client) == "first_data" and proxy.event("client", "received_fin_active") == 0
    client.send("PA", b"hello")
    server = proxy.accept("a")
    server.send("SA")
    server.expect("FPA", seq=1, ack=1, data=b"hello")
    assert proxy.state_of(client) == "half_closed"


def test_an_exact_rst_before_binding_ends_it(proxy):
    client = proxy.client(PATH)
    handshake(client)
    client.send("PA", b"GET /b")
    client.expect("A", seq=1, ack=7)
    client.send("R", seq=1)
    assert proxy.state_of(client) == "first_data" and proxy.drops() == {"unexpected_segment": 1}
    client.send("R")
    assert proxy.state_of(client) == "free"
    assert proxy.records()[0]["release"] == {"client": "PassiveRst", "target": "ActiveRst"}


def test_payload_and_exact_rst_in_one_burst(proxy):
    client = proxy.client()
    handshake(client)
    proxy.burst(client.segment("PA", b"hello"), client.segment("RA"))
    assert proxy.state_of(client) == "free"


def test_payload_behind_a_rst_in_one_burst_is_a_stray(proxy):
    client = proxy.client()
    handshake(client)
    proxy.burst(client.segment("R"), client.segment("PA", b"hello", seq=1))
    client.expect("R", seq=1)
    assert proxy.state_of(client) == "free"


def test_no_payload_for_too_long_is_a_time_out_with_a_rst(proxy):
    client = proxy.client()
    handshake(client)
    proxy.wait(29.9)
    proxy.silent()
    proxy.wait(0.2)
    client.expect("RA", seq=1, ack=1)
    [record] = proxy.records()
    assert record["release"] == {"client": "Timeout", "target": "Timeout"}
    assert proxy.event("client", "sent_rst") == 1


def test_a_bare_acknowledgement_does_not_make_the_time_out_later(proxy):
    client = proxy.client()
    handshake(client)
    for _ in range(4):
        proxy.wait(7.4)
        client.send("A")
    proxy.wait(0.6)
    client.expect("RA", seq=1, ack=1)


@settings(held_connections=2)
@one_worker
def test_an_empty_pool_of_held_bytes_leaves_payload_to_the_clients_retransmission(proxy):
    clients = [proxy.client() for _ in range(3)]
    for client in clients:
        handshake(client)
    proxy.burst(*(client.segment("PA", b"hello") for client in clients))
    servers = [proxy.accept(name) for name in "ab"]
    assert proxy.drops() == {"held_pool_empty": 1} and proxy.state_of(clients[2]) == "first_data"
    servers[0].send("SA")
    servers[0].expect("PA", seq=1, ack=1, data=b"hello")
    servers[0].send("A", ack=6)
    clients[0].expect("A", ack=6)
    clients[2].send("PA", b"hello", seq=1)
    proxy.accept("c")


def test_immediate_binding_sends_the_syn_at_the_clients_acknowledgement(proxy):
    client = proxy.client(FIRST)
    handshake(client)
    server = proxy.accept("a", isn=5)
    server.send("SA")
    server.expect("A", seq=1, ack=1)
    server.send("PA", b"220 ready\r\n")
    client.expect("PA", seq=1, ack=1, data=b"220 ready\r\n")
    client.send("A")
    server.expect("A", seq=1, ack=12)
    client.send("PA", b"HELO\r\n")
    server.expect("PA", seq=1, data=b"HELO\r\n")


def test_immediate_binding_and_a_client_that_closes_while_connecting(proxy):
    client = proxy.client(FIRST)
    handshake(client)
    server = proxy.accept("a")
    client.send("FA")
    server.send("SA")
    server.expect("FA", seq=1, ack=1)
    assert proxy.state_of(client) == "half_closed"


@pytest.mark.parametrize("service", [PATH, STRICT, NUMBER])
def test_random_octets_never_reach_a_wrong_target_and_lose_nothing(proxy, service):
    dice = random.Random(service)
    for _ in range(40):
        client = proxy.client(service)
        handshake(client)
        client.send("PA", dice.randbytes(dice.randrange(1, HELD_BYTES)))
        if service == STRICT:
            assert proxy.state_of(client) in ("free", "first_data")
    if service == PATH:
        assert not any(to == TARGETS["a"] or to == TARGETS["b"] for to, _ in proxy.received)
    proxy.received.clear()


def test_the_held_bytes_of_a_closed_connection_are_not_the_next_ones(proxy):
    for data in (b"GET /b HTTP/1.1\r\n\r\n", b"GET /a HTTP/1.1\r\n\r\n"):
        client = proxy.client(PATH)
        handshake(client)
        client.send("PA", data)
        server = proxy.accept(data[5:6].decode())
        server.send("SA")
        server.expect("PA", seq=1, ack=1, data=data)
        server.send("A")
        client.expect("A", ack=1 + len(data))
        close(client, server)
        proxy.wait(3)
        assert proxy.states() == {}


def test_two_payloads_in_one_burst_take_one_turn(proxy):
    client, other = proxy.client(), proxy.client()
    handshake(client)
    proxy.burst(client.segment("A", b"hello "), client.segment("PA", b"world"))
    server = proxy.accept("a")
    server.send("SA")
    server.expect("PA", seq=1, ack=1, data=b"hello world")
    handshake(other)
    other.send("PA", b"hello")
    proxy.accept("b")


def test_rule_1_5_a_corrupt_acknowledgement_of_our_fin_changes_nothing(proxy):
    client = proxy.client()
    handshake(client)
    client.send("FA")
    client.expect("FA", seq=1, ack=2)
    client.send("A", corrupt=True)
    assert proxy.state_of(client) == "fin_wait" and proxy.drops() == {"tcp_checksum": 1}


def test_immediate_binding_with_payload_in_the_handshakes_last_segment_takes_one_turn(proxy):
    client, other = proxy.client(FIRST), proxy.client(FIRST)
    client.send("S")
    client.expect("SA")
    client.send("PA", b"HELO\r\n")
    server = proxy.accept("a")
    server.send("SA")
    server.expect("PA", seq=1, ack=1, data=b"HELO\r\n")
    handshake(other)
    proxy.accept("b")


def test_rule_1_2_bytes_that_do_not_tell_yet_are_acknowledged_and_ours_to_deliver(proxy):
    client = proxy.client(PATH)
    handshake(client)
    client.send("PA", b"GET ")
    client.expect("A", seq=1, ack=5, window=HELD_BYTES - 4)
    client.send("PA", b"/b HTTP/1.1\r\n\r\n")
    server = proxy.accept("b")
    server.send("SA")
    server.expect("PA", seq=1, data=b"GET /b HTTP/1.1\r\n\r\n")
    server.send("A", ack=3)
    client.expect("A", seq=1, ack=20)
    server.send("A", ack=20)
    client.expect("A", seq=1, ack=20)
    client.send("RA")
    server.expect("RA")


def test_rule_1_2_a_challenge_does_not_take_back_what_we_have_acknowledged(proxy):
    client = proxy.client(PATH)
    handshake(client)
    client.send("PA", b"GET")
    client.expect("A", seq=1, ack=4)
    client.send("PA", b" /a HTTP/1.1\r\n\r\n")
    server = proxy.accept("a")
    server.send("SA", mss=1460)
    server.expect("PA", seq=1, ack=1, data=b"GET /a HTTP/1.1\r\n\r\n")
    client.send("S", seq=500)
    client.expect("A", seq=1, ack=20)


def test_rule_1_2_a_held_fin_is_not_acknowledged_before_it_has_arrived(proxy):
    client = proxy.client(PATH)
    handshake(client)
    client.send("PA", b"GET")
    client.expect("A", seq=1, ack=4)
    client.send("FPA", b" /a HTTP/1.1\r\n\r\n")
    proxy.accept("a")
    client.send("A", ack=0)
    client.expect("A", seq=1, ack=20)
