"""RFC 9293 through the splice: closes in every order, half-closes that last, probes, urgent data. Both ends are stacks that
obey it; the proxy has to stay out of their way and to end when they have ended."""
import itertools

import pytest

from tcp.negotiated import agree, scale
from tcp.proxy import FIRST, NUMBER, PATH, close, connect, handshake, settings

HOUR = 3600
HOURS = settings(timeouts={"half_closed": 6 * HOUR, "established": 6 * HOUR, "fin_wait": 6 * HOUR})


def bound(proxy, data=b"0 hello", **fields):
    """Returns both ends of an established connection; nothing is held any more."""
    client = proxy.client(NUMBER)
    return client, connect(proxy, client, data, **fields)


def causes(proxy):
    """Returns the release causes of the one connection that has ended."""
    [record] = proxy.records()
    return record["release"]["client"], record["release"]["target"]


@pytest.mark.parametrize("first", [0, 1])
def test_rfc_9293_simultaneous_close(proxy, first):
    ends = bound(proxy)
    one, other = ends[first], ends[1 - first]
    one.send("FA")
    other.send("FA")
    one.expect("FA", ack=one.seq - 1)
    other.expect("FA", ack=other.seq - 1)
    assert proxy.states() == {"fin_wait": 1}
    for end, peer in (ends, ends[::-1]):
        end.send("A")
        peer.expect("A", ack=peer.seq)
    assert proxy.states() == {"time_wait": 1}
    proxy.wait(2.1)
    assert proxy.states() == {} and "Close" in causes(proxy)[0]


@pytest.mark.parametrize("first", [0, 1])
def test_rfc_9293_simultaneous_close_with_payload_in_both_fins(proxy, first):
    ends = bound(proxy)
    for end in (ends[first], ends[1 - first]):
        end.send("FPA", b"last words")
    for end in ends:
        end.expect("FPA", data=b"last words")
    for end, peer in (ends, ends[::-1]):
        end.send("A")
        peer.expect("A", ack=peer.seq)
    assert proxy.states() == {"time_wait": 1}
    proxy.wait(2.1)
    assert proxy.records()[0]["octets"] == {"client": 17, "target": 10}


@HOURS
@pytest.mark.parametrize("first", [0, 1])
def test_rfc_9293_a_half_close_lasts_for_hours_and_then_goes_on(proxy, first):
    ends = bound(proxy)
    closes, goes_on = ends[first], ends[1 - first]
    closes.send("FA")
    goes_on.expect("FA")
    goes_on.send("A")
    closes.expect("A", ack=closes.seq)
    for number in range(3):
        proxy.wait(5 * HOUR, 60)
        assert proxy.states() == {"half_closed": 1}
        goes_on.send("PA", b"after %d" % number)
        closes.expect("PA", data=b"after %d" % number)
        closes.send("A")
        goes_on.expect("A", ack=goes_on.seq)
    goes_on.send("FA")
    closes.expect("FA")
    closes.send("A")
    goes_on.expect("A", ack=goes_on.seq)
    assert proxy.states() == {"time_wait": 1}


@settings(timeouts={"half_closed": 5 * HOUR})
@pytest.mark.parametrize("first", [0, 1])
def test_rfc_9293_a_half_close_that_nobody_uses_ends_with_rst_to_both(proxy, first):
    ends = bound(proxy)
    ends[first].send("FA")
    ends[1 - first].expect("FA")
    ends[1 - first].send("A")
    ends[first].expect("A")
    proxy.wait(5 * HOUR - 60, 60)
    proxy.silent()
    proxy.wait(120, 10)
    for end in ends:
        end.expect("RA", seq=end.ack)
    assert causes(proxy) == ("Timeout", "Timeout")


@pytest.mark.parametrize("first", [0, 1])
def test_rfc_9293_a_fin_carries_data(proxy, first):
    ends = bound(proxy)
    one, other = ends[first], ends[1 - first]
    one.send("FPA", b"the end")
    other.expect("FPA", seq=one.seq - 8, data=b"the end")
    assert proxy.states() == {"half_closed": 1}
    other.send("A")
    one.expect("A", ack=one.seq)


@pytest.mark.parametrize("first", [0, 1])
def test_rfc_9293_data_after_a_fin_is_for_the_end_point_to_judge_and_moves_nothing(proxy, first):
    ends = bound(proxy)
    one, other = ends[first], ends[1 - first]
    one.send("FA")
    other.expect("FA")
    other.send("A")
    one.expect("A", ack=one.seq)
    one.send("PA", b"beyond the end", seq=one.seq)
    proxy.received.pop((other.own, other.other), None)
    assert proxy.states() == {"half_closed": 1}
    other.send("FA")
    one.expect("FA", ack=one.seq)
    one.send("A")
    other.expect("A")
    assert proxy.states() == {"time_wait": 1}
    proxy.wait(2.1)
    assert proxy.states() == {}


@pytest.mark.parametrize("first", [0, 1])
def test_rfc_9293_a_retransmitted_fin_passes_each_time_and_counts_once(proxy, first):
    ends = bound(proxy)
    one, other = ends[first], ends[1 - first]
    one.send("FA")
    other.expect("FA")
    for _ in range(3):
        proxy.wait(1)
        one.send("FA", seq=one.seq - 1)
        other.expect("FA", seq=one.seq - 1)
    assert proxy.states() == {"half_closed": 1}
    side = ("client", "target")[first]
    assert proxy.event(side, "received_fin_active") == 1
    other.send("A")
    one.expect("A", ack=one.seq)


@pytest.mark.parametrize("first", [0, 1])
def test_rfc_9293_the_last_fin_again_in_time_wait_is_answered_by_the_end_that_waits(proxy, first):
    ends = bound(proxy)
    close(ends[first], ends[1 - first])
    for _ in range(3):
        proxy.wait(1.5)
        ends[1 - first].send("FA", seq=ends[1 - first].seq - 1)
        ends[first].expect("FA")
        ends[first].send("A")
        ends[1 - first].expect("A", ack=ends[1 - first].seq)
    assert proxy.states() == {"time_wait": 1}


def test_rfc_9293_a_fin_before_binding_is_answered_and_the_connection_ends(proxy):
    client = proxy.client(NUMBER)
    handshake(client)
    client.send("FA")
    client.expect("FA", seq=1, ack=2)
    client.send("A")
    assert proxy.states() == {} and proxy.event("target", "sent_syn") == 0


def test_rfc_9293_a_fin_with_the_first_payload_before_binding_follows_it_to_the_target(proxy):
    client = proxy.client(NUMBER)
    handshake(client)
    client.send("FPA", b"0 and out")
    server = proxy.accept("a")
    server.send("SA")
    server.expect("FPA", seq=1, ack=1, data=b"0 and out")
    server.send("A")
    client.expect("A", ack=client.seq)
    server.send("FPA", b"done")
    client.expect("FPA", data=b"done")
    client.send("A")
    server.expect("A", ack=server.seq)
    assert proxy.states() == {"time_wait": 1}


def test_rfc_9293_a_fin_after_part_of_the_payload_before_binding(proxy):
    client = proxy.client(PATH)
    handshake(client)
    client.send("PA", b"GET /b")
    client.expect("A", ack=7)
    client.send("FA")
    server = proxy.accept("c")
    server.send("SA")
    server.expect("FPA", seq=1, data=b"GET /b")


@pytest.mark.parametrize("state", ["syn_received", "first_data", "connecting"])
def test_rfc_9293_an_exact_rst_before_binding_ends_it(proxy, state):
    client = proxy.client(FIRST)
    client.send("S")
    client.expect("SA")
    if state == "first_data":
        client = proxy.client(NUMBER)
        handshake(client)
    if state == "connecting":
        client.send("A")
        server = proxy.accept("a")
    assert proxy.state_of(client) == state
    client.send("R", seq=1)
    assert proxy.state_of(client) == "free"
    if state == "connecting":
        server.expect("R", seq=1)


@pytest.mark.parametrize("state", ["syn_received", "first_data"])
@pytest.mark.parametrize("off", [-1, 1, 1000])
def test_rfc_9293_an_inexact_rst_before_binding_ends_nothing(proxy, state, off):
    client = proxy.client(NUMBER)
    client.send("S")
    client.expect("SA")
    if state == "first_data":
        client.send("A")
    client.send("R", seq=1 + off)
    proxy.received.pop((client.own, client.other), None)
    assert proxy.state_of(client) == state


@pytest.mark.parametrize("beyond", [1, 100_000])
def test_rfc_9293_time_wait_is_reopened_by_a_syn_with_a_higher_number(proxy, beyond):
    client, server = bound(proxy)
    close(client, server)
    again = proxy.client(NUMBER, port=client.own[1], isn=client.isn + client.seq + beyond)
    handshake(again)
    again.send("PA", b"0 again")
    server = proxy.accept("a")
    server.send("SA")
    server.expect("PA", seq=1, ack=1, data=b"0 again")


def test_rfc_9293_time_wait_is_not_reopened_by_an_old_syn(proxy):
    client, server = bound(proxy)
    close(client, server)
    client.send("S", seq=0)
    client.expect("A", seq=2, ack=9)
    assert proxy.states() == {"time_wait": 1} and proxy.count("opened") == 1


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("octet", [b"", b"\0"])
def test_rfc_9293_keep_alives_after_binding_pass_and_are_answered_by_the_peer(proxy, side, octet):
    ends = bound(proxy)
    one, other = ends[side], ends[1 - side]
    for _ in range(3):
        proxy.wait(500, 10)
        one.send("A", octet, seq=one.seq - 1)
        other.expect("A", seq=one.seq - 1, data=octet)
        other.send("A")
        one.expect("A", ack=one.seq)
    assert proxy.states() == {"established": 1} and proxy.drops() == {}


@pytest.mark.parametrize("scales", [None, (7, 7), (0, 14)])
@pytest.mark.parametrize("side", [0, 1])
def test_rfc_9293_zero_window_probes_pass_until_the_window_opens(proxy, side, scales):
    client, server, *_ = agree(proxy, scale(scales[0]) if scales else [], scale(scales[1]) if scales else [])
    server.send("A", ack=8)
    client.expect("A", ack=8)
    sender, receiver = ((client, server), (server, client))[side]
    receiver.send("A", window=0)
    sender.expect("A", window=0)
    for seconds in (0.3, 0.6, 1.2, 60):
        proxy.wait(seconds, max(0.01, seconds / 100))
        sender.send("A", b"p", seq=sender.seq)
        receiver.expect("A", seq=sender.seq, data=b"p")
        receiver.ack = sender.seq
        receiver.send("A", window=0)
        sender.expect("A", ack=sender.seq, window=0)
    receiver.send("A", window=20_000)
    assert sender.expect("A").window > 0
    sender.send("PA", b"payload")
    receiver.expect("PA", data=b"payload")


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("urgent", [1, 5, 60_000])
def test_rfc_9293_urgent_data_passes_with_its_pointer(proxy, side, urgent):
    ends = bound(proxy)
    ends[side].send("PAU", b"!urgent", urgent=urgent)
    ends[1 - side].expect("PAU", data=b"!urgent", urgent=urgent)


@pytest.mark.parametrize("side", [0, 1])
def test_rfc_9293_what_is_reordered_reaches_the_other_end_in_the_order_it_came(proxy, side):
    ends = bound(proxy)
    one, other = ends[side], ends[1 - side]
    start = one.seq
    for number in (3, 1, 2, 0):
        one.send("PA", b"%d" % number * 10, seq=start + 10 * number)
        other.expect("PA", seq=start + 10 * number, data=b"%d" % number * 10)


@pytest.mark.parametrize("order", list(itertools.permutations("cft", 3)), ids="".join)
def test_rfc_9293_a_fin_that_overtakes_payload_closes_only_when_all_is_there(proxy, order):
    client, server = bound(proxy)
    start = client.seq
    segments = {"c": ("A", b"first", start), "f": ("FA", b"", start + 10), "t": ("PA", b"next!", start + 5)}
    for name in order:
        flags, data, seq = segments[name]
        client.send(flags, data, seq=seq)
        server.expect(flags, data=data, seq=seq)
    client.seq = start + 11
    server.ack = start + 11
    server.send("FA")
    client.expect("FA", ack=client.seq)
    client.send("A")
    server.expect("A")
    assert proxy.states() == {"time_wait": 1}


def test_rfc_9293_urgent_data_among_the_first_bytes_keep_their_pointer(proxy):
    client = proxy.client(NUMBER)
    handshake(client)
    client.send("PAU", b"0 " + b"x" * 700, urgent=601)
    client.send("PA", b"y" * 10)
    server = proxy.accept("a")
    server.send("SA", mss=536)
    server.expect("AU", seq=1, ack=1, data=b"0 " + b"x" * 534, urgent=601)
    server.expect("PAU", seq=537, ack=1, data=b"x" * 166 + b"y" * 10, urgent=65)
    client.send("PA", b"z")
    server.expect("PA", data=b"z", urgent=0)


def test_rfc_9293_an_urgent_pointer_beyond_what_is_held_stays_beyond_it(proxy):
    client = proxy.client(NUMBER)
    handshake(client)
    client.send("PAU", b"0 first", urgent=65_000)
    server = proxy.accept("a")
    server.send("SA")
    server.expect("PAU", seq=1, ack=1, data=b"0 first", urgent=65_000)
