"""Express: the usual segments of established connections, translated and sent on in one pass. The slot `express`.

A usual segment carries data or an acknowledgement, within the window, between two ends that are spliced and of which nothing
special is known, in a frame without tag and IPv4 options. What becomes of it is what `transition`, `rewrite` and `dispose`
would do, and `tests/test_express.py` compares the two octet by octet. All else is left to the stages, in order: a segment
whose connection has one that was left waits for it.
"""
from numpy import int64

from .batch import SENT
from .checksum import difference, update
from .connection import BOUND, CLIENT, ESTABLISHED, HOLDS, OWNS, SCALED, SPECIAL, STAMPED, TARGET
from .counters import RECEIVED_PAYLOAD, SENT_PAYLOAD
from .headers import ACK, ETHERNET_LENGTH, FIN, IPV4_LENGTH, RST, SYN, TCP_LENGTH
from .jit import kernel
from .native import record_at, swap16, swap32
from .neighbours import REACHABLE
from .outbox import post
from .sequence import distance, wrap
from .shaping import WINDOW
from .tcp_options import ALIGNED_TIMESTAMPS, TIMESTAMPS_LENGTH, offered_scale
from .wheel import TICK_MICROSECONDS

TRANSPORT = ETHERNET_LENGTH + IPV4_LENGTH
"""Where the TCP header of a frame without tag and IPv4 options begins."""
BITS = 63
"""Which connections have segments that were left is kept in 64 bits, by their number: one that shares a bit waits too."""


@kernel
def has_usual_header(plain, header):
    """Says whether a segment, whose TCP header has `header` bytes, carries no options but timestamps, and only goes on."""
    if int64(plain.control) & (SYN | FIN | RST | ACK) != ACK:
        return False
    return header == TCP_LENGTH or (header == TCP_LENGTH + TIMESTAMPS_LENGTH and int64(plain.option) == ALIGNED_TIMESTAMPS)


@kernel
def is_usual(hot, side, seq, stop, ack):
    """Says whether a segment from `seq` to below `stop` is one that only moves the numbers of its connection on.

    The same as splice.py asks, in the order in which most is told by what is at hand.
    """
    if hot.state != ESTABLISHED or hot.closing != 0 or hot.options & (HOLDS | SPECIAL | BOUND) != BOUND:
        return False
    if side == TARGET and hot.options & OWNS:
        return False  # it may take back what we have acknowledged
    following = int64(hot.next[side])
    if stop == seq and stop == following and ack == int64(hot.acked[side]):
        return False  # a duplicate: it may be part of an ACK storm
    if stop > 0xFFFFFFFF or (stop < following and distance(stop, following) > 0):
        return False  # the numbers begin anew, which is counted
    scale = int64(hot.scales) >> 4 if side == CLIENT else int64(hot.scales) & 0x0F
    away = distance(stop, wrap(int64(hot.acked[1 - side]) - int64(hot.shift[side])))
    return 0 <= away <= WINDOW << scale


@kernel
def follow(hot, side, stop, ack, tick):
    """Moves the numbers of a connection on by a usual segment, as `follow_numbers` and `follow_acknowledgement` do."""
    if distance(stop, int64(hot.next[side])) > 0:
        hot.next[side] = stop
    sent = wrap(int64(hot.next[1 - side]) + int64(hot.shift[1 - side]))
    if distance(ack, int64(hot.acked[side])) > 0 and distance(sent, ack) >= 0:
        hot.acked[side] = ack
    hot.stamp = tick & 0xFFFFFFFF


@kernel
def translate(plain, hot, cold, side, header):
    """Translates the window and the timestamps of a usual segment; returns what that adds to the checksum's sum."""
    total = 0
    if hot.options & SCALED and side == TARGET:
        old, window = int64(plain.window), swap16(int64(plain.window))
        new = swap16(min((window << (int64(hot.scales) >> 4)) >> offered_scale(cold), 0xFFFF))
        plain.window = new
        total += difference(old, new)
    if hot.options & STAMPED and header != TCP_LENGTH:
        by = int64(hot.timestamp_shift)
        if side == TARGET:
            old, new = int64(plain.stamp), swap32(wrap(swap32(int64(plain.stamp)) + by))
            plain.stamp = new
        else:
            old, new = int64(plain.echo), swap32(wrap(swap32(int64(plain.echo)) - by))
            plain.echo = new
        total += difference(old, new)
    return total


@kernel
def send_on(plain, hot, side, seq, ack, changes, neighbour, network):
    """Writes all headers of a usual segment toward the other side of its connection, checksums updated (RFC 1624).

    `changes` is what the translation of its options has added to the sum.
    """
    other, port = 1 - side, int64(neighbour.port)
    source, destination = swap32(int64(hot.local_address[other])), swap32(int64(hot.remote_address[other]))
    ports = swap16(int64(hot.local_port[other])) | (swap16(int64(hot.remote_port[other])) << 16)
    seq, ack = swap32(wrap(seq + int64(hot.shift[side]))), swap32(wrap(ack - int64(hot.shift[other])))
    addresses = difference(int64(plain.source), source) + difference(int64(plain.destination), destination)
    changes += addresses + difference(int64(plain.ports), ports)
    changes += difference(int64(plain.seq), seq) + difference(int64(plain.ack), ack)
    checksum = update(int64(plain.checksum), addresses + difference(1, 0))
    tcp_checksum = update(int64(plain.tcp_checksum), changes)
    plain.destination_high = swap16(int64(neighbour.mac_high))
    plain.destination_low = swap32(int64(neighbour.mac_low))
    plain.source_high = swap16(network.mac_high[port])
    plain.source_low = swap32(network.mac_low[port])
    plain.ttl = int64(plain.ttl) - 1
    plain.checksum, plain.source, plain.destination = checksum, source, destination
    plain.ports, plain.seq, plain.ack, plain.tcp_checksum = ports, seq, ack, tcp_checksum


@kernel
def can_pass(plain, mbuf, neighbour, network):
    """Says whether a packet can go to this neighbour as it is (see `refuse_to_forward`)."""
    return (neighbour.state >= REACHABLE and plain.ttl > 1
            and int64(mbuf.packet_length) - ETHERNET_LENGTH <= network.mtu[neighbour.port])


@kernel
def count_payload(counters, client, target):
    """Counts the segments with payload that each side has sent."""
    events = counters.events
    events[CLIENT, RECEIVED_PAYLOAD] += client
    events[TARGET, SENT_PAYLOAD] += client
    events[TARGET, RECEIVED_PAYLOAD] += target
    events[CLIENT, SENT_PAYLOAD] += target


@kernel
def usual(packets, batch, count, connections, network, outbox, now):
    """Sends the usual segments among rows 0 .. count - 1 on, verdict SENT. Returns how many rows are left to the stages.

    The slot `express`. Order is kept within a connection: none is sent behind whose back an earlier one is left.
    """
    tick, waiting, left, client, target = now // TICK_MICROSECONDS, 0, 0, 0, 0
    for row in range(count):
        flow, frame = batch.flow[row], batch.frame[row]
        if flow < 0:
            left += 1
            continue
        hot, side, bit = record_at(connections.hot, flow >> 1), flow & 1, 1 << ((flow >> 1) & BITS)
        plain = record_at(packets.plain, frame)
        seq, ack, header = swap32(int64(plain.seq)), swap32(int64(plain.ack)), (int64(plain.data_offset) >> 4) * 4
        stop = seq + swap16(int64(plain.total_length)) - IPV4_LENGTH - header
        passes = (batch.transport[row] - frame == TRANSPORT and waiting & bit == 0 and has_usual_header(plain, header)
                  and is_usual(hot, side, seq, stop, ack))
        neighbour = record_at(network.neighbours, int64(hot.neighbour[1 - side]) if passes else 0)
        mbuf = record_at(packets.mbuf, batch.mbuf[row])
        if not passes or not can_pass(plain, mbuf, neighbour, network):
            waiting |= bit
            left += 1
            continue
        follow(hot, side, stop, ack, tick)
        changes = translate(plain, hot, record_at(connections.cold, flow >> 1), side, header)
        send_on(plain, hot, side, seq, ack, changes, neighbour, network)
        client += int64(stop != seq and side == CLIENT)
        target += int64(stop != seq and side == TARGET)
        if mbuf.offload != 0:  # a line that is only read need not be written back
            mbuf.offload = 0
        batch.verdict[row] = SENT
        post(outbox, int64(neighbour.port), batch.mbuf[row], connections.counters)
    count_payload(connections.counters, client, target)
    return left


@kernel
def none(packets, batch, count, connections, network, outbox, now):
    """Leaves all rows to the stages."""
    return count
