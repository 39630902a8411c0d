"""A select kernel may rewrite what is held (SPLICE 5.3): the target gets what was chosen by, and nothing else."""
import pytest

from tcp.payload_services import SELECT_PORT, SELECTS, services
from tcp.proxy import HELD_BYTES, close, handshake

SERVICES = services()
RENAME, CUT_SHORT, SHOUT, TOO_MUCH = (SELECT_PORT + place for place in range(len(SELECTS)))
RENAME_AND_SWELL = SELECT_PORT + len(SELECTS)


def settings(**chosen):
    """Marks a test to get a `proxy` whose services have select kernels that rewrite."""
    return pytest.mark.parametrize("proxy", [{"services": SERVICES, **chosen}], indirect=True, ids=[""])


def rewritten(proxy, port, data, made, target="a", **fields):
    """Opens a connection whose first payload `data` becomes `made`; returns both Ends before the target has answered."""
    client = proxy.client(port, **fields)
    handshake(client)
    client.send("PA", data)
    client.expect("A", seq=1, ack=1 + len(data))
    return client, proxy.accept(target)


@settings()
@pytest.mark.parametrize("port, data, made", [(RENAME, b"hello", b"renamed hello"), (CUT_SHORT, b"hello", b"h")])
def test_rule_5_3_the_target_gets_the_rewritten_payload(proxy, port, data, made):
    client, server = rewritten(proxy, port, data, made, isn=2**32 - 3)
    server.send("SA", mss=1460)
    server.expect("PA", seq=1, ack=1, data=made)
    client.send("PA", b" there")
    server.expect("PA", seq=1 + len(made), ack=1, data=b" there")
    server.send("A", ack=1 + len(made))
    client.expect("A", seq=1, ack=1 + len(data))
    server.send("PA", b"yes", ack=7 + len(made))
    client.expect("PA", seq=1, ack=7 + len(data), data=b"yes")
    client.seq, client.ack, server.seq, server.ack = 7 + len(data), 4, 4, 7 + len(made)
    close(client, server)
    proxy.wait(2.1)
    assert proxy.records()[0]["octets"] == {"client": 6 + len(data), "target": 3}


@settings()
def test_rule_5_3_an_acknowledgement_inside_what_was_rewritten_shows_none_below_ours(proxy):
    client, server = rewritten(proxy, RENAME, b"hello", b"renamed hello")
    server.send("SA", mss=1460)
    server.expect("PA", seq=1, ack=1, data=b"renamed hello")
    for acknowledged in (1, 5, 9):
        server.send("PA", b"x", seq=acknowledged, ack=acknowledged)
        client.expect("PA", data=b"x", ack=6)


@settings()
def test_rule_5_3_nothing_of_the_original_reaches_the_target(proxy):
    client, server = rewritten(proxy, RENAME, b"secret", b"renamed secret")
    client.send("PA", b"secret", seq=1)
    client.send("PA", b"SECRET", seq=1)
    server.send("SA", mss=1460)
    server.expect("PA", seq=1, ack=1, data=b"renamed secret")
    client.send("PA", b"secret", seq=1)
    client.send("PA", b"cre", seq=3)
    proxy.silent()
    assert proxy.drops() == {"held_already": 4}
    server.send("A", ack=15)
    client.expect("A", ack=7)
    proxy.wait(1)
    proxy.silent()


@settings()
def test_rule_5_3_what_comes_while_connecting_is_held_behind(proxy):
    client, server = rewritten(proxy, RENAME, b"one", b"renamed one")
    client.send("PA", b" two")
    client.send("FPA", b" three")
    server.send("SA", mss=1460)
    server.expect("FPA", seq=1, ack=1, data=b"renamed one two three")
    server.send("A", ack=23)
    client.expect("A", seq=1, ack=15)


@settings()
def test_rule_5_3_rewriting_is_sent_again_until_it_is_acknowledged(proxy):
    client, server = rewritten(proxy, RENAME, b"hello", b"renamed hello")
    server.send("SA", mss=1460)
    for _ in range(2):
        server.expect("PA", seq=1, ack=1, data=b"renamed hello")
        proxy.wait(1)
    while proxy.received[server.own, server.other]:
        server.expect("PA", seq=1, ack=1, data=b"renamed hello")


@settings()
def test_rule_5_3_another_target_gets_the_same_and_select_does_not_rewrite_twice(proxy):
    client, server = rewritten(proxy, RENAME, b"hello", b"renamed hello")
    server.send("RA", seq=0, ack=1)
    second = proxy.accept("b")
    client.send("PA", b"hello", seq=1)
    second.send("SA", mss=1460)
    second.expect("PA", seq=1, ack=1, data=b"renamed hello")


@settings()
def test_rule_5_3_a_change_in_place_needs_no_acknowledgement_and_is_made_once(proxy):
    client = proxy.client(SHOUT)
    handshake(client)
    client.send("PA", b"abc")
    first = proxy.accept("a")
    first.send("RA", seq=0, ack=1)
    second = proxy.accept("b")
    second.send("SA", mss=1460)
    second.expect("PA", seq=1, ack=1, data=b"ABC")
    second.send("A", ack=4)
    client.expect("A", ack=4)


@settings()
def test_rule_5_3_need_more_rewrites_nothing(proxy):
    client = proxy.client(RENAME)
    handshake(client)
    client.send("PA", b"?12")
    client.expect("A", seq=1, ack=4)
    client.send("PA", b"3")
    client.expect("A", seq=1, ack=5)
    server = proxy.accept("a")
    server.send("SA", mss=1460)
    server.expect("PA", seq=1, ack=1, data=b"renamed ?123")


@settings()
def test_rule_5_3_all_of_it_may_be_deleted(proxy):
    client, server = rewritten(proxy, CUT_SHORT, b"-gone", b"")
    server.send("SA", mss=1460)
    server.expect("A", seq=1, ack=1)
    client.send("PA", b"kept")
    server.expect("PA", seq=1, ack=1, data=b"kept")
    server.send("A", ack=5)
    client.expect("A", ack=10)
    assert proxy.state_of(client) == "established"


@settings()
def test_rule_5_3_a_fin_is_delivered_behind_what_is_left(proxy):
    client = proxy.client(CUT_SHORT)
    handshake(client)
    client.send("FPA", b"-gone")
    client.expect("A", seq=1, ack=6)
    server = proxy.accept("a")
    server.send("SA", mss=1460)
    server.expect("FA", seq=1, ack=1)
    server.send("A", ack=2)
    client.expect("A", ack=7)


@settings()
def test_rule_5_3_more_than_there_is_room_for_leaves_all_as_it_was(proxy):
    client = proxy.client(TOO_MUCH)
    handshake(client)
    client.send("PA", b"hello")
    server = proxy.accept("a")
    server.send("SA", mss=1460)
    server.expect("PA", seq=1, ack=1, data=b"hello")
    assert proxy.count("payload_kernel_errors") == 1


@settings()
def test_rule_5_3_a_payload_kernel_sees_what_select_has_made(proxy):
    client, server = rewritten(proxy, RENAME_AND_SWELL, b"what", b"renbcdmed whbcdt")
    server.send("RA", seq=0, ack=1)
    server = proxy.accept("b")
    server.send("SA", mss=1460)
    server.expect("PA", seq=1, ack=1, data=b"renbcdmed whbcdt")
    client.send("PA", b"a")
    server.expect("PA", seq=17, ack=1, data=b"bcd")
    server.send("A", ack=20)
    client.expect("A", ack=6)


@settings()
def test_a_rewritten_payload_may_be_longer_than_what_is_held(proxy):
    data = b"x" * HELD_BYTES
    client, server = rewritten(proxy, RENAME, data, b"renamed " + data)
    server.send("SA", mss=1460)
    server.expect("PA", seq=1, ack=1, data=b"renamed " + data)
