"""Held sender: brings held bytes to the target as any sender would: within its window, its MSS and what the path takes.

The engine is a TCP sender here, of at most 64 KiB: RFC 9293 (3.8.6), RFC 5681, RFC 6582, RFC 6928, RFC 6298. Whoever has
a reason to send lists the connection in `deliveries`; `deliver` goes through them at the end of a burst.
"""
from numpy import int64

from .address_option import address_room
from .connection import (
    CLIENT,
    FIN_SEEN,
    FREE,
    HOLDS,
    OWNS,
    PROMISED_SCALING,
    SPECIAL,
    STAMPED,
    TARGET,
    emit,
    note,
)
from .counters import SENT_PAYLOAD
from .headers import ACK, FIN, PSH, TCP_LENGTH, URG
from .jit import kernel
from .native import record_at, swap32
from .opening import keep_stamp_of, owned_end
from .sequence import before, distance, wrap
from .shaping import acknowledged
from .tcp_options import TIMESTAMPS_LENGTH
from .wheel import retry_at

FRESH, RESEND, PROBE = 0, 1, 2
"""What a listed connection is to send: what has not been sent; first the oldest segment again; a byte into a closed window."""
LEAST_MSS = 64
INITIAL_SEGMENTS, INITIAL_BYTES = 10, 14600
"""RFC 6928, section 2."""
LEAST_RETRY, FALLBACK_RETRY, LONGEST_RETRY = 30, 300, 12_000
"""Ticks until what is not acknowledged is sent again: at least; where the SYN was sent more than once, so that its
answer measures nothing (RFC 6298, section 5.7); and at most, however often it has been doubled."""
HALVED_FROM = 536
"""Of a wider window a segment takes half at most, so that two are on their way and the second draws an acknowledgement."""
DUPLICATES = 3
MOST_HELD = 1 << 18
"""Bytes that a slot has at most, where payload kernels have lengthened them."""
LONG_AGO = 1 << 29
"""Bytes that a target has acknowledged beyond what we did, after which its segments are no longer looked at: any from before
then is only old to the client, whose own numbers have gone on (RFC 9293, section 3.10.7.4). One acknowledgement can cover
2**30, the widest window (RFC 7323, section 2.3), so from here the next one is seen before the distance turns around at 2**31."""


@kernel
def held_end(connections, connection):
    """Returns the number behind the last held byte, as the target sees it."""
    cold = record_at(connections.cold, connection)
    opening = record_at(connections.openings, int64(cold.opening))
    return wrap(int64(opening.syn_isn) + 1 + connections.held.length[int64(opening.held)])


@kernel
def header_is_held(connections, connection):
    """Says whether a PROXY header is among the held bytes of a connection that has some."""
    return record_at(connections.openings, int64(record_at(connections.cold, connection).opening)).header != 0


@kernel
def least_shown(connections, connection):
    """Returns what a bound client that holds bytes is shown as acknowledged at least, in the target's numbers.

    That is all that we own, else its initial number and one: a PROXY header lies below that (SPLICE 6.1).
    """
    if record_at(connections.hot, connection).options & OWNS:
        return held_end(connections, connection)
    opening = record_at(connections.openings, int64(record_at(connections.cold, connection).opening))
    return wrap(int64(opening.syn_isn) + 1 + int64(opening.header))


@kernel
def shown_to_client(connections, connection):
    """Returns what a bound client may be shown as acknowledged, in the target's numbers: at least what we have acknowledged."""
    hot = record_at(connections.hot, connection)
    acked = int64(hot.acked[TARGET])
    if hot.options & HOLDS == 0:
        return acked
    stop = least_shown(connections, connection)
    return stop if before(acked, stop) else acked


@kernel
def segment_size(delivery, mss):
    """Returns how many bytes the segments toward a target have that takes `mss` and whose widest window is known."""
    widest = delivery.widest
    return max(min(mss, widest >> 1 if widest > HALVED_FROM else mss), LEAST_MSS)


@kernel
def next_part(delivery, length, at, most, what):
    """Returns how many of `length` held bytes go into the segment that begins at byte `at`; 0 for none now.

    What neither fills a segment nor ends the bytes waits for the acknowledgement of what is on its way (RFC 9293, 3.8.6.2.1).
    """
    part = min(length - at, most)
    if what == PROBE:
        return min(part, 1)
    room = max(delivery.edge - at, 1) if what == RESEND else min(delivery.edge, delivery.acked + delivery.congestion) - at
    if part <= room:
        return part
    return room if at == delivery.acked else 0


@kernel
def call_urgent(segments, row, octets):
    """Says in an ordered segment that so many octets from its number on are urgent, whether or not they are all in it."""
    segments.control[row] |= URG
    segments.urgent[row] = min(octets, 0xFFFF)


@kernel
def deliver_one(connections, connection, what):
    """Orders what may be sent now of a connection's held bytes, the client's held FIN behind the last.

    Always from the held copy: what was inspected is what is sent (SPLICE 1.4).
    """
    hot, cold, held = record_at(connections.hot, connection), record_at(connections.cold, connection), connections.held
    opening = record_at(connections.openings, int64(cold.opening))
    slot, first = int64(opening.held), wrap(int64(opening.syn_isn) + 1)
    delivery, length = record_at(held.delivery, slot), held.length[slot]
    most = segment_size(delivery, int64(opening.mss[TARGET]))
    ack = acknowledged(connections, connection * 2 + TARGET)
    # Not a FIN that the client has sent later, behind payload that was not held.
    stop = wrap(int64(hot.next[CLIENT]) + int64(hot.shift[CLIENT]))
    closes = hot.closing & (FIN_SEEN << CLIENT) != 0 and stop == wrap(first + length + 1)
    at = delivery.sent if what == FRESH else delivery.acked
    while at < max(length, int64(closes)):
        part = next_part(delivery, length, at, most - address_room(connections, connection, at), what)
        if part <= 0 and at < length:
            break
        last = at + part >= length
        control, ordered = ACK | (PSH if last and part > 0 else 0) | (FIN if last and closes else 0), connections.segments.filled[0]
        emit(connections, connection, TARGET, control, wrap(first + at), ack, int64(opening.window[CLIENT]), 0,
             slot * held.stride[0] + at, part)
        if connections.segments.filled[0] == ordered:
            break  # no room: counted, and sent when the timer comes
        if part > 0 and held.urgent[slot] > at:
            call_urgent(connections.segments, ordered, held.urgent[slot] - at)
        connections.counters.events[TARGET, SENT_PAYLOAD] += int64(part > 0)
        if what == PROBE:
            break
        delivery.sent = max(delivery.sent, at + part + int64(last and closes))
        at, what = delivery.sent, FRESH


@kernel
def begin_delivery(batch, row, connections, connection, tick):
    """Begins to bring held bytes to a target, whose SYN-ACK is in `row`: its window is never scaled (RFC 7323, 2.2)."""
    cold = record_at(connections.cold, connection)
    opening = record_at(connections.openings, int64(cold.opening))
    delivery, mss = record_at(connections.held.delivery, int64(opening.held)), max(int64(opening.mss[TARGET]), LEAST_MSS)
    delivery.sent, delivery.acked, delivery.recover, delivery.duplicates, delivery.doublings = 0, 0, 0, 0, 0
    delivery.edge, delivery.widest = batch.window[row], batch.window[row]
    delivery.congestion = min(INITIAL_SEGMENTS * mss, max(2 * mss, INITIAL_BYTES))
    delivery.threshold = 1 << 16
    measured = 3 * distance(tick & 0xFFFFFFFF, int64(opening.since))
    timeout = min(max(measured, LEAST_RETRY), FALLBACK_RETRY) if opening.tries == 0 else FALLBACK_RETRY
    delivery.timeout = timeout
    opening.retry, opening.tries = retry_at(tick + timeout), 0
    deliver_one(connections, connection, FRESH)


@kernel
def grow(delivery, gain, most):
    """Slow start, congestion avoidance, or the end of fast recovery after `gain` bytes were acknowledged (RFC 5681, 6582).

    Returns what is to be sent: in recovery, what the acknowledgement stops at is lost as well.
    """
    if delivery.recover > delivery.acked:
        delivery.congestion = max(delivery.congestion - gain, 0) + most
        return RESEND
    if delivery.recover > 0:
        delivery.recover, delivery.congestion = 0, delivery.threshold
    elif delivery.congestion < delivery.threshold:
        delivery.congestion += min(gain, most)
    else:
        delivery.congestion += max(most * most // delivery.congestion, 1)
    return FRESH


@kernel
def lose(delivery, most):
    """Half of what is on its way is what the path takes (RFC 5681, equation 4)."""
    delivery.threshold = max((delivery.sent - delivery.acked) >> 1, 2 * most)


@kernel
def count_duplicate(delivery, most):
    """One more acknowledgement without progress; returns what is to be sent: at the third the oldest segment (RFC 5681)."""
    duplicates = int64(delivery.duplicates) + 1
    delivery.duplicates = duplicates & 0xFFFFFFFF
    if delivery.recover > 0:
        delivery.congestion += most
    elif duplicates == DUPLICATES:
        lose(delivery, most)
        delivery.recover = delivery.sent
        delivery.congestion = delivery.threshold + DUPLICATES * most
        return RESEND
    return FRESH


@kernel
def take_acknowledgement(batch, row, connections, connection, tick):
    """Moves the delivery on by a target's segment: its acknowledgement, its window, and that it is alive."""
    hot, cold = record_at(connections.hot, connection), record_at(connections.cold, connection)
    if batch.ack[row] != int64(hot.acked[TARGET]):
        return
    opening = record_at(connections.openings, int64(cold.opening))
    delivery = record_at(connections.held.delivery, int64(opening.held))
    at = distance(batch.ack[row], wrap(int64(opening.syn_isn) + 1))
    gain, window = at - delivery.acked, batch.window[row] << (int64(hot.scales) >> 4)
    most = segment_size(delivery, int64(opening.mss[TARGET]))
    what = FRESH
    if gain > 0:
        delivery.acked, delivery.sent = at, max(delivery.sent, at)
        delivery.duplicates, delivery.doublings = 0, 0
        opening.retry = retry_at(tick + int64(delivery.timeout))
        what = grow(delivery, gain, most)
    elif batch.payload_length[row] == 0 and at + window == delivery.edge and delivery.sent > at:
        what = count_duplicate(delivery, most)
    delivery.edge, delivery.widest = at + window, max(delivery.widest, window)
    opening.tries = 0
    note(connections.deliveries, connection, what)


@kernel
def show_owned(batch, row, hot, stop):
    """Lets a target's segment acknowledge at least all up to `stop`, with what that leaves of its window.

    Returns whether it did not; what lies farther back than anything is held acknowledges nothing and is left as it is.
    """
    owed, scale = distance(stop, batch.ack[row]), int64(hot.scales) >> 4
    if owed <= 0 or owed > MOST_HELD:
        return False
    batch.ack[row] = stop
    batch.window[row] = max((batch.window[row] << scale) - owed, 0) >> scale
    return True


@kernel
def owned_is_shown(batch, row, connections, connection):
    """Shows the client what its target's acknowledgement means beyond what we have acknowledged ourselves, or a PROXY header.

    The acknowledgement never goes back below those, and the window is what they leave of the target's: zero where they
    fill it, which is the target's word and not ours (SPLICE 1.2, 1.3). A bare acknowledgement with an option beside
    timestamps (SACK) tells of a gap in *our* bytes: to the client it would be a duplicate, a reason to send again what
    has arrived. Returns whether the segment is kept from it.
    """
    if not show_owned(batch, row, record_at(connections.hot, connection), least_shown(connections, connection)):
        return False
    plain = TCP_LENGTH + (TIMESTAMPS_LENGTH if batch.stamps[row] != 0 else 0)
    return batch.payload_length[row] == 0 and batch.control[row] & FIN == 0 and batch.payload[row] - batch.transport[row] > plain


@kernel
def keep_owned_shown(batch, row, connections, connection):
    """The target has what we acknowledged; a segment of its from before then, come late, takes nothing back (SPLICE 1.2)."""
    hot, stop = record_at(connections.hot, connection), owned_end(connections, connection)
    show_owned(batch, row, hot, stop)
    if distance(int64(hot.acked[TARGET]), stop) > LONG_AGO:
        hot.options &= 0xFF ^ OWNS


@kernel
def keep_latest(packets, batch, row, connections, connection, side):
    """Keeps the client's window and both sides' latest TSval, for the segments in which held bytes are sent (again).

    Not the window beside an acknowledgement of what was never sent (RFC 9293, section 3.10.7.4). With an older TSval than the
    client's last one they would fail the target's test for wrapped numbers (RFC 7323, 5.3).
    """
    hot, cold = record_at(connections.hot, connection), record_at(connections.cold, connection)
    opening = record_at(connections.openings, int64(cold.opening))
    sent = wrap(int64(hot.next[TARGET]) + int64(hot.shift[TARGET]))
    if side == CLIENT and distance(sent, batch.ack[row]) >= 0:
        unscaled = hot.options & SPECIAL != 0 and int64(cold.special) & PROMISED_SCALING != 0
        scale = int64(hot.scales) & 0x0F if unscaled else 0
        opening.window[CLIENT] = min(batch.window[row] << scale, 0xFFFF)
    if hot.options & STAMPED and batch.stamps[row] != 0:
        stamp = swap32(int64(record_at(packets.word32, batch.stamps[row]).value))
        if distance(stamp, int64(opening.stamp if side == CLIENT else cold.target_stamp)) > 0:
            keep_stamp_of(connections, cold, side, stamp)


@kernel
def send_again(connections, connection):
    """Held bytes were not acknowledged in time: their oldest segment goes out again, or a probe into a closed window.

    Returns the ticks until the next time, twice as many.
    """
    cold = record_at(connections.cold, connection)
    opening = record_at(connections.openings, int64(cold.opening))
    delivery = record_at(connections.held.delivery, int64(opening.held))
    closed = delivery.edge <= delivery.acked
    if not closed and delivery.sent > delivery.acked:
        most = segment_size(delivery, int64(opening.mss[TARGET]))
        lose(delivery, most)
        delivery.sent, delivery.congestion, delivery.recover, delivery.duplicates = delivery.acked, most, 0, 0
    doublings = min(int64(delivery.doublings) + 1, 16)
    delivery.doublings = doublings
    note(connections.deliveries, connection, PROBE if closed else FRESH)
    return min(int64(delivery.timeout) << doublings, LONGEST_RETRY)


@kernel
def deliver(connections):
    """Goes through `deliveries` and empties it; each connection's timer is set anew."""
    deliveries = connections.deliveries
    for number in range(deliveries.filled[0]):
        connection = deliveries.connection[number]
        hot = record_at(connections.hot, connection)
        if hot.state != FREE and hot.options & HOLDS:
            deliver_one(connections, connection, deliveries.detail[number])
            note(connections.touched, connection, 0)
    deliveries.filled[0] = 0
