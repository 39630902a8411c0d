"""Build: segments of the engine's own, as ordered, with lengths and checksums that scapy computes too."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_bed import NOW, KernelBed, checked, generated, mac_text
from scapy.layers.inet import IP, TCP

from pipeline.kernels.build import build
from pipeline.kernels.connection import emit
from pipeline.kernels.headers import ACK, FIN, PSH, RST, SYN
from pipeline.kernels.memory_device import allocate
from pipeline.kernels.neighbours import INCOMPLETE, PROBING, REACHABLE, STATIC

BED = KernelBed()
MACS = (0x02CC00000001, 0x02DD00000002)
HOPS = (BED.knows("10.1.0.99", 0, MACS[0]), BED.knows("10.2.0.99", 1, MACS[1]))
NUMBER, PORT_NUMBER = st.integers(0, 2**32 - 1), st.integers(0, 65535)


def endpoint(
    number, remote=("10.1.0.2", "10.2.0.11"), local=("10.1.0.1", "10.2.0.1"), ports=((40000, 8080), (80, 1024))
):
    """Gives a connection its addresses and next hops, a pair of each: the client's side and the target's."""
    hot = BED.connections.hot[number]
    for side in range(2):
        hot.remote_address[side] = int.from_bytes(bytes(map(int, remote[side].split("."))), "big")
        hot.local_address[side] = int.from_bytes(bytes(map(int, local[side].split("."))), "big")
    hot.remote_port, hot.local_port = ports
    hot.neighbour = HOPS
    return hot


def built():
    """Builds all that was ordered; returns the frames (bytes) of each port. Mbufs that are not sent go back."""
    outbox, segments = BED.state.outbox, BED.connections.segments
    count = int(segments.filled[0])
    assert allocate(BED.state.device, BED.state.fresh, count) == count
    build(BED.packets, BED.base, BED.state.fresh, count, BED.connections, BED.state.network, outbox, NOW)
    assert segments.filled[0] == 0
    BED.pool.release(outbox.released[: outbox.to_release[0]].copy())
    outbox.to_release[0] = 0
    return BED.posted(0), BED.posted(1)


@generated
@given(
    st.integers(0, 1),
    NUMBER,
    NUMBER,
    st.integers(0, 255),
    PORT_NUMBER,
    PORT_NUMBER,
    st.integers(0, 200),
    st.integers(0, 90),
    PORT_NUMBER,
    PORT_NUMBER,
)
def test_a_segment_is_what_was_ordered(side, seq, ack, control, window, mss, held, length, remote_port, local_port):
    endpoint(4, ports=((remote_port, remote_port), (local_port, local_port)))
    octets = BED.connections.held.octets
    octets[:400] = np.arange(400) % 251
    free = BED.pool.available
    emit(BED.connections, 4, side, control, seq, ack, window, mss, held, length)
    frames = built()
    assert [len(found) for found in frames] == [1 - side, side] and BED.pool.available == free
    found = checked(frames[side][0])
    assert (found.src, found.dst) == (mac_text(BED.macs[side]), mac_text(MACS[side]))
    assert (found[IP].src, found[IP].dst) == (("10.1.0.1", "10.1.0.2"), ("10.2.0.1", "10.2.0.11"))[side]
    tcp = found[TCP]
    assert (tcp.sport, tcp.dport, tcp.seq, tcp.ack, int(tcp.flags), tcp.window, tcp.urgptr) == (
        local_port,
        remote_port,
        seq,
        ack,
        control,
        window,
        0,
    )
    assert tcp.options == ([("MSS", mss)] if mss else [])
    assert bytes(tcp.payload) == octets[held : held + length].tobytes()
    assert (found[IP].ttl, str(found[IP].flags), found[IP].tos) == (64, "DF", 0)
    assert len(frames[side][0]) == 14 + found[IP].len


def test_segments_leave_in_the_order_in_which_they_were_ordered():
    endpoint(4)
    endpoint(5)
    for number, control in enumerate((SYN, SYN | ACK, ACK, PSH | ACK, FIN | ACK, RST)):
        emit(BED.connections, 4 + number % 2, 1, control, number, 0, 100, 0, 0, 0)
    _, right = built()
    assert [(checked(frame)[TCP].seq, int(checked(frame)[TCP].flags)) for frame in right] == [
        (0, SYN),
        (1, SYN | ACK),
        (2, ACK),
        (3, PSH | ACK),
        (4, FIN | ACK),
        (5, RST),
    ]


@pytest.mark.parametrize(("state", "goes"), [(0, 0), (INCOMPLETE, 0), (REACHABLE, 1), (PROBING, 1), (STATIC, 1)])
def test_a_segment_to_an_unknown_next_hop_is_counted_and_its_mbuf_freed(state, goes):
    endpoint(4)
    entry, free = BED.state.network.neighbours[HOPS[1]], BED.pool.available
    BED.counters.drops[:] = 0
    entry.state = state
    emit(BED.connections, 4, 1, ACK, 0, 0, 0, 0, 0, 0)
    _, right = built()
    entry.state = REACHABLE
    assert len(right) == goes and BED.pool.available == free
    assert BED.drops == ({} if goes else {"unresolved_neighbour": 1})


def test_segments_that_nobody_has_room_for_are_counted_when_they_are_ordered():
    endpoint(4)
    BED.counters.drops[:] = 0
    room = len(BED.connections.segments.seq)
    for number in range(room + 3):
        emit(BED.connections, 4, 0, ACK, number, 0, 0, 0, 0, 0)
    assert BED.connections.segments.filled[0] == room and BED.drops == {"segments_full": 3}
    BED.connections.segments.filled[0] = 0


def test_an_outbox_without_room_frees_what_it_cannot_take():
    endpoint(4)
    outbox, free = BED.state.outbox, BED.pool.available
    BED.counters.drops[:] = 0
    outbox.filled[0] = outbox.mbuf.shape[1] - 1
    for _ in range(3):
        emit(BED.connections, 4, 0, ACK, 1, 0, 0, 0, 0, 0)
    assert allocate(BED.state.device, BED.state.fresh, 3) == 3
    build(BED.packets, BED.base, BED.state.fresh, 3, BED.connections, BED.state.network, outbox, NOW)
    assert BED.drops == {"transmit_full": 2} and outbox.to_release[0] == 2 and outbox.filled[0] == outbox.mbuf.shape[1]
    BED.pool.release(np.append(outbox.released[:2], outbox.mbuf[0, -1]))
    outbox.filled[0] = outbox.to_release[0] = 0
    assert BED.pool.available == free
