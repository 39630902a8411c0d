"""Mode `simple` (reference row 3): the target is chosen at the SYN, and what the two ends say goes from end to end."""
import pytest

from tcp.proxy import SIMPLE, close

OPTIONS = [("MSS", 1400), ("SAckOK", b""), ("Timestamp", (1000, 0)), ("NOP", None), ("WScale", 7)]
ANSWER = [("MSS", 1300), ("SAckOK", b""), ("Timestamp", (77, 1000)), ("NOP", None), ("WScale", 9)]


def opened(proxy, target="a", options=(), answer=(), isn=700_000):
    """Returns both ends of an established connection."""
    client = proxy.client(SIMPLE)
    client.send("S", options=list(options))
    server = proxy.accept(target, isn)
    server.send("SA", options=list(answer))
    client.expect("SA", seq=0, ack=1)
    client.send("A")
    server.expect("A", seq=1, ack=1)
    return client, server


def test_the_syn_goes_on_to_the_target_whole(proxy):
    client = proxy.client(SIMPLE)
    client.send("S", options=OPTIONS, window=4321, ttl=33, tos=0x28)
    server = proxy.accept("a")
    client.nothing()
    assert server.other_isn == client.isn
    assert (server.syn.options, server.syn.window, server.syn.ttl, server.syn.tos) == (OPTIONS, 4321, 32, 0x28)
    assert proxy.state_of(client) == "connecting"


def test_the_syn_ack_comes_back_whole(proxy):
    client = proxy.client(SIMPLE)
    client.send("S", options=OPTIONS)
    server = proxy.accept("a", isn=99)
    server.send("SA", options=ANSWER, window=777)
    came = client.expect("SA", seq=0, ack=1, window=777)
    assert came.options == ANSWER and client.other_isn == 99
    assert proxy.state_of(client) == "established"


def test_unknown_options_go_end_to_end(proxy):
    client = proxy.client(SIMPLE)
    client.send("S", options=[("MSS", 1400), (34, b"cookie12")])
    assert bytes([34, 10]) + b"cookie12" in proxy.accept("a").syn.frame


def test_the_mss_is_lowered_to_what_our_ports_carry(proxy):
    client = proxy.client(SIMPLE)
    client.send("S", options=[("NOP", None), ("MSS", 9000)])
    proxy.accept("a", mss=1460)


def test_data_goes_both_ways_untranslated_but_for_addresses(proxy):
    client, server = opened(proxy, options=OPTIONS, answer=ANSWER)
    stamps = [("NOP", None), ("NOP", None), ("Timestamp", (5000, 88))]
    client.send("PA", b"hello", options=stamps, window=17)
    assert server.expect("PA", seq=1, ack=1, data=b"hello", window=17).options == stamps
    server.send("PA", b"answer", options=stamps, window=18)
    assert client.expect("PA", seq=1, ack=6, data=b"answer", window=18).options == stamps


def test_targets_take_turns_at_the_syn(proxy):
    opened(proxy, "a")
    opened(proxy, "b")
    opened(proxy, "a")


def test_it_closes_like_any_other(proxy):
    client, server = opened(proxy)
    close(client, server)
    assert proxy.state_of(client) == "time_wait"
    proxy.wait(2.1)
    assert proxy.records()[0]["release"] == {"client": "PassiveClose", "target": "ActiveClose"}


def test_a_syn_sent_again_goes_to_the_same_target(proxy):
    client = proxy.client(SIMPLE)
    client.send("S")
    server = proxy.accept("a")
    proxy.wait(3)
    server.nothing()
    client.send("S", seq=0)
    server.expect("S", seq=0)
    assert proxy.count("opened") == 1


def test_a_client_that_opens_anew_before_its_target_has_answered_is_given_a_fresh_one(proxy):
    client = proxy.client(SIMPLE)
    client.send("S")
    first = proxy.accept("a")
    again = proxy.client(SIMPLE, port=client.own[1], isn=client.isn + 123_456)
    again.send("S")
    first.expect("R", seq=1)
    second = proxy.accept("b", isn=42)
    assert second.other_isn == again.isn
    first.send("SA")                       # late: nobody's
    first.expect("R", seq=1)
    second.send("SA")
    again.expect("SA", seq=0, ack=1)
    again.send("A")
    second.expect("A", seq=1, ack=1)
    assert proxy.count("opened") == 2 and proxy.count("open") == 1
    assert proxy.records()[0]["release"] == {"client": "PassiveRst", "target": "ActiveRst"}


def test_a_syn_ack_sent_again_reaches_the_client(proxy):
    client, server = opened(proxy)
    server.send("SA", seq=0, ack=1)
    client.expect("SA", seq=0, ack=1)
    client.send("A")
    server.expect("A", seq=1, ack=1)


def test_the_targets_refusal_reaches_the_client(proxy):
    client = proxy.client(SIMPLE)
    client.send("S")
    proxy.accept("a").send("RA", seq=0, ack=1)
    client.expect("RA", ack=1)
    assert proxy.states() == {}
    assert proxy.records()[0]["release"] == {"client": "ActiveRst", "target": "TargetRefused"}


def test_a_silent_target_ends_as_a_time_out(proxy):
    client = proxy.client(SIMPLE)
    client.send("S")
    server = proxy.accept("a")
    proxy.wait(10.1)
    client.expect("RA", ack=1)
    server.expect("R", seq=1)
    assert proxy.records()[0]["release"] == {"client": "Timeout", "target": "Timeout"}


def test_data_with_the_syn_passes_for_fast_open(proxy):
    client = proxy.client(SIMPLE)
    client.send("S", b"early")
    client.seq = 6
    [(_, waiting)] = [item for item in proxy.received.items() if item[1]]
    assert waiting[0].data == b"early"
    waiting.clear()


def test_a_syn_in_an_established_connection_is_the_end_points_to_answer(proxy):
    client, server = opened(proxy)
    client.send("S", seq=500)
    server.expect("S", seq=500)
    server.send("A", ack=1)
    client.expect("A", seq=1, ack=1)
    assert proxy.state_of(client) == "established"


@pytest.mark.parametrize("side", [0, 1])
def test_an_exact_rst_ends_it(proxy, side):
    ends = opened(proxy)
    ends[side].send("R")
    ends[1 - side].expect("R")
    assert proxy.states() == {}
