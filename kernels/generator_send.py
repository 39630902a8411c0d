"""What an end of the generator sends of its own accord: its payload as far as windows allow, its FIN, or all of it again."""
from numpy import int64

from .generator_ends import (
    CAME_TO_BE,
    CLIENT,
    CLOSE_WAIT,
    DATA_AGAIN,
    ESTABLISHED,
    FIN_AGAIN,
    FIN_RECEIVED,
    FIN_WAIT,
    INCOMPLETE,
    LAST_ACK,
    OCTETS_SENT,
    SCALED,
    SYN_AGAIN,
    SYN_RECEIVED,
    SYN_SENT,
    enter,
    has_room,
    order,
    role_of,
)
from .headers import ACK, FIN, PSH, SYN
from .jit import kernel
from .native import record_at
from .sequence import distance, wrap
from .wheel import TICK_MICROSECONDS


@kernel
def heard(end):
    """Returns how many bytes of payload have come in."""
    return distance(int64(end.received), int64(end.their_initial)) - 1 - int64(end.marks & FIN_RECEIVED != 0)


@kernel
def expected(ends, end, role):
    """Returns how many bytes of payload have to come in."""
    return ends.contents.total[1 - role, end.target]


@kernel
def window_edge(ends, settings, end):
    """Returns how many bytes may be under way: what the peer has room for, and no more segments than configured."""
    window = int64(end.window) << (int64(end.scale) & 15 if end.marks & SCALED else 0)
    return min(window, settings.flight * int64(end.mss))


@kernel
def order_data(ends, number, end, role, position, most, mbuf):
    """Orders the segment at a position of what an end says, at most `most` bytes of it; returns its length."""
    segment = ends.contents.segment[role]
    length = min(segment - position % segment, most, int64(end.mss))
    order(ends, number, ACK | PSH, wrap(int64(end.initial) + 1 + position), length, mbuf)
    return length


@kernel
def say(ends, number, end, role, mbuf):
    """Orders as much new payload as may be sent, the first of it into `mbuf`, unless that is -1.

    Returns whether all has been sent by now. A server says nothing before it has heard its client out.
    """
    settings, total = record_at(ends.settings, 0), ends.contents.total[role, end.target]
    position = distance(int64(end.next), int64(end.initial)) - 1
    if position < total and (role == CLIENT or heard(end) >= expected(ends, end, role)):
        stop = min(distance(int64(end.acknowledged), int64(end.initial)) - 1 + window_edge(ends, settings, end), total)
        while position < stop and has_room(ends):
            length = order_data(ends, number, end, role, position, stop - position, mbuf)
            position, mbuf = position + length, -1
            ends.counts[role, OCTETS_SENT] += length
        end.next = wrap(int64(end.initial) + 1 + position)
    return position >= total


@kernel
def wants_to_close(ends, end, role, said_all):
    """Says whether an end closes now: the first as soon as all is said and heard, the other when it is asked to."""
    settings = record_at(ends.settings, 0)
    if end.marks & FIN_RECEIVED:
        return said_all or heard(end) < expected(ends, end, role)
    return said_all and settings.closes_first == role and heard(end) >= expected(ends, end, role)


@kernel
def go_on(ends, number, mbuf, now):
    """Has an end send what it can by now, payload and FIN, the first segment into `mbuf`, unless that is -1.

    Returns how many segments it has ordered; a full list of orders leaves the rest to the next occasion.
    """
    end, before = record_at(ends.hot, number), ends.orders.filled[0]
    if end.state != ESTABLISHED and end.state != CLOSE_WAIT:
        return 0
    idle = end.acknowledged == end.next
    role = role_of(ends, number)
    said_all = say(ends, number, end, role, mbuf)
    if wants_to_close(ends, end, role, said_all) and has_room(ends):
        if end.marks & FIN_RECEIVED and heard(end) < expected(ends, end, role):
            end.marks |= INCOMPLETE
        order(ends, number, FIN | ACK, int64(end.next), 0, mbuf if ends.orders.filled[0] == before else -1)
        end.next = wrap(int64(end.next) + 1)
        enter(ends, number, LAST_ACK if end.marks & FIN_RECEIVED else FIN_WAIT)
    if idle and end.acknowledged != end.next:
        end.due = now // TICK_MICROSECONDS + record_at(ends.settings, 0).retransmit
    return ends.orders.filled[0] - before


@kernel
def say_again(ends, number, end, role, least):
    """Orders all again that has not been acknowledged, payload and FIN; at least `least` bytes, where the window is shut."""
    settings = record_at(ends.settings, 0)
    closed = int64(end.state == FIN_WAIT or end.state == LAST_ACK)
    position = distance(int64(end.acknowledged), int64(end.initial)) - 1
    said = distance(int64(end.next), int64(end.initial)) - 1 - closed
    stop = min(position + max(window_edge(ends, settings, end), least), said)
    while position < stop and has_room(ends):
        position += order_data(ends, number, end, role, position, stop - position, -1)
        ends.counts[role, DATA_AGAIN] += 1
    if closed and position >= said and has_room(ends):
        order(ends, number, FIN | ACK, wrap(int64(end.next) - 1), 0, -1)
        ends.counts[role, FIN_AGAIN] += 1


@kernel
def send_again(ends, number):
    """Orders again whatever of an end's has not been acknowledged; a shut window is probed with one byte."""
    end, role = record_at(ends.hot, number), role_of(ends, number)
    if end.state == SYN_SENT or end.state == SYN_RECEIVED:
        order(ends, number, SYN if end.state == SYN_SENT else SYN | ACK, int64(end.initial), 0, -1)
        ends.counts[role, SYN_AGAIN] += 1
        return
    said_all = distance(int64(end.next), int64(end.initial)) - 1 >= ends.contents.total[role, end.target]
    if end.acknowledged == end.next and not said_all and end.window == 0:
        end.next = wrap(int64(end.next) + 1)
    say_again(ends, number, end, role, 1)


@kernel
def establish(ends, number, role):
    """An end's handshake is complete."""
    enter(ends, number, ESTABLISHED)
    ends.counts[role, CAME_TO_BE] += 1
