"""Handshakes: what a packet does to a connection that is not yet bound to its target."""
from numpy import int64

from .batch import ABSORB, DROP, REFUSE
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
    PROMISED_SCALING,
    PROMISED_TIMESTAMPS,
    SPECIAL,
    SPLICED,
    STAMPED,
    SYN_RECEIVED,
    TARGET,
    ask,
    emit,
    end,
    enter,
)
from .counters import (
    DROP_UNEXPECTED_SEGMENT,
    NOTICE_SYN_ACK_RETRANSMITTED,
    OF_TARGET_REFUSED,
    RECEIVED_ACK_OF_SYN_ACK,
    RECEIVED_RST,
    RECEIVED_SYN_ACK,
    SENT_ACK_OF_SYN_ACK,
    SENT_FIN_ACTIVE,
    SENT_PAYLOAD,
    SENT_RST,
    UNEXPECTED,
)
from .farewell import answer_fin
from .headers import ACK, FIN, PSH, RST, SYN
from .hold import hold
from .jit import kernel
from .native import record_at, swap32
from .open import LEAST_MSS, send_syn_ack
from .records import (
    ACTIVE_CLOSE,
    ACTIVE_RST,
    PASSIVE_CLOSE,
    PASSIVE_RST,
    TCP_ESTABLISHED,
    TCP_FIN_WAIT_1,
    step,
)
from .sequence import wrap
from .services import IMMEDIATE
from .tcp_options import TIMESTAMPS_LENGTH, offered, stamp_clock

HELD_RETRY = 30
"""Ticks until held payload is sent again: 300 ms, doubled each time."""


@kernel
def unexpected(batch, row, connections, side):
    """Drops a segment that the state of its connection has no use for, and counts it on its side."""
    batch.verdict[row] = DROP
    connections.counters.drops[DROP_UNEXPECTED_SEGMENT] += 1
    connections.counters.events[side, UNEXPECTED] += 1


@kernel
def reset_from_client(batch, row, connections, connection):
    """A RST before binding ends the connection if it has just the number that comes next; the target gets one too."""
    hot = record_at(connections.hot, connection)
    if batch.seq[row] != int64(hot.next[CLIENT]):
        unexpected(batch, row, connections, CLIENT)
        return
    connections.counters.events[CLIENT, RECEIVED_RST] += 1
    if hot.state == CONNECTING:
        seq = wrap(int64(record_at(connections.cold, connection).syn_isn) + 1)
        emit(connections, connection, TARGET, RST, seq, 0, 0, 0, 0, 0)
        connections.counters.events[TARGET, SENT_RST] += 1
    end(connections, connection, PASSIVE_RST, ACTIVE_RST)
    batch.verdict[row] = ABSORB


@kernel
def syn_again(batch, row, connections, connection, network):
    """The client's SYN once more: our SYN-ACK was lost, so it goes out again."""
    hot, cold = record_at(connections.hot, connection), record_at(connections.cold, connection)
    if hot.state != SYN_RECEIVED or batch.seq[row] != int64(cold.client_isn):
        unexpected(batch, row, connections, CLIENT)
        return
    send_syn_ack(connections, connection, network)
    connections.counters.notices[NOTICE_SYN_ACK_RETRANSMITTED] += 1
    batch.verdict[row] = ABSORB


@kernel
def client_is_there(connections, connection, services, records, now, tick):
    """The client's handshake is complete: wait for its first data, or ask for a target at once."""
    cold = record_at(connections.cold, connection)
    cold.since, cold.retry, cold.tries = tick & 0xFFFFFFFF, 0, 0
    enter(connections, connection, FIRST_DATA)
    step(records, connection, CLIENT, TCP_ESTABLISHED, now)
    connections.counters.events[CLIENT, RECEIVED_ACK_OF_SYN_ACK] += 1
    if services[cold.service].binding == IMMEDIATE:
        ask(connections, connection, -1)


@kernel
def from_client(packets, base, batch, row, connections, connection, services, network, records, now, tick):
    """A client's segment before its connection is bound (SYN_RECEIVED, FIRST_DATA, CONNECTING, FIN_WAIT)."""
    hot, cold = record_at(connections.hot, connection), record_at(connections.cold, connection)
    control = batch.control[row]
    if control & RST:
        reset_from_client(batch, row, connections, connection)
        return
    if control & SYN:
        syn_again(batch, row, connections, connection, network)
        return
    gone = int64(hot.state == FIN_WAIT)
    if control & ACK == 0:
        unexpected(batch, row, connections, CLIENT)
        return
    if batch.ack[row] == wrap(int64(cold.proxy_isn) + 2) and gone:
        end(connections, connection, PASSIVE_CLOSE, ACTIVE_CLOSE)
        batch.verdict[row] = ABSORB
        return
    if batch.ack[row] != wrap(int64(cold.proxy_isn) + 1):
        batch.verdict[row] = REFUSE
        return
    if hot.state == SYN_RECEIVED:
        client_is_there(connections, connection, services, records, now, tick)
    hot.stamp = tick & 0xFFFFFFFF
    cold.window[CLIENT] = batch.window[row]
    if gone and control & FIN:
        answer_fin(connections, connection)
    batch.verdict[row] = ABSORB
    if not gone and (batch.payload_length[row] > 0 or control & FIN):
        hold(packets, base, batch, row, connections, connection, records, now)


@kernel
def send_held(connections, connection):
    """Orders the held bytes toward the target, cut to its MSS, the client's held FIN behind the last.

    Always from the held copy: what was inspected is what is sent (SPLICE 1.4).
    """
    hot, cold = record_at(connections.hot, connection), record_at(connections.cold, connection)
    ack = wrap(int64(hot.acked[CLIENT]) - int64(hot.shift[TARGET]))
    first = wrap(int64(cold.syn_isn) + 1)
    slot, most = int64(cold.held), max(int64(cold.mss[TARGET]), 64)
    length = connections.held.length[slot]
    # Not a FIN that the client has sent later, behind payload that was not held.
    stop = wrap(int64(hot.next[CLIENT]) + int64(hot.shift[CLIENT]))
    closes = hot.closing & (FIN_SEEN << CLIENT) != 0 and stop == wrap(first + length + 1)
    at = 0
    while True:
        part = min(length - at, most)
        last = at + part >= length
        control = ACK | (PSH if last and length > 0 else 0) | (FIN if last and closes else 0)
        emit(connections, connection, TARGET, control, wrap(first + at), ack, int64(cold.window[CLIENT]), 0,
             slot * connections.held.limit[0] + at, part)
        at += part
        if last:
            break
    connections.counters.events[TARGET, SENT_PAYLOAD] += int64(length > 0)


@kernel
def agree(packets, batch, row, connections, connection, services, targets, network, now):
    """Takes in what the target's SYN-ACK agrees to of what the client was promised, and remembers what it declines."""
    hot, cold = record_at(connections.hot, connection), record_at(connections.cold, connection)
    accepted = offered(batch, row) & int64(cold.agreed)
    declined = int64(cold.agreed) ^ accepted
    cold.mss[TARGET] = min(batch.mss[row] if batch.mss[row] != 0 else LEAST_MSS, network.mss[0])
    if accepted & PROMISED_SCALING:
        hot.scales |= batch.scale[row] << 4
    if accepted & PROMISED_TIMESTAMPS:
        stamp = swap32(int64(record_at(packets.word32, batch.stamps[row]).value))
        cold.stamps[TARGET] = stamp
        hot.timestamp_shift = wrap(stamp_clock(connections, hot, now) - stamp)
        hot.options |= STAMPED
        cold.mss[TARGET] -= TIMESTAMPS_LENGTH
        record_at(targets.rows, int64(cold.target)).stamps_known = 1
    if declined != 0:
        hot.options |= SPECIAL
        cold.special |= declined
        services[cold.service].offer &= ~declined
        if declined & PROMISED_SCALING:
            cold.window[CLIENT] = min(int64(cold.window[CLIENT]) << (int64(hot.scales) & 0x0F), 0xFFFF)


@kernel
def target_is_there(batch, row, connections, connection, records, now, tick):
    """The target's SYN-ACK: the shift is known from here on. Acknowledge it, hand the held payload over, splice."""
    hot, cold = record_at(connections.hot, connection), record_at(connections.cold, connection)
    hot.shift[TARGET] = wrap(int64(cold.proxy_isn) - batch.seq[row])
    hot.next[TARGET] = wrap(batch.seq[row] + 1)
    hot.acked[TARGET] = batch.ack[row]
    hot.stamp = tick & 0xFFFFFFFF
    hot.options |= SPLICED
    cold.retry, cold.tries = 0, 0
    if hot.options & HOLDS:
        cold.retry = (tick + HELD_RETRY) & 0xFFFFFFFF
        send_held(connections, connection)
    else:
        ack = wrap(int64(hot.acked[CLIENT]) - int64(hot.shift[TARGET]))
        emit(connections, connection, TARGET, ACK, batch.ack[row], ack, int64(cold.window[CLIENT]), 0, 0, 0)
    closes = hot.closing & (FIN_SEEN << CLIENT) != 0
    enter(connections, connection, HALF_CLOSED if closes else ESTABLISHED)
    step(records, connection, TARGET, TCP_ESTABLISHED, now)
    if closes:
        step(records, connection, TARGET, TCP_FIN_WAIT_1, now)
        connections.counters.events[TARGET, SENT_FIN_ACTIVE] += 1
    connections.counters.events[TARGET, RECEIVED_SYN_ACK] += 1
    connections.counters.events[TARGET, SENT_ACK_OF_SYN_ACK] += 1
    batch.verdict[row] = ABSORB


@kernel
def from_target(packets, batch, row, connections, connection, services, targets, network, records, now, tick):
    """A target's segment while we connect to it: its SYN-ACK, its refusal, or nothing that we expect."""
    hot, cold = record_at(connections.hot, connection), record_at(connections.cold, connection)
    control = batch.control[row]
    ours = wrap(int64(cold.syn_isn) + 1)
    if control & ACK == 0 or batch.ack[row] != ours or hot.state != CONNECTING or hot.options & BOUND == 0:
        unexpected(batch, row, connections, TARGET)
    elif control & RST:
        connections.counters.events[TARGET, RECEIVED_RST] += 1
        connections.counters.targets[cold.target, OF_TARGET_REFUSED] += 1
        emit(connections, connection, CLIENT, RST | ACK, wrap(int64(cold.proxy_isn) + 1), int64(hot.next[CLIENT]), 0, 0, 0, 0)
        connections.counters.events[CLIENT, SENT_RST] += 1
        end(connections, connection, ACTIVE_RST, PASSIVE_RST)
        batch.verdict[row] = ABSORB
    elif control & SYN:
        agree(packets, batch, row, connections, connection, services, targets, network, now)
        target_is_there(batch, row, connections, connection, records, now, tick)
    else:
        unexpected(batch, row, connections, TARGET)
