"""Explicit congestion notification, agreed like the other options and translated (SPLICE 2.2; RFC 3168), on virtual time."""
import pytest

from tcp.negotiated import names
from tcp.proxy import FEW, NUMBER, TURNS, handshake

ECT0, CE = 2, 3


def opened(proxy, flags="SEC", service=NUMBER):
    """Returns a client whose SYN has these flags, and the SYN-ACK it got; its handshake is complete."""
    client = proxy.client(service)
    client.send(flags, mss=1460)
    waiting = proxy.received[client.own, client.other]
    answer = client.expect(waiting[0].flags, seq=0, ack=1)
    client.send("A")
    return client, answer


def connecting(proxy, flags="SEC"):
    """Returns such a client with a payload held, and the target's End with our SYN still to be taken."""
    client, _ = opened(proxy, flags)
    client.send("PA", b"0", tos=ECT0)
    [syn] = [segments[0] for segments in proxy.received.values() if segments and "S" in segments[0].flags]
    return client, syn


def accepted(proxy, syn, agrees):
    """Returns the target's End after its SYN-ACK."""
    server = proxy.accept("a", flags=syn.flags)
    server.send("SAE" if agrees else "SA", mss=1460)
    return server


def spliced(proxy, agrees):
    """Returns client and target of a connection whose client was promised ECN."""
    client, syn = connecting(proxy)
    server = accepted(proxy, syn, agrees)
    held = server.expect("PA", seq=1, data=b"0", tos=0)
    assert held.tos == 0
    server.send("A")
    client.expect("A")
    return client, server


@pytest.mark.parametrize("flags, answered, offered", [("SEC", "SAE", "SEC"), ("S", "SA", "S"), ("SE", "SA", "S"),
                                                      ("SC", "SA", "S")])
def test_rule_2_2_ecn_is_promised_where_it_is_offered_and_offered_where_it_was_promised(proxy, flags, answered, offered):
    client = proxy.client(NUMBER)
    client.send(flags, mss=1460)
    client.expect(answered, seq=0, ack=1, tos=0)
    client.send("A")
    client.send("PA", b"0")
    server = proxy.accept("a", flags=offered)
    server.send("SA", mss=1460)
    server.expect("PA", data=b"0")


def test_rule_2_2_marks_pass_where_both_agree(proxy):
    client, server = spliced(proxy, True)
    for tos in (0x28 | ECT0, 0x28 | CE):
        client.send("PA", b"x", tos=tos)
        server.expect("PA", data=b"x", tos=tos)
    server.send("AE")
    client.expect("AE")
    client.send("PAC", b"y", tos=ECT0)
    server.expect("PAC", data=b"y", tos=ECT0)
    server.send("PA", b"z", tos=CE)
    client.expect("PA", data=b"z", tos=CE)
    client.send("AE")
    server.expect("AE")
    assert proxy.count("split") == 0


@pytest.mark.parametrize("tos", [0, ECT0, 1, CE, 0xB8 | CE])
@pytest.mark.parametrize("flags, passed", [("A", "A"), ("AE", "A"), ("PAC", "PA"), ("PAEC", "PA"), ("FAE", "FA")])
def test_rule_2_2_marks_are_cleared_toward_a_target_that_declines(proxy, tos, flags, passed):
    client, server = spliced(proxy, False)
    client.send(flags, b"marked", tos=tos)
    server.expect(passed, data=b"marked", tos=tos & 0xFC, intact=True)


def test_rule_2_2_a_target_that_declines_shows_the_client_no_echo(proxy):
    client, server = spliced(proxy, False)
    server.send("PAEC", b"odd")
    client.expect("PA", data=b"odd")


def test_rule_2_2_a_corrupt_segment_stays_corrupt_when_marks_are_cleared(proxy):
    client, server = spliced(proxy, False)
    client.send("PAE", b"bits", tos=CE, corrupt=True)
    server.expect("PA", data=b"bits", tos=0, intact=False)


def test_rule_2_2_what_a_target_declines_is_not_promised_again(proxy):
    spliced(proxy, False)
    for service, flags in ((NUMBER, "SA"), (TURNS, "SA"), (FEW, "SAE")):
        client, answer = opened(proxy, service=service)
        assert answer.flags == flags
        client.send("R")


def test_rule_2_2_the_syn_goes_without_ecn_after_the_second_time_out(proxy):
    client, syn = connecting(proxy)
    server = proxy.accept("a", flags="SEC")
    proxy.wait(1.05)
    server.expect("SEC", seq=0)
    proxy.wait(2.05)
    server.expect("S", seq=0)
    server.send("SA", mss=1460)
    server.expect("PA", data=b"0")
    server.send("A")
    client.expect("A")
    client.send("PAC", b"x", tos=CE)
    server.expect("PA", data=b"x", tos=0)
    other, answer = opened(proxy)
    assert answer.flags == "SAE", "it was not asked, so it has not declined"
    other.send("R")


def test_rule_2_2_a_client_that_gives_ecn_up_is_not_promised_it(proxy):
    client = proxy.client(NUMBER)
    client.send("SEC", seq=0)
    client.expect("SAE", seq=0, ack=1)
    client.send("S", seq=0)
    client.expect("SA", seq=0, ack=1)
    client.send("R", seq=1)


def test_rule_2_2_held_bytes_sent_again_are_not_marked(proxy):
    client, syn = connecting(proxy)
    server = accepted(proxy, syn, True)
    server.expect("PA", data=b"0", tos=0)
    proxy.wait(0.35)
    server.expect("PA", seq=1, data=b"0", tos=0)


def test_rule_2_2_no_option_says_ecn(proxy):
    client, answer = opened(proxy)
    assert names(answer) == {"MSS"}
    client.send("R")
    handshake(proxy.client())


@pytest.mark.parametrize("agrees", [True, False])
def test_rule_2_2_a_mark_on_held_bytes_goes_on_to_a_target_that_agrees_once(proxy, agrees):
    client, _ = opened(proxy)
    client.send("A", b"0", tos=CE)
    server = proxy.accept("a", flags="SEC")
    client.send("PA", b"12", tos=0x28 | ECT0)
    server.send("SAE" if agrees else "SA", mss=1460, window=1)
    server.expect("A", seq=1, data=b"0", tos=CE if agrees else 0)
    server.send("A", window=100)
    server.expect("PA", seq=2, data=b"12", tos=0)
    proxy.received.clear()


def test_rule_2_2_a_mark_is_not_passed_on_where_the_client_was_promised_no_ecn(proxy):
    client, _ = opened(proxy, "S")
    client.send("PA", b"0", tos=CE)
    server = proxy.accept("a", flags="S")
    server.send("SA", mss=1460)
    server.expect("PA", data=b"0", tos=0)
