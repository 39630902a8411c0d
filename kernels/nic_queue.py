"""Which receive queue a NIC puts a frame into: by a steering rule, by RSS, or the first (`pipeline.io.nic_model`).

What is modelled, and after what:

- Rules take TCP over IPv4 that is no fragment, with one 802.1Q tag or without: in rte_flow an Ethernet item without a type
  matches both. A port has one field and one mask for all of its rules, as the 82599's Flow Director has.
- RSS hashes addresses and ports of TCP over IPv4 that is no fragment, the two addresses of all other IPv4 (Microsoft, "RSS
  hashing types"); IPv4 options are skipped.
- All else goes to queue 0: no IPv4, two tags or one of 0x88A8 (the 82599 knows one type of tag), a header cut short.

A NIC does not judge: checksums, lengths that lie and foreign MAC addresses make no difference.
"""
from typing import NamedTuple

import numpy as np
from numpy import int64

from .headers import ETHERNET_LENGTH, ETHERTYPE_IPV4, ETHERTYPE_VLAN, IPV4_LENGTH, PROTOCOL_TCP, VLAN_LENGTH
from .jit import kernel, loop
from .native import record_at, swap16, swap32
from .toeplitz import queue_of

UNHASHED, BY_ADDRESSES, BY_PORTS, BY_RULE = range(4)
"""What has decided on a frame's queue."""
NO_FIELD, DESTINATION_PORT, DESTINATION_ADDRESS = range(3)
"""What the rules of a port look at; NO_FIELD: it has none."""
ANY_FRAGMENT = 0x3FFF
"""More Fragments and the offset (RFC 791, section 3.1)."""
PORTS_LENGTH = 4


class Spreading(NamedTuple):
    """How a NIC of `ports` ports spreads what it receives.

    `tables` uint32[12, 256]: of the Toeplitz key; `table` int64[n]: the redirection table; `field`, `mask`, `count`
    int64[ports]: what the rules of a port look at, under which mask, and how many there are; `value`, `queue`
    int64[ports, m]: what they compare it with, and where what is equal goes.
    """

    tables: np.ndarray
    table: np.ndarray
    field: np.ndarray
    mask: np.ndarray
    count: np.ndarray
    value: np.ndarray
    queue: np.ndarray


@kernel
def ipv4_header(packets, frame, end):
    """Returns where the IPv4 header of the frame at byte offset `frame` begins, -1 where it has none whole before `end`."""
    if end - frame < ETHERNET_LENGTH:
        return -1
    kind, header = swap16(int64(record_at(packets.ethernet, frame).ethertype)), frame + ETHERNET_LENGTH
    if kind == ETHERTYPE_VLAN and end - header >= VLAN_LENGTH:
        kind, header = swap16(int64(record_at(packets.vlan, header).ethertype)), header + VLAN_LENGTH
    if kind != ETHERTYPE_IPV4 or end - header < IPV4_LENGTH:
        return -1
    version_length = int64(record_at(packets.ipv4, header).version_length)
    return header if version_length >> 4 == 4 and 4 * (version_length & 15) >= IPV4_LENGTH else -1


@kernel
def tcp_ports(packets, header, end):
    """Returns where the ports behind an IPv4 header are, -1 where it has no TCP, is a fragment, or ends before them."""
    ip = record_at(packets.ipv4, header)
    place = header + 4 * (int64(ip.version_length) & 15)
    if int64(ip.protocol) != PROTOCOL_TCP or swap16(int64(ip.fragment)) & ANY_FRAGMENT != 0 or end - place < PORTS_LENGTH:
        return -1
    return place


@kernel
def queue_by_rule(spreading, port, destination, destination_port):
    """Returns the queue that a rule of the port has for TCP to this address and port, or -1."""
    asked = destination if spreading.field[port] == DESTINATION_ADDRESS else destination_port
    asked &= spreading.mask[port]
    for number in range(spreading.count[port]):
        if spreading.value[port, number] == asked:
            return spreading.queue[port, number]
    return -1


@kernel
def choose_queue(packets, frame, length, port, spreading):
    """Returns the queue for the frame of `length` octets at byte offset `frame`, and what has decided on it."""
    end = frame + length
    header = ipv4_header(packets, frame, end)
    if header < 0:
        return 0, UNHASHED
    ip = record_at(packets.ipv4, header)
    source, destination = swap32(int64(ip.source)), swap32(int64(ip.destination))
    place = tcp_ports(packets, header, end)
    if place < 0:
        return queue_of(spreading.tables, spreading.table, source, destination, 0, 0), BY_ADDRESSES
    both = swap32(int64(record_at(packets.word32, place).value))
    queue = queue_by_rule(spreading, port, destination, both & 0xFFFF)
    if queue >= 0:
        return queue, BY_RULE
    return queue_of(spreading.tables, spreading.table, source, destination, both >> 16, both & 0xFFFF), BY_PORTS


@loop
def choose_queues(packets, frames, lengths, port, spreading, queues, reasons):
    """Stores the queue of each of the frames at the byte offsets `frames` (int64[n]) and what has decided on it."""
    for row in range(frames.shape[0]):
        queues[row], reasons[row] = choose_queue(packets, frames[row], lengths[row], port, spreading)
