"""What payload kernels have seen is what passes, however it is sent again: the first copy wins in the splice too (SPLICE 1.4)."""
import pytest

from tcp.payload_services import services
from tcp.proxy import settings
from tcp.spelling import spelled
from test_splice_5_changed_payload import bound, pair, taken

USUAL = settings(services=services())
FEW = settings(services=services(), first_copies=16)
PIECE = 2048
SIDES = pytest.mark.parametrize("side", [0, 1])


def copies_of(proxy):
    """Returns the store of first copies."""
    return proxy.state.connections.shaped.copies


@SIDES
@USUAL
def test_rule_1_4_other_bytes_sent_again_are_the_first_copy_where_nothing_was_changed(proxy, side):
    sender, receiver = pair(bound(proxy), side)
    mark, start = sender.seq, receiver.ack
    sender.send("PA", b"good words", ttl=2)
    receiver.expect("PA", seq=start, data=b"good words", ttl=1)
    for seq, data, first in ((0, b"EVIL WORDS", b"good words"), (0, b"E", b"g"), (5, b"W", b"w"), (4, b"......", b" words")):
        sender.send("PA", data, seq=mark + seq)
        receiver.expect("PA", seq=start + seq, data=first)
    assert proxy.count("repeated_otherwise") == 4
    sender.send("PA", b"good words", seq=mark)
    receiver.expect("PA", seq=start, data=b"good words")
    assert proxy.count("repeated_otherwise") == 4


@SIDES
@USUAL
def test_rule_1_4_what_follows_a_repetition_in_its_segment_is_new(proxy, side):
    sender, receiver = pair(bound(proxy), side)
    mark, start = sender.seq, receiver.ack
    sender.send("PA", b"good")
    receiver.expect("PA", data=b"good")
    sender.send("PA", b"EVIL news", seq=mark)
    receiver.expect("PA", seq=start, data=b"good 0ews")
    sender.send("PA", b"....X....", seq=mark)
    receiver.expect("PA", seq=start, data=b"good 0ews")


@SIDES
@USUAL
def test_rule_1_4_a_repetition_between_changes_is_the_first_copy_too(proxy, side):
    sender, receiver = pair(bound(proxy), side)
    mark, start = sender.seq, receiver.ack
    text = b"one-two-xx-end"
    sender.send("PA", text)
    assert taken(proxy, receiver, start, spelled(text)) == spelled(text)
    for begin in range(len(text)):
        sender.send("PA", b"#" * (len(text) - begin), seq=mark + begin)
        assert taken(proxy, receiver, start, spelled(text))


@SIDES
@USUAL
def test_rule_1_4_of_two_copies_in_one_burst_the_first_wins(proxy, side):
    sender, receiver = pair(bound(proxy), side)
    proxy.burst(*(sender.segment("PA", data, seq=sender.seq) for data in (b"first", b"OTHER", b"third and last")), port=sender.port)
    for data in (b"first", b"first", b"first a0d last"):
        receiver.expect("PA", data=data)


@SIDES
@USUAL
def test_rule_1_4_of_two_copies_that_wait_the_first_wins(proxy, side):
    sender, receiver = pair(bound(proxy), side)
    mark, start = sender.seq, receiver.ack
    sender.send("PA", b"late", seq=mark + 4)
    sender.send("PA", b"LATER", seq=mark + 4)
    sender.send("PA", b"well", seq=mark)
    assert taken(proxy, receiver, start, b"welllateR") == b"welllateR"
    proxy.received.clear()


@SIDES
@USUAL
def test_rule_1_4_what_is_acknowledged_is_kept_no_longer(proxy, side):
    sender, receiver = pair(bound(proxy), side)
    mark, start, copies = sender.seq, receiver.ack, copies_of(proxy)
    for number in range(5):
        sender.send("PA", b"a" * 1000)
        receiver.expect("PA", data=b"a" * 1000)
    assert copies.used[0] == 3
    for acknowledged, left in ((2047, 3), (2048, 2), (4999, 1), (5000, 0)):
        receiver.send("A", seq=receiver.seq, ack=start + acknowledged)
        sender.expect("A", ack=mark + acknowledged)
        assert copies.used[0] == left
    sender.send("PA", b"E", seq=mark + 4999)
    receiver.expect("PA", seq=start + 4999, data=b"E")  # a probe: its receiver has that number already


@USUAL
def test_rule_1_4_what_is_wholly_deleted_is_kept_no_longer(proxy):
    client, server = bound(proxy)
    for _ in range(3):
        client.send("PA", b"-" * 1000)
        client.expect("A", ack=client.seq)
    assert copies_of(proxy).used[0] == 0
    proxy.received.clear()


@SIDES
@FEW
def test_rule_1_4_what_was_given_up_and_is_sent_again_ends_the_connection_on_both_sides(proxy, side):
    waiting = bound(proxy)
    sender, receiver = pair(waiting, side)
    mark, start = sender.seq, receiver.ack
    sender.send("PA", b"good words")
    receiver.expect("PA", data=b"good words")
    other, server = bound(proxy)
    for _ in range(31):
        other.send("PA", b"a" * (PIECE // 2))
        server.expect("PA", data=b"a" * (PIECE // 2))
    assert proxy.count("first_copies_given_up") == 1 and copies_of(proxy).used[0] == 16
    sender.send("PA", b"EVIL WORDS", seq=mark)
    assert proxy.drops() == {"first_copy_gone": 1}
    sender.expect("RA", ack=mark)
    receiver.expect("RA", seq=start)
    [record] = proxy.records()
    assert record["release"] == {"client": "Exhausted", "target": "Exhausted"}
    other.send("PA", b"E" * 1000, seq=other.seq - 1000)
    server.expect("PA", data=b"a" * 1000)


@SIDES
@FEW
def test_rule_1_4_what_was_given_up_does_no_harm_once_it_is_acknowledged(proxy, side):
    sender, receiver = pair(bound(proxy), side)
    mark, start = sender.seq, receiver.ack
    for _ in range(36):
        sender.send("PA", b"a" * 1000)
        receiver.expect("PA", data=b"a" * 1000)
    assert proxy.count("first_copies_given_up") == 2
    receiver.ack = start + 2 * PIECE
    receiver.send("A")
    sender.expect("A", ack=mark + 2 * PIECE)
    sender.send("PA", b"E" * 1000, seq=mark + 2 * PIECE - 500)
    receiver.expect("PA", seq=start + 2 * PIECE, data=b"a" * 500)
    assert proxy.drops() == {}


@USUAL
def test_a_connection_that_ends_gives_its_first_copies_back(proxy):
    client, server = bound(proxy)
    client.send("PA", b"words")
    server.expect("PA", data=b"words")
    server.send("PA", b"more words", ack=4)
    client.expect("PA", data=b"more words")
    assert copies_of(proxy).used[0] == 2
    client.send("R")
    server.expect("R")
    proxy.wait(601, 1)
    proxy.received.clear()
    assert proxy.states() == {} and copies_of(proxy).used[0] == 0


@SIDES
@USUAL
def test_a_garbage_keep_alive_before_the_first_byte_is_shown_to_nobody(proxy, side):
    for _ in range(2):
        sender, receiver = pair(bound(proxy), side)
        receiver.send("A")
        proxy.received.clear()
        sender.send("A", b"E", seq=sender.seq - 1)
        receiver.expect("A", data=b"E")
        start = receiver.ack
        sender.send("PA", b"n")
        receiver.expect("PA", seq=start, data=b"0")
        receiver.send("A")
        sender.expect("A")
        sender.send("R")  # the next connection has the place of this one
        receiver.expect("R")
