"""SPLICE 3: connecting to the target, those that fail, and source ports. One test a clause."""
import pytest

from tcp.negotiated import SACK, STAMP, STAMPS, names, offer, option, peek, scale, stamped
from tcp.proxy import FEW, TARGETS, TURNS, close, connect, handshake, settings


def held(proxy, service=TURNS, data=b"hello"):
    """Returns a client whose first payload is held, since its target has not answered."""
    client = proxy.client(service)
    handshake(client)
    client.send("PA", data)
    return client


def tried(proxy, but=()):
    """Returns the names of the targets, but for those in `but`, to which a SYN is waiting."""
    return [name for name, endpoint in TARGETS.items() if name not in but
            and any(to == endpoint and segments and segments[0].flags == "S" for (to, _), segments in proxy.received.items())]


def next_target(proxy, but=()):
    """Returns the name and End of the next target that gets a SYN, of those not in `but`."""
    found = tried(proxy, but)
    assert found, f"no other target is tried; waiting: {proxy.waiting()}"
    return found[0], proxy.accept(found[0], isn=900_000 + len(but))


def until_the_next_is_tried(proxy, but):
    """Lets time pass while the target `but` is silent."""
    for _ in range(700):
        proxy.wait(0.1)
        if tried(proxy, (but,)):
            return


def refuse(server):
    """Answers the SYN with a RST."""
    server.send("RA", seq=0, ack=1)


def test_rule_3_1_a_refusing_target_is_replaced_and_the_client_notices_nothing(proxy):
    client = held(proxy)
    first, server = next_target(proxy)
    refuse(server)
    client.nothing()
    second, other = next_target(proxy, (first,))
    other.send("SA")
    other.expect("PA", seq=1, ack=1, data=b"hello")
    other.send("A")
    client.expect("A", seq=1, ack=6)
    other.send("PA", b"answer")
    client.expect("PA", seq=1, ack=6, data=b"answer")
    server.nothing()


def test_rule_3_1_a_silent_target_is_replaced(proxy):
    held(proxy)
    first, server = next_target(proxy)
    until_the_next_is_tried(proxy, first)
    second, other = next_target(proxy, (first,))
    other.send("SA")
    other.expect("PA", seq=1, ack=1, data=b"hello")
    proxy.received.clear()


def test_rule_3_1_after_a_number_of_failures_the_client_gets_a_rst(proxy):
    client = held(proxy)
    failed = []
    while not proxy.received[client.own, client.other]:
        name, server = next_target(proxy, failed)
        refuse(server)
        failed.append(name)
    client.expect("RA", seq=1, ack=6)
    assert 2 <= len(failed) == len(set(failed)) <= 3 and proxy.states() == {}


def test_rule_3_1_after_the_first_held_byte_no_other_target_is_tried(proxy):
    client = held(proxy)
    first, server = next_target(proxy)
    server.send("SA")
    server.expect("PA", data=b"hello")
    server.send("RA", seq=1, ack=1)
    client.expect("RA")
    proxy.wait(5)
    proxy.silent()
    assert proxy.states() == {}


def test_rule_3_1_a_target_that_resets_before_any_held_byte_was_sent_is_replaced(proxy):
    client = proxy.client(TURNS)
    handshake(client)
    client.send("PA", b"hello")
    server = proxy.accept("a")
    server.send("SA", window=0)
    proxy.received.pop((server.own, server.other), None)
    server.send("R", seq=1)
    client.nothing()
    other = proxy.accept("b", isn=99)
    other.send("SA")
    other.expect("PA", seq=1, ack=1, data=b"hello")


def test_rule_3_1_a_late_syn_ack_of_a_target_given_up_gets_a_rst(proxy):
    client = held(proxy)
    first, server = next_target(proxy)
    until_the_next_is_tried(proxy, first)
    second, other = next_target(proxy, (first,))
    proxy.received.pop((server.own, server.other), None)
    server.send("SA", seq=0, ack=1)
    server.expect("R", seq=1)
    other.send("SA")
    other.expect("PA", data=b"hello")
    client.nothing()


def test_rule_3_1_the_port_of_a_target_given_up_stays_reserved_until_its_late_syn_ack(proxy):
    client = held(proxy, FEW)
    server = proxy.accept("few")
    for _ in range(700):
        proxy.wait(0.1)
        if proxy.received[client.own, client.other]:
            break
    proxy.received.clear()
    used = []
    for _ in range(2):
        held(proxy, FEW)
        used.append(proxy.accept("few").other[1])
    assert server.other[1] not in used


@pytest.mark.parametrize("failures", [1, 2])
def test_rule_3_1_the_first_to_accept_gets_everything_held_meanwhile(proxy, failures):
    client = held(proxy, data=b"one ")
    failed = []
    for _ in range(failures):
        name, server = next_target(proxy, failed)
        failed.append(name)
        client.send("PA", b"more ")
        refuse(server)
    name, server = next_target(proxy, failed)
    server.send("SA")
    server.expect("PA", seq=1, ack=1, data=b"one " + b"more " * failures)


def test_rule_3_1_a_client_that_has_closed_meanwhile_is_served_by_the_next_target(proxy):
    client = held(proxy)
    name, server = next_target(proxy)
    client.send("FA")
    refuse(server)
    name, server = next_target(proxy, (name,))
    server.send("SA")
    server.expect("FPA", seq=1, ack=1, data=b"hello")


def test_rule_3_1_the_options_promised_are_offered_to_the_next_target_too(proxy):
    client, answer = offer(proxy, SACK + STAMPS + scale(7), service=TURNS)
    client.send("PA", b"hello", options=stamped(STAMP + 2, 0))
    first, server = next_target(proxy)
    refuse(server)
    [second] = tried(proxy, (first,))
    assert names(peek(proxy, second)) == names(answer)
    name, server = next_target(proxy, (first,))
    server.send("SA", options=[("Timestamp", (5, STAMP))])
    server.expect("PA", data=b"hello")


def test_rule_3_1_each_end_of_a_failed_connection_has_its_own_release_cause(proxy):
    client = held(proxy, FEW)
    refuse(proxy.accept("few"))
    client.expect("RA", seq=1, ack=6)
    [record] = proxy.records()
    assert record["release"]["client"] == "ActiveRst" and record["release"]["target"] not in ("ActiveRst", "Unknown")


def test_rule_3_2_a_four_tuple_used_again_soon_has_higher_numbers(proxy):
    last, seen = {}, 0
    for turn in range(7):
        client = proxy.client(FEW, isn=5000 - 600 * turn)
        handshake(client)
        client.send("PA", b"hello" * 20)
        syn = peek(proxy, "few")
        port = syn.source[1]
        server = proxy.accept("few")
        if port in last:
            seen += 1
            assert 0 < (syn.seq - last[port]) % 2**32 < 2**31, "our initial number lies above the last that was used"
        server.send("SA")
        server.expect("PA", seq=1, ack=1, data=b"hello" * 20)
        server.send("A")
        client.expect("A", ack=101)
        close(server, client)
        last[port] = (server.other_isn + 102) % 2**32
        proxy.wait(2.1)
    assert seen >= 3


@pytest.mark.parametrize("flags", ["A", "FPA"])
def test_rule_3_2_the_clients_direction_is_shifted_where_the_initial_number_was_raised(proxy, flags):
    for turn in range(4):
        client = proxy.client(FEW, isn=50_000 - 10_000 * turn)
        server = connect(proxy, client, b"hello", "few")
        server.send("PA", b"answer")
        client.expect("PA", seq=1, ack=6, data=b"answer")
        client.send("A")
        server.expect("A", seq=6, ack=7)
        client.send("PA", b"more")
        server.expect("PA", seq=6, ack=7, data=b"more")
        server.send("A")
        client.expect("A", ack=10)
        close(server, client)
        proxy.wait(2.1)


def test_rule_3_2_tsvals_lie_above_the_last_ones_used_too(proxy):
    last = {}
    for turn in range(7):
        start = STAMP - 10_000 * turn
        client = proxy.client(FEW)
        client.send("S", options=[("Timestamp", (start, 0))])
        shown = option(client.expect("SA"), "Timestamp")[0]
        client.send("A", options=stamped(start + 1, shown))
        client.send("PA", b"hello", options=stamped(start + 2, shown))
        syn = peek(proxy, "few")
        server = proxy.accept("few")
        port = server.other[1]
        if port in last:
            assert 0 <= (option(syn, "Timestamp")[0] - last[port]) % 2**32 < 2**31
        server.send("SA", options=[("Timestamp", (77, option(syn, "Timestamp")[0]))])
        server.expect("PA", seq=1, ack=1, data=b"hello")
        server.send("A", options=stamped(78, 0))
        shown = client.expect("A", ack=6)
        client.send("PA", b"more", options=stamped(start + 500, option(shown, "Timestamp")[0]))
        came = server.expect("PA", data=b"more")
        last[port] = option(came, "Timestamp")[0]
        server.send("A", options=stamped(79, last[port]))
        assert option(client.expect("A", ack=10), "Timestamp")[1] == start + 500, "the client gets its own TSval back"
        client.send("RA", options=stamped(start + 501, 0))
        server.expect("RA")


def test_rule_3_2_a_bare_ack_gets_a_rst_and_the_syn_again(proxy):
    held(proxy, FEW)
    server = proxy.accept("few")
    server.send("A", seq=5, ack=12345)
    server.expect("R", seq=12345)
    server.expect("S", seq=0)
    server.seq = 0
    server.send("SA")
    server.expect("PA", seq=1, ack=1, data=b"hello")


def test_rule_3_2_a_bare_ack_in_an_old_connections_window_does_not_stop_us(proxy):
    """A target that still has the old connection in LAST_ACK or ESTABLISHED (we were killed): RFC 9293, 3.5.1."""
    held(proxy, FEW)
    server = proxy.accept("few")
    for _ in range(2):
        server.send("A", seq=5000, ack=-70_000)
        server.expect("R", seq=-70_000)
        server.expect("S", seq=0)
    server.seq = 0
    server.send("SA")
    server.expect("PA", seq=1, ack=1, data=b"hello")


@settings(connections=2048, held_connections=512, timeouts={"time_wait": 60})
def test_rule_3_2_targets_that_close_first_leave_our_ports_free_for_a_thousand_a_second(proxy):
    """3 ports at 30 a second: as 100 at 1,000."""
    for turn in range(90):
        client = proxy.client(FEW, isn=turn * 7919)
        server = connect(proxy, client, b"hello", "few", isn=turn * 104729)
        close(server, client)
        proxy.wait(0.033)
    assert proxy.count("source_ports_exhausted") == 0


def test_rule_3_1_the_syn_is_retransmitted_with_back_off_and_a_cap(proxy):
    client = held(proxy, FEW)
    server = proxy.accept("few")
    came = []
    for _ in range(1200):
        proxy.wait(0.1)
        while proxy.received[server.own, server.other] and proxy.received[server.own, server.other][0].flags == "S":
            server.expect("S", seq=0)
            came.append(proxy.now / 1_000_000)
    assert 2 <= len(came) <= 8 and came[-1] < 60
    assert came[2] - came[1] >= 1.8 * (came[1] - came[0])
    client.expect("RA", seq=1, ack=6)
    proxy.received.clear()
    assert proxy.states() == {}


def test_rule_3_2_source_ports_are_taken_oldest_first_for_each_target(proxy):
    used = []
    for _ in range(6):
        client = proxy.client(FEW)
        handshake(client)
        client.send("PA", b"hello")
        used.append(proxy.accept("few").other[1])
        client.send("R")
        proxy.received.clear()
    assert used[:3] == used[3:] and len(set(used)) == 3
