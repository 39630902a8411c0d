"""Targets that refuse, cannot be reached or are silent, and clients that do not say enough (SPLICE 3.1, 1.3)."""
import pytest

from tcp.proxy import CALM, FEW, FIRST, NUMBER, TURNS, close, handshake, one_worker, settings


def waiting(proxy, service=TURNS, data=b"hello"):
    """Returns a client whose first payload is held, its target chosen."""
    client = proxy.client(service)
    handshake(client)
    client.send("PA", data)
    return client


def test_rule_3_1_a_refusing_target_is_replaced(proxy):
    client = waiting(proxy)
    first = proxy.accept("a")
    first.send("RA", seq=0, ack=1)
    client.nothing()
    second = proxy.accept("b")
    assert second.other_isn == client.isn
    second.send("SA", mss=1460)
    second.expect("PA", seq=1, ack=1, data=b"hello")
    second.send("A", b"welcome")
    client.expect("A", seq=1, ack=6, data=b"welcome")
    assert proxy.count("other_target") == 1 and proxy.state_of(client) == "established"
    assert proxy.state.counters.targets[:2].tolist() == [[0, 1, 1, 0, 0], [1, 1, 0, 0, 0]]
    close(client, second)
    proxy.wait(2.1)
    assert proxy.records()[0]["target"] == "b"


def test_rule_3_1_a_silent_target_is_replaced_after_its_time_out(proxy):
    waiting(proxy)
    first = proxy.accept("a")
    proxy.wait(9.9)
    for _ in range(3):
        first.expect("S", seq=0)
    proxy.silent()
    proxy.wait(0.2)
    second = proxy.accept("b")
    second.send("SA")
    second.expect("PA", seq=1, ack=1, data=b"hello")
    assert proxy.state.counters.targets[:2].tolist() == [[0, 1, 0, 1, 0], [1, 1, 0, 0, 0]]


def test_rule_3_1_a_late_syn_ack_of_a_target_given_up_gets_a_rst(proxy):
    waiting(proxy)
    first = proxy.accept("a")
    proxy.wait(10.1)
    for _ in range(3):
        first.expect("S", seq=0)
    second = proxy.accept("b")
    first.send("SA")
    first.expect("R", seq=1)
    second.send("SA")
    second.expect("PA", seq=1, ack=1, data=b"hello")


def test_rule_3_1_when_all_have_refused_the_client_gets_a_rst(proxy):
    client = waiting(proxy)
    for name in "abc":
        client.nothing()
        proxy.accept(name).send("RA", seq=0, ack=1)
    client.expect("RA", seq=1, ack=6)
    assert proxy.states() == {}
    [record] = proxy.records()
    assert record["release"] == {"client": "ActiveRst", "target": "TargetRefused"} and record["target"] == "c"
    assert proxy.state.counters.targets[:3].tolist() == [[0, 1, 1, 0, 0]] * 3


def test_rule_3_1_when_the_last_is_silent_it_is_a_time_out(proxy):
    client = waiting(proxy)
    for name in "ab":
        proxy.accept(name).send("RA", seq=0, ack=1)
    last = proxy.accept("c")
    proxy.wait(10.1)
    for _ in range(3):
        last.expect("S", seq=0)
    last.expect("R", seq=1)
    client.expect("RA", seq=1, ack=6)
    assert proxy.records()[0]["release"] == {"client": "Timeout", "target": "Timeout"}


def test_rule_3_1_what_the_payload_names_is_not_replaced_by_something_else(proxy):
    client = waiting(proxy, NUMBER, b"1")
    proxy.accept("b").send("RA", seq=0, ack=1)
    client.expect("RA", seq=1, ack=2)
    assert proxy.records()[0]["release"] == {"client": "ActiveRst", "target": "TargetRefused"}


def test_rule_3_1_the_default_stands_in_for_what_the_payload_names(proxy):
    client = waiting(proxy, CALM, b"GET /a HTTP/1.1\r\n\r\n")
    proxy.accept("a").send("RA", seq=0, ack=1)
    proxy.accept("b").send("RA", seq=0, ack=1)
    client.expect("RA", seq=1)


def test_rule_3_1_after_the_first_held_byte_no_other_target_is_tried(proxy):
    client = waiting(proxy)
    first = proxy.accept("a")
    first.send("SA")
    first.expect("PA", seq=1, data=b"hello")
    first.send("RA")
    client.expect("RA", seq=1)
    assert proxy.records()[0]["release"] == {"client": "ActiveRst", "target": "PassiveRst"}


def test_rule_3_1_more_payload_and_a_fin_meanwhile_go_to_the_next_target(proxy):
    client = waiting(proxy)
    first = proxy.accept("a")
    client.send("PA", b" and more")
    first.send("RA", seq=0, ack=1)
    client.send("FPA", b"!")
    second = proxy.accept("b")
    second.send("SA")
    second.expect("FPA", seq=1, ack=1, data=b"hello and more!")
    assert proxy.state_of(client) == "half_closed"


def test_rule_3_1_an_immediate_client_is_given_another_target_too(proxy):
    client = proxy.client(FIRST)
    handshake(client)
    proxy.accept("a").send("RA", seq=0, ack=1)
    second = proxy.accept("b")
    second.send("SA")
    second.expect("A", seq=1, ack=1)
    second.send("PA", b"SSH-2.0")
    client.expect("PA", seq=1, ack=1, data=b"SSH-2.0")


def test_rule_3_1_a_refusal_and_the_clients_fin_in_one_burst(proxy):
    client = proxy.client(FIRST)
    handshake(client)
    first = proxy.accept("a")
    first.port = 0
    proxy.burst(first.segment("RA", seq=0, ack=1), client.segment("FA"))
    second = proxy.accept("b")
    second.send("SA")
    second.expect("FA", seq=1, ack=1)


@one_worker
def test_rule_3_1_the_clients_rst_while_the_next_is_asked(proxy):
    client = waiting(proxy)
    first = proxy.accept("a")
    first.port = 0
    proxy.burst(first.segment("RA", seq=0, ack=1), client.segment("R"))
    proxy.silent()
    assert proxy.states() == {}


@settings(held_connections=64)
def test_rule_3_1_many_refusals_in_one_burst(proxy):
    clients = [waiting(proxy) for _ in range(60)]
    firsts = [proxy.accept("abc"[number % 3]) for number in range(60)]
    proxy.burst(*(first.segment("RA", seq=0, ack=1) for first in firsts), port=1)
    assert proxy.states() == {"connecting": 60} and proxy.count("other_target") == 60
    for client in clients:
        client.nothing()
    proxy.received.clear()


def test_rule_3_1_the_port_of_a_target_given_up_is_the_last_to_be_used_again(proxy):
    client = waiting(proxy, FEW)
    first = proxy.accept("few")
    first.send("RA", seq=0, ack=1)
    client.expect("RA", seq=1)
    ports = [waiting(proxy, FEW) and proxy.accept("few").other[1] for _ in range(3)]
    assert ports[2] == first.other[1] and len(set(ports)) == 3


def test_rule_1_3_a_client_that_says_nothing_gets_the_fall_back(proxy):
    client = proxy.client(CALM)
    handshake(client)
    proxy.wait(29.9, 0.1)
    proxy.silent()
    proxy.wait(0.2)
    server = proxy.accept("b")
    server.send("SA")
    server.expect("A", seq=1, ack=1)
    server.send("PA", b"220 ready")
    client.expect("PA", seq=1, ack=1, data=b"220 ready")
    assert proxy.count("first_data_fallback") == 1


def test_rule_1_3_what_was_said_goes_to_the_fall_back(proxy):
    client = waiting(proxy, CALM, b"GET")
    client.expect("A", ack=4)
    proxy.wait(30.1, 0.1)
    server = proxy.accept("b")
    server.send("SA")
    server.expect("PA", seq=1, ack=1, data=b"GET")


def test_rule_1_3_without_a_fall_back_silence_is_a_time_out(proxy):
    client = proxy.client(NUMBER)
    handshake(client)
    proxy.wait(30.1, 0.1)
    client.expect("RA", seq=1, ack=1)
    assert proxy.records()[0]["release"] == {"client": "Timeout", "target": "Timeout"}


@pytest.mark.parametrize("data", [b"", b"\0"])
def test_rule_4_5_a_keep_alive_before_binding_is_answered(proxy, data):
    client = proxy.client(NUMBER)
    handshake(client)
    client.send("A", data, seq=0)
    client.expect("A", seq=1, ack=1)
    assert proxy.state_of(client) == "first_data" and proxy.count("keep_alives_answered") == 1


def test_rule_4_5_a_keep_alive_does_not_acknowledge_what_is_only_held(proxy):
    client = waiting(proxy, NUMBER, b"0")
    proxy.accept("a")
    client.send("A", seq=1)
    client.expect("A", seq=1, ack=1)


def test_rule_3_1_what_was_ordered_for_a_target_does_not_go_to_its_successor(proxy):
    client = waiting(proxy)
    first = proxy.accept("a")
    proxy.burst(first.segment("SA", seq=0, ack=2), first.segment("RA", seq=0, ack=1), port=1)
    second = proxy.accept("b")
    second.nothing()
    first.nothing()
    second.send("SA")
    second.expect("PA", seq=1, ack=1, data=b"hello")
    client.nothing()


def test_rule_3_1_a_target_that_resets_before_any_held_byte_was_sent_is_replaced(proxy):
    client = waiting(proxy)
    first = proxy.accept("a")
    first.send("SA", window=0)
    first.expect("A", seq=1, ack=1)
    first.send("R", seq=1)
    client.nothing()
    second = proxy.accept("b", isn=99)
    second.send("SA", mss=1460)
    second.expect("PA", seq=1, ack=1, data=b"hello")
    second.send("PA", b"welcome")
    client.expect("PA", seq=1, ack=6, data=b"welcome")
    assert proxy.count("other_target") == 1


def test_rule_3_1_an_immediate_target_that_resets_before_any_byte_is_replaced(proxy):
    client = proxy.client(FIRST)
    handshake(client)
    first = proxy.accept("a")
    first.send("SA", mss=500)
    first.expect("A", seq=1, ack=1)
    client.send("A")                       # a window update passes, and touches nothing
    first.expect("A", seq=1, ack=1)
    first.send("RA", seq=1, ack=1)
    client.nothing()
    second = proxy.accept("b", isn=99)
    second.send("SA", mss=1460)
    second.expect("A", seq=1, ack=1)
    second.send("PA", b"SSH-2.0")
    client.expect("PA", seq=1, ack=1, data=b"SSH-2.0")
    client.send("PA", b"SSH-2.0", ack=8)
    second.expect("PA", seq=1, ack=8, data=b"SSH-2.0")
    assert proxy.count("other_target") == 1


def test_rule_3_1_an_immediate_client_that_has_sent_something_gets_the_targets_rst(proxy):
    client = proxy.client(FIRST)
    handshake(client)
    first = proxy.accept("a")
    first.send("SA")
    first.expect("A", seq=1, ack=1)
    client.send("PA", b"hello")
    first.expect("PA", seq=1, data=b"hello")
    first.send("R", seq=1)
    client.expect("R", seq=1)
    assert proxy.states() == {}


def test_rule_3_1_nothing_of_a_burst_goes_to_the_successor_of_a_target_that_resets(proxy):
    client = proxy.client(FIRST)
    handshake(client)
    first = proxy.accept("a")
    first.send("SA")
    first.expect("A", seq=1, ack=1)
    first.port = 0
    proxy.burst(client.segment("A"), first.segment("A", seq=1), first.segment("R", seq=1), client.segment("PA", b"hello"))
    client.nothing()
    second = proxy.accept("b", isn=99)
    second.nothing()
    second.send("SA")
    second.expect("PA", seq=1, ack=1, data=b"hello")


def test_rule_3_1_a_held_fin_goes_to_the_next_target_too(proxy):
    client = waiting(proxy)
    first = proxy.accept("a")
    client.send("FA")
    first.send("SA", window=0)
    first.expect("A", seq=1, ack=1)
    first.send("R", seq=1)
    client.nothing()
    second = proxy.accept("b", isn=99)
    second.send("SA")
    second.expect("FPA", seq=1, ack=1, data=b"hello")
    assert proxy.state_of(client) == "half_closed" and proxy.event("target", "sent_fin_active") == 1


def test_rule_3_1_the_syn_to_the_successor_echoes_nothing_of_the_first_target(proxy):
    client = proxy.client(FIRST)
    handshake(client, options=[("Timestamp", (1000, 0))])
    first = proxy.accept("a")
    first.send("SA", options=[("Timestamp", (77, 1000))])
    first.expect("A", seq=1, ack=1)
    first.send("R", seq=1)
    second = proxy.accept("b")
    assert dict(second.syn.options)["Timestamp"] == (1000, 0)


def test_rule_3_1_the_last_target_resets_in_the_burst_of_its_syn_ack(proxy):
    client = proxy.client(CALM)
    handshake(client)
    proxy.wait(30.1, 0.1)
    only = proxy.accept("b")
    proxy.burst(only.segment("SA", seq=0, ack=1), only.segment("R", seq=1), port=1)
    only.nothing()
    client.expect("RA", seq=1, ack=1)
    assert proxy.states() == {}
