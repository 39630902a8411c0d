"""Parse against scapy for what is well formed, and against a parser over bytes for what is not."""

import random
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from kernel_bed import CLIENT, CLIENT_MAC, SERVICE, KernelBed, address, generated, mac_text
from scapy.layers.inet import (
    ICMP,
    IP,
    TCP,
    UDP,
    IPOption_NOP,
    IPOption_Router_Alert,
    IPOption_Timestamp,
)
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Raw
from scapy.utils import checksum as scapy_checksum

from pipeline.kernels import parse
from pipeline.kernels.batch import DROP, KIND_ARP, KIND_ICMP, KIND_NONE, KIND_TCP, NO_FLOW, PENDING
from pipeline.kernels.checksum import data_start
from pipeline.kernels.counters import DROP_REASONS

BED = KernelBed()
MAC = BED.macs[0]
ETHER = Ether(src=mac_text(CLIENT_MAC), dst=mac_text(MAC))
TAG_VALUES = [0x8100, 0x88A8]


def reference(frame, held):
    """Returns why a frame is dropped, or what its columns hold (dict), by bytes; `held` lie in the first mbuf."""
    if held < 14:
        return "runt_frame"
    destination, kind, at = frame[:6], frame[12:14], 14
    if int.from_bytes(kind, "big") in TAG_VALUES:
        if held < 18:
            return "runt_frame"
        if int.from_bytes(frame[14:16], "big") & 0xFFF:
            return "other_vlan"
        kind, at = frame[16:18], 18
    broadcast_arp = kind == b"\x08\x06" and destination == b"\xff" * 6
    if destination != MAC.to_bytes(6, "big") and not broadcast_arp:
        return "other_mac"
    if kind == b"\x08\x06":
        return {"kind": KIND_ARP, "network": at} if held >= at + 28 else "arp_invalid"
    return reference_ipv4(frame, held, at) if kind == b"\x08\x00" else "other_ethertype"


def reference_ipv4(frame, held, at):
    """The part of `reference` from the IPv4 header at byte `at` on."""
    header = (frame[at] & 15) * 4 if held > at else 0
    if held < at + 20 or frame[at] >> 4 != 4 or header < 20 or held < at + header:
        return "ipv4_header"
    total, protocol = int.from_bytes(frame[at + 2 : at + 4], "big"), frame[at + 9]
    if total < header or at + total > len(frame):
        return "ipv4_length"
    if scapy_checksum(frame[at : at + header]) != 0:
        return "ipv4_checksum"
    if int.from_bytes(frame[at + 6 : at + 8], "big") & 0x3FFF:
        return "fragment"
    found = {
        "network": at,
        "transport": at + header,
        "payload_length": total - header,
        "source": int.from_bytes(frame[at + 12 : at + 16], "big"),
        "destination": int.from_bytes(frame[at + 16 : at + 20], "big"),
    }
    if protocol == 6:
        return reference_tcp(frame, held, found)
    if protocol != 1:
        return "other_protocol"
    whole = held == len(frame)
    return {**found, "kind": KIND_ICMP} if total - header >= 8 and whole else "icmp_invalid"


def reference_tcp(frame, held, found):
    """The part of `reference` from the TCP header on."""
    at = found["transport"]
    available = min(found["payload_length"], held - at)
    if available < 20 or not 20 <= (frame[at + 12] >> 4) * 4 <= available:
        return "tcp_header"
    header = (frame[at + 12] >> 4) * 4
    ports_and_numbers = struct.unpack_from(">HHIIBBH", frame, at)
    names = ("source_port", "destination_port", "seq", "ack", None, "control", "window")
    found.update({name: value for name, value in zip(names, ports_and_numbers, strict=True) if name})
    found.update(kind=KIND_TCP, payload=at + header, payload_length=found["payload_length"] - header)
    found["mss"] = reference_mss(frame[at + 20 : at + header]) if found["control"] & 2 else 0
    return found


def reference_mss(options):
    while options and options[0] != 0:
        if options[0] == 1:
            options = options[1:]
        elif len(options) < 2 or not 2 <= options[1] <= len(options):
            return 0
        elif options[:2] == b"\x02\x04":
            return int.from_bytes(options[2:4], "big")
        else:
            options = options[options[1] :]
    return 0


def parsed(frame, segment_length=None):
    """Returns why the kernel dropped a frame, or its columns, offsets from the frame's start."""
    BED.counters.drops[:] = 0
    BED.counters.notices[:] = 0
    count = BED.parse([frame], 0, segment_length)
    assert count == 1 and BED.batch.port[0] == BED.batch.out_port[0] == 0 and BED.batch.flow[0] == NO_FLOW
    row = {name: int(column[0]) for name, column in BED.batch._asdict().items()}
    start = int(data_start(BED.packets, BED.base, int(BED.batch.mbuf[0])))
    for name in ("network", "transport", "payload"):
        row[name] -= start
    assert row["frame"] == start
    BED.free(1)
    if row["verdict"] == DROP:
        assert row["kind"] == KIND_NONE and int(BED.counters.drops.sum()) == 1
        return next(iter(BED.drops))
    assert row["verdict"] == PENDING and not BED.drops
    return row


def agrees(frame, segment_length=None):
    """Asserts that kernel and reference say the same of a frame; returns what."""
    held = min(len(frame), segment_length or 2048)
    expected, found = reference(frame, held), parsed(frame, segment_length)
    if isinstance(expected, str) or isinstance(found, str):
        assert found == expected
    else:
        assert {name: found[name] for name in expected} == expected
    return found


OPTIONS = st.lists(
    st.sampled_from(
        [
            ("NOP", None),
            ("MSS", 1460),
            ("MSS", 65535),
            ("WScale", 7),
            ("SAckOK", b""),
            ("Timestamp", (1, 2)),
            (254, b"abc"),
            ("EOL", None),
        ]
    ),
    max_size=4,
)
IP_OPTIONS = st.sampled_from(
    [[], [IPOption_Router_Alert()], [IPOption_NOP()] * 4, [IPOption_Timestamp(), IPOption_NOP()]]
)
FRAMES = st.builds(
    lambda tag, options, ip_options, payload, padding, tcp: (
        bytes(
            (ETHER / Dot1Q(vlan=0, prio=tag) if tag is not None else ETHER)
            / IP(src=CLIENT, dst=SERVICE, options=ip_options)
            / TCP(options=options, **tcp)
            / payload
        )
        + padding
    ),
    st.one_of(st.none(), st.integers(0, 7)),
    OPTIONS,
    IP_OPTIONS,
    st.binary(max_size=60),
    st.binary(max_size=8),
    st.fixed_dictionaries(
        {
            "sport": st.integers(0, 65535),
            "dport": st.integers(0, 65535),
            "seq": st.integers(0, 2**32 - 1),
            "ack": st.integers(0, 2**32 - 1),
            "flags": st.integers(0, 255),
            "window": st.integers(0, 65535),
        }
    ),
)


@generated
@given(FRAMES, st.one_of(st.none(), st.integers(138, 200)))
def test_columns_hold_what_scapy_reads(frame, segment_length):
    packet, row = Ether(frame), parsed(frame, segment_length)
    ip, tcp = packet[IP], packet[TCP]
    assert (row["kind"], row["source"], row["destination"]) == (KIND_TCP, address(ip.src), address(ip.dst))
    assert (row["source_port"], row["destination_port"], row["seq"], row["ack"], row["control"], row["window"]) == (
        tcp.sport,
        tcp.dport,
        tcp.seq,
        tcp.ack,
        int(tcp.flags) & 0xFF,
        tcp.window,
    )
    payload = bytes(tcp.payload)[: ip.len - 4 * ip.ihl - 4 * tcp.dataofs]
    assert frame[row["payload"] : row["payload"] + row["payload_length"]] == payload
    notices = BED.notices
    assert notices.get("vlan_priority_tag", 0) == (Dot1Q in packet) and notices.get("ipv4_options", 0) == (ip.ihl > 5)
    assert notices.get("several_segments", 0) == (segment_length is not None and len(frame) > segment_length)
    named = [value for name, value in tcp.options if name == "MSS"]
    agreed = agrees(frame, segment_length)["mss"]
    assert agreed == (named[0] if named and tcp.flags.S else 0)


@generated
@given(FRAMES, st.data())
def test_a_frame_with_changed_octets_gets_the_verdict_of_the_reference(frame, data):
    frame = bytearray(frame)
    for _ in range(data.draw(st.integers(1, 3))):
        frame[data.draw(st.integers(0, min(len(frame), 74) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        frame = frame[: data.draw(st.integers(0, len(frame)))]
    if data.draw(st.booleans()):
        mend_ipv4_checksum(frame)
    agrees(bytes(frame), data.draw(st.one_of(st.none(), st.integers(16, 120))) if len(frame) < 900 else None)


def mend_ipv4_checksum(frame):
    """Makes the checksum of an IPv4 header right, so that what lies behind it is reached."""
    at = 18 if frame[12:14] == b"\x81\x00" else 14
    if len(frame) >= at + 20:
        header = max((frame[at] & 15) * 4, 20)
        frame[at + 10 : at + 12] = b"\0\0"
        frame[at + 10 : at + 12] = scapy_checksum(bytes(frame[at : at + header])).to_bytes(2, "big")


@generated
@given(
    st.binary(max_size=120),
    st.booleans(),
    st.sampled_from([b"\x08\x00", b"\x08\x06", b"\x81\x00", b"\x88\xa8", b"\x86\xdd"]),
)
@example(b"", False, b"")
def test_random_octets_get_the_verdict_of_the_reference(octets, to_us, kind):
    agrees(MAC.to_bytes(6, "big") + octets[:6].ljust(6) + kind + octets[6:] if to_us else octets)


@pytest.mark.parametrize("length", range(0, 75))
def test_a_frame_cut_anywhere_is_dropped_for_its_first_missing_part(length):
    whole = BED.segment(
        b"0123456789", options=[("MSS", 1460), ("NOP", None), ("WScale", 7)], flags="S", tag={"prio": 3, "vlan": 0}
    )
    assert length < len(whole)
    found = agrees(whole[:length])
    assert found == ("runt_frame" if length < 18 else "ipv4_header" if length < 38 else "ipv4_length")


MAL_FORMED = {
    "other_mac": bytes(Ether(dst="02:00:00:00:00:77") / IP() / TCP()),
    "other_ethertype": bytes(ETHER / Raw(bytes(60)))[:12] + b"\x86\xdd" + bytes(46),
    "other_vlan": bytes(ETHER / Dot1Q(vlan=5) / IP() / TCP()),
    "ipv4_header": bytes(ETHER / IP(version=5) / TCP()),
    "ipv4_length": bytes(ETHER / IP(len=200) / TCP()),
    "ipv4_checksum": bytes(ETHER / IP(chksum=0x1234) / TCP()),
    "fragment": bytes(ETHER / IP(flags="MF") / TCP()),
    "other_protocol": bytes(ETHER / IP() / UDP()),
    "tcp_header": bytes(ETHER / IP() / TCP(dataofs=15)),
    "arp_invalid": bytes(Ether(dst="ff:ff:ff:ff:ff:ff", type=0x0806) / Raw(bytes(27))),
    "icmp_invalid": bytes(ETHER / IP(proto=1) / Raw(bytes(7))),
}
MORE_MAL_FORMED = [
    ("ipv4_header", bytes(ETHER / IP(ihl=4) / TCP())),
    ("ipv4_header", bytes(ETHER / IP(ihl=15) / TCP())[:60]),
    ("ipv4_length", bytes(ETHER / IP(len=19) / TCP())),
    ("ipv4_length", bytes(ETHER / IP(len=0) / TCP())),
    ("fragment", bytes(ETHER / IP(frag=3) / TCP())),
    ("tcp_header", bytes(ETHER / IP() / TCP(dataofs=4))),
    ("tcp_header", bytes(ETHER / IP(len=39) / TCP())),
    ("other_vlan", bytes(ETHER / Dot1Q() / Dot1Q(vlan=1) / IP())[:14] + b"\x0f\xff" + bytes(60)),
    ("other_ethertype", bytes(ETHER / Dot1Q(vlan=0) / Dot1Q(vlan=0) / IP() / TCP())),
    ("other_mac", bytes(Ether(dst="ff:ff:ff:ff:ff:ff") / IP() / TCP())),
    ("runt_frame", b""),
]


@pytest.mark.parametrize(
    ("reason", "frame"),
    [*MAL_FORMED.items(), *MORE_MAL_FORMED],
    ids=[*MAL_FORMED, *(f"{reason}_again_{number}" for number, (reason, _) in enumerate(MORE_MAL_FORMED))],
)
def test_what_is_malformed_is_counted_under_its_reason(reason, frame):
    assert agrees(frame) == reason


@pytest.mark.parametrize("length", [40, 41, 44, 45, 46, 50])
def test_the_length_of_the_ip_header_decides_what_is_payload(length):
    """44 octets of IP packet, and 5 of padding behind it."""
    found = agrees(bytes(ETHER / IP(len=length) / TCP() / b"data") + bytes(5))
    assert found == "ipv4_length" if length == 50 else found["payload_length"] == length - 40


@pytest.mark.parametrize(
    ("options", "mss"),
    [
        (b"\x02\x04\x05\xb4", 1460),
        (b"\x01\x01\x01\x02\x04\x05\xb4\x00", 1460),
        (b"\x00\x02\x04\x05\xb4\x00\x00\x00", 0),
        (b"\x05\x01\x02\x04\x05\xb4\x00\x00", 0),
        (b"\x05\x00\x02\x04\x05\xb4\x00\x00", 0),
        (b"\x02\x04\x05\xb4\x02\x04\x00\x01", 1460),
        (b"\x01\x01\x02\x04", 0),
        (b"\x01\x01\x01\x02", 0),
        (b"\x02\x03\x05\x00", 0),
        (b"\x02\x06\x05\xb4\x01\x01\x00\x00", 0),
        (b"\x03\x03\x07\x02\x04\x05\xb4\x00", 1460),
        (b"\x02\x04\x00\x00", 0),
        (b"\x02\x04\xff\xff", 65535),
    ],
)
def test_the_mss_option_among_others(options, mss):
    frame = ETHER / IP() / TCP(flags="S", dataofs=5 + len(options) // 4) / options
    assert agrees(bytes(frame))["mss"] == mss


def test_kinds_and_the_order_of_rows_of_a_mixed_burst():
    BED.counters.drops[:] = 0
    frames = [
        BED.segment(b"x"),
        bytes(Ether(dst="ff:ff:ff:ff:ff:ff") / ARP()),
        bytes(ETHER / IP(dst=SERVICE) / ICMP(id=4)),
        MAL_FORMED["ipv4_length"],
        bytes(ETHER / ARP()),
        BED.segment(tag={"prio": 1, "vlan": 0}),
    ]
    count = BED.parse(frames, port=0)
    assert BED.batch.kind[:count].tolist() == [KIND_TCP, KIND_ARP, KIND_ICMP, KIND_NONE, KIND_ARP, KIND_TCP]
    assert BED.batch.verdict[:count].tolist() == [PENDING] * 3 + [DROP] + [PENDING] * 2
    BED.free(count)


def test_headers_in_a_second_mbuf_are_refused_not_read_past_the_first():
    frame = BED.segment(bytes(100), options=[("MSS", 1460)], flags="S")
    for first in range(14, len(frame)):
        found = agrees(frame, first)
        if first < 34:
            assert found == "ipv4_header"
        elif first < 58:
            assert found == "tcp_header"
        else:
            assert found["payload_length"] == 100


MBUF_LIES = {
    "packet_length": lambda mbuf: setattr(mbuf, "packet_length", mbuf.packet_length + 1),
    "data_length": lambda mbuf: setattr(mbuf, "data_length", 60000),
    "data_off": lambda mbuf: setattr(mbuf, "data_off", 65535),
    "buffer_address": lambda mbuf: setattr(mbuf, "buffer_address", BED.base + len(BED.arena.octets)),
    "below": lambda mbuf: setattr(mbuf, "buffer_address", BED.base - 4096),
}


@pytest.mark.parametrize("lie", MBUF_LIES)
@pytest.mark.parametrize("segment_length", [None, 60])
def test_an_mbuf_that_lies_is_dropped(lie, segment_length):
    bed = KernelBed(mbufs=32) if lie not in ("buffer_address", "below") else BED
    bed.counters.drops[:] = 0
    count = bed.write([bed.segment(bytes(100))], segment_length)
    mbuf = bed.arena.native.mbuf[int(bed.batch.mbuf[0])]
    before = mbuf.copy()
    if lie == "data_off":
        mbuf.buffer_address = bed.base + len(bed.arena.octets) - 2176
    MBUF_LIES[lie](mbuf)
    parse_count = parse_as_written(bed, count)
    assert parse_count == 1 and bed.drops == {"mbuf_chain": 1}
    bed.arena.native.mbuf[int(bed.batch.mbuf[0])] = before
    bed.free(count)


def parse_as_written(bed, count):
    """Parses what lies in the batch's mbufs."""
    parse.parse(bed.packets, bed.base, bed.batch, count, 0, bed.state.network, bed.counters)
    return count


@pytest.mark.parametrize("following", ["outside", "itself", "missing", "count"])
def test_a_chain_that_is_not_whole_is_dropped(following):
    bed = KernelBed(mbufs=32)
    count = bed.write([bed.segment(bytes(100))], 80)
    first = int(bed.batch.mbuf[0])
    mbuf = bed.arena.native.mbuf[first]
    if following == "count":
        mbuf.segments = 3
    else:
        mbuf.next = {"outside": bed.base + len(bed.arena.octets), "itself": bed.base + first, "missing": 0}[following]
    parse_as_written(bed, count)
    assert bed.drops == {"mbuf_chain": 1} and bed.batch.verdict[0] == DROP


def test_a_frame_of_64_kib_in_many_mbufs_is_read():
    payload = random.Random(1).randbytes(65535 - 40)
    frame = BED.segment(payload)
    found = parsed(frame)
    assert found["payload_length"] == len(payload) and found["kind"] == KIND_TCP
    assert BED.notices["several_segments"] == 1


def test_every_reason_that_parse_can_give_was_given_in_this_file():
    given_here = {*MAL_FORMED, "runt_frame", "mbuf_chain"}
    imported = {name for name in DROP_REASONS if hasattr(parse, f"DROP_{name.upper()}")}
    assert imported == given_here
