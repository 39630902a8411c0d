"""Connect: carries out what the select kernels answered, by a SYN to the target or a RST to the client."""
from numpy import int64

from .connection import (
    ASKED,
    BOUND,
    CLIENT,
    CONNECTING,
    FIN_SEEN,
    FIRST_DATA,
    HOLDS,
    OWNS,
    PROMISED_TIMESTAMPS,
    SCALED,
    TARGET,
    emit,
    end,
    enter,
)
from .counters import (
    DROP_FLOW_TABLE_FULL,
    DROP_SOURCE_PORTS_EXHAUSTED,
    NOTICE_REFUSED_BY_SELECT,
    OF_SERVICE_REFUSED,
    OF_TARGET_CONNECTIONS,
    OF_TARGET_OPEN,
    SENT_RST,
    SENT_SYN,
)
from .flow_table import hash_key, insert
from .headers import ACK, RST, SYN
from .jit import kernel
from .native import record_at
from .open import SYN_RETRY
from .records import ACTIVE_RST, EXHAUSTED, REFUSED, TCP_SYN_SENT, step
from .sequence import wrap
from .services import NEED_MORE, give_source, take_source
from .tcp_options import PROXY_SCALE, TIMESTAMPS_LENGTH
from .wheel import TICK_MICROSECONDS


@kernel
def turn_away(connections, connection, cause):
    """Resets the client of a connection that gets no target, and ends it for `cause`."""
    hot, cold = record_at(connections.hot, connection), record_at(connections.cold, connection)
    emit(connections, connection, CLIENT, RST | ACK, wrap(int64(cold.proxy_isn) + 1), int64(hot.next[CLIENT]), 0, 0, 0, 0)
    connections.counters.events[CLIENT, SENT_RST] += 1
    connections.counters.services[cold.service, OF_SERVICE_REFUSED] += 1
    end(connections, connection, cause, ACTIVE_RST)


@kernel
def send_syn(connections, connection, targets, network):
    """Orders the SYN toward the target: the client's own initial number, and no larger MSS than it has.

    It leaves room for timestamps that we would have to insert, until the target is known to use them (SPLICE 2.5).
    """
    hot, cold = record_at(connections.hot, connection), record_at(connections.cold, connection)
    seq = int64(cold.syn_isn)
    room = TIMESTAMPS_LENGTH if cold.agreed & PROMISED_TIMESTAMPS else 0
    if record_at(targets.rows, int64(cold.target)).stamps_known:
        room = 0
    window = min(int64(cold.window[CLIENT]) << (int64(hot.scales) & 0x0F), 0xFFFF)
    emit(connections, connection, TARGET, SYN, seq, 0, window, min(int64(cold.mss[CLIENT]), network.mss[0]) - room, 0, 0)
    connections.counters.events[TARGET, SENT_SYN] += 1


@kernel
def bind(connections, connection, target, targets, sources):
    """Gives a connection its target, a source port and the key of the target's packets; returns -1 or what ran out."""
    hot, cold = record_at(connections.hot, connection), record_at(connections.cold, connection)
    row = record_at(targets.rows, target)
    pool = row.pool
    entry = take_source(sources, pool)
    if entry < 0:
        return DROP_SOURCE_PORTS_EXHAUSTED
    local, local_port = sources.address[pool, entry >> 16], entry & 0xFFFF
    hashed = hash_key(row.address, local, row.port, local_port)
    hot.remote_address[TARGET], hot.remote_port[TARGET] = row.address, row.port
    hot.local_address[TARGET], hot.local_port[TARGET] = local, local_port
    hot.neighbour[TARGET] = row.neighbour
    if not insert(connections.buckets, hashed, connection * 2 + TARGET):
        give_source(sources, pool, entry)
        return DROP_FLOW_TABLE_FULL
    cold.target, cold.source = target, entry
    hot.options |= BOUND
    return -1


@kernel
def target_of(connections, connection, answer, selection, targets):
    """Returns the target that a select kernel's answer means, -1 to refuse, or NEED_MORE to wait for more payload.

    Held bytes that fill their slot, or end with a FIN, will not grow: *need more* then is *no match*.
    """
    hot, cold, held = record_at(connections.hot, connection), record_at(connections.cold, connection), connections.held
    service = selection.services[cold.service]
    if 0 <= answer < service.members:
        return targets.members[service.first_member + answer]
    complete = hot.closing & (FIN_SEEN << CLIENT) != 0
    empty = hot.options & HOLDS == 0
    if answer == NEED_MORE and not complete and (empty or held.length[int64(cold.held)] < held.limit[0]):
        return NEED_MORE
    return service.fallback


@kernel
def ask_for_more(connections, connection):
    """Acknowledges the held bytes, which are ours to deliver from here on (SPLICE 1.2).

    A client with Nagle's algorithm, or after a time-out, sends no more before. The window is what is left of the slot,
    never zero: a full slot does not ask for more.
    """
    hot, cold, held = record_at(connections.hot, connection), record_at(connections.cold, connection), connections.held
    if hot.options & HOLDS == 0:
        return
    hot.options |= OWNS
    room = held.limit[0] - held.length[int64(cold.held)]
    window = max(room >> PROXY_SCALE, 1) if hot.options & SCALED else room
    emit(connections, connection, CLIENT, ACK, wrap(int64(cold.proxy_isn) + 1), int64(hot.next[CLIENT]), window, 0, 0, 0)


@kernel
def connect(connections, selection, targets, sources, network, records, now):
    """Goes through `choices`, with the answers of the select kernels, and empties it."""
    choices, counters = connections.choices, connections.counters
    tick = now // TICK_MICROSECONDS
    for number in range(choices.filled[0]):
        connection = choices.connection[number]
        hot, cold = record_at(connections.hot, connection), record_at(connections.cold, connection)
        hot.options &= 0xFF ^ ASKED
        if hot.state != FIRST_DATA:
            continue
        target = target_of(connections, connection, choices.answer[number], selection, targets)
        if target == NEED_MORE:
            ask_for_more(connections, connection)
            continue
        if target < 0:
            counters.notices[NOTICE_REFUSED_BY_SELECT] += 1
            turn_away(connections, connection, REFUSED)
            continue
        lacking = bind(connections, connection, target, targets, sources)
        if lacking >= 0:
            counters.drops[lacking] += 1
            turn_away(connections, connection, EXHAUSTED)
            continue
        cold.since, cold.retry, cold.tries = tick & 0xFFFFFFFF, (tick + SYN_RETRY) & 0xFFFFFFFF, 0
        enter(connections, connection, CONNECTING)
        step(records, connection, TARGET, TCP_SYN_SENT, now)
        counters.targets[target, OF_TARGET_CONNECTIONS] += 1
        counters.targets[target, OF_TARGET_OPEN] += 1
        send_syn(connections, connection, targets, network)
    choices.filled[0] = 0
