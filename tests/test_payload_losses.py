"""Whole connections through payload kernels, over networks that lose, double, delay and corrupt (SPLICE 5.1, 5.2)."""
import random

import pytest

from ldap_messages import bind, element, message, search
from peers.payload_twins import TWINS
from tcp.payload_services import PAIRS, port_of, rules_port, services
from test_tcp_losses import travel

ALPHABET = b"aaax0123456789 the quick brown fox\n"
SERVICES = services()
LENGTHS = ((3000, 3000), (900, 4000))


def text(dice, length):
    """Returns bytes of which kernels change many, in runs and alone."""
    parts = [bytes(dice.choices(ALPHABET, k=dice.choice((1, 5, 60)))) for _ in range(length)]
    return b"".join(part * dice.choice((1, 1, 8)) for part in parts)[:length]


@pytest.mark.parametrize("proxy", [{"services": SERVICES}], indirect=True, ids=[""])
@pytest.mark.parametrize("immediate", [False, True], ids=["delayed", "immediate"])
@pytest.mark.parametrize("odds", [0, 0.1, 0.3])
@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_rule_5_1_both_streams_are_what_the_kernels_make_of_the_whole(proxy, pair, odds, immediate):
    dice = random.Random(f"{pair} {odds} {immediate}")
    for lengths in LENGTHS:
        to_send, to_answer = (text(dice, length) for length in lengths)
        client = proxy.client(port_of(pair, immediate), isn=dice.choice((2**32 - 500, dice.randrange(2**32))))
        ends = travel(proxy, client, to_send, to_answer, dice, odds)
        assert ends[1].got == TWINS[pair[0]](to_send) and ends[0].got == TWINS[pair[1]](to_answer)
        assert ends[0].done and ends[1].done and not ends[0].reset and not ends[1].reset
        proxy.wait(70, 1)
        proxy.received.clear()
        [record] = proxy.records()
        assert record["octets"] == {"client": len(to_send), "target": len(to_answer)}
        assert proxy.states() == {} and proxy.state.connections.shaped.edits.used[0] == 0


def ldap_stream(length):
    """Returns a bind and so many searches, and what `ldap_guard` makes of them, its lengths in four octets each."""
    honest, asked = message(1, bind(b"cn=me", b"secret")), search(b"cn=x,dc=a,dc=org")
    rest, base = b"\x0a\1\2", b"cn=x,ou=people,dc=example,dc=com"
    led = element(0x30, b"\2\1\2" + element(0x63, element(4, base, 4) + rest, 4), 4)
    return honest + length * message(2, asked), honest + length * led


RULED = {"limit": (b"a day " * 300, b"xyz dxyzy " * 300), "ldap": ldap_stream(40),
         "header": (b"GET / HTTP/1.1\r\n" + b"x" * 900, b"GET / HTTP/1.1\r\nX-Via: proxy\r\n" + b"x" * 900)}


@pytest.mark.parametrize("proxy", [{"services": SERVICES}], indirect=True, ids=[""])
@pytest.mark.parametrize("odds", [0, 0.1, 0.3])
@pytest.mark.parametrize("name", RULED)
def test_rule_5_1_payload_rules_make_the_same_of_a_stream_whatever_is_lost(proxy, name, odds):
    to_send, made = RULED[name]
    for seed in range(3):
        dice = random.Random(f"{name} {odds} {seed}")
        ends = travel(proxy, proxy.client(rules_port(name), isn=2**32 - 50), to_send, b"well", dice, odds)
        assert ends[1].got == made and ends[0].got == b"well" and ends[0].done and ends[1].done
        proxy.wait(70, 1)
        proxy.received.clear()
        assert proxy.states() == {} and proxy.state.connections.shaped.edits.used[0] == 0
    assert name != "limit" or proxy.count("payload_shown_again") > 0
