"""ICMP errors about packets of ours pass the splice, to the end whose packet it was (SPLICE 8.1, RFC 792, RFC 1191).

A router, or one end, quotes a packet that we have sent toward it. The quote is translated back into the packet that the
other end sent, so that its stack knows it: path-MTU discovery works as if we were not there. What passes is not limited
in rate, as nothing is that a router forwards (RFC 1812, section 4.3.2.8); what does not quote bytes in flight is dropped
(RFC 5927, section 4.1).
"""
from numpy import int64

from .batch import ABSORB, ANSWER, DROP, KIND_ICMP, PENDING
from .checksum import difference, fold, sum_octets, update
from .connect import count_failure, target_fails
from .connection import (
    AGED,
    BOUND,
    CLIENT,
    CONNECTING,
    FREE,
    HOLDS,
    OPENS,
    PLAIN,
    SHAPED,
    SPECIAL,
    SPLICED,
    STAMPED,
    TARGET,
    end,
    note,
)
from .counters import (
    DROP_BAD_SOURCE,
    DROP_ICMP_BEFORE_BINDING,
    DROP_ICMP_NO_CONNECTION,
    DROP_ICMP_NOT_IN_FLIGHT,
    DROP_ICMP_QUOTE_INVALID,
    NOTICE_ICMP_ERRORS_PASSED,
    NOTICE_PATH_MTU_LOWERED,
)
from .exception import give_to_kernel
from .flow_hash import hash_key
from .flow_table import find
from .headers import (
    FRAGMENT_OFFSET,
    ICMP_LENGTH,
    ICMP_QUOTED_WORDS,
    ICMP_UNREACHABLE,
    IPV4_LENGTH,
    PROTOCOL_TCP,
    TCP_LENGTH,
    TCP_OPTION_SACK,
)
from .insert_timestamps import inserted_toward
from .jit import kernel
from .native import record_at, swap16, swap32
from .open import source_is_bad
from .records import ACTIVE_RST, TARGET_UNREACHABLE
from .rewrite import refuse_to_forward, write_ethernet, write_ipv4
from .sequence import before, distance, wrap
from .shaping import sender_number
from .splice import held_end
from .tcp_options import TIMESTAMPS_LENGTH, find_option, find_timestamps, replace
from .wheel import TICK_MICROSECONDS, retry_at

FRAGMENTATION_NEEDED = 4
HARD_CODES = 0b10_0110_0000_1111
"""Codes of destination unreachable that end an attempt to connect: network, host, protocol and port unreachable, network,
host and all communication prohibited (RFC 1122, section 4.2.3.9, and RFC 1812, section 5.2.7.1)."""
LEAST_QUOTE = 8
"""Bytes of the TCP header that every error quotes: ports and sequence number (RFC 792)."""
LEAST_MTU, LEAST_PATH_MTU = 68, 552
"""The least MTU that there can be (RFC 791), and the least that our own segments are cut to: nobody gains by less."""


@kernel
def quoted_tcp(packets, quote, stop):
    """Returns the byte offset of the TCP header in the packet quoted between two offsets, 0 where there is none.

    At least its first eight bytes lie before `stop`. A later fragment has no TCP header. Extensions (RFC 4884, section 4)
    lie behind 128 bytes of quote, further than all that is ever translated: they stay as they are.
    """
    if stop - quote < IPV4_LENGTH + LEAST_QUOTE:
        return 0
    ip = record_at(packets.ipv4, quote)
    header = (int64(ip.version_length) & 0xF) * 4
    if int64(ip.version_length) >> 4 != 4 or header < IPV4_LENGTH or stop - quote < header + LEAST_QUOTE:
        return 0
    if ip.protocol != PROTOCOL_TCP or swap16(int64(ip.fragment)) & FRAGMENT_OFFSET != 0:
        return 0
    return quote + header if swap16(int64(ip.total_length)) >= header + TCP_LENGTH else 0


@kernel
def flow_of_quoted(packets, quote, tcp, connections):
    """Returns the flow (connection * 2 + the side to which it was sent) of a quoted packet, or NO_FLOW.

    The quote has the addresses the other way round than the packets that come from there.
    """
    ip, ports = record_at(packets.ipv4, quote), swap32(int64(record_at(packets.word32, tcp).value))
    remote, local = swap32(int64(ip.destination)), swap32(int64(ip.source))
    hashed = hash_key(remote, local, ports & 0xFFFF, ports >> 16)
    return find(connections.buckets, connections.hot, hashed, remote, local, ports & 0xFFFF, ports >> 16)


@kernel
def is_in_flight(hot, side, seq):
    """Says whether a number, as `side` sees it, has been sent to it and not been acknowledged (RFC 5927, section 4.1)."""
    sent = wrap(int64(hot.next[1 - side]) + int64(hot.shift[1 - side]))
    return distance(seq, int64(hot.acked[side])) >= 0 and before(seq, sent)


@kernel
def translate_quoted_options(packets, tcp, stop, hot, cold, side):
    """Translates timestamps and SACK blocks that are quoted whole back; returns what that adds to the checksum's sum."""
    if stop - tcp <= TCP_LENGTH:
        return 0
    first, total = tcp + TCP_LENGTH, 0
    stop = min(stop, tcp + (int64(packets.octets[tcp + 12]) >> 4) * 4)
    words = packets.word32
    stamps = find_timestamps(packets, first, stop)
    if stamps != 0:
        aged = int64(cold.stamp_shift) if hot.options & SPECIAL and cold.special & AGED else 0
        shifted = int64(hot.timestamp_shift) if hot.options & STAMPED else 0
        value_by = -shifted if side == CLIENT else -aged
        echo_by = aged if side == CLIENT else shifted
        for at, by in ((stamps, value_by), (stamps + 4, echo_by)):
            total += replace(packets, tcp, at, wrap(swap32(int64(record_at(words, at).value)) + by))
    sack = find_option(packets, first, stop, TCP_OPTION_SACK)
    if sack != 0:
        for edge in range(sack + 2, sack + int64(packets.octets[sack + 1]) - 3, 4):
            value = swap32(int64(record_at(words, edge).value)) + int64(hot.shift[side])
            total += replace(packets, tcp, edge, wrap(value))
    return total


@kernel
def translate_quote(packets, quote, tcp, stop, connections, connection, side):
    """Makes the packet quoted between `quote` and `stop`, sent to `side`, the one that the other side had sent.

    Checksums are updated incrementally: one that was right stays right, whatever part of the packet is quoted.
    """
    hot, cold = record_at(connections.hot, connection), record_at(connections.cold, connection)
    other, words = 1 - side, packets.word32
    ip = record_at(packets.ipv4, quote)
    source, destination = swap32(int64(hot.remote_address[other])), swap32(int64(hot.local_address[other]))
    total = difference(int64(ip.source), source) + difference(int64(ip.destination), destination)
    ip.source, ip.destination = source, destination
    ip.checksum = update(int64(ip.checksum), total)
    total += replace(packets, tcp, tcp, (int64(hot.remote_port[other]) << 16) | int64(hot.local_port[other]))
    seq = swap32(int64(record_at(words, tcp + 4).value))
    total += replace(packets, tcp, tcp + 4, sender_number(connections, connection * 2 + other, seq))
    if stop - tcp >= 12:
        ack = swap32(int64(record_at(words, tcp + 8).value))
        total += replace(packets, tcp, tcp + 8, wrap(ack + int64(hot.shift[side])))
    total += translate_quoted_options(packets, tcp, stop, hot, cold, side)
    if stop - tcp >= 18:
        checksum = record_at(packets.word16, tcp + 16)
        checksum.value = update(int64(checksum.value), total)


@kernel
def replace_total_length(packets, at, length):
    """Writes the total length of the IPv4 header at a byte offset, and updates its checksum."""
    ip, new = record_at(packets.ipv4, at), swap16(length)
    ip.checksum = update(int64(ip.checksum), difference(int64(ip.total_length), new))
    ip.total_length = new


@kernel
def cut_quote(packets, batch, row, quote, tcp, inserted):
    """Cuts a quote behind the eight bytes that there must be, and takes `inserted` bytes off the quoted length.

    For packets whose options or payload are not those that their sender sent. Extensions go with the rest.
    """
    icmp, network = batch.transport[row], batch.network[row]
    replace_total_length(packets, quote, swap16(int64(record_at(packets.ipv4, quote).total_length)) - inserted)
    packets.octets[icmp + ICMP_QUOTED_WORDS] = 0
    batch.payload_length[row] = tcp + LEAST_QUOTE - icmp
    replace_total_length(packets, network, tcp + LEAST_QUOTE - network)
    mbuf = record_at(packets.mbuf, batch.mbuf[row])
    mbuf.data_length = tcp + LEAST_QUOTE - batch.frame[row]
    mbuf.packet_length = tcp + LEAST_QUOTE - batch.frame[row]


@kernel
def pass_on(packets, batch, row, tcp, stop, connections, flow, network):
    """Makes the error of a row one about the other side's own packet, and addresses it there.

    Returns -1, or why it cannot go. The router's address stays its source.
    """
    connection, side, other = flow >> 1, flow & 1, 1 - (flow & 1)
    hot, cold = record_at(connections.hot, connection), record_at(connections.cold, connection)
    neighbour = record_at(network.neighbours, hot.neighbour[other])
    reason = refuse_to_forward(packets, batch, row, neighbour, network, 0)
    if reason >= 0:
        return reason
    at, quote = batch.transport[row], batch.transport[row] + ICMP_LENGTH
    inserted = inserted_toward(connections, connection, side)
    translate_quote(packets, quote, tcp, stop, connections, connection, side)
    icmp = record_at(packets.icmp, at)
    mtu = swap16(int64(icmp.sequence))
    if inserted != 0 and icmp.type == ICMP_UNREACHABLE and icmp.code == FRAGMENTATION_NEEDED and mtu != 0:
        icmp.sequence = swap16(max(mtu - inserted, LEAST_MTU))
    if inserted != 0 or (hot.options & SPECIAL and cold.special & (SHAPED << CLIENT | SHAPED << TARGET)):
        cut_quote(packets, batch, row, quote, tcp, inserted)
    write_ipv4(packets, batch.network[row], swap32(batch.source[row]), swap32(int64(hot.remote_address[other])))
    write_ethernet(packets, batch.frame[row], neighbour, network)
    icmp.checksum = 0
    icmp.checksum = 0xFFFF - fold(sum_octets(packets, at, batch.payload_length[row]))
    record_at(packets.mbuf, batch.mbuf[row]).offload = 0
    batch.out_port[row] = int64(neighbour.port)
    batch.verdict[row] = ANSWER
    connections.counters.notices[NOTICE_ICMP_ERRORS_PASSED] += 1
    return -1


@kernel
def next_plateau(length):
    """Returns the MTU to be tried after a packet of `length` bytes was too large for a router that does not say what
    fits (RFC 1191, section 7)."""
    return 1492 if length > 1492 else 1006 if length > 1006 else LEAST_PATH_MTU


@kernel
def lower_path_mtu(connections, connection, mtu, length, seq, tick):
    """A packet of `length` bytes toward the target was too large: our own segments get smaller (RFC 1191, section 6.4).

    Held bytes among them are sent again with the next tick. It never grows again within a connection.
    """
    hot, cold = record_at(connections.hot, connection), record_at(connections.cold, connection)
    headers = IPV4_LENGTH + TCP_LENGTH + (TIMESTAMPS_LENGTH if hot.options & STAMPED else 0)
    segment = max(mtu if mtu != 0 else next_plateau(length), LEAST_PATH_MTU) - headers
    if cold.special & OPENS == 0:
        return  # no segments of our own, nor parts of others
    opening = record_at(connections.openings, int64(cold.opening))
    if segment >= int64(opening.mss[TARGET]):
        return
    opening.mss[TARGET] = segment
    connections.counters.notices[NOTICE_PATH_MTU_LOWERED] += 1
    if hot.options & HOLDS and before(seq, held_end(connections, connection)):
        opening.retry, opening.tries = retry_at(tick), 0
        note(connections.touched, connection, 0)


@kernel
def simple_before_binding(packets, batch, row, tcp, stop, connections, connection, hard, network):
    """Mode `simple`: the SYN is the client's own, which hears of all that goes wrong; a hard error ends the connection.

    Returns -1, or why it cannot go.
    """
    reason = pass_on(packets, batch, row, tcp, stop, connections, connection * 2 + TARGET, network)
    if hard:
        count_failure(connections, connection, TARGET_UNREACHABLE)
        end(connections, connection, ACTIVE_RST, TARGET_UNREACHABLE)
    return reason


@kernel
def before_binding(packets, batch, row, tcp, stop, connections, flow, network, tick):
    """An error while nobody is bound to hear of it: one that is hard, about our SYN, makes that target fail at once.

    Returns -1, or why it counts for nothing.
    """
    hot, cold = record_at(connections.hot, flow >> 1), record_at(connections.cold, flow >> 1)
    icmp = record_at(packets.icmp, batch.transport[row])
    if flow & 1 != TARGET or hot.state != CONNECTING or hot.options & BOUND == 0:
        return DROP_ICMP_BEFORE_BINDING
    if swap32(int64(record_at(packets.word32, tcp + 4).value)) != int64(record_at(connections.openings, int64(cold.opening)).syn_isn):
        return DROP_ICMP_NOT_IN_FLIGHT
    hard = icmp.type == ICMP_UNREACHABLE and (HARD_CODES >> int64(icmp.code)) & 1 != 0
    if cold.special & PLAIN:
        return simple_before_binding(packets, batch, row, tcp, stop, connections, flow >> 1, hard, network)
    if not hard:
        return DROP_ICMP_BEFORE_BINDING
    target_fails(connections, flow >> 1, TARGET_UNREACHABLE, tick)
    batch.verdict[row] = ABSORB
    return -1


@kernel
def deal_with(packets, batch, row, connections, network, tick):
    """Passes the error of one row on, or acts on it; returns -1, or why it is dropped."""
    quote, stop = batch.transport[row] + ICMP_LENGTH, batch.transport[row] + batch.payload_length[row]
    tcp = quoted_tcp(packets, quote, stop)
    if tcp == 0:
        return DROP_ICMP_QUOTE_INVALID
    if source_is_bad(network, batch.source[row]):
        return DROP_BAD_SOURCE
    flow = flow_of_quoted(packets, quote, tcp, connections)
    ip = record_at(packets.ipv4, quote)
    length = swap16(int64(ip.total_length))
    if flow < 0 or swap32(int64(ip.source)) != batch.destination[row]:
        return DROP_ICMP_NO_CONNECTION
    hot, side = record_at(connections.hot, flow >> 1), flow & 1
    if hot.state == FREE:
        return DROP_ICMP_NO_CONNECTION
    if hot.options & SPLICED == 0:
        return before_binding(packets, batch, row, tcp, stop, connections, flow, network, tick)
    seq = swap32(int64(record_at(packets.word32, tcp + 4).value))
    if not is_in_flight(hot, side, seq):
        return DROP_ICMP_NOT_IN_FLIGHT
    icmp = record_at(packets.icmp, batch.transport[row])
    if side == TARGET and icmp.type == ICMP_UNREACHABLE and icmp.code == FRAGMENTATION_NEEDED:
        lower_path_mtu(connections, flow >> 1, swap16(int64(icmp.sequence)), length, seq, tick)
    return pass_on(packets, batch, row, tcp, stop, connections, flow, network)


@kernel
def pass_icmp_errors(packets, batch, count, connections, network, now):
    """Deals with all ICMP errors of a burst, which `answer_icmp` has found intact and for us.

    Those about no connection are the kernel's, where there is an exception port.
    """
    tick = now // TICK_MICROSECONDS
    for row in range(count):
        if batch.kind[row] != KIND_ICMP or batch.verdict[row] != PENDING:
            continue
        reason = deal_with(packets, batch, row, connections, network, tick)
        if ((reason == DROP_ICMP_NO_CONNECTION or reason == DROP_ICMP_QUOTE_INVALID)
                and network.exception[batch.port[row]] >= 0):
            give_to_kernel(packets, batch, row, network, connections.counters)
        elif reason >= 0:
            batch.verdict[row] = DROP
            connections.counters.drops[reason] += 1
