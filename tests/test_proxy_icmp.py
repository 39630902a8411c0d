"""ICMP through the splice between kernel stacks behind routers (SPLICE 8.1): path-MTU discovery, TTLs, hosts that are not
there."""
import contextlib
import errno
import hashlib
import random
import socket
import struct
import threading
import time

import pytest

from peers.path_bed import AFTER_LINE, SERVICE
from peers.requirements import needs_bed
from peers.routed_bed import ABSENT, BULK, CLIENT, PATIENCE, open_routed

pytestmark = needs_bed
OCTETS = random.Random(8).randbytes(4 << 20)
IP_RECVERR = 11


@pytest.fixture(scope="module")
def routed():
    with open_routed(AFTER_LINE) as opened:
        yield opened


@pytest.fixture(autouse=True)
def wide_again(routed):
    """After each test both links are as wide as any."""
    yield
    for router in ("west", "east"):
        routed.set_mtu(router, 1500)


@contextlib.contextmanager
def connected(routed, first=b"one line\n"):
    """Sockets of a client and of the server it was connected to, after a first message of so many octets."""
    with routed.bed.inside("server"):
        listener = socket.create_server(("0.0.0.0", BULK))
    with routed.bed.inside("client"):
        client = socket.socket()
    with listener, client:
        listener.settimeout(PATIENCE)
        client.settimeout(PATIENCE)
        client.connect((SERVICE, BULK))
        sending = threading.Thread(target=client.sendall, args=(first,))
        sending.start()
        server, _ = listener.accept()
        with server:
            server.settimeout(PATIENCE)
            assert received(server, len(first)) == first
            sending.join()
            yield client, server


def received(connection, octets):
    """So many octets of a connection, or fewer if it ends before."""
    parts = bytearray()
    while len(parts) < octets and (part := connection.recv(octets - len(parts))):
        parts += part
    return bytes(parts)


def transferred(sender, receiver):
    """Whether OCTETS arrive whole."""
    sending = threading.Thread(target=sender.sendall, args=(OCTETS,))
    sending.start()
    got = received(receiver, len(OCTETS))
    sending.join()
    return hashlib.sha256(got).digest() == hashlib.sha256(OCTETS).digest()


def test_rule_8_1_a_transfer_to_the_server_finds_the_path_mtu_behind_its_router(routed):
    routed.set_mtu("east", 1000)
    before = routed.notices().get("icmp_errors_passed", 0)
    with connected(routed) as (client, server):
        assert routed.path_mtu("client", SERVICE) == ([1500], None)
        assert transferred(client, server)
        assert routed.path_mtu("client", SERVICE) == ([1000], 1000)
        assert transferred(server, client)
    assert routed.notices()["icmp_errors_passed"] > before
    assert routed.counter("client", "TcpExtOutOfWindowIcmps") == 0


def test_rule_8_1_a_transfer_to_the_client_finds_the_path_mtu_behind_its_router(routed):
    routed.set_mtu("west", 900)
    with connected(routed) as (client, server):
        assert routed.path_mtu("server", "10.2.0.1") == ([1500], None)
        assert transferred(server, client)
        assert routed.path_mtu("server", "10.2.0.1") == ([900], 900)
    assert routed.counter("server", "TcpExtOutOfWindowIcmps") == 0


def test_rule_8_1_a_long_first_message_is_cut_to_the_path_by_the_engine_itself(routed):
    routed.set_mtu("east", 1000)
    before = routed.notices().get("path_mtu_lowered", 0)
    with connected(routed, b"x" * 12_000 + b"\n") as (client, server):
        assert transferred(client, server)
    assert routed.notices()["path_mtu_lowered"] == before + 1


def test_rule_8_1_each_hop_beyond_and_the_engine_itself_say_where_a_ttl_ended(routed):
    with connected(routed) as (client, server), routed.bed.inside("client"):
        listening = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        listening.settimeout(PATIENCE)
        client.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
        with listening:
            for ttl, router in ((1, "10.8.0.1"), (2, SERVICE), (3, "10.2.0.254")):
                client.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ttl)
                client.sendall(b"as far as it goes\n")
                packet, (origin, _) = listening.recvfrom(2048)
                client.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 64)
                assert (origin, packet[20], packet[21]) == (router, 11, 0)
                addresses = socket.inet_ntoa(packet[40:44]), socket.inet_ntoa(packet[44:48])
                assert addresses == (CLIENT, SERVICE)
                assert struct.unpack("!HH", packet[48:52]) == (client.getsockname()[1], BULK)
                assert client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.EHOSTUNREACH
                assert received(server, 18) == b"as far as it goes\n", "sent again with a longer life"


def test_rule_8_1_a_target_that_its_router_cannot_reach_fails_before_any_time_out(routed):
    with routed.bed.inside("client"):
        client = socket.socket()
    with client:
        client.settimeout(PATIENCE)
        client.connect((SERVICE, ABSENT))
        client.sendall(b"is anybody there?\n")
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    deadline = time.monotonic() + 5
    while not (records := [each for each in routed.engine.records() if each["service"] == "absent"]):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert records[0]["release"] == {"client": "ActiveRst", "target": "TargetUnreachable"}
