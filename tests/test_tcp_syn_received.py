"""SYN_RECEIVED: a client's SYN, our SYN-ACK, and what comes before it is acknowledged."""
import pytest

from tcp.proxy import FIRST, HELD_BYTES, STRICT, settings


def test_rule_1_3_a_syn_is_answered_with_a_window_of_what_can_be_held(proxy):
    client = proxy.client()
    client.send("S", mss=1400)
    answer = client.expect("SA", seq=0, ack=1, window=HELD_BYTES, mss=1460)
    assert [name for name, _ in answer.options] == ["MSS"] and answer.ttl == 64 and answer.dont_fragment
    assert proxy.state_of(client) == "syn_received"


def test_the_syn_again_gets_the_same_syn_ack(proxy):
    client = proxy.client()
    client.send("S")
    first = client.expect("SA", seq=0, ack=1)
    proxy.wait(0.5)
    client.send("S", seq=0)
    assert client.expect("SA", seq=0, ack=1).frame == first.frame
    assert proxy.count("syn_ack_retransmitted") == 1 and proxy.count("opened") == 1


def test_two_equal_syns_in_one_burst_open_one_connection(proxy):
    client = proxy.client()
    proxy.burst(client.segment("S"), client.segment("S", seq=0))
    assert client.expect("SA").frame == client.expect("SA").frame
    assert proxy.count("open") == 1


def test_the_syn_ack_is_sent_again_later_than_the_clients_syn_each_time_twice_as_late(proxy):
    client = proxy.client()
    client.send("S")
    first = client.expect("SA")
    for before, after in ((1.18, 0.04), (2.34, 0.06), (4.74, 0.06)):
        proxy.wait(before)
        client.nothing()
        proxy.wait(after)
        assert client.expect("SA").frame == first.frame
    assert proxy.count("syn_ack_retransmitted") == 3


def test_a_syn_that_comes_again_puts_the_next_syn_ack_of_ours_off(proxy):
    client = proxy.client()
    client.send("S")
    client.expect("SA")
    proxy.wait(1)
    client.send("S", seq=0)
    client.expect("SA")
    proxy.wait(1.18)
    client.nothing()
    proxy.wait(0.04)
    client.expect("SA")


def test_a_client_that_never_acknowledges_times_out_in_silence(proxy):
    client = proxy.client()
    client.send("S")
    proxy.wait(9.9)
    assert proxy.state_of(client) == "syn_received" and proxy.count("syn_ack_retransmitted") == 3
    for _ in range(4):
        client.expect("SA", seq=0, ack=1)
    proxy.wait(0.2)
    assert proxy.state_of(client) == "free"
    [record] = proxy.records()
    assert record["release"] == {"client": "Timeout", "target": "Timeout"} and record["target"] is None
    assert record["states"]["client"][0] == ("SynReceived", 0) and record["octets"] == {"client": 0, "target": 0}


@pytest.mark.parametrize("ack", [0, 2, -1000, 1 << 30])
def test_a_wrong_acknowledgement_is_answered_by_a_rst_and_changes_nothing(proxy, ack):
    client = proxy.client()
    client.send("S")
    client.expect("SA")
    client.send("A", seq=1, ack=ack)
    client.expect("R", seq=ack)
    assert proxy.state_of(client) == "syn_received"
    client.send("A")
    assert proxy.state_of(client) == "first_data"


def test_a_segment_without_ack_is_counted_and_changes_nothing(proxy):
    client = proxy.client()
    client.send("S")
    client.expect("SA")
    client.send("P", b"hello", seq=1)
    assert proxy.drops() == {"unexpected_segment": 1} and proxy.event("client", "unexpected") == 1
    assert proxy.state_of(client) == "syn_received"


def test_an_exact_rst_ends_it(proxy):
    client = proxy.client()
    client.send("S")
    client.expect("SA")
    client.send("R", seq=1)
    assert proxy.state_of(client) == "free"
    assert proxy.records()[0]["release"] == {"client": "PassiveRst", "target": "ActiveRst"}
    assert proxy.event("client", "received_rst") == 1


@pytest.mark.parametrize("seq", [0, 2 + HELD_BYTES, -1 << 30])
def test_a_rst_outside_the_window_is_dropped(proxy, seq):
    client = proxy.client()
    client.send("S")
    client.expect("SA")
    client.send("R", seq=seq)
    assert proxy.state_of(client) == "syn_received" and proxy.drops() == {"unexpected_segment": 1}


def test_a_syn_with_another_number_is_challenged_and_the_old_one_can_be_reset(proxy):
    old, new = proxy.client(port=40000, isn=1000), proxy.client(port=40000, isn=900_000)
    old.send("S")
    old.expect("SA", ack=1)
    new.send("S")
    new.other_isn = old.other_isn
    new.expect("A", seq=1)
    new.other_isn = None
    old.send("R", seq=1)
    new.send("S", seq=0)
    new.expect("SA", ack=1)
    assert proxy.count("opened") == 2


def test_rule_2_2_data_in_a_syn_is_ignored(proxy):
    client = proxy.client()
    client.send("S", b"early", seq=0)
    client.expect("SA", seq=0, ack=1)
    client.seq = 1
    client.send("A")
    client.send("PA", b"early")
    server = proxy.accept("a")
    server.send("SA")
    server.expect("PA", seq=1, ack=1, data=b"early")


def test_rule_2_2_unknown_options_are_read_over_and_not_agreed_to(proxy):
    client = proxy.client()
    client.send("S", options=[("NOP", None), ("WScale", 7), ("SAckOK", b""), ("Timestamp", (5, 0))], mss=1200)
    answer = [name for name, _ in client.expect("SA", seq=0, ack=1).options]
    assert answer == ["MSS", "SAckOK", "Timestamp", "NOP", "WScale"]
    client.send("A")
    client.send("PA", b"hello")
    proxy.accept("a", mss=1188)


def test_rule_1_5_a_corrupt_syn_is_dropped(proxy):
    client = proxy.client()
    client.send("S", corrupt=True)
    assert proxy.drops() == {"tcp_checksum": 1} and proxy.count("opened") == 0


def test_rule_1_5_a_corrupt_acknowledgement_is_dropped(proxy):
    client = proxy.client()
    client.send("S")
    client.expect("SA")
    client.send("A", corrupt=True)
    assert proxy.drops() == {"tcp_checksum": 1} and proxy.state_of(client) == "syn_received"


def test_a_syn_that_acknowledges_as_well_does_not_complete_the_handshake(proxy):
    client = proxy.client()
    client.send("S")
    client.expect("SA")
    client.send("SA", seq=0)
    client.expect("SA", seq=0, ack=1)
    assert proxy.state_of(client) == "syn_received"


@pytest.mark.parametrize("flags", ["SF", "SR", "SA", ""])
def test_nothing_but_a_plain_syn_opens_a_connection(proxy, flags):
    client = proxy.client()
    client.send(flags, seq=0, ack=77)
    assert proxy.count("opened") == 0
    if flags == "SA":
        client.expect("R")
    elif flags == "SF":
        client.expect("RA", ack=2)
    elif flags == "":
        client.expect("RA", ack=0)


@pytest.mark.parametrize("source", ["127.0.0.1", "0.0.0.9", "224.0.0.1", "255.255.255.255", "10.1.0.1", "10.2.0.1"])
def test_a_syn_from_what_cannot_be_a_client_is_dropped(proxy, source):
    client = proxy.client()
    client.own = (source, 40000)
    client.send("S")
    assert proxy.drops() == {"bad_source": 1} and proxy.count("opened") == 0


def test_a_syn_from_nowhere_on_the_way_back_is_dropped(proxy):
    client = proxy.client()
    client.own = ("192.0.2.1", 40000)
    client.send("S")
    assert proxy.drops() == {"no_route": 1} and proxy.count("opened") == 0


def test_equal_ports_of_two_clients_are_two_connections(proxy):
    one, two = proxy.client(address="10.1.0.2", port=40000), proxy.client(address="10.1.0.3", port=40000)
    proxy.burst(one.segment("S"), two.segment("S"))
    first, second = one.expect("SA", ack=1), two.expect("SA", ack=1)
    assert first.seq != second.seq and proxy.states() == {"syn_received": 2}


def test_one_client_to_two_services_are_two_connections(proxy):
    one, two = proxy.client(STRICT, port=40000), proxy.client(FIRST, port=40000)
    proxy.burst(one.segment("S"), two.segment("S"))
    one.expect("SA", ack=1)
    two.expect("SA", ack=1)
    assert proxy.states() == {"syn_received": 2}


def test_our_initial_numbers_differ_by_port_and_move_with_time(proxy):
    numbers = []
    for port in (40000, 40001):
        client = proxy.client(port=port)
        client.send("S")
        numbers.append(client.expect("SA").seq)
        client.send("R", seq=1)
    proxy.wait(1)
    again = proxy.client(port=40000)
    again.send("S")
    later = again.expect("SA").seq
    assert numbers[0] != numbers[1] and (later - numbers[0]) % 2**32 == 250_000


def test_a_client_is_learnt_from_its_syn(proxy):
    client = proxy.client(address="10.1.0.9", known=False)
    client.send("S")
    client.expect("SA", seq=0, ack=1)


def test_a_full_neighbour_table_refuses_clients_of_new_addresses_alone(proxy):
    known, unknown = proxy.client(), proxy.client(address="10.1.0.9", known=False)
    proxy.state.network.known[0] = len(proxy.state.network.neighbours)
    proxy.burst(known.segment("S"), unknown.segment("S"))
    known.expect("SA", ack=1)
    assert proxy.drops() == {"neighbours_exhausted": 1} and proxy.count("opened") == 1


@settings(connections=4, held_connections=4)
def test_a_full_table_refuses_the_next_and_takes_it_when_there_is_room(proxy):
    clients = [proxy.client() for _ in range(5)]
    proxy.burst(*(client.segment("S") for client in clients))
    for client in clients[:4]:
        client.expect("SA", ack=1)
    clients[4].nothing()
    assert proxy.drops() == {"connections_exhausted": 1} and proxy.count("opened") == 4
    clients[0].send("R", seq=1)
    clients[4].send("S", seq=0)
    clients[4].expect("SA", ack=1)


def test_syn_acknowledgement_and_payload_in_one_burst(proxy):
    twin = proxy.client()
    twin.send("S")
    twin.expect("SA")
    isn = twin.other_isn
    twin.send("R", seq=1)
    client = proxy.client(port=twin.own[1])
    client.other_isn, client.ack = isn, 1
    proxy.burst(client.segment("S"), client.segment("A"), client.segment("PA", b"hello"))
    client.expect("SA", seq=0, ack=1)
    server = proxy.accept("a")
    server.send("SA")
    server.expect("PA", seq=1, data=b"hello")
    assert proxy.state_of(client) == "established"


def test_syn_and_exact_rst_in_one_burst(proxy):
    client = proxy.client()
    proxy.burst(client.segment("S"), client.segment("R", seq=1))
    client.expect("SA")
    assert proxy.state_of(client) == "free" and proxy.count("closed") == 1


def test_the_handshake_completes_after_a_lost_acknowledgement(proxy):
    client = proxy.client()
    client.send("S")
    client.expect("SA")
    client.seq = 1
    client.send("PA", b"hello")
    server = proxy.accept("a")
    server.send("SA")
    server.expect("PA", seq=1, ack=1, data=b"hello")
    assert proxy.event("client", "received_ack_of_syn_ack") == 1


def test_the_wheel_of_497_days(proxy):
    proxy.start_at(((1 << 32) - 50) * 10_000)
    client = proxy.client()
    client.send("S")
    client.expect("SA")
    proxy.wait(1.3)
    client.expect("SA")
    client.send("A")
    client.send("PA", b"hello")
    server = proxy.accept("a")
    proxy.wait(0.5)
    server.send("SA")
    server.expect("PA", seq=1, ack=1, data=b"hello")
    server.send("A")
    client.expect("A", seq=1, ack=6)
    proxy.wait(599, 1)
    assert proxy.state_of(client) == "established"
