"""Time-outs by state, and lazy timers: packets only stamp a connection, the wheel comes early and is set anew."""
import pytest

from tcp.proxy import FIRST, NUMBER, close, connect, handshake, settings


def bound(proxy, data=b"0 hello"):
    """Returns both ends of an established connection to target a; nothing is held any more."""
    client = proxy.client(NUMBER)
    return client, connect(proxy, client, data)


def test_rule_4_2_an_idle_connection_is_reset_on_both_sides_with_the_receivers_last_ack(proxy):
    client, server = bound(proxy)
    server.send("PA", b"answer")
    client.expect("PA", data=b"answer")
    client.send("A")
    server.expect("A")
    proxy.wait(599, 1)
    assert proxy.state_of(client) == "established"
    proxy.wait(2, 0.1)
    client.expect("RA", seq=7, ack=8)
    server.expect("RA", seq=8, ack=7)
    [record] = proxy.records()
    assert record["release"] == {"client": "Timeout", "target": "Timeout"}
    assert [steps[-1][0] for steps in record["states"].values()] == ["Closed", "Closed"]
    assert proxy.event("client", "sent_rst") == proxy.event("target", "sent_rst") == 1


def test_rule_4_2_what_was_sent_and_not_acknowledged_does_not_count(proxy):
    client, server = bound(proxy)
    server.send("PA", b"never acknowledged")
    client.expect("PA", data=b"never acknowledged")
    client.send("PA", b"nor this", ack=1)
    server.expect("PA", data=b"nor this")
    proxy.wait(601, 1)
    client.expect("RA", seq=1)
    server.expect("RA", seq=8)


def test_rule_4_2_a_challenge_to_our_rst_gets_the_exact_one(proxy):
    client, server = bound(proxy)
    server.send("PA", b"answer")
    client.expect("PA", data=b"answer")
    proxy.wait(601, 1)
    client.expect("RA", seq=1)
    server.expect("RA", seq=8)
    client.send("A")
    client.expect("R", seq=7)


@pytest.mark.parametrize("side", [0, 1])
def test_traffic_of_either_side_keeps_it_alive(proxy, side):
    ends = bound(proxy)
    for _ in range(4):
        proxy.wait(500, 1)
        ends[side].send("A")
        ends[1 - side].expect("A")
    proxy.wait(590, 1)
    assert proxy.state_of(ends[0]) == "established"
    proxy.wait(11, 1)
    assert proxy.state_of(ends[0]) == "free"
    proxy.received.clear()


@settings(timeouts={"established": 5})
def test_blind_segments_do_not_keep_a_connection_alive(proxy):
    client, server = bound(proxy)
    for _ in range(6):
        proxy.wait(0.8)
        client.send("A", b"blind", seq=1 << 20)
        server.send("A", b"blind", seq=1 << 31)
    assert proxy.state_of(client) == "established"
    proxy.wait(0.3)
    assert proxy.state_of(client) == "free"
    proxy.received.clear()


@settings(timeouts={"established": 5})
@pytest.mark.parametrize("data", [b"", b"0"])
def test_keep_alives_that_are_answered_keep_a_connection_alive(proxy, data):
    client, server = bound(proxy)
    for _ in range(6):
        proxy.wait(4)
        client.send("A", data, seq=client.seq - 1)
        server.expect("A", data=data)
        server.send("A")
        client.expect("A")
    assert proxy.state_of(client) == "established"


def test_a_packet_does_not_touch_the_timer(proxy):
    client, server = bound(proxy)
    before = proxy.count("expired_timers")
    for _ in range(1000):
        proxy.wait(0.5, 0.5)
        client.send("A")
        server.expect("A")
    assert proxy.count("expired_timers") - before <= 2
    assert proxy.state_of(client) == "established"


@pytest.mark.parametrize("seconds", [0.05, 1, 2.55, 2.56, 2.57, 655.36, 700, 86400, 1_000_000])
def test_a_time_out_is_neither_early_nor_late(proxy_factory, seconds):
    proxy = proxy_factory(timeouts={"established": seconds})
    client, server = bound(proxy)
    idle = proxy.now
    proxy.wait(seconds - 0.03, seconds)
    assert proxy.state_of(client) == "established"
    proxy.wait(0.05)
    assert proxy.state_of(client) == "free" and proxy.now - idle <= (seconds + 0.03) * 1e6
    proxy.received.clear()


@pytest.mark.parametrize("state", ["syn_received", "first_data", "connecting", "established", "half_closed", "fin_wait",
                                   "time_wait"])
def test_each_state_has_its_own_time_out(proxy_factory, state):
    proxy = proxy_factory(timeouts={name: 3 if name == state else 100 for name in (
        "syn_received", "first_data", "connecting", "established", "half_closed", "fin_wait", "time_wait")})
    client = proxy.client(NUMBER)
    bring_to(proxy, client, state)
    assert proxy.state_of(client) == state
    proxy.wait(2.9)
    assert proxy.state_of(client) == state
    proxy.wait(0.2)
    assert proxy.state_of(client) == "free"
    proxy.received.clear()
    cause = "PassiveClose" if state == "time_wait" else "Timeout"
    assert proxy.records()[0]["release"]["client"] == cause


def bring_to(proxy, client, state):
    """Brings a new connection into a state."""
    if state == "syn_received":
        client.send("S")
    elif state in ("first_data", "connecting"):
        handshake(client)
        if state == "connecting":
            client.send("PA", b"0")
    else:
        server = connect(proxy, client, b"0")
        if state == "time_wait":
            close(client, server)
        elif state != "established":
            client.send("FA")
            if state == "fin_wait":
                server.send("FA")


@settings(timeouts={"established": 5, "connecting": 5, "first_data": 5})
def test_a_clock_that_jumps_ends_what_is_due(proxy):
    clients = [proxy.client(NUMBER) for _ in range(30)]
    for number, client in enumerate(clients):
        bring_to(proxy, client, ("syn_received", "first_data", "connecting", "established")[number % 4])
        proxy.received.clear()
    proxy.now += 3_600_000_000
    proxy.run()
    assert proxy.states() == {} and proxy.state.counters.causes[0, 1] == 30
    proxy.received.clear()


def test_held_payload_that_is_never_acknowledged_has_an_end(proxy):
    client = proxy.client(NUMBER)
    handshake(client)
    client.send("PA", b"0 hello")
    server = proxy.accept("a")
    server.send("SA")
    proxy.wait(150, 0.1)
    assert proxy.state_of(client) == "established" and proxy.count("held_retransmitted") == 8
    proxy.received.clear()
    proxy.wait(10, 0.1)
    client.expect("RA", seq=1, ack=1)
    server.expect("RA", seq=1, ack=1)
    assert proxy.records()[0]["release"] == {"client": "Timeout", "target": "Timeout"}


def test_a_server_that_speaks_first_keeps_its_connection_while_the_client_is_silent(proxy):
    client = proxy.client(FIRST)
    handshake(client)
    server = proxy.accept("a")
    server.send("SA")
    server.expect("A")
    proxy.wait(500, 1)
    proxy.silent()
    server.send("PA", b"220")
    client.expect("PA", data=b"220")


def test_a_held_fin_that_was_lost_is_sent_again_by_the_client(proxy):
    client = proxy.client(NUMBER)
    handshake(client)
    client.send("FPA", b"0 bye")
    server = proxy.accept("a")
    server.send("SA")
    server.expect("FPA", data=b"0 bye")
    proxy.wait(0.32)
    server.expect("FPA", seq=1, data=b"0 bye")
    server.send("A", ack=6)
    client.expect("A", ack=6)
    client.send("FA", seq=6)
    server.expect("FA", seq=6)
    server.send("A")
    client.expect("A", ack=7)
    assert proxy.state_of(client) == "half_closed"


def test_timers_of_many_connections_fall_due_in_order(proxy):
    clients = []
    for _ in range(100):
        client = proxy.client(NUMBER)
        client.send("S")
        clients.append(client)
        proxy.wait(0.05)
    ended = []
    for _ in range(120):
        proxy.wait(0.1)
        ended.append(sum(proxy.state_of(client) == "free" for client in clients))
    assert ended == sorted(ended) and ended[40] == 0 and ended[-1] == 100
    assert max(later - earlier for earlier, later in zip(ended, ended[1:], strict=False)) <= 4
    proxy.received.clear()


@pytest.mark.parametrize("ticks", [119, 120, 121])
def test_what_is_due_when_the_ticks_begin_anew_is_sent_again_too(proxy, ticks):
    proxy.start_at(((1 << 32) - ticks) * 10_000)
    client = proxy.client(NUMBER)
    client.send("S")
    client.expect("SA")
    proxy.wait(1.25)
    client.expect("SA")
    proxy.silent()
    assert proxy.count("syn_ack_retransmitted") == 1
