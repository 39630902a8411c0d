"""Handshakes: what a packet does to a connection that is not yet bound to its target."""
from numpy import int64

from .answers import acknowledges, carry_answer
from .batch import ABSORB, DROP, FORWARD, REFUSE
from .connection import (
    BOUND,
    CLIENT,
    CONNECTING,
    ESTABLISHED,
    FIN_SEEN,
    FIN_WAIT,
    FIRST_DATA,
    HALF_CLOSED,
    HOLDS,
    NARROW,
    NO_ROW,
    OWNS,
    PLAIN,
    PROMISED,
    PROMISED_ECN,
    PROMISED_SACK,
    PROMISED_SCALING,
    PROMISED_TIMESTAMPS,
    SCALED,
    SPECIAL,
    SPLICED,
    STAMPED,
    SYN_RECEIVED,
    TARGET,
    ask,
    emit,
    emit_acknowledgement,
    end,
    enter,
    move_on,
    note,
)
from .counters import (
    DROP_UNEXPECTED_SEGMENT,
    NOTICE_ANSWERS_REPEATED,
    NOTICE_CHALLENGE_ACKS,
    NOTICE_KEEP_ALIVES_ANSWERED,
    NOTICE_OLD_CONNECTIONS_RESET,
    NOTICE_SYN_ACK_RETRANSMITTED,
    NOTICE_SYN_RETRANSMITTED,
    OF_TARGET_REFUSED,
    RECEIVED_ACK_OF_SYN_ACK,
    RECEIVED_RST,
    RECEIVED_SYN_ACK,
    SENT_ACK_OF_SYN_ACK,
    SENT_FIN_ACTIVE,
    SENT_RST,
    SENT_SYN_ACK,
    UNEXPECTED,
)
from .connect import TRIES_WITH_ECN, send_syn, target_fails
from .farewell import answer_fin
from .headers import ACK, CWR, ECE, FIN, RST, SYN
from .held_sender import begin_delivery
from .hold import hold
from .jit import kernel
from .native import record_at, swap32
from .open import LEAST_MSS, SYN_ACK_RETRY, send_syn_ack
from .opening import keep_recent
from .proxy_protocol import has_origin
from .records import (
    ACTIVE_CLOSE,
    ACTIVE_RST,
    PASSIVE_CLOSE,
    PASSIVE_RST,
    REFUSED,
    TARGET_REFUSED,
    TCP_ESTABLISHED,
    TCP_FIN_WAIT_1,
    step,
    target_begins,
)
from .sequence import distance, wrap
from .shape_held import nothing_held
from .services import IMMEDIATE, UNKNOWN_SCALE, note_success
from .split import LEAST_PART
from .tcp_options import TIMESTAMPS_LENGTH, offered, offered_scale, proxy_window, stamp_clock
from .waiting_room import come_again, come_next, run_around
from .wheel import retry_at

LONGEST_OPENING = 0xFFFF
"""Payload that a client may send with its SYN (fast open) in mode `simple`; the target's SYN-ACK may cover it."""
MOST_SYNS_AT_ONCE = 3
"""SYNs that follow a bare ACK of the target's without waiting for a timer."""


@kernel
def unexpected(batch, row, connections, side):
    """Drops a segment that the state of its connection has no use for, and counts it on its side."""
    batch.verdict[row] = DROP
    connections.counters.drops[DROP_UNEXPECTED_SEGMENT] += 1
    connections.counters.events[side, UNEXPECTED] += 1


@kernel
def abandon(connections, connection):
    """Ends a connection that its client knows nothing of (any more); a target that was asked gets a RST."""
    if record_at(connections.hot, connection).state == CONNECTING:
        cold = record_at(connections.cold, connection)
        seq = wrap(int64(record_at(connections.openings, int64(cold.opening)).syn_isn) + 1)
        emit(connections, connection, TARGET, RST, seq, 0, 0, 0, 0, 0)
        connections.counters.events[TARGET, SENT_RST] += 1
    end(connections, connection, PASSIVE_RST, ACTIVE_RST)


@kernel
def reset_from_client(batch, row, connections, connection):
    """A RST before binding ends the connection if it has just the number that comes next; the target gets one too.

    That is what we hold up to, or what we have said. Any other in the window is challenged: here the proxy is the end
    point, and knows its own number (RFC 5961, section 3.2).
    """
    hot = record_at(connections.hot, connection)
    shown = shown_before_binding(connections, connection)
    if batch.seq[row] != int64(hot.next[CLIENT]) and batch.seq[row] != shown:
        if 0 <= distance(batch.seq[row], shown) <= connections.held.limit[0]:
            challenge_client(batch, row, connections, connection)
        else:
            unexpected(batch, row, connections, CLIENT)
        return
    connections.counters.events[CLIENT, RECEIVED_RST] += 1
    abandon(connections, connection)
    batch.verdict[row] = ABSORB


@kernel
def syn_again(packets, batch, row, connections, connection, tick):
    """The client's SYN once more: our SYN-ACK was lost, so it goes out again.

    Any other is challenged: a client that knows nothing of this connection resets it, and opens anew (RFC 5961, section 4.2).
    In mode `simple` that is the target's to do once it has answered; before, the client opens anew at once.
    """
    hot, cold = record_at(connections.hot, connection), record_at(connections.cold, connection)
    opening = record_at(connections.openings, int64(cold.opening))
    again = batch.seq[row] == int64(opening.client_isn)
    if cold.special & PLAIN:
        if hot.state != CONNECTING:
            unexpected(batch, row, connections, CLIENT)
        elif again:
            batch.verdict[row] = FORWARD
        else:
            abandon(connections, connection)
            come_next(batch, row, connections)
        return
    if hot.state != SYN_RECEIVED or not again:
        challenge_client(batch, row, connections, connection)
        return
    if batch.control[row] & (ECE | CWR) != ECE | CWR:  # the client has given ECN up (RFC 3168, section 6.1.1.1)
        cold.agreed &= 0xFF ^ PROMISED_ECN
    keep_recent(packets, batch, row, hot, opening)
    opening.retry = retry_at(tick + (SYN_ACK_RETRY << int64(opening.tries)))
    note(connections.touched, connection, 0)
    send_syn_ack(connections, connection)
    connections.counters.notices[NOTICE_SYN_ACK_RETRANSMITTED] += 1
    batch.verdict[row] = ABSORB


@kernel
def client_is_there(connections, connection, services, records, now, tick):
    """The client's handshake is complete: wait for its first data, or ask for a target at once."""
    cold = record_at(connections.cold, connection)
    opening = record_at(connections.openings, int64(cold.opening))
    opening.since, opening.retry, opening.tries = tick & 0xFFFFFFFF, 0, 0
    enter(connections, connection, FIRST_DATA)
    step(records, connection, CLIENT, TCP_ESTABLISHED, now)
    connections.counters.events[CLIENT, RECEIVED_ACK_OF_SYN_ACK] += 1
    if services[cold.service].binding == IMMEDIATE:
        ask(connections, connection, NO_ROW, REFUSED)


@kernel
def challenge_client(batch, row, connections, connection):
    """Answers a segment of the client's that cannot be right with our numbers, within the budget (RFC 5961, section 7).

    A RST or SYN in the window, or the acknowledgement of what we have not sent (sections 3.2, 4.2 and 5.2).
    """
    if connections.budget[0] <= 0:
        unexpected(batch, row, connections, CLIENT)
        return
    connections.budget[0] -= 1
    acknowledge(connections, connection, 0, 0)
    batch.verdict[row] = ABSORB
    connections.counters.notices[NOTICE_CHALLENGE_ACKS] += 1


@kernel
def is_keep_alive(batch, row, hot):
    """Says whether a client's segment is a keep-alive: nothing, or one old byte, from before what comes next (RFC 9293, 3.8.4)."""
    return (batch.payload_length[row] <= 1 and batch.control[row] & FIN == 0
            and distance(batch.seq[row], int64(hot.next[CLIENT])) == -1)


@kernel
def shown_before_binding(connections, connection):
    """Returns what the client has been told that we have of it, without what is only held (SPLICE 1.2).

    Nor its FIN, unless it is ours to answer: only the target's acknowledgement tells that that has arrived.
    """
    hot, cold = record_at(connections.hot, connection), record_at(connections.cold, connection)
    if hot.options & HOLDS and hot.options & OWNS == 0:
        return wrap(int64(record_at(connections.openings, int64(cold.opening)).client_isn) + 1)
    held_fin = hot.closing & (FIN_SEEN << CLIENT) != 0 and hot.state != FIN_WAIT
    return wrap(int64(hot.next[CLIENT]) - int64(held_fin))


@kernel
def acknowledge(connections, connection, left, right):
    """Sends the client our numbers as they stand before binding, with the window that is left for it; numbers left .. right - 1,
    where there are any, are acknowledged selectively if that was agreed."""
    hot, cold, held = record_at(connections.hot, connection), record_at(connections.cold, connection), connections.held
    opening, ack = record_at(connections.openings, int64(cold.opening)), shown_before_binding(connections, connection)
    seq, room = wrap(int64(opening.proxy_isn) + 1 + int64(hot.state == FIN_WAIT)), held.limit[0]
    if hot.options & HOLDS and hot.options & OWNS:
        room -= held.length[int64(opening.held)]
    sack, row = cold.agreed & PROMISED_SACK != 0, connections.segments.filled[0]
    emit_acknowledgement(connections, connection, CLIENT, seq, ack, proxy_window(cold, room), sack, left, right)
    carry_answer(connections, connection, row)


@kernel
def tell_of_gap(batch, row, connections, connection):
    """Tells the client of a row that has come before what it follows, and of what waits with it (RFC 5681, section 4.2).

    Without, a client that asks by new bytes whether its first ones are lost (RFC 8985, section 7) has to wait for a time-out,
    of 3 seconds where its SYN was sent twice: seen as `first_data` running out. Once a target is chosen it is the target's to do.
    """
    left, right = run_around(connections.waiting, connection * 2 + CLIENT, batch.seq[row])
    acknowledge(connections, connection, left, right)


@kernel
def is_taken_again(batch, row, connections, connection):
    """Says whether a row brings a PROXY header or request that we have taken already: our acknowledgement of that was lost."""
    opening = record_at(connections.openings, int64(record_at(connections.cold, connection).opening))
    taken = opening.answers != 0 or has_origin(connections, connection)
    return taken and distance(batch.seq[row], int64(opening.client_isn)) <= 0


@kernel
def from_client(packets, base, batch, row, connections, connection, services, records, now, tick):
    """A client's segment before its connection is bound (SYN_RECEIVED, FIRST_DATA, CONNECTING, FIN_WAIT)."""
    hot, cold = record_at(connections.hot, connection), record_at(connections.cold, connection)
    opening, control = record_at(connections.openings, int64(cold.opening)), batch.control[row]
    if control & RST:
        reset_from_client(batch, row, connections, connection)
        return
    if control & SYN:
        syn_again(packets, batch, row, connections, connection, tick)
        return
    gone = int64(hot.state == FIN_WAIT)
    if control & ACK == 0:
        unexpected(batch, row, connections, CLIENT)
        return
    if batch.ack[row] == wrap(int64(opening.proxy_isn) + 2) and gone:
        end(connections, connection, PASSIVE_CLOSE, ACTIVE_CLOSE)
        batch.verdict[row] = ABSORB
        return
    if not acknowledges(connections, connection, batch.ack[row]):
        if hot.state == SYN_RECEIVED:
            batch.verdict[row] = REFUSE
        else:
            challenge_client(batch, row, connections, connection)
        return
    keep_recent(packets, batch, row, hot, opening)
    if hot.state != SYN_RECEIVED and not gone and is_keep_alive(batch, row, hot):
        acknowledge(connections, connection, 0, 0)
        batch.verdict[row] = ABSORB
        connections.counters.notices[NOTICE_KEEP_ALIVES_ANSWERED] += 1
        hot.stamp = tick & 0xFFFFFFFF
        return
    if hot.state == SYN_RECEIVED:
        client_is_there(connections, connection, services, records, now, tick)
    hot.stamp = tick & 0xFFFFFFFF
    opening.window[CLIENT] = batch.window[row]
    if gone and control & FIN:
        answer_fin(connections, connection)
    batch.verdict[row] = ABSORB
    if not gone and (batch.payload_length[row] > 0 or control & FIN):
        hold(packets, base, batch, row, connections, connection, records, now)
        if hot.state == FIRST_DATA and 0 < distance(batch.seq[row], int64(hot.next[CLIENT])) < connections.held.limit[0]:
            tell_of_gap(batch, row, connections, connection)
        elif batch.verdict[row] == DROP and is_taken_again(batch, row, connections, connection):
            acknowledge(connections, connection, 0, 0)
            connections.counters.notices[NOTICE_ANSWERS_REPEATED] += int64(opening.answer != 0)


@kernel
def remember(services, targets, target, declined, takes):
    """From here on no service that this target stands behind promises what it has declined, or more than its MSS (SPLICE 2.1)."""
    for number in range(services.shape[0]):
        service = services[number]
        for member in range(service.first_member, service.first_member + service.members):
            if targets.members[member] == target:
                service.offer &= ~declined
                service.mss = min(int64(service.mss), takes)


@kernel
def learn_scale(services, targets, target, scale):
    """Remembers the window scale of a target: its services offer the largest of their targets' (SPLICE 2.3)."""
    row = record_at(targets.rows, target)
    if row.scale == scale:
        return
    row.scale = scale
    for number in range(services.shape[0]):
        service, largest, concerned = services[number], UNKNOWN_SCALE, False
        for member in range(service.first_member, service.first_member + service.members):
            concerned |= targets.members[member] == target
            largest = max(largest, int64(record_at(targets.rows, targets.members[member]).scale))
        if concerned:
            service.scale = largest


@kernel
def agree(packets, batch, row, connections, connection, services, targets, network, now):
    """Takes in what the target's SYN-ACK agrees to of what the client was promised, and remembers what it declines."""
    hot, cold = record_at(connections.hot, connection), record_at(connections.cold, connection)
    opening = record_at(connections.openings, int64(cold.opening))
    note_success(targets, int64(cold.target))
    accepted = offered(batch, row) & int64(cold.agreed)
    declined = (int64(cold.agreed) & PROMISED) ^ accepted
    takes = max(batch.mss[row] if batch.mss[row] != 0 else LEAST_MSS, LEAST_PART)
    told = min(int64(opening.mss[TARGET]), network.mss[0])
    opening.mss[TARGET] = min(takes, network.mss[0])
    if takes < told:
        hot.options |= SPECIAL
        cold.special |= NARROW
    if accepted & PROMISED_SCALING:
        hot.scales |= batch.scale[row] << 4
        if batch.scale[row] == offered_scale(cold):  # as a rule, once it is known: its windows pass as they are
            hot.options &= 0xFF ^ SCALED
        learn_scale(services, targets, int64(cold.target), batch.scale[row])
    if accepted & PROMISED_TIMESTAMPS:
        stamp = swap32(int64(record_at(packets.word32, batch.stamps[row]).value))
        cold.target_stamp = stamp
        hot.timestamp_shift = wrap(stamp_clock(connections, hot, now) - stamp)
        hot.options |= STAMPED
        opening.mss[TARGET] -= TIMESTAMPS_LENGTH
        record_at(targets.rows, int64(cold.target)).stamps_known = 1
    if declined != 0:
        hot.options |= SPECIAL
        cold.special |= declined
        if declined & PROMISED_SCALING:
            opening.window[CLIENT] = min(int64(opening.window[CLIENT]) << (int64(hot.scales) & 0x0F), 0xFFFF)
    if declined != 0 or takes < told:
        if opening.tries > TRIES_WITH_ECN:
            declined &= 0xFF ^ PROMISED_ECN  # it was not offered
        remember(services, targets, int64(cold.target), declined, takes)


@kernel
def target_is_there(batch, row, connections, connection, records, now, tick):
    """The target's SYN-ACK: the shift is known from here on. Acknowledge it, hand the held payload over, splice."""
    hot, cold = record_at(connections.hot, connection), record_at(connections.cold, connection)
    opening = record_at(connections.openings, int64(cold.opening))
    hot.shift[TARGET] = wrap(int64(opening.proxy_isn) - batch.seq[row])
    hot.next[TARGET] = wrap(batch.seq[row] + 1)
    hot.acked[TARGET] = batch.ack[row]
    hot.stamp = tick & 0xFFFFFFFF
    hot.options |= SPLICED
    nothing_held(connections, connection)
    if hot.options & HOLDS:
        begin_delivery(batch, row, connections, connection, tick)
    else:
        opening.retry, opening.tries = 0, 0
    if hot.options & HOLDS == 0 or batch.window[row] == 0:
        ack = wrap(int64(hot.acked[CLIENT]) - int64(hot.shift[TARGET]))
        emit(connections, connection, TARGET, ACK, batch.ack[row], ack, int64(opening.window[CLIENT]), 0, 0, 0)
    closes = hot.closing & (FIN_SEEN << CLIENT) != 0
    enter(connections, connection, HALF_CLOSED if closes else ESTABLISHED)
    target_begins(records, connection, batch.seq[row])
    step(records, connection, TARGET, TCP_ESTABLISHED, now)
    if hot.options & SPECIAL:
        come_again(connections, connection * 2 + CLIENT, int64(hot.next[CLIENT]), True)
    if closes:
        step(records, connection, TARGET, TCP_FIN_WAIT_1, now)
        connections.counters.events[TARGET, SENT_FIN_ACTIVE] += 1
    connections.counters.events[TARGET, RECEIVED_SYN_ACK] += 1
    connections.counters.events[TARGET, SENT_ACK_OF_SYN_ACK] += 1
    batch.verdict[row] = ABSORB


@kernel
def simple_target_is_there(packets, batch, row, connections, connection, records, now, tick):
    """Mode `simple`: the target's own SYN-ACK goes on to the client, with all that it says, and holds for segments of ours."""
    hot, cold = record_at(connections.hot, connection), record_at(connections.cold, connection)
    opening = record_at(connections.openings, int64(cold.opening))
    cold.agreed &= offered(batch, row)
    opening.proxy_isn = batch.seq[row]
    opening.mss[TARGET] = batch.mss[row] if batch.mss[row] != 0 else LEAST_MSS
    hot.next[TARGET] = wrap(batch.seq[row] + 1)
    hot.acked[TARGET], hot.acked[CLIENT] = batch.ack[row], wrap(batch.seq[row] + 1)
    move_on(connections, connection, CLIENT, wrap(batch.ack[row] - int64(hot.shift[CLIENT])))
    hot.scales = int64(hot.scales) | (batch.scale[row] << 4) if cold.agreed & PROMISED_SCALING else 0
    hot.options |= SPLICED
    if cold.agreed & PROMISED_TIMESTAMPS:
        cold.target_stamp = swap32(int64(record_at(packets.word32, batch.stamps[row]).value))
        opening.mss[TARGET] = max(int64(opening.mss[TARGET]) - TIMESTAMPS_LENGTH, 0)
        hot.options |= STAMPED
    hot.stamp = wrap(tick)
    enter(connections, connection, ESTABLISHED)
    target_begins(records, connection, batch.seq[row])
    step(records, connection, TARGET, TCP_ESTABLISHED, now)
    step(records, connection, CLIENT, TCP_ESTABLISHED, now)
    events = connections.counters.events
    events[TARGET, RECEIVED_SYN_ACK] += 1
    events[CLIENT, SENT_SYN_ACK] += 1
    batch.verdict[row] = FORWARD


@kernel
def simple_from_target(packets, batch, row, connections, connection, targets, network, records, now, tick):
    """Mode `simple`: what the target answers to the client's SYN is passed on, a refusal too."""
    cold, counters = record_at(connections.cold, connection), connections.counters
    covered = wrap(batch.ack[row] - int64(record_at(connections.openings, int64(cold.opening)).syn_isn) - 1)
    if covered > LONGEST_OPENING:
        not_our_syn(batch, row, connections, connection, targets, network)
    elif batch.control[row] & RST:
        counters.events[TARGET, RECEIVED_RST] += 1
        counters.events[CLIENT, SENT_RST] += 1
        counters.targets[cold.target, OF_TARGET_REFUSED] += 1
        batch.verdict[row] = FORWARD
        end(connections, connection, ACTIVE_RST, TARGET_REFUSED)
    elif batch.control[row] & SYN:
        simple_target_is_there(packets, batch, row, connections, connection, records, now, tick)
    else:
        unexpected(batch, row, connections, TARGET)


@kernel
def not_our_syn(batch, row, connections, connection, targets, network):
    """The target answers our SYN out of an older connection: that gets a RST, and after a bare ACK the SYN goes again.

    In mode `simple` the client's own time-out sends it again. RFC 9293, section 3.10.7.3; SPLICE 3.2.
    """
    cold, budget = record_at(connections.cold, connection), connections.budget
    opening, control = record_at(connections.openings, int64(cold.opening)), batch.control[row]
    if control & RST or budget[0] <= 0:
        unexpected(batch, row, connections, TARGET)
        return
    budget[0] -= 1
    emit(connections, connection, TARGET, RST, batch.ack[row], 0, 0, 0, 0, 0)
    connections.counters.events[TARGET, SENT_RST] += 1
    connections.counters.notices[NOTICE_OLD_CONNECTIONS_RESET] += 1
    if control & SYN == 0 and cold.special & PLAIN == 0 and opening.tries < MOST_SYNS_AT_ONCE:
        send_syn(connections, connection, targets, network)
        opening.tries += 1
        connections.counters.notices[NOTICE_SYN_RETRANSMITTED] += 1
    batch.verdict[row] = ABSORB


@kernel
def from_target(packets, batch, row, connections, connection, services, targets, network, records, now, tick):
    """A target's segment while we connect to it: its SYN-ACK, its refusal, or nothing that we expect."""
    hot, cold = record_at(connections.hot, connection), record_at(connections.cold, connection)
    control = batch.control[row]
    ours = wrap(int64(record_at(connections.openings, int64(cold.opening)).syn_isn) + 1)
    if control & ACK == 0 or hot.state != CONNECTING or hot.options & BOUND == 0:
        unexpected(batch, row, connections, TARGET)
    elif cold.special & PLAIN:
        simple_from_target(packets, batch, row, connections, connection, targets, network, records, now, tick)
    elif batch.ack[row] != ours:
        not_our_syn(batch, row, connections, connection, targets, network)
    elif control & RST:
        connections.counters.events[TARGET, RECEIVED_RST] += 1
        batch.verdict[row] = ABSORB
        target_fails(connections, connection, TARGET_REFUSED, tick)
    elif control & SYN:
        agree(packets, batch, row, connections, connection, services, targets, network, now)
        target_is_there(batch, row, connections, connection, records, now, tick)
    else:
        unexpected(batch, row, connections, TARGET)
