"""Makes frames of the segments that the generator's ends send, each written whole, whatever its mbuf held before.

Checksums are summed up from what is written, never read back from memory.
"""
from numpy import int64

from .checksum import data_start, fold
from .counters import DROP_UNRESOLVED_NEIGHBOUR
from .generator_ends import SCALED, STAMPED, role_of
from .generator_payload import write_payload
from .headers import (
    ACK,
    ETHERNET_LENGTH,
    ETHERTYPE_IPV4,
    IPV4_LENGTH,
    PROTOCOL_TCP,
    RST,
    SYN,
    TCP_LENGTH,
    TCP_OPTION_MSS,
)
from .jit import kernel
from .native import record_at, swap16, swap32
from .neighbours import REACHABLE
from .outbox import discard, post, set_length
from .rewrite import write_ethernet
from .sequence import wrap
from .tcp_options import ALIGNED_TIMESTAMPS, TIMESTAMPS_LENGTH

FIXED = 0x4500 + 0x4000 + (64 << 8 | PROTOCOL_TCP)
"""Sum of an IPv4 header's words that never change here: no options, do not fragment, TTL 64, TCP."""


@kernel
def write_ipv4(packets, at, total_length, source, destination):
    """Writes an IPv4 header of 20 bytes at byte offset `at`; addresses in host order."""
    total = (FIXED + total_length + (source >> 16) + (source & 0xFFFF) + (destination >> 16) + (destination & 0xFFFF))
    ip = record_at(packets.ipv4, at)
    ip.version_length, ip.service, ip.total_length = 0x45, 0, swap16(total_length)
    ip.identification, ip.fragment = 0, swap16(0x4000)
    ip.ttl, ip.protocol, ip.checksum = 64, PROTOCOL_TCP, swap16(0xFFFF - fold(total))
    ip.source, ip.destination = swap32(source), swap32(destination)


@kernel
def write_word(packets, at, value):
    """Writes a 32-bit word (host order); returns what it adds to a sum."""
    word = swap32(value)
    record_at(packets.word32, at).value = word
    return word


@kernel
def write_timestamps(packets, at, stamp, echo):
    """Writes the timestamps option with two NOPs before it (RFC 7323, appendix A); returns its sum."""
    record_at(packets.word32, at).value = ALIGNED_TIMESTAMPS
    return ALIGNED_TIMESTAMPS + write_word(packets, at + 4, stamp) + write_word(packets, at + 8, echo)


@kernel
def write_syn_options(packets, at, settings, answers, flags, stamp, echo):
    """Writes the options of a SYN as configured, of one that answers a SYN as far as that offered them too.

    Returns their length and their sum.
    """
    start = at
    total = write_word(packets, at, (TCP_OPTION_MSS << 24) | (4 << 16) | settings.mss)
    at += 4
    if settings.sack != 0:
        total += write_word(packets, at, 0x01010402)
        at += 4
    if settings.scale >= 0 and (answers == 0 or flags & SCALED):
        total += write_word(packets, at, 0x01030300 | settings.scale)
        at += 4
    if settings.stamps != 0 and (answers == 0 or flags & STAMPED):
        total += write_timestamps(packets, at, stamp, echo)
        at += TIMESTAMPS_LENGTH
    return at - start, total


@kernel
def shown_window(settings, end, control):
    """Returns our window as on the wire: never scaled in a SYN (RFC 7323, section 2.2)."""
    scale = settings.scale if end.marks & SCALED and control & SYN == 0 else 0
    return min(settings.window >> scale, 0xFFFF)


@kernel
def write_segment(packets, at, ends, row, now):
    """Writes the TCP header, the options and the payload of an ordered segment at byte offset `at`; returns its length."""
    orders, settings = ends.orders, record_at(ends.settings, 0)
    number, control, length = orders.end[row], orders.control[row], orders.length[row]
    end = record_at(ends.hot, number)
    stamp, echo = wrap(now // 1000), int64(end.stamp) if control & ACK else 0
    options, total = 0, 0
    if control & SYN:
        options, total = write_syn_options(packets, at + TCP_LENGTH, settings, control & ACK, int64(end.marks), stamp, echo)
    elif end.marks & STAMPED and control & RST == 0:
        options, total = TIMESTAMPS_LENGTH, write_timestamps(packets, at + TCP_LENGTH, stamp, echo)
    if length > 0:
        position = wrap(orders.seq[row] - int64(end.initial) - 1)
        total += write_payload(packets, at + TCP_LENGTH + options, ends.contents, role_of(ends, number), int64(end.target),
                               int64(end.serial), position, length)
    tcp = record_at(packets.tcp, at)
    ports = swap16(int64(end.local_port[0])) | (swap16(int64(end.remote_port[0])) << 16)
    seq, ack = swap32(orders.seq[row]), swap32(orders.ack[row]) if control & ACK else 0
    offset, window = (TCP_LENGTH + options) << 2, swap16(shown_window(settings, end, control))
    total += ports + seq + ack + (offset | (control << 8) | (window << 16))
    total += swap32(int64(end.local_address[0])) + swap32(int64(end.remote_address[0]))
    total += swap16(PROTOCOL_TCP) + swap16(TCP_LENGTH + options + length)
    tcp.source_port, tcp.destination_port, tcp.seq, tcp.ack = ports & 0xFFFF, ports >> 16, seq, ack
    tcp.data_offset, tcp.control, tcp.window, tcp.urgent = offset, control, window, 0
    tcp.checksum = 0xFFFF - fold(total)
    return TCP_LENGTH + options + length


@kernel
def build_segments(packets, base, ends, fresh, got, network, outbox, now):
    """Builds all ordered segments and posts them, those without an mbuf of their own into fresh[:got], as far as they go."""
    orders, used = ends.orders, 0
    for row in range(orders.filled[0]):
        mbuf = orders.mbuf[row]
        if mbuf < 0:
            if used >= got:
                continue
            mbuf = fresh[used]
            used += 1
        end = record_at(ends.hot, orders.end[row])
        neighbour = record_at(network.neighbours, int64(end.neighbour))
        if neighbour.state < REACHABLE:
            ends.counters.drops[DROP_UNRESOLVED_NEIGHBOUR] += 1
            discard(outbox, mbuf)
            continue
        frame = data_start(packets, base, mbuf)
        write_ethernet(packets, frame, neighbour, network)
        record_at(packets.ethernet, frame).ethertype = swap16(ETHERTYPE_IPV4)
        length = write_segment(packets, frame + ETHERNET_LENGTH + IPV4_LENGTH, ends, row, now)
        write_ipv4(packets, frame + ETHERNET_LENGTH, IPV4_LENGTH + length, int64(end.local_address[0]),
                   int64(end.remote_address[0]))
        set_length(packets, mbuf, ETHERNET_LENGTH + IPV4_LENGTH + length)
        post(outbox, int64(neighbour.port), mbuf, ends.counters)
    orders.filled[0], orders.fresh[0] = 0, 0
