"""SPLICE 2: options agreed on both sides. One test a clause; test_option_matrix.py has every combination of them."""
import itertools

import pytest

from tcp.negotiated import SACK, STAMP, STAMPS, agree, answered, names, offer, option, peek, scale, stamped
from tcp.proxy import FEW, HELD_BYTES, NUMBER, PATH, TARGETS, End

ALL = SACK + STAMPS + scale(7)
TARGET_STAMP = 90_000
TARGET_STAMPS = [("Timestamp", (TARGET_STAMP, STAMP))]
SCALES = list(itertools.product((0, 7, 10, 14), (None, 0, 7, 10, 14)))


def closed(client, server):
    """Ends a connection by an exact RST of the client."""
    client.send("R")
    server.expect("R")


def asked(proxy, options, service=NUMBER, data=b"0 hello", **fields):
    """Returns a client, its SYN-ACK and the SYN that its first payload makes the proxy send to target a."""
    client, answer = offer(proxy, options, service=service, **fields)
    client.send("PA", data, options=stamped(STAMP + 2, 0) if "Timestamp" in names(answer) else [])
    return client, answer, peek(proxy)


@pytest.mark.parametrize("offered", [[], SACK, STAMPS, scale(3), SACK + STAMPS, ALL], ids=str)
def test_rule_2_1_the_syn_offers_exactly_what_the_syn_ack_agreed(proxy, offered):
    client, answer, syn = asked(proxy, offered)
    assert names(syn) == names(answer) == {"MSS"} | {name for name, _ in offered if name != "NOP"}
    proxy.accept("a")
    client.send("R")
    proxy.received.clear()


@pytest.mark.parametrize("declined", [["SAckOK"], ["Timestamp"], ["WScale"], ["SAckOK", "Timestamp", "WScale"]], ids=str)
def test_rule_2_1_the_offer_becomes_what_every_target_of_the_group_supports(proxy, declined):
    agreed = [each for each in ALL if each[0] not in declined]
    client, server, answer, _ = agree(proxy, ALL, agreed)
    assert names(answer) == {"MSS", "SAckOK", "Timestamp", "WScale"}
    closed(client, server)
    client, answer, syn = asked(proxy, ALL)
    assert names(syn) == names(answer) == {"MSS", "SAckOK", "Timestamp", "WScale"} - set(declined)
    client.send("R")
    proxy.received.clear()


def test_rule_2_1_a_group_that_does_not_have_that_target_still_offers_all(proxy_factory):
    proxy = proxy_factory()
    closed(*agree(proxy, ALL, [])[:2])
    assert names(offer(proxy, ALL)[1]) == {"MSS"}
    assert names(offer(proxy, ALL, service=7002)[1]) == {"MSS", "SAckOK", "Timestamp", "WScale"}


def test_rule_2_1_what_the_target_agrees_to_unasked_is_not_used(proxy):
    client, answer = offer(proxy, [])
    client.send("PA", b"0 hello")
    server = answered(proxy, ALL)
    assert server.expect("PA", data=b"0 hello", window=8192).options == []
    server.send("A", ack=8, window=500)
    assert client.expect("A", ack=8, window=500).options == []


MULTIPATH, FAST_OPEN, COOKIE = (30, b"\x00\x81" + b"k" * 8), (34, b""), (34, b"cookie12")
SIGNATURE, AUTHENTICATION = (19, b"\0" * 16), (29, b"\1\2" + b"\0" * 12)


@pytest.mark.parametrize("unknown", [MULTIPATH, FAST_OPEN, COOKIE, SIGNATURE, AUTHENTICATION, (254, b"x")],
                         ids=lambda each: str(each[0]))
def test_rule_2_2_unknown_options_are_removed_from_syns(proxy, unknown):
    client, answer, syn = asked(proxy, [unknown, *SACK])
    assert names(answer) == names(syn) == {"MSS", "SAckOK"}
    server = answered(proxy, [*SACK, unknown])
    server.expect("PA", data=b"0 hello")
    client.nothing()


def test_rule_2_2_data_in_a_syn_is_ignored(proxy):
    client = proxy.client(NUMBER)
    client.send("S", b"0 early", seq=0, options=[COOKIE])
    client.expect("SA", seq=0, ack=1)
    client.seq = 1
    client.send("A")
    assert proxy.state_of(client) == "first_data"
    client.send("PA", b"1 late")
    server = proxy.accept("b")
    server.send("SA")
    server.expect("PA", seq=1, data=b"1 late")


def ecn(proxy, target="SAE", data=b"0 hello", options=()):
    """Both ends: the client offers ECN, the target answers with these flags."""
    client = proxy.client(NUMBER)
    client.send("SEC", options=list(options), mss=1460)
    client.expect("SAE", seq=0, ack=1)
    client.send("A")
    client.send("PA", data, tos=2)
    assert peek(proxy).flags == "SEC"
    server = End(proxy, 1, TARGETS["a"], peek(proxy).source, 700_000, peek(proxy).seq)
    server.expect("SEC", seq=0)
    server.send(target, mss=1460)
    server.expect("PA", seq=1, ack=1, data=data)
    server.send("A")
    client.expect("A", ack=1 + len(data))
    return client, server


def test_rule_2_2_ecn_is_agreed_like_the_rest(proxy):
    client, server = ecn(proxy)
    for sender, receiver in ((client, server), (server, client)):
        for flags, tos in (("PA", 2), ("PA", 1), ("PA", 3), ("PAE", 2), ("PAC", 2), ("PAEC", 3)):
            sender.send(flags, b"x", tos=0xB8 | tos)
            receiver.expect(flags, data=b"x", tos=0xB8 | tos)


def test_rule_2_2_a_client_that_does_not_offer_ecn_gets_none(proxy):
    client, server = proxy.client(NUMBER), None
    client.send("S")
    client.expect("SA")
    client.send("A")
    client.send("PA", b"0 hello")
    assert peek(proxy).flags == "S"
    server = answered(proxy, [])
    server.expect("PA", data=b"0 hello")


@pytest.mark.parametrize("options", [[], STAMPS + SACK])
def test_rule_2_2_marks_are_cleared_toward_a_target_that_declines_ecn(proxy, options):
    client, server = ecn(proxy, "SA", options=options)
    for flags, tos in (("PA", 2), ("PA", 1), ("PA", 3), ("PAE", 2), ("PAC", 2), ("PAEC", 3), ("FPAEC", 3)):
        client.send(flags, b"x", tos=0xB8 | tos)
        server.expect(flags.replace("E", "").replace("C", ""), data=b"x", tos=0xB8)


def test_rule_2_2_a_group_with_a_target_that_declined_ecn_promises_none(proxy):
    client, server = ecn(proxy, "SA")
    client.send("R")
    server.expect("R")
    again = proxy.client(NUMBER)
    again.send("SEC")
    again.expect("SA", seq=0, ack=1)


def test_rule_2_2_a_target_that_echoes_the_reserved_bits_declines(proxy):
    """RFC 3168, 6.1.1: a SYN-ACK with both ECE and CWR is no ECN-setup SYN-ACK."""
    client, server = ecn(proxy, "SAEC")
    client.send("PAC", b"x", tos=2)
    server.expect("PA", data=b"x", tos=0)


def test_rule_2_2_held_bytes_sent_again_are_not_ecn_capable(proxy):
    """RFC 3168, 6.1.5."""
    client = proxy.client(NUMBER)
    client.send("SEC")
    client.expect("SAE")
    client.send("A")
    client.send("PA", b"0 hello", tos=2)
    server = End(proxy, 1, TARGETS["a"], peek(proxy).source, 700_000, peek(proxy).seq)
    server.expect("SEC", seq=0)
    server.send("SAE")
    server.expect("PA", data=b"0 hello")
    proxy.wait(0.32)
    assert server.expect("PA", data=b"0 hello").tos & 3 == 0


@pytest.mark.parametrize("ours, theirs", SCALES, ids=str)
def test_rule_2_3_windows_are_shown_in_the_scale_that_each_end_was_told(proxy, ours, theirs):
    client, server, answer, held = agree(proxy, scale(ours), scale(theirs) if theirs is not None else [], window=3)
    shown = option(answer, "WScale")
    assert held.window == (3 if theirs is not None else min(3 << ours, 65535))
    for window in (0, 1, 2, 63, 64, 1000, 1023, 1024, 8191, 65535):
        server.send("A", ack=8, window=window)
        client.expect("A", ack=8, window=min((window << (theirs or 0)) >> shown, 65535))
        client.send("A", window=window)
        server.expect("A", window=window if theirs is not None else min(window << ours, 65535))


@pytest.mark.parametrize("window", [1, 5000, 65535])
def test_rule_2_3_a_syn_carries_its_window_unscaled(proxy, window):
    client = proxy.client(NUMBER)
    client.send("S", options=scale(14), window=window)
    answer = client.expect("SA")
    assert 0 < answer.window <= 1024 and option(answer, "WScale") == 10
    client.send("A", window=1)
    client.send("PA", b"0 hello", window=1)
    syn = peek(proxy)
    assert option(syn, "WScale") == 14 and 1 << 14 <= syn.window <= 65535, "1 << 14 octets, not the figure in the segment"
    proxy.accept("a")
    client.send("R")
    proxy.received.clear()


@pytest.mark.parametrize("excessive", [15, 255])
def test_rule_2_3_a_scale_above_14_counts_as_14(proxy, excessive):
    client, server, *_ = agree(proxy, scale(7), scale(excessive))
    server.send("A", ack=8, window=3)
    client.expect("A", ack=8, window=(3 << 14) >> 10)


def test_rule_2_3_without_scaling_windows_pass_as_they_are(proxy):
    client, server, *_ = agree(proxy, [], scale(7))
    for window in (0, 1, 65535):
        server.send("A", ack=8, window=window)
        client.expect("A", ack=8, window=window)
        client.send("A", window=window)
        server.expect("A", window=window)


def test_rule_2_4_our_clock_is_another_for_each_connection_and_goes_with_time(proxy):
    values = [option(offer(proxy, STAMPS)[1], "Timestamp")[0] for _ in range(8)]
    assert len({value >> 8 for value in values}) == 8
    client = proxy.client()
    client.send("S", options=STAMPS)
    first = option(client.expect("SA"), "Timestamp")[0]
    proxy.wait(1.25)
    again = option(client.expect("SA"), "Timestamp")[0]
    assert 1100 <= (again - first) % 2**32 <= 1300


def test_rule_2_4_the_shift_is_our_last_tsval_less_the_targets_first_plus_the_time_between(proxy):
    client, answer = offer(proxy, STAMPS)
    client.send("PA", b"0 hello", options=stamped(STAMP + 2, option(answer, "Timestamp")[0]))
    proxy.wait(0.5)
    server = answered(proxy, TARGET_STAMPS)
    server.expect("PA", data=b"0 hello")
    server.send("A", ack=8, options=stamped(TARGET_STAMP, STAMP))
    shown = option(client.expect("A", ack=8), "Timestamp")[0]
    assert (shown - option(answer, "Timestamp")[0]) % 2**32 in range(495, 506)


@pytest.mark.parametrize("start", [0, 1, 2**31 - 2, 2**32 - 3, TARGET_STAMP])
def test_rule_2_4_the_targets_tsval_and_the_clients_tsecr_are_shifted_by_one_constant(proxy, start):
    client, server, answer, held = agree(proxy, STAMPS, [("Timestamp", (start, STAMP))])
    assert option(held, "Timestamp")[1] == start
    shifts = set()
    for number in range(1, 6):
        value = (start + number) % 2**32
        server.send("PA", b"x", ack=8, options=stamped(value, STAMP + number))
        shown = option(client.expect("PA", data=b"x"), "Timestamp")
        shifts.add((shown[0] - value) % 2**32)
        assert shown[1] == STAMP + number, "TSecr is the client's own TSval"
        client.send("A", options=stamped(STAMP + number, shown[0]))
        assert option(server.expect("A"), "Timestamp") == (STAMP + number, value)
    assert len(shifts) == 1


def test_rfc_7323_before_binding_the_clients_latest_timestamp_is_echoed(proxy):
    client = proxy.client(PATH)
    client.send("S", options=STAMPS)
    client.expect("SA", seq=0, ack=1)
    client.send("S", seq=0, options=[("Timestamp", (STAMP + 900, 0))])
    assert option(client.expect("SA", seq=0, ack=1), "Timestamp")[1] == STAMP + 900
    client.send("PA", b"GET /", options=stamped(STAMP + 1200, 0))
    assert option(client.expect("A", seq=1, ack=6), "Timestamp")[1] == STAMP + 1200
    client.send("PA", b"x", seq=8, options=stamped(STAMP + 1500, 0))  # beyond what comes next: not echoed
    client.expect("A", seq=1, ack=6)
    client.send("PA", b"GET /", seq=1, options=stamped(STAMP + 1400, 0))
    assert option(client.expect("A", seq=1, ack=6), "Timestamp")[1] == STAMP + 1400
    client.send("PA", b"GET /", seq=1, options=stamped(STAMP + 1300, 0))
    assert option(client.expect("A", seq=1, ack=6), "Timestamp")[1] == STAMP + 1400


def test_rule_2_4_the_syn_carries_the_lowest_timestamp_and_held_bytes_the_latest(proxy):
    client = proxy.client(PATH)
    client.send("S", options=STAMPS)
    client.expect("SA", seq=0, ack=1)
    client.send("PA", b"GET /b/x ", options=stamped(STAMP + 1200, 0))
    assert option(peek(proxy, "b"), "Timestamp") == (STAMP, 0)
    server = proxy.accept("b")
    server.send("SA", options=stamped(TARGET_STAMP, STAMP))
    assert option(server.expect("PA", seq=1, ack=1, data=b"GET /b/x "), "Timestamp") == (STAMP + 1200, TARGET_STAMP)


def test_rule_2_4_timestamps_of_a_rst_are_translated_too(proxy):
    client, server, *_ = agree(proxy, STAMPS, TARGET_STAMPS)
    server.send("A", ack=8, options=stamped(TARGET_STAMP + 1, STAMP))
    shown = option(client.expect("A"), "Timestamp")[0]
    client.send("RA", options=stamped(STAMP + 9, shown))
    assert option(server.expect("RA"), "Timestamp") == (STAMP + 9, TARGET_STAMP + 1)


@pytest.mark.parametrize("first, later", [(STAMP, STAMP + 1000), (2**32 - 5, 3)])
def test_rule_2_4_the_syn_carries_the_lowest_tsval_of_all_that_follows_it(proxy, first, later):
    client = proxy.client(NUMBER)
    client.send("S", options=[("Timestamp", (first, 0))])
    client.expect("SA")
    client.send("A", options=stamped(later, 0))
    client.send("PA", b"0 hello", options=stamped((later + 1) % 2**32, 0))
    assert option(peek(proxy), "Timestamp")[0] == first
    server = answered(proxy, [("Timestamp", (7, first))])
    held = option(server.expect("PA", data=b"0 hello"), "Timestamp")[0]
    assert (held - first) % 2**32 < 2**31


def test_rule_2_4_a_syn_sent_again_has_the_lower_tsval(proxy):
    client = proxy.client(NUMBER)
    client.send("S", options=[("Timestamp", (STAMP, 0))])
    client.expect("SA")
    client.send("S", seq=0, options=[("Timestamp", (STAMP + 1000, 0))])
    client.expect("SA")
    client.send("A", seq=1, options=stamped(STAMP + 1001, 0))
    client.send("PA", b"0 hello", seq=1, options=stamped(STAMP + 1002, 0))
    assert (option(peek(proxy), "Timestamp")[0] - STAMP) % 2**32 <= 1000
    server = answered(proxy, TARGET_STAMPS)
    server.expect("PA", data=b"0 hello")


def test_rule_2_4_a_challenge_does_not_outrun_a_target_with_a_slow_clock(proxy):
    client, server, *_ = agree(proxy, STAMPS, TARGET_STAMPS)
    server.send("A", ack=8, options=stamped(TARGET_STAMP, STAMP))
    client.expect("A")
    proxy.wait(10, 0.1)
    client.send("S", seq=500, options=STAMPS)
    challenge = client.expect("A", seq=1, ack=8)
    server.send("PA", b"answer", options=stamped(TARGET_STAMP + 1000, STAMP))     # a clock of 10 ms a tick
    shown = option(client.expect("PA", data=b"answer"), "Timestamp")[0]
    assert (shown - option(challenge, "Timestamp")[0]) % 2**32 < 2**31


def test_rule_2_5_every_segment_toward_the_client_but_a_rst_gets_a_timestamp(proxy):
    client, server, answer, _ = agree(proxy, STAMPS, [])
    seen = [option(answer, "Timestamp")[0]]
    for flags, data in (("A", b""), ("PA", b"answer"), ("A", b"x" * 1000), ("FPA", b"last"), ("FA", b"")):
        proxy.wait(0.05)
        server.send(flags, data, ack=8, **({"seq": server.seq - 1} if flags == "FA" else {}))
        segment = client.expect(flags, data=data)
        seen.append(option(segment, "Timestamp")[0])
    assert all(0 <= (after - before) % 2**32 < 1000 for before, after in itertools.pairwise(seen))
    server.send("RA", ack=8)
    assert names(client.expect("RA")) == set()


def test_rule_2_5_the_inserted_tsecr_is_the_clients_last_tsval(proxy):
    client, server, answer, _ = agree(proxy, STAMPS, [])
    server.send("A", ack=8)
    client.expect("A", ack=8)
    client.send("PA", b"more", options=stamped(STAMP + 70_000, 0))
    server.expect("PA", data=b"more")
    server.send("A")
    assert option(client.expect("A", ack=12), "Timestamp")[1] == STAMP + 70_000


def test_rule_2_5_the_client_sends_timestamps_and_the_target_sees_none(proxy):
    client, server, _, held = agree(proxy, STAMPS, [])
    assert names(held) == set()
    server.send("A", ack=8)
    shown = option(client.expect("A", ack=8), "Timestamp")[0]
    for flags, data in (("A", b""), ("PA", b"more"), ("FA", b"")):
        client.send(flags, data, options=stamped(STAMP + 5, shown))
        assert names(server.expect(flags, data=data)) == set()


@pytest.mark.parametrize("mss", [536, 1400, 1460])
def test_rule_2_5_what_a_target_without_timestamps_sends_has_room_for_them(proxy, mss):
    client, answer, syn = asked(proxy, STAMPS, mss=mss)
    assert syn.mss <= mss - 12
    server = answered(proxy, [])
    server.expect("PA", data=b"0 hello")
    server.send("PA", b"y" * syn.mss, ack=8)
    full = client.expect("PA", data=b"y" * syn.mss)
    assert len(full.frame) - 14 - 40 <= mss and option(full, "Timestamp")


@pytest.mark.parametrize("stamps", [False, True])
def test_rule_2_5_blocks_of_the_client_are_removed_toward_a_target_without_sack(proxy, stamps):
    client, server, *_ = agree(proxy, SACK + STAMPS if stamps else SACK, TARGET_STAMPS if stamps else [])
    lead = stamped(STAMP + 3, 0) if stamps else [("NOP", None)] * 2
    server.send("A", b"beyond", seq=101, ack=8, options=stamped(TARGET_STAMP + 1, STAMP) if stamps else [])
    client.expect("A", seq=101, data=b"beyond")
    edges = (client.other_isn + 101, client.other_isn + 107)
    client.send("A", ack=1, options=[*lead, ("SAck", edges)])
    assert names(server.expect("A", ack=1)) == ({"Timestamp"} if stamps else set())


@pytest.mark.parametrize("blocks", [1, 2, 3, 4])
def test_rule_2_5_blocks_toward_a_target_with_sack_are_in_its_own_numbers(proxy, blocks):
    client, server, *_ = agree(proxy, SACK, SACK)
    server.send("A", ack=8)
    client.expect("A", ack=8)
    edges = [number for block in range(blocks) for number in (101 + 200 * block, 201 + 200 * block)]
    for number in edges[::2]:
        server.send("A", b"z" * 100, seq=number)
        client.expect("A", seq=number, data=b"z" * 100)
    client.send("A", ack=1, options=[("NOP", None)] * 2 + [("SAck", tuple(client.other_isn + edge for edge in edges))])
    assert option(server.expect("A", ack=1), "SAck") == tuple(server.isn + edge for edge in edges)


def test_rule_2_5_blocks_of_the_target_reach_the_client_in_its_own_numbers(proxy):
    client, server, *_ = agree(proxy, SACK, SACK)
    client.send("A", b"c" * 100, seq=108)
    server.expect("A", seq=108, data=b"c" * 100)
    server.send("A", ack=8, options=[("NOP", None)] * 2 + [("SAck", (client.isn + 108, client.isn + 208))])
    assert option(client.expect("A", ack=8), "SAck") == (client.isn + 108, client.isn + 208)


def test_rule_2_6_held_bytes_are_cut_to_a_lower_mss_of_the_target(proxy):
    client, answer = offer(proxy, [])
    client.send("PA", b"0" + b"h" * 900)
    server = answered(proxy, [], mss=300)
    for part in (300, 300):
        assert len(server.expect("A", data=b"0" + b"h" * (part - 1) if server.ack == 1 else b"h" * part).data) == part
    server.expect("A", data=b"h" * 300)
    server.expect("PA", data=b"h")


def test_rule_2_6_the_mss_of_the_syn_ack_is_the_least_that_the_group_has_shown(proxy):
    assert offer(proxy, [])[1].mss == 1460
    for mss, shown in ((1400, 1400), (1000, 1000), (1200, 1000), (9000, 1000)):
        client, answer = offer(proxy, [])
        client.send("PA", b"0 hello")
        server = answered(proxy, [], mss=mss)
        server.expect("PA", data=b"0 hello")
        assert offer(proxy, [])[1].mss == shown


@pytest.mark.parametrize("stamps", [False, True])
@pytest.mark.parametrize("flags", ["PA", "A", "FPA", "PAU"])
def test_rule_2_6_segments_too_long_for_the_target_are_split(proxy, flags, stamps):
    options = STAMPS if stamps else []
    client, server, answer, _ = agree(proxy, options, [("Timestamp", (7, STAMP))] if stamps else [], target_mss=500)
    server.send("A", ack=8, options=stamped(8, STAMP) if stamps else [])
    client.expect("A", ack=8)
    data = bytes(range(256)) * 5
    client.send(flags, data, options=stamped(STAMP + 9, option(answer, "Timestamp")[0]) if stamps else [])
    parts, got = list(proxy.received.pop((server.own, server.other))), b""
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        assert part.intact and len(part.frame) - 14 - 40 <= 500 and (part.seq - client.isn) % 2**32 == 8 + len(got)
        assert ("F" in part.flags) == (last and "F" in flags) and ("P" in part.flags) <= ("P" in flags)
        assert ("P" in part.flags) == ("P" in flags) or not last
        assert not stamps or option(part, "Timestamp")[0] == STAMP + 9
        got += part.data
    assert got == data and len(parts) >= 3
    server.ack = 8 + len(data) + ("F" in flags)
    server.send("A", options=stamped(9, STAMP) if stamps else [])
    client.expect("A", ack=client.seq)


def test_rule_2_6_a_segment_that_fits_is_not_split(proxy):
    client, server, *_ = agree(proxy, [], [], target_mss=500)
    server.send("A", ack=8)
    client.expect("A", ack=8)
    client.send("PA", b"x" * 500)
    server.expect("PA", data=b"x" * 500)


def test_rule_2_3_the_offer_becomes_the_largest_scale_that_a_target_of_the_group_has_shown(proxy):
    for target, shown, offered in (("a", 7, 10), ("b", 9, 7), ("a", 7, 9), ("b", 2, 9), ("a", 7, 7)):
        client, answer = offer(proxy, scale(3))
        assert option(answer, "WScale") == offered
        client.send("PA", b"0 hello" if target == "a" else b"1 hello")
        server = answered(proxy, scale(shown), target)
        server.expect("PA", data=b"0 hello" if target == "a" else b"1 hello")
        server.send("A", window=4321)
        client.expect("A", ack=8, window=(4321 << shown) >> offered)
    _, answer = offer(proxy, scale(3), service=FEW)
    assert option(answer, "WScale") == 10


@pytest.mark.parametrize("shown", [0, 14])
def test_rule_2_3_a_window_of_a_target_whose_scale_is_known_is_neither_rounded_nor_cut(proxy, shown):
    agree(proxy, scale(3), scale(shown))
    client, server, answer, _ = agree(proxy, scale(3), scale(shown))
    assert option(answer, "WScale") == shown
    for window in (1, 65_535):
        server.send("A", window=window)
        client.expect("A", window=window)


def test_rule_2_3_every_window_of_ours_is_in_the_scale_that_was_offered(proxy):
    agree(proxy, scale(3), scale(2))
    proxy.received.clear()
    client, answer = offer(proxy, scale(3), service=PATH)
    assert option(answer, "WScale") == 2
    client.send("A", seq=0)
    client.expect("A", ack=1, window=HELD_BYTES >> 2)
    client.send("PA", b"GET /")
    client.expect("A", ack=6, window=(HELD_BYTES - 5) >> 2)
    client.send("PA", b"a HTTP/1.0\r\n\r\n")
    server = answered(proxy, scale(2), window=500)
    server.expect("PA", data=b"GET /a HTTP/1.0\r\n\r\n")
    server.send("A", ack=3, window=500)
    client.expect("A", ack=20, window=((500 << 2) - 17) >> 2)
