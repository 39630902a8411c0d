"""SPLICE 4: resets, challenges, TIME_WAIT, what strays. One test a clause; RFC 5961 is the measure."""
import pytest

from tcp.negotiated import SACK, STAMP, STAMPS, agree, names, offer, option, scale, stamped
from tcp.proxy import NUMBER, PATH, STRICT, TURNS, close, connect, handshake, settings


def bound(proxy, data=b"0 hello", service=NUMBER):
    """Returns both ends of an established connection; nothing is held any more."""
    client = proxy.client(service)
    return client, connect(proxy, client, data)


def talked(proxy):
    """Returns both ends, each of which has sent 6 octets and acknowledged the other's."""
    client, server = bound(proxy)
    server.send("PA", b"answer")
    client.expect("PA", data=b"answer")
    client.send("PA", b"thanks")
    server.expect("PA", data=b"thanks")
    server.send("A")
    client.expect("A")
    return client, server


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("flags", ["R", "RA"])
def test_rule_4_1_a_rst_with_exactly_the_last_acknowledged_number_closes_at_once(proxy, side, flags):
    ends = talked(proxy)
    ends[side].send(flags)
    ends[1 - side].expect(flags, seq=ends[1 - side].ack)
    assert proxy.states() == {}
    proxy.wait(5, 0.1)
    proxy.silent()


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("off", [1, 100, 8000])
def test_rule_4_1_a_rst_in_the_window_passes_and_the_challenge_gets_the_exact_one(proxy, side, off):
    ends = talked(proxy)
    sender, receiver = ends[side], ends[1 - side]
    sender.send("R", seq=sender.seq + off)
    receiver.expect("R", seq=receiver.ack + off)
    assert proxy.states() == {"established": 1}
    receiver.send("A")
    challenge = sender.expect("A", ack=sender.seq)
    sender.send("R", seq=(challenge.ack - sender.isn) % 2**32)
    receiver.expect("R", seq=receiver.ack)
    assert proxy.states() == {}


@pytest.mark.parametrize("side", [0, 1])
def test_rule_4_1_a_rst_in_the_window_that_nobody_contradicts_ends_the_connection_soon(proxy, side):
    ends = talked(proxy)
    ends[side].send("R", seq=ends[side].seq + 1)
    ends[1 - side].expect("R")
    proxy.wait(2.2)
    assert proxy.states() == {}
    proxy.silent()


@pytest.mark.parametrize("side", [0, 1])
def test_rule_4_1_acknowledgements_that_cross_the_last_rst_show_that_it_is_exact(proxy, side):
    ends = talked(proxy)
    sender, receiver = ends[side], ends[1 - side]
    sender.send("PA", b"one")
    sender.send("PA", b"two")
    sender.send("RA")
    receiver.expect("PA", data=b"one")
    receiver.expect("PA", data=b"two")
    receiver.expect("RA", seq=receiver.ack)
    assert proxy.states() == {"established": 1}
    receiver.send("A", ack=receiver.ack - 3)
    sender.expect("A", ack=sender.seq - 3)
    assert proxy.states() == {"established": 1}
    receiver.send("A")
    sender.expect("A", ack=sender.seq)
    assert proxy.states() == {}
    record, = proxy.records()
    assert record["release"][("client", "target")[side]] == "PassiveRst"
    assert record["release"][("target", "client")[side]] == "ActiveRst"


def test_rule_4_1_what_of_our_own_is_under_way_proves_no_rst(proxy):
    """The target's acknowledgement is shown to the client as that of all that we have acknowledged ourselves (rule 1.2)."""
    client = proxy.client(PATH)
    handshake(client)
    client.send("PA", b"GET /b")
    client.expect("A", ack=7)
    client.send("PA", b"/x ")
    server = proxy.accept("b")
    server.send("SA", window=5)
    server.expect("A", seq=1, data=b"GET /")
    client.send("RA")
    server.expect("RA")
    server.send("A", ack=6, window=2)
    server.expect("A", seq=6, data=b"b/")
    client.expect("A", seq=1, ack=10, window=0)
    assert proxy.states() == {"established": 1}


@pytest.mark.parametrize("side", [0, 1])
def test_rule_4_1_whoever_goes_on_after_the_last_rst_has_not_sent_it(proxy, side):
    ends = talked(proxy)
    sender, receiver = ends[side], ends[1 - side]
    sender.send("PA", b"one")
    sender.send("RA")
    receiver.expect("PA", data=b"one")
    receiver.expect("RA", seq=receiver.ack)
    sender.send("A")
    receiver.expect("A")
    receiver.send("A")
    sender.expect("A", ack=sender.seq)
    proxy.wait(300, 1)
    assert proxy.states() == {"established": 1}


@pytest.mark.parametrize("side", [0, 1])
def test_rule_4_1_later_traffic_undoes_a_forged_rst(proxy, side):
    ends = talked(proxy)
    ends[1 - side].send("R", seq=ends[1 - side].seq + 1)
    ends[side].expect("R")
    proxy.wait(1)
    ends[side].send("PA", b"still here")
    ends[1 - side].expect("PA", data=b"still here")
    proxy.wait(300, 1)
    assert proxy.states() == {"established": 1}


@pytest.mark.parametrize("side", [0, 1])
def test_rule_4_1_a_rst_outside_every_window_is_dropped(proxy, side):
    ends = talked(proxy)
    for off in (2**31, -(1 << 20), 1 << 20):
        ends[side].send("R", seq=ends[side].seq + off)
    proxy.silent()
    proxy.wait(5, 0.1)
    assert proxy.states() == {"established": 1} and proxy.drops() == {"unexpected_segment": 3}


@pytest.mark.parametrize("side", [0, 1])
def test_rule_4_1_a_rst_behind_a_wide_window_of_payload_passes(proxy, side):
    client, server, *_ = agree(proxy, scale(7), scale(7))
    server.send("A", ack=8, window=65535)
    client.expect("A")
    sender, receiver = ((client, server), (server, client))[side]
    for _ in range(100):
        sender.send("A", b"x" * 1400)
        receiver.expect("A", data=b"x" * 1400)
    sender.send("RA")
    receiver.expect("RA")
    proxy.wait(2.2)
    assert proxy.states() == {}


@pytest.mark.parametrize("stamps", [False, True])
def test_rule_4_1_a_syn_in_the_window_is_answered_by_us_with_the_last_numbers_relayed(proxy, stamps):
    offered = SACK + STAMPS if stamps else SACK
    client, server, *_ = agree(proxy, offered, [("Timestamp", (7, STAMP)), *SACK] if stamps else SACK)
    server.send("PA", b"answer", ack=8, options=stamped(8, STAMP) if stamps else [])
    client.expect("PA", data=b"answer")
    client.send("A", options=stamped(STAMP + 3, 0) if stamps else [])
    server.expect("A")
    client.send("S", seq=client.seq + 10, options=offered)
    challenge = client.expect("A", seq=7, ack=8)
    assert names(challenge) == ({"Timestamp"} if stamps else set())
    server.nothing()
    assert proxy.states() == {"established": 1} and proxy.count("challenge_acks") == 1


def test_rule_4_1_a_client_that_has_restarted_resets_the_old_connection_by_our_challenge(proxy):
    client, server = talked(proxy)
    client.send("S", seq=client.seq + 100)
    challenge = client.expect("A", seq=client.ack, ack=client.seq)
    client.send("R", seq=(challenge.ack - client.isn) % 2**32)
    server.expect("R", seq=server.ack)
    assert proxy.states() == {}
    again = proxy.client(NUMBER, port=client.own[1], isn=client.isn + 5000)
    handshake(again)


def test_rule_4_1_challenges_are_rate_limited_and_the_budget_comes_back(proxy_factory):
    proxy = proxy_factory(reset_rate=5)
    client, server = talked(proxy)
    for number in range(50):
        client.send("S", seq=client.seq + 10 + number)
    came = len(proxy.received.pop((client.own, client.other)))
    assert 1 <= came <= 6 and proxy.count("reset_rate_limit") == 50 - came
    proxy.wait(1.1)
    client.send("S", seq=client.seq + 10)
    client.expect("A", seq=client.ack, ack=client.seq)


def test_rule_4_2_our_rsts_carry_the_last_number_that_each_receiver_has_acknowledged(proxy):
    client, server = talked(proxy)
    server.send("PA", b"in flight")
    client.expect("PA", data=b"in flight")
    client.send("PA", b"in flight too", ack=7)
    server.expect("PA", data=b"in flight too")
    proxy.wait(601, 1)
    client.expect("RA", seq=7)
    server.expect("RA", seq=14)


@pytest.mark.parametrize("side", [0, 1])
def test_rule_4_2_a_challenge_to_our_rst_is_answered_with_the_exact_one(proxy, side):
    ends = talked(proxy)
    ends[1 - side].send("PA", b"not acknowledged")
    ends[side].expect("PA", data=b"not acknowledged")
    proxy.wait(601, 1)
    proxy.received.clear()
    ends[side].send("A")
    ends[side].expect("R", seq=ends[side].ack)


@pytest.mark.parametrize("side", [0, 1])
def test_rule_4_2_a_challenge_to_our_rst_is_answered_where_strays_are_dropped(proxy, side):
    client = proxy.client(STRICT)
    ends = client, connect(proxy, client, b"GET /a HTTP/1.1\r\n\r\n")
    ends[1 - side].send("PA", b"not acknowledged")
    ends[side].expect("PA", data=b"not acknowledged")
    proxy.wait(601, 1)
    proxy.received.clear()
    ends[side].send("A")
    ends[side].expect("R", seq=ends[side].ack)


def calm(proxy, options=()):
    """Returns both ends, which have said something and acknowledged it."""
    client, server, *_ = agree(proxy, list(options), list(options))
    server.send("A", ack=8)
    client.expect("A", ack=8)
    server.send("PA", b"answer")
    client.expect("PA", data=b"answer")
    client.send("A")
    server.expect("A")
    return client, server


def storm(proxy, ends, count, seconds):
    """Lets both ends throw the same acknowledgement at each other; returns how many have passed."""
    passed = 0
    for _ in range(count):
        for end in ends:
            end.send("A")
        proxy.wait(seconds / count)
        passed += sum(len(proxy.received.pop((end.own, end.other), ())) for end in ends)
    return passed


def test_rule_4_3_an_ack_storm_is_counted_and_cut(proxy):
    ends = calm(proxy)
    passed = storm(proxy, ends, 1000, 1)
    assert passed < 1000 and sum(proxy.drops().values()) >= 1000
    assert proxy.states() == {"established": 1}


def test_rule_4_3_after_a_storm_payload_and_its_acknowledgement_pass(proxy):
    client, server = calm(proxy)
    storm(proxy, (client, server), 1000, 1)
    client.send("PA", b"progress")
    server.expect("PA", data=b"progress")
    server.send("A")
    client.expect("A", ack=client.seq)


@pytest.mark.parametrize("side", [0, 1])
def test_rule_4_3_the_duplicates_of_a_fast_retransmit_are_no_storm(proxy, side):
    ends = calm(proxy)
    sender, receiver = ends[side], ends[1 - side]
    start = sender.seq
    for number in range(1, 500):
        sender.send("A", b"d" * 100, seq=start + 100 * number)
        receiver.expect("A", data=b"d" * 100)
        receiver.send("A", ack=start)
        sender.expect("A", ack=start)
    sender.send("A", b"d" * 100, seq=start)
    receiver.expect("A", seq=start, data=b"d" * 100)
    assert proxy.drops() == {}


def test_rule_4_3_duplicates_with_sack_are_no_storm(proxy):
    client, server = calm(proxy, SACK)
    for number in range(1000):
        client.send("A", options=[("NOP", None)] * 2 + [("SAck", (client.other_isn + 100, client.other_isn + 200))])
        server.expect("A")
        server.send("A", options=[("NOP", None)] * 2 + [("SAck", (client.isn + 100, client.isn + 200))])
        client.expect("A")
    assert proxy.drops() == {}


def test_rule_4_3_keep_alives_of_both_ends_are_no_storm(proxy):
    client, server = calm(proxy)
    for _ in range(300):
        for one, other in ((client, server), (server, client)):
            one.send("A", seq=one.seq - 1)
            other.expect("A")
            other.send("A")
            one.expect("A")
        proxy.wait(1, 0.5)
    assert proxy.drops() == {}


@pytest.mark.parametrize("beyond", [1, 2**30])
def test_rule_4_4_a_new_syn_reopens_a_time_wait(proxy, beyond):
    client, server = talked(proxy)
    close(client, server)
    assert proxy.states() == {"time_wait": 1}
    again = proxy.client(NUMBER, port=client.own[1], isn=client.isn + client.seq + beyond)
    handshake(again)
    again.send("PA", b"0 again")
    server = proxy.accept("a")
    server.send("SA")
    server.expect("PA", seq=1, ack=1, data=b"0 again")
    assert proxy.count("opened") == 2 and proxy.count("closed") == 1


def test_rule_4_4_our_new_number_lies_above_the_old_connections_last(proxy):
    client, server = talked(proxy)
    close(client, server)
    again = proxy.client(NUMBER, port=client.own[1], isn=client.isn + client.seq + 1)
    handshake(again)
    assert 0 < (again.other_isn - client.other_isn - server.seq) % 2**32 < 2**31, "our number lies above the old connection's last"


@pytest.mark.parametrize("tos", [0, 0xB8, 0x28])
@pytest.mark.parametrize("dont_fragment", [False, True])
def test_rule_4_5_the_ttl_falls_by_one_and_dscp_and_df_stay(proxy, tos, dont_fragment):
    client, server = bound(proxy)
    for sender, receiver in ((client, server), (server, client)):
        sender.send("PA", b"x", ttl=9, tos=tos, dont_fragment=dont_fragment)
        receiver.expect("PA", data=b"x", ttl=8, tos=tos, dont_fragment=dont_fragment)


def test_rule_4_5_a_ttl_that_is_spent_goes_no_further(proxy):
    client, server = bound(proxy)
    for sender in (client, server):
        sender.send("A", ttl=1)
    assert proxy.drops() == {"ttl_exceeded": 2}
    assert [len(proxy.taken_others(port)) for port in (0, 1)] == [1, 1]


@pytest.mark.parametrize("octet", [b"", b"\0"])
@pytest.mark.parametrize("held", [b"", b"GET /a"])
def test_rule_4_5_a_keep_alive_before_binding_is_answered_by_us(proxy, octet, held):
    client = proxy.client(PATH)
    handshake(client)
    if held:
        client.send("PA", held)
        client.expect("A", ack=1 + len(held))
    for _ in range(3):
        proxy.wait(5)
        client.send("A", octet, seq=client.seq - 1)
        assert client.expect("A", seq=1, ack=1 + len(held)).window > 0
    client.send("PA", b"GET /b "[len(held):] if not held else b"?b HTTP/1.1\r\n\r\n")
    server = proxy.accept("a" if held else "b")
    server.send("SA")
    server.expect("PA", seq=1, data=(b"GET /a?b HTTP/1.1\r\n\r\n" if held else b"GET /b "))


def test_rule_4_5_a_keep_alive_with_timestamps_gets_them_back(proxy):
    client, answer = offer(proxy, STAMPS)
    client.send("A", seq=0, options=stamped(STAMP + 9, option(answer, "Timestamp")[0]))
    assert option(client.expect("A", seq=1, ack=1), "Timestamp")[1] in (STAMP, STAMP + 1, STAMP + 9)


def test_rule_4_5_keep_alives_do_not_put_the_first_data_time_out_off(proxy):
    client = proxy.client(NUMBER)
    handshake(client)
    for _ in range(4):
        proxy.wait(8)
        client.send("A", seq=0)
    came = [segment.flags for segment in proxy.received.pop((client.own, client.other))]
    assert came[:3] == ["A"] * 3 and "RA" in came


def test_rule_4_5_a_syn_from_a_target_on_one_of_our_ports_is_dropped_and_counted(proxy):
    client, server = bound(proxy)
    close(client, server)
    proxy.wait(2.1)
    server.send("S", seq=500_000)
    server.nothing()
    assert proxy.states() == {} and proxy.count("opened") == 1 and sum(proxy.drops().values()) == 1


def strays(proxy, service):
    """Returns a client whose segments belong to no connection."""
    client = proxy.client(service)
    client.other_isn = 0
    return client


@pytest.mark.parametrize("flags", ["A", "PA", "FA", "SA"])
def test_rule_4_6_a_stray_is_reset_or_dropped_as_its_service_says(proxy, flags):
    for service, answered in ((TURNS, True), (STRICT, False)):
        client = strays(proxy, service)
        client.send(flags, seq=50, ack=77)
        if answered:
            client.expect("R", seq=77)
        client.nothing()
    assert proxy.count("stray_segment") == 1 and proxy.states() == {}


def test_rule_4_6_a_syn_to_no_service_is_refused(proxy):
    client = proxy.client(4444)
    client.send("S")
    client.expect("RA", ack=1)
    assert proxy.states() == {}


@settings(reset_rate=3)
def test_rule_4_6_resets_are_rate_limited(proxy):
    client = strays(proxy, TURNS)
    for _ in range(20):
        client.send("A", seq=50, ack=77)
    assert 1 <= len(proxy.received.pop((client.own, client.other))) <= 4
    assert proxy.count("reset_rate_limit") >= 16


def test_rule_4_6_after_a_restart_both_ends_of_an_old_connection_are_reset(proxy_factory):
    client, server = talked(proxy_factory())
    restarted = proxy_factory()
    for end in (client, server):
        end.proxy = restarted
        restarted.know(end.own[0], end.port)
        end.send("PA", b"are you there")
        end.expect("R", seq=end.ack)
    assert restarted.states() == {}
