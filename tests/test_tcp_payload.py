"""Payload kernels segment by segment: what they are shown, and what becomes of numbers on both sides (SPLICE 5.1, 5.2)."""
import pytest

from pipeline.kernels.shaping import USER_CELLS
from tcp.payload_services import PLACE, port_of, services
from tcp.proxy import close, handshake, one_worker

SERVICES = services()
SACK = [("SAckOK", b"")]
DIGITS = ("delete_digits", "delete_digits")
SWELL_UP, SWELL_DOWN = ("swell", None), (None, "swell")


def settings(**chosen):
    """Marks a test to get a `proxy` whose services have payload kernels."""
    return pytest.mark.parametrize("proxy", [{"services": SERVICES, **chosen}], indirect=True, ids=[""])


def settings_of(*further):
    """Marks a test to get a `proxy` with these services beside the usual ones."""
    return settings(services=(*SERVICES, *further))


def bound(proxy, pair, isn=1000, target_isn=700_000, mss=1460, **fields):
    """Returns both Ends of a connection through a pair of kernels that is bound, and on which nothing has been said."""
    client = proxy.client(port_of(pair, True), isn=isn)
    handshake(client, mss=1460, **fields)
    server = proxy.accept("a", target_isn)
    server.send("SA", mss=mss, **fields)
    server.expect("A", seq=1, ack=1)
    return client, server


@settings()
def test_rule_5_1_held_bytes_are_shown_once_the_target_is_chosen(proxy):
    client = proxy.client(port_of(SWELL_UP))
    handshake(client)
    client.send("PA", b"a hat")
    client.expect("A", seq=1, ack=6)
    server = proxy.accept("a")
    client.send("PA", b"a hat", seq=1)
    client.send("PA", b"A HAT", seq=1)
    server.send("SA", mss=1460)
    server.expect("PA", seq=1, ack=1, data=b"bcd hbcdt")
    server.send("A", ack=10)
    client.expect("A", seq=1, ack=6)
    client.send("PA", b"!a", seq=6)
    server.expect("PA", seq=10, data=b"!bcd")
    server.send("A", ack=14)
    client.expect("A", ack=8)


@settings()
def test_rule_5_1_what_comes_while_connecting_waits_for_the_splice(proxy):
    client = proxy.client(port_of(SWELL_UP))
    handshake(client)
    client.send("PA", b"a1")
    client.expect("A", seq=1, ack=3)
    server = proxy.accept("a")
    client.send("PA", b"a2")
    client.send("FPA", b"a3")
    proxy.silent()
    assert proxy.count("segments_waited") == 2 and proxy.state_of(client) == "connecting"
    server.send("SA", mss=1460)
    server.expect("PA", seq=1, ack=1, data=b"bcd1")
    server.expect("PA", seq=5, ack=1, data=b"bcd2")
    server.expect("FPA", seq=9, ack=1, data=b"bcd3")
    assert proxy.state_of(client) == "half_closed"


@settings()
def test_rule_5_1_a_repetition_is_the_same_and_is_not_shown_again(proxy):
    client, server = bound(proxy, ("number_up", "number_down"))
    for _ in range(3):
        client.send("PA", b"\0\0\0\0", seq=1)
        server.expect("PA", seq=1, data=b"\0\1\2\3")
    client.send("PA", b"\0" * 6, seq=3)
    server.expect("PA", seq=2, data=b"\1\2\3\4\5\6\7")
    client.send("PA", b"\0\0", seq=9)
    server.expect("PA", seq=9, data=b"\x08\x09")


@settings()
def test_rule_5_1_both_directions_at_once(proxy):
    client, server = bound(proxy, ("everything", "everything"))
    client.send("PA", b"a1x")
    server.expect("PA", seq=1, ack=1, data=b"bcdy")
    server.send("PA", b"9 a")
    client.expect("PA", seq=1, ack=4, data=b" bcd")
    client.send("A")
    server.expect("A", seq=5, ack=4)
    client.seq, server.seq = 4, 4
    close(client, server)
    assert proxy.state_of(client) == "time_wait"


@settings()
def test_rule_5_1_what_is_out_of_order_waits_and_changes_no_state(proxy):
    client, server = bound(proxy, SWELL_UP)
    client.send("FPA", b"a end", seq=4)
    client.expect("A", seq=1, ack=1)
    proxy.silent()
    assert proxy.state_of(client) == "established" and proxy.count("segments_waited") == 1
    client.send("PA", b"aaa", seq=1)
    server.expect("PA", seq=1, data=b"bcdbcdbcd")
    server.expect("FPA", seq=10, data=b"bcd end")
    assert proxy.state_of(client) == "half_closed"


@settings()
def test_a_gap_is_told_to_the_sender_with_what_waits_behind_it(proxy):
    client, server = bound(proxy, SWELL_UP, options=SACK)
    server.send("PA", b"x", window=3000)
    client.expect("PA", seq=1, data=b"x")
    for seq, block in ((11, (11, 13)), (15, (15, 17)), (13, (11, 17)), (13, (11, 17)), (30, (30, 32))):
        client.send("PA", b"ab", seq=seq)
        told = client.expect("A", seq=2, ack=1, window=3000)
        assert dict(told.options)["SAck"] == tuple(1000 + edge for edge in block)
    server.expect("A", seq=1, ack=2)
    proxy.wait(5)
    client.send("PA", b"0123456789", seq=1)
    server.expect("PA", seq=1, data=b"0123456789")
    for seq in (11, 15, 19):
        server.expect("PA", seq=seq, data=b"bcdb")
    server.send("A", seq=1, ack=23)
    client.expect("A", ack=17)
    assert proxy.drops() == {"waiting_already": 1}
    proxy.wait(6)
    assert proxy.drops() == {"waiting_already": 1, "waited_too_long": 1}


@settings()
def test_a_gap_is_told_without_a_block_where_none_was_agreed(proxy):
    client, server = bound(proxy, SWELL_UP)
    for _ in range(3):
        client.send("PA", b"ab", seq=11)
        assert client.expect("A", seq=1, ack=1).options == []


@settings()
def test_a_gap_is_told_to_a_target_in_its_own_numbers_and_scale(proxy):
    client, server = bound(proxy, SWELL_DOWN, options=[*SACK, ("WScale", 3)], isn=2**32 - 2)
    server.send("PA", b"xa")
    client.expect("PA", seq=1, data=b"xbcd")
    client.send("A", window=100)
    server.expect("A", ack=3, window=100)
    server.send("FPA", b"end", seq=6)
    told = server.expect("A", seq=1, ack=3, window=100)
    assert dict(told.options)["SAck"] == (700_006, 700_010)


@settings()
@one_worker
def test_a_gap_is_told_with_the_number_that_follows_what_was_sent_so_far(proxy):
    client, server = bound(proxy, ("everything", "everything"))
    server.send("PA", b"aa")
    client.expect("PA", seq=1, data=b"bcdbcd")
    client.send("PA", b"1", seq=5)
    client.expect("A", seq=7, ack=1)
    server.expect("A", seq=1, ack=3)
    server.port = 0  # both ends behind one port, so that one burst can have segments of both
    proxy.burst(server.segment("PA", b"12a"), client.segment("PA", b"2", seq=7), client.segment("PA", b"3", seq=9))
    client.expect("A", seq=7, ack=1)
    client.expect("A", seq=7, ack=1)
    client.expect("PA", seq=7, data=b"bcd")


@settings()
def test_what_a_segment_acknowledges_does_not_wait_with_it(proxy):
    for pair in (SWELL_UP, ("everything", "everything")):
        client, server = bound(proxy, pair)
        server.send("PA", b"zabc", window=700)
        client.expect("PA", data=b"zabc" if pair == SWELL_UP else b"zbcdbc")
        client.send("PA", b"aa", seq=3, ack=3)
        client.expect("A", ack=1)
        server.expect("A", seq=1, ack=3 if pair == SWELL_UP else 2)
        client.send("PA", b"aa", seq=5, ack=3)
        client.expect("A", ack=1)
        client.send("PA", b"aa", seq=1)
        for seq in (1, 7, 13):
            server.expect("PA", seq=seq, data=b"bcdbcd")


SHAPED_SIMPLE = {"name": '"shaped-simple"', "listen": '"10.1.0.1:7300"', "targets": '["a"]', "binding": '"simple"',
                 "payload_to_target": f'"{PLACE}:swell"', "payload_to_client": f'"{PLACE}:swell"'}


@settings_of(SHAPED_SIMPLE)
def test_what_a_syn_carries_is_shown_to_nobody_and_does_not_pass(proxy):
    client = proxy.client(7300)
    client.send("S", b"aaa", seq=0)
    proxy.silent()
    assert proxy.drops() == {"unexpected_segment": 1} and proxy.states() == {}
    client.send("S", seq=0)
    server = proxy.accept("a")
    client.send("S", b"aaa", seq=0)
    server.send("SA", b"aaa", seq=0, ack=1)
    proxy.silent()
    server.send("SA", seq=0, ack=1)
    client.expect("SA", seq=0, ack=1)
    client.send("A", seq=1, ack=1)
    server.expect("A", seq=1, ack=1)
    client.send("PA", b"a", seq=1, ack=1)
    server.expect("PA", seq=1, ack=1, data=b"bcd")


@settings_of(SHAPED_SIMPLE)
def test_in_mode_simple_a_gap_is_told_as_the_two_ends_have_agreed(proxy):
    for agreed in (SACK, [("Timestamp", (9000, 100)), ("WScale", 5)]):
        client = proxy.client(7300)
        client.send("S", options=[*SACK, ("Timestamp", (100, 0)), ("WScale", 7)])
        server = proxy.accept("a")
        server.send("SA", options=agreed)
        client.expect("SA", seq=0, ack=1)
        stamps = [("Timestamp", (9001, 100))] if len(agreed) == 2 else []
        server.send("PA", b"text", window=640, options=stamps)
        client.expect("PA", seq=1, data=b"text")
        client.send("PA", b"ab", seq=4, options=[("Timestamp", (101, 9001))] if stamps else [])
        told = client.expect("A", seq=5, ack=1, window=640)
        server.expect("A", seq=1, ack=5)
        shown = dict(option for option in told.options if len(option) == 2)
        assert shown.get("SAck") == (None if stamps else (1004, 1006))
        assert shown.get("Timestamp") == ((9001, 100) if stamps else None)


@settings()
def test_rule_5_1_nothing_passes_that_was_not_shown(proxy):
    client, server = bound(proxy, SWELL_UP)
    client.send("PA", b"a" * 100, seq=70_000)
    proxy.silent()
    assert proxy.drops() == {"unexpected_segment": 1}
    client.send("FA")
    server.expect("FA", seq=1)
    client.send("PA", b"a", seq=2)
    proxy.silent()
    assert proxy.drops() == {"unexpected_segment": 2}


@settings()
def test_rule_1_5_payload_with_a_wrong_checksum_is_not_shown(proxy):
    client, server = bound(proxy, SWELL_UP)
    client.send("PA", b"aaa", seq=1, corrupt=True)
    proxy.silent()
    assert proxy.drops() == {"tcp_checksum": 1}


@settings()
def test_rule_5_1_an_answer_beyond_the_tailroom_leaves_all_as_it_was(proxy):
    client, server = bound(proxy, ("overreach", "overreach"))
    client.send("PA", b"hello")
    server.expect("PA", seq=1, data=b"hello")
    assert proxy.count("payload_kernel_errors") == 1 and proxy.count("segments_reshaped") == 0


@settings()
def test_each_connection_begins_with_cells_of_its_own(proxy):
    for _ in range(3):
        client, server = bound(proxy, DIGITS)
        client.send("PA", b"12ab")
        server.expect("PA", seq=1, data=b"ab")
        cells = proxy.state.connections.shaped.user[proxy.number_of(client)]
        assert cells[:USER_CELLS].tolist() == [0, 2] + [0] * (USER_CELLS - 2) and not cells[USER_CELLS:].any()
        client.send("R", seq=1)
        server.expect("R")
        proxy.run()


@settings()
@pytest.mark.parametrize("acknowledged, shown", [(1, 1), (4, 4), (5, 4), (6, 4), (7, 5), (8, 6)])
def test_rule_5_2_an_acknowledgement_inside_an_edit_is_of_its_start(proxy, acknowledged, shown):
    client, server = bound(proxy, SWELL_UP)
    client.send("PA", b"123ax")
    server.expect("PA", seq=1, data=b"123bcdx")
    server.send("A", ack=acknowledged)
    client.expect("A", seq=1, ack=shown)


def two_edits(proxy):
    """Returns both Ends after `12a`, `45a`, `78` have become `12bcd45bcd78`, none of it acknowledged."""
    client, server = bound(proxy, SWELL_UP, options=SACK)
    for data, made in ((b"12a", b"12bcd"), (b"45a", b"45bcd"), (b"78", b"78")):
        client.send("PA", data)
        server.expect("PA", data=made)
    return client, server


@settings()
def test_rule_5_2_blocks_of_selective_acknowledgements(proxy):
    client, server = two_edits(proxy)
    for left, right, shown in ((4, 9, (4, 6)), (3, 12, (3, 8)), (6, 13, (4, 9)), (10, 13, (7, 9))):
        edges = tuple(1000 + edge for edge in (left, right))
        server.send("A", ack=1, options=[("SAck", edges)])
        assert dict(client.expect("A", ack=1).options)["SAck"] == tuple(1000 + edge for edge in shown)


@settings()
def test_rule_5_2_a_block_inside_an_edit_is_taken_out(proxy):
    client, server = two_edits(proxy)
    server.send("A", ack=1, options=[("SAck", (1004, 1005, 1011, 1013))])
    assert dict(client.expect("A", ack=1).options)["SAck"] == (1007, 1009)
    server.send("A", ack=1, options=[("SAck", (1004, 1005))])
    assert "SAck" not in dict(option for option in client.expect("A", ack=1).options if len(option) == 2)


@settings()
@pytest.mark.parametrize("seq, length, data", [(1, 3, (1, b"12bcd")), (3, 1, (3, b"bcd")), (4, 2, (6, b"45")), (2, 2, (2, b"2bcd")),
                                               (4, 5, (6, b"45bcd78"))])
def test_rule_5_2_a_retransmission_is_cut_from_the_log(proxy, seq, length, data):
    client, server = two_edits(proxy)
    whole = b"12a45a78"
    client.send("A", whole[seq - 1:seq - 1 + length], seq=seq)
    server.expect("A", seq=data[0], data=data[1])


@settings()
def test_rule_5_2_a_retransmission_that_begins_inside_an_edit_begins_at_its_start(proxy):
    client, server = bound(proxy, ("announce", "announce"))
    client.send("PA", b"hello")
    server.expect("PA", seq=1, data=b"HIJKLMhello")
    client, server = bound(proxy, ("number_up", "number_down"))
    client.send("PA", b"\0\0\0\0")
    server.expect("PA", seq=1, data=b"\0\1\2\3")
    client.send("PA", b"\0\0", seq=3)
    server.expect("PA", seq=2, data=b"\1\2\3")


@settings()
def test_rule_5_2_a_segment_that_grows_beyond_the_mss_is_split(proxy):
    client, server = bound(proxy, SWELL_UP, mss=500)
    client.send("FPA", b"a" * 400)
    made = b"bcd" * 400
    server.expect("A", seq=1, data=made[:500])
    server.expect("A", seq=501, data=made[500:1000])
    server.expect("FPA", seq=1001, data=made[1000:])
    server.send("A", ack=501)
    client.expect("A", ack=1)
    client.send("FPA", b"a" * 400, seq=1)
    server.expect("A", seq=501, data=made[500:1000])
    server.expect("FPA", seq=1001, data=made[1000:])
    server.send("A", ack=1202)
    client.expect("A", ack=402)


@settings()
def test_pieces_go_out_in_order_with_what_follows_in_the_same_burst(proxy):
    client, server = bound(proxy, SWELL_UP, mss=500)
    proxy.burst(*(client.segment("PA", b"a" * 300) for _ in range(2)))
    for seq, length in ((1, 500), (501, 400), (901, 500), (1401, 400)):
        server.expect("PA" if length == 400 else "A", seq=seq, data=(b"bcd" * 600)[seq - 1:seq - 1 + length])


@settings()
def test_without_mbufs_for_its_parts_a_segment_is_left_to_a_retransmission(proxy):
    client, server = bound(proxy, SWELL_UP, mss=500)
    frame, made = client.segment("FPA", b"a" * 1300, seq=1), b"bcd" * 1300
    with proxy.starving(2):
        proxy.burst(frame)
    proxy.silent()
    assert proxy.drops()["no_mbuf"] == 8
    proxy.burst(frame)
    for at in range(0, 3900, 500):
        server.expect("A" if at < 3500 else "FPA", seq=1 + at, data=made[at:at + 500])


@settings()
def test_rule_5_2_deleted_bytes_are_acknowledged_by_the_proxy_and_again(proxy):
    client, server = bound(proxy, DIGITS)
    client.send("PA", b"123")
    client.expect("A", seq=1, ack=4)
    server.expect("A", seq=1, ack=1)
    for _ in range(2):
        client.send("PA", b"123", seq=1)
        client.expect("A", seq=1, ack=4)
        proxy.silent()
    client.send("PA", b"ab4", seq=4)
    server.expect("PA", seq=1, data=b"ab")
    client.send("PA", b"56", seq=7)
    proxy.silent()
    server.send("A", ack=3)
    client.expect("A", ack=9)


@settings()
def test_rule_5_2_deleted_bytes_toward_the_client(proxy):
    client, server = bound(proxy, DIGITS)
    server.send("PA", b"2026")
    server.expect("A", seq=1, ack=5)
    client.expect("A", seq=1, ack=1)
    server.send("FPA", b"11")
    client.expect("FA", seq=1, ack=1)
    client.send("A", seq=1, ack=2)
    server.expect("A", seq=1, ack=8)


@settings()
def test_what_is_left_of_a_deleted_segment_passes_if_it_acknowledges(proxy):
    client, server = bound(proxy, DIGITS)
    server.send("PA", b"data")
    client.expect("PA", seq=1, data=b"data")
    client.send("PA", b"123")
    client.expect("A", seq=5, ack=4)
    server.expect("A", seq=1, ack=5)
    client.send("PA", b"456")
    client.expect("A", seq=5, ack=7)
    proxy.silent()


@settings(edits=3)
def test_rule_5_2_a_full_log_ends_the_connection_on_both_sides(proxy):
    client, server = bound(proxy, SWELL_UP)
    for at in range(3):
        client.send("PA", b"a", seq=1 + at)
        server.expect("PA", data=b"bcd")
    proxy.burst(client.segment("PA", b"a", seq=4), client.segment("PA", b"x", seq=5))
    client.expect("RA", seq=1, ack=1)
    server.expect("RA", seq=1, ack=1)
    assert proxy.drops() == {"edit_log_full": 2}
    proxy.run()
    assert proxy.records()[0]["release"] == {"client": "Exhausted", "target": "Exhausted"}
    other, server = bound(proxy, SWELL_UP)
    other.send("PA", b"a")
    server.expect("PA", data=b"bcd")


@settings()
def test_rule_4_1_a_rst_with_edits_pending(proxy):
    client, server = bound(proxy, SWELL_UP)
    client.send("PA", b"aa")
    server.expect("PA", data=b"bcdbcd")
    client.send("R", seq=3)
    server.expect("R", seq=7)
    assert proxy.state_of(client) == "established"
    client.send("A", seq=3)
    server.expect("A", seq=7, ack=1)
    server.send("A", ack=7)
    client.expect("A", ack=3)
    client.send("R", seq=3)
    server.expect("R", seq=7)
    assert proxy.state_of(client) == "free"


@settings()
def test_rule_4_1_a_challenge_with_edits_pending(proxy):
    client, server = bound(proxy, SWELL_UP)
    client.send("PA", b"xaa")
    server.expect("PA", data=b"xbcdbcd")
    server.send("A", ack=3)
    client.expect("A", ack=2)
    client.send("S", seq=4)
    client.expect("A", seq=1, ack=2)


@settings()
def test_keep_alives_pass_with_edits_pending_and_without(proxy):
    client, server = bound(proxy, SWELL_UP)
    client.send("PA", b"xa")
    server.expect("PA", data=b"xbcd")
    client.send("A", seq=2)
    server.expect("A", seq=2, ack=1)
    server.send("A", ack=5)
    client.expect("A", ack=3)
    client.send("A", seq=2)
    server.expect("A", seq=4, ack=1)
    client.send("A", b"a", seq=2)
    server.expect("A", seq=4, ack=1, data=b"a")


@settings()
def test_the_window_counts_what_has_grown_on_its_way(proxy):
    client, server = bound(proxy, SWELL_UP)
    client.send("PA", b"a" * 400)
    server.expect("PA", data=b"bcd" * 400)
    server.send("A", ack=1, window=4000)
    client.expect("A", ack=1, window=4000 - 800)
    server.send("A", ack=1, window=1000)
    client.expect("A", ack=1, window=536)
    server.send("A", ack=1, window=0)
    client.expect("A", ack=1, window=0)
    server.send("A", ack=1201, window=1000)
    client.expect("A", ack=401, window=1000)


@settings()
def test_a_connection_that_times_out_with_edits_pending_gives_them_back(proxy):
    client, server = bound(proxy, SWELL_UP)
    client.send("PA", b"xa")
    server.expect("PA", data=b"xbcd")
    server.send("A", ack=3)
    client.expect("A", ack=2)
    assert proxy.state.connections.shaped.edits.used[0] == 1
    proxy.wait(601, 1)
    client.expect("RA", seq=1, ack=2)
    server.expect("RA", seq=3, ack=1)
    assert proxy.state.connections.shaped.edits.used[0] == 0


@settings()
def test_timestamps_of_segments_of_our_own_are_the_latest(proxy):
    client = proxy.client(port_of(DIGITS, True))
    handshake(client, options=[("Timestamp", (100, 0))])
    server = proxy.accept("a")
    server.send("SA", options=[("Timestamp", (9000, 100))])
    shown = dict(server.expect("A").options)["Timestamp"]
    assert shown == (100, 9000)
    server.send("PA", b"text", options=[("Timestamp", (9500, 100))])
    there = dict(client.expect("PA", data=b"text").options)["Timestamp"]
    client.send("PA", b"12", options=[("Timestamp", (700, there[0]))])
    assert dict(client.expect("A", seq=5, ack=3).options)["Timestamp"] == (there[0], 700)
    server.expect("A", ack=5)
