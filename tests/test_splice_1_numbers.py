"""SPLICE 1: sequence spaces, and who owns what. One test a clause; tests/test_tcp_*.py have the cases around them."""
import itertools

import pytest

from tcp.negotiated import SACK, STAMPS, agree, answered, offer, option, scale
from tcp.proxy import FIRST, NUMBER, PATH, STRICT, TARGETS, connect, handshake, settings


def asked_for_more(proxy, part=b"GET /a", service=PATH):
    """Returns a client whose first octets did not tell and have been acknowledged."""
    client = proxy.client(service)
    handshake(client)
    client.send("PA", part)
    client.expect("A", seq=1, ack=1 + len(part))
    return client


def test_rule_1_1_the_targets_numbers_are_shifted_by_one_constant_for_payload_fin_and_rst(proxy):
    client = proxy.client(NUMBER, isn=2**32 - 4)
    server = connect(proxy, client, b"0 hello", isn=2**31 - 2)
    shift = (client.other_isn - server.isn) % 2**32
    for flags, data in (("A", b""), ("PA", b"answer"), ("FA", b"last")):
        server.send(flags, data)
        came = client.expect(flags, data=data)
        assert came.seq == (server.isn + server.seq - len(data) - ("F" in flags) + shift) % 2**32
        assert came.ack == (client.isn + 8) % 2**32
    client.send("RA")
    came = server.expect("RA")
    assert came.seq == (client.isn + 8) % 2**32 and came.ack == (client.other_isn + client.ack - shift) % 2**32


def test_rule_1_2_payload_that_tells_at_once_is_acknowledged_by_the_target_alone(proxy):
    client = proxy.client(NUMBER)
    handshake(client)
    client.send("PA", b"0 hello")
    server = proxy.accept("a")
    server.send("SA")
    server.expect("PA", data=b"0 hello")
    proxy.wait(0.2)
    client.nothing()
    server.send("A")
    client.expect("A", ack=8)


def test_rule_1_2_what_was_acknowledged_is_sent_again_until_the_target_has_all_of_it(proxy):
    client = asked_for_more(proxy)
    client.send("PA", b" HTTP/1.1\r\n\r\n")
    server = proxy.accept("a")
    server.send("SA")
    request = b"GET /a HTTP/1.1\r\n\r\n"
    server.expect("PA", seq=1, ack=1, data=request)
    for has in (0, 9):
        server.send("A", ack=1 + has)
        assert client.expect("A").ack == client.isn + 20
        proxy.wait(5, 0.1)
        again = list(proxy.received.pop((server.own, server.other)))
        assert again and all(segment.data and request.endswith(segment.data) for segment in again)
        assert all(len(segment.data) >= len(request) - has for segment in again)
    server.send("A", ack=1 + len(request))
    client.expect("A", ack=1 + len(request))
    proxy.wait(30, 0.1)
    server.nothing()


def test_rule_1_2_what_was_acknowledged_is_cut_to_the_targets_mss(proxy):
    client = asked_for_more(proxy, b"GET /a?" + b"x" * 700)
    client.send("PA", b" HTTP/1.1\r\n\r\n")
    server = proxy.accept("a")
    server.send("SA", mss=300)
    sizes = [len(segment.data) for segment in proxy.received[server.own, server.other]]
    assert sum(sizes) == 720 and max(sizes) <= 300
    proxy.received.clear()


def waiting_for(proxy, server):
    """Takes all segments that have come to a target (list)."""
    return list(proxy.received.pop((server.own, server.other), ()))


@pytest.mark.parametrize("scales", [None, (7, 4)])
@pytest.mark.parametrize("window", [10, 300, 700])
def test_rule_1_2_held_bytes_are_sent_within_the_targets_window(proxy, window, scales):
    client, answer = offer(proxy, scale(scales[0]) if scales else [])
    data = b"0" + bytes(range(1, 200)) * 5
    client.send("PA", data[:900])
    server = answered(proxy, scale(scales[1]) if scales else [], mss=1460, window=window)
    got, shift = b"", 0
    for _ in range(200):
        for segment in waiting_for(proxy, server):
            at = (segment.seq - client.isn - 1) % 2**32
            assert at + len(segment.data) <= len(got) + (window << shift), "beyond the window"
            got = got[:at] + segment.data + got[at + len(segment.data):]
        if len(got) == 900:
            break
        shift = scales[1] if scales else 0
        server.ack = 1 + len(got)
        server.seq = 1
        server.send("A", window=window)
        proxy.wait(0.05)
    assert got == data[:900]
    server.send("A", ack=901, window=window)
    proxy.received.pop((client.own, client.other), None)


def test_rule_1_2_a_target_with_a_closed_window_gets_the_held_bytes_when_it_opens(proxy):
    client, answer = offer(proxy, [])
    client.send("PA", b"0 hello")
    server = answered(proxy, [], window=0)
    server.seq = 1
    for segment in waiting_for(proxy, server):
        assert len(segment.data) <= 1
    proxy.wait(5, 0.1)
    for segment in waiting_for(proxy, server):
        assert len(segment.data) <= 1
    server.send("A", ack=1, window=1000)
    assert b"0 hello".endswith(b"".join(segment.data for segment in waiting_for(proxy, server)))
    proxy.wait(1, 0.1)
    server.send("A", ack=8, window=1000)
    proxy.received.clear()
    client.send("PA", b"more")
    server.expect("PA", seq=8, data=b"more")


def test_rule_1_2_acknowledgements_shown_to_the_client_never_go_back(proxy):
    client = asked_for_more(proxy)
    client.send("PA", b" HTTP/1.1\r\n\r\n")
    server = proxy.accept("a")
    server.send("SA")
    server.expect("PA", seq=1, ack=1, data=b"GET /a HTTP/1.1\r\n\r\n")
    shown = []
    for data, ack in ((b"100", 1), (b"200", 5), (b"300", 7), (b"400", 20)):
        server.send("PA", data, ack=ack)
        segment = client.expect("PA", data=data)
        shown.append((segment.ack - client.isn) % 2**32)
    assert shown == sorted(shown) and shown[0] >= 7 and shown[-1] == 20


def test_rule_1_3_the_window_of_the_syn_ack_is_what_can_be_held(proxy_factory):
    for held in (64, 1024, 65472):
        proxy = proxy_factory(held_bytes=held)
        client = proxy.client()
        client.send("S")
        assert 0 < client.expect("SA").window <= held


def test_rule_1_3_what_fills_the_held_bytes_goes_to_the_default(proxy):
    client = proxy.client(PATH)
    handshake(client)
    client.send("PA", b"GET /" + b"x" * 1019)
    server = proxy.accept("c")
    server.send("SA", mss=1460)
    server.expect("PA", data=b"GET /" + b"x" * 1019)


def test_rule_1_3_what_fills_the_held_bytes_is_reset_where_there_is_no_default(proxy):
    client = proxy.client(STRICT)
    handshake(client)
    client.send("PA", b"GET /" + b"x" * 1019)
    client.expect("RA", seq=1, ack=1025)
    assert proxy.states() == {}


@pytest.mark.parametrize("scaled", [False, True])
def test_rule_1_3_we_never_advertise_a_window_of_zero_before_the_target_is_there(proxy, scaled):
    client, answer = offer(proxy, scale(7) if scaled else [], service=PATH)
    assert answer.window > 0
    for octet in range(1000):
        client.send("PA", b"GET /a?"[octet:octet + 1] or b"x")
        assert client.expect("A", ack=2 + octet).window > 0
    client.send("R")
    assert proxy.states() == {}


def test_rule_1_3_the_answer_to_a_fin_before_binding_has_a_window(proxy):
    client = proxy.client()
    handshake(client)
    client.send("FA")
    assert client.expect("FA").window > 0
    client.send("A")


@pytest.mark.parametrize("scales", [None, (7, 7), (0, 14)])
def test_rule_1_3_a_zero_window_of_the_target_passes_and_so_does_its_opening(proxy, scales):
    client, server, *_ = agree(proxy, scale(scales[0]) if scales else [], scale(scales[1]) if scales else [])
    server.send("A", ack=8, window=0)
    client.expect("A", ack=8, window=0)
    server.send("A", ack=8, window=4096)
    assert client.expect("A", ack=8).window > 0


def test_rule_1_4_the_first_copy_wins_however_the_second_is_cut(proxy):
    client = proxy.client(PATH)
    handshake(client)
    client.send("PA", b"GET /a?1", seq=1)
    client.expect("A", ack=9)
    for seq, data in ((1, b"GET /b?222"), (6, b"b"), (1, b"PUT"), (6, b"b?999 HTTP")):
        client.send("PA", data, seq=seq)
    proxy.received.pop((client.own, client.other), None)
    server = proxy.accept("a")
    server.send("SA")
    server.expect("PA", data=b"GET /a?122 HTTP")


FLIGHT = b"GET /a?first flight of several segments HTTP/1.1\r\n\r\n"
CUTS = [slice(0, 6), slice(6, 20), slice(20, 40), slice(40, None)]


def reached(proxy, target="a"):
    """Returns what the target of a request has got as it had to be (bytes), after its SYN-ACK and acknowledgement."""
    server = proxy.accept(target)
    server.send("SA", mss=1460)
    parts = {(segment.seq - server.other_isn) % 2**32: segment.data for segment in proxy.received.pop((server.own, server.other))}
    got = b"".join(parts[at] for at in sorted(parts))
    assert sorted(parts)[0] == 1 and sum(map(len, parts.values())) == len(got)
    server.send("A", ack=1 + len(got))
    return got


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))), ids=str)
def test_rule_1_4_a_first_flight_reaches_the_target_whole_whatever_order_it_comes_in(proxy, order):
    client = proxy.client(PATH)
    handshake(client)
    for number in order:
        client.send("PA", FLIGHT[CUTS[number]], seq=1 + CUTS[number].start)
    proxy.wait(0.05)
    got = reached(proxy)
    for number in order:
        client.send("PA", FLIGHT[CUTS[number]], seq=1 + CUTS[number].start)
    came = list(proxy.received.pop((client.own, client.other)))
    assert FLIGHT.startswith(got) and all((segment.ack - client.isn) % 2**32 <= 1 + len(FLIGHT) for segment in came)
    rest = b"".join(segment.data for segments in proxy.received.values() for segment in segments if segment.port == 1)
    assert (got + rest).startswith(FLIGHT)
    proxy.received.clear()


@pytest.mark.parametrize("order", [(0, 2, 2, 1, 3, 3), (3, 3, 2, 1, 0, 0), (1, 0, 1, 2, 3, 0)], ids=str)
def test_rule_1_4_duplicates_in_a_first_flight_are_held_once(proxy, order):
    client = proxy.client(PATH)
    handshake(client)
    proxy.burst(*(client.segment("PA", FLIGHT[CUTS[number]], seq=1 + CUTS[number].start) for number in order))
    proxy.wait(0.05)
    assert reached(proxy) == FLIGHT
    proxy.received.clear()


def test_rule_1_4_of_two_copies_in_a_first_flight_one_is_inspected_and_sent(proxy):
    client = proxy.client(PATH)
    handshake(client)
    client.send("PA", b"GET /b HTTP/1.1\r\n\r\n"[4:], seq=5)
    client.send("PA", b"GET /a HTTP/1.1\r\n\r\n", seq=1)
    proxy.wait(0.05)
    [target] = [name for name in "ab" if (TARGETS[name] in {to for (to, _), segments in proxy.received.items() if segments})]
    assert reached(proxy, target) == b"GET /%s HTTP/1.1\r\n\r\n" % target.encode()
    proxy.received.clear()


def test_rule_1_4_a_fin_that_overtakes_the_first_flight_closes_behind_it(proxy):
    client = proxy.client(NUMBER)
    handshake(client)
    client.send("FA", seq=8)
    client.send("PA", b"llo", seq=5)
    client.send("PA", b"0 he", seq=1)
    proxy.wait(0.05)
    server = proxy.accept("a")
    server.send("SA")
    segments = list(proxy.received.pop((server.own, server.other)))
    assert b"".join(segment.data for segment in segments) == b"0 hello"
    client.send("FA", seq=8)
    segments += proxy.received.pop((server.own, server.other), ())
    assert "F" in segments[-1].flags and proxy.states() == {"half_closed": 1}
    proxy.received.clear()


@settings(held_bytes=65472, waiting_per_connection=8, waiting_segments=16)
def test_rule_1_3_what_waits_is_limited_for_a_connection_and_for_all(proxy):
    clients = [proxy.client(STRICT) for _ in range(4)]
    for client in clients:
        handshake(client)
        for number in range(40, 0, -1):
            client.send("PA", b"x" * 100, seq=7 + 100 * number)
    assert sum(proxy.drops().values()) >= 4 * 40 - 16
    proxy.wait(31, 0.1)
    proxy.received.clear()
    assert proxy.states() == {}


def test_rule_1_4_other_bytes_sent_again_reach_the_target_in_no_state(proxy):
    client = proxy.client(NUMBER)
    handshake(client)
    client.send("PA", b"0 hello", seq=1)
    server = proxy.accept("a")
    client.send("PA", b"1 HELLO", seq=1)
    server.send("SA")
    server.expect("PA", seq=1, data=b"0 hello")
    client.send("PA", b"1 HELLO", seq=1)
    client.send("PA", b"LLO!", seq=5)
    server.nothing()
    proxy.wait(0.32)
    server.expect("PA", seq=1, data=b"0 hello")
    server.send("A", ack=8)
    client.expect("A", ack=8)


def test_rule_1_4_held_bytes_are_sent_again_in_the_targets_numbers(proxy):
    client, server, _, held = agree(proxy, STAMPS + SACK, [("Timestamp", (77, 0)), *SACK])
    assert option(held, "Timestamp")[1] == 77
    for _ in range(3):
        proxy.wait(4)
        while proxy.received[server.own, server.other]:
            again = server.expect("PA", seq=1, ack=1, data=b"0 hello")
            assert option(again, "Timestamp")[1] == 77 and again.window == held.window
    server.send("A", ack=8, options=[("Timestamp", (80, 0))])
    client.expect("A", ack=8)


@pytest.mark.parametrize("flags", ["FA", "R", "RA", "S"])
@pytest.mark.parametrize("state", ["syn_received", "first_data", "connecting", "established", "half_closed", "time_wait"])
def test_rule_1_5_a_corrupt_segment_changes_no_state(proxy, state, flags):
    client = proxy.client(FIRST if state == "connecting" else NUMBER)
    client.send("S")
    client.expect("SA")
    if state != "syn_received":
        client.send("A")
    if state == "connecting":
        proxy.accept("a")
    if state in ("established", "half_closed", "time_wait"):
        client.send("PA", b"0 hello")
        server = proxy.accept("a")
        server.send("SA")
        server.expect("PA", data=b"0 hello")
        server.send("A")
        client.expect("A")
    if state in ("half_closed", "time_wait"):
        client.send("FA")
        server.expect("FA")
    if state == "time_wait":
        server.send("FA")
        client.expect("FA")
        client.send("A")
        server.expect("A")
    assert proxy.state_of(client) == state
    client.send(flags, seq=500 if flags == "S" else client.seq, corrupt=True)
    assert proxy.state_of(client) == state and proxy.drops() == {"tcp_checksum": 1}
    proxy.silent()


def test_rule_1_5_corrupt_first_payload_is_not_accepted(proxy):
    client = proxy.client(NUMBER)
    handshake(client)
    client.send("PA", b"0 hello", corrupt=True)
    proxy.silent()
    assert proxy.state_of(client) == "first_data" and proxy.drops() == {"tcp_checksum": 1}


@pytest.mark.parametrize("options", [[], STAMPS + SACK])
def test_rule_1_5_corrupt_payload_in_the_splice_stays_corrupt_and_moves_nothing(proxy, options):
    stamps = STAMPS if options else []
    client, server, *_ = agree(proxy, options, options)
    server.send("A", ack=8, options=stamps)
    client.expect("A", ack=8)
    for sender, receiver in ((server, client), (client, server)):
        sender.send("PA", b"corrupt", seq=sender.seq + 100_000, corrupt=True, options=stamps)
        receiver.expect("PA", data=b"corrupt", intact=False)
    client.send("R", seq=8)
    server.expect("R", seq=8)
    assert proxy.states() == {}


def test_rule_1_2_acknowledgements_never_go_back_after_the_target_has_it_all(proxy):
    client = asked_for_more(proxy)
    client.send("PA", b" HTTP/1.1\r\n\r\n")
    server = proxy.accept("a")
    server.send("SA")
    server.expect("PA", seq=1, ack=1, data=b"GET /a HTTP/1.1\r\n\r\n")
    server.send("PA", b"300", seq=4)
    client.expect("PA", data=b"300", ack=20)
    server.send("PA", b"100", seq=1, ack=1)
    client.expect("PA", data=b"100", ack=20)
    client.send("PA", b"more")
    server.expect("PA", seq=20, data=b"more")
    server.send("A", ack=22)
    client.expect("A", ack=22)
