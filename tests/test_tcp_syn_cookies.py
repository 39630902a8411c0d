"""SYN cookies: nothing is kept before the first payload, and what the client was told still holds then (SPLICE 7)."""
import pytest

from pipeline.kernels.cookie_number import EPOCH_BITS, SIZES
from tcp.negotiated import SACK, STAMP, STAMPS, agree, names, offer, option, peek, scale, stamped
from tcp.proxy import CALM, FIRST, NUMBER, SECOND, SIMPLE, TURNS, close, connect, handshake, one_worker, settings

always = settings(syn_cookies='"always"')
from_two = settings(syn_cookies=2)
EPOCH = (1 << EPOCH_BITS) / SECOND
pytestmark = one_worker


def nothing_kept(proxy):
    """Says whether the engine knows of no connection, and of none that there was."""
    return proxy.count("opened") == 0 and proxy.states() == {}


def served(proxy, client, data=b"hello", target="a"):
    """A client's first payload reaches a target; returns that."""
    client.send("PA", data)
    server = proxy.accept(target)
    server.send("SA")
    server.expect("PA", seq=1, ack=1, data=data)
    server.send("A")
    client.expect("A", seq=1, ack=1 + len(data))
    return server


@always
def test_rule_7_1_a_syn_and_its_bare_acknowledgement_leave_nothing_behind(proxy):
    client = proxy.client(TURNS)
    handshake(client)
    client.send("A")
    client.nothing()
    assert nothing_kept(proxy) and proxy.count("cookies_sent") == 1 and proxy.drops() == {}


@always
def test_rule_7_1_the_first_payload_makes_the_connection(proxy):
    client = proxy.client(TURNS)
    handshake(client)
    close(client, served(proxy, client))
    assert proxy.count("cookies_accepted") == 1 and proxy.count("opened") == 1 and proxy.drops() == {}


@always
def test_rule_7_3_an_acknowledgement_with_data_is_a_first_payload(proxy):
    client = proxy.client(TURNS)
    client.send("S")
    client.expect("SA", seq=0, ack=1)
    served(proxy, client, b"at once")


@always
def test_rule_7_3_what_has_overtaken_the_first_payload_is_dropped_silently(proxy):
    client = proxy.client(TURNS)
    handshake(client)
    client.send("PA", b"second", seq=6)
    client.nothing()
    assert nothing_kept(proxy) and proxy.drops() == {"cookie_out_of_order": 1}
    client.send("PA", b"first", seq=1)
    server = proxy.accept("a")
    server.send("SA")
    server.expect("PA", seq=1, ack=1, data=b"first")


@always
def test_rule_7_3_a_fin_without_data_is_answered_without_state(proxy):
    client = proxy.client(TURNS)
    handshake(client)
    client.send("FA")
    client.expect("FA", seq=1, ack=2)
    client.send("A")
    client.nothing()
    assert nothing_kept(proxy) and proxy.drops() == {}


@always
def test_a_fin_with_the_payload_is_handed_over_behind_it(proxy):
    client = proxy.client(TURNS)
    handshake(client)
    client.send("FPA", b"all of it")
    server = proxy.accept("a")
    server.send("SA")
    server.expect("FPA", seq=1, ack=1, data=b"all of it")


@always
def test_a_reset_ends_nothing_since_there_is_nothing(proxy):
    client = proxy.client(TURNS)
    handshake(client)
    client.send("R")
    client.nothing()
    assert nothing_kept(proxy) and proxy.drops() == {"stray_segment": 1}


@always
@pytest.mark.parametrize("wrong", [1, 2, 1 << 3, 1 << 10, 1 << 22, 1 << 30])
def test_a_forged_cookie_makes_no_connection(proxy, wrong):
    client = proxy.client(TURNS)
    handshake(client)
    client.send("PA", b"hello", ack=1 + wrong)
    if wrong >= 1 << 22:  # not even the tag of its 4-tuple: a stray segment
        client.expect("R", seq=1 + wrong)
        assert proxy.count("cookies_refused") == 1
    elif wrong == 1:
        proxy.received.clear()  # under the other key it is nobody's, or by chance too late
    assert nothing_kept(proxy)


@always
def test_another_4_tuple_has_another_cookie(proxy):
    first, second = proxy.client(TURNS), proxy.client(TURNS)
    handshake(first)
    handshake(second)
    second.send("PA", b"hello", ack=first.other_isn + 1 - second.other_isn)
    second.expect("R")
    assert nothing_kept(proxy)


@always
def test_cookies_are_taken_in_the_next_epoch_and_no_longer(proxy):
    early, late = proxy.client(TURNS), proxy.client(TURNS)
    for client in (early, late):
        handshake(client)
    proxy.start_at(proxy.now + (1 << EPOCH_BITS))
    served(proxy, early)
    proxy.start_at(proxy.now + (1 << EPOCH_BITS))
    other = proxy.client(TURNS)  # a SYN of this epoch: cookies are still looked for
    handshake(other)
    late.send("PA", b"too late")
    late.expect("R", seq=1)
    assert proxy.count("cookies_refused") == 1 and proxy.count("opened") == 1


@always
def test_the_same_syn_again_gets_the_same_number(proxy):
    client = proxy.client(TURNS)
    client.send("S")
    client.expect("SA", seq=0, ack=1)
    proxy.wait(1)
    client.send("S", seq=0)
    client.expect("SA", seq=0, ack=1)
    client.send("A")
    served(proxy, client)


@always
@pytest.mark.parametrize("mss", [None, 100, 536, 1000, 1380, 1460, 8960])
def test_rule_7_2_the_mss_is_rounded_down_to_one_that_a_cookie_can_say(proxy, mss):
    client = proxy.client(TURNS)
    client.send("S", mss=mss)
    assert names(client.expect("SA", seq=0, ack=1)) == {"MSS"}
    client.send("PA", b"hello")
    number = proxy.number_of(client)
    cold = proxy.state.connections.cold[number]
    told = int(proxy.state.connections.openings[int(cold["opening"])]["mss"][0])
    assert told == max(size for size in SIZES if size <= (mss or 536))
    proxy.accept("a")


@always
def test_rule_7_2_without_timestamps_nothing_else_is_agreed_to(proxy):
    client, answer = offer(proxy, [*SACK, *scale(7)])
    assert names(answer) == {"MSS"}
    client.send("PA", b"0 hello")
    server = proxy.accept("a")
    assert names(server.syn) == {"MSS"}


@always
@pytest.mark.parametrize("shift", [None, 0, 7, 14])
@pytest.mark.parametrize("sack", [False, True])
def test_rule_7_2_with_timestamps_all_options_survive(proxy, shift, sack):
    offered = STAMPS + (SACK if sack else []) + (scale(shift) if shift is not None else [])
    client, server, answer, held = agree(proxy, offered, offered)
    kinds = {"MSS", "Timestamp"} | ({"SAckOK"} if sack else set()) | ({"WScale"} if shift is not None else set())
    assert names(answer) == kinds and names(server.syn) == kinds
    assert option(answer, "Timestamp")[1] == STAMP
    if shift is not None:
        assert option(server.syn, "WScale") == shift
    server.send("A", options=stamped(STAMP + 1, option(held, "Timestamp")[0]))
    acknowledgement = client.expect("A", ack=8)
    assert (option(acknowledgement, "Timestamp")[0] - option(answer, "Timestamp")[0]) & 0xFFFFFFFF < 1 << 31


@always
def test_rule_7_2_ecn_survives_with_timestamps(proxy):
    client = proxy.client(NUMBER)
    client.send("SEC", options=STAMPS, mss=1460)
    answer = client.expect("SAE", seq=0, ack=1)
    client.send("PA", b"0 hello", options=stamped(STAMP + 2, option(answer, "Timestamp")[0]))
    assert set("EC") <= set(peek(proxy).flags)
    proxy.accept("a", flags="SEC")


@always
def test_rule_7_1_a_fall_back_needs_state_from_the_bare_acknowledgement_on(proxy):
    client = proxy.client(CALM)
    handshake(client)
    assert proxy.states() == {"first_data": 1}
    client.send("PA", b"/b does not matter")
    proxy.accept("b")


@always
def test_an_immediate_service_connects_once_the_client_is_there(proxy):
    client = proxy.client(FIRST)
    client.send("S")
    client.expect("SA", seq=0, ack=1)
    assert proxy.count("opened") == 0
    client.send("A")
    proxy.accept("a")


@always
def test_in_mode_simple_the_target_answers(proxy):
    client = proxy.client(SIMPLE)
    client.send("S")
    server = proxy.accept("a")
    server.send("SA")
    client.expect("SA", ack=1)
    assert proxy.count("cookies_sent") == 0


@from_two
def test_from_the_threshold_on_syns_get_cookies(proxy):
    clients = [proxy.client(TURNS) for _ in range(4)]
    for client in clients:
        client.send("S")
        client.expect("SA", seq=0, ack=1)
    assert proxy.states() == {"syn_received": 2} and proxy.count("cookies_sent") == 2
    for client in clients:
        client.send("A")
    assert proxy.states() == {"first_data": 2}
    last = proxy.client(TURNS)
    last.send("S")
    last.expect("SA", seq=0, ack=1)
    assert proxy.states() == {"first_data": 2, "syn_received": 1}
    for client, target in zip(reversed(clients), ("a", "b", "c", "a"), strict=True):
        served(proxy, client, target=target)
    assert proxy.count("cookies_accepted") == 2


@always
def test_what_follows_the_first_payload_in_its_burst_is_its_connections(proxy):
    client = proxy.client(TURNS)
    handshake(client)
    proxy.burst(client.segment("A", b"one "), client.segment("PA", b"two", seq=5), port=0)
    client.seq += 7
    server = proxy.accept("a")
    server.send("SA")
    server.expect("PA", seq=1, ack=1, data=b"one two")
    assert proxy.count("opened") == 1 and proxy.drops() == {}


@always
def test_while_draining_no_syn_is_answered_and_no_cookie_taken(proxy):
    before, after = proxy.client(TURNS), proxy.client(TURNS)
    kept = proxy.client(FIRST)
    handshake(kept)
    proxy.accept("a")
    handshake(before)
    proxy.drain()
    after.send("S")
    after.nothing()
    before.send("PA", b"hello")
    before.nothing()
    assert proxy.drops() == {"draining": 2}


@always
def test_what_opens_a_connection_in_time_wait_anew_has_state_at_once(proxy):
    client = proxy.client(TURNS)
    handshake(client)
    server = served(proxy, client)
    close(client, server)
    assert proxy.states() == {"time_wait": 1}
    again = proxy.client(TURNS, port=client.own[1], isn=client.isn + 1_000_000)
    again.send("S")
    again.expect("SA", seq=0, ack=1)
    assert proxy.states() == {"syn_received": 1} and proxy.count("cookies_sent") == 1
    again.send("A")
    served(proxy, again, target="b")


@settings()
def test_without_cookies_a_segment_of_nobody_is_a_stray_one(proxy):
    client = proxy.client(TURNS)
    close(client, connect(proxy, client))
    stranger = proxy.client(TURNS)
    stranger.send("PA", b"hello", ack=4711)
    stranger.expect("R")
    assert proxy.count("cookies_sent") == proxy.count("cookies_refused") == 0
