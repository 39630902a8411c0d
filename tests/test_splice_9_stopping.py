"""SPLICE 9: stopping, and what goes first when mbufs run short."""
import pytest

from tcp.proxy import FIRST, NUMBER, close, connect, handshake, settings


def test_rule_9_after_the_first_signal_nothing_new_is_opened_and_what_is_open_goes_on(proxy):
    client = proxy.client(NUMBER)
    server = connect(proxy, client, b"0")
    half_way = proxy.client(NUMBER)
    handshake(half_way)
    proxy.drain()
    late = proxy.client(NUMBER)
    late.send("S")
    late.nothing()
    assert proxy.count("draining") == 1
    half_way.send("PA", b"0 was there before")
    other = proxy.accept("a")
    other.send("SA")
    other.expect("PA", data=b"0 was there before")
    other.send("A")
    half_way.expect("A")
    for sender, receiver in ((client, server), (server, client), (half_way, other)):
        sender.send("PA", b"goes on")
        receiver.expect("PA", data=b"goes on")
    other.send("A")
    half_way.expect("A")
    close(client, server)
    close(half_way, other)


@pytest.mark.parametrize("state", ["first_data", "connecting", "established", "half_closed"])
def test_rule_9_the_second_signal_resets_both_sides_at_once(proxy, state):
    client = proxy.client(FIRST if state == "connecting" else NUMBER)
    server = None
    if state in ("first_data", "connecting"):
        handshake(client)
        server = proxy.accept("a") if state == "connecting" else None
    else:
        server = connect(proxy, client, b"0 hello")
    if state == "half_closed":
        server.send("FA")
        client.expect("FA")
    assert proxy.state_of(client) == state
    proxy.drain()
    proxy.stop()
    if state == "half_closed":
        client.expect("RA", seq=1)
    else:
        client.expect("RA", seq=1, ack=client.seq)
    if server is not None:
        server.expect("R" if state == "connecting" else "RA", seq=server.ack)
    assert proxy.states() == {}
    [record] = proxy.records()
    assert record["release"] == {"client": "Stopped", "target": "Stopped"}


@settings(mbufs=1024)
def test_rule_9_when_mbufs_run_short_new_connections_are_refused_first_and_those_open_go_on(proxy):
    client = proxy.client(NUMBER)
    server = connect(proxy, client, b"0")
    half_way = proxy.client(NUMBER)
    handshake(half_way)
    with proxy.starving(100):
        proxy.wait(0.02)
        late = proxy.client(NUMBER)
        for _ in range(3):
            late.send("S", seq=0)
        late.nothing()
        assert proxy.drops() == {"mbufs_short": 3}
        half_way.send("PA", b"0 was there before")
        other = proxy.accept("a")
        other.send("SA")
        other.expect("PA", data=b"0 was there before")
        other.send("A")
        half_way.expect("A")
        client.send("PA", b"goes on")
        server.expect("PA", data=b"goes on")
        server.send("A")
        client.expect("A")
    proxy.wait(0.02)
    late.send("S", seq=0)
    late.expect("SA", seq=0, ack=1)
    late.send("R", seq=1)
    close(half_way, other)
    close(client, server)


def test_rule_9_held_slots_that_are_exhausted_are_counted_and_those_in_go_on(proxy_factory):
    proxy = proxy_factory(held_connections=1)
    first, second = proxy.client(NUMBER), proxy.client(NUMBER)
    for client in (first, second):
        handshake(client)
        client.send("PA", b"0 hello")
    server = proxy.accept("a")
    assert proxy.drops() == {"held_pool_empty": 1} and proxy.state_of(second) == "first_data"
    server.send("SA")
    server.expect("PA", data=b"0 hello")
    server.send("A")
    first.expect("A")
    second.send("PA", b"0 hello", seq=1)
    other = proxy.accept("a")
    other.send("SA")
    other.expect("PA", data=b"0 hello")


def test_rule_9_connections_that_are_exhausted_are_counted_and_those_in_go_on(proxy_factory):
    proxy = proxy_factory(connections=1)
    client, late = proxy.client(NUMBER), proxy.client(NUMBER)
    server = connect(proxy, client, b"0")
    late.send("S")
    late.nothing()
    assert proxy.drops() == {"connections_exhausted": 1}
    client.send("PA", b"goes on")
    server.expect("PA", data=b"goes on")


def test_rule_9_segments_of_our_own_still_have_mbufs_when_new_connections_are_refused(proxy):
    client = proxy.client(NUMBER)
    server = connect(proxy, client, b"0 hello")
    for left in range(600, 0, -20):
        late = proxy.client(NUMBER)
        with proxy.starving(left):
            proxy.wait(0.02)
            late.send("S")
            if not proxy.received[late.own, late.other]:
                client.send("S", seq=client.seq + 9)
                client.expect("A", seq=client.ack, ack=client.seq)
                client.send("PA", b"goes on")
                break
            proxy.received.pop((late.own, late.other))
    else:
        raise AssertionError("new connections are taken till nothing is left")
    server.expect("PA", data=b"goes on")
    assert sum(proxy.drops().values()) == 1
    proxy.wait(0.02)
    late.send("S", seq=0)
    late.expect("SA")
