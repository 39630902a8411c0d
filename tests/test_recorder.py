"""The recorder in the loop: what it keeps, what it leaves out, and what it does when nobody takes its blocks; filters."""
import ctypes

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_bed import KernelBed, generated
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.l2 import ARP, Dot1Q, Ether

from pipeline import packet_filter
from pipeline.errors import ConfigurationError
from pipeline.kernels import recorder
from pipeline.kernels.recorder import allocate_recorder, begin_burst, end_burst, keep
from pipeline.recorders import last_block, taken_blocks

BLOCK = 4096


def burst(bed, blocks, frames, now, segment_length=None):
    """Records a burst of frames, as `record` of the loop does; says whether it found room."""
    count = bed.write(frames, segment_length)
    if not begin_burst(blocks, count, now):
        bed.free(count)
        return False
    number, octets = int(blocks.filled[recorder.PACKETS]), int(blocks.filled[recorder.OCTETS])
    for row in range(count):
        octets = keep(blocks, bed.packets, bed.base, bed.batch.mbuf[row], number, octets)
        number += 1
    end_burst(blocks, number, octets, count, 1, recorder.RECEIVED, 0, 7, now)
    bed.free(count)
    return True


@pytest.fixture(scope="module")
def bed():
    """Packet memory."""
    return KernelBed()


@generated
@given(bursts=st.lists(st.lists(st.binary(min_size=14, max_size=300), max_size=6), max_size=9), snap=st.sampled_from([14, 60, 128, 4096]),
       segment=st.sampled_from([None, 14, 50]))
def test_packets_are_kept_up_to_the_snap_length(bed, bursts, snap, segment):
    blocks = allocate_recorder(1 << 20, snap, block=BLOCK)
    found = []
    for number, frames in enumerate(bursts):
        assert burst(bed, blocks, frames, 1000 + number, segment)
        found += [[block.frame(row) for row in range(len(block.packets))] for block in taken_blocks(blocks, 0)]
    block = last_block(blocks, 0)
    found.append([block.frame(row) for row in range(len(block.packets))])
    assert [frame for frames in found for frame in frames] == [frame[:snap] for frames in bursts for frame in frames]
    assert list(blocks.counted[:2]) == [sum(map(len, bursts)), 0]


def test_what_finds_no_block_is_dropped_and_counted_and_the_rest_goes_on(bed):
    blocks = allocate_recorder(1, 128, block=1)
    most = int(blocks.shape[recorder.BLOCKS])
    frames = [bytes([number]) * 128 for number in range(64)]
    kept = sum(burst(bed, blocks, frames, 10) for _ in range(40))
    assert kept < 40 and blocks.counted[recorder.DROPPED] == 64 * (40 - kept) and blocks.counted[recorder.DROPPED_BURSTS] == 40 - kept
    there = [block.packets.copy() for block in taken_blocks(blocks, 0)]
    assert len(there) == most - 1 and burst(bed, blocks, frames, 11)
    assert last_block(blocks, 0).dropped == 64 * (40 - kept)


@settings(max_examples=30, deadline=None)
@given(lags=st.lists(st.integers(0, 6), min_size=20, max_size=60))
def test_blocks_come_in_order_however_late_they_are_taken_and_given_back(bed, lags):
    blocks, found, recorded = allocate_recorder(1, 128, block=1), [], []
    for number, lag in enumerate(lags):
        frames = [bytes([number, row]) * 40 for row in range(60)]
        if burst(bed, blocks, frames, number):
            recorded += frames
        for _ in range(min(lag, int(blocks.head[0] - blocks.tail[0]))):
            block = next(taken_blocks(blocks, 0))
            found += [block.frame(row) for row in range(len(block.packets))]
            blocks.tail[0] += 1
        assert blocks.free[1] + blocks.head[0] - blocks.free[0] + 1 == len(blocks.order)
    for block in [*taken_blocks(blocks, 0), last_block(blocks, 0)]:
        found += [block.frame(row) for row in range(len(block.packets))]
    assert len(recorded) > 60 and found == recorded


def test_the_block_given_back_last_is_filled_next(bed):
    blocks = allocate_recorder(1 << 20, 128, block=1)
    for number in range(40):
        assert burst(bed, blocks, [bytes(60)] * 64, number)
        assert len(list(taken_blocks(blocks, 0))) <= 1
    handed = int(blocks.head[0])
    assert 4 < handed < len(blocks.order) and set(blocks.order[:handed].tolist()) == {0, 1}


def test_a_limit_ends_the_recording(bed):
    blocks = allocate_recorder(1 << 20, 128, limit=5)
    assert burst(bed, blocks, [bytes(60)] * 5, 10)
    assert not burst(bed, blocks, [bytes(60)], 11) and not begin_burst(blocks, 0, 12)
    assert blocks.counted[recorder.DROPPED] == 0


def test_a_block_is_handed_over_after_a_second_though_it_is_not_full(bed):
    blocks = allocate_recorder(1 << 20, 128)
    assert burst(bed, blocks, [bytes(60)], 10) and not list(taken_blocks(blocks, 0))
    assert burst(bed, blocks, [bytes(60)], 10 + recorder.STALE + 1)
    assert [len(block.packets) for block in taken_blocks(blocks, 0)] == [1]


EXPRESSIONS = ("tcp", "tcp port 80", "host 10.1.0.2 and not port 80", "src net 10.1.0.0/16 and dst portrange 80-443", "arp or icmp",
               "tcp[tcpflags] & (tcp-syn|tcp-fin) != 0", "vlan 5 and tcp", "greater 100", "udp[4:2] > 20 or ip[6:2] & 0x4000 != 0",
               "tcp[((tcp[12] & 0xf0) >> 2):2] = 0x4745", "len % 7 = 3 and ip[8] * 2 - 1 > 60")
ADDRESS = st.sampled_from(["10.1.0.2", "10.1.0.1", "10.2.0.9"])
PORT = st.sampled_from([80, 443, 22, 40000])
LAYERS = {"tcp": lambda ports, flags: TCP(sport=ports[0], dport=ports[1], flags=flags), "icmp": lambda ports, flags: ICMP(),
          "udp": lambda ports, flags: UDP(sport=ports[0], dport=ports[1])}


class PacketHeader(ctypes.Structure):
    """struct pcap_pkthdr."""

    _fields_ = [("seconds", ctypes.c_long), ("microseconds", ctypes.c_long), ("captured", ctypes.c_uint), ("length", ctypes.c_uint)]


def libpcap_says(text, frame):
    """Whether libpcap's own interpreter finds that an expression matches a frame."""
    pcap = packet_filter.library()
    pcap.pcap_offline_filter.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p]
    made = (packet_filter._Instruction * 256)(*packet_filter.program(text))
    program = packet_filter._Program(len(packet_filter.program(text)), made)
    header = PacketHeader(0, 0, len(frame), len(frame))
    return pcap.pcap_offline_filter(ctypes.byref(program), ctypes.byref(header), frame) != 0


@pytest.fixture(scope="module", params=EXPRESSIONS)
def expression(request):
    """An expression, and the function that its kernel is made of."""
    scope = {"kernel": lambda function: function, "int64": np.int64}
    exec(packet_filter.kernel_source(request.param), scope)  # noqa: S102 - our own source
    return request.param, scope["is_recorded"]


@generated
@given(kind=st.sampled_from(sorted(LAYERS)), addresses=st.tuples(ADDRESS, ADDRESS), ports=st.tuples(PORT, PORT), tag=st.booleans(),
       flags=st.sampled_from(["S", "A", "FA", "PA"]), payload=st.sampled_from([b"", b"GET /", bytes(100)]), cut=st.integers(0, 60),
       fragment=st.booleans())
def test_a_filter_says_what_libpcap_says(expression, kind, addresses, ports, tag, flags, payload, cut, fragment):
    text, matches = expression
    packet = Ether(src="02:00:00:00:00:02", dst="02:00:00:00:00:01")
    if tag:
        packet /= Dot1Q(vlan=5)
    packet = packet / IP(src=addresses[0], dst=addresses[1], flags="MF" if fragment else "DF") / LAYERS[kind](ports, flags) / payload
    for frame in (bytes(packet), bytes(packet)[:cut], bytes(Ether() / ARP())):
        octets = np.frombuffer(b"\xff" * 3 + frame, np.uint8)
        assert bool(matches(octets, 3, len(frame))) == libpcap_says(text, frame), (text, frame.hex())


def test_a_filter_compiles():
    scope = {"kernel": numba.njit, "int64": np.int64}
    exec(packet_filter.kernel_source(EXPRESSIONS[1]), scope)  # noqa: S102 - our own source
    compiled = scope["is_recorded"]
    frame = np.frombuffer(bytes(Ether() / IP() / TCP(dport=80)), np.uint8)
    assert compiled(frame, 0, len(frame)) and not compiled(frame, 0, 30)


@pytest.mark.parametrize("text", ["tcp prt 80", "host 10.1.0.1.2", "port 99999", "and"])
def test_what_is_no_expression_is_refused_in_a_sentence(text):
    with pytest.raises(ConfigurationError, match="--record-filter") as refused:
        packet_filter.source(text)
    assert text in str(refused.value) and "pcap-filter" in str(refused.value)
