"""Build: makes frames of the segments that the engine sends of its own, in fresh mbufs."""
from numpy import int64

from .address_option import tells_address, write_address
from .checksum import data_start, difference, update
from .connection import (
    AGED,
    CLIENT,
    CONNECTING,
    MARKED,
    OFFERED_SCALE,
    OPENS,
    PROMISED_ECN,
    PROMISED_SACK,
    PROMISED_SCALING,
    PROMISED_TIMESTAMPS,
    SPECIAL,
    STAMPED,
    SYN_RECEIVED,
    TARGET,
    UNUSUAL,
    note,
)
from .counters import DROP_UNRESOLVED_NEIGHBOUR
from .ecn import CODEPOINT
from .headers import (
    ETHERNET_LENGTH,
    ETHERTYPE_IPV4,
    IPV4_LENGTH,
    RST,
    TCP_LENGTH,
    TCP_OPTION_MSS,
    TCP_OPTION_NOP,
    TCP_OPTION_SACK,
)
from .jit import kernel
from .native import copy_octets, prefetch, record_at, swap16, swap32
from .neighbours import REACHABLE
from .opening import client_stamp
from .outbox import discard, post, set_length
from .parse import EXPECTED_FRAME
from .sequence import wrap
from .refuse import finish_tcp, write_ipv4_header
from .rewrite import write_ethernet
from .tcp_options import ALIGNED_TIMESTAMPS, TIMESTAMPS_LENGTH, stamp_clock
from .wheel import TICK_MICROSECONDS, retry_at

BLOCK_LENGTH = 12
"""One block of selective acknowledgement with the two NOPs that align it."""
RESOLVE_RETRY = 2
"""Ticks until a SYN or SYN-ACK is tried again whose next hop was not resolved: 20 ms, about what ARP takes on a network."""


@kernel
def write_syn_options(packets, at, hot, cold, side, mss):
    """Writes MSS, SACK permitted, timestamps and window scale, as far as agreed; returns their length.

    The timestamps' values are left to `write_timestamps`.
    """
    agreed, start = int64(cold.agreed), at
    record_at(packets.word32, at).value = swap32((TCP_OPTION_MSS << 24) | (4 << 16) | mss)
    at += 4
    sack = agreed & PROMISED_SACK != 0
    if agreed & PROMISED_TIMESTAMPS:
        record_at(packets.word32, at).value = swap32(0x0402080A if sack else 0x0101080A)
        at += TIMESTAMPS_LENGTH
    elif sack:
        record_at(packets.word32, at).value = swap32(0x01010402)
        at += 4
    if agreed & PROMISED_SCALING:
        scale = agreed >> OFFERED_SCALE if side == CLIENT else int64(hot.scales) & 0x0F
        record_at(packets.word32, at).value = swap32((0x010303 << 8) | scale)
        at += 4
    return at - start


@kernel
def write_timestamps(packets, connections, at, hot, cold, side, syn, now):
    """Writes TSval and TSecr of a segment of ours at byte offset `at`: our own clock to the client, its to the target.

    Once spliced, the client sees the target's clock, which may run slower than ours: a value of ours above it would make
    the client drop what follows (RFC 7323, section 5.3), so it is the one that the splice began with. A SYN echoes nothing: 0.
    """
    words, own, theirs = packets.word32, client_stamp(connections, cold), int64(cold.target_stamp)
    if side == TARGET and syn and cold.special & OPENS:
        own = int64(record_at(connections.openings, int64(cold.opening)).first_stamp)
    if side == CLIENT:
        spliced = hot.options & STAMPED != 0
        stamp = wrap(theirs + int64(hot.timestamp_shift)) if spliced else stamp_clock(connections, hot, now)
        record_at(words, at).value = swap32(stamp)
        record_at(words, at + 4).value = swap32(own)
    else:
        record_at(words, at).value = swap32(wrap(own + int64(cold.stamp_shift)) if cold.special & AGED else own)
        record_at(words, at + 4).value = 0 if syn else swap32(theirs)


@kernel
def write_block(packets, at, left, right):
    """Writes NOP, NOP and one block of selective acknowledgement (RFC 2018, section 3); returns their length."""
    record_at(packets.word32, at).value = swap32((TCP_OPTION_NOP << 24) | (TCP_OPTION_NOP << 16) | (TCP_OPTION_SACK << 8) | 10)
    record_at(packets.word32, at + 4).value = swap32(left)
    record_at(packets.word32, at + 8).value = swap32(right)
    return BLOCK_LENGTH


@kernel
def write_options(packets, connections, at, hot, cold, side, row, now):
    """Writes the options of a segment of ours at byte offset `at`; returns their length."""
    segments = connections.segments
    syn, stamped = segments.mss[row] != 0, cold.agreed & PROMISED_TIMESTAMPS != 0
    if side == TARGET and not syn:
        stamped = hot.options & STAMPED != 0
    if segments.control[row] & RST:
        stamped = False
    if syn:
        length = write_syn_options(packets, at, hot, cold, side, segments.mss[row])
        at += 4
    else:
        length = TIMESTAMPS_LENGTH if stamped else 0
        if stamped:
            record_at(packets.word32, at).value = ALIGNED_TIMESTAMPS
    if stamped:
        write_timestamps(packets, connections, at + 4, hot, cold, side, syn, now)
    if segments.left[row] != segments.right[row]:
        length += write_block(packets, at + length, segments.left[row], segments.right[row])
    if side == TARGET and tells_address(connections, cold, row):
        length += write_address(packets, connections, segments.connection[row], at + length)
    return length


@kernel
def write_tcp_header(packets, connections, at, hot, cold, row, now):
    """Writes the TCP header of a segment with its options; returns its length."""
    segments = connections.segments
    side, words = segments.side[row], packets.word32
    options = write_options(packets, connections, at + TCP_LENGTH, hot, cold, side, row, now)
    # In whole words, as the checksum reads them: a load that spans several stores waits until they are all in the cache.
    record_at(words, at).value = swap16(int64(hot.local_port[side])) | swap16(int64(hot.remote_port[side])) << 16
    record_at(words, at + 4).value = swap32(segments.seq[row])
    record_at(words, at + 8).value = swap32(segments.ack[row])
    record_at(words, at + 12).value = (TCP_LENGTH + options) << 2 | segments.control[row] << 8 | swap16(segments.window[row]) << 16
    record_at(words, at + 16).value = swap16(segments.urgent[row]) << 16
    return TCP_LENGTH + options


@kernel
def pass_mark(packets, at, hot, cold):
    """Puts the mark that a router has left on held bytes (CE) on a segment toward the target, once, if that agreed to ECN."""
    if int64(cold.special) & PROMISED_ECN == 0:
        ip = record_at(packets.ipv4, at)
        ip.service = CODEPOINT
        ip.checksum = update(int64(ip.checksum), difference(0, CODEPOINT << 8))
    cold.special &= 0xFFFF ^ MARKED
    if cold.special & UNUSUAL == 0:
        hot.options &= 0xFF ^ SPECIAL


@kernel
def build_one(packets, base, mbuf, connections, row, neighbour, network, now):
    """Writes one ordered segment into a fresh mbuf."""
    segments, side = connections.segments, connections.segments.side[row]
    hot, cold = record_at(connections.hot, segments.connection[row]), record_at(connections.cold, segments.connection[row])
    frame = data_start(packets, base, mbuf)
    at, length = frame + ETHERNET_LENGTH, segments.length[row]
    write_ethernet(packets, frame, neighbour, network)
    record_at(packets.ethernet, frame).ethertype = swap16(ETHERTYPE_IPV4)
    header = write_tcp_header(packets, connections, at + IPV4_LENGTH, hot, cold, row, now)
    write_ipv4_header(packets, at, IPV4_LENGTH + header + length, int64(hot.local_address[side]),
                      int64(hot.remote_address[side]))
    start, held = at + IPV4_LENGTH + header, segments.held[row]
    copy_octets(packets.octets, start, connections.held.octets, held, length)
    if length > 0 and cold.special & MARKED:
        pass_mark(packets, at, hot, cold)
    finish_tcp(packets, at, header + length)
    set_length(packets, mbuf, ETHERNET_LENGTH + IPV4_LENGTH + header + length)


@kernel
def unresolved(connections, connection, tick):
    """A segment could not go out, since nobody has said yet where its next hop is: handshakes try again shortly."""
    hot, cold = record_at(connections.hot, connection), record_at(connections.cold, connection)
    connections.counters.drops[DROP_UNRESOLVED_NEIGHBOUR] += 1
    if hot.state == SYN_RECEIVED or hot.state == CONNECTING:
        record_at(connections.openings, int64(cold.opening)).retry = retry_at(tick + RESOLVE_RETRY)
        note(connections.touched, connection, 0)


@kernel
def build(packets, base, fresh, got, connections, network, outbox, now):
    """Builds the ordered segments into the mbufs fresh[:got] and posts them; without mbufs they are left out.

    A segment whose next hop is not resolved is left out too: timers send again whatever matters.
    """
    segments, counters = connections.segments, connections.counters
    for row in range(got):
        prefetch(base + fresh[row] + EXPECTED_FRAME)
    for row in range(got):
        hot = record_at(connections.hot, segments.connection[row])
        neighbour = record_at(network.neighbours, hot.neighbour[segments.side[row]])
        if neighbour.state < REACHABLE:
            unresolved(connections, segments.connection[row], now // TICK_MICROSECONDS)
            discard(outbox, fresh[row])
            continue
        build_one(packets, base, fresh[row], connections, row, neighbour, network, now)
        post(outbox, int64(neighbour.port), fresh[row], counters)
    segments.filled[0] = 0
