"""Peers with habits of their own, kernel stacks all of them: Nagle, long first messages, narrow windows, few options."""
import random
import socket
import threading
import time

import dpkt
import pytest

from peers import select_whole_message
from peers.capture import Capture
from peers.engine_process import WORKERS
from peers.listener import Listener, client_of, receive, receive_all
from peers.path_bed import AFTER_LINE, BESIDE, LAST_OF_60_KIB, open_path, service
from peers.requirements import needs_bed
from peers.transfers import Octets, TransferServer

pytestmark = needs_bed
NAGLE, LONG, NARROW, HALF, GREETING = 7000, 7001, 7002, 7003, 7004
DECLINING = {"timestamps": ("s1", "ipv4/tcp_timestamps"), "sack": ("s2", "ipv4/tcp_sack"),
             "wscale": ("s3", "ipv4/tcp_window_scaling")}
"""Options, each with the host that declines it and the setting by which it does."""
DECLINED_PORTS = {(option, way): 7010 + 2 * number + turn for number, option in enumerate(DECLINING)
                  for turn, way in enumerate(("up", "down"))}
TCP_WINDOW_CLAMP = 10


@pytest.fixture(scope="module")
def path():
    """An engine before four servers, three of which decline an option each."""
    services = [*BESIDE, service(NAGLE, select=AFTER_LINE), service(LONG, ("s0", "s1"), select=LAST_OF_60_KIB),
                service(NARROW, select=AFTER_LINE), service(HALF, select=AFTER_LINE), service(GREETING, binding="immediate"),
                *(service(port, (DECLINING[option][0],)) for (option, _), port in DECLINED_PORTS.items())]
    with open_path("peers", services, servers=4, engine={"held_bytes": 65472, "held_connections": 64},
                   timeouts={"fin_wait": 1.0, "half_closed": 30.0}) as opened:
        for host, setting in DECLINING.values():
            opened.set_kernel(host, {setting: "0"})
        yield opened


@pytest.fixture(autouse=True)
def everything_ends(path):
    """After each test the engine's table is empty."""
    yield
    path.counters_at_rest(within=20)


def payloads_sent(capture):
    """The segments with payload that the host has sent, in order."""
    return [segment for segment in capture.segments() if segment.sent and segment.tcp.data]


def test_rule_1_2_a_request_in_two_writes_of_a_nagle_client_is_acknowledged_after_the_first(path):
    with Listener(path, "s0", NAGLE) as listener, Capture(path.bed, "client") as capture:
        with client_of(path, NAGLE) as client:
            client.sendall(b"one request ")
            client.sendall(b"in two pieces\n")
            with listener.accept() as server:
                assert receive(server, 26) == b"one request in two pieces\n"
                server.sendall(b"and an answer")
            assert receive_all(client) == b"and an answer"
        first, second = payloads_sent(capture)[:2]
    assert bytes(first.tcp.data) == b"one request ", "Nagle held the second piece back"
    assert second.at - first.at < 0.15, "it went on with our acknowledgement, not with a time-out"


@pytest.mark.parametrize("member", [0, 1])
def test_rule_1_2_a_first_message_of_60_kib_is_held_until_its_end_has_chosen(path, member):
    message = random.Random(member).randbytes(select_whole_message.LENGTH - 1) + bytes([member])
    more = random.Random(10 + member).randbytes(200_000)
    with Listener(path, f"s{member}", LONG) as listener, client_of(path, LONG) as client:
        client.sendall(message)
        with listener.accept() as server:
            sending = threading.Thread(target=client.sendall, args=(more,))
            sending.start()
            assert receive(server, len(message) + len(more)) == message + more
            sending.join()
            server.sendall(b"received")
        assert receive_all(client) == b"received"


def beyond_the_window(segments):
    """The payloads that reached this host beyond the right edge of the window that it had advertised, and the first window.

    One octet beyond it is a window probe (RFC 9293, section 3.8.6.1).
    """
    found, edge, scale, first_window = [], None, 0, None
    for segment in segments:
        tcp = segment.tcp
        if segment.sent:
            if tcp.flags & dpkt.tcp.TH_SYN:
                scale = dict(dpkt.tcp.parse_opts(tcp.opts)).get(dpkt.tcp.TCP_OPT_WSCALE, b"\0")[0]
                edge, first_window = tcp.ack + tcp.win, tcp.win
            else:
                edge = max(edge, tcp.ack + (tcp.win << scale))
        elif len(tcp.data) > 1 and tcp.seq + len(tcp.data) > edge:
            found.append((tcp.seq, len(tcp.data), edge))
    return found, first_window


def test_rule_1_2_what_was_held_is_sent_within_a_targets_window_of_2_kib(path):
    narrow = [(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192), (socket.IPPROTO_TCP, TCP_WINDOW_CLAMP, 2048)]
    message = random.Random(2).randbytes(16_000).replace(b"\n", b" ") + b"\n"
    more = random.Random(3).randbytes(100_000)
    with Listener(path, "s0", NARROW, narrow) as listener, Capture(path.bed, "s0") as capture:
        with client_of(path, NARROW) as client:
            client.sendall(message)
            with listener.accept() as server:
                time.sleep(0.5)  # the window fills, and what is held has to wait
                sending = threading.Thread(target=client.sendall, args=(more,))
                sending.start()
                assert receive(server, len(message) + len(more)) == message + more
                sending.join()
                server.sendall(b"received")
            assert receive_all(client) == b"received"
        segments = [each for each in capture.segments() if NARROW in (each.tcp.sport, each.tcp.dport)]
    found, first_window = beyond_the_window(segments)
    assert first_window <= 2048
    assert found == [], f"{len(found)} segments beyond the window, such as (number, octets, edge) {found[:3]}"


@pytest.fixture(scope="module")
def content(path):
    """What the transfers below move."""
    return Octets(path.folder, 3_000_000)


@pytest.mark.parametrize("option, way", DECLINED_PORTS)
def test_rule_2_1_a_target_that_declines_an_option_is_learnt(path, content, option, way):
    """The first connection of a worker finds out, its client having been promised the option; later clients are not promised it."""
    host, port = DECLINING[option][0], DECLINED_PORTS[option, way]
    with TransferServer(path, port, content, host) as server:
        transfers = [server.transfer(way, seconds=20) for _ in range(2 + WORKERS)]
    client, target = ("sender", "receiver") if way == "up" else ("receiver", "sender")
    others = sorted(set(DECLINING) - {option})
    seen = [(each[client]["options"], each[target]["options"]) for each in transfers]
    finding = seen.count((sorted(DECLINING), others))
    assert seen[0] == (sorted(DECLINING), others) and 1 <= finding <= WORKERS
    assert seen.count((others, others)) == len(seen) - finding


def test_rule_4_a_client_that_has_closed_still_receives(path):
    answer = random.Random(4).randbytes(500_000)
    with Listener(path, "s0", HALF) as listener, client_of(path, HALF) as client:
        client.sendall(b"that is all of me\n")
        client.shutdown(socket.SHUT_WR)
        with listener.accept() as server:
            assert receive_all(server) == b"that is all of me\n"
            time.sleep(path.timeouts["fin_wait"] + 1)
            sending = threading.Thread(target=server.sendall, args=(answer,))
            sending.start()
            assert receive(client, len(answer)) == answer
            sending.join()
        assert receive_all(client) == b""


@pytest.mark.parametrize("port", [HALF, GREETING], ids=["delayed", "immediate"])
def test_rule_4_a_target_that_has_closed_still_receives(path, port):
    request = random.Random(5).randbytes(500_000)
    with Listener(path, "s0", port) as listener, client_of(path, port) as client:
        if port == HALF:
            client.sendall(b"hello\n")
        with listener.accept() as server:
            server.sendall(b"that is all of me\n")
            server.shutdown(socket.SHUT_WR)
            assert receive_all(client) == b"that is all of me\n"
            time.sleep(path.timeouts["fin_wait"] + 1)
            client.sendall(request)
            client.close()
            assert receive_all(server) == (b"hello\n" if port == HALF else b"") + request
