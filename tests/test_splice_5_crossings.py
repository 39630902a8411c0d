"""SPLICE 5 with the other rules at once: changed payload where numbers, options and segments are translated as well."""
import itertools

import pytest

from tcp.icmp import error, read_error
from tcp.negotiated import SACK, STAMP, STAMPS, names, option, peek, scale, stamped
from tcp.payload_services import services
from tcp.proxy import handshake, settings
from tcp.spelling import SHAPED, SHAPED_FEW, spelled
from test_splice_5_changed_payload import pair, taken

pytestmark = settings(services=services(), edits=512)
ROUTER = "10.9.9.9"
TEXT = b"a x two -- three xx- four\n"


def worn(proxy):
    """Uses each of the three source ports of SHAPED_FEW once, with high numbers of the client's."""
    for turn in range(3):
        client = proxy.client(SHAPED_FEW, isn=2_000_000_000 + turn)
        handshake(client)
        client.send("PA", b"hello\n")
        server = proxy.accept("c")
        server.send("SA", mss=1460)
        server.expect("PA", data=b"hello\n")
        server.send("A")
        client.expect("A")
        client.send("R")
        server.expect("R")


def opened(proxy, service=SHAPED, target="a", options=(), agreed=(), mss=1460, data=b"x-\n"):
    """Returns client, target and SYN-ACK of a connection whose first flight is changed."""
    client = proxy.client(service)
    client.send("S", options=list(options), mss=1460)
    answer = client.expect("SA")
    stamps = stamped(STAMP + 1, option(answer, "Timestamp")[0]) if option(answer, "Timestamp") else []
    client.send("A", options=stamps)
    client.send("PA", data, options=stamps)
    syn = peek(proxy, target)
    server = proxy.accept(target)
    server.send("SA", mss=mss, options=[("Timestamp", (70, option(syn, "Timestamp")[0])) if name == "Timestamp" else (name, value)
                                        for name, value in agreed])
    server.ack = 1
    assert taken(proxy, server, 1, spelled(data)) == spelled(data)
    server.ack = 1 + len(spelled(data))
    server.send("A", options=stamped(71, 0) if "Timestamp" in dict(agreed) else [])
    acknowledged = {(segment.ack - client.isn) % 2**32 for segment in proxy.received.pop((client.own, client.other))}
    assert max(acknowledged) == client.seq
    return client, server, answer


def says(proxy, sender, receiver, text, **fields):
    """Has one end say `text`, and the other take what that is spelled and acknowledge it; returns the segments that came."""
    start, mark = receiver.ack, sender.seq
    sender.send("PA", text, **fields)
    came = list(proxy.received[receiver.own, receiver.other])
    assert taken(proxy, receiver, start, spelled(text)) == spelled(text)
    receiver.ack = start + len(spelled(text))
    return came, mark


@pytest.mark.parametrize("side", [0, 1])
def test_rule_5_1_and_3_2_a_changed_stream_over_shifted_numbers(proxy, side):
    worn(proxy)
    client, server, _ = opened(proxy, SHAPED_FEW, "c")
    sender, receiver = pair((client, server), side)
    for _ in range(3):
        _, mark = says(proxy, sender, receiver, TEXT)
        receiver.send("A")
        sender.expect("A", ack=mark + len(TEXT))
    sender.send("PA", TEXT[10:20], seq=mark + 10)
    sender.expect("A", ack=sender.seq)  # ours: nothing is left for the receiver to acknowledge again
    receiver.nothing()
    sender.send("R")
    receiver.expect("R", seq=receiver.ack)
    assert proxy.states() == {}


@pytest.mark.parametrize("agreed", [list(each) for count in range(3)
                                    for each in itertools.combinations(SACK + STAMPS, count)], ids=str)
@pytest.mark.parametrize("side", [0, 1])
def test_rule_5_1_and_2_5_a_changed_stream_with_a_target_that_declines_options(proxy, side, agreed):
    client, server, answer = opened(proxy, options=SACK + STAMPS + scale(7), agreed=agreed)
    sender, receiver = pair((client, server), side)
    ours = {0: stamped(STAMP + 5, option(answer, "Timestamp")[0]), 1: stamped(75, 0) if "Timestamp" in dict(agreed) else []}
    came, mark = says(proxy, sender, receiver, TEXT, options=ours[side])
    stamps = {"Timestamp"} if side == 1 or "Timestamp" in dict(agreed) else set()
    assert all(names(segment) == stamps for segment in came)
    receiver.send("A", options=ours[1 - side])
    back = sender.expect("A", ack=mark + len(TEXT))
    assert names(back) == ({"Timestamp"} if side == 0 or "Timestamp" in dict(agreed) else set())


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("declined", [False, True])
def test_rule_5_2_and_2_6_pieces_of_what_grows_fit_the_receiver_with_their_options(proxy, side, declined):
    client, server, answer = opened(proxy, options=STAMPS, agreed=[] if declined else STAMPS, mss=600)
    sender, receiver = pair((client, server), side)
    ours = {0: stamped(STAMP + 5, option(answer, "Timestamp")[0]), 1: [] if declined else stamped(75, 0)}
    came, _ = says(proxy, sender, receiver, b"x" * 900, options=ours[side])
    assert len(came) >= 2 and all(len(segment.frame) - 14 - 40 <= (600 if side == 0 else 1460) for segment in came)
    assert all(segment.intact for segment in came)


@pytest.mark.parametrize("side", [0, 1])
def test_rule_5_2_and_8_1_an_icmp_error_about_a_changed_segment_is_told_in_the_senders_numbers(proxy, side):
    client, server, _ = opened(proxy)
    sender, receiver = pair((client, server), side)
    says(proxy, sender, receiver, b"x" * 50)
    mark, start = sender.seq, receiver.ack
    frame = sender.segment("PA", b"y" * 900)
    proxy.burst(frame, port=sender.port)
    [came] = proxy.received.pop((receiver.own, receiver.other))
    assert came.data == b"y" * 900 and (came.seq - receiver.other_isn) % 2**32 == start
    proxy.burst(error(came.frame, 3, 4, ROUTER, mtu=700), port=receiver.port)
    [told] = proxy.taken_others(sender.port)
    _, icmp, quote = read_error(told)
    assert icmp.nexthopmtu == 700 and quote[12:24] == frame[26:38], "addresses and ports are the sender's"
    assert int.from_bytes(quote[24:28], "big") == (sender.isn + mark) % 2**32


@pytest.mark.parametrize("side", [0, 1])
def test_rule_5_2_and_2_3_windows_pass_beside_a_changed_stream(proxy, side):
    client, server, answer = opened(proxy, options=scale(7), agreed=scale(3))
    sender, receiver = pair((client, server), side)
    says(proxy, sender, receiver, TEXT)
    for window in (0, 100, 65535):
        receiver.send("A", window=window)
        shown = sender.expect("A", ack=sender.seq).window
        assert shown <= (window if side == 1 else min((window << 3) >> 10, 65535)) and (shown == 0) == (window == 0 or shown == 0)


@pytest.mark.parametrize("side", [0, 1])
def test_rule_5_1_and_4_1_a_rst_in_the_middle_of_a_changed_stream_is_exact_on_the_other_side(proxy, side):
    client, server, _ = opened(proxy)
    sender, receiver = pair((client, server), side)
    _, mark = says(proxy, sender, receiver, TEXT)
    receiver.send("A")
    sender.expect("A", ack=mark + len(TEXT))
    sender.send("R", seq=sender.seq + 1)
    inexact = receiver.expect("R")
    assert (inexact.seq - receiver.other_isn) % 2**32 == receiver.ack + 1 and proxy.states() == {"established": 1}
    sender.send("RA")
    receiver.expect("RA", seq=receiver.ack)
    assert proxy.states() == {}
