"""SPLICE 9: stopping, and what goes first when mbufs run short."""
import pytest

from tcp.proxy import FIRST, NUMBER, close, connect, handshake


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
