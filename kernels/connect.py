"""Connect: carries out what the select kernels answered, by a SYN to the target or a RST to the client (SPLICE 3).

A target that refuses, cannot be reached or does not answer is given up, and the select kernel is asked again without it,
as long as not one held byte has been sent.
"""
from numpy import int64

from .batch import ABSORB, FORWARD
from .connection import (
    ASKED,
    BOUND,
    CLIENT,
    CONNECTING,
    DECLINED,
    ESTABLISHED,
    FIN_SEEN,
    FIRST_DATA,
    HALF_CLOSED,
    HOLDS,
    LENT,
    NARROW,
    NO_ROW,
    NO_TARGET,
    OPENS,
    OWNS,
    PLAIN,
    PROMISED_ECN,
    PROMISED_SCALING,
    PROMISED_TIMESTAMPS,
    RST_AT_END,
    RST_OF_TARGET,
    RST_SEEN,
    SCALED,
    SPLICED,
    STAMPED,
    TARGET,
    ask,
    emit,
    end,
    enter,
    withdraw,
)
from .counters import (
    DROP_FLOW_TABLE_FULL,
    DROP_SOURCE_PORTS_EXHAUSTED,
    NOTICE_FIRST_DATA_FALLBACK,
    NOTICE_OTHER_TARGET,
    NOTICE_REFUSED_BY_SELECT,
    OF_SERVICE_REFUSED,
    OF_TARGET_CONNECTIONS,
    OF_TARGET_OPEN,
    OF_TARGET_REFUSED,
    OF_TARGET_TIMEOUTS,
    OF_TARGET_UNREACHABLE,
    SENT_FIN_ACTIVE,
    SENT_RST,
    SENT_SYN,
)
from .farewell import closed
from .edits import NONE
from .flow_hash import hash_key
from .flow_table import ask_for_key, find, insert, remove
from .headers import ACK, CWR, ECE, RST, SYN
from .jit import kernel
from .native import address_of, prefetch, record_at
from .open import SYN_RETRY
from .proxy_protocol import put_header
from .records import ACTIVE_RST, EXHAUSTED, REFUSED, TARGET_REFUSED, TARGET_UNREACHABLE, TCP_CLOSED, TCP_SYN_SENT, TIMEOUT, step
from .release import forget_key
from .sequence import wrap
from .services import AWAIT_CLIENT, NEED_MORE, REFUSE_CLIENT, note_failure
from .shaping import is_shaped
from .source_ports import LAST_BYTES, begin_above, give_back_source, give_source, next_source, note_last, take_source
from .tcp_options import TIMESTAMPS_LENGTH, proxy_window
from .wheel import TICK_MICROSECONDS, retry_at

TRIES_WITH_ECN = 1
"""SYNs sent again that still offer ECN."""


@kernel
def target_fails(connections, connection, cause, tick):
    """Gives up the target of a CONNECTING connection, for a TARGET_* cause or TIMEOUT, and asks for another one.

    The connection stays bound until `connect` finds one: with the last target it ends as it is.
    """
    cold = record_at(connections.cold, connection)
    opening = record_at(connections.openings, int64(cold.opening))
    opening.since, opening.retry, opening.tries = wrap(tick), 0, 0
    enter(connections, connection, FIRST_DATA)
    ask(connections, connection, NO_ROW, cause)


@kernel
def is_untouched(connections, connection):
    """Says whether no byte and no FIN of the client's has gone to a bound target, and none of the target's to the client.

    What was held has not been sent; where nothing was held (immediate binding), the client has sent nothing.
    """
    hot, cold = record_at(connections.hot, connection), record_at(connections.cold, connection)
    if (hot.state != ESTABLISHED and hot.state != HALF_CLOSED) or cold.special & PLAIN or cold.special & OPENS == 0:
        return False
    if hot.closing & (0xFF ^ (FIN_SEEN << CLIENT | RST_SEEN | RST_OF_TARGET | RST_AT_END)):
        return False
    if is_shaped(connections, connection * 2 + CLIENT) and connections.shaped.edits.first[connection * 2 + CLIENT] != NONE:
        return False
    opening = record_at(connections.openings, int64(cold.opening))
    if hot.options & HOLDS:
        unsent = record_at(connections.held.delivery, int64(opening.held)).sent <= int64(opening.header)
    else:
        unsent = int64(hot.next[CLIENT]) == wrap(int64(opening.client_isn) + 1) and opening.wrapped & 1 << CLIENT == 0
    return unsent and wrap(int64(hot.next[TARGET]) + int64(hot.shift[TARGET])) == wrap(int64(opening.proxy_isn) + 1)


@kernel
def unsplice(batch, row, connections, connection):
    """Makes a connection whose target has reset it at once (see `is_untouched`) one that has no answer of a target's yet.

    What came before `row` in the burst, and would now pass to the target's successor or in its name, does not; nor does what
    was ordered for the target. What the client was told of an MSS is forgotten by now: any that comes next counts as less.
    """
    hot, cold = record_at(connections.hot, connection), record_at(connections.cold, connection)
    for earlier in range(row):
        if batch.verdict[earlier] == FORWARD and batch.flow[earlier] >> 1 == connection:
            batch.verdict[earlier] = ABSORB
    withdraw(connections, connection, TARGET)
    opening = record_at(connections.openings, int64(cold.opening))
    if cold.special & PROMISED_SCALING:
        opening.window[CLIENT] = int64(opening.window[CLIENT]) >> (int64(hot.scales) & 0x0F)
    connections.counters.events[TARGET, SENT_FIN_ACTIVE] -= int64(hot.closing & (FIN_SEEN << CLIENT) != 0)
    hot.options &= 0xFF ^ (SPLICED | STAMPED)
    hot.closing &= FIN_SEEN << CLIENT
    hot.scales &= 0x0F
    hot.options |= SCALED if cold.agreed & PROMISED_SCALING else 0
    hot.shift[TARGET], hot.timestamp_shift = 0, 0
    cold.special &= 0xFFFF ^ (DECLINED | NARROW)
    opening.mss[TARGET] = 0xFFFF
    hot.acked[CLIENT] = wrap(int64(opening.proxy_isn) + 1)


@kernel
def forsake(connections, connection, cause, targets, sources, tick):
    """Takes a connection off the target that has failed it; its port goes back, behind all that are free.

    A late SYN-ACK is then a stray and gets a RST, and so does an answer to what the port is used for next (SPLICE 3.2).
    What this burst has ordered for the target must not go to its successor.
    """
    hot, cold = record_at(connections.hot, connection), record_at(connections.cold, connection)
    withdraw(connections, connection, TARGET)
    opening, target = record_at(connections.openings, int64(cold.opening)), int64(cold.target)
    opening.failed[1], opening.failed[0] = int64(opening.failed[0]), target
    forget_key(connections, hot, connection, TARGET)
    give_back_source(connections, connection, targets, sources, tick)
    hot.options &= 0xFF ^ BOUND
    hot.remote_address[TARGET], hot.local_address[TARGET], hot.remote_port[TARGET], hot.local_port[TARGET] = 0, 0, 0, 0
    cold.target = NO_TARGET
    connections.counters.targets[target, OF_TARGET_OPEN] -= 1
    connections.counters.targets[target, OF_TARGET_TIMEOUTS] += int64(cause == TIMEOUT)
    connections.counters.notices[NOTICE_OTHER_TARGET] += 1


@kernel
def count_failure(connections, connection, cause):
    """Counts a target that refused or could not be reached; time-outs are counted where the connection leaves it."""
    counters, target = connections.counters, int64(record_at(connections.cold, connection).target)
    counters.targets[target, OF_TARGET_REFUSED] += int64(cause == TARGET_REFUSED)
    counters.targets[target, OF_TARGET_UNREACHABLE] += int64(cause == TARGET_UNREACHABLE)


@kernel
def turn_away(connections, connection, cause, records, now):
    """Resets the client of a connection that gets no target (any more), and ends it for `cause`."""
    hot, cold, counters = record_at(connections.hot, connection), record_at(connections.cold, connection), connections.counters
    opening = record_at(connections.openings, int64(cold.opening))
    emit(connections, connection, CLIENT, RST | ACK, wrap(int64(opening.proxy_isn) + 1), int64(hot.next[CLIENT]), 0, 0, 0, 0)
    counters.events[CLIENT, SENT_RST] += 1
    if hot.options & BOUND and cause == TIMEOUT:
        emit(connections, connection, TARGET, RST, wrap(int64(opening.syn_isn) + 1), 0, 0, 0, 0, 0)
        counters.events[TARGET, SENT_RST] += 1
    step(records, connection, CLIENT, TCP_CLOSED, now)
    step(records, connection, TARGET, TCP_CLOSED, now)
    counters.services[cold.service, OF_SERVICE_REFUSED] += int64(cause == REFUSED or cause == EXHAUSTED)
    if cause == TIMEOUT:
        end(connections, connection, TIMEOUT, TIMEOUT)
    elif cause == TARGET_REFUSED or cause == TARGET_UNREACHABLE:
        end(connections, connection, ACTIVE_RST, cause)
    else:
        end(connections, connection, cause, ACTIVE_RST)


@kernel
def send_syn(connections, connection, targets, network):
    """Orders the SYN toward the target: the client's own initial number, and no larger MSS than it has.

    It leaves room for timestamps that we would have to insert, until the target is known to use them (SPLICE 2.5). After the
    second time-out it goes without ECN, for which something on the way may drop it (RFC 3168, section 6.1.1.1).
    """
    hot, cold = record_at(connections.hot, connection), record_at(connections.cold, connection)
    opening = record_at(connections.openings, int64(cold.opening))
    seq = int64(opening.syn_isn)
    room = TIMESTAMPS_LENGTH if cold.agreed & PROMISED_TIMESTAMPS else 0
    if record_at(targets.rows, int64(cold.target)).stamps_known:
        room = 0
    window = min(int64(opening.window[CLIENT]) << (int64(hot.scales) & 0x0F), 0xFFFF)
    ecn = ECE | CWR if cold.agreed & PROMISED_ECN and opening.tries < TRIES_WITH_ECN else 0
    mss = max(min(int64(opening.mss[CLIENT]), network.mss[0]) - room, 1)
    emit(connections, connection, TARGET, SYN | ecn, seq, 0, window, mss, 0, 0)
    connections.counters.events[TARGET, SENT_SYN] += 1


@kernel
def take_over(connections, last, hashed, remote, local, remote_port, local_port):
    """Ends what waits out TIME_WAIT on a source port that is taken anew, and takes its key out of the table.

    In TIME_WAIT its client may have sent something, with a later TSval.
    """
    entry = find(connections.buckets, connections.hot, hashed, remote, local, remote_port, local_port)
    if entry >= 0 and record_at(connections.cold, entry >> 1).special & LENT:
        closed(connections, entry >> 1)
        note_last(connections, last, record_at(connections.hot, entry >> 1), record_at(connections.cold, entry >> 1))
        remove(connections.buckets, hashed, entry)


@kernel
def ask_for_next(connections, sources, pool, remote, remote_port):
    """Asks for what the next connection to a target will need: what was last sent from its source port, and its bucket."""
    entry = next_source(sources, pool)
    hashed = hash_key(remote, sources.address[pool, entry >> 16], remote_port, entry & 0xFFFF)
    prefetch(address_of(sources.last) + (pool * sources.last.shape[1] + entry) * LAST_BYTES)
    ask_for_key(connections.buckets, hashed)


@kernel
def bind(connections, connection, target, targets, sources, tick):
    """Gives a connection its target, a source port and the key of the target's packets; returns -1 or what ran out."""
    hot, cold = record_at(connections.hot, connection), record_at(connections.cold, connection)
    row = record_at(targets.rows, target)
    pool = int64(row.pool)
    entry = take_source(sources, pool)
    if entry < 0:
        return DROP_SOURCE_PORTS_EXHAUSTED
    remote, remote_port = int64(row.address), int64(row.port)
    ask_for_next(connections, sources, pool, remote, remote_port)
    local, local_port = sources.address[pool, entry >> 16], entry & 0xFFFF
    hashed = hash_key(remote, local, remote_port, local_port)
    take_over(connections, sources.last[pool, entry], hashed, remote, local, remote_port, local_port)
    if not insert(connections.buckets, hashed, connection * 2 + TARGET):
        give_source(sources, pool, entry)
        return DROP_FLOW_TABLE_FULL
    hot.remote_address[TARGET], hot.remote_port[TARGET] = remote, remote_port
    hot.local_address[TARGET], hot.local_port[TARGET] = local, local_port
    hot.neighbour[TARGET] = row.neighbour
    cold.target, cold.source = target, entry >> 16
    cold.special &= 0xFFFF ^ LENT
    hot.options |= BOUND
    begin_above(connections, connection, sources.last[pool, entry], tick)
    return -1


@kernel
def has_failed(connections, connection, target):
    """Says whether a target has already failed a connection: it is bound to it still, or was before."""
    cold = record_at(connections.cold, connection)
    opening = record_at(connections.openings, int64(cold.opening))
    return target == cold.target or target == opening.failed[0] or target == opening.failed[1]


@kernel
def target_of(connections, connection, answer, selection, targets):
    """Returns the target that a select kernel's answer means, -1 to refuse, or NEED_MORE to wait for more payload.

    Held bytes that fill their slot, or end with a FIN, will not grow: *need more* then is *no match*, and so is a target
    that has failed this connection.
    """
    hot, cold, held = record_at(connections.hot, connection), record_at(connections.cold, connection), connections.held
    service = selection.services[cold.service]
    if answer == REFUSE_CLIENT:
        return -1
    if answer == AWAIT_CLIENT:
        return NEED_MORE
    if 0 <= answer < service.members:
        target = targets.members[service.first_member + answer]
        if not has_failed(connections, connection, target):
            return target
    complete = hot.closing & (FIN_SEEN << CLIENT) != 0
    empty, slot = hot.options & HOLDS == 0, int64(record_at(connections.openings, int64(cold.opening)).held)
    if answer == NEED_MORE and not complete and (empty or held.length[slot] < held.limit[0]):
        return NEED_MORE
    return -1 if service.fallback >= 0 and has_failed(connections, connection, service.fallback) else service.fallback


@kernel
def exclude(connections, connection, row, selection, targets):
    """Shows the select kernel of a service or group which members have failed a connection: at most two before the last try."""
    service = selection.services[row]
    selection.excluded[0], selection.excluded[1] = -1, -1
    if tried(connections, connection) == 0:
        return
    found = 0
    for member in range(service.members):
        if found < 2 and has_failed(connections, connection, targets.members[service.first_member + member]):
            selection.excluded[found] = member
            found += 1


@kernel
def tried(connections, connection):
    """Returns how many targets have failed a connection, the one that it is still bound to among them."""
    cold = record_at(connections.cold, connection)
    failed = record_at(connections.openings, int64(cold.opening)).failed
    return int64(cold.target != NO_TARGET) + int64(failed[0] != NO_TARGET) + int64(failed[1] != NO_TARGET)


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
    opening = record_at(connections.openings, int64(cold.opening))
    room = held.limit[0] - held.length[int64(opening.held)]
    emit(connections, connection, CLIENT, ACK, wrap(int64(opening.proxy_isn) + 1), int64(hot.next[CLIENT]), proxy_window(cold, room),
         0, 0, 0)


@kernel
def pass_syn_on(batch, row, connections, connection):
    """Mode `simple`: the client's own SYN goes on to the target."""
    batch.verdict[row] = FORWARD
    batch.flow[row] = connection * 2 + CLIENT
    connections.counters.events[TARGET, SENT_SYN] += 1


@kernel
def connect_one(batch, row, connections, connection, target, cause, targets, sources, network, records, now):
    """Binds a connection to a target and sends the SYN; without a port, or room in the table, its client is turned away."""
    hot, cold, counters = record_at(connections.hot, connection), record_at(connections.cold, connection), connections.counters
    tick = now // TICK_MICROSECONDS
    if hot.options & BOUND:
        forsake(connections, connection, cause, targets, sources, tick)
    lacking = put_header(connections, connection)
    if lacking < 0:
        lacking = bind(connections, connection, target, targets, sources, tick)
    if lacking >= 0:
        counters.drops[lacking] += 1
        turn_away(connections, connection, EXHAUSTED, records, now)
        return
    opening = record_at(connections.openings, int64(cold.opening))
    opening.since, opening.retry, opening.tries = tick & 0xFFFFFFFF, retry_at(tick + SYN_RETRY), 0
    enter(connections, connection, CONNECTING)
    step(records, connection, TARGET, TCP_SYN_SENT, now)
    counters.targets[target, OF_TARGET_CONNECTIONS] += 1
    counters.targets[target, OF_TARGET_OPEN] += 1
    if cold.special & PLAIN:
        opening.retry = 0
        pass_syn_on(batch, row, connections, connection)
    else:
        send_syn(connections, connection, targets, network)


@kernel
def connect(batch, connections, selection, targets, sources, network, records, now):
    """Goes through `choices`, with the answers of the select kernels, and empties it."""
    choices, notices = connections.choices, connections.counters.notices
    for number in range(choices.filled[0]):
        connection, cause = choices.connection[number], choices.cause[number]
        hot, cold = record_at(connections.hot, connection), record_at(connections.cold, connection)
        hot.options &= 0xFF ^ ASKED
        if hot.state != FIRST_DATA:
            continue
        target = -1
        if hot.options & BOUND:
            count_failure(connections, connection, cause)
            note_failure(targets, int64(cold.target), now // TICK_MICROSECONDS)
        if tried(connections, connection) < (1 if cold.special & PLAIN else selection.services[cold.service].attempts):
            target = target_of(connections, connection, choices.answer[number], selection, targets)
        if target == NEED_MORE and hot.options & BOUND == 0 and cold.special & PLAIN == 0:
            if choices.answer[number] != AWAIT_CLIENT:
                ask_for_more(connections, connection)
        elif target < 0:
            notices[NOTICE_REFUSED_BY_SELECT] += int64(cause == REFUSED)
            turn_away(connections, connection, cause, records, now)
        else:
            notices[NOTICE_FIRST_DATA_FALLBACK] += int64(cause == TIMEOUT and hot.options & BOUND == 0)
            connect_one(batch, choices.row[number], connections, connection, target, cause, targets, sources, network,
                        records, now)
    choices.filled[0] = 0
