"""Held bytes on their way to the target: its window, its MSS, what the path takes, what is lost (SPLICE 1.2), on virtual time."""
import random

import pytest

from tcp.negotiated import STAMP, STAMPS, option, scale, stamped
from tcp.proxy import HELD_BYTES, NUMBER, PATH, handshake, settings

from pipeline.kernels.connection import OWNS

LONG = 60_000
MOST = 1460


def holding(proxy, length, part=MOST, service=NUMBER, **fields):
    """Returns a client of which `length` octets are held, those octets, and the target's End that has had our SYN."""
    client = proxy.client(service)
    handshake(client, **fields)
    data = (b"0" if service == NUMBER else b"") + random.Random(length).randbytes(length - (service == NUMBER))
    for at in range(0, length, part):
        client.send("A", data[at:at + part])
    return client, data, proxy.accept("a")


def owning(proxy, length, options=(), **fields):
    """As `holding`, with octets acknowledged to the client: the path that chooses ends with the last ones."""
    part = min(MOST, length - 1)
    client = proxy.client(PATH)
    client.send("S", options=list(options), mss=MOST)
    client.expect("SA")
    client.send("A", **fields)
    data = b"GET /a?" + b"x" * (length - 8) + b" "
    for at in range(0, length, part):
        client.send("A", data[at:at + part], **fields)
        if at + part < length:
            client.expect("A", ack=1 + at + part)
    return client, data, proxy.accept("a")


def come(proxy, end):
    """Takes the segments that have come to an end; returns [(relative number, payload)]."""
    segments = proxy.received.pop((end.own, end.other), ())
    assert all(segment.intact for segment in segments)
    return [((segment.seq - end.other_isn) % 2**32, segment.data) for segment in segments]


def sizes(proxy, end):
    """As `come`, with lengths in place of payloads."""
    return [(number, len(data)) for number, data in come(proxy, end)]


@settings(held_bytes=65472)
def test_rule_1_2_a_first_message_of_60_kib_to_a_target_with_a_window_of_2_kib_arrives_whole(proxy):
    client, data, server = owning(proxy, LONG)
    server.send("SA", mss=MOST, window=2048)
    got, edge = b"", 2049
    for _ in range(200):
        parts = come(proxy, server)
        for number, part in parts:
            assert number == 1 + len(got) and number + len(part) <= edge
            got += part
        if len(got) == LONG:
            break
        assert parts, "it goes on with every acknowledgement"
        edge = 1 + len(got) + 2048
        server.send("A", ack=1 + len(got), window=2048)
    assert got == data
    server.send("A", ack=1 + LONG, window=2048)
    proxy.received.clear()
    assert proxy.count("held_retransmitted") == 0


@settings(held_bytes=65472)
def test_rule_1_2_the_first_burst_has_ten_segments(proxy):
    client, data, server = holding(proxy, LONG)
    server.send("SA", mss=MOST, window=65535)
    assert sizes(proxy, server) == [(1 + MOST * number, MOST) for number in range(10)]
    server.send("A", ack=1 + 2 * MOST, window=65535)
    assert sizes(proxy, server) == [(1 + MOST * number, MOST) for number in range(10, 13)]
    proxy.received.clear()


@settings(held_bytes=65472)
@pytest.mark.parametrize("mss, segments", [(536, 10), (1000, 10), (1460, 10)])
def test_rule_1_2_the_first_burst_follows_rfc_6928(proxy, mss, segments):
    client, data, server = holding(proxy, LONG)
    server.send("SA", mss=mss, window=65535)
    assert sizes(proxy, server) == [(1 + mss * number, mss) for number in range(segments)]


@settings(held_bytes=65472)
def test_rule_1_2_every_acknowledgement_lets_one_more_segment_out_than_it_covers(proxy):
    client, data, server = holding(proxy, LONG)
    server.send("SA", mss=MOST, window=65535)
    last = 10
    proxy.received.clear()
    for acknowledged in range(1, 16):
        server.send("A", ack=1 + MOST * acknowledged, window=65535)
        assert sizes(proxy, server) == [(1 + MOST * number, MOST) for number in (last, last + 1)]
        last += 2
    proxy.received.clear()


def test_rule_1_2_the_window_of_the_targets_syn_ack_is_not_scaled(proxy):
    client, data, server = owning(proxy, 1000, options=scale(7))
    server.send("SA", mss=MOST, window=300, options=scale(10))
    assert sizes(proxy, server) == [(1, 300)]
    server.send("A", ack=301, window=1)
    assert sizes(proxy, server) == [(301, 512), (813, 188)]
    proxy.received.clear()


def test_rule_1_2_a_small_remainder_of_the_window_waits(proxy):
    client, data, server = holding(proxy, 1000)
    server.send("SA", mss=400, window=1000 - 150)
    assert sizes(proxy, server) == [(1, 400), (401, 400)]
    server.send("A", ack=401, window=850)
    assert sizes(proxy, server) == [(801, 200)]
    proxy.received.clear()


def test_rule_1_2_segments_are_at_most_half_of_the_targets_widest_window(proxy):
    client, data, server = holding(proxy, 1000)
    server.send("SA", mss=MOST, window=600)
    assert sizes(proxy, server) == [(1, 300), (301, 300)]
    server.send("A", ack=301, window=600)
    assert sizes(proxy, server) == [(601, 300)]
    proxy.received.clear()


@pytest.mark.parametrize("scales", [None, (7, 2), (0, 14)], ids=str)
def test_rule_1_2_the_client_is_shown_what_our_bytes_leave_of_the_targets_window(proxy, scales):
    client, data, server = owning(proxy, 1000, options=scale(scales[0]) if scales else [])
    theirs = scales[1] if scales else 0
    server.send("SA", mss=MOST, window=400, options=scale(theirs) if scales else [])
    assert sum(length for _, length in sizes(proxy, server)) == 400
    for has, window in ((0, 400), (400, 400), (400, 700), (800, 1700), (1000, 1700)):
        server.send("A", ack=1 + has, window=window)
        left = max((window << theirs) - (1000 - has), 0)
        client.expect("A", ack=1001, window=min(((left >> theirs) << theirs) >> (10 if scales else 0), 65535))
    proxy.received.clear()


@pytest.mark.parametrize("scales", [None, (7, 2), (0, 10)], ids=str)
def test_rule_1_2_a_late_window_from_before_all_was_acknowledged_is_lowered_in_the_frame_too(proxy, scales):
    client, data, server = owning(proxy, 1000, options=scale(scales[0]) if scales else [])
    theirs = scales[1] if scales else 0
    server.send("SA", mss=MOST, window=4000, options=scale(theirs) if scales else [])
    server.send("A", ack=1001, window=4000)
    client.expect("A", ack=1001)
    server.send("A", ack=401, window=1500)
    client.expect("A", ack=1001, window=((1500 << theirs) - 600) >> theirs << theirs >> (10 if scales else 0))
    proxy.received.clear()


def test_rule_1_2_what_was_ours_is_forgotten_however_far_one_acknowledgement_jumps(proxy):
    client, data, server = owning(proxy, 1000, options=scale(14))
    server.send("SA", mss=MOST, window=4000, options=scale(14))
    server.send("A", ack=1001, window=65535)
    for jump in (1 << 30, 1 << 31):
        client.send("A", b"x", seq=1000 + jump)
        server.send("A", ack=1001 + jump, window=65535)
    proxy.received.clear()
    assert not proxy.state.connections.hot[proxy.number_of(client)].options & OWNS


def test_rule_1_3_a_window_that_our_bytes_fill_is_shown_as_zero_and_opens_by_itself(proxy):
    client, data, server = owning(proxy, 1000)
    server.send("SA", mss=MOST, window=500)
    server.send("A", ack=1, window=500)
    client.expect("A", ack=1001, window=0)
    client.send("A", seq=1000)  # its zero-window probe
    server.send("A", ack=501, window=500)
    client.expect("A", ack=1001, window=0)
    server.send("A", ack=1001, window=500)
    client.expect("A", ack=1001, window=500)
    proxy.received.clear()


def test_rule_1_2_a_target_whose_syn_ack_has_a_zero_window_is_acknowledged_and_probed(proxy):
    client, data, server = holding(proxy, 600)
    server.send("SA", mss=MOST, window=0)
    server.expect("A", seq=1, ack=1)
    proxy.wait(0.28)
    proxy.silent()
    proxy.wait(0.04)
    server.expect("A", seq=1, data=data[:1])
    server.send("A", ack=1, window=0)
    client.expect("A", ack=1, window=0)
    server.send("A", ack=1, window=1000)
    client.expect("A", ack=1, window=1000)
    assert sizes(proxy, server) == [(1, 500), (501, 100)]


def test_rule_1_2_a_zero_window_does_not_end_the_connection_while_probes_are_answered(proxy):
    client, data, server = holding(proxy, 600)
    server.send("SA", mss=MOST, window=300)
    server.send("A", ack=301, window=0)
    proxy.received.clear()
    probes, last = [], proxy.now
    for _ in range(40_000):
        proxy.wait(0.05, 0.05)
        if parts := come(proxy, server):
            assert parts == [(301, data[300:301])]
            probes.append(proxy.now - last)
            last = proxy.now
            server.send("A", ack=301, window=0)
            client.expect("A", ack=301, window=0)
    assert proxy.state_of(client) == "established"
    assert all(second >= min(1.8 * first, 115_000_000) for first, second in zip(probes, probes[1:])), probes
    assert len(probes) >= 20 and max(probes) <= 121_000_000
    server.send("A", ack=301, window=8192)
    client.expect("A", ack=301)
    assert sizes(proxy, server) == [(301, 300)]


def test_rule_1_2_a_probe_that_is_taken_goes_on_behind_it(proxy):
    client, data, server = holding(proxy, 600)
    server.send("SA", mss=MOST, window=0)
    proxy.wait(0.32)
    proxy.received.clear()
    server.send("A", ack=2, window=1000)
    assert sizes(proxy, server) == [(2, 500), (502, 99)]
    client.expect("A", ack=2)


def test_rule_1_2_a_time_out_sends_the_oldest_segment_first_and_goes_on_with_acknowledgements(proxy):
    client, data, server = holding(proxy, 1000)
    server.send("SA", mss=250)
    assert sizes(proxy, server) == [(1, 250), (251, 250), (501, 250), (751, 250)]
    proxy.wait(0.32)
    assert sizes(proxy, server) == [(1, 250)]
    server.send("A", ack=251)
    assert sizes(proxy, server) == [(251, 250), (501, 250)]
    server.send("A", ack=1001)
    proxy.wait(5, 0.1)
    server.nothing()
    proxy.received.clear()


def test_rule_1_2_the_time_out_doubles_and_starts_anew_with_progress(proxy):
    client, data, server = holding(proxy, 500)
    server.send("SA", mss=250)
    proxy.received.clear()
    for step in (0.3, 0.6, 1.2, 2.4):
        proxy.wait(step - 0.02)
        proxy.silent()
        proxy.wait(0.04)
        assert sizes(proxy, server) == [(1, 250)]
        proxy.now -= 20_000
    server.send("A", ack=251)
    client.expect("A", ack=251)
    assert sizes(proxy, server) == [(251, 250)]
    proxy.wait(0.28)
    proxy.silent()
    proxy.wait(0.04)
    assert sizes(proxy, server) == [(251, 250)]


def test_rule_1_2_the_time_out_is_no_shorter_than_three_times_what_the_handshake_took(proxy):
    client, data, server = holding(proxy, 500)
    proxy.wait(0.5)
    server.send("SA")
    proxy.received.clear()
    proxy.wait(1.45)
    proxy.silent()
    proxy.wait(0.07)
    assert sizes(proxy, server) == [(1, 500)]


def test_rule_1_2_after_a_second_syn_the_handshake_measures_nothing(proxy):
    client, data, server = holding(proxy, 500)
    proxy.wait(1.02)
    server.expect("S", seq=0)
    server.send("SA")
    proxy.received.clear()
    proxy.wait(2.97)
    proxy.silent()
    proxy.wait(0.05)
    assert sizes(proxy, server) == [(1, 500)]


@settings(held_bytes=65472)
def test_rule_1_2_three_duplicates_send_the_oldest_segment_again_at_once(proxy):
    client, data, server = holding(proxy, LONG)
    server.send("SA", mss=1000, window=65535)
    proxy.received.clear()
    for _ in range(2):
        server.send("A", ack=1, window=65535)
        server.nothing()
    server.send("A", ack=1, window=65535)
    assert sizes(proxy, server)[0] == (1, 1000)
    server.send("A", ack=3001, window=65535)  # the fourth is lost too
    assert sizes(proxy, server)[0] == (3001, 1000)
    server.send("A", ack=10_001, window=65535)
    assert all(number > 10_000 for number, _ in sizes(proxy, server))
    assert proxy.count("held_retransmitted") == 0
    proxy.received.clear()


def test_rule_1_2_window_updates_and_payload_are_no_duplicates(proxy):
    client, data, server = holding(proxy, 1000)
    server.send("SA", mss=250, window=8000)
    proxy.received.clear()
    for number in range(6):
        server.send("A", ack=1, window=8001 + number)
        server.send("PA", b"x", ack=1, window=8001 + number)
    server.nothing()
    proxy.received.clear()


def test_rule_1_2_a_gap_in_our_bytes_is_no_duplicate_to_the_client(proxy):
    client, data, server = owning(proxy, 1000, options=[("SAckOK", b"")])
    server.send("SA", mss=250, options=[("SAckOK", b"")])
    proxy.received.clear()
    gap = [("NOP", None), ("NOP", None), ("SAck", (server.other_isn + 251, server.other_isn + 501))]
    for _ in range(3):
        server.send("A", ack=1, options=gap)
    client.nothing()
    assert sizes(proxy, server) == [(1, 250)]
    server.send("A", ack=1001)
    client.expect("A", ack=1001)
    assert option(client.send("A") or server.expect("A"), "SAck") is None


def test_rule_2_4_held_bytes_sent_again_carry_no_older_tsval_than_the_clients_last(proxy):
    client, data, server = owning(proxy, 500, options=STAMPS)
    server.send("SA", mss=MOST, options=[("Timestamp", (90_000, STAMP))])
    proxy.received.clear()
    client.send("A", seq=500, options=stamped(STAMP + 800, 0))  # a keep-alive
    server.expect("A", seq=500)
    server.send("A", ack=1, options=stamped(90_500, STAMP + 800))
    client.expect("A", ack=501)
    proxy.wait(0.32)
    again = server.expect("PA", seq=1, data=data)
    assert option(again, "Timestamp") == (STAMP + 800, 90_500)


def test_rule_1_2_held_bytes_sent_again_carry_the_clients_last_window(proxy):
    client, data, server = holding(proxy, 500)
    server.send("SA")
    proxy.received.clear()
    client.send("A", window=123)
    server.expect("A", window=123)
    proxy.wait(0.32)
    server.expect("PA", seq=1, data=data, window=123)


def test_rule_1_2_what_the_client_sends_meanwhile_passes(proxy):
    client, data, server = owning(proxy, 1000)
    server.send("SA", mss=MOST, window=1200)
    assert sizes(proxy, server) == [(1, 600), (601, 400)]
    client.send("PA", b"beyond", seq=1001)
    server.expect("PA", seq=1001, data=b"beyond")
    server.send("A", ack=1)
    client.expect("A", ack=1001)
    proxy.wait(0.32)
    assert sizes(proxy, server) == [(1, 1000)]
    server.send("A", ack=1007)
    proxy.received.clear()


def test_rule_1_2_a_held_fin_goes_with_the_last_octet_however_narrow_the_window(proxy):
    client = proxy.client(NUMBER)
    handshake(client)
    client.send("FPA", b"0" * 500)
    server = proxy.accept("a")
    server.send("SA", window=300)
    server.expect("A", seq=1, data=b"0" * 300)
    server.send("A", ack=301, window=300)
    server.expect("FPA", seq=301, data=b"0" * 200)
    server.send("A", ack=502)
    proxy.received.clear()
    assert proxy.state_of(client) == "half_closed"


@settings(held_bytes=65472)
@pytest.mark.parametrize("seed", range(8))
def test_rule_1_2_held_bytes_arrive_whole_whatever_is_lost_and_however_the_window_moves(proxy, seed):
    dice = random.Random(seed)
    length = dice.randrange(HELD_BYTES, LONG)
    client, data, server = (owning if seed & 1 else holding)(proxy, length)
    first = dice.choice((0, 500, 8192, 65535))
    server.send("SA", mss=dice.choice((200, 536, 1460)), window=first)
    got, kept, edge, farthest = 0, {}, 65536, first
    for _ in range(3000):
        for number, part in come(proxy, server):
            if part and dice.random() > 0.15:
                kept[number - 1] = part
            assert part == data[number - 1:number - 1 + len(part)]
            assert number - 1 + len(part) <= farthest or len(part) == 1, "beyond the window goes but a probe"
        for start in sorted(kept):
            got = max(got, start + len(kept[start])) if start <= got else got
        if got == length:
            break
        edge = max(edge, got) if dice.random() < 0.5 else got + dice.choice((0, 1, 700, 3000, 30000))
        if dice.random() > 0.15:
            window = max(min(edge - got, 65535), 0)
            farthest = max(farthest, got + window)
            server.send("A", ack=1 + got, window=window)
        proxy.received.pop((client.own, client.other), None)
        proxy.wait(0.05, 0.05)
    assert got == length
    server.send("A", ack=1 + length)
    proxy.received.clear()
    proxy.wait(5, 0.1)
    server.nothing()
