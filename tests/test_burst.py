"""What Python sees of a burst: views through which packet memory is read and written, never copies."""
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, IPOption_NOP, IPOption_Router_Alert
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether

from pipeline.io.burst import Burst
from pipeline.io.frames import write_frames
from pipeline.io.memory_pool import MemoryPool
from pipeline.io.places import ABSENT, locate


def tcp_frame(seq, *tags, options=(), payload=b"payload"):
    frame = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
    for tag in tags:
        frame /= tag
    return bytes(frame / IP(src="10.0.0.1", dst="10.0.0.2", options=list(options))
                 / TCP(sport=1000, dport=80, seq=seq, flags="PA", options=[("MSS", 1460)]) / payload)


@pytest.fixture
def burst():
    pool = MemoryPool(64)
    frames = [tcp_frame(1000 + number) for number in range(6)]
    return Burst(write_frames(pool, frames), pool)


def seq_octets(frame):
    return frame.octets[38:42].tobytes()


def test_a_column_reads_and_writes_the_mbufs(burst):
    assert list(burst.tcp["seq"]) == [1000, 1001, 1002, 1003, 1004, 1005]
    burst.tcp["seq"] = np.arange(6) + 0x01020300
    assert [seq_octets(frame) for frame in burst] == [bytes([1, 2, 3, number]) for number in range(6)]
    burst.tcp["seq"][3] = 7
    assert seq_octets(burst[3]) == b"\0\0\0\7" and seq_octets(burst[2]) == b"\1\2\3\2"
    burst.tcp["seq"][1:3] = 9
    assert list(burst.tcp["seq"][:4]) == [0x01020300, 9, 9, 7]
    burst.tcp["seq"] += 1
    assert seq_octets(burst[3]) == b"\0\0\0\x08"
    column = burst.ipv4["ttl"]
    column -= 1
    assert burst[0].octets[22] == 63


def test_a_column_behaves_as_an_array(burst):
    column = burst.tcp["seq"]
    assert np.array_equal(column == 1003, [False, False, False, True, False, False])
    assert np.array_equal(column - 1000, np.arange(6)) and len(column) == 6
    assert np.asarray(column).dtype == np.dtype("uint32") and np.max(column) == 1005
    assert (burst.tcp["seq"] < burst.tcp["ack"]).sum() == 0
    with pytest.raises(OverflowError):
        column[0] = 1 << 32


def test_a_record_reads_and_writes_the_mbuf(burst):
    record = burst[3].tcp
    assert (record.seq, record.source_port, record.destination_port) == (1003, 1000, 80)
    record.seq = 5
    assert seq_octets(burst[3]) == b"\0\0\0\5" and burst.tcp["seq"][3] == 5
    burst[3].octets[38:42] = [0, 0, 1, 0]
    assert record.seq == 256
    burst[3].ipv4.source = 0x0A0B0C0D
    assert burst[3].octets[26:30].tolist() == [10, 11, 12, 13]
    burst[3].ethernet.source_high = 0x0607
    assert burst[3].octets[6:8].tolist() == [6, 7]
    burst[3].mbuf.packet_length = 60
    assert len(burst[3]) == 60 and burst.mbuf["packet_length"][3] == 60


def test_nothing_is_copied(burst):
    arena = burst.pool.arena.octets
    for view in (burst[0].octets, burst[0].payload, *burst[0].segments):
        assert np.shares_memory(view, arena)
    burst[2].payload[:3] = list(b"PAY")
    assert bytes(burst[2]).endswith(b"PAYload")


def test_a_part_of_a_burst_is_a_burst_over_the_same_frames(burst):
    burst[1:3].tcp["seq"] = 1
    burst[burst.tcp["seq"] == 1].tcp["ack"] = 2
    burst[[5, 0]].tcp["window"] = [50, 10]
    assert list(burst.tcp["ack"]) == [0, 2, 2, 0, 0, 0]
    assert burst.tcp["window"][5] == 50 and burst.tcp["window"][0] == 10
    assert burst[-1].offset == burst.mbufs[5]


@pytest.mark.parametrize("tags, options", [
    ((), ()), ((Dot1Q(vlan=5),), ()), ((Dot1AD(vlan=7), Dot1Q(vlan=5)), ()), ((), (IPOption_Router_Alert(),)),
    ((Dot1Q(vlan=5),), (IPOption_NOP(), IPOption_Router_Alert()))])
def test_headers_are_found_behind_tags_and_options(tags, options):
    pool = MemoryPool(8)
    burst = Burst(write_frames(pool, [tcp_frame(77, *tags, options=options)]), pool)
    assert burst[0].tcp.seq == 77 and burst.tcp["destination_port"][0] == 80
    assert burst[0].payload.tobytes() == b"payload"


def test_other_protocols_have_their_own_headers():
    pool = MemoryPool(16)
    frames = [bytes(Ether() / ARP(op=2, psrc="10.0.0.9")), bytes(Ether() / IP() / ICMP(seq=4, id=3) / b"ping"),
              tcp_frame(1)]
    burst = Burst(write_frames(pool, frames), pool)
    assert burst.tcp.present.tolist() == [False, False, True]
    assert burst.arp.present.tolist() == [True, False, False]
    assert burst[0].arp.operation == 2 and burst[0].arp.sender_address == 0x0A000009
    assert (burst[1].icmp.sequence, burst[1].icmp.identifier) == (4, 3) and burst[1].payload.tobytes() == b"ping"
    assert list(burst[burst.tcp.present].tcp["seq"]) == [1]
    with pytest.raises(LookupError, match="frame 0 of the burst has no tcp header"):
        _ = burst.tcp["seq"]
    with pytest.raises(LookupError, match="no tcp header"):
        _ = burst[1].tcp
    with pytest.raises(KeyError, match="no field 'sequence'.*seq"):
        _ = burst[2:].tcp["sequence"]


def test_padding_is_no_payload_and_lies_have_no_header():
    pool = MemoryPool(16)
    padded = tcp_frame(1, payload=b"") + b"\xee" * 10
    long_ip, short_ip, fragment = bytearray(tcp_frame(2)), bytearray(tcp_frame(3)), bytearray(tcp_frame(4))
    long_ip[16:18] = (9000).to_bytes(2, "big")
    short_ip[14] = 0x42
    fragment[20:22] = (0x2001).to_bytes(2, "big")
    frames = [padded, bytes(long_ip), bytes(short_ip), bytes(fragment), tcp_frame(5)[:45]]
    burst = Burst(write_frames(pool, frames), pool)
    assert len(burst[0].payload) == 0
    assert burst[1].payload.tobytes() == b"payload"
    assert burst.tcp.present.tolist() == [True, True, False, False, False]


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([b"", b"\x08\x00", b"\x08\x06", b"\x81\x00\0\0\x08\x00"]),
       st.booleans())
def test_whatever_arrives_every_place_lies_in_the_frame(noise, kind, ip):
    pool = MemoryPool(4)
    frame = (b"\2" * 12 + kind + (b"\x45" if ip else b"") + noise)[:250]
    burst = Burst(write_frames(pool, [frame]), pool)
    found = locate(pool.arena, int(burst.mbufs[0]))
    start = burst[0].octets.ctypes.data - pool.arena.base
    for place in found:
        assert place == ABSENT or start <= place <= start + len(frame)
    assert found.payload <= found.end or found.end == ABSENT
