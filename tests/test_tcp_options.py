"""TCP options agreed on both sides and translated as segments pass (SPLICE 2), on virtual time."""
import itertools

import pytest

from tcp.proxy import TURNS, handshake

STAMP = 5_000_000
FULL = [("SAckOK", b""), ("Timestamp", (STAMP, 0)), ("NOP", None), ("WScale", 7)]
SACK, STAMPS, SCALE = FULL[:1], [FULL[1]], [("NOP", None), FULL[3]]


def option(segment, name):
    """The value of one option of a segment, None without it."""
    return dict(each for each in segment.options if len(each) == 2).get(name)


def opened(proxy, offer):
    """A client whose SYN offers `offer`, and the SYN-ACK it got."""
    client = proxy.client(TURNS)
    client.send("S", options=offer, mss=1460)
    answer = client.expect("SA", seq=0, ack=1)
    return client, answer


def answered(proxy, target, agreed):
    """The target's End after its SYN-ACK with these options."""
    server = proxy.accept(target)
    server.send("SA", options=agreed, **({} if any(name == "MSS" for name, _ in agreed) else {"mss": 1460}))
    return server


def spliced(proxy, offer=FULL, agreed=None, target_stamp=90_000, window=8192):
    """Client and target of a connection in which the target answers with `agreed`; the client's first bytes are sent."""
    client, answer = opened(proxy, offer)
    stamps = [("Timestamp", (STAMP + 1, option(answer, "Timestamp")[0]))] if option(answer, "Timestamp") else []
    client.send("A", options=stamps)
    client.send("PA", b"hello", options=stamps, window=window)
    if agreed is None:
        agreed = [("Timestamp", (target_stamp, STAMP)) if each[0] == "Timestamp" else each for each in offer]
    server = answered(proxy, "a", agreed)
    return client, server, answer


@pytest.mark.parametrize("offer", [list(itertools.chain(*chosen)) for count in range(4)
                                   for chosen in itertools.combinations([SACK, STAMPS, SCALE], count)], ids=str)
def test_rule_2_1_the_client_is_promised_what_it_offers_and_the_target_is_offered_just_that(proxy, offer):
    client, answer = opened(proxy, offer)
    names = {name for name, _ in offer} - {"NOP"}
    assert {name for name, _ in answer.options} - {"NOP"} == names | {"MSS"}
    assert option(answer, "WScale") == (10 if "WScale" in names else None)
    if "Timestamp" in names:
        assert option(answer, "Timestamp")[1] == STAMP
    client.send("A")
    client.send("PA", b"hello")
    syn = next(segments[0] for segments in proxy.received.values() if segments and segments[0].flags == "S")
    assert {name for name, _ in syn.options} - {"NOP"} == names | {"MSS"}
    assert option(syn, "WScale") == (7 if "WScale" in names else None)
    assert option(syn, "Timestamp") == ((STAMP, 0) if "Timestamp" in names else None)
    server = proxy.accept("a")
    client.send("R", seq=6)
    server.expect("R", seq=1)


def test_rule_2_2_unknown_options_are_not_agreed_to(proxy):
    client, answer = opened(proxy, [(34, b""), (30, b"\0\1"), *SACK])
    assert {name for name, _ in answer.options} - {"NOP"} == {"MSS", "SAckOK"}
    client.send("R", seq=1)


@pytest.mark.parametrize("theirs", [0, 7, 10, 14])
def test_rule_2_3_the_targets_window_is_shown_in_our_scale(proxy, theirs):
    client, server, _ = spliced(proxy, SCALE, [("NOP", None), ("WScale", theirs)])
    server.expect("PA", data=b"hello")
    for window in (0, 1, 1000, 65535):
        server.send("A", ack=6, window=window)
        client.expect("A", ack=6, window=min((window << theirs) >> 10, 65535))
        client.send("A", window=window)
        server.expect("A", window=window)


def test_rule_2_3_a_target_without_scaling_sees_unscaled_windows(proxy):
    client, server, _ = spliced(proxy, SCALE, [], window=100)
    server.expect("PA", data=b"hello", window=100 << 7)
    client.send("A", window=600)
    server.expect("A", window=65535)
    server.send("A", ack=6, window=2048)
    client.expect("A", window=2)


def test_rule_2_4_timestamps_are_shifted_by_a_constant(proxy):
    client, server, answer = spliced(proxy, STAMPS)
    ours = option(answer, "Timestamp")[0]
    held = server.expect("PA", data=b"hello")
    assert option(held, "Timestamp") == (STAMP + 1, 90_000)
    server.send("A", ack=6, options=[("NOP", None), ("NOP", None), ("Timestamp", (90_010, STAMP))])
    shown = option(client.expect("A", ack=6), "Timestamp")
    assert shown[1] == STAMP and 0 <= shown[0] - ours - 10 < 5_000
    client.send("PA", b"x", options=[("NOP", None), ("NOP", None), ("Timestamp", (STAMP + 9, shown[0]))])
    assert option(server.expect("PA", data=b"x"), "Timestamp") == (STAMP + 9, 90_010)


@pytest.mark.parametrize("lead", [0, 1, 2, 3])
def test_rule_2_4_timestamps_at_any_offset_keep_the_checksum_right(proxy, lead):
    client, server, _ = spliced(proxy, STAMPS)
    server.expect("PA", data=b"hello")
    server.send("A", ack=6, options=[("NOP", None)] * lead + [("Timestamp", (90_255, STAMP))])
    shown = option(client.expect("A", ack=6), "Timestamp")
    client.send("A", options=[("NOP", None)] * lead + [("Timestamp", (STAMP + 300, shown[0]))])
    assert option(server.expect("A"), "Timestamp") == (STAMP + 300, 90_255)


@pytest.mark.parametrize("lead", [0, 1, 2])
def test_edges_of_selective_acknowledgements_are_the_targets_numbers(proxy, lead):
    client, server, _ = spliced(proxy, SACK)
    server.expect("PA", data=b"hello")
    server.send("A", b"0123456789", seq=11, ack=6)
    client.expect("A", seq=11, data=b"0123456789")
    edges = (client.other_isn + 11, client.other_isn + 21)
    client.send("A", ack=1, options=[("NOP", None)] * lead + [("SAck", edges)])
    assert option(server.expect("A", ack=1), "SAck") == (server.isn + 11, server.isn + 21)


def test_rule_2_5_a_target_without_timestamps_gets_them_inserted_toward_the_client(proxy):
    client, server, answer = spliced(proxy, STAMPS, [])
    server.expect("PA", data=b"hello")
    server.send("PA", b"answer", ack=6)
    segment = client.expect("PA", seq=1, ack=6, data=b"answer")
    assert option(segment, "Timestamp")[1] == STAMP + 1 and option(segment, "Timestamp")[0] >= option(answer, "Timestamp")[0]
    client.send("A", options=[("NOP", None), ("NOP", None), ("Timestamp", (STAMP + 5, 1))])
    assert option(server.expect("A"), "Timestamp") is None
    server.send("R", seq=7)
    assert option(client.expect("R"), "Timestamp") is None


def test_rule_2_5_the_syn_leaves_room_for_timestamps_until_the_target_is_known_to_use_them(proxy):
    for target, mss in (("a", 1448), ("b", 1448), ("c", 1448), ("a", 1460)):
        client, _ = opened(proxy, STAMPS)
        client.send("A")
        client.send("PA", b"hello")
        server = proxy.accept(target, mss=mss)
        server.send("SA", options=[("Timestamp", (1, STAMP))])
        server.expect("PA", data=b"hello")


def test_rule_2_1_what_a_target_declines_is_not_promised_again(proxy):
    client, server, _ = spliced(proxy, FULL, [("Timestamp", (7, STAMP))])
    server.expect("PA", data=b"hello")
    client.send("A", ack=1, options=[("SAck", (client.other_isn + 11, client.other_isn + 21))])
    assert option(server.expect("A"), "SAck") is None
    again, answer = opened(proxy, FULL)
    assert {name for name, _ in answer.options} - {"NOP"} == {"MSS", "Timestamp"}
    again.send("R", seq=1)


def test_held_bytes_leave_room_for_timestamps_in_the_targets_mss(proxy):
    client, _ = opened(proxy, STAMPS)
    client.send("A")
    client.send("PA", b"x" * 1000, options=[("Timestamp", (STAMP + 1, 0))])
    server = answered(proxy, "a", [("MSS", 536), ("Timestamp", (1, STAMP))])
    server.expect("A", data=b"x" * 524)
    server.expect("PA", data=b"x" * 476)


def test_a_client_without_options_gets_none(proxy):
    client = proxy.client(TURNS)
    handshake(client)
    client.send("PA", b"hello")
    server = answered(proxy, "a", [])
    assert server.expect("PA", data=b"hello").options == []
