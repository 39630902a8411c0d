"""ARP (RFC 826): answers for our addresses, learns who is where, asks for neighbours that we need, warns of duplicates.

A gateway whose MAC changes is followed as soon as any ARP packet of its shows the new one.
"""
from numpy import int64

from .batch import ABSORB, ANSWER, DROP, KIND_ARP, PENDING
from .build import set_length
from .checksum import data_start
from .connection import NO_NEIGHBOUR, note
from .counters import (
    DROP_ARP_INVALID,
    NOTICE_ARP_REPLIES,
    NOTICE_ARP_REQUESTS,
    NOTICE_DUPLICATE_ADDRESS,
    NOTICE_NEIGHBOUR_MOVED,
)
from .headers import ARP_LENGTH, ETHERNET_LENGTH, ETHERTYPE_ARP, ETHERTYPE_IPV4
from .jit import kernel
from .native import record_at, swap16, swap32
from .neighbours import (
    ASK_EVERY,
    INCOMPLETE,
    PROBE_AFTER,
    PROBING,
    REACHABLE,
    TRIES,
    find_neighbour,
    hear,
    owns,
    route_to,
)
from .outbox import post
from .refuse import swap_macs
from .wheel import TICK_MICROSECONDS

REQUEST, REPLY = 1, 2
ANNOUNCEMENTS, ANNOUNCE_EVERY = 2, 200
"""Our addresses are announced twice, 2 s apart (RFC 5227, section 1.1, ANNOUNCE_NUM and ANNOUNCE_INTERVAL; ticks)."""


@kernel
def is_valid(packets, at):
    """Says whether an ARP packet is for Ethernet and IPv4 and its sender can be a host."""
    arp = record_at(packets.arp, at)
    return (swap16(int64(arp.hardware)) == 1 and swap16(int64(arp.protocol)) == ETHERTYPE_IPV4
            and arp.hardware_length == 6 and arp.protocol_length == 4 and swap16(int64(arp.sender_high)) & 0x0100 == 0)


@kernel
def warn_of_duplicate(network, counters, address, mac_high, mac_low):
    """Counts a host that speaks with one of our addresses, and keeps who it was."""
    counters.notices[NOTICE_DUPLICATE_ADDRESS] += 1
    network.duplicate[0], network.duplicate[1], network.duplicate[2] = address, mac_high, mac_low


@kernel
def learn(packets, at, port, network, counters, tick):
    """Takes the MAC of a sender that is in the neighbour table already; ARP alone never adds one, else it could be
    filled by requests in many names."""
    arp = record_at(packets.arp, at)
    address = swap32(int64(arp.sender_address))
    number = find_neighbour(network, address)
    if number != NO_NEIGHBOUR and int64(record_at(network.neighbours, number).port) == port:
        moved = hear(network, number, swap16(int64(arp.sender_high)), swap32(int64(arp.sender_low)), tick)
        counters.notices[NOTICE_NEIGHBOUR_MOVED] += int64(moved)


@kernel
def reply_in_place(packets, frame, at, network, port):
    """Turns a request for one of our addresses into the reply."""
    arp = record_at(packets.arp, at)
    ours, theirs = int64(arp.target_address), int64(arp.sender_address)
    swap_macs(packets, frame)
    ethernet = record_at(packets.ethernet, frame)
    ethernet.source_high, ethernet.source_low = swap16(network.mac_high[port]), swap32(network.mac_low[port])
    arp.operation = swap16(REPLY)
    arp.target_high, arp.target_low, arp.target_address = int64(arp.sender_high), int64(arp.sender_low), theirs
    arp.sender_high, arp.sender_low = swap16(network.mac_high[port]), swap32(network.mac_low[port])
    arp.sender_address = ours


@kernel
def answer_arp(packets, batch, count, network, counters, now):
    """Deals with all ARP rows: they are learnt from, and requests for our addresses become replies."""
    tick = now // TICK_MICROSECONDS
    for row in range(count):
        if batch.kind[row] != KIND_ARP or batch.verdict[row] != PENDING:
            continue
        at, port = batch.network[row], batch.port[row]
        batch.verdict[row] = ABSORB
        if not is_valid(packets, at):
            batch.verdict[row] = DROP
            counters.drops[DROP_ARP_INVALID] += 1
            continue
        arp = record_at(packets.arp, at)
        sender = swap32(int64(arp.sender_address))
        if owns(network, sender, port):
            warn_of_duplicate(network, counters, sender, swap16(int64(arp.sender_high)), swap32(int64(arp.sender_low)))
            continue
        asks_us = owns(network, swap32(int64(arp.target_address)), port)
        if sender != 0:
            learn(packets, at, port, network, counters, tick)
        if asks_us and swap16(int64(arp.operation)) == REQUEST:
            reply_in_place(packets, batch.frame[row], at, network, port)
            counters.notices[NOTICE_ARP_REPLIES] += 1
            batch.verdict[row] = ANSWER


@kernel
def grow_old(entry, tick):
    """A neighbour that is wanted or in use, and has not been heard of for long, is PROBING."""
    needed = entry.wanted != 0 or tick - int64(entry.used) < PROBE_AFTER
    if entry.state == REACHABLE and needed and tick - int64(entry.confirmed) >= PROBE_AFTER:
        entry.state = PROBING
        entry.tries = 0


@kernel
def has_to_be_asked(entry, tick):
    """Moves one neighbour's state on with time; says whether it is to be asked for now."""
    asked = int64(entry.asked) != 0 and tick - int64(entry.asked) < ASK_EVERY
    grow_old(entry, tick)
    if asked or (entry.state != INCOMPLETE and entry.state != PROBING):
        return False
    if entry.tries >= TRIES:
        if entry.wanted == 0 and entry.state == INCOMPLETE:
            return False
        entry.state = INCOMPLETE
    entry.tries = min(int64(entry.tries) + 1, TRIES)
    entry.asked = max(tick, 1)
    return True


@kernel
def announce(network, requests, tick):
    """Lists our own addresses, as -1 - number, to be announced at the start and once more (RFC 5227, section 2.3).

    A host that has one of them answers, and is warned of.
    """
    if network.announced[0] < ANNOUNCEMENTS and tick >= network.announced[0] * ANNOUNCE_EVERY:
        network.announced[0] += 1
        for number in range(network.own_address.shape[0]):
            if network.own_port[number] >= 0 and network.exception[network.own_port[number]] < 0:
                note(requests, -1 - number, 0)


@kernel
def neighbours_to_ask(network, requests, now):
    """Lists (in `requests`, a connection.Listed) the neighbours that an ARP request has to go out for now.

    Beside an exception port the kernel asks: `pipeline.kernel_neighbours` sees which are INCOMPLETE or PROBING.
    """
    tick = now // TICK_MICROSECONDS
    announce(network, requests, tick)
    for number in range(network.known[0]):
        entry = record_at(network.neighbours, number)
        if network.exception[int64(entry.port)] >= 0:
            grow_old(entry, tick)
        elif has_to_be_asked(entry, tick):
            note(requests, number, 0)


@kernel
def write_request(packets, base, mbuf, address, port, source, network):
    """Writes an ARP request for an address into a fresh mbuf: broadcast by `port`, in the name of `source`."""
    frame = data_start(packets, base, mbuf)
    high, low = swap16(network.mac_high[port]), swap32(network.mac_low[port])
    ethernet = record_at(packets.ethernet, frame)
    ethernet.destination_high, ethernet.destination_low = 0xFFFF, 0xFFFFFFFF
    ethernet.source_high, ethernet.source_low, ethernet.ethertype = high, low, swap16(ETHERTYPE_ARP)
    arp = record_at(packets.arp, frame + ETHERNET_LENGTH)
    arp.hardware, arp.protocol = swap16(1), swap16(ETHERTYPE_IPV4)
    arp.hardware_length, arp.protocol_length, arp.operation = 6, 4, swap16(REQUEST)
    arp.sender_high, arp.sender_low, arp.sender_address = high, low, swap32(source)
    arp.target_high, arp.target_low, arp.target_address = 0, 0, swap32(address)
    set_length(packets, mbuf, ETHERNET_LENGTH + ARP_LENGTH)


@kernel
def build_requests(packets, base, fresh, got, requests, network, outbox, counters):
    """Builds the listed ARP requests and announcements into the mbufs fresh[:got] and posts them."""
    for row in range(got):
        number = requests.connection[row]
        if number < 0:
            address, port = network.own_address[-1 - number], network.own_port[-1 - number]
            source = address
        else:
            address, port = int64(record_at(network.neighbours, number).address), int64(record_at(network.neighbours, number).port)
            route = route_to(network, address)
            source = network.route_source[route] if route >= 0 else 0
        write_request(packets, base, fresh[row], address, port, source, network)
        post(outbox, port, fresh[row], counters)
        counters.notices[NOTICE_ARP_REQUESTS] += 1
    requests.filled[0] = 0
