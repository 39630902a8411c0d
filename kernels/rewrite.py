"""Rewrite: translates the headers of every packet that passes, with checksums updated incrementally (RFC 1624)."""
from numpy import int64

from .batch import DROP, FORWARD, REPORT
from .checksum import difference, update
from .connection import AGED, CLIENT, DECLINED, HOLDS, PROMISED_ECN, PROMISED_TIMESTAMPS, OWNS, SCALED, SPECIAL, STAMPED, TARGET
from .counters import DROP_LARGER_THAN_MTU, DROP_TTL_EXCEEDED, DROP_UNRESOLVED_NEIGHBOUR
from .ecn import clear_ecn
from .headers import RST, SYN, TCP_LENGTH
from .insert_timestamps import insert_timestamps, inserted_toward
from .jit import kernel
from .native import record_at, swap16, swap32
from .neighbours import REACHABLE
from .sequence import wrap
from .split import is_split, plan
from .tcp_options import clamp_mss, keep_stamp, shift_stamp, translate_options


@kernel
def write_ethernet(packets, frame, neighbour, network):
    """Addresses a frame to a neighbour, from the port through which that is reached."""
    ethernet, port = record_at(packets.ethernet, frame), neighbour.port
    ethernet.destination_high = swap16(int64(neighbour.mac_high))
    ethernet.destination_low = swap32(int64(neighbour.mac_low))
    ethernet.source_high = swap16(network.mac_high[port])
    ethernet.source_low = swap32(network.mac_low[port])


@kernel
def write_ipv4(packets, at, source, destination):
    """Translates addresses (as they stand in the packet) and takes one hop off the TTL; returns the sum's difference
    by the addresses, which TCP's pseudo header covers as well."""
    ip = record_at(packets.ipv4, at)
    addresses = difference(int64(ip.source), source) + difference(int64(ip.destination), destination)
    ttl = int64(ip.ttl)
    before = ttl | (int64(ip.protocol) << 8)
    ip.ttl = ttl - 1
    ip.source = source
    ip.destination = destination
    ip.checksum = update(int64(ip.checksum), addresses + difference(before, before - 1))
    return addresses


@kernel
def write_tcp(packets, at, ports, seq, ack, changes):
    """Translates ports (both in one word, as they stand in the packet), sequence number and acknowledgement.

    `changes` is what else has changed of what the checksum covers, as a sum of differences.
    """
    tcp = record_at(packets.tcp, at)
    total = changes + difference(int64(record_at(packets.word32, at).value), ports)
    if int64(tcp.seq) != seq:
        total += difference(int64(tcp.seq), seq)
    if int64(tcp.ack) != ack:
        total += difference(int64(tcp.ack), ack)
    record_at(packets.word32, at).value = ports
    tcp.seq = seq
    tcp.ack = ack
    tcp.checksum = update(int64(tcp.checksum), total)


@kernel
def refuse_to_forward(packets, batch, row, neighbour, network, inserted):
    """Returns why a packet, with so many bytes to be inserted, cannot go to this neighbour, or -1."""
    if neighbour.state < REACHABLE:
        return DROP_UNRESOLVED_NEIGHBOUR
    if record_at(packets.ipv4, batch.network[row]).ttl <= 1:
        return DROP_TTL_EXCEEDED
    length = int64(record_at(packets.mbuf, batch.mbuf[row]).packet_length) - (batch.network[row] - batch.frame[row])
    return DROP_LARGER_THAN_MTU if length + inserted > network.mtu[neighbour.port] else -1


@kernel
def translate(packets, base, batch, row, connections, flow, mss, now):
    """Translates window and options of a row; returns what that adds to the checksum's sum."""
    hot, declined, total = record_at(connections.hot, flow >> 1), 0, 0
    plain = batch.payload[row] - batch.transport[row] == TCP_LENGTH
    if hot.options & (SCALED | STAMPED | SPECIAL | HOLDS | OWNS) == 0 and plain:
        return 0
    if hot.options & SPECIAL:
        cold = record_at(connections.cold, flow >> 1)
        declined = int64(cold.special) & DECLINED
        if declined & PROMISED_TIMESTAMPS and flow & 1 == CLIENT:
            keep_stamp(packets, batch, row, connections, cold)
        if declined & PROMISED_ECN:
            total += clear_ecn(packets, batch, row, flow & 1)
        if cold.special & AGED:
            total += shift_stamp(packets, batch, row, int64(cold.stamp_shift), flow & 1)
        if batch.control[row] & SYN:
            total += clamp_mss(packets, batch, row, mss)
    total += translate_options(packets, batch, row, hot, record_at(connections.cold, flow >> 1), flow & 1, declined)
    if flow & 1 == TARGET and declined & PROMISED_TIMESTAMPS and batch.control[row] & RST == 0:
        total += insert_timestamps(packets, base, batch, row, connections, flow >> 1, now)
    if hot.options & SPECIAL:
        if is_split(batch, row, connections, flow, mss):
            plan(batch, row, connections, flow, mss)
    return total


@kernel
def fits_in_parts(batch, row, connections, flow, mss):
    """Says whether a row that is larger than the MTU will be split."""
    hot = record_at(connections.hot, flow >> 1)
    return hot.options & SPECIAL != 0 and is_split(batch, row, connections, flow, mss)


@kernel
def rewrite(packets, base, batch, count, connections, network, now):
    """Translates all FORWARD rows toward the other side of their connection. The slot `rewrite`.

    Rows that are larger than the other side takes are noted in `connections.parts`.
    """
    for row in range(count):
        if batch.verdict[row] != FORWARD:
            continue
        flow = batch.flow[row]
        hot, side = record_at(connections.hot, flow >> 1), flow & 1
        other = 1 - side
        neighbour = record_at(network.neighbours, hot.neighbour[other])
        inserted = inserted_toward(connections, flow >> 1, other)
        reason = refuse_to_forward(packets, batch, row, neighbour, network, inserted)
        if reason == DROP_LARGER_THAN_MTU and fits_in_parts(batch, row, connections, flow, network.mss[0]):
            reason = -1
        if reason >= 0:
            batch.verdict[row] = DROP if reason == DROP_UNRESOLVED_NEIGHBOUR else REPORT
            connections.counters.drops[reason] += 1
            continue
        changes = translate(packets, base, batch, row, connections, flow, network.mss[0], now)
        changes += write_ipv4(packets, batch.network[row], swap32(int64(hot.local_address[other])),
                               swap32(int64(hot.remote_address[other])))
        write_ethernet(packets, batch.frame[row], neighbour, network)
        ports = swap16(int64(hot.local_port[other])) | (swap16(int64(hot.remote_port[other])) << 16)
        write_tcp(packets, batch.transport[row], ports, swap32(wrap(batch.seq[row] + int64(hot.shift[side]))),
                  swap32(wrap(batch.ack[row] - int64(hot.shift[other]))), changes)
        mbuf = record_at(packets.mbuf, batch.mbuf[row])
        if mbuf.offload != 0:  # a line that is only read need not be written back
            mbuf.offload = 0
        batch.out_port[row] = int64(neighbour.port)
