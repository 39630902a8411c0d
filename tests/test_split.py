"""Split: parts of a segment are what scapy would make of it, in order, wherever its payload lies."""
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from kernel_bed import KernelBed, checked, generated
from scapy.layers.inet import IP, TCP, IPOption_Router_Alert
from scapy.layers.l2 import Ether

from pipeline.kernels import memory_device
from pipeline.kernels.batch import ABSORB, FORWARD
from pipeline.kernels.connection import NARROW, OPENS, SPECIAL
from pipeline.kernels.ecn import clear_ecn
from pipeline.kernels.jit import kernel
from pipeline.kernels.outbox import dispose
from pipeline.kernels.rewrite import rewrite
from pipeline.kernels.split import cut

BED = KernelBed()
NEIGHBOURS = BED.knows("10.1.0.99", 0, 0x02CC00000001), BED.knows("10.2.0.99", 1, 0x02DD00000002)
FLAGS = st.lists(st.sampled_from("FPUEC"), unique=True).map(lambda flags: "A" + "".join(flags))
STAMPS = [("NOP", None), ("NOP", None), ("Timestamp", (5, 6))]


def parts_of(frames, side, mss, segment_length=None):
    """Has frames of a connection that is to be split rewritten and cut; returns what is posted toward the other side."""
    connections, state = BED.connections, BED.state
    hot, cold = connections.hot[3], connections.cold[3]
    hot.options, cold.special, hot.neighbour, hot.shift = SPECIAL, NARROW | OPENS, NEIGHBOURS, (7, 11)
    cold.opening, connections.openings[5].mss[1 - side] = 5, mss
    count = BED.parse(frames, side, segment_length)
    BED.batch.flow[:count], BED.batch.verdict[:count] = 6 + side, FORWARD
    rewrite(BED.packets, BED.base, BED.batch, count, connections, state.network, 0)
    fresh = np.zeros(600, np.int64)
    wanted = int(connections.parts.filled[0])
    assert memory_device.allocate(state.device, fresh, wanted) == wanted
    cut(BED.packets, BED.base, BED.batch, connections.parts, fresh, wanted)
    verdicts = BED.batch.verdict[:count].tolist()
    dispose(BED.batch, count, connections.parts, state.outbox, BED.counters)
    posted = BED.posted(1 - side)
    memory_device.release(state.device, state.outbox.released, int(state.outbox.to_release[0]))
    state.outbox.to_release[0] = 0
    return posted, verdicts


def expected(packet, most):
    """What the parts of a rewritten packet have to say: [(seq, flags, urgent pointer, identification, payload)]."""
    payload, made = bytes(packet[TCP].payload), []
    for number, at in enumerate(range(0, max(len(payload), 1), most)):
        part, flags = payload[at:at + most], set(str(packet[TCP].flags))
        if at + most < len(payload):
            flags -= {"F", "P"}
        if at > 0:
            flags -= {"C"}
        urgent = packet[TCP].urgptr if "U" in flags else 0
        if at > 0 and urgent <= at:
            flags, urgent = flags - {"U"}, at
        if len(payload) <= most:
            at, urgent, flags = 0, packet[TCP].urgptr, set(str(packet[TCP].flags))
        made.append(((packet[TCP].seq + at) % 2**32, flags, urgent - at if "U" in flags or at == 0 else 0,
                     (packet[IP].id + number) % 65536, part))
    return made


@generated
@given(st.integers(0, 1), st.binary(max_size=1400), st.integers(64, 1500), FLAGS, st.integers(0, 1500),
       st.sampled_from([None, 64, 100, 333]), st.booleans(), st.booleans(), st.integers(0, 65535))
def test_parts_are_what_the_segment_says_cut_at_the_receivers_mss(side, payload, mss, flags, urgent, chained, stamped,
                                                                  with_options, identification):
    options = STAMPS if stamped else []
    frame = BED.segment(payload, port=side, flags=flags, seq=2**32 - 700, options=options, window=99,
                        urgptr=urgent if "U" in flags else 0,
                        ip={"tos": 0x2A, "id": identification, "ttl": 9, "flags": "DF"},
                        ip_options=[IPOption_Router_Alert()] if with_options else [])
    posted, [verdict] = parts_of([frame], side, mss, chained)
    most = max(min(mss, 1460) - (12 if stamped else 0), 64)
    assert verdict == (ABSORB if len(payload) > most else FORWARD)
    packets = [checked(each) for each in posted] if verdict == ABSORB or chained is None else [Ether(each) for each in posted]
    whole = Ether(frame)
    whole[TCP].seq = (whole[TCP].seq + (7, 11)[side]) % 2**32
    came = [(packet[TCP].seq, set(str(packet[TCP].flags)), packet[TCP].urgptr, packet[IP].id, bytes(packet[TCP].payload))
            for packet in packets]
    assert came == expected(whole, most)
    for packet in packets:
        assert (packet[IP].tos, packet[IP].ttl, packet[IP].flags, packet[TCP].window) == (0x2A, 8, "DF", 99)
        assert packet[TCP].options == Ether(frame)[TCP].options and packet[IP].options == Ether(frame)[IP].options
    assert BED.pool.available == BED.pool.mbufs


@generated
@given(st.lists(st.integers(0, 1400), min_size=1, max_size=12), st.integers(64, 1460))
def test_parts_and_whole_segments_leave_in_the_order_in_which_they_came(lengths, mss):
    frames, seq = [], 1
    for number, length in enumerate(lengths):
        frames.append(BED.segment(bytes([number]) * length, flags="A", seq=seq))
        seq += length
    posted, _ = parts_of(frames, 0, mss)
    got = [bytes(checked(frame)[TCP].payload) for frame in posted]
    assert b"".join(got) == b"".join(bytes([number]) * length for number, length in enumerate(lengths))
    assert all(len(part) <= mss for part in got)
    assert BED.pool.available == BED.pool.mbufs


@kernel
def call_clear_ecn(packets, batch, side):
    """The kernel on the first row; the checksum gets what it returns, as rewrite does it."""
    return clear_ecn(packets, batch, 0, side)


@generated
@given(st.integers(0, 1), st.integers(0, 255), st.integers(0, 255), st.binary(max_size=9))
def test_marks_are_cleared_toward_a_target_that_declined_them(side, tos, flags, payload):
    frame = BED.segment(payload, port=side, flags=flags, ip={"tos": tos})
    assert BED.parse([frame], side) == 1
    added = int(call_clear_ecn(BED.packets, BED.batch, side))
    after, before = Ether(BED.frame(0)), Ether(frame)
    assert after[IP].tos == (tos & 0xFC if side == 0 else tos)
    assert int(after[TCP].flags) & 0xFF == flags & 0x3F
    sums = after[IP].chksum
    del after[IP].chksum, after[TCP].chksum
    made = Ether(bytes(after))
    assert sums == made[IP].chksum
    word = int.from_bytes(before[TCP].chksum.to_bytes(2, "big"), "little")
    total = (0xFFFF - word) + added
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    updated = int.from_bytes((0xFFFF - total).to_bytes(2, "little"), "big")
    assert (updated - made[TCP].chksum) % 0xFFFF == 0
    BED.free(1)
