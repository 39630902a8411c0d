"""SPLICE 5.2: a log of edits that has no more room is counted, and its connection has a defined end: RST to both sides."""
import pytest

from tcp.payload_services import services
from tcp.proxy import TURNS, connect, settings
from test_splice_5_changed_payload import bound, pair, taken

pytestmark = settings(services=services(), edits=4)


@pytest.mark.parametrize("side", [0, 1])
def test_rule_5_2_a_full_log_is_counted_and_ends_the_connection_on_both_sides(proxy, side):
    ends = bound(proxy)
    sender, receiver = pair(ends, side)
    number = 0
    while proxy.states() and number < 20:
        sender.send("PA", b"a x b", seq=sender.seq + 5 * number)
        number += 1
    assert 1 < number < 20 and proxy.count("edit_log_full") == 1
    wanted = b"a xyz b" * (number - 1)
    passed = [segment for segment in proxy.received[receiver.own, receiver.other] if "R" not in segment.flags]
    assert b"".join(segment.data for segment in passed) == wanted
    for end in ends:
        last = proxy.received.pop((end.own, end.other))[-1]
        assert "R" in last.flags and (last.seq - end.other_isn) % 2**32 == end.ack
    [record] = proxy.records()
    assert record["release"] == {"client": "Exhausted", "target": "Exhausted"}


@pytest.mark.parametrize("side", [0, 1])
def test_rule_5_2_what_is_acknowledged_makes_room_in_the_log(proxy, side):
    sender, receiver = pair(bound(proxy), side)
    for number in range(30):
        start, mark = receiver.ack, sender.seq
        sender.send("PA", b"a x b")
        assert taken(proxy, receiver, start, b"a xyz b") == b"a xyz b"
        receiver.ack = start + 7
        receiver.send("A")
        sender.expect("A", ack=mark + 5)
    assert proxy.count("edit_log_full") == 0


def test_rule_5_2_a_full_log_leaves_the_other_connections_alone(proxy):
    other = proxy.client(TURNS)
    target = connect(proxy, other, b"hello")
    client, server = bound(proxy)
    for number in range(20):
        client.send("PA", b"x.", seq=client.seq + 2 * number)
    proxy.received.clear()
    assert proxy.count("edit_log_full") == 1 and proxy.states() == {"established": 1}
    other.send("PA", b"goes on")
    target.expect("PA", data=b"goes on")
    again, server = bound(proxy)
    start = server.ack
    again.send("PA", b"x")
    assert taken(proxy, server, start, b"xyz") == b"xyz"
