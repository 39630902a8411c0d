"""Exception: what is not ours goes to the kernel by the exception port beside a port, and what the kernel sends goes out.

Beside such a port the kernel has its addresses: ARP, ICMP, other protocols, and TCP that is neither for a service nor for
a source port of ours are its own affair. Nothing of that is changed, neither tags nor chained mbufs.
"""
from numpy import int64

from .batch import ANSWER, DROP, KIND_ARP, KIND_ICMP, KIND_TCP, PENDING
from .counters import (
    DROP_FRAGMENT,
    DROP_ICMP_INVALID,
    DROP_LARGER_THAN_MTU,
    DROP_OTHER_ETHERTYPE,
    DROP_OTHER_MAC,
    DROP_OTHER_PROTOCOL,
    DROP_OTHER_VLAN,
    NOTICE_FROM_KERNEL,
    NOTICE_TO_KERNEL,
)
from .headers import ETHERNET_LENGTH, FRAGMENT_OFFSET, PROTOCOL_TCP, VLAN_LENGTH
from .icmp import is_error
from .jit import kernel
from .native import record_at, swap16, swap32
from .neighbours import owns
from .outbox import post
from .services import find_service

NOT_UNDERSTOOD = (1 << DROP_OTHER_MAC | 1 << DROP_OTHER_ETHERTYPE | 1 << DROP_OTHER_VLAN | 1 << DROP_OTHER_PROTOCOL
                  | 1 << DROP_FRAGMENT | 1 << DROP_ICMP_INVALID)
"""Drop reasons of parse (bits) for what the engine alone has no use for; what is malformed nobody has."""
GROUP = 0x0100
"""In the upper 16 bits of a MAC address: it is a multicast or the broadcast address (IEEE 802, section 8)."""
PORTS = 4
"""Bytes of a TCP header that name both ports."""


@kernel
def is_ours(services, claims, source, source_port, destination, destination_port):
    """Says whether a TCP segment of no connection is for a service, or from a target to a source port toward it.

    `claims` int64[n, 5]: target's address and port, source address, lowest and highest source port.
    """
    if find_service(services, destination, destination_port) >= 0:
        return True
    for number in range(claims.shape[0]):
        if (claims[number, 0] == source and claims[number, 1] == source_port and claims[number, 2] == destination
                and claims[number, 3] <= destination_port <= claims[number, 4]):
            return True
    return False


@kernel
def reaches_us(packets, frame, mac_high, mac_low):
    """Says whether a frame is for a port's own MAC address or for a group."""
    ethernet = record_at(packets.ethernet, frame)
    high = swap16(int64(ethernet.destination_high))
    return high & GROUP != 0 or (high == mac_high and swap32(int64(ethernet.destination_low)) == mac_low)


@kernel
def begins_ours(packets, batch, row, services, claims):
    """Says whether an IPv4 fragment is the first one of a TCP segment that is ours.

    Without it the kernel has nothing to put together: a whole segment of no socket of its own it would answer with a RST.
    """
    ip, words = record_at(packets.ipv4, batch.network[row]), packets.word16
    transport = batch.network[row] + (int64(ip.version_length) & 0xF) * 4
    held = int64(record_at(packets.mbuf, batch.mbuf[row]).data_length)
    if (int64(ip.protocol) != PROTOCOL_TCP or swap16(int64(ip.fragment)) & FRAGMENT_OFFSET != 0
            or transport + PORTS > batch.frame[row] + held):
        return False
    return is_ours(services, claims, swap32(int64(ip.source)), swap16(int64(record_at(words, transport).value)),
                   swap32(int64(ip.destination)), swap16(int64(record_at(words, transport + 2).value)))


@kernel
def is_the_kernels(packets, batch, row, port, services, claims, network):
    """Says whether a row that parse and look-up have seen is not ours, and can be of use to the kernel.

    ICMP errors for an address of ours stay: `icmp_errors` knows whether they are about a connection.
    """
    if batch.verdict[row] == DROP:
        reason = batch.reason[row]
        if (NOT_UNDERSTOOD >> reason) & 1 == 0 or not reaches_us(packets, batch.frame[row], network.mac_high[port],
                                                                 network.mac_low[port]):
            return False
        if reason == DROP_ICMP_INVALID:
            return record_at(packets.mbuf, batch.mbuf[row]).segments != 1
        return reason != DROP_FRAGMENT or not begins_ours(packets, batch, row, services, claims)
    kind = batch.kind[row]
    if batch.verdict[row] != PENDING:
        return False
    if kind == KIND_TCP:
        return batch.flow[row] < 0 and not is_ours(services, claims, batch.source[row], batch.source_port[row],
                                                   batch.destination[row], batch.destination_port[row])
    if kind == KIND_ICMP:
        return not (is_error(record_at(packets.icmp, batch.transport[row]).type) and owns(network, batch.destination[row], -1))
    return kind == KIND_ARP


@kernel
def give_to_kernel(packets, batch, row, network, counters):
    """Has a row leave as it is by the exception port beside the port that it came in by.

    What is too long for that is dropped here: net_tap would leave all that comes behind it in the burst unsent. af_packet
    hands on in one piece what came in fragments (PACKET_FANOUT_FLAG_DEFRAG).
    """
    port, mbuf = network.exception[batch.port[row]], record_at(packets.mbuf, batch.mbuf[row])
    if int64(mbuf.packet_length) > network.mtu[port] + ETHERNET_LENGTH + VLAN_LENGTH:
        batch.verdict[row] = DROP
        counters.drops[DROP_LARGER_THAN_MTU] += 1
        return
    batch.verdict[row] = ANSWER
    batch.out_port[row] = port
    mbuf.offload = 0
    counters.notices[NOTICE_TO_KERNEL] += 1


@kernel
def leave_to_kernel(packets, batch, count, port, services, claims, network, counters):
    """Gives the kernel what is not ours of a burst that came in by `port`, if there is an exception port beside it.

    What parse has counted as dropped for it is not dropped.
    """
    if network.exception[port] < 0:
        return
    for row in range(count):
        if is_the_kernels(packets, batch, row, port, services, claims, network):
            if batch.verdict[row] == DROP:
                counters.drops[batch.reason[row]] -= 1
            give_to_kernel(packets, batch, row, network, counters)


@kernel
def take_from_kernel(packets, batch, count, port, network, outbox, counters):
    """Sends what came in by an exception port on by the port beside it, as it is."""
    for row in range(count):
        record_at(packets.mbuf, batch.mbuf[row]).offload = 0
        post(outbox, network.beside[port], batch.mbuf[row], counters)
    counters.notices[NOTICE_FROM_KERNEL] += count
