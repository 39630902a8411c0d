"""Hand-over: a packet that comes to another worker than its connection's goes on to that one (DESIGN, section 7).

Which worker a connection belongs to follows from its packets alone. A client's belong to the worker that their hash says
(BY_HASH), or to whichever the NIC brings them to (AT_HAND). A target's come to a port or an address of ours that one
worker alone uses (BY_PORT, BY_ADDRESS), or to a port that was chosen for its hash (BY_HASH). So a worker hands over what
none of its own connections knows, and asks nobody. What has been handed over is dealt with where it arrives, whatever it is.

Each pair of workers has a ring for each port and direction, with one producer and one consumer: there is no lock.
"""
from typing import NamedTuple

import numpy as np
from numpy import int64

from .arp import REPLY
from .batch import KIND_ARP, KIND_ICMP, KIND_TCP, NO_FLOW, PENDING, SENT
from .checksum import data_start
from .connection import CLIENT, TARGET
from .counters import DROP_HAND_OVER_FULL, NOTICE_HANDED_OVER
from .faults import copy_packet
from .headers import ICMP_LENGTH
from .icmp_errors import flow_of_quoted, quoted_tcp
from .jit import kernel, loop
from .native import record_at, swap16, swap32
from .outbox import append, empty
from .services import find_service
from .toeplitz import queue_of

AT_HAND, BY_HASH, BY_PORT, BY_ADDRESS = range(4)
MOST_SHARED, MOST_ARP = 8, 128
"""ARP frames of a burst that other workers see, and octets of one at most: a flood shall not take all mbufs."""


class Steering(NamedTuple):
    """Who owns what, and the packets of this pass that other workers own."""

    worker: np.ndarray          # int64 [3] the number of this worker, how many there are, and how many ports each has
    by: np.ndarray              # int64 [2] AT_HAND, BY_HASH, BY_PORT or BY_ADDRESS, by side
    tables: np.ndarray          # uint32 [12, 256] of the hash (see `toeplitz`)
    redirection: np.ndarray     # int64 [power of two] worker, by the last bits of the hash
    port_owner: np.ndarray      # int8 [65536] worker, by the port of ours that a target sends to; as small as can be, for the cache
    address: np.ndarray         # int64 [n] addresses from which we connect to targets
    address_owner: np.ndarray   # int64 [n] worker
    mbuf: np.ndarray            # int64 [workers * ports, capacity] to be handed over: row `owner * ports + port`
    filled: np.ndarray          # int64 [workers * ports]


@kernel
def by_hash(steering, source, destination, source_port, destination_port):
    """Returns the worker that the hash of a packet says."""
    return queue_of(steering.tables, steering.redirection, source, destination, source_port, destination_port)


@kernel
def owner_of(steering, services, source, destination, source_port, destination_port):
    """Returns the worker that owns the connection of a packet with these addresses and ports (as it comes in)."""
    side = CLIENT if find_service(services, destination, destination_port) >= 0 else TARGET
    kind = steering.by[side]
    if kind == BY_HASH:
        return by_hash(steering, source, destination, source_port, destination_port)
    if kind == BY_PORT:
        return int64(steering.port_owner[destination_port])
    if kind == BY_ADDRESS:
        for number in range(steering.address.shape[0]):
            if steering.address[number] == destination:
                return steering.address_owner[number]
    return steering.worker[0]


@kernel
def owner_of_quoted(steering, services, source, destination, source_port, destination_port):
    """Returns the same for a packet that has not come here itself, but whose answer an ICMP error quotes.

    By which queue it would have come, where that tells the owner (AT_HAND), is what our copy of the NIC's hash says.
    """
    side = CLIENT if find_service(services, destination, destination_port) >= 0 else TARGET
    if steering.by[side] == AT_HAND:
        return by_hash(steering, source, destination, source_port, destination_port)
    return owner_of(steering, services, source, destination, source_port, destination_port)


@kernel
def put(steering, owner, port, mbuf, outbox, counters):
    """Lists an mbuf for another worker; counted and freed where there is no room."""
    append(steering.mbuf, steering.filled, owner * steering.worker[2] + port, mbuf, outbox, counters, DROP_HAND_OVER_FULL)


@kernel
def hand_over(batch, count, steering, services, outbox, counters):
    """Lists the TCP rows of a burst that no connection here knows and another worker owns; their verdict is SENT then.

    Returns how many: where they are all, the stages behind need not look at the burst. Owners first, in a pass of their own
    (into `above`, which has another meaning only later): 78 ticks a row that is handed over, and 106 in one pass (Zen 4).
    """
    given, unknown = 0, 0
    for row in range(count):
        unknown += int64(batch.flow[row] == NO_FLOW)
    if unknown == 0:
        return 0
    for row in range(count):
        owner = steering.worker[0]
        if batch.flow[row] == NO_FLOW and batch.kind[row] == KIND_TCP and batch.verdict[row] == PENDING:
            owner = owner_of(steering, services, batch.source[row], batch.destination[row], batch.source_port[row],
                             batch.destination_port[row])
        batch.above[row] = owner
    for row in range(count):
        if batch.above[row] != steering.worker[0]:
            batch.verdict[row] = SENT
            put(steering, batch.above[row], batch.port[row], batch.mbuf[row], outbox, counters)
            given += 1
    return given


@kernel
def hand_over_errors(packets, batch, count, connections, steering, services, outbox):
    """The same with ICMP errors, by the packet of ours that they quote. `answer_icmp` has found them intact and for us."""
    for row in range(count):
        if batch.kind[row] != KIND_ICMP or batch.verdict[row] != PENDING:
            continue
        quote, stop = batch.transport[row] + ICMP_LENGTH, batch.transport[row] + batch.payload_length[row]
        tcp = quoted_tcp(packets, quote, stop)
        if tcp == 0 or flow_of_quoted(packets, quote, tcp, connections) != NO_FLOW:
            continue
        ip, ports = record_at(packets.ipv4, quote), swap32(int64(record_at(packets.word32, tcp).value))
        owner = owner_of_quoted(steering, services, swap32(int64(ip.destination)), swap32(int64(ip.source)), ports & 0xFFFF,
                                ports >> 16)
        if owner != steering.worker[0]:
            batch.verdict[row] = SENT
            put(steering, owner, batch.port[row], batch.mbuf[row], outbox, connections.counters)


@kernel
def is_arp_to_share(packets, batch, row):
    """Says whether a row is ARP, which other workers have to see as well: each keeps its own neighbours, and one gets the reply."""
    if batch.kind[row] != KIND_ARP or batch.verdict[row] != PENDING:
        return False
    mbuf = record_at(packets.mbuf, batch.mbuf[row])
    return mbuf.segments == 1 and int64(mbuf.data_length) <= MOST_ARP


@kernel
def share(packets, base, batch, row, fresh, steering, outbox, counters):
    """Lists a copy of an ARP row for every other worker, as a reply, which nobody answers; `fresh` are as many mbufs."""
    used, behind = 0, batch.network[row] - batch.frame[row]
    for worker in range(steering.worker[1]):
        if worker != steering.worker[0]:
            copy_packet(packets, base, batch.mbuf[row], fresh[used])
            record_at(packets.arp, data_start(packets, base, fresh[used]) + behind).operation = swap16(REPLY)
            put(steering, worker, batch.port[row], fresh[used], outbox, counters)
            used += 1


@kernel
def taken_over(steering, row, taken, outbox, counters):
    """Empties a list of which `taken` mbufs have found room in their ring: the others are counted and freed."""
    empty(steering.mbuf, steering.filled, row, taken, outbox, counters, DROP_HAND_OVER_FULL)
    counters.notices[NOTICE_HANDED_OVER] += taken


@loop
def owners_by_hash(steering, target, source, target_port, owners):
    """Fills `owners` (int64[n]): the worker that gets what a target sends to each port of ours at the address `source`."""
    for port in range(owners.shape[0]):
        owners[port] = by_hash(steering, target, source, target_port, port)
