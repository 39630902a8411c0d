"""Rules that meet in one connection: each is right by itself in test_splice_<section>.py, here two or three hold at once.

The connection of most tests runs over a port that was used shortly before, so that the client's numbers are shifted too
(SPLICE 3.2); what is then said of either side in its own numbers has to be right in every other rule.
"""
import itertools

import pytest

from tcp.icmp import error, read_error
from tcp.negotiated import SACK, STAMP, STAMPS, names, option, peek, scale, stamped
from tcp.proxy import FEW, SIMPLE, TARGETS, close, connect, handshake

ROUTER = "10.9.9.9"
OLD = 2_000_000_000


def worn(proxy):
    """Uses each of the three source ports of the service FEW once, with high numbers and timestamps of the client's."""
    for turn in range(3):
        client = proxy.client(FEW, isn=OLD + turn)
        client.send("S", options=[("Timestamp", (STAMP + 10**6, 0))])
        shown = client.expect("SA")
        stamps = stamped(STAMP + 10**6 + 1, option(shown, "Timestamp")[0])
        client.send("A", options=stamps)
        client.send("PA", b"hello", options=stamps)
        server = proxy.accept("few")
        server.send("SA", options=[("Timestamp", (5, 0))])
        server.expect("PA", data=b"hello")
        server.send("A", options=stamped(6, 0))
        client.expect("A")
        client.send("R")
        server.expect("R")
    assert proxy.states() == {}


def shifted(proxy, options=(), agreed=(), data=b"hello"):
    """Returns client, target and SYN-ACK of an established connection whose client's numbers are shifted."""
    worn(proxy)
    client = proxy.client(FEW, isn=1000)
    client.send("S", options=list(options), mss=1460)
    answer = client.expect("SA")
    stamps = stamped(STAMP + 1, option(answer, "Timestamp")[0]) if option(answer, "Timestamp") else []
    client.send("A", options=stamps)
    client.send("PA", data, options=stamps)
    syn = peek(proxy, "few")
    assert 0 < (syn.seq - OLD) % 2**32 < 2**31, "the initial number lies above the old connection's"
    server = proxy.accept("few")
    server.send("SA", options=[("Timestamp", (70, option(syn, "Timestamp")[0])) if name == "Timestamp" else (name, value)
                               for name, value in agreed], mss=1460)
    server.expect("PA", seq=1, ack=1, data=data)
    server.send("A", options=stamped(71, 0) if "Timestamp" in dict(agreed) else [])
    client.expect("A", seq=1, ack=1 + len(data))
    return client, server, answer


@pytest.mark.parametrize("first", [0, 1])
def test_a_shifted_connection_talks_and_closes(proxy, first):
    client, server, _ = shifted(proxy)
    for sender, receiver in ((client, server), (server, client)) * 2:
        sender.send("PA", b"payload")
        receiver.expect("PA", seq=sender.seq - 7, ack=receiver.seq, data=b"payload")
        receiver.send("A")
        sender.expect("A", seq=receiver.seq, ack=sender.seq)
    ends = client, server
    close(ends[first], ends[1 - first])
    assert proxy.states() == {"time_wait": 1}
    proxy.wait(2.1)
    assert proxy.records()[-1]["octets"] == {"client": 19, "target": 14}


def test_blocks_of_both_ends_of_a_shifted_connection_are_in_the_senders_numbers(proxy):
    client, server, _ = shifted(proxy, SACK, SACK)
    for sender, receiver in ((client, server), (server, client)):
        start = sender.seq
        sender.send("A", b"x" * 100, seq=start + 100)
        receiver.expect("A", seq=start + 100, data=b"x" * 100)
        edges = tuple((receiver.other_isn + start + edge) % 2**32 for edge in (100, 200))
        receiver.send("A", ack=start, options=[("NOP", None)] * 2 + [("SAck", edges)])
        wanted = tuple((sender.isn + start + edge) % 2**32 for edge in (100, 200))
        assert option(sender.expect("A", ack=start), "SAck") == wanted


@pytest.mark.parametrize("side", [0, 1])
def test_an_exact_rst_ends_a_shifted_connection_and_an_inexact_one_does_not(proxy, side):
    client, server, _ = shifted(proxy)
    ends = client, server
    ends[side].send("R", seq=ends[side].seq + 1)
    ends[1 - side].expect("R", seq=ends[side].seq + 1)
    assert proxy.states() == {"established": 1}
    ends[side].send("R")
    ends[1 - side].expect("R", seq=ends[side].seq)
    assert proxy.states() == {}


def test_challenges_and_our_own_rsts_of_a_shifted_connection_have_each_sides_numbers(proxy):
    client, server, _ = shifted(proxy)
    client.send("S", seq=client.seq + 50)
    client.expect("A", seq=1, ack=6)
    proxy.wait(601, 1)
    client.expect("RA", seq=1, ack=6)
    server.expect("RA", seq=6, ack=1)


def test_held_bytes_of_a_shifted_connection_are_sent_again_and_acknowledged(proxy):
    worn(proxy)
    client = proxy.client(FEW, isn=1000)
    handshake(client)
    client.send("PA", b"hello")
    server = proxy.accept("few")
    client.send("PA", b" again")
    server.send("SA")
    server.expect("PA", seq=1, ack=1, data=b"hello again")
    client.send("PA", b"HELLO", seq=1)
    server.nothing()
    proxy.wait(0.4)
    server.expect("PA", seq=1, ack=1, data=b"hello again")
    server.send("A", ack=12)
    client.expect("A", ack=12)
    proxy.wait(20, 0.1)
    proxy.silent()


def test_timestamps_of_a_shifted_connection_rise_at_the_target_and_come_back_to_the_client_as_they_were(proxy):
    client, server, answer = shifted(proxy, STAMPS, STAMPS)
    highest = STAMP + 10**6 + 1
    for number in range(1, 4):
        client.send("PA", b"x", options=stamped(STAMP + 100 * number, option(answer, "Timestamp")[0]))
        value = option(server.expect("PA", data=b"x"), "Timestamp")[0]
        assert 0 <= (value - highest) % 2**32 < 2**31
        highest = value
        server.send("A", options=stamped(71 + number, value))
        assert option(client.expect("A"), "Timestamp")[1] == STAMP + 100 * number


@pytest.mark.parametrize("way", [0, 1])
def test_an_icmp_error_about_a_shifted_connection_quotes_the_senders_own_numbers(proxy, way):
    client, server, _ = shifted(proxy)
    sender, receiver = ((client, server), (server, client))[way]
    frame = sender.segment("PA", b"x" * 900)
    proxy.burst(frame, port=sender.port)
    came = receiver.expect("PA", data=b"x" * 900)
    proxy.burst(error(came.frame, 3, 4, ROUTER, mtu=800), port=receiver.port)
    [told] = proxy.taken_others(sender.port)
    outer, icmp, quote = read_error(told)
    assert (outer.src, icmp.type, icmp.code, icmp.nexthopmtu) == (ROUTER, 3, 4, 800)
    assert quote[12:28] == frame[26:42], "addresses, ports and sequence number are the sender's"


@pytest.mark.parametrize("agreed", [list(chosen) for count in range(3)
                                    for chosen in itertools.combinations(SACK + STAMPS, count)], ids=str)
def test_a_target_that_declines_some_options_in_a_shifted_connection(proxy, agreed):
    client, server, answer = shifted(proxy, SACK + STAMPS + scale(5), agreed)
    theirs = stamped(90, 0) if "Timestamp" in dict(agreed) else []
    server.send("PA", b"answer", options=theirs, window=5000)
    shown = client.expect("PA", seq=1, ack=6, data=b"answer", window=5000 >> 10)
    assert names(shown) == {"Timestamp"}
    client.send("PA", b"thanks", options=stamped(STAMP + 9, option(shown, "Timestamp")[0]), window=10)
    came = server.expect("PA", seq=6, ack=7, data=b"thanks", window=10 << 5)
    assert names(came) == {name for name, _ in agreed} - {"SAckOK"}


def test_a_refusal_then_a_target_that_declines_all_then_a_late_answer_of_the_first(proxy):
    client = proxy.client()
    client.send("S", options=SACK + STAMPS + scale(7), mss=1460)
    answer = client.expect("SA")
    stamps = stamped(STAMP + 1, option(answer, "Timestamp")[0])
    client.send("A", options=stamps)
    client.send("PA", b"hello", options=stamps)
    first = proxy.accept("a")
    first.send("RA", seq=0, ack=1)
    second = proxy.accept("b", isn=5)
    second.send("SA", mss=100)
    got = b"".join(segment.data for segment in proxy.received.pop((second.own, second.other)))
    assert got == b"hello"
    second.send("A", ack=6)
    assert names(client.expect("A", seq=1, ack=6)) == {"Timestamp"}
    first.send("SA", seq=0, ack=1)
    first.expect("R", seq=1)
    assert proxy.states() == {"established": 1}


@pytest.mark.parametrize("side", [0, 1])
def test_path_mtu_discovery_passes_a_connection_in_mode_simple(proxy, side):
    client = proxy.client(SIMPLE)
    client.send("S", options=SACK + STAMPS)
    server = proxy.accept("a")
    server.send("SA", options=SACK + STAMPS)
    client.expect("SA")
    client.send("A")
    server.expect("A")
    sender, receiver = ((client, server), (server, client))[side]
    frame = sender.segment("PA", b"x" * 1000)
    proxy.burst(frame, port=sender.port)
    came = receiver.expect("PA", data=b"x" * 1000)
    proxy.burst(error(came.frame, 3, 4, ROUTER, mtu=900), port=receiver.port)
    [told] = proxy.taken_others(sender.port)
    _, icmp, quote = read_error(told)
    assert icmp.nexthopmtu == 900 and quote[12:28] == frame[26:42]


@pytest.mark.parametrize("declined", [False, True])
def test_a_connection_opened_anew_in_time_wait_knows_nothing_of_the_old_one(proxy, declined):
    client = proxy.client(FEW)
    server = connect(proxy, client, b"old", "few")
    close(server, client)
    again = proxy.client(FEW, port=client.own[1], isn=client.isn + 5000)
    again.send("S", options=SACK + STAMPS + scale(3), mss=1000)
    answer = again.expect("SA", ack=1)
    stamps = stamped(STAMP + 1, option(answer, "Timestamp")[0])
    again.send("A", options=stamps)
    again.send("PA", b"new", options=stamps)
    other = proxy.accept("few")
    assert (other.own, other.other) != (server.own, server.other) and other.own == TARGETS["few"]
    other.send("SA", options=[] if declined else [*SACK, ("Timestamp", (7, STAMP)), *scale(2)])
    other.expect("PA", seq=1, ack=1, data=b"new")
    other.send("PA", b"fresh", ack=4, options=[] if declined else stamped(8, STAMP))
    again.expect("PA", seq=1, ack=4, data=b"fresh")
