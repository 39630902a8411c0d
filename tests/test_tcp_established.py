"""ESTABLISHED: the splice. Headers are translated, nothing else; the proxy follows the numbers of both ends."""
import itertools

import pytest

from tcp.proxy import FIRST, NUMBER, PATH, close, connect, handshake, settings

EDGE = 2**32 - 3
"""An initial number such that the fourth octet has number 0."""


def bound(proxy, data=b"0 hello", **fields):
    """Returns both ends of an established connection to target a; nothing is held any more."""
    client = proxy.client(NUMBER, isn=fields.pop("client_isn", 1000))
    return client, connect(proxy, client, data, **fields)


def test_payload_passes_both_ways_with_translated_numbers(proxy):
    client, server = bound(proxy)
    client.send("PA", b"request")
    server.expect("PA", seq=8, ack=1, data=b"request")
    server.send("PA", b"an answer")
    client.expect("PA", seq=1, ack=15, data=b"an answer")
    client.send("A")
    server.expect("A", seq=15, ack=10)
    assert proxy.event("client", "received_payload") == 2 and proxy.event("client", "sent_payload") == 1
    assert proxy.event("target", "received_payload") == 1 and proxy.event("target", "sent_payload") == 2


def test_rule_1_1_the_clients_numbers_pass_and_the_targets_are_shifted_by_a_constant(proxy):
    client, server = bound(proxy, isn=123_456)
    client.send("PA", b"x")
    assert server.expect("PA", data=b"x").seq == client.isn + 8
    shifts = set()
    for data in (b"one", b"two", b"three"):
        at = server.isn + server.seq
        server.send("PA", data)
        shifts.add((client.expect("PA", data=data).seq - at) % 2**32)
    assert shifts == {(client.other_isn - server.isn) % 2**32}


def test_held_payload_wraps_around(proxy):
    client = proxy.client(NUMBER, isn=EDGE)
    server = connect(proxy, client, b"0" * 100, isn=EDGE)
    client.send("R")
    server.expect("R", seq=101)
    assert proxy.records()[0]["octets"] == {"client": 100, "target": 0}


def test_more_than_four_gigabytes_are_counted(proxy):
    client, server = bound(proxy, client_isn=5)
    hot, passed = proxy.state.connections.hot[proxy.number_of(client)], 7
    for turn in range(3):
        before = 2**32 * (turn + 1) - 100 - client.seq - client.isn  # as if so many octets had passed
        hot["next"][0] = hot["acked"][1] = 2**32 - 100
        client.seq += before
        passed += before
        for _ in range(3):
            client.send("PA", b"x" * 90)
            server.ack, passed = client.seq, passed + 90
            assert len(proxy.received.pop((server.own, server.other))) == 1
            server.send("A")
            assert len(proxy.received.pop((client.own, client.other))) == 1
    client.send("R")
    proxy.received.clear()
    assert proxy.records()[0]["octets"] == {"client": passed, "target": 0}


def test_a_pure_acknowledgement_passes(proxy):
    client, server = bound(proxy)
    server.send("PA", b"answer")
    client.expect("PA", data=b"answer")
    client.send("A", window=77)
    server.expect("A", seq=8, ack=7, window=77)


def test_windows_urgent_pointers_and_options_pass_untouched(proxy):
    client, server = bound(proxy)
    stamps = [("NOP", None), ("NOP", None), ("Timestamp", (17, 23))]
    client.send("PAU", b"now", window=0, urgent=3, options=stamps)
    server.expect("PAU", data=b"now", window=0, urgent=3, options=stamps)
    server.send("A", window=65535, urgent=9)
    client.expect("A", window=65535, urgent=9)


def test_ecn_bits_pass_untouched(proxy):
    client, server = bound(proxy)
    client.send("PAEC", b"x", tos=3)
    server.expect("PAEC", data=b"x", tos=3)


@pytest.mark.parametrize("tos, dont_fragment", [(0, True), (0xB8, False), (0x02, True)])
def test_rule_4_5_the_ttl_is_decremented_and_dscp_and_df_are_kept(proxy, tos, dont_fragment):
    client, server = bound(proxy)
    client.send("PA", b"x", ttl=57, tos=tos, dont_fragment=dont_fragment)
    server.expect("PA", data=b"x", ttl=56, tos=tos, dont_fragment=dont_fragment)
    server.send("PA", b"y", ttl=2, tos=tos, dont_fragment=dont_fragment)
    client.expect("PA", data=b"y", ttl=1, tos=tos, dont_fragment=dont_fragment)


def test_a_segment_whose_ttl_is_spent_goes_no_further(proxy):
    client, server = bound(proxy)
    client.send("PA", b"x", ttl=1)
    server.nothing()
    assert proxy.drops() == {"ttl_exceeded": 1} and len(proxy.taken_others(0)) == 1


@pytest.mark.parametrize("data", [b"\0" * 1460, b"\xff" * 1459, bytes(range(256)) * 5, b"\xff\xff", b"\0"])
def test_payload_is_untouched_and_checksums_stay_right(proxy, data):
    client, server = bound(proxy)
    client.send("PA", data)
    server.expect("PA", data=data)
    server.send("A", data)
    client.expect("A", data=data)


def test_checksums_stay_right_for_thousands_of_numbers(proxy):
    client, server = bound(proxy, client_isn=0xFFFF_0000, isn=0xFFFF)
    for turn in range(40):
        proxy.burst(*(client.segment("A", turn.to_bytes(2, "big") * 400) for _ in range(50)))
        for _ in range(50):
            server.expect("A", data=turn.to_bytes(2, "big") * 400)
        server.send("A")
        client.expect("A", seq=1, ack=client.seq)


def test_rule_1_5_corrupt_payload_stays_corrupt_and_passes(proxy):
    client, server = bound(proxy)
    client.send("PA", b"hello", seq=8, corrupt=True)
    server.expect("PA", seq=8, data=b"hello", intact=False)
    server.send("PA", b"answer", seq=1, corrupt=True)
    client.expect("PA", seq=1, data=b"answer", intact=False)


@pytest.mark.parametrize("flags", ["FA", "RA", "S", "R"])
@pytest.mark.parametrize("side", [0, 1])
def test_rule_1_5_what_is_corrupt_changes_no_state(proxy, flags, side):
    ends = bound(proxy)
    ends[side].send(flags, seq=ends[side].seq, corrupt=True)
    ends[1 - side].nothing()
    assert proxy.drops() == {"tcp_checksum": 1} and proxy.state_of(ends[0]) == "established"


def test_retransmissions_pass_as_they_come(proxy):
    client, server = bound(proxy)
    for _ in range(3):
        client.send("PA", b"again", seq=8)
        server.expect("PA", seq=8, data=b"again")
    server.send("PA", b"late", seq=100)
    client.expect("PA", seq=100, data=b"late")
    server.send("PA", b"early", seq=1)
    client.expect("PA", seq=1, data=b"early")


def test_a_segment_without_ack_is_dropped(proxy):
    client, server = bound(proxy)
    client.send("P", b"hello")
    server.nothing()
    assert proxy.drops() == {"unexpected_segment": 1}


def test_rule_1_4_held_payload_is_sent_again_until_it_is_acknowledged(proxy):
    client = proxy.client(NUMBER)
    handshake(client)
    client.send("PA", b"0 hello")
    server = proxy.accept("a")
    server.send("SA")
    server.expect("PA", seq=1, data=b"0 hello")
    for before, after in ((0.28, 0.04), (0.54, 0.06), (1.14, 0.06)):
        proxy.wait(before)
        server.nothing()
        proxy.wait(after)
        server.expect("PA", seq=1, ack=1, data=b"0 hello")
    assert proxy.count("held_retransmitted") == 3
    server.send("A")
    client.expect("A", ack=8)
    proxy.wait(10, 0.1)
    proxy.silent()


def test_rule_1_4_held_payload_is_sent_again_after_a_long_silence_of_the_target(proxy):
    client = proxy.client(NUMBER)
    handshake(client)
    client.send("PA", b"0 hello")
    server = proxy.accept("a")
    server.send("SA")
    proxy.wait(60, 0.1)
    proxy.received.clear()
    proxy.wait(90, 0.1)
    assert {segment.data for segment in proxy.received[server.own, server.other]} == {b"0 hello"}
    proxy.received.clear()
    server.send("A", ack=8)
    client.expect("A", ack=8)


def test_a_part_acknowledged_does_not_free_the_held_payload(proxy):
    client = proxy.client(NUMBER)
    handshake(client)
    client.send("PA", b"0 hello")
    server = proxy.accept("a")
    server.send("SA")
    server.expect("PA", data=b"0 hello")
    server.send("A", ack=4)
    client.expect("A", ack=4)
    proxy.wait(0.32)
    assert proxy.count("held_retransmitted") == 1
    proxy.received.clear()
    server.send("A", ack=8)
    client.expect("A", ack=8)
    assert proxy.state.connections.held.free_count[0] == 64


def test_rule_1_4_the_clients_retransmission_of_held_payload_is_dropped(proxy):
    client = proxy.client(NUMBER)
    handshake(client)
    client.send("PA", b"0 hello")
    server = proxy.accept("a")
    server.send("SA")
    server.expect("PA", data=b"0 hello")
    client.send("PA", b"0 HELLO", seq=1)
    client.send("PA", b"LO and more", seq=4)
    server.nothing()
    assert proxy.drops() == {"held_already": 2}
    client.send("PA", b" and more")
    server.expect("PA", seq=8, data=b" and more")


def test_the_acknowledgement_in_held_retransmissions_is_the_clients_last(proxy):
    client = proxy.client(FIRST)
    handshake(client)
    server = proxy.accept("a")
    client.send("PA", b"HELO")
    server.send("SA")
    server.expect("PA", seq=1, ack=1, data=b"HELO")
    server.send("PA", b"220", ack=1)
    client.expect("PA", seq=1, ack=1, data=b"220")
    client.send("A")
    server.expect("A", seq=5, ack=4)
    proxy.wait(0.32)
    server.expect("PA", seq=1, ack=4, data=b"HELO")


def test_a_syn_gets_a_challenge_with_the_last_relayed_numbers(proxy):
    client, server = bound(proxy)
    server.send("PA", b"answer")
    client.expect("PA", data=b"answer")
    client.send("A")
    server.expect("A")
    client.send("S", seq=500_000)
    client.expect("A", seq=7, ack=8)
    server.send("S", seq=99, ack=0)
    server.expect("A", seq=8, ack=7)
    assert proxy.count("challenge_acks") == 2 and proxy.state_of(client) == "established"


def test_the_targets_syn_ack_again_is_acknowledged_again(proxy):
    client, server = bound(proxy)
    server.send("SA", seq=0)
    server.expect("A", seq=8, ack=1)
    client.nothing()


def test_rule_4_1_an_exact_rst_of_the_client_closes_both_sides_at_once(proxy):
    client, server = bound(proxy)
    client.send("RA")
    server.expect("RA", seq=8, ack=1)
    assert proxy.state_of(client) == "free"
    [record] = proxy.records()
    assert record["release"] == {"client": "PassiveRst", "target": "ActiveRst"}
    assert record["octets"] == {"client": 7, "target": 0}
    assert [steps[-1][0] for steps in record["states"].values()] == ["Closed", "Closed"]


def test_rule_4_1_an_exact_rst_of_the_target_closes_both_sides_at_once(proxy):
    client, server = bound(proxy)
    server.send("R")
    client.expect("R", seq=1)
    assert proxy.state_of(client) == "free"
    assert proxy.records()[0]["release"] == {"client": "ActiveRst", "target": "PassiveRst"}
    assert proxy.event("target", "received_rst") == 1 and proxy.event("client", "sent_rst") == 1


@pytest.mark.parametrize("off", [-1, -60_000])
def test_rule_4_1_a_rst_before_the_window_passes_and_does_not_end_a_silent_connection(proxy, off):
    client, server = bound(proxy)
    client.send("R", seq=8 + off)
    server.expect("R", seq=8 + off)
    proxy.wait(590, 1)
    assert proxy.state_of(client) == "established"


@pytest.mark.parametrize("off", [1, 60_000])
def test_rule_4_1_an_inexact_rst_passes_and_the_end_point_decides(proxy, off):
    client, server = bound(proxy)
    client.send("R", seq=8 + off)
    server.expect("R", seq=8 + off)
    assert proxy.state_of(client) == "established"
    proxy.wait(1.9)
    assert proxy.state_of(client) == "established"
    proxy.wait(0.3)
    assert proxy.state_of(client) == "free"
    proxy.received.clear()


@pytest.mark.parametrize("side", [0, 1])
def test_rule_4_1_later_traffic_undoes_what_an_inexact_rst_did(proxy, side):
    ends = bound(proxy)
    client, server = ends
    client.send("R", seq=9)
    server.expect("R", seq=9)
    proxy.wait(1)
    ends[side].send("A")
    ends[1 - side].expect("A")
    proxy.wait(500, 1)
    assert proxy.state_of(client) == "established"


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("off", [-1000, 1 << 17, 1 << 31])
def test_rule_4_1_a_segment_outside_the_window_does_not_undo_it(proxy, side, off):
    ends = bound(proxy)
    client, server = ends
    client.send("R", seq=9)
    proxy.wait(1)
    ends[side].send("A", b"blind", seq=ends[side].seq + off)
    proxy.wait(1.2)
    assert proxy.state_of(client) == "free"
    proxy.received.clear()


@pytest.mark.parametrize("off", [1 << 17, -(1 << 17), 1 << 31])
def test_rule_4_1_a_far_off_rst_is_dropped(proxy, off):
    client, server = bound(proxy)
    client.send("R", seq=8 + off)
    server.nothing()
    proxy.wait(5, 0.1)
    assert proxy.drops() == {"unexpected_segment": 1} and proxy.state_of(client) == "established"


def test_an_exact_rst_behind_payload_in_one_burst(proxy):
    client, server = bound(proxy)
    proxy.burst(client.segment("PA", b"last"), client.segment("RA"))
    server.expect("PA", seq=8, data=b"last")
    server.expect("RA", seq=12)
    proxy.wait(2.2)
    assert proxy.state_of(client) == "free"
    proxy.received.clear()


def test_payload_behind_an_exact_rst_in_one_burst_is_a_stray(proxy):
    client, server = bound(proxy)
    proxy.burst(client.segment("R"), client.segment("PA", b"late", seq=8))
    server.expect("R", seq=8)
    client.expect("R", seq=1)


def test_an_acknowledgement_of_what_was_never_sent_does_not_become_a_number_of_ours(proxy):
    client, server = bound(proxy)
    server.send("A", ack=5_000_000)
    client.expect("A", ack=5_000_000)
    proxy.wait(601, 1)
    server.expect("RA", seq=8)
    client.expect("RA", seq=1)


def test_packets_of_many_connections_in_one_burst_do_not_mix(proxy):
    pairs = [bound(proxy, b"%d" % (3 * number)) for number in range(16)]
    proxy.burst(*(client.segment("PA", b"%d/%d" % (number, part))
                  for part in range(4) for number, (client, _) in enumerate(pairs)))
    for number, (_, server) in enumerate(pairs):
        for part in range(4):
            server.expect("PA", ack=1, data=b"%d/%d" % (number, part))
        server.nothing()
    proxy.burst(*(server.segment("PA", b"answer %d" % number) for number, (_, server) in enumerate(pairs)), port=1)
    for number, (client, _) in enumerate(pairs):
        client.expect("PA", seq=1, ack=client.seq, data=b"answer %d" % number)


def test_both_directions_of_one_connection_in_one_burst(proxy):
    client, server = bound(proxy)
    server.port = 0
    proxy.burst(client.segment("PA", b"one"), server.segment("PA", b"two"), client.segment("A", ack=4),
                server.segment("A", ack=11))
    server.expect("PA", seq=8, ack=1, data=b"one")
    client.expect("PA", seq=1, ack=8, data=b"two")
    server.expect("A", seq=11, ack=4)
    client.expect("A", seq=4, ack=11)


def test_a_frame_larger_than_the_mtu_is_counted(proxy):
    client, server = bound(proxy)
    client.send("PA", b"x" * 1461)
    server.nothing()
    assert proxy.drops() == {"larger_than_mtu": 1} and len(proxy.taken_others(0)) == 1


def test_payload_in_several_mbufs_passes_and_is_held(proxy):
    client = proxy.client(PATH)
    handshake(client)
    data = b"GET /b/" + b"y" * 900 + b" HTTP/1.1\r\n\r\n"
    proxy.network.ports[0].feed([client.segment("PA", data)], segment_length=97)
    proxy.run()
    server = proxy.accept("b")
    server.send("SA", mss=1460)
    server.expect("PA", seq=1, ack=1, data=data)
    server.send("A")
    client.expect("A", ack=1 + len(data))
    more = bytes(range(256)) * 4
    proxy.network.ports[0].feed([client.segment("PA", more)], segment_length=101)
    proxy.run()
    server.expect("PA", seq=1 + len(data), data=more)


def test_a_target_whose_next_hop_is_not_resolved_gets_nothing_and_loses_nothing(proxy):
    client, server = bound(proxy)
    entry = proxy.state.network.neighbours[proxy.state.targets.rows["neighbour"][0]]
    entry.state = 1
    client.send("PA", b"x")
    assert proxy.drops() == {"unresolved_neighbour": 1}
    entry.state = 4
    client.send("PA", b"x", seq=8)
    server.expect("PA", seq=8, data=b"x")


@settings(held_bytes=65472)
def test_the_window_of_our_syn_ack_never_overflows(proxy):
    client = proxy.client()
    client.send("S")
    client.expect("SA", window=65472)


@pytest.mark.parametrize("client_isn, proxy_isn, target_isn",
                         [numbers for numbers in itertools.product((EDGE, 5000), (EDGE, 5000), (EDGE, 5000))
                          if EDGE in numbers])
def test_all_numbers_wrap_around(proxy, client_isn, proxy_isn, target_isn):
    client = proxy.client(NUMBER, isn=client_isn)
    proxy.start_for_isn(client, proxy_isn)
    server = connect(proxy, client, b"0", isn=target_isn)
    assert (client.other_isn - proxy_isn) % 2**32 == 0
    for data in (b"ab", b"cdef", b"g" * 700):
        client.send("PA", data)
        server.expect("PA", seq=client.seq - len(data), ack=server.seq, data=data)
        server.send("PA", data[::-1])
        client.expect("PA", seq=server.seq - len(data), ack=client.seq, data=data[::-1])
    close(client, server)
    assert proxy.state_of(client) == "time_wait"
    proxy.wait(2.1)
    assert proxy.records()[0]["octets"] == {"client": 707, "target": 706}


def test_rule_1_5_a_corrupt_acknowledgement_does_not_free_what_is_held(proxy):
    client = proxy.client(NUMBER)
    handshake(client)
    client.send("PA", b"0 hello")
    server = proxy.accept("a")
    server.send("SA")
    server.expect("PA", data=b"0 hello")
    server.send("A", ack=8, corrupt=True)
    client.nothing()
    assert proxy.drops() == {"tcp_checksum": 1}
    proxy.wait(0.32)
    server.expect("PA", seq=1, data=b"0 hello")


def test_rule_4_1_challenges_are_rate_limited(proxy):
    client, server = bound(proxy)
    for _ in range(40):
        proxy.burst(*(client.segment("S", seq=9) for _ in range(60)))
    came = len(proxy.received[client.own, client.other])
    proxy.received.clear()
    assert 0 < came <= 1000 and proxy.count("challenge_acks") == came


def test_rule_4_1_an_inexact_rst_after_a_long_silence_leaves_time_for_the_challenge(proxy):
    client, server = bound(proxy)
    proxy.wait(100, 1)
    client.send("R", seq=9)
    server.expect("R", seq=9)
    proxy.wait(1)
    server.send("A")
    client.expect("A", seq=1, ack=8)
    proxy.wait(60, 1)
    assert proxy.state_of(client) == "established"


@pytest.mark.parametrize("flags", ["FA", "A"])
@pytest.mark.parametrize("off", [1 << 31, -(1 << 29), 3 << 29])
def test_rule_1_5_numbers_far_outside_the_window_move_nothing(proxy, flags, off):
    client, server = bound(proxy)
    client.send(flags, b"evil", seq=8 + off, ack=1)
    proxy.received.clear()
    assert proxy.state_of(client) == "established"
    client.send("RA", seq=8)
    server.expect("RA", seq=8)
    assert proxy.records()[0]["octets"]["client"] == 7


def test_a_fin_behind_later_payload_does_not_go_out_with_the_held_octets(proxy):
    client = proxy.client(NUMBER)
    handshake(client)
    client.send("PA", b"0 hello")
    server = proxy.accept("a")
    server.send("SA")
    server.expect("PA", data=b"0 hello")
    client.send("FPA", b", world")
    server.expect("FPA", seq=8, data=b", world")
    proxy.wait(0.32)
    server.expect("PA", seq=1, data=b"0 hello")


@pytest.mark.parametrize("side", [0, 1])
def test_rule_4_1_a_challenge_shows_a_small_window(proxy, side):
    client = proxy.client(NUMBER)
    ends = client, connect(proxy, client, b"0", window=65535)
    ends[side].send("S", seq=500)
    ends[side].expect("A", seq=1 if side == 0 else 2, window=536)


def test_rule_1_5_a_segment_outside_the_window_does_not_move_what_was_acknowledged(proxy):
    client = proxy.client(NUMBER)
    server = connect(proxy, client, b"0")
    server.send("PA", b"answer")
    client.expect("PA", data=b"answer")
    client.send("A", seq=-200_000, ack=7)
    server.expect("A")
    server.send("R", seq=7)
    client.expect("R", seq=7)
    assert proxy.state_of(client) == "established", "the exact RST has number 1 still"
    server.send("R", seq=1)
    client.expect("R", seq=1)
    assert proxy.states() == {}
