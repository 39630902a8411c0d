"""What a segment does to the generator's end that it is for (RFC 9293, section 3.10.7), and the answer to it.

A deliberately plain TCP: segments out of order are not kept, so a loss has all that follows it sent again. What it sends
is right by the RFC, whatever comes.
"""
from numpy import int64

from .batch import ABSORB, ANSWER, DROP, KIND_TCP, NO_FLOW, PENDING, WAIT
from .checksum import fold, sum_octets
from .connection import FREE, TIME_WAIT
from .counters import (
    DROP_MBUF_CHAIN,
    DROP_NOT_OURS,
    DROP_STRAY_SEGMENT,
    DROP_TCP_CHECKSUM,
    NOTICE_RESETS_SENT,
)
from .generator_accept import NO_LISTENER, accept, learn_options
from .generator_ends import (
    ANSWERED,
    CLIENT,
    CLOSE_WAIT,
    ESTABLISHED,
    FIN_RECEIVED,
    FIN_WAIT,
    LAST_ACK,
    OCTETS_RECEIVED,
    OUT_OF_ORDER,
    REFUSED,
    RESET,
    SERVER,
    STAMPED,
    SYN_RECEIVED,
    SYN_SENT,
    complete,
    enter,
    fail,
    order,
    release,
    role_of,
)
from .generator_lookup import server_number
from .generator_payload import verify_payload
from .generator_send import establish, expected, go_on, heard
from .headers import ACK, FIN, PROTOCOL_TCP, RST, SYN
from .histogram import count_value
from .jit import kernel
from .native import record_at, swap16, swap32
from .neighbours import owns
from .refuse import reset_in_place
from .sequence import distance, wrap
from .verify import OFFLOAD_BAD, OFFLOAD_GOOD
from .wheel import TICK_MICROSECONDS, schedule

NOTHING, ACKNOWLEDGE, AT_ONCE, DENY, RETIME, OVER = 0, 1, 2, 4, 8, 16
"""What a segment asks for: an acknowledgement, on its own if nothing else carries it; one ahead of anything else; a RST, for
it belongs to an older connection; a timer that runs out at `due`; nothing ever, for the connection has ended.

The segment loop is kept small, so that it stays in the cache of instructions: whatever is rare has one place in it, and what
has to be sent again is left to the timer."""


@kernel
def take_syn_ack(packets, batch, row, ends, number, end, now):
    """A client's SYN is answered, or its peer has an old connection, which gets a RST (RFC 9293, section 3.5.2)."""
    control = batch.control[row]
    if control & ACK and batch.ack[row] != int64(end.next):
        return DENY
    if control & (SYN | ACK) != SYN | ACK:
        return NOTHING
    learn_options(packets, batch, row, end, record_at(ends.settings, 0))
    end.acknowledged, end.tries = int64(end.next), 0
    end.asked = now & 0xFFFFFFFF
    establish(ends, number, CLIENT)
    count_value(ends.latency[0], (now - int64(end.began)) & 0xFFFFFFFF)
    return AT_ONCE


@kernel
def take_reset(batch, row, ends, number, end, role, now):
    """A RST ends a connection where its number is the next expected; elsewhere it is answered (RFC 5961, section 3.2)."""
    if end.state == SYN_SENT:
        exact = batch.control[row] & ACK != 0 and batch.ack[row] == int64(end.next)
        kind = REFUSED
    else:
        exact, kind = batch.seq[row] == int64(end.received), RESET
    if not exact:
        ahead = distance(batch.seq[row], int64(end.received))
        return ACKNOWLEDGE if end.state != SYN_SENT and ahead > 0 and ahead < 0x10000 else NOTHING
    if end.state != TIME_WAIT:
        fail(ends, number, role, kind, now)
    return OVER


@kernel
def again(end, now):
    """Has the timer send again what is not acknowledged, at its next tick."""
    end.due = now // TICK_MICROSECONDS
    return RETIME


@kernel
def take_acknowledgement(batch, row, ends, end, now):
    """Takes acknowledgement and window; returns what they ask for. One of what was never sent is passed over: answered,
    it could make two ends that differ acknowledge each other for ever (SPLICE 4.3)."""
    settings = record_at(ends.settings, 0)
    ack, outstanding = batch.ack[row], distance(int64(end.next), int64(end.acknowledged))
    gained = distance(ack, int64(end.acknowledged))
    if gained > outstanding:
        return NOTHING
    if gained > 0:
        end.acknowledged, end.tries, end.window = ack, 0, batch.window[row]
        end.scale = int64(end.scale) & 15
        end.due = now // TICK_MICROSECONDS + settings.retransmit
        return NOTHING
    if gained == 0:
        same = int64(end.window) == batch.window[row]
        end.window = batch.window[row]
        if same and outstanding > 0 and batch.payload_length[row] == 0 and batch.control[row] & FIN == 0:
            duplicates = (int64(end.scale) >> 4) + 1
            end.scale = (int64(end.scale) & 15) | (min(duplicates, 15) << 4)
            if duplicates == 3:
                return again(end, now)
    return NOTHING


@kernel
def take_payload(packets, batch, row, ends, number, end, role):
    """Takes payload and FIN that follow what has come so far; returns what they ask for."""
    length, fin = batch.payload_length[row], int64(batch.control[row] & FIN != 0)
    behind = distance(int64(end.received), batch.seq[row])
    if behind >= 0 and end.marks & STAMPED and batch.stamps[row] != 0:
        end.stamp = swap32(int64(record_at(packets.word32, batch.stamps[row]).value))
    if length + fin == 0:
        return ACKNOWLEDGE if behind > 0 else NOTHING
    if behind < 0 or behind >= length + fin or end.marks & FIN_RECEIVED:
        ends.counts[role, OUT_OF_ORDER] += int64(behind < 0)
        return ACKNOWLEDGE
    fresh = length - behind
    if fresh > 0:
        if record_at(ends.settings, 0).verify != 0:
            wrong = verify_payload(packets, batch.payload[row] + behind, ends.contents, end, role, heard(end), fresh)
            end.marks = int64(end.marks) | wrong
        ends.counts[role, OCTETS_RECEIVED] += fresh
        end.received = wrap(int64(end.received) + fresh)
    if fin != 0:
        end.received = wrap(int64(end.received) + 1)
        end.marks = int64(end.marks) | FIN_RECEIVED
        if end.state == ESTABLISHED:
            enter(ends, number, CLOSE_WAIT)
    return ACKNOWLEDGE


@kernel
def take_time(ends, end, now):
    """Takes how long a client's request took, once it is answered.

    That is when all has come that is expected; without an answer, when its bytes have been acknowledged, or, where the
    server closes first, when it has.
    """
    wanted = expected(ends, end, CLIENT)
    if wanted > 0:
        answered = heard(end) >= wanted
    elif record_at(ends.settings, 0).closes_first == SERVER:
        answered = end.marks & FIN_RECEIVED != 0
    else:
        said = distance(int64(end.acknowledged), int64(end.initial)) - 1
        answered = said >= ends.contents.total[CLIENT, end.target]
    if answered:
        end.marks = int64(end.marks) | ANSWERED
        count_value(ends.latency[1], (now - int64(end.asked)) & 0xFFFFFFFF)


@kernel
def ends_well(ends, number, end, role, now):
    """Counts a connection as complete once both FINs are acknowledged; returns OVER unless TIME_WAIT follows."""
    if end.acknowledged != end.next or end.state != LAST_ACK and (end.state != FIN_WAIT or end.marks & FIN_RECEIVED == 0):
        return NOTHING
    complete(ends, number, role, now)
    if end.state == LAST_ACK:
        return OVER
    enter(ends, number, TIME_WAIT)
    end.due = now // TICK_MICROSECONDS + record_at(ends.settings, 0).time_wait
    return RETIME


@kernel
def take_segment(packets, batch, row, ends, number, role, now):
    """Takes a segment of an end's connection; returns what it asks for."""
    end, control = record_at(ends.hot, number), batch.control[row]
    if control & RST:
        return take_reset(batch, row, ends, number, end, role, now)
    if end.state == SYN_SENT:
        return take_syn_ack(packets, batch, row, ends, number, end, now)
    if control & SYN:
        return again(end, now) if end.state == SYN_RECEIVED and control & ACK == 0 else ACKNOWLEDGE
    if control & ACK == 0:
        return NOTHING
    if end.state == SYN_RECEIVED:
        if batch.ack[row] != int64(end.next):
            return DENY
        establish(ends, number, role)
    asked = take_acknowledgement(batch, row, ends, end, now)
    asked |= take_payload(packets, batch, row, ends, number, end, role)
    if role == CLIENT and end.marks & ANSWERED == 0:
        take_time(ends, end, now)
    return asked | ends_well(ends, number, end, role, now)


@kernel
def answer(ends, number, asked, denied, mbuf, now):
    """Orders what a segment asks for, and what may be sent now that it has come; returns whether `mbuf` is used for it.

    `denied`: the number of a RST that it asks for.
    """
    orders, end = ends.orders, record_at(ends.hot, number)
    before, first = orders.filled[0], mbuf
    if asked & (AT_ONCE | DENY):
        denies = asked & DENY != 0
        order(ends, number, RST if denies else ACK, denied if denies else int64(end.next), 0, mbuf)
        first = -1
    sent = go_on(ends, number, first, now)
    if sent == 0 and asked & ACKNOWLEDGE:
        order(ends, number, ACK, int64(end.next), 0, mbuf)
    return orders.filled[0] > before


@kernel
def turn_away(packets, batch, row, ends, network):
    """Answers a segment of no connection with a RST, in its own mbuf (RFC 9293, section 3.10.7.1)."""
    counters = ends.counters
    if not owns(network, batch.destination[row], -1):
        batch.verdict[row] = DROP
        counters.drops[DROP_NOT_OURS] += 1
    elif batch.control[row] & RST:
        batch.verdict[row] = DROP
        counters.drops[DROP_STRAY_SEGMENT] += 1
    else:
        reset_in_place(packets, batch, row)
        batch.verdict[row], batch.out_port[row] = ANSWER, batch.port[row]
        counters.notices[NOTICE_RESETS_SENT] += 1


@kernel
def number_for(batch, row, ends):
    """Returns the number of the end that a segment is for, -1 where there is none."""
    number = batch.flow[row]
    if number == NO_FLOW:
        return server_number(batch, row, ends)
    return number if record_at(ends.hot, number).state != FREE else -1


@kernel
def opens_anew(batch, row, ends, number, role):
    """Says whether a segment is a SYN beyond what a server in TIME_WAIT has heard: it makes way (RFC 9293, section 3.6.1)."""
    end = record_at(ends.hot, number)
    return (role == SERVER and end.state == TIME_WAIT and batch.control[row] & (SYN | ACK | RST | FIN) == SYN
            and distance(batch.seq[row], int64(end.received)) > 0)


@kernel
def is_sound(packets, batch, row):
    """Says whether a segment in one piece has the right checksum: the NIC's word where it has one, else our own sum."""
    word = int64(record_at(packets.mbuf, batch.mbuf[row]).offload) & (OFFLOAD_BAD | OFFLOAD_GOOD)
    if word == OFFLOAD_GOOD or word == OFFLOAD_BAD:
        return word == OFFLOAD_GOOD
    transport = batch.transport[row]
    length = batch.payload[row] - transport + batch.payload_length[row]
    pseudo = (swap32(batch.source[row]) + swap32(batch.destination[row]) + swap16(PROTOCOL_TCP) + swap16(length))
    return fold(sum_octets(packets, transport, length) + pseudo) == 0xFFFF


@kernel
def receive_segments(packets, batch, count, ends, network, wheel, draining, now):
    """Gives every TCP segment of a burst to its end, in order. Verdicts: WAIT where the mbuf will carry the answer."""
    for row in range(count):
        if batch.kind[row] != KIND_TCP or batch.verdict[row] != PENDING:
            continue
        whole = record_at(packets.mbuf, batch.mbuf[row]).segments == 1
        if not whole or not is_sound(packets, batch, row):
            batch.verdict[row] = DROP
            ends.counters.drops[DROP_TCP_CHECKSUM if whole else DROP_MBUF_CHAIN] += 1
            continue
        batch.verdict[row] = ABSORB
        number, asked, anew = number_for(batch, row, ends), NOTHING, False
        if number >= 0:
            role = role_of(ends, number)
            anew = opens_anew(batch, row, ends, number, role)
            asked = OVER if anew else take_segment(packets, batch, row, ends, number, role, now)
            if asked & OVER:
                release(ends, number, role)
            elif answer(ends, number, asked, batch.ack[row], batch.mbuf[row], now):
                batch.verdict[row] = WAIT
        if number < 0 or anew:
            number = accept(packets, batch, row, ends, network, draining, now)
            if number == NO_LISTENER:
                turn_away(packets, batch, row, ends, network)
            elif number >= 0:
                batch.verdict[row], asked = WAIT, RETIME
        if asked & RETIME:
            schedule(wheel, number, int64(record_at(ends.hot, number).due))
