"""Expire: retransmissions and time-outs, by the timers that the wheel hands out.

Idle timers are lazy: packets only stamp their connection, and a timer that comes early is set anew.
"""
from numpy import int64

from .build import RESOLVE_RETRY
from .connect import send_syn, target_fails
from .connection import (
    ASK_NOBODY,
    BOUND,
    CLIENT,
    CONNECTING,
    ESTABLISHED,
    FIN_WAIT,
    FIRST_DATA,
    FREE,
    HOLDS,
    HOT_BYTES,
    LINGERING,
    OPENS,
    RST_SEEN,
    SPLICED,
    SYN_RECEIVED,
    TARGET,
    TIME_WAIT,
    ask,
    emit,
    end,
    note,
)
from .counters import (
    NOTICE_ANSWERS_REPEATED,
    NOTICE_HELD_RETRANSMITTED,
    NOTICE_SYN_ACK_RETRANSMITTED,
    NOTICE_SYN_RETRANSMITTED,
    SENT_RST,
    TOTAL_EXPIRED,
)
from .farewell import answer_fin, closed, ended_by_reset
from .flow_hash import hash_key
from .handshake import acknowledge
from .headers import ACK, RST
from .held_sender import send_again, shown_to_client
from .jit import kernel
from .native import address_of, prefetch, record_at
from .neighbours import PROBING, REACHABLE
from .open import SYN_ACK_RETRY, SYN_RETRY, send_syn_ack
from .opening import settle_opening
from .records import (
    STOPPED,
    TCP_CLOSED,
    TIMEOUT,
    step,
)
from .sequence import distance, wrap
from .services import MAINTENANCE
from .shaping import acknowledged, sender_number
from .verify import COLD_BYTES
from .wheel import TICK_MICROSECONDS, ask_for_last, ask_for_place, ask_for_timer, comes_earlier, retry_at, schedule

MOST_TRIES = 8
"""After this many retransmissions of a handshake only its state's time-out is left; held payload that has been sent as
often in vain (over some 150 s) ends its connection."""
TIMERS_AT_ONCE = 8
"""Timers that `set_timers` sets in one block."""
AHEAD = 4
"""Timers whose connections are asked for before it is their turn."""


@kernel
def ask_for(connections, connection):
    """Asks for the two cache lines of a connection that has not been looked at for as long as its timer ran."""
    prefetch(address_of(connections.hot) + connection * HOT_BYTES)
    prefetch(address_of(connections.cold) + connection * COLD_BYTES)


@kernel
def state_deadline(connections, connection):
    """Returns the tick at which a connection's state times out, as a 32-bit number."""
    hot, cold = record_at(connections.hot, connection), record_at(connections.cold, connection)
    if hot.closing & RST_SEEN:
        return wrap(int64(hot.stamp) + connections.timeouts[int64(cold.service), TIME_WAIT])
    since = int64(hot.stamp)
    if cold.special & OPENS and (hot.state < ESTABLISHED or hot.options & BOUND == 0):
        since = int64(record_at(connections.openings, int64(cold.opening)).since)
    return wrap(since + connections.timeouts[int64(cold.service), int64(hot.state)])


@kernel
def retry_of(connections, connection):
    """Returns the tick of a connection's next retransmission, 0 for none."""
    cold = record_at(connections.cold, connection)
    return int64(record_at(connections.openings, int64(cold.opening)).retry) if cold.special & OPENS else 0


@kernel
def tries_of(connections, connection):
    """Returns how often a connection that is being opened has sent something again."""
    cold = record_at(connections.cold, connection)
    return int64(record_at(connections.openings, int64(cold.opening)).tries)


@kernel
def deadline(connections, connection, tick):
    """Returns the tick at which something is next to be done for a connection: a retransmission or its time-out."""
    last, retry = state_deadline(connections, connection), retry_of(connections, connection)
    if retry != 0 and distance(retry, last) < 0:
        last = retry
    return tick + distance(last, wrap(tick))


@kernel
def linger(connections, hot, side, tick):
    """Remembers that an end has been reset: it may challenge our RST, and gets the exact one then (SPLICE 4.2)."""
    hashed = hash_key(int64(hot.remote_address[side]), int64(hot.local_address[side]),
                      int64(hot.remote_port[side]), int64(hot.local_port[side]))
    entry = hashed & (LINGERING - 1)
    connections.lingering[entry, 0], connections.lingering[entry, 1] = hashed, tick


@kernel
def reset_both(connections, connection):
    """Orders a RST to the client and, where there is one, to the target, each with what it acknowledged last."""
    hot = record_at(connections.hot, connection)
    events = connections.counters.events
    emit(connections, connection, CLIENT, RST | ACK, int64(hot.acked[CLIENT]),
         sender_number(connections, connection * 2 + CLIENT, shown_to_client(connections, connection)) if hot.state >= ESTABLISHED
         and hot.options & BOUND else int64(hot.next[CLIENT]), 0, 0, 0, 0)
    events[CLIENT, SENT_RST] += 1
    if hot.options & BOUND:
        cold, seq = record_at(connections.cold, connection), int64(hot.acked[TARGET])
        if hot.state < ESTABLISHED:
            seq = wrap(int64(record_at(connections.openings, int64(cold.opening)).syn_isn) + 1)
        ack = acknowledged(connections, connection * 2 + TARGET) if hot.state >= ESTABLISHED else 0
        emit(connections, connection, TARGET, RST | (ACK if hot.state >= ESTABLISHED else 0), seq, ack, 0, 0, 0, 0)
        events[TARGET, SENT_RST] += 1


@kernel
def time_out(connections, connection, services, records, now):
    """Ends a connection whose state has lasted too long: a live one with RST to both sides.

    TIME_WAIT ends silently, and so does what a RST has ended that nothing contradicted (SPLICE 4.1). A target that does not
    answer is replaced (3.1); a client that has not said enough gets its service's fall-back, if there is one (1.3).
    """
    hot, cold = record_at(connections.hot, connection), record_at(connections.cold, connection)
    if hot.state == CONNECTING:
        target_fails(connections, connection, TIMEOUT, now // TICK_MICROSECONDS)
        return
    if hot.state == FIRST_DATA and services[cold.service].fallback >= 0:
        record_at(connections.openings, int64(cold.opening)).since = wrap(now // TICK_MICROSECONDS)
        ask(connections, connection, ASK_NOBODY, TIMEOUT)
        note(connections.touched, connection, 0)
        return
    if hot.state == TIME_WAIT:
        closed(connections, connection)
        return
    if hot.closing & RST_SEEN:
        ended_by_reset(connections, connection)
        return
    if hot.state != SYN_RECEIVED:
        reset_both(connections, connection)
        linger(connections, hot, CLIENT, now // TICK_MICROSECONDS)
        linger(connections, hot, TARGET, now // TICK_MICROSECONDS)
    step(records, connection, CLIENT, TCP_CLOSED, now)
    step(records, connection, TARGET, TCP_CLOSED, now)
    end(connections, connection, TIMEOUT, TIMEOUT)


@kernel
def doubt(neighbour):
    """A SYN without an answer: the next hop may have another MAC by now, so it is asked for again (RFC 1122, 2.3.2.1)."""
    if neighbour.state == REACHABLE:
        neighbour.state = PROBING
        neighbour.tries = 0
        neighbour.asked = 0


@kernel
def retransmit(connections, connection, targets, network, tick):
    """Sends again what the engine owns in this state, and sets the next time, twice as far away."""
    hot, cold = record_at(connections.hot, connection), record_at(connections.cold, connection)
    opening = record_at(connections.openings, int64(cold.opening))
    notices = connections.counters.notices
    handshake = hot.state == SYN_RECEIVED or hot.state == CONNECTING
    waits_for = int64(hot.neighbour[CLIENT if hot.state == SYN_RECEIVED else TARGET])
    if handshake and record_at(network.neighbours, waits_for).state < REACHABLE:
        opening.retry = retry_at(tick + RESOLVE_RETRY)
        return
    if hot.state == SYN_RECEIVED:
        send_syn_ack(connections, connection)
        notices[NOTICE_SYN_ACK_RETRANSMITTED] += 1
    elif hot.state == CONNECTING:
        doubt(record_at(network.neighbours, waits_for))
        send_syn(connections, connection, targets, network)
        notices[NOTICE_SYN_RETRANSMITTED] += 1
    elif hot.state == FIN_WAIT and hot.options & BOUND == 0:
        answer_fin(connections, connection)
    elif hot.state == FIRST_DATA:
        acknowledge(connections, connection, 0, 0)
        notices[NOTICE_ANSWERS_REPEATED] += 1
    tries = int64(opening.tries) + 1
    opening.tries = tries
    first = SYN_ACK_RETRY if hot.state == SYN_RECEIVED else SYN_RETRY
    opening.retry = retry_at(tick + (first << tries)) if tries < MOST_TRIES or hot.state >= ESTABLISHED else 0
    if hot.options & (HOLDS | SPLICED) == HOLDS | SPLICED:
        opening.retry = retry_at(tick + send_again(connections, connection))
        notices[NOTICE_HELD_RETRANSMITTED] += 1


@kernel
def expire(connections, expired, count, services, targets, network, records, now):
    """Deals with the timers expired[:count]; each connection that lives on is listed to have its timer set anew."""
    tick = now // TICK_MICROSECONDS
    connections.counters.totals[TOTAL_EXPIRED] += count
    for number in range(count):
        ask_for(connections, expired[min(number + AHEAD, count - 1)])
        connection = expired[number]
        hot = record_at(connections.hot, connection)
        if hot.state == FREE:
            continue
        if distance(wrap(tick), state_deadline(connections, connection)) >= 0:
            time_out(connections, connection, services, records, now)
            continue
        retry, silent = retry_of(connections, connection), hot.options & (HOLDS | SPLICED) == SPLICED
        if retry != 0 and not silent and distance(wrap(tick), retry) >= 0:
            if hot.state >= ESTABLISHED and tries_of(connections, connection) >= MOST_TRIES:
                time_out(connections, connection, services, records, now)
                continue
            retransmit(connections, connection, targets, network, tick)
        note(connections.touched, connection, 0)


@kernel
def set_timers(connections, wheel, now):
    """Sets the timer of every connection in `touched`, and empties it.

    What has been opened gives its OPENING record back. In blocks, each in passes, so that what one of them waits for the others
    of its block have been waiting for too.
    """
    tick, touched = now // TICK_MICROSECONDS, connections.touched
    for first in range(0, touched.filled[0], TIMERS_AT_ONCE):
        stop = min(first + TIMERS_AT_ONCE, touched.filled[0])
        for number in range(first, stop):
            ask_for_timer(wheel, touched.connection[number])
        moving = 0
        for number in range(first, stop):
            connection = touched.connection[number]
            if record_at(connections.hot, connection).state != FREE:
                settle_opening(connections, connection, tick)
            touched.detail[number] = deadline(connections, connection, tick)
            if comes_earlier(wheel, connection, touched.detail[number]):
                ask_for_place(wheel, connection)
                moving += 1
        for number in range(first, stop if moving > 0 else first):
            ask_for_last(wheel, touched.connection[number], number - first)
        for number in range(first, stop):
            if record_at(connections.hot, touched.connection[number]).state != FREE:
                schedule(wheel, touched.connection[number], touched.detail[number])
    touched.filled[0] = 0


@kernel
def stop_all(connections, first, count, records, now):
    """Ends `count` connections from `first` on, the live ones with RST to both sides (SPLICE 9)."""
    for connection in range(first, min(first + count, connections.hot.shape[0])):
        if record_at(connections.hot, connection).state == TIME_WAIT:
            closed(connections, connection)
        elif record_at(connections.hot, connection).state != FREE:
            reset_both(connections, connection)
            step(records, connection, CLIENT, TCP_CLOSED, now)
            step(records, connection, TARGET, TCP_CLOSED, now)
            end(connections, connection, STOPPED, STOPPED)


@kernel
def release_removed(connections, targets, count, records, now):
    """Looks at `count` further connections and resets those of targets in maintenance; ends the walk behind the last."""
    first, last = targets.health[4], connections.hot.shape[0]
    for connection in range(first, min(first + count, last)):
        hot, cold = record_at(connections.hot, connection), record_at(connections.cold, connection)
        if hot.state == FREE or hot.state == TIME_WAIT or hot.options & BOUND == 0:
            continue
        if targets.states[int64(cold.target)] == MAINTENANCE:
            reset_both(connections, connection)
            step(records, connection, CLIENT, TCP_CLOSED, now)
            step(records, connection, TARGET, TCP_CLOSED, now)
            end(connections, connection, STOPPED, STOPPED)
    targets.health[4] = first + count
    if first + count >= last:
        targets.health[4] = 0
        targets.health[3] += 1
