"""Report: tells the sender of a packet that cannot be forwarded why, as a router does (RFC 1812, sections 4.3 and 5.2.7).

The packet is quoted as its sender sent it: rewrite has left it as it was.
"""
from numpy import int64

from .batch import ANSWER, DROP, REPORT
from .checksum import fold, sum_ipv4, sum_octets
from .counters import NOTICE_ICMP_ERRORS_SENT
from .headers import ICMP_LENGTH, ICMP_TIME_EXCEEDED, ICMP_UNREACHABLE, IPV4_LENGTH, PROTOCOL_ICMP
from .icmp_errors import FRAGMENTATION_NEEDED
from .insert_timestamps import inserted_toward
from .jit import kernel
from .native import record_at, swap16
from .refuse import swap_macs, write_ipv4_header

NEW_HEADERS = IPV4_LENGTH + ICMP_LENGTH
MOST_QUOTED = 576 - NEW_HEADERS
"""Bytes of a packet that are quoted at most (RFC 1812, section 4.3.2.3)."""
INTERNETWORK_CONTROL = 0xC0
"""Precedence 6 in the type of service (RFC 1812, section 4.3.2.5)."""


@kernel
def move_ethernet(packets, batch, row):
    """Moves the Ethernet header, a tag and all, to make room for an IPv4 and an ICMP header behind it; sends it back."""
    frame, network = batch.frame[row], batch.network[row]
    for at in range(frame, network):
        packets.octets[at - NEW_HEADERS] = packets.octets[at]
    batch.frame[row] = frame - NEW_HEADERS
    batch.network[row] = network - NEW_HEADERS
    batch.transport[row] = network - ICMP_LENGTH
    swap_macs(packets, frame - NEW_HEADERS)


@kernel
def report_in_place(packets, batch, row, kind, code, mtu):
    """Turns the packet of a row into the ICMP error that quotes it."""
    ip = record_at(packets.ipv4, batch.network[row])
    quoted = min(swap16(int64(ip.total_length)), MOST_QUOTED)
    move_ethernet(packets, batch, row)
    network, transport = batch.network[row], batch.transport[row]
    write_ipv4_header(packets, network, NEW_HEADERS + quoted, batch.destination[row], batch.source[row])
    ip = record_at(packets.ipv4, network)
    ip.service, ip.protocol, ip.checksum = INTERNETWORK_CONTROL, PROTOCOL_ICMP, 0
    ip.checksum = 0xFFFF - fold(sum_ipv4(packets, network))
    icmp = record_at(packets.icmp, transport)
    icmp.type, icmp.code, icmp.checksum, icmp.identifier, icmp.sequence = kind, code, 0, 0, swap16(mtu)
    icmp.checksum = 0xFFFF - fold(sum_octets(packets, transport, ICMP_LENGTH + quoted))
    mbuf = record_at(packets.mbuf, batch.mbuf[row])
    length = network + NEW_HEADERS + quoted - batch.frame[row]
    mbuf.data_off = int64(mbuf.data_off) - NEW_HEADERS
    mbuf.data_length, mbuf.packet_length, mbuf.offload = length, length, 0
    batch.out_port[row] = batch.port[row]


@kernel
def report(packets, batch, count, connections, network):
    """Answers all REPORT rows with an ICMP error, within the budget that resets have as well; else they are dropped.

    So are packets in several mbufs, and those without room before them.
    """
    budget = connections.budget
    for row in range(count):
        if batch.verdict[row] != REPORT:
            continue
        batch.verdict[row] = DROP
        mbuf = record_at(packets.mbuf, batch.mbuf[row])
        if mbuf.segments != 1 or mbuf.data_off < NEW_HEADERS or budget[0] <= 0:
            continue
        budget[0] -= 1
        kind, code, mtu = ICMP_TIME_EXCEEDED, 0, 0
        if record_at(packets.ipv4, batch.network[row]).ttl > 1:
            flow, other = batch.flow[row], 1 - (batch.flow[row] & 1)
            port = record_at(network.neighbours, record_at(connections.hot, flow >> 1).neighbour[other]).port
            kind, code = ICMP_UNREACHABLE, FRAGMENTATION_NEEDED
            mtu = network.mtu[port] - inserted_toward(connections, flow >> 1, other)
        report_in_place(packets, batch, row, kind, code, mtu)
        batch.verdict[row] = ANSWER
        connections.counters.notices[NOTICE_ICMP_ERRORS_SENT] += 1
