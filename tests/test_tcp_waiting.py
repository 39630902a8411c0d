"""The waiting room: a first flight that comes out of order, in copies, in parts, or not at all (SPLICE 1.4)."""
import itertools

import pytest

from tcp.negotiated import SACK, offer, option
from tcp.proxy import HELD_BYTES, NUMBER, PATH, FIRST, close, handshake, settings

PARTS = [b"0 hel", b"lo, ", b"wor", b"ld!"]
WHOLE = b"".join(PARTS)


def starts(parts):
    """Returns the number of the first byte of each part."""
    return list(itertools.accumulate(map(len, parts), initial=1))[:-1]


def how_many_wait(order):
    """Returns how many parts come before one that they follow."""
    return sum(any(part not in order[:place] for part in range(number)) for place, number in enumerate(order))


def served(proxy, data=WHOLE, target="a"):
    """The target answers and gets `data` in one segment."""
    server = proxy.accept(target)
    server.send("SA", mss=1460)
    server.expect("PA", seq=1, ack=1, data=data)
    return server


def gaps_told(proxy, client, ack=1):
    """Takes the acknowledgements that tell a client of a gap, and returns how many there were."""
    told = 0
    while proxy.received[client.own, client.other]:
        client.expect("A", seq=1, ack=ack)
        told += 1
    return told


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))), ids=str)
@pytest.mark.parametrize("together", [False, True], ids=["one_by_one", "one_burst"])
def test_rule_1_4_a_first_flight_in_any_order_is_held_in_order(proxy, order, together):
    client = proxy.client(NUMBER)
    handshake(client)
    places = starts(PARTS)
    frames = [client.segment("PA", PARTS[number], seq=places[number]) for number in order]
    for burst in [frames] if together else [[frame] for frame in frames]:
        proxy.burst(*burst)
    told = gaps_told(proxy, client)
    served(proxy)
    assert proxy.drops() == {}
    if together:  # what a part has waited for comes with the next burst, after those that follow in this one
        assert how_many_wait(order) <= told < len(order)
    else:
        assert proxy.count("segments_waited") == how_many_wait(order)
        assert told == order.index(0), "once a target is asked for, it is its own to tell"


def test_rule_1_4_what_waits_shows_no_state_change(proxy):
    client = proxy.client(NUMBER)
    handshake(client)
    client.send("FPA", PARTS[1], seq=6)
    assert gaps_told(proxy, client) == 1
    proxy.silent()
    assert proxy.state_of(client) == "first_data" and proxy.count("segments_waited") == 1
    assert proxy.event("client", "received_payload") == 0 and proxy.event("client", "received_fin_active") == 0
    client.send("PA", PARTS[0], seq=1)
    server = proxy.accept("a")
    server.send("SA", mss=1460)
    server.expect("FPA", seq=1, ack=1, data=PARTS[0] + PARTS[1])
    assert proxy.event("client", "received_fin_active") == 1


def test_rule_1_4_a_copy_of_what_waits_is_dropped(proxy):
    client = proxy.client(NUMBER)
    handshake(client)
    client.send("PA", b"world", seq=7)
    client.send("PA", b"WORLD", seq=7)
    client.send("PA", b"ORL", seq=8)
    assert proxy.drops() == {"waiting_already": 2} and proxy.count("segments_waited") == 1
    assert gaps_told(proxy, client) == 3
    client.send("PA", b"0hell ", seq=1)
    served(proxy, b"0hell world")


def test_rule_1_4_a_longer_copy_waits_and_the_first_copy_of_each_octet_wins(proxy):
    client = proxy.client(NUMBER)
    handshake(client)
    client.send("PA", b"wor", seq=7)
    client.send("PA", b"WORLD", seq=7)
    assert proxy.count("segments_waited") == gaps_told(proxy, client) == 2
    client.send("PA", b"0hell W", seq=1)
    served(proxy, b"0hell WorLD")
    assert proxy.drops() == {}


def test_rule_1_4_need_more_is_asked_again_with_what_waited(proxy):
    client = proxy.client(PATH)
    handshake(client)
    client.send("PA", b" HTTP/1.1\r\n\r\n", seq=7)
    client.expect("A", seq=1, ack=1)
    client.send("PA", b"GET /b", seq=1)
    client.expect("A", seq=1, ack=7)
    served(proxy, b"GET /b HTTP/1.1\r\n\r\n", "b")


def test_a_segment_that_comes_again_still_too_early_waits_again(proxy):
    client = proxy.client(NUMBER)
    handshake(client)
    client.send("PA", b"c", seq=3)
    client.send("PA", b"d", seq=9)
    client.send("PA", b"0b", seq=1)
    assert proxy.count("segments_waited") == gaps_told(proxy, client) == 2
    client.send("PA", b"efghi", seq=4)
    served(proxy, b"0bcefghid")


def test_what_waits_longer_than_a_second_is_dropped(proxy):
    client = proxy.client(NUMBER)
    handshake(client)
    client.send("PA", b"world", seq=7)
    assert gaps_told(proxy, client) == 1
    proxy.wait(0.9)
    assert proxy.drops() == {}
    proxy.wait(0.2)
    assert proxy.drops() == {"waited_too_long": 1} and proxy.state.connections.waiting.used[0] == 0
    client.send("PA", b"0hell ", seq=1)
    served(proxy, b"0hell ")


@settings(waiting_segments=4, waiting_per_connection=3)
def test_the_limits_for_one_connection_and_for_all(proxy):
    clients = [proxy.client(NUMBER) for _ in range(2)]
    for client in clients:
        handshake(client)
        for seq in (10, 20, 30, 40):
            client.send("PA", b"x", seq=seq)
        assert gaps_told(proxy, client) == 4
    assert proxy.drops() == {"waiting_room_full": 4} and proxy.state.connections.waiting.used[0] == 4
    proxy.wait(1.1)
    clients[1].send("PA", b"x", seq=10)
    assert proxy.drops() == {"waiting_room_full": 4, "waited_too_long": 4} and proxy.count("segments_waited") == 5
    assert gaps_told(proxy, clients[1]) == 1


@settings(waiting_segments=0)
def test_without_places_out_of_order_data_is_left_to_the_clients_retransmission(proxy):
    client = proxy.client(NUMBER)
    handshake(client)
    client.send("PA", b"world", seq=7)
    assert proxy.drops() == {"waiting_room_full": 1} and gaps_told(proxy, client) == 1
    client.send("PA", b"0hell ", seq=1)
    client.send("PA", b"world", seq=7)
    served(proxy, b"0hell world")


def test_what_can_never_be_held_does_not_wait(proxy):
    client = proxy.client(NUMBER)
    handshake(client)
    client.send("PA", b"x", seq=1 + HELD_BYTES)
    assert proxy.drops() == {"out_of_order_first_data": 1} and gaps_told(proxy, client) == 0
    client.send("PA", b"x", seq=HELD_BYTES)
    assert proxy.count("segments_waited") == gaps_told(proxy, client) == 1


def test_what_waits_goes_with_its_connection(proxy):
    client = proxy.client(NUMBER)
    handshake(client)
    client.send("PA", b"world", seq=7)
    assert gaps_told(proxy, client) == 1
    client.send("R", seq=1)
    proxy.run()
    assert proxy.state_of(client) == "free" and proxy.state.connections.waiting.used[0] == 0
    assert proxy.drops() == {}


def test_what_waits_is_freed_when_the_worker_stops(proxy):
    client = proxy.client(NUMBER)
    handshake(client)
    client.send("PA", b"world", seq=7)
    assert gaps_told(proxy, client) == 1
    proxy.stop()
    client.expect("RA")
    assert proxy.state.connections.waiting.used[0] == 0


def test_what_waits_passes_once_the_target_has_answered(proxy):
    client = proxy.client(FIRST)
    handshake(client)
    server = proxy.accept("a")
    client.send("PA", b"world", seq=7)
    proxy.silent()
    server.send("SA")
    server.expect("A", seq=1, ack=1)
    proxy.run()
    server.expect("PA", seq=7, ack=1, data=b"world")
    client.send("PA", b"hello ", seq=1)
    server.expect("PA", seq=1, ack=1, data=b"hello ")
    client.seq = 12
    close(client, server)


def test_the_numbers_of_what_waits_may_wrap(proxy):
    client = proxy.client(NUMBER, isn=2**32 - 4)
    handshake(client)
    for seq, data in ((9, b"!"), (7, b"ld"), (3, b"wor"), (6, b" ")):
        client.send("PA", data, seq=seq)
    assert gaps_told(proxy, client) == 4
    client.send("PA", b"0 ", seq=1)
    served(proxy, b"0 wor ld!")
    assert proxy.count("segments_waited") == 4


def test_rfc_8985_a_gap_before_binding_is_told_with_what_waits_behind_it(proxy):
    """A client that asks by new bytes whether its first ones are lost had to wait 3 s for its time-out, and 6 s were all it had."""
    client, answer = offer(proxy, SACK, service=PATH)
    client.send("PA", b"x" * 100, seq=5)
    assert blocks(client.expect("A", seq=1, ack=1)) == (5, 105)
    client.send("PA", b"y" * 50, seq=105)
    assert blocks(client.expect("A", seq=1, ack=1)) == (5, 155)
    client.send("PA", b"z", seq=200)
    assert blocks(client.expect("A", seq=1, ack=1)) == (200, 201)
    client.send("PA", b"x", seq=7)
    assert blocks(client.expect("A", seq=1, ack=1)) == (5, 155)
    client.send("A", seq=1)
    client.send("PA", b"GET ", seq=1)
    client.expect("A", seq=1, ack=5)
    client.expect("A", seq=1, ack=155)
    proxy.wait(1.1)


def blocks(segment):
    """Returns the edges of the block of a segment's selective acknowledgement, relative to what it acknowledges, from 1."""
    left, right = option(segment, "SAck")
    return left - segment.ack + 1, right - segment.ack + 1
