"""Limits of services, sources and targets: what is beyond one is dropped or sent elsewhere, and what ends makes room."""
import pytest

from pipeline.kernels.limits import OPEN, RESETS, WAYS
from tcp.proxy import SERVICE, TURNS, close, connect, handshake, one_worker, settings

pytestmark = one_worker
LIMITS = {8201: "{ connections = 2 }", 8202: "{ connections_per_second = 10, burst = 3 }", 8203: "{ connections_per_source = 2 }",
          8204: "{ connections_per_second_per_source = 10, burst_per_source = 2, source_prefix = 28 }",
          8205: "{ connections = 5, connections_per_source = 2 }"}
"""Limits by the port of their service."""
SERVICES = [{"name": f'"limited-{port}"', "listen": f'"{SERVICE}:{port}"', "targets": '["a"]', "limits": limits}
            for port, limits in LIMITS.items()]
limited = settings(services=SERVICES)
with_cookies = settings(services=SERVICES, syn_cookies='"always"')


def syn(proxy, port, address="10.1.0.2"):
    """Returns a client that has sent a SYN."""
    client = proxy.client(port, address)
    client.send("S")
    return client


def admitted(proxy, port, count, address="10.1.0.2"):
    """Returns the clients, of so many that send a SYN, that get a SYN-ACK, and acknowledge it."""
    clients = [syn(proxy, port, address) for _ in range(count)]
    answered = [client for client in clients if proxy.received[client.own, client.other]]
    for client in answered:
        client.expect("SA", seq=0, ack=1)
        client.send("A")
    return answered


@limited
def test_a_service_has_so_many_connections_at_once(proxy):
    first, second = admitted(proxy, 8201, 4)
    assert proxy.drops() == {"service_full": 2}
    first.send("FA")
    first.expect("FA")
    first.send("A")
    assert len(admitted(proxy, 8201, 3)) == 1
    assert len(admitted(proxy, TURNS, 3)) == 3 and second


@limited
def test_a_service_gets_so_many_new_connections_a_second(proxy):
    assert len(admitted(proxy, 8202, 5)) == 3
    proxy.wait(0.2)
    assert len(admitted(proxy, 8202, 5)) == 2
    proxy.wait(5)
    assert len(admitted(proxy, 8202, 5)) == 3
    assert proxy.drops() == {"service_rate": 7}


@limited
def test_a_source_has_so_many_connections_at_once_and_others_have_theirs(proxy):
    mine = admitted(proxy, 8203, 3)
    others = admitted(proxy, 8203, 3, "10.1.0.3")
    assert len(mine) == len(others) == 2 and proxy.drops() == {"source_full": 2}
    mine[0].send("PA", b"hello")
    server = proxy.accept("a")
    server.send("SA")
    server.expect("PA", seq=1, ack=1, data=b"hello")
    server.send("A")
    mine[0].expect("A")
    close(mine[0], server)
    assert len(admitted(proxy, 8203, 1)) == 0
    proxy.wait(3)
    assert len(admitted(proxy, 8203, 2)) == 1


@limited
def test_sources_of_a_prefix_share_a_rate(proxy):
    assert len(admitted(proxy, 8204, 2, "10.1.0.17")) == 2
    assert len(admitted(proxy, 8204, 2, "10.1.0.18")) == 0
    assert len(admitted(proxy, 8204, 2, "10.1.0.33")) == 2
    proxy.wait(0.11)
    assert len(admitted(proxy, 8204, 2, "10.1.0.18")) == 1
    assert proxy.drops() == {"source_rate": 3}


@limited
def test_what_is_refused_for_its_source_does_not_count_for_the_service(proxy):
    assert len(admitted(proxy, 8205, 9)) == 2
    assert len(admitted(proxy, 8205, 9, "10.1.0.3")) == 2
    assert len(admitted(proxy, 8205, 9, "10.1.0.4")) == 1
    assert proxy.drops() == {"source_full": 14, "service_full": 8}


@limited
def test_a_source_that_is_reset_is_forgotten(proxy):
    for client in admitted(proxy, 8203, 2):
        client.send("R")
    assert proxy.states() == {} and not proxy.state.connections.limits.sources[:, OPEN].any()
    assert len(admitted(proxy, 8203, 2)) == 2


@limited
def test_a_full_table_of_sources_is_counted_and_service_goes_on(proxy):
    sources = proxy.state.connections.limits.sources
    sources[:, 0], sources[:, OPEN] = -1, 1
    assert len(sources) > WAYS and len(admitted(proxy, 8203, 3)) == 3
    assert proxy.count("sources_exhausted") == 3 and proxy.drops() == {}


@limited
def test_who_is_beyond_a_limit_is_reset_if_so_wanted(proxy):
    proxy.state.connections.limits.settings[RESETS] = 1  # as `denied = "reset"` does where no service drops strays
    admitted(proxy, 8201, 2)
    syn(proxy, 8201).expect("RA", ack=1)
    assert proxy.count("limited_by_reset") == 1 and proxy.drops() == {}


@with_cookies
def test_with_syn_cookies_it_is_the_first_payload_that_counts(proxy):
    clients = admitted(proxy, 8203, 3)
    assert len(clients) == 3
    for client in clients:
        client.send("PA", b"hello")
    assert proxy.count("opened") == 2 and proxy.drops() == {"source_full": 1}
    for _ in range(2):
        proxy.accept("a")


@pytest.fixture
def few(proxy_factory):
    """A proxy whose target a takes two connections at once, and b ten a second, two of them at once."""
    made = proxy_factory()
    limits = made.state.selection.limits
    numbers = {target.id: number for number, target in enumerate(made.configuration.targets)}
    limits[numbers["a"], :3] = 2, 0, 0
    limits[numbers["b"], :3] = limits[numbers["b"], 0], 100_000_000, 100_000_000
    return made


def served_by(proxy, count):
    """Returns how many of so many connections each target is asked for."""
    asked = {}
    for _ in range(count):
        client = proxy.client(TURNS)
        handshake(client)
        client.send("PA", b"hello")
        server = next(name for name in "abc" if any(to[0] == f"10.2.0.{11 + 'abc'.index(name)}" and waiting
                                                    for (to, _), waiting in proxy.received.items()))
        proxy.accept(server)
        asked[server] = asked.get(server, 0) + 1
    return asked


def test_a_full_target_is_passed_over(few):
    assert served_by(few, 12) == {"a": 2, "b": 2, "c": 8}
    few.wait(0.25)
    assert served_by(few, 6)["b"] == 2


@settings()
def test_without_limits_nothing_is_counted(proxy):
    client = proxy.client(TURNS)
    close(client, connect(proxy, client))
    assert not proxy.state.connections.limits.sources.any()
