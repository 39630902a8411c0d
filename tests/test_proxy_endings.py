"""How connections begin and end through a running engine: delayed binding, resets, time-outs, stray segments."""
import select
import socket
import struct
import subprocess
import time

import dpkt
import pytest

from peers import laboratory as lab
from peers.capture import Capture
from peers.clients import connect, exchange_all
from peers.requirements import needs_bed, needs_nginx, needs_program
from peers.servers import Servers, echo

pytestmark = [needs_bed, needs_nginx, pytest.mark.parametrize("laboratory", lab.LAYOUTS, indirect=True, ids=str)]
LINGER_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER that makes close() send a RST (socket(7))."""


async def slam(host, reader, writer):
    """Receives a line and answers it with a RST."""
    line = await reader.readline()
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_RESET)
    return line


@pytest.fixture
def servers(laboratory):
    """Servers of this test alone, gone with it."""
    with Servers(laboratory.bed) as running:
        yield running


@pytest.fixture
def echoing(servers):
    """Servers that echo, on all three hosts."""
    for server in lab.SERVERS:
        servers.listen(server, lab.ECHO, echo)
    return servers


def talk(laboratory, words=b"hello", port=lab.ECHO):
    """A connection of the client that has had its first words echoed."""
    connection = connect(laboratory.bed, "client", (lab.SERVICE, port))
    connection.sendall(words)
    assert receive(connection, len(words)) == words
    return connection


def receive(connection, length):
    """So many octets, or fewer if the connection ends before."""
    received = b""
    while len(received) < length and (octets := connection.recv(length - len(received))):
        received += octets
    return received


def ended(servers, within=5.0):
    """The one connection that a server has had, once it has ended."""
    deadline = time.monotonic() + within
    while not servers.served:
        assert time.monotonic() < deadline, "the server's connection has not ended"
        time.sleep(0.02)
    served, = servers.served
    return served


def first_of_each_port(segments):
    """The earliest segment from each source port, in order of time: what was sent again is left out."""
    first = {}
    for segment in sorted(segments, key=lambda segment: segment.at):
        first.setdefault(segment.tcp.sport, segment)
    return list(first.values())


def test_no_syn_leaves_for_a_target_before_the_clients_payload(laboratory, echoing):
    captures = [Capture(laboratory.bed, server) for server in lab.SERVERS]
    with Capture(laboratory.bed, "client") as clients:
        connections = [connect(laboratory.bed, "client", (lab.SERVICE, lab.ECHO)) for _ in range(20)]
        time.sleep(0.5)
        assert [segment for capture in captures for segment in capture.segments() if segment.is_first_syn] == []
        for number, connection in enumerate(connections):
            connection.sendall(b"%d" % number)
            assert receive(connection, len(str(number))) == b"%d" % number
        for connection in connections:
            connection.close()
        syns = first_of_each_port(segment for capture in captures for segment in capture.segments()
                                  if segment.is_first_syn)
        payloads = first_of_each_port(segment for segment in clients.segments() if segment.sent and segment.tcp.data)
    for capture in captures:
        capture.close()
    assert len(syns) == len(payloads) == 20
    # The connections spoke one after the other: the n-th SYN belongs to the n-th payload.
    assert all(payload.at < syn.at for payload, syn in zip(payloads, syns))
    assert all(syn.at < payload.at for payload, syn in zip(payloads[1:], syns))


def test_both_directions_carry_the_same_octets_at_once(laboratory, echoing):
    connection = connect(laboratory.bed, "client", (lab.SERVICE, lab.ECHO))
    connection.settimeout(20)
    octets = bytes(range(251)) * 20_000
    sent, received = 0, bytearray()
    connection.setblocking(False)
    deadline = time.monotonic() + 30
    while len(received) < len(octets) and time.monotonic() < deadline:
        try:
            sent += connection.send(octets[sent:sent + 65536]) if sent < len(octets) else 0
        except BlockingIOError:
            pass
        try:
            received += connection.recv(1 << 20)
        except BlockingIOError:
            time.sleep(0.0005)
    connection.close()
    assert received == octets
    assert ended(echoing).received == octets


def test_a_clients_reset_reaches_the_server(laboratory, echoing):
    before = laboratory.counters_at_rest()
    connection = talk(laboratory)
    assert grown(before, laboratory.counters_soon(), "connections", "open") == 1
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_RESET)
    connection.close()
    assert ended(echoing).ended == "ConnectionResetError"
    after = laboratory.counters_soon()
    assert grown(before, after, "sides", "client", "received_rst") == 1
    assert grown(before, after, "sides", "target", "sent_rst") == 1
    assert grown(before, after, "connections", "open") == 0


def test_a_servers_reset_reaches_the_client(laboratory, servers):
    for server in lab.SERVERS:
        servers.listen(server, lab.ECHO, slam)
    before = laboratory.counters_at_rest()
    connection = connect(laboratory.bed, "client", (lab.SERVICE, lab.ECHO))
    connection.sendall(b"hello\n")
    with pytest.raises(ConnectionResetError):
        connection.recv(100)
    connection.close()
    after = laboratory.counters_soon()
    assert grown(before, after, "release_causes", "client", "ActiveRst") == 1
    assert grown(before, after, "release_causes", "target", "PassiveRst") == 1
    assert grown(before, after, "connections", "open") == 0


def grown(before, after, *keys):
    """By how much a number of the worker has grown."""
    def number(stats):
        value, = stats["workers"]
        for key in keys:
            # What has never been counted is left out.
            value = value.get(key, 0)
        return value

    return number(after) - number(before)


def test_a_silent_connection_times_out_with_resets_while_one_that_speaks_goes_on(laboratory, echoing):
    before = laboratory.counters_at_rest()
    speaking, silent = talk(laboratory), talk(laboratory)
    begun = time.monotonic()
    while not select.select([silent], [], [], 0.7)[0]:
        assert time.monotonic() - begun < lab.TIMEOUTS["established"] + 3, "the silent connection has not timed out"
        speaking.sendall(b"still here")
        assert receive(speaking, 10) == b"still here"
    assert time.monotonic() - begun > lab.TIMEOUTS["established"] - 0.5, "it ended before its time"
    with pytest.raises(ConnectionResetError):
        silent.recv(1)
    silent.close()
    assert ended(echoing).ended == "ConnectionResetError"
    after = laboratory.counters_soon()
    assert grown(before, after, "release_causes", "client", "Timeout") == 1
    assert grown(before, after, "release_causes", "target", "Timeout") == 1
    time.sleep(1)
    speaking.sendall(b"and still")
    assert receive(speaking, 9) == b"and still"
    speaking.close()


def test_a_client_that_never_speaks_is_reset_and_no_target_hears_of_it(laboratory, echoing):
    before = laboratory.counters_at_rest()
    connection = connect(laboratory.bed, "client", (lab.SERVICE, lab.ECHO))
    connection.settimeout(lab.TIMEOUTS["first_data"] + 3)
    with pytest.raises(ConnectionResetError):
        connection.recv(1)
    connection.close()
    after = laboratory.counters_soon()
    assert grown(before, after, "release_causes", "client", "Timeout") == 1
    assert grown(before, after, "sides", "target", "sent_syn") == 0
    assert echoing.served == []


def test_a_client_that_closes_without_a_word_ends_cleanly(laboratory, echoing):
    before = laboratory.counters_at_rest()
    connection = connect(laboratory.bed, "client", (lab.SERVICE, lab.ECHO))
    connection.shutdown(socket.SHUT_WR)
    assert connection.recv(1) == b""
    connection.close()
    after = laboratory.counters_soon()
    assert grown(before, after, "sides", "target", "sent_syn") == 0
    assert grown(before, after, "sides", "client", "sent_rst") == 0


def test_one_side_may_go_on_sending_after_the_other_has_closed(laboratory, servers):
    async def close_first(host, reader, writer):
        line = await reader.readline()
        writer.write(b"that is all\n")
        writer.write_eof()
        return line + await reader.read()

    for server in lab.SERVERS:
        servers.listen(server, lab.ECHO, close_first)
    connection = connect(laboratory.bed, "client", (lab.SERVICE, lab.ECHO))
    connection.sendall(b"first\n")
    assert receive(connection, 100) == b"that is all\n"
    for _ in range(50):
        connection.sendall(b"x" * 2000)
        time.sleep(0.002)
    connection.close()
    served = ended(servers)
    assert (served.received, served.ended) == (b"first\n" + b"x" * 100_000, "closed")


def stray_answers(laboratory, port, control):
    """The segments that come back from a port of the engine for a forged segment of no connection."""
    source_port = 40_000 + port % 1000
    segment = dpkt.tcp.TCP(sport=source_port, dport=port, seq=1_000_000, ack=2_000_000, flags=control, win=1000,
                           data=b"stray")
    packet = dpkt.ip.IP(src=socket.inet_aton("10.1.0.2"), dst=socket.inet_aton(lab.SERVICE), p=dpkt.ip.IP_PROTO_TCP,
                        data=segment)
    packet.len = len(packet)
    with Capture(laboratory.bed, "client") as capture:
        with laboratory.bed.inside("client"):
            raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        with raw:
            raw.sendto(bytes(packet), (lab.SERVICE, 0))
        time.sleep(0.3)
        seen = [each for each in capture.segments() if source_port in (each.tcp.sport, each.tcp.dport)]
    assert any(each.sent for each in seen), "the stray segment has left"
    return [each for each in seen if not each.sent]


def test_a_stray_segment_is_answered_by_a_reset_that_its_sender_accepts(laboratory):
    before = laboratory.counters_at_rest()
    answer, = stray_answers(laboratory, lab.WEB, dpkt.tcp.TH_ACK)
    assert answer.is_reset
    # RFC 9293, 3.10.7.1: a segment with ACK is reset with SEQ = SEG.ACK and no ACK of its own.
    assert (answer.tcp.seq, answer.control & dpkt.tcp.TH_ACK) == (2_000_000, 0)
    assert grown(before, laboratory.counters_soon(), "notices", "resets_sent") == 1


def test_a_stray_segment_is_dropped_where_the_service_says_so(laboratory):
    before = laboratory.counters_at_rest()
    assert stray_answers(laboratory, lab.QUIET, dpkt.tcp.TH_ACK) == []
    assert grown(before, laboratory.counters_soon(), "drops", "stray_segment") == 1


def test_a_stray_reset_is_never_answered(laboratory):
    assert stray_answers(laboratory, lab.WEB, dpkt.tcp.TH_RST) == []


def test_the_engine_answers_a_ping(laboratory):
    process = laboratory.bed.run_in("client", ["ping", "-c", "3", "-i", "0.2", "-W", "2", lab.SERVICE])
    assert process.wait(10) == 0


LOSE_THE_FIRST = """
table ip loss {{
    set seen {{ typeof ip saddr . tcp sport . tcp dport; flags dynamic; size 65535; }}
    chain lose {{
        type filter hook {hook} priority 0;
        {matching} ip saddr . tcp sport . tcp dport != @seen \\
            add @seen {{ ip saddr . tcp sport . tcp dport }} counter drop
    }}
}}
"""
"""Rules for nft that drop, of each connection, the first segment that matches."""
SAID = [b"word %d" % number for number in range(12)]
"""So many connections that each worker, which takes the targets in its own turn, comes to each of them."""


def nft(laboratory, host, *arguments, rules=None):
    """What nft prints on a host."""
    process = laboratory.bed.run_in(host, ["nft", *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    out, _ = process.communicate(rules)
    assert process.returncode == 0
    return out


@needs_program("nft", "nftables")
def test_what_is_lost_on_its_way_is_sent_again(laboratory, echoing):
    lost = {"client": ("input", f"tcp sport {lab.ECHO} tcp flags & (syn | ack) == syn | ack"),
            "s0": ("input", f"tcp dport {lab.ECHO} tcp flags & (syn | ack) == syn"),
            "s1": ("output", f"tcp sport {lab.ECHO} tcp flags & (syn | ack) == syn | ack"),
            "s2": ("input", f"tcp dport {lab.ECHO} tcp flags & psh == psh")}
    before = laboratory.counters_at_rest()
    for host, (hook, matching) in lost.items():
        nft(laboratory, host, "-f", "-", rules=LOSE_THE_FIRST.format(hook=hook, matching=matching))
    try:
        exchanges = exchange_all(laboratory.bed, "client", (lab.SERVICE, lab.ECHO), SAID,
                                 close_when=lambda request, received: received == request)
        dropped = {host: nft(laboratory, host, "list", "chain", "ip", "loss", "lose") for host in lost}
    finally:
        for host in lost:
            nft(laboratory, host, "delete", "table", "ip", "loss")
    assert [(exchange.received, exchange.ended) for exchange in exchanges] == [(said, "closed") for said in SAID]
    assert f"packets {len(SAID)} " in dropped["client"], "the SYN-ACK of each connection was lost once"
    assert not any("packets 0 " in dropped[server] for server in lab.SERVERS), "each target has lost something else"
    after = laboratory.counters_soon()
    assert grown(before, after, "sides", "client", "sent_syn_ack") >= 2 * len(SAID)
    assert grown(before, after, "sides", "target", "sent_syn") >= len(SAID) + 1
