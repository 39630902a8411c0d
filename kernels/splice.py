"""The splice: what a packet does to a connection that is bound, from either side (SPLICE 1, 4).

The proxy acknowledges nothing here and owns no data: it follows the numbers of both ends and passes segments on.
"""
from numpy import int64

from .ack_storm import cuts_storm
from .batch import ABSORB, DROP, FORWARD
from .connection import (
    CLIENT,
    ESTABLISHED,
    FIN_ACKED,
    FIN_SEEN,
    FIN_WAIT,
    HALF_CLOSED,
    HOLDS,
    OWNS,
    PLAIN,
    RST_AT_END,
    RST_OF_TARGET,
    RST_SEEN,
    SPECIAL,
    TARGET,
    TARGET_FIRST,
    TIME_WAIT,
    WAITS,
    count_wrap,
    emit,
    end,
    enter,
    note,
)
from .counters import (
    DROP_ACK_STORM,
    DROP_HELD_ALREADY,
    DROP_RESET_RATE_LIMIT,
    NOTICE_CHALLENGE_ACKS,
    RECEIVED_ACK_OF_FIN,
    RECEIVED_FIN_ACTIVE,
    RECEIVED_FIN_PASSIVE,
    RECEIVED_PAYLOAD,
    RECEIVED_RST,
    SENT_ACK_OF_FIN,
    SENT_FIN_ACTIVE,
    SENT_FIN_PASSIVE,
    SENT_PAYLOAD,
    SENT_RST,
)
from .connect import is_untouched, target_fails, unsplice
from .farewell import closed, ended_by_reset
from .handshake import unexpected
from .headers import ACK, FIN, RST, SYN
from .held_sender import header_is_held, held_end, keep_latest, keep_owned_shown, owned_is_shown, take_acknowledgement
from .jit import kernel
from .native import record_at
from .open import reopens
from .own_acknowledgement import scale_toward, tell_of_gap, told_to_sender
from .records import (
    ACTIVE_RST,
    PASSIVE_RST,
    TARGET_REFUSED,
    TCP_CLOSE_WAIT,
    TCP_CLOSED,
    TCP_CLOSING,
    TCP_FIN_WAIT_1,
    TCP_FIN_WAIT_2,
    TCP_LAST_ACK,
    TCP_TIME_WAIT,
    step,
)
from .sequence import before, distance, wrap
from .shaping import GAP, NEXT, REFUSED, WINDOW, acknowledged, forget_acknowledged, is_shaped, place_of, sender_number, widest
from .tcp_options import keep_stamp
from .waiting_room import come_again, come_next

CHALLENGE_WINDOW = 536
"""Bytes of window that a challenge shows (RFC 9293, section 3.7.1: what every host takes)."""


@kernel
def reset(batch, row, connections, connection, side, records, now, tick):
    """A RST in the window, or just before it, passes; only the exact one ends the connection (RFC 5961, 3.2).

    One in the window shortens its timer, since the receiver challenges it; one before it changes nothing.
    In TIME_WAIT both ends had closed before: a target's host answers so to a last acknowledgement that came twice.
    """
    hot, other = record_at(connections.hot, connection), 1 - side
    away = distance(batch.seq[row], acknowledged(connections, connection * 2 + side))
    if away < -WINDOW or away > widest(hot, side):
        unexpected(batch, row, connections, side)
        return
    connections.counters.events[side, RECEIVED_RST] += 1
    if side == TARGET and away == 0 and is_untouched(connections, connection):  # SPLICE 3.1
        batch.verdict[row] = ABSORB
        unsplice(batch, row, connections, connection)
        target_fails(connections, connection, TARGET_REFUSED, tick)
        return
    connections.counters.events[other, SENT_RST] += 1
    batch.verdict[row] = FORWARD
    if away < 0:  # the receiver drops it without a word, so that nobody would contradict
        return
    if away != 0:
        if hot.closing & RST_SEEN == 0:
            hot.stamp = tick & 0xFFFFFFFF
        at_end = RST_AT_END if batch.seq[row] == int64(hot.next[side]) else 0
        hot.closing = (hot.closing & (0xFF ^ (RST_OF_TARGET | RST_AT_END))) | RST_SEEN | at_end | (RST_OF_TARGET if side == TARGET else 0)
        note(connections.touched, connection, 0)
        return
    step(records, connection, CLIENT, TCP_CLOSED, now)
    step(records, connection, TARGET, TCP_CLOSED, now)
    if hot.state == TIME_WAIT:
        closed(connections, connection)
        return
    end(connections, connection, PASSIVE_RST if side == CLIENT else ACTIVE_RST,
        PASSIVE_RST if side == TARGET else ACTIVE_RST)


@kernel
def is_of_other(hot, side):
    """Says whether the RST that was seen last was not this side's own."""
    return (hot.closing & RST_OF_TARGET != 0) == (side == CLIENT)


@kernel
def proves_reset(batch, row, connections, connection, side):
    """Says whether a segment shows that the RST that was seen last is the exact one to its receiver (RFC 5961, section 3.2).

    It is where it has the number behind all that its sender has said, and its receiver acknowledges just that: that segment has
    only crossed it. Else an aborted connection whose last acknowledgements were under way would stay until its time-out.
    """
    hot, other = record_at(connections.hot, connection), 1 - side
    return (hot.closing & RST_AT_END != 0 and is_of_other(hot, side)
            and batch.ack[row] == wrap(int64(hot.next[other]) + int64(hot.shift[other])))


@kernel
def challenge(batch, row, connections, connection, side):
    """A SYN into a live connection is answered with the last numbers relayed (RFC 5961, section 4.2), within a budget.

    The other end's window is not known here: one small segment's is neither a stall nor more than it takes.
    """
    hot, budget = record_at(connections.hot, connection), connections.budget
    if budget[0] <= 0:
        batch.verdict[row] = DROP
        connections.counters.drops[DROP_RESET_RATE_LIMIT] += 1
        return
    budget[0] -= 1
    ack = told_to_sender(connections, connection * 2 + side)
    scale = scale_toward(hot, record_at(connections.cold, connection), side)
    emit(connections, connection, side, ACK, int64(hot.acked[side]), ack, max(CHALLENGE_WINDOW >> scale, 1), 0, 0, 0)
    connections.counters.notices[NOTICE_CHALLENGE_ACKS] += 1
    batch.verdict[row] = ABSORB


@kernel
def held_is_acknowledged(connections, connection):
    """The target has all the bytes that we held: their slot is free again, nothing is left to retransmit.

    How many they were is kept where the client's window was: that was for sending them.
    """
    hot, cold, held = record_at(connections.hot, connection), record_at(connections.cold, connection), connections.held
    opening = record_at(connections.openings, int64(cold.opening))
    slot = int64(opening.held)
    opening.window[CLIENT] = min(held.length[slot], 0xFFFF)
    held.free[held.free_count[0]] = slot
    held.free_count[0] += 1
    opening.retry, opening.tries = 0, 0
    hot.options &= 0xFF ^ HOLDS
    note(connections.touched, connection, 0)


@kernel
def covered_by_held(batch, row, connections, connection):
    """Says whether a client's payload begins inside what we hold: then our own copy is what the target gets."""
    stop = sender_number(connections, connection * 2 + CLIENT, held_end(connections, connection))
    return batch.payload_length[row] > 0 and before(batch.seq[row], stop)


@kernel
def follow_numbers(batch, row, connections, connection, side, finishes):
    """Moves the side's highest number on by what the segment shows; returns whether it lies in the window.

    A FIN's checksum has been verified: where its end is before `next`, it was `next` that a corrupt segment had moved,
    unless all segments of this side are verified: what is not there, but said to have been sent, moves nothing of those.
    Nothing moves it beyond the FIN: text behind that is ignored by the receiver too (RFC 9293, section 3.10.7.4).
    """
    hot, flow = record_at(connections.hot, connection), connection * 2 + side
    stop = wrap(batch.seq[row] + batch.payload_length[row] + finishes)
    inside = 0 <= distance(stop, acknowledged(connections, flow)) <= widest(hot, side)
    ahead = distance(stop, int64(hot.next[side]))
    if is_shaped(connections, flow):
        ahead = max(ahead, 0) if stop != batch.seq[row] else 0
    if inside and hot.closing & (FIN_SEEN << side) == 0 and (ahead > 0 or (finishes and ahead < 0)):
        if stop < int64(hot.next[side]) and ahead > 0:
            count_wrap(connections, connection, side)
        hot.next[side] = stop
    return inside


@kernel
def follow_acknowledgement(batch, row, connections, connection, side):
    """Moves the side's last acknowledgement on, within what the other side has sent; frees held bytes it covers."""
    hot, other = record_at(connections.hot, connection), 1 - side
    gain = distance(batch.ack[row], int64(hot.acked[side]))
    sent = wrap(int64(hot.next[other]) + int64(hot.shift[other]))
    if gain > 0 and distance(sent, batch.ack[row]) >= 0:
        hot.acked[side] = batch.ack[row]
        if is_shaped(connections, connection * 2 + other):
            forget_acknowledged(connections, connection * 2 + other)
        if side == TARGET and hot.options & HOLDS and distance(batch.ack[row], held_end(connections, connection)) >= 0:
            held_is_acknowledged(connections, connection)


@kernel
def follow_delivery(packets, batch, row, connections, connection, side, inside, tick):
    """What a segment means to the held bytes that are on their way; returns whether it is kept from the client."""
    hot = record_at(connections.hot, connection)
    if inside or batch.seq[row] == wrap(acknowledged(connections, connection * 2 + side) - 1):  # a keep-alive
        keep_latest(packets, batch, row, connections, connection, side)
    if side == CLIENT:
        return False
    if inside:
        take_acknowledgement(batch, row, connections, connection, tick)
    return (hot.options & OWNS != 0 or header_is_held(connections, connection)) and owned_is_shown(batch, row, connections, connection)


@kernel
def fin_comes(connections, connection, side, records, now):
    """The first FIN of a side: who closes first is active, and each end of ours changes its state."""
    hot, other = record_at(connections.hot, connection), 1 - side
    events = connections.counters.events
    first = hot.closing & (FIN_SEEN << other) == 0
    hot.closing |= FIN_SEEN << side
    if first and side == TARGET:
        hot.closing |= TARGET_FIRST
    events[side, RECEIVED_FIN_ACTIVE if first else RECEIVED_FIN_PASSIVE] += 1
    events[other, SENT_FIN_ACTIVE if first else SENT_FIN_PASSIVE] += 1
    acked = hot.closing & (FIN_ACKED << other) != 0
    step(records, connection, side, TCP_CLOSE_WAIT if first else TCP_TIME_WAIT if acked else TCP_CLOSING, now)
    step(records, connection, other, TCP_FIN_WAIT_1 if first else TCP_LAST_ACK, now)


@kernel
def fin_is_acknowledged(connections, connection, side, records, now):
    """Notes that `side` has acknowledged the other's FIN."""
    hot, other = record_at(connections.hot, connection), 1 - side
    hot.closing |= FIN_ACKED << other
    connections.counters.events[side, RECEIVED_ACK_OF_FIN] += 1
    connections.counters.events[other, SENT_ACK_OF_FIN] += 1
    first = TARGET if hot.closing & TARGET_FIRST else CLIENT
    both = hot.closing & (FIN_SEEN << side) != 0
    step(records, connection, side, TCP_CLOSED if first == side else TCP_TIME_WAIT if both else TCP_FIN_WAIT_2, now)


@kernel
def close(packets, batch, row, connections, connection, side, finishes, records, now):
    """Follows the two FINs and their acknowledgements through HALF_CLOSED, FIN_WAIT and TIME_WAIT.

    From the first FIN on the client's latest TSval is kept: what opens anew, on its port or on ours, has to lie above it.
    """
    hot, other = record_at(connections.hot, connection), 1 - side
    sent = wrap(int64(hot.next[other]) + int64(hot.shift[other]))
    theirs = hot.closing & ((FIN_SEEN | FIN_ACKED) << other)
    if theirs == FIN_SEEN << other and distance(batch.ack[row], sent) >= 0:
        fin_is_acknowledged(connections, connection, side, records, now)
    if finishes and hot.closing & (FIN_SEEN << side) == 0:
        fin_comes(connections, connection, side, records, now)
    fins, acks = hot.closing & 3, (int64(hot.closing) >> 2) & 3
    if side == CLIENT and fins:
        keep_stamp(packets, batch, row, connections, record_at(connections.cold, connection))
    state = TIME_WAIT if fins == 3 and acks == 3 else FIN_WAIT if fins == 3 else HALF_CLOSED if fins else ESTABLISHED
    if state != hot.state:
        enter(connections, connection, state)


@kernel
def splice(packets, batch, row, connections, connection, side, records, now, tick):
    """One segment of a bound connection: decides its verdict and moves the connection's numbers and state."""
    hot = record_at(connections.hot, connection)
    control = batch.control[row]
    if control & RST:
        reset(batch, row, connections, connection, side, records, now, tick)
        return
    if control & SYN and reopens(packets, batch, row, connections):
        come_next(batch, row, connections)
        return
    if control & SYN and hot.options & SPECIAL and record_at(connections.cold, connection).special & PLAIN:
        batch.verdict[row] = FORWARD
        return
    if control & SYN:
        challenge(batch, row, connections, connection, side)
        return
    if control & ACK == 0:
        unexpected(batch, row, connections, side)
        return
    if side == CLIENT and hot.options & HOLDS and covered_by_held(batch, row, connections, connection):
        batch.verdict[row] = DROP
        connections.counters.drops[DROP_HELD_ALREADY] += 1
        return
    if cuts_storm(batch, row, connections, connection, side, tick):
        batch.verdict[row] = DROP
        connections.counters.drops[DROP_ACK_STORM] += 1
        return
    flow, place, told, inside = connection * 2 + side, NEXT, int64(hot.acked[side]), True
    if is_shaped(connections, flow):
        place = place_of(batch, row, connections, flow, tick)
        if place == REFUSED:
            return
    finishes = int64(control & FIN)
    proves = hot.closing & RST_AT_END != 0 and proves_reset(batch, row, connections, connection, side)  # before the number is changed
    if place == NEXT:
        inside = follow_numbers(batch, row, connections, connection, side, finishes)
        if inside:  # what is blind neither keeps a connection alive nor undoes what a RST has done
            hot.stamp = tick & 0xFFFFFFFF
            hot.closing &= 0xFF ^ (RST_SEEN | (0 if is_of_other(hot, side) else RST_AT_END))
        if hot.options & SPECIAL and record_at(connections.cold, connection).special & WAITS:
            come_again(connections, flow, int64(hot.next[side]), False)
    if inside:
        follow_acknowledgement(batch, row, connections, connection, side)
    if place == GAP:
        tell_of_gap(batch, row, connections, flow, told)
        return
    kept = False
    if hot.options & HOLDS:
        kept = follow_delivery(packets, batch, row, connections, connection, side, inside, tick)
    elif side == TARGET and hot.options & OWNS:
        keep_owned_shown(batch, row, connections, connection)
    if inside and (finishes or hot.closing):
        close(packets, batch, row, connections, connection, side, finishes, records, now)
    sent = int64(batch.payload_length[row] > 0)
    connections.counters.events[side, RECEIVED_PAYLOAD] += sent
    connections.counters.events[1 - side, SENT_PAYLOAD] += sent
    batch.verdict[row] = ABSORB if kept else FORWARD
    if inside and proves:
        ended_by_reset(connections, connection)
