"""ACK storms are cut, and nothing that only looks like one (SPLICE 4.3), on virtual time."""
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kernel_bed import generated
from pipeline.kernels import ack_storm
from pipeline.kernels.connection import CLIENT, COLD, HOT, TARGET
from pipeline.kernels.jit import kernel
from tcp.negotiated import SACK, agree
from tcp.proxy import NUMBER, connect, settings

MOST = 32


def spliced(proxy):
    """Returns client and target of a connection at rest."""
    client = proxy.client(NUMBER)
    return client, connect(proxy, client, b"0 hello")


def passed(proxy, sender, receiver, **fields):
    """Sends a bare acknowledgement; says whether it came out."""
    sender.send("A", **fields)
    came = proxy.received.pop((receiver.own, receiver.other), ())
    return len(came) == 1


def storm(proxy, client, server, rounds, pause=0.001):
    """The two ends answer each other with duplicates; returns how many came through."""
    through = 0
    for _ in range(rounds):
        for sender, receiver in ((client, server), (server, client)):
            through += passed(proxy, sender, receiver)
            proxy.wait(pause, pause)
    return through


def test_rule_4_3_a_storm_is_cut_and_counted(proxy):
    client, server = spliced(proxy)
    through = storm(proxy, client, server, 100)
    assert MOST <= through <= MOST + 4
    assert proxy.drops() == {"ack_storm": 200 - through}
    assert proxy.state_of(client) == "established"


def test_rule_4_3_after_a_second_acknowledgements_pass_again(proxy):
    client, server = spliced(proxy)
    storm(proxy, client, server, 60)
    before = proxy.count("ack_storm")
    proxy.wait(1)
    assert storm(proxy, client, server, 10) == 20 and proxy.count("ack_storm") == before > 0


def test_rule_4_3_slow_duplicates_of_both_sides_pass_for_ever(proxy):
    client, server = spliced(proxy)
    assert storm(proxy, client, server, 100, pause=0.04) == 200


def test_rule_4_3_duplicates_that_ask_for_a_fast_retransmission_pass(proxy):
    client, server = spliced(proxy)
    for sender, receiver in ((server, client), (client, server)):
        assert sum(passed(proxy, sender, receiver) for _ in range(300)) == 300
    assert proxy.drops() == {}


def test_rule_4_3_payload_meanwhile_starts_the_count_anew(proxy):
    client, server = spliced(proxy)
    for _ in range(10):
        assert storm(proxy, client, server, 10) == 20
        client.send("PA", b"payload")
        server.expect("PA", data=b"payload")
    assert proxy.drops() == {}


def test_rule_4_3_payload_in_a_storm_passes_and_ends_it(proxy):
    client, server = spliced(proxy)
    storm(proxy, client, server, 60)
    server.send("PA", b"answer")
    client.expect("PA", data=b"answer")
    assert passed(proxy, client, server) and passed(proxy, server, client)


def test_rule_4_3_acknowledgements_with_selective_blocks_pass(proxy):
    client, server, *_ = agree(proxy, SACK, SACK)
    server.send("A", ack=8)
    client.expect("A", ack=8)
    for _ in range(100):
        for sender, receiver in ((client, server), (server, client)):
            block = (sender.other_isn + 100, sender.other_isn + 200)
            assert passed(proxy, sender, receiver, options=[("NOP", None), ("NOP", None), ("SAck", block)])
    assert proxy.drops() == {}


def test_rule_4_3_keep_alives_of_both_sides_and_their_answers_pass(proxy):
    client, server = spliced(proxy)
    for _ in range(100):
        for sender, receiver in ((client, server), (server, client)):
            assert passed(proxy, sender, receiver, seq=sender.seq - 1)
            if sender is client:
                assert passed(proxy, receiver, sender)
    assert proxy.drops() == {}


def test_rule_4_3_probes_of_a_closed_window_and_their_answers_pass(proxy):
    client, server = spliced(proxy)
    for _ in range(100):
        assert passed(proxy, client, server, seq=client.seq - 1)
        assert passed(proxy, server, client, window=0)
    assert proxy.drops() == {}


def test_rule_4_3_window_updates_of_both_sides_pass(proxy):
    client, server = spliced(proxy)
    for number in range(1000):
        for sender, receiver in ((client, server), (server, client)):
            assert passed(proxy, sender, receiver, window=1000 + number)
    assert proxy.drops() == {}


def test_rule_4_3_a_storm_of_one_connection_does_not_touch_another(proxy):
    client, server = spliced(proxy)
    other, its_server = spliced(proxy)
    storm(proxy, client, server, 60)
    assert proxy.count("ack_storm") > 0 and passed(proxy, other, its_server) and passed(proxy, its_server, other)


@settings(ack_storm=4)
def test_rule_4_3_the_configuration_says_how_many(proxy):
    client, server = spliced(proxy)
    assert 4 <= storm(proxy, client, server, 20) <= 8


@kernel
def call_is_storm(hot, cold, side, window, most, tick):
    """The kernel on the only records, as the engine calls it."""
    return ack_storm.is_storm(hot[0], cold[0], side, window, most, tick)


@kernel
def call_digest(hot, window):
    """The kernel on the only record, as the engine calls it."""
    return ack_storm.digest(hot[0], window)


EVENTS = st.lists(st.one_of(st.tuples(st.just("duplicate"), st.sampled_from((CLIENT, TARGET))),
                            st.tuples(st.just("progress"), st.integers(1, 3000)),
                            st.tuples(st.just("window"), st.sampled_from((CLIENT, TARGET))),
                            st.tuples(st.just("time"), st.integers(1, 150))), max_size=60)


@generated
@given(EVENTS, st.integers(2, 6))
def test_rule_4_3_a_storm_is_as_many_duplicates_in_turn_within_a_second(events, most):
    hot, cold = np.zeros(1, HOT).view(np.recarray), np.zeros(1, COLD).view(np.recarray)
    tick, count, last, second, known, windows = 100, 0, CLIENT, 0, [None, None], [500, 600]
    for what, value in events:
        if what == "time":
            tick += value
        elif what == "progress":
            hot[0].next[CLIENT] += value
        elif what == "window":
            windows[value] += 1
        else:
            # In 8 bits, as the engine keeps it: by the same function, since what two figures have in common is chance.
            told = int(call_digest(hot, windows[value]))
            anew = tick // 100 != second or told != known[value]
            count = 0 if anew else count + (value != last)
            last, second, known[value] = value, tick // 100, told
            assert call_is_storm(hot, cold, value, windows[value], most, tick) == (not anew and count > most)
