"""Build: makes frames of the segments that the engine sends of its own, in fresh mbufs."""
from numpy import int64

from .checksum import data_start
from .connection import CONNECTING, SYN_RECEIVED, note
from .counters import DROP_UNRESOLVED_NEIGHBOUR
from .headers import (
    ETHERNET_LENGTH,
    ETHERTYPE_IPV4,
    IPV4_LENGTH,
    TCP_LENGTH,
    TCP_OPTION_MSS,
)
from .jit import kernel
from .native import record_at, swap16, swap32
from .neighbours import REACHABLE
from .outbox import discard, post
from .refuse import finish_tcp, write_ipv4_header
from .rewrite import write_ethernet
from .wheel import TICK_MICROSECONDS

MSS_OPTION = 4
RESOLVE_RETRY = 2
"""Ticks until a SYN or SYN-ACK is tried again whose next hop was not resolved: 20 ms, about what ARP takes on a network."""


@kernel
def set_length(packets, mbuf, length):
    """Makes a fresh mbuf one of `length` bytes in one piece."""
    head = record_at(packets.mbuf, mbuf)
    head.data_length, head.packet_length, head.segments, head.offload = length, length, 1, 0


@kernel
def write_tcp_header(packets, at, hot, segments, row):
    """Writes the TCP header of a segment, with an MSS option where it has one; returns its length."""
    side, tcp = segments.side[row], record_at(packets.tcp, at)
    options = MSS_OPTION if segments.mss[row] != 0 else 0
    tcp.source_port, tcp.destination_port = swap16(int64(hot.local_port[side])), swap16(int64(hot.remote_port[side]))
    tcp.seq, tcp.ack = swap32(segments.seq[row]), swap32(segments.ack[row])
    tcp.data_offset, tcp.control = (TCP_LENGTH + options) << 2, segments.control[row]
    tcp.window, tcp.urgent = swap16(segments.window[row]), 0
    if options:
        packets.octets[at + TCP_LENGTH] = TCP_OPTION_MSS
        packets.octets[at + TCP_LENGTH + 1] = MSS_OPTION
        record_at(packets.word16, at + TCP_LENGTH + 2).value = swap16(segments.mss[row])
    return TCP_LENGTH + options


@kernel
def build_one(packets, base, mbuf, connections, row, neighbour, network):
    """Writes one ordered segment into a fresh mbuf."""
    segments, side = connections.segments, connections.segments.side[row]
    hot = record_at(connections.hot, segments.connection[row])
    frame = data_start(packets, base, mbuf)
    at, length = frame + ETHERNET_LENGTH, segments.length[row]
    write_ethernet(packets, frame, neighbour, network)
    record_at(packets.ethernet, frame).ethertype = swap16(ETHERTYPE_IPV4)
    header = write_tcp_header(packets, at + IPV4_LENGTH, hot, segments, row)
    write_ipv4_header(packets, at, IPV4_LENGTH + header + length, int64(hot.local_address[side]),
                      int64(hot.remote_address[side]))
    start, held = at + IPV4_LENGTH + header, segments.held[row]
    for number in range(length):
        packets.octets[start + number] = connections.held.octets[held + number]
    finish_tcp(packets, at, header + length)
    set_length(packets, mbuf, ETHERNET_LENGTH + IPV4_LENGTH + header + length)


@kernel
def unresolved(connections, connection, tick):
    """A segment could not go out, since nobody has said yet where its next hop is: handshakes try again shortly."""
    hot, cold = record_at(connections.hot, connection), record_at(connections.cold, connection)
    connections.counters.drops[DROP_UNRESOLVED_NEIGHBOUR] += 1
    if hot.state == SYN_RECEIVED or hot.state == CONNECTING:
        cold.retry = (tick + RESOLVE_RETRY) & 0xFFFFFFFF
        note(connections.touched, connection, 0)


@kernel
def build(packets, base, fresh, got, connections, network, outbox, now):
    """Builds the ordered segments into the mbufs fresh[:got] and posts them; without mbufs they are left out.

    A segment whose next hop is not resolved is left out too: timers send again whatever matters.
    """
    segments, counters = connections.segments, connections.counters
    for row in range(got):
        hot = record_at(connections.hot, segments.connection[row])
        neighbour = record_at(network.neighbours, hot.neighbour[segments.side[row]])
        if neighbour.state < REACHABLE:
            unresolved(connections, segments.connection[row], now // TICK_MICROSECONDS)
            discard(outbox, fresh[row])
            continue
        build_one(packets, base, fresh[row], connections, row, neighbour, network)
        post(outbox, int64(neighbour.port), fresh[row], counters)
    segments.filled[0] = 0
