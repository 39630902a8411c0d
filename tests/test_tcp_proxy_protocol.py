"""PROXY protocol, sent: in numbers below the client's, from the held copy, also where the server speaks first (SPLICE 6.1)."""
import pytest

from tcp.proxied_services import SENDS_BINARY, SENDS_FIRST, SENDS_SHAPED, SENDS_TEXT, binary_header, services, text_header
from tcp.proxy import close, handshake

pytestmark = pytest.mark.parametrize("proxy", [{"services": services()}], indirect=True, ids=[""])
MAKERS = {SENDS_TEXT: text_header, SENDS_BINARY: binary_header}


def begun(proxy, service=SENDS_BINARY, data=b"hello", target="a", **fields):
    """Returns a client, its target that has answered our SYN, and the header that has come there with `data`."""
    client = proxy.client(service, isn=1000)
    handshake(client, **fields)
    client.send("PA", data)
    server = proxy.accept(target)
    server.send("SA", mss=1460, **fields)
    header = MAKERS.get(service, binary_header)(client)
    server.expect("PA", seq=1, ack=1, data=header + data)
    return client, server, header


@pytest.mark.parametrize("service", MAKERS)
def test_the_header_comes_first_and_the_clients_numbers_pass_unchanged(proxy, service):
    client, server, header = begun(proxy, service)
    assert server.other_isn == client.isn - len(header)
    server.send("A", b"welcome")
    client.expect("A", seq=1, ack=6, data=b"welcome")
    client.send("PA", b"more")
    server.expect("PA", seq=6 + len(header), ack=8, data=b"more")
    server.send("A")
    client.expect("A", seq=8, ack=10)
    assert proxy.count("proxy_headers_sent") == 1
    close(client, server)


def test_a_server_that_speaks_first_gets_the_header_at_once(proxy):
    client = proxy.client(SENDS_FIRST)
    handshake(client)
    server, header = proxy.accept("a"), binary_header(client)
    server.send("SA", mss=1460)
    server.expect("PA", seq=1, ack=1, data=header)
    server.send("A", b"SSH-2.0", ack=1)  # it has not taken the header in yet
    client.expect("A", seq=1, ack=1, data=b"SSH-2.0")
    server.send("A")
    client.expect("A", seq=8, ack=1)
    client.send("PA", b"SSH-2.0-client")
    server.expect("PA", seq=1 + len(header), ack=8, data=b"SSH-2.0-client")
    server.send("A")
    client.expect("A", ack=15)
    close(client, server)


@pytest.mark.parametrize("service", [SENDS_BINARY, SENDS_FIRST])
def test_a_lost_header_is_sent_again(proxy, service):
    client = proxy.client(service)
    handshake(client)
    data = b"" if service == SENDS_FIRST else b"hello"
    if data:
        client.send("PA", data)
    server, header = proxy.accept("a"), binary_header(client)
    server.send("SA", mss=1460)
    server.expect("PA", seq=1, ack=1, data=header + data)
    proxy.wait(0.4)
    server.expect("PA", seq=1, ack=1, data=header + data)
    server.send("A")
    client.expect("A", seq=1, ack=1 + len(data))
    proxy.wait(5)
    proxy.silent()
    close(client, server)


def test_what_the_client_sends_meanwhile_passes_and_acknowledgements_stop_at_its_first_number(proxy):
    client = proxy.client(SENDS_FIRST)
    handshake(client)
    server, header = proxy.accept("a"), binary_header(client)
    server.send("SA", mss=1460)
    server.expect("PA", seq=1, ack=1, data=header)
    client.send("PA", b"early")  # the header is lost on its way
    server.expect("PA", seq=1 + len(header), ack=1, data=b"early")
    for _ in range(3):
        server.send("A", ack=1)
        client.expect("A", seq=1, ack=1)
    server.expect("PA", seq=1, ack=1, data=header)  # by the third duplicate (RFC 5681)
    server.send("A", ack=1 + len(header) + 5)
    client.expect("A", seq=1, ack=6)
    server.ack = 1 + len(header) + 5
    close(client, server)


def test_a_header_that_is_acknowledged_in_part_shows_the_client_its_own_window(proxy):
    client = proxy.client(SENDS_FIRST)
    handshake(client)
    server, header = proxy.accept("a"), binary_header(client)
    server.send("SA", mss=1460, window=1000)
    server.expect("PA", seq=1, ack=1, data=header)
    server.send("A", ack=11, window=1000)
    client.expect("A", seq=1, ack=1, window=1000 - (len(header) - 10))
    server.send("A", ack=1 + len(header), window=1000)
    client.expect("A", seq=1, ack=1, window=1000)


def test_the_header_goes_by_the_targets_window_and_mss(proxy):
    client = proxy.client(SENDS_TEXT)
    handshake(client)
    client.send("PA", b"x" * 300)
    server, header = proxy.accept("a"), text_header(client)
    server.send("SA", mss=100, window=200)
    whole, at = header + b"x" * 300, 0
    for length, flags in ((100, "A"), (100, "A")):
        server.expect(flags, seq=1 + at, ack=1, data=whole[at:at + length])
        at += length
    proxy.silent()
    server.send("A", ack=1 + at, window=1000)
    client.expect("A", seq=1, ack=1 + at - len(header))
    for part in (whole[200:300], whole[300:]):
        server.expect("PA" if at + len(part) == len(whole) else "A", seq=1 + at, ack=1, data=part)
        at += len(part)
    server.send("A", ack=1 + at)
    client.expect("A", ack=301)


@pytest.mark.parametrize("service", [SENDS_BINARY, SENDS_FIRST])
def test_the_next_target_gets_the_header_too(proxy, service):
    client = proxy.client(service)
    handshake(client)
    data = b"" if service == SENDS_FIRST else b"hello"
    if data:
        client.send("PA", data)
    proxy.accept("a").send("RA", seq=0, ack=1)
    second, header = proxy.accept("b"), binary_header(client)
    assert second.other_isn == client.isn - len(header)
    second.send("SA", mss=1460)
    second.expect("PA", seq=1, ack=1, data=header + data)
    second.send("A")
    client.expect("A", seq=1, ack=1 + len(data))
    assert proxy.count("proxy_headers_sent") == 1
    close(client, second)


@pytest.mark.parametrize("acknowledged", [False, True])
def test_a_target_that_resets_after_the_header_alone_is_replaced(proxy, acknowledged):
    client = proxy.client(SENDS_FIRST)
    handshake(client)
    first, header = proxy.accept("a"), binary_header(client)
    first.send("SA", mss=1460)
    first.expect("PA", seq=1, ack=1, data=header)
    if acknowledged:
        first.send("A")
        client.expect("A", seq=1, ack=1)
    first.send("R", seq=1)
    second = proxy.accept("b")
    second.send("SA", mss=1460)
    second.expect("PA", seq=1, ack=1, data=header)
    second.send("A", b"hi")
    client.expect("A", seq=1, ack=1, data=b"hi")
    client.send("PA", b"there")
    second.expect("PA", seq=1 + len(header), ack=3, data=b"there")
    second.send("A")
    client.expect("A", ack=6)
    close(client, second)


def stamped(value, echo, *more):
    """Returns the options of a segment with timestamps."""
    return {"options": [*more, ("Timestamp", (value, echo))]}


def test_timestamps_and_sack_go_with_it(proxy):
    client = proxy.client(SENDS_BINARY)
    client.send("S", **stamped(50, 0, ("SAckOK", b"")))
    client.expect("SA", seq=0, ack=1)
    client.send("A", **stamped(51, 0))
    client.send("PA", b"hello", **stamped(52, 0))
    server, header = proxy.accept("a"), binary_header(client)
    server.send("SA", mss=1460, **stamped(9000, 50, ("SAckOK", b"")))
    sent = server.expect("PA", seq=1, ack=1, data=header + b"hello")
    assert ("Timestamp", (52, 9000)) in sent.options
    server.send("A", **stamped(9001, 52))
    client.expect("A", seq=1, ack=6)
    close(client, server)


def test_the_port_taken_again_begins_above_the_last_number_with_the_header_below(proxy):
    for round_ in range(2):
        client, server, header = begun(proxy, SENDS_BINARY, target="ab"[round_])
        server.send("A")
        client.expect("A", ack=6)
        close(client, server)
    proxy.wait(2.1)


def test_payload_kernels_see_the_payload_alone(proxy):
    client = proxy.client(SENDS_SHAPED)
    handshake(client)
    client.send("PA", b"xax")
    client.expect("A", seq=1, ack=4)  # what was changed in length is ours
    server, header = proxy.accept("a"), binary_header(client)
    server.send("SA", mss=1460)
    server.expect("PA", seq=1, ack=1, data=header + b"xbcdx")
    server.send("A", b"a", ack=1)
    client.expect("A", seq=1, ack=4, data=b"bcd")
    server.send("A")
    client.expect("A", seq=4, ack=4)
    client.send("PA", b"a")
    server.expect("PA", seq=1 + len(header) + 5, ack=2, data=b"bcd")
    server.send("A")
    client.expect("A", ack=5)
    close(client, server)


def test_a_fin_with_the_first_payload_comes_behind_both(proxy):
    client = proxy.client(SENDS_BINARY)
    handshake(client)
    client.send("FPA", b"bye")
    server, header = proxy.accept("a"), binary_header(client)
    server.send("SA", mss=1460)
    server.expect("FPA", seq=1, ack=1, data=header + b"bye")
    server.send("A")
    client.expect("A", seq=1, ack=5)
    server.send("FA")
    client.expect("FA", seq=1)
    client.send("A")
    server.expect("A")


def test_without_room_for_the_header_the_client_is_reset(proxy):
    free = proxy.state.connections.held.free_count
    kept, free[0] = int(free[0]), 0
    client = proxy.client(SENDS_FIRST)
    handshake(client)
    client.expect("RA", seq=1, ack=1)
    assert proxy.drops() == {"held_pool_empty": 1} and proxy.states() == {}
    free[0] = kept
