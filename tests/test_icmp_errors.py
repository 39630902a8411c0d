"""ICMP errors, kernel by kernel: any packet that was translated, quoted to any length, comes back as it was sent; garbage
is neither passed nor read beyond its frame (SPLICE 8.1)."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from kernel_bed import NOW, KernelBed, generated, mac_text
from scapy.layers.inet import ICMP, IP, IPOption_Router_Alert
from scapy.layers.l2 import Ether
from scapy.utils import checksum

from pipeline.kernels.batch import ANSWER, DROP, FORWARD, PENDING
from pipeline.kernels.connection import AGED, ESTABLISHED, FREE, OPENS, SPECIAL, SPLICED, STAMPED
from pipeline.kernels.flow_hash import hash_key
from pipeline.kernels.flow_table import insert, remove
from pipeline.kernels.icmp import answer_icmp
from pipeline.kernels.icmp_errors import pass_icmp_errors
from pipeline.kernels.parse import parse
from pipeline.kernels.report import report
from pipeline.kernels.rewrite import rewrite

BED = KernelBed()
OTHER_MACS = (0x02CC00000001, 0x02DD00000002)
LEFT, RIGHT = BED.knows("10.1.0.99", 0, OTHER_MACS[0]), BED.knows("10.2.0.99", 1, OTHER_MACS[1])
OURS = ("10.1.0.1", "10.2.0.1")
REMOTE = ("10.1.0.2", "10.2.0.11")
ROUTER = "172.16.0.1"
CONNECTION = 3
NUMBER, PORT_NUMBER = st.integers(0, 2**32 - 1), st.integers(0, 65535)
EDGES = st.one_of(st.sampled_from([0, 1, 0xFFFF, 0x10000, 0xFFFFFFFF, 0x80000000]), NUMBER)
PAIR = st.tuples(PORT_NUMBER, PORT_NUMBER)
FIELDS = st.fixed_dictionaries(
    {
        "remote_port": PAIR,
        "local_port": PAIR,
        "shift": st.tuples(EDGES, EDGES),
        "timestamp_shift": EDGES,
        "options": st.sampled_from([SPLICED, SPLICED | STAMPED]),
    }
)
SEGMENTS = st.fixed_dictionaries(
    {
        "seq": EDGES,
        "ack": EDGES,
        "window": PORT_NUMBER,
        "flags": st.integers(0, 255),
        "options": st.lists(
            st.one_of(
                st.just(("NOP", None)),
                st.tuples(st.just("Timestamp"), st.tuples(NUMBER, NUMBER)),
                st.tuples(st.just("SAck"), st.tuples(NUMBER, NUMBER)),
            ),
            max_size=3,
            unique_by=lambda option: option[0],
        ),
    }
)
LIKE_OPTIONS = b"\x01\x01\x08\x0a12345678\x01\x01\x05\x0a12345678\0\0"
LENGTHS = st.one_of(st.sampled_from([28, 31, 32, 35, 36, 37, 38, 39, 40, 41, 51, 52, 60]), st.integers(28, 160))
AGED_FIELDS = {"remote_port": (1, 2), "local_port": (3, 4), "shift": (5, 0xFFFFFFF0), "timestamp_shift": 0x89ABCDEF,
               "options": SPLICED | STAMPED}
AGED_SEGMENT = {"seq": 5, "ack": 6, "window": 7, "flags": 0x10, "options": [("Timestamp", (8, 9)), ("SAck", (10, 11))]}
KINDS = st.sampled_from([(3, code) for code in range(16)] + [(11, 0), (11, 1), (12, 0)])


def text(address):
    """Returns an IPv4 address in text as an int."""
    return int.from_bytes(bytes(map(int, address.split("."))), "big")


class Bound:
    """A bound connection with these fields of `hot`; a context manager: its keys are in the flow table meanwhile."""

    def __init__(self, fields, special=0):
        self.hot, cold = BED.connections.hot[CONNECTION], BED.connections.cold[CONNECTION]
        for name, values in fields.items():
            self.hot[name] = values
        self.hot.remote_address, self.hot.local_address = list(map(text, REMOTE)), list(map(text, OURS))
        self.hot.neighbour, self.hot.state, self.hot.scales = (LEFT, RIGHT), ESTABLISHED, 0
        self.hot.options |= SPECIAL if special else 0
        cold.special, cold.stamp_shift = special | OPENS, 0
        cold.opening, BED.connections.openings[5].mss = 5, (1460, 1460)

    def __enter__(self):
        self.keys = [
            (hash_key(text(REMOTE[side]), text(OURS[side]), int(self.hot.remote_port[side]), int(self.hot.local_port[side])),
             2 * CONNECTION + side)
            for side in (0, 1)
        ]
        assert all(insert(BED.connections.buckets, *key) for key in self.keys)
        return self.hot

    def __exit__(self, *_):
        assert all(remove(BED.connections.buckets, *key) for key in self.keys)
        self.hot.state = FREE


def segment_of(hot, side, payload, tcp):
    """Returns a frame that the end of a side sends to us."""
    return BED.segment(payload, REMOTE[side], OURS[side], port=side,
                       sport=int(hot.remote_port[side]), dport=int(hot.local_port[side]), **tcp)


def translated(frame, side):
    """Returns what rewrite makes of a frame from a side."""
    BED.parse([frame], side)
    assert BED.batch.verdict[0] == PENDING
    BED.batch.flow[0], BED.batch.verdict[0] = 2 * CONNECTION + side, FORWARD
    rewrite(BED.packets, BED.state.base[0], BED.batch, 1, BED.connections, BED.state.network, NOW)
    found = BED.frame(0)
    BED.free(1)
    return found


def icmp_frame(port, kind, code, rest, quote, options=()):
    """Returns the frame of an ICMP error to our address on a port; `rest` are bytes 4 to 7 of its header."""
    body = bytes([kind, code, 0, 0]) + rest + quote
    body = body[:2] + checksum(body).to_bytes(2, "big") + body[4:]
    return bytes(Ether(src=mac_text(OTHER_MACS[port]), dst=mac_text(BED.macs[port]))
                 / IP(src=ROUTER, dst=OURS[port], proto=1, options=list(options)) / body)


def passed(frame, port, behind=0):
    """Has one error dealt with; returns verdict, frame and drops. `behind` fills the buffer behind it."""
    BED.counters.drops[:] = 0
    count = BED.write([frame])
    mbuf = int(BED.batch.mbuf[0])
    head = BED.arena.native.mbuf[mbuf]
    start = int(head.buffer_address) - int(BED.state.base[0])
    end = start + int(head.data_off) + len(frame)
    BED.packets.octets[end:start + int(head.buffer_length)] = behind
    parse(BED.packets, BED.base, BED.batch, count, port, BED.state.network, BED.counters)
    answer_icmp(BED.packets, BED.batch, count, BED.state.network, BED.counters)
    pass_icmp_errors(BED.packets, BED.batch, count, BED.connections, BED.state.network, NOW)
    found, verdict = BED.frame(0), int(BED.batch.verdict[0])
    assert (BED.packets.octets[end:start + int(head.buffer_length)] == behind).all(), "written behind the frame"
    BED.free(count)
    return verdict, found, BED.drops


def in_flight(hot, side, seq):
    """Makes a number that the end of a side has sent, in its own numbers, one that is in flight."""
    hot.next[side] = (seq + 1) % 2**32
    hot.acked[1 - side] = (seq + int(hot.shift[side])) % 2**32


def sealed(packet, like):
    """Returns an IPv4 packet (bytes) with the TTL of another one, its header checksum made right."""
    header = bytearray(packet[:4 * (packet[0] & 15)])
    header[8] = like[8]
    header[10:12] = b"\0\0"
    header[10:12] = checksum(bytes(header)).to_bytes(2, "big")
    return bytes(header) + packet[len(header):]


@generated
@given(FIELDS, SEGMENTS, st.integers(0, 1), st.one_of(st.binary(max_size=90), st.just(LIKE_OPTIONS)), KINDS, LENGTHS,
       st.booleans(), st.one_of(st.none(), EDGES))
@example(AGED_FIELDS, AGED_SEGMENT, 0, b"x" * 40, (3, 4), 80, False, 12345)
@example(AGED_FIELDS, AGED_SEGMENT, 1, b"x" * 40, (3, 4), 80, False, 12345)
def test_any_quote_of_a_translated_packet_comes_back_as_it_was_sent(
        fields, tcp, side, payload, what, cut, with_options, aged):
    with Bound(fields, 0 if aged is None else AGED) as hot:
        BED.connections.cold[CONNECTION].stamp_shift = aged or 0
        in_flight(hot, side, tcp["seq"])
        frame = segment_of(hot, side, payload, tcp)
        quoted = translated(frame, side)[14:]
        length = min(cut, len(quoted))
        options = [IPOption_Router_Alert()] if with_options else []
        error = icmp_frame(1 - side, *what, b"\0\0\x03\xe8", quoted[:length], options)
        verdict, found, drops = passed(error, 1 - side)
        assert verdict == ANSWER and drops == {} and BED.batch.out_port[0] == side
        ether = Ether(found)
        at = 14 + 4 * ether[IP].ihl
        assert (ether.src, ether.dst) == (mac_text(BED.macs[side]), mac_text(OTHER_MACS[side]))
        assert (ether[IP].src, ether[IP].dst, ether[IP].ttl) == (ROUTER, REMOTE[side], 63)
        assert checksum(found[14:at]) == 0 and checksum(found[at:]) == 0
        assert found[at:at + 2] == bytes(what) and found[at + 4:at + 8] == b"\0\0\x03\xe8"
        assert _comparable(found[at + 8:]) == _comparable(sealed(frame[14:], quoted)[:length])


def _comparable(quote):
    """A quote with the two zeros of one's complement taken for the same checksum. Without the checksum and what follows
    it where the header is not quoted whole: it covers options that could not be translated. Nor without half a number."""
    whole = len(quote) >= 40 and len(quote) >= 20 + (quote[32] >> 4) * 4
    return quote[:36 if len(quote) >= 32 else 28] + (quote[36:38].replace(b"\xff\xff", b"\0\0") + quote[38:] if whole else b"")


@generated
@given(FIELDS, st.integers(0, 1), KINDS, st.binary(min_size=4, max_size=4), st.binary(max_size=100), st.data())
def test_garbage_is_read_to_its_end_and_no_further(fields, side, what, rest, garbage, data):
    tcp = {"seq": 5, "ack": 6, "options": [("Timestamp", (7, 8)), ("SAck", (9, 10))]}
    with Bound(fields) as hot:
        in_flight(hot, side, 5)
        quote = bytearray(translated(segment_of(hot, side, garbage, tcp), side)[14:])
        for _ in range(data.draw(st.integers(0, 3))):
            at = data.draw(st.integers(0, min(len(quote), 80) - 1))
            quote[at] = data.draw(st.integers(0, 255))
        quote = bytes(quote[:data.draw(st.integers(0, len(quote)))]) if data.draw(st.booleans()) else garbage
        error = icmp_frame(1 - side, *what, rest, quote)
        verdict, found, drops = passed(error, 1 - side, 0)
        assert (verdict, found, drops) == passed(error, 1 - side, 0xFF)
        if verdict == DROP:
            assert found == error and sum(drops.values()) == 1
        else:
            assert verdict == ANSWER and len(found) == len(error) and checksum(found[34:]) == 0


@generated
@given(FIELDS, SEGMENTS, st.integers(0, 1), st.integers(0, 1500), st.integers(0, 255), st.booleans())
def test_a_packet_that_cannot_go_on_is_quoted_as_it_was_sent(fields, tcp, side, size, ttl, tagged):
    with Bound(fields) as hot:
        frame = segment_of(hot, side, b"z" * size, {**tcp, "ip": {"ttl": ttl}})
        if tagged:
            frame = frame[:12] + b"\x81\0\xe0\0" + frame[12:]
        BED.state.budget[0] = 1
        BED.state.network.mtu[:] = 600, 700
        BED.parse([frame], side)
        BED.batch.flow[0], BED.batch.verdict[0] = 2 * CONNECTION + side, FORWARD
        rewrite(BED.packets, BED.state.base[0], BED.batch, 1, BED.connections, BED.state.network, NOW)
        report(BED.packets, BED.batch, 1, BED.connections, BED.state.network)
        found, verdict = BED.frame(0), int(BED.batch.verdict[0])
        BED.state.network.mtu[:] = 1500
        at = 18 if tagged else 14
        mtu = (600, 700)[1 - side]
        if ttl > 1 and len(frame) - at <= mtu:
            assert verdict == FORWARD and BED.state.budget[0] == 1
        else:
            assert verdict == ANSWER and BED.state.budget[0] == 0 and BED.batch.out_port[0] == side
            assert found[:12] == frame[6:12] + frame[:6] and found[12:at] == frame[12:at]
            ip = IP(found[at:])
            assert checksum(found[at:at + 20]) == 0 and checksum(found[at + 20:]) == 0 and ip.len == len(found) - at <= 576
            expected = (11, 0, 0) if ttl <= 1 else (3, 4, mtu)
            assert (ip[ICMP].type, ip[ICMP].code, int.from_bytes(found[at + 26:at + 28], "big")) == expected
            assert found[at + 28:] == frame[at:at + 548] and (ip.src, ip.dst) == (OURS[side], REMOTE[side])
        BED.free(1)


@pytest.mark.parametrize("segment_length, headroom", [(100, 128), (None, 20)])
def test_a_packet_without_room_for_an_error_is_only_dropped(segment_length, headroom):
    with Bound({"shift": (0, 0), "options": SPLICED}) as hot:
        BED.state.budget[0] = 1
        frame = segment_of(hot, 0, b"z" * 700, {"ip": {"ttl": 1}})
        BED.parse([frame], 0, segment_length)
        BED.batch.flow[0], BED.batch.verdict[0] = 2 * CONNECTION, FORWARD
        BED.arena.native.mbuf[int(BED.batch.mbuf[0])].data_off = headroom
        rewrite(BED.packets, BED.state.base[0], BED.batch, 1, BED.connections, BED.state.network, NOW)
        report(BED.packets, BED.batch, 1, BED.connections, BED.state.network)
        assert BED.batch.verdict[0] == DROP and BED.state.budget[0] == 1
        BED.free(1)
