"""Hold: keeps the client's payload until a target is there to take it (SPLICE 1.2 to 1.4)."""
from numpy import int64

from .batch import DROP
from .connection import (
    BOUND,
    CLIENT,
    FIN_SEEN,
    FIRST_DATA,
    HOLDS,
    MARKED,
    NO_ROW,
    OWNS,
    PROMISED_ECN,
    SPECIAL,
    ask,
    move_on,
)
from .copying import copy_payload
from .counters import (
    DROP_FIRST_DATA_TOO_LONG,
    DROP_HELD_ALREADY,
    DROP_HELD_POOL_EMPTY,
    DROP_OUT_OF_ORDER_FIRST_DATA,
    RECEIVED_FIN_ACTIVE,
    RECEIVED_PAYLOAD,
)
from .ecn import CODEPOINT
from .farewell import leave_unbound
from .headers import FIN, URG
from .jit import kernel
from .native import record_at, swap16
from .records import REFUSED, TCP_CLOSE_WAIT, step
from .sequence import distance, wrap
from .shaping import NOT_BEGUN, is_shaped
from .waiting_room import come_again, wait
from .wheel import TICK_MICROSECONDS

BEYOND = -2
"""Instead of a reason: what a segment follows has not come yet."""


@kernel
def slot_for(connections, connection):
    """Returns the connection's slot of held bytes, a fresh one if it has none; -1 where all are taken."""
    hot, cold, held = record_at(connections.hot, connection), record_at(connections.cold, connection), connections.held
    opening = record_at(connections.openings, int64(cold.opening))
    if hot.options & HOLDS:
        return int64(opening.held)
    if held.free_count[0] == 0:
        return -1
    held.free_count[0] -= 1
    slot = held.free[held.free_count[0]]
    held.length[slot], held.urgent[slot] = 0, 0
    opening.held = slot
    hot.options |= HOLDS
    return slot


@kernel
def nothing_new(batch, row, have, offset, limit):
    """Returns why a segment adds nothing to `have` held bytes, BEYOND if nothing yet, or -1; `offset` is its distance
    from the first byte."""
    length, finishes = batch.payload_length[row], batch.control[row] & FIN != 0
    if offset > have:
        return BEYOND if offset < limit else DROP_OUT_OF_ORDER_FIRST_DATA
    skip = have - offset
    if skip > length or (skip == length and not finishes):
        return DROP_HELD_ALREADY
    return DROP_FIRST_DATA_TOO_LONG if skip < length and have >= limit else -1


@kernel
def append(packets, base, batch, row, held, slot, offset):
    """Appends what is new in a segment to a slot. The first copy of a byte wins (SPLICE 1.4).

    What the slot has no room for is left to the client's retransmission.
    """
    have, limit = held.length[slot], held.limit[0]
    skip = have - offset
    part = max(min(batch.payload_length[row] - skip, limit - have), 0)  # a PROXY header can have filled it beyond the limit
    copy_payload(packets, base, batch.mbuf[row], batch.payload[row], skip, part, held.octets,
                 slot * held.stride[0] + have)
    held.length[slot] = have + part


@kernel
def keep_urgent(packets, batch, row, held, slot, offset):
    """Keeps up to where a client calls what it sends urgent (RFC 9293, section 3.8.5), for the segments that bring it to the target."""
    if batch.control[row] & URG:
        stop = offset + swap16(int64(record_at(packets.tcp, batch.transport[row]).urgent))
        held.urgent[slot] = max(held.urgent[slot], stop)


@kernel
def keep_mark(packets, batch, row, hot, cold):
    """Keeps the mark of a router that is congested (CE): the target, not the proxy, is to echo it (RFC 3168, section 6.1.3)."""
    marked = int64(record_at(packets.ipv4, batch.network[row]).service) & CODEPOINT == CODEPOINT
    if marked and cold.agreed & PROMISED_ECN:
        hot.options |= SPECIAL
        cold.special |= MARKED


@kernel
def is_shown(connections, connection):
    """Says whether what a client sends before the splice has to wait for it: a payload kernel sees held bytes but once."""
    flow = connection * 2 + CLIENT
    if not is_shaped(connections, flow):
        return False
    return record_at(connections.hot, connection).state != FIRST_DATA or connections.shaped.position[flow] != NOT_BEGUN


@kernel
def hold_one(packets, base, batch, row, connections, connection, records, now):
    """Holds the payload and FIN of one row and lists a connection that can be given a target.

    Returns -1, BEYOND, or why the row is dropped.
    """
    hot, cold, held = record_at(connections.hot, connection), record_at(connections.cold, connection), connections.held
    if hot.closing & (FIN_SEEN << CLIENT):
        return DROP_HELD_ALREADY
    opening = record_at(connections.openings, int64(cold.opening))
    first = wrap(int64(opening.syn_isn) + 1 - int64(hot.shift[CLIENT]))
    offset = distance(batch.seq[row], first)
    have = held.length[int64(opening.held)] if hot.options & HOLDS else 0
    reason = nothing_new(batch, row, have, offset, held.limit[0])
    if reason != DROP_HELD_ALREADY and is_shown(connections, connection):
        return BEYOND
    if reason != -1:
        return reason
    if hot.state == FIRST_DATA and hot.options & BOUND == 0 and have == 0 and batch.payload_length[row] == 0:
        hot.closing |= FIN_SEEN << CLIENT
        move_on(connections, connection, CLIENT, wrap(first + 1))
        leave_unbound(connections, connection, records, now, now // TICK_MICROSECONDS)
        return -1
    slot = slot_for(connections, connection)
    if slot < 0:
        return DROP_HELD_POOL_EMPTY
    append(packets, base, batch, row, held, slot, offset)
    keep_urgent(packets, batch, row, held, slot, offset)
    keep_mark(packets, batch, row, hot, cold)
    stop = wrap(first + held.length[slot])
    if batch.control[row] & FIN and wrap(batch.seq[row] + batch.payload_length[row]) == stop:
        hot.closing |= FIN_SEEN << CLIENT
        connections.counters.events[CLIENT, RECEIVED_FIN_ACTIVE] += 1
        step(records, connection, CLIENT, TCP_CLOSE_WAIT, now)
        stop = wrap(stop + 1)
    move_on(connections, connection, CLIENT, stop)
    connections.counters.events[CLIENT, RECEIVED_PAYLOAD] += int64(batch.payload_length[row] > 0)
    if hot.state == FIRST_DATA:
        ask(connections, connection, NO_ROW, REFUSED)
    return -1


@kernel
def hold(packets, base, batch, row, connections, connection, records, now):
    """Takes what a row brings into the connection's slot, lets it wait for what it follows (SPLICE 1.4), or drops it,
    with the reason counted."""
    hot = record_at(connections.hot, connection)
    reason = hold_one(packets, base, batch, row, connections, connection, records, now)
    if reason == BEYOND:
        wait(batch, row, connections, connection * 2 + CLIENT, now // TICK_MICROSECONDS)
    elif reason < 0 and hot.options & SPECIAL:
        come_again(connections, connection * 2 + CLIENT, int64(hot.next[CLIENT]), False)
    elif reason >= 0:
        batch.verdict[row] = DROP
        connections.counters.drops[reason] += 1
        if reason == DROP_HELD_ALREADY and hot.options & OWNS and hot.state == FIRST_DATA:
            ask(connections, connection, NO_ROW, REFUSED)  # our acknowledgement was lost
