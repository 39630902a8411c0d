"""What reference/peers.md says that others learnt the hard way, and their users ask for: one test a case, named after it."""
import pytest

from tcp.negotiated import SACK, STAMPS, agree, names, offer, scale
from tcp.proxy import CALM, FEW, FIRST, NUMBER, PATH, STRICT, TARGETS, TURNS, close, connect, handshake, one_worker, settings
from tcp.raw_frames import checksum


def bound(proxy, service=NUMBER, data=b"0 hello", target="a"):
    """Returns both ends of an established connection; nothing is held any more."""
    client = proxy.client(service)
    return client, connect(proxy, client, data, target)


def test_peers_the_window_of_the_syn_ack_is_never_zero(proxy):
    for options in ([], SACK, scale(0), scale(14), STAMPS):
        client, answer = offer(proxy, options)
        assert answer.window > 0
        client.send("PA", b"0 goes out at once")
        proxy.accept("a")
        client.send("R")
        proxy.received.clear()


def test_peers_a_server_that_speaks_first_is_reached_without_a_word_of_the_client(proxy):
    client = proxy.client(FIRST)
    handshake(client)
    server = proxy.accept("a")
    server.send("SA")
    server.expect("A", seq=1, ack=1)
    server.send("PA", b"220 ready")
    client.expect("PA", seq=1, ack=1, data=b"220 ready")


@pytest.mark.parametrize("said", [b"", b"GET /a"])
def test_peers_a_first_data_timer_falls_back_to_the_default_target(proxy, said):
    client = proxy.client(CALM)
    handshake(client)
    if said:
        client.send("PA", said)
        client.expect("A", ack=1 + len(said))
    proxy.wait(29)
    proxy.silent()
    proxy.wait(1.5)
    server = proxy.accept("b")
    server.send("SA")
    server.expect("PA" if said else "A", seq=1, ack=1, data=said)
    server.send("PA", b"220 speaks first", ack=1 + len(said))
    client.expect("PA", seq=1, ack=1 + len(said), data=b"220 speaks first")
    client.send("PA", b"USER", ack=17)
    server.expect("PA", data=b"USER")


def test_peers_a_first_data_timer_without_a_default_resets_the_client(proxy):
    client = proxy.client(STRICT)
    handshake(client)
    proxy.wait(31)
    client.expect("RA", seq=1, ack=1)
    assert proxy.states() == {}


@settings(timeouts={"connecting": 60})
def test_peers_the_late_syn_is_retransmitted_with_back_off(proxy):
    client = proxy.client(NUMBER)
    handshake(client)
    client.send("PA", b"0 hello")
    server = proxy.accept("a")
    came = []
    for _ in range(150):
        proxy.wait(0.1)
        while proxy.received[server.own, server.other]:
            server.expect("S", seq=0)
            came.append(proxy.now)
    gaps = [after - before for before, after in zip(came, came[1:])]
    assert 2 <= len(gaps) <= 4 and all(after >= 1.8 * before for before, after in zip(gaps, gaps[1:]))
    client.send("R")
    server.expect("R")


def test_peers_refusals_and_silence_of_a_target_are_counted_for_it(proxy):
    for refuses in (True, False):
        client = proxy.client(FEW)
        handshake(client)
        client.send("PA", b"hello")
        server = proxy.accept("few")
        if refuses:
            server.send("RA", seq=0, ack=1)
        else:
            proxy.wait(15, 0.1)
        proxy.received.clear()
    rows = proxy.state.counters.targets[list(TARGETS).index("few")].tolist()
    assert rows[2:4] == [1, 1], "refused, timeouts"


def test_peers_what_is_promised_before_the_target_is_known_is_translated_when_it_declines(proxy):
    client, server, answer, held = agree(proxy, SACK + STAMPS + scale(7), [], window=10)
    assert names(answer) == {"MSS", "SAckOK", "Timestamp", "WScale"} and names(held) == set() and held.window == 10 << 7
    server.send("PA", b"answer", ack=8, window=4096)
    shown = client.expect("PA", data=b"answer", window=4096 >> 10)
    assert names(shown) == {"Timestamp"}


@pytest.mark.parametrize("first", [0, 1])
def test_peers_a_new_syn_on_a_connection_in_time_wait_reopens_it(proxy, first):
    ends = bound(proxy)
    close(ends[first], ends[1 - first])
    again = proxy.client(NUMBER, port=ends[0].own[1], isn=ends[0].isn + 1000)
    handshake(again)
    again.send("PA", b"0 again")
    server = proxy.accept("a")
    server.send("SA")
    server.expect("PA", data=b"0 again")


@pytest.mark.parametrize("closing", ["client", "target", "both"])
def test_peers_a_new_syn_on_a_connection_that_is_closing_reopens_it(proxy, closing):
    client, server = bound(proxy)
    for sender, receiver in ((client, server), (server, client))[closing == "target":1 + (closing != "client")]:
        sender.send("FA")
        receiver.expect("FA")
    client.send("S", seq=5000)
    challenge = client.expect("A")
    client.send("R", seq=(challenge.ack - client.isn) % 2**32)
    server.expect("R")
    again = proxy.client(NUMBER, port=client.own[1], isn=client.isn + 5000)
    handshake(again)
    again.send("PA", b"0 again")
    server = proxy.accept("a")
    server.send("SA")
    server.expect("PA", data=b"0 again")


@pytest.mark.parametrize("wanted", [0x0000, 0x0001, 0xFFFE, 0xFFFF])
def test_peers_a_checksum_around_zero_is_right_after_translation(proxy, wanted):
    client, server = bound(proxy)
    for sender, receiver in ((client, server), (server, client)):
        sender.send("PA", b"\0\0\0\0", seq=sender.seq)
        came = receiver.expect("PA", data=b"\0\0\0\0")
        sum_of_rest = int.from_bytes(came.frame[50:52], "big")
        word = (sum_of_rest + (0xFFFF ^ wanted)) % 0xFFFF
        data = word.to_bytes(2, "big") + b"\0\0"
        sender.send("PA", data, seq=sender.seq)
        came = receiver.expect("PA", data=data)
        assert int.from_bytes(came.frame[50:52], "big") in ({0, 0xFFFF} if wanted in (0, 0xFFFF) else {wanted})
        assert checksum(came.frame[14:34]) == 0


# VPP's names (test_nat44_ed.py), seen from a proxy: in is the client's side, out the target's.


def test_peers_tcp_session_close_in(proxy):
    client, server = bound(proxy)
    close(client, server)
    assert proxy.states() == {"time_wait": 1}
    proxy.wait(2.1)
    assert proxy.states() == {} and proxy.records()[0]["release"] == {"client": "PassiveClose", "target": "ActiveClose"}


def test_peers_tcp_session_close_out(proxy):
    client, server = bound(proxy)
    close(server, client)
    assert proxy.states() == {"time_wait": 1}
    proxy.wait(2.1)
    assert proxy.states() == {} and proxy.records()[0]["release"] == {"client": "ActiveClose", "target": "PassiveClose"}


def test_peers_tcp_session_close_simultaneous(proxy):
    client, server = bound(proxy)
    client.send("FA")
    server.send("FA")
    server.expect("FA", ack=1)
    client.expect("FA", ack=8)
    server.send("A")
    client.expect("A", ack=9)
    client.send("A")
    server.expect("A", ack=2)
    assert proxy.states() == {"time_wait": 1}
    proxy.wait(2.1)
    assert proxy.states() == {}


def test_peers_tcp_session_half_reopen_in(proxy):
    client, server = bound(proxy)
    close(client, server)
    again = proxy.client(NUMBER, port=client.own[1], isn=client.isn + 1000)
    again.send("S")
    again.expect("SA", seq=0, ack=1)
    server.send("FA", seq=1)
    server.expect("R", seq=9)
    assert proxy.states() == {"syn_received": 1}
    proxy.wait(11, 0.1)
    proxy.received.clear()
    assert proxy.states() == {}


def test_peers_tcp_session_half_reopen_out(proxy):
    client, server = bound(proxy)
    close(client, server)
    server.send("S", seq=5000)
    proxy.received.pop((server.own, server.other), None)
    client.nothing()
    assert proxy.states() == {"time_wait": 1} and proxy.count("opened") == 1


@pytest.mark.parametrize("times", [1, 3])
def test_peers_tcp_session_open_retransmit(proxy, times):
    client = proxy.client(NUMBER)
    for _ in range(times + 1):
        client.send("S", seq=0)
        client.expect("SA", seq=0, ack=1)
    client.seq = 1
    client.send("A")
    client.send("PA", b"0 hello")
    server = proxy.accept("a")
    for _ in range(times):
        client.send("PA", b"0 hello", seq=1)
    server.send("SA")
    server.expect("PA", seq=1, ack=1, data=b"0 hello")
    for _ in range(times):
        server.send("SA", seq=0)
        server.expect("A", seq=1, ack=1)
    assert proxy.count("opened") == 1 and proxy.states() == {"established": 1}


@pytest.mark.parametrize("side", [0, 1])
def test_peers_tcp_session_rst_time_out(proxy, side):
    ends = bound(proxy)
    for number in range(3):
        ends[side].send("R", seq=ends[side].seq + 5)
        ends[1 - side].expect("R")
        proxy.wait(1.5)
        assert proxy.states() == {"established": 1}
        ends[side].send("PA", b"alive")
        ends[1 - side].expect("PA", data=b"alive")
    ends[side].send("R", seq=ends[side].seq + 5)
    ends[1 - side].expect("R")
    proxy.wait(2.2)
    assert proxy.states() == {}


def test_peers_ports_exhausted(proxy):
    pairs = [bound(proxy, FEW, b"hello", "few") for _ in range(3)]
    late = proxy.client(FEW)
    handshake(late)
    late.send("PA", b"hello")
    late.expect("RA", seq=1, ack=6)
    assert proxy.count("source_ports_exhausted") == 1
    for client, server in pairs:
        client.send("PA", b"goes on")
        server.expect("PA", data=b"goes on")
    close(*pairs[0])
    proxy.wait(2.1)
    bound(proxy, FEW, b"hello", "few")


def test_peers_mbufs_exhausted_leaves_the_handshakes_to_retransmission(proxy):
    client, server = bound(proxy)
    late = proxy.client(NUMBER)
    with proxy.starving(0):
        late.send("S", seq=0)
        late.nothing()
        client.send("PA", b"goes on")
    server.expect("PA", data=b"goes on")
    late.send("S", seq=0)
    late.expect("SA", seq=0, ack=1)


@settings(connections=4, held_connections=4)
def test_peers_connections_exhausted(proxy):
    pairs = [bound(proxy) for _ in range(4)]
    late = proxy.client(NUMBER)
    late.send("S", seq=0)
    late.nothing()
    assert proxy.count("connections_exhausted") == 1
    pairs[0][0].send("PA", b"goes on")
    pairs[0][1].expect("PA", data=b"goes on")
    close(*pairs[0])
    proxy.wait(2.1)
    handshake(late)


@settings(held_connections=1)
def test_peers_held_bytes_exhausted_leaves_the_payload_to_the_clients_retransmission(proxy):
    first = proxy.client(PATH)
    handshake(first)
    first.send("PA", b"GET /a")
    first.expect("A", ack=7)
    late = proxy.client(NUMBER)
    handshake(late)
    late.send("PA", b"0 hello", seq=1)
    proxy.silent()
    assert proxy.count("held_pool_empty") == 1
    first.send("R")
    late.send("PA", b"0 hello", seq=1)
    server = proxy.accept("a")
    server.send("SA")
    server.expect("PA", data=b"0 hello")


def test_peers_the_route_is_chosen_from_the_data_that_came(proxy):
    for path, target in ((b"/a", "a"), (b"/b", "b"), (b"/other", "c")):
        client = proxy.client(PATH)
        handshake(client)
        for octet in range(len(path) + 5):
            client.send("PA", (b"GET " + path + b" ")[octet:octet + 1])
        proxy.received.pop((client.own, client.other), None)
        server = proxy.accept(target)
        client.send("R")
        server.expect("R")


@one_worker
def test_peers_draining_lets_those_that_are_open_end_by_themselves(proxy):
    client, server = bound(proxy)
    proxy.drain()
    proxy.client(TURNS).send("S")
    assert proxy.count("draining") == 1
    proxy.wait(60, 1)
    close(client, server)
    assert proxy.states() == {} and proxy.records()[0]["release"]["client"] == "PassiveClose"
