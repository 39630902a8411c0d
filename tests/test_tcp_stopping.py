"""Draining and stopping: nothing new, those open go on, then RST to both sides and nothing is left (SPLICE 9)."""
import pytest

from pipeline.state import STOP
from tcp.proxy import NUMBER, close, connect, handshake, one_worker, settings


def bound(proxy, data=b"0 hello"):
    """Returns both ends of an established connection to target a; nothing is held any more."""
    client = proxy.client(NUMBER)
    return client, connect(proxy, client, data)


def test_rule_9_while_draining_a_new_syn_opens_nothing(proxy):
    client, server = bound(proxy)
    proxy.drain()
    late = proxy.client(NUMBER)
    late.send("S")
    late.nothing()
    assert proxy.drops() == {"draining": 1} and proxy.states() == {"established": 1}


def test_rule_9_while_draining_those_open_go_on(proxy):
    client, server = bound(proxy)
    half = proxy.client(NUMBER)
    half.send("S")
    half.expect("SA")
    proxy.drain()
    client.send("PA", b"go on")
    server.expect("PA", data=b"go on")
    half.send("A")
    half.send("PA", b"0")
    other = proxy.accept("a")
    other.send("SA")
    other.expect("PA", data=b"0")
    assert proxy.states() == {"established": 2}


@one_worker
def test_rule_9_draining_ends_with_the_last_connection(proxy):
    client, server = bound(proxy)
    proxy.drain()
    passes = proxy.count("loops")
    close(client, server)
    assert proxy.states() in ({"time_wait": 1}, {})
    proxy.run(passes=-1)
    assert proxy.states() == {} and proxy.count("loops") > passes
    assert proxy.records()[0]["release"] == {"client": "PassiveClose", "target": "ActiveClose"}


@one_worker
def test_draining_an_idle_worker_ends_at_once(proxy):
    proxy.drain()
    proxy.run(passes=-1)
    assert proxy.states() == {}


@settings(connections=300)
def test_rule_9_stopping_resets_both_sides_of_every_connection(proxy):
    pairs = [bound(proxy) for _ in range(150)]
    proxy.stop()
    for client, server in pairs:
        client.expect("RA", seq=1, ack=8)
        server.expect("RA", seq=8, ack=1)
    assert proxy.states() == {} and proxy.network.pool.available == proxy.network.pool.mbufs
    assert {str(record["release"]) for record in proxy.records()} == {"{'client': 'Stopped', 'target': 'Stopped'}"}
    proxy.conserved()


def test_stopping_in_every_state(proxy):
    ends = {}
    for state in ("syn_received", "first_data", "connecting", "established", "half_closed", "fin_wait", "time_wait"):
        ends[state] = bring_to(proxy, state)
    assert proxy.states() == dict.fromkeys(ends, 1)
    proxy.received.clear()
    proxy.stop()
    for state in ("first_data", "connecting", "established", "half_closed", "fin_wait"):
        client, server = ends[state]
        client.expect("RA")
        if server is not None:
            server.expect("R" if state == "connecting" else "RA")
    proxy.received.pop((ends["syn_received"][0].own, ends["syn_received"][0].other), None)
    ends["time_wait"][0].nothing()
    ends["time_wait"][1].nothing()
    causes = [record["release"]["client"] for record in proxy.records()]
    assert sorted(causes) == ["PassiveClose"] + ["Stopped"] * 6
    assert proxy.states() == {}


def bring_to(proxy, state):
    """Returns the client and, where there is one, the target of a new connection in a state."""
    client, server = proxy.client(NUMBER), None
    if state == "syn_received":
        client.send("S")
    elif state in ("first_data", "connecting"):
        handshake(client)
        if state == "connecting":
            client.send("PA", b"0")
            server = proxy.accept("a")
    else:
        server = connect(proxy, client, b"0")
        if state == "time_wait":
            close(client, server)
        elif state != "established":
            client.send("FA")
            if state == "fin_wait":
                server.send("FA")
    return client, server


@one_worker
def test_packets_that_come_while_stopping_are_strays_and_lose_nothing(proxy):
    pairs = [bound(proxy) for _ in range(20)]
    frames = [client.segment("PA", b"still talking") for client, _ in pairs]
    proxy.network.ports[0].feed(frames)
    proxy.state.control[0] = STOP
    proxy._run(proxy.state, -1, proxy.now)
    proxy._take()
    proxy.received.clear()
    assert proxy.states() == {} and proxy.network.pool.available == proxy.network.pool.mbufs


@pytest.mark.parametrize("capacity", [1, 63, 64, 65, 200])
def test_stopping_reaches_every_connection_of_the_table(proxy_factory, capacity):
    proxy = proxy_factory(connections=capacity, held_connections=max(capacity, 1), mbufs=4096)
    clients = [proxy.client(NUMBER) for _ in range(capacity)]
    for client in clients:
        handshake(client)
    assert proxy.states() == {"first_data": capacity}
    proxy.stop()
    for client in clients:
        client.expect("RA", seq=1, ack=1)
    assert proxy.states() == {} and proxy.count("closed") == capacity


def test_stopping_twice_changes_nothing(proxy):
    bound(proxy)
    proxy.stop()
    proxy.received.clear()
    proxy.stop()
    proxy.silent()
    assert proxy.count("closed") == 1
