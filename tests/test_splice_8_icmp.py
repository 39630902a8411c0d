"""ICMP errors pass the splice (SPLICE 8.1): what a router tells the proxy, the end whose packet it was gets to hear."""
import pytest
from scapy.layers.inet import IP, TCP, IPOption_Router_Alert, in4_chksum
from scapy.layers.l2 import Ether

from pipeline.kernels.counters import OF_TARGET_UNREACHABLE
from tcp.icmp import PARAMETER_PROBLEM, TIME_EXCEEDED, UNREACHABLE, after_hops, error, read_error
from tcp.proxy import FIRST, MACS, NUMBER, SERVICE, SIMPLE, TARGETS, TURNS, connect, handshake, settings
from tcp.segments import mac_of

ROUTER = "10.9.9.9"
FRAGMENTATION_NEEDED = 4
STAMP = 5_000_000


def bound(proxy, data=b"0 hello", **fields):
    """Both ends of an established connection to target a; nothing is held any more."""
    client = proxy.client(NUMBER)
    return client, connect(proxy, client, data, **fields)


def sent(end, other, flags="PA", data=b"x" * 700, **fields):
    """A frame that one end sends, and the Segment that has come to the other."""
    frame = end.segment(flags, data, **fields)
    end.proxy.burst(frame, port=end.port)
    return frame, end.proxy.received[other.own, other.other].popleft()


def tell(proxy, segment, *what, **fields):
    """Has ROUTER, beyond the port that a Segment left by, send an error about it."""
    proxy.burst(error(segment.frame, *what, ROUTER, **fields), port=segment.port)


def heard(proxy, port):
    """What the one error that left by a port says: outer IP header, ICMP header, quote."""
    frames = proxy.taken_others(port)
    assert len(frames) == 1, f"{len(frames)} errors; drops: {proxy.drops()}"
    return read_error(frames[0])


ERRORS = [(UNREACHABLE, code) for code in range(16)] + [(TIME_EXCEEDED, 0), (TIME_EXCEEDED, 1), (PARAMETER_PROBLEM, 0)]


@pytest.mark.parametrize("way", ["up", "down"])
@pytest.mark.parametrize("kind, code", ERRORS)
def test_rule_8_1_the_sender_is_told_of_its_own_packet(proxy, way, kind, code):
    ends = bound(proxy)
    origin, receiver = ends if way == "up" else ends[::-1]
    frame, segment = sent(origin, receiver)
    tell(proxy, segment, kind, code, mtu=1000 if (kind, code) == (3, 4) else 0, pointer=9, hops=3)
    outer, icmp, quote = heard(proxy, origin.port)
    assert (outer.src, outer.dst, outer.ttl) == (ROUTER, origin.own[0], 59)
    assert (icmp.type, icmp.code) == (kind, code)
    if (kind, code) == (UNREACHABLE, FRAGMENTATION_NEEDED):
        assert icmp.nexthopmtu == 1000
    assert quote == after_hops(frame[14:], 4)[:548]
    assert proxy.count("icmp_errors_passed") == 1 and proxy.drops() == {}


@pytest.mark.parametrize("quoted", [28, 29, 31, 32, 36, 38, 40, 41, 60, 548, 740])
def test_rule_8_1_whatever_part_of_the_packet_is_quoted_is_as_it_was_sent(proxy, quoted):
    client, server = bound(proxy)
    frame, segment = sent(server, client)
    tell(proxy, segment, TIME_EXCEEDED, 0, quoted=quoted)
    assert heard(proxy, 1)[2] == after_hops(frame[14:], 2)[:quoted]


def test_rule_8_1_extensions_stay_as_they_are(proxy):
    client, server = bound(proxy)
    frame, segment = sent(client, server, data=b"x" * 20)
    extension = bytes([0x20, 0, 0x12, 0x34, 0, 8, 1, 1]) + b"\xAA\xBB\xCC\xDD"
    tell(proxy, segment, TIME_EXCEEDED, 0, length=32, extension=extension)
    outer, icmp, quote = heard(proxy, 0)
    assert quote == after_hops(frame[14:], 2).ljust(128, b"\0") + extension and icmp.length == 32


def test_rule_8_1_padding_behind_a_short_quote_is_no_part_of_the_packet(proxy):
    client, server = bound(proxy)
    frame, segment = sent(client, server, data=b"x" * 3)
    padded = after_hops(segment.frame[14:], 1) + b"\0" * 100
    tell(proxy, segment, TIME_EXCEEDED, 0, payload=padded)
    assert heard(proxy, 0)[2] == after_hops(frame[14:], 2) + b"\0" * 100


def test_rule_8_1_ip_options_inside_and_outside(proxy):
    client, server = bound(proxy)
    frame, segment = sent(client, server)
    inner = IP(after_hops(segment.frame[14:], 1))
    inner.options, inner.ihl, inner.len, inner.chksum = [IPOption_Router_Alert()], None, len(inner) + 4, None
    tell(proxy, segment, TIME_EXCEEDED, 0, payload=bytes(inner)[:548], ip={"options": [IPOption_Router_Alert()]})
    outer, icmp, quote = heard(proxy, 0)
    assert len(outer.options) == 1 and quote[20:24] == bytes(inner)[20:24]
    assert quote[24:] == frame[34:34 + 548 - 24]


def options_of(value, echo):
    return [("NOP", None), ("NOP", None), ("Timestamp", (value, echo))]


@pytest.mark.parametrize("way", ["up", "down"])
@pytest.mark.parametrize("sack", [False, True])
def test_rule_8_1_quoted_timestamps_and_sack_blocks_are_translated_back(proxy, way, sack):
    client = proxy.client(TURNS)
    client.send("S", options=[("SAckOK", b""), ("Timestamp", (STAMP, 0))])
    promised = dict(client.expect("SA").options)["Timestamp"][0]
    client.send("PA", b"hello", options=options_of(STAMP, promised))
    server = proxy.accept("a")
    server.send("SA", mss=1460, options=[("SAckOK", b""), ("Timestamp", (90_000, STAMP))])
    server.expect("PA", data=b"hello")
    server.send("A", options=options_of(90_001, STAMP))
    client.expect("A", ack=6)
    origin, receiver = (client, server) if way == "up" else (server, client)
    value, echo = (STAMP + 7, promised + 1) if way == "up" else (90_007, STAMP)
    blocks = [("NOP", None), ("NOP", None), ("SAck", tuple((origin.other_isn + edge) % 2**32 for edge in (500, 700)))]
    frame, segment = sent(origin, receiver, options=options_of(value, echo) + (blocks if sack else []))
    assert dict(segment.options)["Timestamp"] != (value, echo)
    tell(proxy, segment, UNREACHABLE, FRAGMENTATION_NEEDED, mtu=1000)
    assert heard(proxy, origin.port)[2] == after_hops(frame[14:], 2)[:548]


def test_rule_8_1_a_quoted_window_stays_translated_and_the_quoted_checksum_agrees_with_it(proxy):
    client = proxy.client(TURNS)
    client.send("S", options=[("WScale", 7)])
    client.expect("SA")
    client.send("PA", b"hello")
    server = proxy.accept("a")
    server.send("SA", mss=1460, options=[("WScale", 3)])
    server.expect("PA", data=b"hello")
    server.send("A")
    client.expect("A", ack=6)
    frame, segment = sent(server, client, data=b"y" * 100, window=999)
    tell(proxy, segment, TIME_EXCEEDED, 0)
    quote = heard(proxy, 1)[2]
    assert quote[34:36] == (999 >> 7).to_bytes(2, "big") and quote[20:34] == frame[34:48]
    assert in4_chksum(6, IP(quote), quote[20:]) == 0


def test_rule_8_1_a_client_given_timestamps_that_the_target_lacks_costs_12_bytes_of_the_mtu(proxy):
    client = proxy.client(TURNS)
    client.send("S", options=[("Timestamp", (STAMP, 0))])
    promised = dict(client.expect("SA").options)["Timestamp"][0]
    client.send("PA", b"hello", options=options_of(STAMP, promised))
    server = proxy.accept("a")
    server.send("SA", mss=1460)
    server.expect("PA", data=b"hello")
    server.send("A")
    client.expect("A", ack=6)
    frame, segment = sent(server, client, data=b"y" * 1000)
    assert len(segment.frame) == len(frame) + 12
    tell(proxy, segment, UNREACHABLE, FRAGMENTATION_NEEDED, mtu=1000)
    outer, icmp, quote = heard(proxy, 1)
    assert icmp.nexthopmtu == 988 and quote == after_hops(frame[14:], 2)[:28]
    tell(proxy, segment, UNREACHABLE, FRAGMENTATION_NEEDED, mtu=70, length=32, extension=b"\x20\0\xdf\xff")
    outer, icmp, quote = heard(proxy, 1)
    assert icmp.nexthopmtu == 68 and icmp.length == 0 and quote == after_hops(frame[14:], 2)[:28]
    tell(proxy, segment, UNREACHABLE, FRAGMENTATION_NEEDED, mtu=0)
    assert heard(proxy, 1)[1].nexthopmtu == 0


@pytest.mark.parametrize("way", ["up", "down"])
def test_rule_8_1_the_quoted_number_has_to_be_in_flight(proxy, way):
    ends = bound(proxy)
    origin, receiver = ends if way == "up" else ends[::-1]
    first = origin.seq
    _, segment = sent(origin, receiver, data=b"a" * 100)
    _, later = sent(origin, receiver, data=b"b" * 100)
    _, last = sent(origin, receiver, data=b"c" * 100, seq=origin.seq)
    origin.seq += 100
    receiver.send("A", ack=first + 100)
    origin.expect("A", ack=first + 100)
    tell(proxy, segment, UNREACHABLE, 1)
    beyond = bytearray(later.frame)
    for number, passes in ((first - 1, False), (first + 99, False), (first + 100, True), (first + 299, True),
                           (first + 300, False), (first + 2**31, False)):
        beyond[38:42] = ((later.seq - first - 100 + number) % 2**32).to_bytes(4, "big")
        tell(proxy, later._replace(frame=bytes(beyond)), UNREACHABLE, 1)
        assert len(proxy.taken_others(origin.port)) == passes, number
    assert proxy.drops() == {"icmp_not_in_flight": 5}


def test_rule_8_1_what_quotes_no_packet_of_a_connection_is_dropped(proxy):
    client, server = bound(proxy)
    _, segment = sent(client, server)
    packet = segment.frame[14:]
    stranger = IP(packet)
    stranger[TCP].sport += 1
    tell(proxy, segment, UNREACHABLE, 1, payload=bytes(stranger))
    tell(proxy, segment, UNREACHABLE, 1, ip={"dst": SERVICE})
    assert proxy.drops() == {"icmp_no_connection": 2}
    tell(proxy, segment, UNREACHABLE, 1, ip={"src": SERVICE})
    tell(proxy, segment, UNREACHABLE, 1, ip={"src": "127.0.0.1"})
    tell(proxy, segment, UNREACHABLE, 1, ip={"dst": "10.2.0.77"})
    tell(proxy, segment, UNREACHABLE, 1, corrupt=True)
    tell(proxy, segment, UNREACHABLE, 1, ttl=1)
    tell(proxy, segment, 4, 0)
    assert proxy.drops() == {"icmp_no_connection": 2, "bad_source": 2, "not_ours": 1, "icmp_invalid": 1, "ttl_exceeded": 1,
                             "icmp_other": 1}


def changed(packet, at, value):
    return packet[:at] + value + packet[at + len(value):]


@pytest.mark.parametrize("spoil", [
    lambda packet: b"", lambda packet: packet[:19], lambda packet: packet[:27],
    lambda packet: changed(packet, 0, b"\x44"), lambda packet: changed(packet, 0, b"\x65"),
    lambda packet: changed(packet, 0, b"\x4f")[:60 + 7], lambda packet: changed(packet, 9, b"\x11"),
    lambda packet: changed(packet, 6, b"\x00\x01"), lambda packet: changed(packet, 2, b"\x00\x27"),
    lambda packet: changed(packet, 2, b"\x00\x00"),
])
def test_rule_8_1_a_quote_that_is_no_packet_of_tcp_is_dropped(proxy, spoil):
    client, server = bound(proxy)
    _, segment = sent(client, server)
    tell(proxy, segment, UNREACHABLE, 1, payload=spoil(segment.frame[14:]))
    assert proxy.drops() == {"icmp_quote_invalid": 1}


HARD = (0, 1, 2, 3, 9, 10, 13)


@pytest.mark.parametrize("code", HARD)
def test_rule_8_1_a_hard_error_about_our_syn_makes_the_target_fail_at_once(proxy, code):
    client = proxy.client(FIRST)
    handshake(client)
    for target in ("a", "b"):
        assert proxy.state_of(client) == "connecting"
        server = proxy.accept(target)
        proxy.burst(error(_syn_of(server), UNREACHABLE, code, ROUTER, quoted=28), port=1)
    client.expect("RA", seq=1, ack=1)
    assert proxy.state.counters.targets[:2, OF_TARGET_UNREACHABLE].tolist() == [1, 1]
    assert proxy.state_of(client) == "free" and proxy.drops() == {}
    assert proxy.records()[0]["release"] == {"client": "ActiveRst", "target": "TargetUnreachable"}


def _syn_of(server):
    """The frame of the SYN that a target's End has taken, made again from its numbers."""
    return bytes(Ether(src=MACS[1], dst=mac_of(server.own[0])) / IP(src=server.other[0], dst=server.own[0], flags="DF")
                 / TCP(sport=server.other[1], dport=server.own[1], flags="S", seq=server.other_isn))


@pytest.mark.parametrize("kind, code, ends", [(UNREACHABLE, 1, True), (UNREACHABLE, 3, True), (TIME_EXCEEDED, 0, False)])
def test_rule_8_1_in_mode_simple_the_client_hears_of_its_own_syn(proxy, kind, code, ends):
    client = proxy.client(SIMPLE)
    frame = client.segment("S", options=[("Timestamp", (STAMP, 0))])
    proxy.burst(frame)
    [segment] = proxy.received[TARGETS["a"], _source(proxy)]
    proxy.received.clear()
    tell(proxy, segment, kind, code)
    outer, icmp, quote = heard(proxy, 0)
    assert (outer.src, icmp.type, icmp.code) == (ROUTER, kind, code) and quote == after_hops(frame[14:], 2)
    assert proxy.state_of(client) == ("free" if ends else "connecting")
    if ends:
        assert proxy.records()[0]["release"] == {"client": "ActiveRst", "target": "TargetUnreachable"}
        assert proxy.state.counters.targets[0, OF_TARGET_UNREACHABLE] == 1


def _source(proxy):
    """The address and port of ours from which the only SYN that waits has come."""
    [(_, source)] = [ends for ends, segments in proxy.received.items() if segments]
    return source


@settings(held_bytes=1024)
@pytest.mark.parametrize("way", ["up", "down"])
def test_rule_8_1_in_mode_simple_quotes_come_back_as_they_were_sent(proxy, way):
    client = proxy.client(SIMPLE)
    client.send("S", options=[("Timestamp", (STAMP, 0)), ("WScale", 7)])
    server = proxy.accept("a")
    server.send("SA", options=[("Timestamp", (9, STAMP)), ("WScale", 2)])
    client.expect("SA")
    client.send("A", options=options_of(STAMP + 1, 9))
    server.expect("A")
    origin, receiver = (client, server) if way == "up" else (server, client)
    frame, segment = sent(origin, receiver, options=options_of(STAMP + 2, 10))
    tell(proxy, segment, UNREACHABLE, FRAGMENTATION_NEEDED, mtu=1000)
    assert heard(proxy, origin.port)[2] == after_hops(frame[14:], 2)[:548]


@pytest.mark.parametrize("kind, code", [each for each in ERRORS if each not in [(3, code) for code in HARD]])
def test_rule_8_1_other_errors_about_our_syn_count_for_nothing(proxy, kind, code):
    client = proxy.client(FIRST)
    handshake(client)
    server = proxy.accept("a")
    proxy.burst(error(_syn_of(server), kind, code, ROUTER, quoted=28), port=1)
    assert proxy.state_of(client) == "connecting" and proxy.drops() == {"icmp_before_binding": 1}
    server.send("SA", mss=1460)
    server.expect("A", seq=1, ack=1)


def test_rule_8_1_a_hard_error_that_does_not_quote_our_syn_ends_nothing(proxy):
    client = proxy.client(FIRST)
    handshake(client)
    server = proxy.accept("a")
    for by in (-1, 1):
        server.other_isn += by
        proxy.burst(error(_syn_of(server), UNREACHABLE, 1, ROUTER, quoted=28), port=1)
        server.other_isn -= by
    assert proxy.state_of(client) == "connecting" and proxy.drops() == {"icmp_not_in_flight": 2}


def test_rule_8_1_an_error_about_our_syn_ack_has_nobody_to_hear_of_it(proxy):
    client = proxy.client(TURNS)
    client.send("S")
    segment = client.expect("SA")
    tell(proxy, segment, UNREACHABLE, 1)
    client.send("A")
    tell(proxy, segment, UNREACHABLE, 1)
    assert proxy.state_of(client) == "first_data" and proxy.drops() == {"icmp_before_binding": 2}


@settings(held_bytes=4096)
@pytest.mark.parametrize("mtu, segments", [(1400, (1360, 1240)), (1000, (960, 960, 680)), (300, (512,) * 5 + (40,)),
                                           (0, (1452, 1148))])
def test_rule_8_1_held_bytes_are_sent_again_in_segments_that_fit(proxy, mtu, segments):
    data = bytes(range(256)) * 10 + b"y" * 40
    client = proxy.client(TURNS)
    handshake(client)
    for start in range(0, len(data), 1300):
        client.send("PA", data[start:start + 1300])
    server = proxy.accept("a")
    server.send("SA", mss=1460)
    large = server.expect("A", seq=1, data=data[:1460])
    server.expect("PA", seq=1461, data=data[1460:])
    tell(proxy, large, UNREACHABLE, FRAGMENTATION_NEEDED, mtu=mtu)
    assert heard(proxy, 0)[2][24:28] == (client.isn + 1).to_bytes(4, "big")
    tell(proxy, large, UNREACHABLE, FRAGMENTATION_NEEDED, mtu=mtu)
    heard(proxy, 0)
    proxy.wait(0.02)
    at = 0
    for length in segments:
        last = at + length == len(data)
        if not proxy.received[server.own, server.other]:
            server.send("A", ack=1 + at)
            client.expect("A", ack=1 + at)
        server.expect("PA" if last else "A", seq=1 + at, data=data[at:at + length])
        at += length
    assert at == len(data) and proxy.count("path_mtu_lowered") == 1 and proxy.count("held_retransmitted") == 1
    server.send("A")
    client.expect("A", ack=1 + len(data))


def test_rule_8_1_a_larger_mtu_than_there_was_changes_nothing(proxy):
    client, server = bound(proxy)
    frame, segment = sent(client, server)
    tell(proxy, segment, UNREACHABLE, FRAGMENTATION_NEEDED, mtu=9000)
    assert heard(proxy, 0)[1].nexthopmtu == 9000 and proxy.count("path_mtu_lowered") == 0


@pytest.mark.parametrize("way", ["up", "down"])
@pytest.mark.parametrize("tag", [False, True])
def test_rule_8_1_a_packet_larger_than_the_mtu_is_answered_with_ours(proxy, way, tag):
    ends = bound(proxy)
    origin, receiver = ends if way == "up" else ends[::-1]
    proxy.state.network.mtu[receiver.port] = 1000
    frame = origin.segment("PA", b"x" * 961)
    proxy.burst(frame[:12] + b"\x81\0\0\0" + frame[12:] if tag else frame, port=origin.port)
    receiver.nothing()
    [answer] = proxy.taken_others(origin.port)
    assert answer[:12] == frame[6:12] + frame[:6]
    if tag:
        assert answer[12:16] == b"\x81\0\0\0"
        answer = answer[:12] + answer[16:]
    outer, icmp, quote = read_error(answer)
    assert (outer.src, outer.dst, outer.tos, outer.len) == (origin.other[0], origin.own[0], 0xC0, 576)
    assert (icmp.type, icmp.code, icmp.nexthopmtu) == (UNREACHABLE, FRAGMENTATION_NEEDED, 1000)
    assert quote == frame[14:14 + 548]
    assert proxy.drops() == {"larger_than_mtu": 1} and proxy.count("icmp_errors_sent") == 1
    origin.send("PA", b"x" * 960, seq=origin.seq - 961)
    receiver.expect("PA", data=b"x" * 960)


@pytest.mark.parametrize("ttl", [0, 1])
def test_rule_8_1_a_packet_whose_ttl_ends_is_answered(proxy, ttl):
    client, server = bound(proxy)
    frame = client.segment("PA", b"x", ttl=ttl)
    proxy.burst(frame)
    outer, icmp, quote = heard(proxy, 0)
    assert (icmp.type, icmp.code, icmp.unused) == (TIME_EXCEEDED, 0, 0) and quote == frame[14:]
    assert (outer.src, outer.dst) == (SERVICE, client.own[0])


@settings(reset_rate=3)
def test_rule_8_1_errors_of_our_own_are_limited_in_rate(proxy):
    client, server = bound(proxy)
    proxy.burst(*(client.segment("PA", b"x", ttl=1) for _ in range(5)))
    assert len(proxy.taken_others(0)) == 3 and proxy.drops() == {"ttl_exceeded": 5}
    proxy.wait(1)
    client.send("PA", b"x", ttl=1)
    assert len(proxy.taken_others(0)) == 1


def test_rule_8_1_our_own_mtu_counts_the_bytes_that_we_insert(proxy):
    client = proxy.client(TURNS)
    client.send("S", options=[("Timestamp", (STAMP, 0))])
    promised = dict(client.expect("SA").options)["Timestamp"][0]
    client.send("PA", b"hello", options=options_of(STAMP, promised))
    server = proxy.accept("a")
    server.send("SA", mss=1460)
    server.expect("PA", data=b"hello")
    server.send("A")
    client.expect("A", ack=6)
    frame = server.segment("PA", b"y" * 1449)
    proxy.burst(frame, port=1)
    outer, icmp, quote = heard(proxy, 1)
    assert icmp.nexthopmtu == 1488 and quote == frame[14:562]
    server.send("PA", b"y" * 1448, seq=server.seq - 1449)
    assert len(proxy.received[client.own, client.other].popleft().frame) == 1514
