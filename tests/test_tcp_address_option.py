"""TOA: the client's address and port as a TCP option, on what comes first to the target (SPLICE 6.2)."""
import ipaddress

import pytest

from tcp.proxied_services import TELLS, TELLS_FIRST, TELLS_ORIGIN, binary_header, services
from tcp.proxy import TURNS, close, handshake

pytestmark = pytest.mark.parametrize("proxy", [{"services": services()}], indirect=True, ids=[""])


def told(segment):
    """Returns the address and port that a segment's option tells, or None."""
    found = [value for kind, value in segment.options if kind == 254]
    return (str(ipaddress.IPv4Address(found[0][2:6])), int.from_bytes(found[0][:2], "big")) if found else None


def test_the_first_held_bytes_carry_it_and_nothing_after_them(proxy):
    client = proxy.client(TELLS)
    handshake(client)
    client.send("PA", b"hello")
    server = proxy.accept("a")
    assert told(server.syn) is None
    server.send("SA", mss=1460)
    assert told(server.expect("PA", seq=1, ack=1, data=b"hello")) == client.own
    proxy.wait(0.4)
    assert told(server.expect("PA", seq=1, ack=1, data=b"hello")) == client.own  # it was lost
    server.send("A")
    client.expect("A", ack=6)
    client.send("PA", b"more")
    assert told(server.expect("PA", seq=6, data=b"more")) is None
    server.send("A")
    client.expect("A", ack=10)
    close(client, server)


def test_the_acknowledgement_of_the_handshake_carries_it_where_nothing_is_held(proxy):
    client = proxy.client(TELLS_FIRST)
    handshake(client)
    server = proxy.accept("a")
    server.send("SA", mss=1460)
    assert told(server.expect("A", seq=1, ack=1)) == client.own


@pytest.mark.parametrize("length", [91, 92, 93, 100, 101])
def test_a_full_first_segment_leaves_room_for_it(proxy, length):
    client = proxy.client(TELLS)
    handshake(client)
    client.send("PA", b"x" * length)
    server = proxy.accept("a")
    server.send("SA", mss=100, window=4000)
    first = min(length, 92)
    segment = server.expect("PA" if first == length else "A", seq=1, data=b"x" * first)
    assert told(segment) == client.own
    if length > first:
        assert told(server.expect("PA", seq=1 + first, data=b"x" * (length - first))) is None
    server.send("A")
    client.expect("A", ack=1 + length)


def test_it_goes_beside_timestamps(proxy):
    client = proxy.client(TELLS)
    client.send("S", options=[("Timestamp", (50, 0))])
    client.expect("SA")
    client.send("A", options=[("Timestamp", (51, 0))])
    client.send("PA", b"hello", options=[("Timestamp", (52, 0))])
    server = proxy.accept("a")
    server.send("SA", mss=1460, options=[("Timestamp", (9000, 50))])
    segment = server.expect("PA", data=b"hello")
    assert told(segment) == client.own and ("Timestamp", (52, 9000)) in segment.options


def test_it_tells_what_a_proxy_header_has_told_us(proxy):
    client = proxy.client(TELLS_ORIGIN)
    handshake(client)
    client.send("PA", binary_header(client, "192.0.2.77", 50077) + b"hello")
    client.expect("A")
    server = proxy.accept("a")
    server.send("SA", mss=1460)
    assert told(server.expect("PA", seq=1, data=b"hello")) == ("192.0.2.77", 50077)


def test_without_it_nothing_is_told(proxy):
    client = proxy.client(TURNS)
    handshake(client)
    client.send("PA", b"hello")
    server = proxy.accept("a")
    server.send("SA", mss=1460)
    assert told(server.expect("PA", data=b"hello")) is None


def test_the_next_target_is_told_too(proxy):
    client = proxy.client(TELLS)
    handshake(client)
    client.send("PA", b"hello")
    proxy.accept("a").send("RA", seq=0, ack=1)
    server = proxy.accept("b")
    server.send("SA", mss=1460)
    assert told(server.expect("PA", seq=1, data=b"hello")) == client.own
    server.send("A")
    client.expect("A", ack=6)
    close(client, server)
