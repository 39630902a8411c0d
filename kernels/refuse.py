"""Refuse: answers segments of no connection with a RST, in their own mbuf (RFC 9293, section 3.10.7.1; SPLICE 4.6)."""
from numpy import int64

from .batch import ANSWER, DROP, REFUSE
from .checksum import fold, pseudo_header, sum_octets
from .connection import LINGERING
from .counters import (
    DROP_NOT_OURS,
    DROP_RESET_RATE_LIMIT,
    DROP_STRAY_SEGMENT,
    DROP_SYN_OF_TARGET,
    NOTICE_RESETS_SENT,
)
from .headers import ACK, FIN, IPV4_LENGTH, PROTOCOL_TCP, RST, SYN, TCP_LENGTH
from .jit import kernel
from .native import record_at, swap16, swap32
from .neighbours import owns
from .sequence import wrap
from .services import STRAY_DROP, find_service
from .wheel import TICK_MICROSECONDS

LINGERING_TICKS = 200
"""How long an end may ask for the exact RST of a connection that we have ended: two seconds, as long as a RST may linger."""


@kernel
def swap_macs(packets, frame):
    """Sends a frame back to where it came from."""
    ethernet = record_at(packets.ethernet, frame)
    high, low = int64(ethernet.destination_high), int64(ethernet.destination_low)
    ethernet.destination_high, ethernet.destination_low = int64(ethernet.source_high), int64(ethernet.source_low)
    ethernet.source_high, ethernet.source_low = high, low


@kernel
def write_ipv4_header(packets, at, total_length, source, destination):
    """Writes a fresh IPv4 header of 20 bytes for TCP: do not fragment, TTL 64, addresses in host order."""
    words, first, second, third = packets.word32, 0x45 | swap16(total_length) << 16, swap16(0x4000) << 16, 64 | PROTOCOL_TCP << 8
    source, destination = swap32(source), swap32(destination)
    record_at(words, at).value = first
    record_at(words, at + 4).value = second
    record_at(words, at + 8).value = third | (0xFFFF - fold(first + second + third + source + destination)) << 16
    record_at(words, at + 12).value = source
    record_at(words, at + 16).value = destination


@kernel
def finish_tcp(packets, network, length):
    """Fills in the checksum, which is 0, of a TCP segment of `length` bytes behind a 20-byte IPv4 header."""
    tcp = network + IPV4_LENGTH
    total = sum_octets(packets, tcp, length) + pseudo_header(packets, network, length)
    record_at(packets.tcp, tcp).checksum = 0xFFFF - fold(total)


@kernel
def reset_in_place(packets, batch, row):
    """Turns the segment of a row into the RST that answers it; its mbuf is cut to one plain frame."""
    frame, network = batch.frame[row], batch.network[row]
    control, length = batch.control[row], batch.payload_length[row]
    occupied = length + int64(control & SYN != 0) + int64(control & FIN != 0)
    swap_macs(packets, frame)
    write_ipv4_header(packets, network, IPV4_LENGTH + TCP_LENGTH, batch.destination[row], batch.source[row])
    tcp = record_at(packets.tcp, network + IPV4_LENGTH)
    tcp.source_port, tcp.destination_port = swap16(batch.destination_port[row]), swap16(batch.source_port[row])
    if control & ACK:
        tcp.seq, tcp.ack, tcp.control = swap32(batch.ack[row]), 0, RST
    else:
        tcp.seq, tcp.ack, tcp.control = 0, swap32(wrap(batch.seq[row] + occupied)), RST | ACK
    tcp.data_offset, tcp.window, tcp.checksum, tcp.urgent = 5 << 4, 0, 0, 0
    finish_tcp(packets, network, TCP_LENGTH)
    mbuf = record_at(packets.mbuf, batch.mbuf[row])
    mbuf.data_length = network - frame + IPV4_LENGTH + TCP_LENGTH
    mbuf.packet_length = network - frame + IPV4_LENGTH + TCP_LENGTH
    mbuf.offload = 0


@kernel
def of_target(targets, address):
    """Says whether an address is a target's."""
    for number in range(targets.rows.shape[0]):
        if targets.rows[number].address == address:
            return True
    return False


@kernel
def lingers(connections, hashed, tick):
    """Says whether the end with a key of that hash has been reset by us not long ago (SPLICE 4.2)."""
    entry = hashed & (LINGERING - 1)
    return connections.lingering[entry, 0] == hashed and tick - connections.lingering[entry, 1] < LINGERING_TICKS


@kernel
def reason_not_to_answer(batch, row, connections, services, targets, network, tick):
    """Returns why a segment of no connection gets no RST, or -1; takes one from the budget where it gets one."""
    budget = connections.budget
    if not owns(network, batch.destination[row], -1):
        return DROP_NOT_OURS
    number = find_service(services, batch.destination[row], batch.destination_port[row])
    if batch.control[row] & RST:
        return DROP_STRAY_SEGMENT
    if number >= 0 and services[number].stray == STRAY_DROP and not lingers(connections, batch.hash[row], tick):
        return DROP_STRAY_SEGMENT
    if number < 0 and batch.control[row] & (SYN | ACK) == SYN and of_target(targets, batch.source[row]):
        return DROP_SYN_OF_TARGET
    if budget[0] <= 0:
        return DROP_RESET_RATE_LIMIT
    budget[0] -= 1
    return -1


@kernel
def refuse(packets, batch, count, connections, services, targets, network, now):
    """Answers all REFUSE rows with a RST, or drops them: by the service's `stray`, within the budget."""
    counters, tick = connections.counters, now // TICK_MICROSECONDS
    for row in range(count):
        if batch.verdict[row] != REFUSE:
            continue
        reason = DROP_STRAY_SEGMENT
        if record_at(packets.mbuf, batch.mbuf[row]).segments == 1:
            reason = reason_not_to_answer(batch, row, connections, services, targets, network, tick)
        if reason >= 0:
            batch.verdict[row] = DROP
            counters.drops[reason] += 1
            continue
        reset_in_place(packets, batch, row)
        batch.verdict[row] = ANSWER
        batch.out_port[row] = batch.port[row]
        counters.notices[NOTICE_RESETS_SENT] += 1
