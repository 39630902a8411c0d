"""SPLICE 5: payload that kernels change, in both directions, whatever the network does to the segments. One test a clause."""
import itertools
import random

import pytest

from tcp.negotiated import SACK, STAMP, STAMPS, option, stamped
from tcp.payload_services import services
from tcp.proxy import handshake, settings
from tcp.spelling import REWRITES, SHAPED, SHAPED_FIRST, spelled

pytestmark = settings(services=services(), edits=512)
FIRST = b"hi\n"


def bound(proxy, options=(), mss=1460):
    """Returns both ends of a connection whose streams are spelled; `hi` has been sent and acknowledged."""
    client = proxy.client(SHAPED)
    client.send("S", options=list(options), mss=1460)
    answer = client.expect("SA")
    stamps = stamped(STAMP + 1, option(answer, "Timestamp")[0]) if option(answer, "Timestamp") else []
    client.send("A", options=stamps)
    client.send("PA", FIRST, options=stamps)
    server = proxy.accept("a")
    server.send("SA", mss=mss, options=[(name, (7, STAMP) if name == "Timestamp" else value) for name, value in options])
    server.expect("PA", seq=1, ack=1, data=FIRST)
    server.send("A", options=stamped(8, STAMP) if stamps else [])
    client.expect("A", ack=4)
    return client, server


def taken(proxy, receiver, start, wanted):
    """Takes all segments that have come, and returns the stream from number `start` on that they make.

    Any octet that comes must be the one that `wanted` has at its place.
    """
    got = bytearray(len(wanted))
    seen = [False] * len(wanted)
    for segment in list(proxy.received[receiver.own, receiver.other]):
        at = (segment.seq - receiver.other_isn - start) % 2**32
        at = at - 2**32 if at >= 2**31 else at
        for place, octet in enumerate(segment.data, at):
            assert 0 <= place < len(wanted) and wanted[place] == octet, (place, segment.data, wanted)
            got[place], seen[place] = octet, True
        assert segment.intact
    proxy.received[receiver.own, receiver.other].clear()
    return bytes(octet for octet, there in zip(got, seen) if there)


def pair(ends, side):
    """Returns sender and receiver, from the client's side where `side` is 0."""
    return ends if side == 0 else ends[::-1]


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("text", [b"plain", b"n", b"x", b"a-b", b"nnn xx -- end", b"-lead", b"tail-", b"x" * 100, b"a-" * 50])
def test_rule_5_1_each_direction_is_changed_and_acknowledged_in_the_senders_numbers(proxy, side, text):
    sender, receiver = pair(bound(proxy), side)
    start, mark = receiver.ack, sender.seq
    sender.send("PA", text)
    assert taken(proxy, receiver, start, spelled(text)) == spelled(text)
    receiver.ack = start + len(spelled(text))
    receiver.send("A")
    sender.expect("A", ack=mark + len(text))


@pytest.mark.parametrize("side", [0, 1])
def test_rule_5_1_kernels_run_once_over_each_byte_however_often_it_comes(proxy, side):
    sender, receiver = pair(bound(proxy), side)
    start, mark = receiver.ack, sender.seq
    for _ in range(4):
        sender.send("PA", b"n n n ", seq=mark)
    sender.send("PA", b"nn", seq=mark + 6)
    assert taken(proxy, receiver, start, b"0 1 2 34") == b"0 1 2 34"


@pytest.mark.parametrize("side", [0, 1])
def test_rule_5_1_bytes_out_of_order_are_shown_in_order(proxy, side):
    sender, receiver = pair(bound(proxy), side)
    start, mark = receiver.ack, sender.seq
    for at in (6, 3, 9):
        sender.send("PA", b"n--", seq=mark + at)
    receiver.nothing()
    for _ in range(3):
        sender.expect("A", ack=mark)
    sender.send("PA", b"nx-", seq=mark)
    for _ in range(3):
        proxy.wait(0.05)
    for at in (3, 6, 9):
        sender.send("PA", b"n--", seq=mark + at)
    assert taken(proxy, receiver, start, b"0xyz123") == b"0xyz123"


TEXT = b"one x two -- three n four xx- five n--x end"


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("seed", range(6))
def test_rule_5_1_edits_are_applied_however_a_retransmission_is_cut(proxy, side, seed):
    sender, receiver = pair(bound(proxy), side)
    start, mark, dice = receiver.ack, sender.seq, random.Random(seed)
    cuts = sorted({0, len(TEXT), *(dice.randrange(1, len(TEXT)) for _ in range(4))})
    for begin, end in itertools.pairwise(cuts):
        sender.send("PA", TEXT[begin:end], seq=mark + begin)
    assert taken(proxy, receiver, start, spelled(TEXT)) == spelled(TEXT)
    for _ in range(30):
        begin = dice.randrange(len(TEXT))
        end = dice.randrange(begin + 1, len(TEXT) + 1)
        sender.send("PA", TEXT[begin:end], seq=mark + begin)
        taken(proxy, receiver, start, spelled(TEXT))
    sender.send("PA", TEXT, seq=mark)
    assert taken(proxy, receiver, start, spelled(TEXT)) == spelled(TEXT)
    receiver.ack = start + len(spelled(TEXT))
    receiver.send("A")
    sender.expect("A", ack=mark + len(TEXT))


@pytest.mark.parametrize("side", [0, 1])
def test_rule_5_1_many_change_points_are_kept_at_once(proxy, side):
    sender, receiver = pair(bound(proxy), side)
    start, mark = receiver.ack, sender.seq
    text = b"x.-." * 40
    for at in range(0, len(text), 4):
        sender.send("PA", text[at:at + 4], seq=mark + at)
    assert taken(proxy, receiver, start, spelled(text)) == spelled(text)
    for at in range(len(text) - 8, -1, -4):
        sender.send("PA", text[at:at + 8], seq=mark + at)
    assert taken(proxy, receiver, start, spelled(text)) == spelled(text)


@pytest.mark.parametrize("side", [0, 1])
def test_rule_5_2_an_acknowledgement_inside_an_edit_maps_to_its_start(proxy, side):
    sender, receiver = pair(bound(proxy), side)
    start, mark = receiver.ack, sender.seq
    sender.send("PA", b"abxcd")
    assert taken(proxy, receiver, start, b"abxyzcd") == b"abxyzcd"
    shown = []
    for got in range(8):
        receiver.send("A", ack=start + got)
        came = sender.expect("A")
        shown.append((came.ack - sender.isn) % 2**32 - mark)
    assert shown == [0, 1, 2, 2, 2, 3, 4, 5]


@pytest.mark.parametrize("side", [0, 1])
def test_rule_5_2_an_edge_of_sack_inside_an_edit_maps_to_its_start(proxy, side):
    sender, receiver = pair(bound(proxy, SACK), side)
    start, mark = receiver.ack, sender.seq
    sender.send("PA", b"abxcd")
    taken(proxy, receiver, start, b"abxyzcd")
    for left, right, *wanted in ((1, 7, (1, 5)), (2, 5, (2, 3)), (1, 4, (1, 2)), (4, 7, (2, 5), (3, 5))):
        edges = tuple((receiver.other_isn + start + edge) % 2**32 for edge in (left, right))
        receiver.send("A", ack=start, options=[("NOP", None)] * 2 + [("SAck", edges)])
        came = option(sender.expect("A", ack=mark), "SAck")
        assert tuple((edge - sender.isn) % 2**32 - mark for edge in came) in wanted, "a left edge may claim less, never more"


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("mss", [536, 1460])
@pytest.mark.parametrize("stamps", [False, True])
def test_rule_5_2_a_segment_that_grows_beyond_the_mss_is_split(proxy, side, mss, stamps):
    ends = bound(proxy, STAMPS if stamps else (), mss)
    sender, receiver = pair(ends, side)
    most = mss if side == 0 else 1460
    start, mark = receiver.ack, sender.seq
    text = b"x" * 500
    lead = stamped(STAMP + 9 if side == 0 else 9, 0) if stamps else []
    sender.send("FPA", text, options=lead)
    parts = list(proxy.received[receiver.own, receiver.other])
    assert len(parts) >= 2 and all(len(part.frame) - 14 - 40 <= most for part in parts)
    assert ["F" in part.flags for part in parts] == [False] * (len(parts) - 1) + [True]
    assert all((option(part, "Timestamp") is not None) == stamps for part in parts)
    assert taken(proxy, receiver, start, spelled(text)) == spelled(text)
    receiver.ack = start + 1500 + 1
    receiver.send("A", options=stamped(10 if side == 0 else STAMP + 10, 0) if stamps else [])
    sender.expect("A", ack=mark + 501)


@pytest.mark.parametrize("side", [0, 1])
def test_rule_5_2_wholly_deleted_bytes_are_acknowledged_by_us(proxy, side):
    sender, receiver = pair(bound(proxy), side)
    mark, start = sender.seq, receiver.ack
    sender.send("PA", b"-----")
    assert taken(proxy, receiver, start, b"") == b""
    assert proxy.received[sender.own, sender.other][-1].ack == (sender.isn + mark + 5) % 2**32
    proxy.received[sender.own, sender.other].clear()
    sender.send("PA", b"-----", seq=mark)
    assert proxy.received[sender.own, sender.other][-1].ack == (sender.isn + mark + 5) % 2**32
    proxy.received.clear()
    sender.send("PA", b"later")
    assert taken(proxy, receiver, start, b"later") == b"later"
    receiver.ack = start + 5
    receiver.send("A")
    sender.expect("A", ack=mark + 10)


@pytest.mark.parametrize("side", [0, 1])
def test_rule_5_2_deleted_bytes_behind_others_are_acknowledged_when_those_are(proxy, side):
    sender, receiver = pair(bound(proxy), side)
    mark, start = sender.seq, receiver.ack
    sender.send("PA", b"ab")
    sender.send("PA", b"---")
    assert taken(proxy, receiver, start, b"ab") == b"ab"
    early = [(segment.ack - sender.isn) % 2**32 - mark for segment in proxy.received[sender.own, sender.other]]
    assert all(ack <= 0 for ack in early), "the receiver does not have `ab` yet"
    proxy.received.clear()
    receiver.send("A", ack=start + 2)
    last = proxy.received[sender.own, sender.other][-1]
    assert (last.ack - sender.isn) % 2**32 == mark + 5
    proxy.received.clear()


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("text", [b"x--", b"---", b"abc-", b"-x"])
def test_rule_5_2_a_fin_behind_changed_bytes_has_its_number_on_each_side(proxy, side, text):
    sender, receiver = pair(bound(proxy), side)
    mark, start, length = sender.seq, receiver.ack, len(spelled(text))
    sender.send("FPA", text)
    last = proxy.received[receiver.own, receiver.other][-1]
    assert "F" in last.flags and (last.seq - receiver.other_isn) % 2**32 + len(last.data) == start + length
    taken(proxy, receiver, start, spelled(text))
    proxy.received.clear()
    receiver.ack = start + length + 1
    receiver.send("FA")
    fin = sender.expect("FA", ack=mark + len(text) + 1)
    assert fin.data == b""
    sender.send("A")
    receiver.expect("A", ack=receiver.seq)
    assert proxy.states() == {"time_wait": 1}


@pytest.mark.parametrize("side", [0, 1])
def test_rule_5_2_rsts_and_challenges_have_the_numbers_of_their_side(proxy, side):
    ends = bound(proxy)
    sender, receiver = pair(ends, side)
    start = receiver.ack
    sender.send("PA", b"xxx-")
    taken(proxy, receiver, start, b"xyzxyzxyz")
    receiver.ack = start + 9
    receiver.send("A")
    sender.expect("A", ack=sender.seq)
    if side == 0:
        sender.send("S", seq=sender.seq + 20)
        sender.expect("A", seq=sender.ack, ack=sender.seq)
    sender.send("R")
    receiver.expect("R", seq=receiver.ack)
    assert proxy.states() == {}


def test_rule_5_2_our_own_rsts_after_a_time_out_have_the_numbers_of_each_side(proxy):
    client, server = bound(proxy)
    for sender, receiver in ((client, server), (server, client)):
        start = receiver.ack
        sender.send("PA", b"x-x-x-")
        taken(proxy, receiver, start, b"xyzxyzxyz")
        receiver.ack = start + 9
        receiver.send("A")
        sender.expect("A", ack=sender.seq)
    proxy.wait(601, 1)
    client.expect("RA", seq=client.ack, ack=client.seq)
    server.expect("RA", seq=server.ack, ack=server.seq)


@pytest.mark.parametrize("side", [0, 1])
def test_rule_5_1_the_edits_of_one_direction_do_not_disturb_the_other(proxy, side):
    sender, receiver = pair(bound(proxy), side)
    start, mark = receiver.ack, sender.seq
    for turn in range(5):
        sender.send("PA", b"x" * 7)
        assert len(taken(proxy, receiver, start + 21 * turn, b"xyz" * 7)) == 21
        receiver.ack = start + 21 * (turn + 1)
        receiver.send("PA", b"asked")
        came = sender.expect("PA", ack=mark + 7 * (turn + 1), data=b"asked")
        assert (came.seq - sender.other_isn) % 2**32 == sender.ack - 5
        sender.send("A")
        receiver.expect("A", ack=receiver.seq)


def test_rule_5_1_the_first_flight_is_shown_too(proxy):
    client = proxy.client(SHAPED)
    handshake(client)
    client.send("PA", b"n x -\n")
    server = proxy.accept("a")
    server.send("SA")
    server.expect("PA", seq=1, ack=1, data=b"0 xyz \n")
    proxy.wait(0.32)
    server.expect("PA", seq=1, ack=1, data=b"0 xyz \n")
    client.send("PA", b"n x -\n", seq=1)
    client.send("PA", b"nx", seq=7)
    taken(proxy, server, 8, b"1xyz")
    server.send("A", ack=8)
    came = proxy.received.pop((client.own, client.other))
    assert (came[-1].ack - client.isn) % 2**32 == 7


def test_rule_5_1_what_a_server_says_first_is_shown_too(proxy):
    client = proxy.client(SHAPED_FIRST)
    handshake(client)
    server = proxy.accept("a")
    server.send("SA")
    server.expect("A")
    server.send("PA", b"220 x-n")
    assert taken(proxy, client, 1, b"220 xyz0") == b"220 xyz0"
    client.send("A", ack=9)
    server.expect("A", ack=8)


def test_rule_5_3_a_select_kernel_rewrites_what_is_held(proxy):
    client = proxy.client(REWRITES)
    handshake(client)
    client.send("PA", b"/path")
    client.expect("A", ack=6)
    client.send("PA", b" HTTP/1.1\r\n")
    server = proxy.accept("a")
    server.send("SA")
    wanted = b"GET /path HTTP/1.1\r\n"
    server.expect("PA", seq=1, ack=1, data=wanted)
    client.send("PA", b"/PATH HTTP/1.1\r\n", seq=1)
    server.nothing()
    proxy.wait(0.32)
    server.expect("PA", seq=1, ack=1, data=wanted)
    server.send("A", ack=1 + len(wanted))
    acknowledged = {(segment.ack - client.isn) % 2**32 for segment in proxy.received.pop((client.own, client.other))}
    assert max(acknowledged) == 17 and acknowledged <= {6, 17}
    client.send("PA", b"body")
    server.expect("PA", seq=1 + len(wanted), data=b"body")
    server.send("PA", b"200 OK", ack=5 + len(wanted))
    client.expect("PA", seq=1, ack=21, data=b"200 OK")
    client.send("FA", ack=7)
    server.expect("FA", seq=5 + len(wanted), ack=7)
    server.send("FA", ack=6 + len(wanted))
    client.expect("FA", seq=7, ack=22)
    client.send("A")
    server.expect("A", ack=8)
    assert proxy.states() == {"time_wait": 1}
