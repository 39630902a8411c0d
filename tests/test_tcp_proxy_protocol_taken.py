"""PROXY protocol, received: taken from trusted sources, acknowledged by us, and told to nobody but those who ask (SPLICE 6.2)."""
import pytest

from tcp.proxied_services import (
    SENDS_BINARY,
    TAKES,
    TAKES_AND_SENDS,
    TAKES_BY_PATH,
    TAKES_FIRST,
    TAKES_OR_B,
    UNTRUSTED,
    binary_header,
    services,
    text_header,
)
from tcp.proxy import close, handshake

pytestmark = pytest.mark.parametrize("proxy", [{"services": services()}], indirect=True, ids=[""])
TRUE = {"address": "192.0.2.77", "port": 50077}
MAKERS = pytest.mark.parametrize("maker", [text_header, binary_header])


def opened(proxy, service=TAKES, **fields):
    """Returns a client that is known to us, and still has to say whose connection it is."""
    client = proxy.client(service, **fields)
    handshake(client)
    return client


@MAKERS
def test_the_header_is_acknowledged_and_the_target_sees_what_follows(proxy, maker):
    client = opened(proxy)
    header = maker(client, **TRUE)
    client.send("PA", header + b"hello")
    client.expect("A", seq=1, ack=1 + len(header))
    server = proxy.accept("a")
    assert server.other_isn == client.isn + len(header)
    server.send("SA", mss=1460)
    server.expect("PA", seq=1, ack=1, data=b"hello")
    server.send("A", b"welcome")
    client.expect("A", seq=1, ack=client.seq, data=b"welcome")
    client.send("PA", b"more")
    server.expect("PA", seq=6, ack=8, data=b"more")
    server.send("A")
    client.expect("A", ack=client.seq)
    close(client, server)
    proxy.wait(2.1)
    [record] = proxy.records()
    assert record["client"] == "192.0.2.77:50077" and record["through"] == f"10.1.0.2:{client.own[1]}"


@MAKERS
def test_the_header_alone_is_acknowledged_and_the_payload_waited_for(proxy, maker):
    client = opened(proxy)
    header = maker(client, **TRUE)
    client.send("PA", header)
    client.expect("A", seq=1, ack=1 + len(header))
    proxy.silent()
    client.send("PA", b"hello")
    server = proxy.accept("a")
    server.send("SA", mss=1460)
    server.expect("PA", seq=1, ack=1, data=b"hello")
    server.send("A")
    client.expect("A", ack=client.seq)
    close(client, server)


@MAKERS
def test_a_header_in_single_octets(proxy, maker):
    client = opened(proxy)
    header = maker(client, **TRUE)
    for number in range(len(header)):
        client.send("PA", header[number:number + 1])
        client.expect("A", seq=1, ack=2 + number)
    proxy.silent()
    client.send("PA", b"hello")
    server = proxy.accept("a")
    server.send("SA", mss=1460)
    server.expect("PA", seq=1, ack=1, data=b"hello")
    server.send("A")
    client.expect("A", ack=client.seq)
    assert proxy.count("proxy_headers_taken") == 1


def test_a_header_whose_acknowledgement_was_lost_is_acknowledged_again(proxy):
    client = opened(proxy)
    header = binary_header(client, **TRUE)
    client.send("PA", header)
    client.expect("A", ack=1 + len(header))
    client.send("PA", header, seq=1)
    client.expect("A", seq=1, ack=1 + len(header))
    assert proxy.count("proxy_headers_taken") == 1


def test_where_the_server_speaks_first_the_header_is_waited_for_and_sent_on(proxy):
    client = opened(proxy, TAKES_FIRST)
    proxy.silent()
    header = binary_header(client, **TRUE)
    client.send("PA", header)
    client.expect("A", seq=1, ack=1 + len(header))
    server, sent = proxy.accept("a"), text_header(client, **TRUE)
    assert server.other_isn == client.isn + len(header) - len(sent)
    server.send("SA", mss=1460)
    server.expect("PA", seq=1, ack=1, data=sent)
    server.send("A", b"SSH-2.0")
    client.expect("A", seq=1, ack=client.seq, data=b"SSH-2.0")
    client.send("PA", b"SSH")
    server.expect("PA", seq=1 + len(sent), ack=8, data=b"SSH")
    server.send("A")
    client.expect("A", ack=client.seq)
    close(client, server)


def test_what_was_received_is_sent_on_in_the_other_version(proxy):
    client = opened(proxy, TAKES_AND_SENDS)
    header, sent = text_header(client, **TRUE), binary_header(client, **TRUE)
    client.send("PA", header + b"hello")
    client.expect("A", ack=1 + len(header))
    server = proxy.accept("a")
    server.send("SA", mss=1460)
    server.expect("PA", seq=1, ack=1, data=sent + b"hello")
    server.send("A")
    client.expect("A", ack=client.seq)
    close(client, server)


def test_a_select_kernel_sees_the_payload_behind_it(proxy):
    client = opened(proxy, TAKES_BY_PATH)
    header = binary_header(client, **TRUE, more=b"\x03\0\x04\1\2\3\4")
    client.send("PA", header + b"GET /b HTTP/1.1\r\n\r\n")
    client.expect("A", ack=1 + len(header))
    proxy.accept("b").send("SA")
    proxy.received.clear()


@pytest.mark.parametrize("header", [b"PROXY UNKNOWN\r\n", b"PROXY TCP6 ::1 ::1 1 2\r\n", b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0",
                                    b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x24" + bytes(36)])
def test_a_header_without_an_address_of_ours_leaves_the_clients_own(proxy, header):
    client = opened(proxy, TAKES_AND_SENDS)
    client.send("PA", header + b"hello")
    client.expect("A", ack=1 + len(header))
    server = proxy.accept("a")
    server.send("SA", mss=1460)
    server.expect("PA", seq=1, ack=1, data=binary_header(client) + b"hello")
    server.send("A")
    client.expect("A", ack=client.seq)


@pytest.mark.parametrize("service", [TAKES, TAKES_OR_B, TAKES_FIRST])
@pytest.mark.parametrize("payload", [b"hello", b"\r\n\r\nGET", b"PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n", b"PROXY " + b"x" * 200])
def test_what_is_no_header_is_reset_whatever_the_default(proxy, service, payload):
    client = opened(proxy, service)
    client.send("PA", payload)
    client.expect("RA", seq=1, ack=1 + len(payload))
    assert proxy.states() == {} and proxy.count("proxy_headers_malformed") == 1


def test_a_header_that_ends_with_the_client_is_reset(proxy):
    client = opened(proxy, TAKES_OR_B)
    client.send("FPA", b"PROXY TCP4 1.2")
    client.expect("RA", seq=1)
    assert proxy.states() == {}


def test_without_its_header_a_client_does_not_get_the_fall_back(proxy):
    client = opened(proxy, TAKES_OR_B)
    client.send("PA", b"PROXY ")
    client.expect("A", ack=7)
    proxy.wait(30.1)
    client.expect("RA", seq=1, ack=7)
    assert proxy.states() == {}


def test_a_header_and_a_fin_behind_it(proxy):
    client = opened(proxy)
    header = binary_header(client, **TRUE)
    client.send("FPA", header)
    client.expect("A", ack=1 + len(header))
    server = proxy.accept("a")
    server.send("SA", mss=1460)
    server.expect("FA", seq=1, ack=1)
    server.send("A")
    client.expect("A", seq=1, ack=client.seq)
    server.send("FA")
    client.expect("FA", seq=1, ack=client.seq)
    client.send("A")
    server.expect("A")


def test_who_is_not_trusted_has_no_header_taken(proxy):
    client = opened(proxy, TAKES, address=UNTRUSTED)
    header = text_header(client, **TRUE)
    client.send("PA", header)
    server = proxy.accept("a")
    server.send("SA", mss=1460)
    server.expect("PA", seq=1, ack=1, data=header)
    server.send("A")
    client.expect("A", ack=client.seq)
    close(client, server)
    proxy.wait(2.1)
    [record] = proxy.records()
    assert record["client"] == f"{UNTRUSTED}:{client.own[1]}" and "through" not in record


def test_a_connection_does_not_inherit_the_header_of_the_one_before(proxy):
    for service, first in ((TAKES, True), (SENDS_BINARY, False)):
        client = opened(proxy, service)
        header = binary_header(client, **TRUE) if first else b""
        client.send("PA", header + b"hello")
        if first:
            client.expect("A", ack=1 + len(header))
        server = proxy.accept("a")
        server.send("SA", mss=1460)
        server.expect("PA", data=b"hello" if first else binary_header(client) + b"hello")
        server.send("RA")
        client.expect("RA")


def test_when_a_target_refuses_the_next_one_gets_what_the_first_would_have(proxy):
    client = opened(proxy, TAKES_AND_SENDS)
    header, sent = text_header(client, **TRUE), binary_header(client, **TRUE)
    client.send("PA", header + b"hello")
    client.expect("A", ack=1 + len(header))
    proxy.accept("a").send("RA", seq=0, ack=1)
    server = proxy.accept("b")
    server.send("SA", mss=1460)
    server.expect("PA", seq=1, ack=1, data=sent + b"hello")
    server.send("A")
    client.expect("A", ack=client.seq)
    close(client, server)
