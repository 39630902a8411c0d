"""Farewell: how a connection that was closed ends, and a client that closes before it was bound, which we answer alone."""
from numpy import int64

from .answers import carry_answer
from .connection import CLIENT, FIN_WAIT, RST_OF_TARGET, TARGET_FIRST, emit, end, enter
from .counters import NOTICE_FIRST_DATA_ANSWERED_FIN, RECEIVED_FIN_ACTIVE, SENT_FIN_PASSIVE
from .headers import ACK, FIN
from .jit import kernel
from .native import record_at
from .records import ACTIVE_CLOSE, ACTIVE_RST, PASSIVE_CLOSE, PASSIVE_RST, TCP_CLOSE_WAIT, TCP_LAST_ACK, step
from .sequence import wrap
from .tcp_options import proxy_window
from .wheel import retry_at

FIN_RETRY = 30
"""Ticks until our FIN is sent again: 300 ms, doubled each time."""


@kernel
def answer_fin(connections, connection):
    """Closes toward a client that closed before it was bound: its FIN is acknowledged, and ours sent."""
    hot, cold, row = record_at(connections.hot, connection), record_at(connections.cold, connection), connections.segments.filled[0]
    opening = record_at(connections.openings, int64(cold.opening))
    emit(connections, connection, CLIENT, FIN | ACK, wrap(int64(opening.proxy_isn) + 1), int64(hot.next[CLIENT]),
         proxy_window(cold, connections.held.limit[0]), 0, 0, 0)
    carry_answer(connections, connection, row)


@kernel
def leave_unbound(connections, connection, records, now, tick):
    """The client has closed without a word: answer its FIN and wait for its last acknowledgement."""
    cold, counters = record_at(connections.cold, connection), connections.counters
    opening = record_at(connections.openings, int64(cold.opening))
    answer_fin(connections, connection)
    opening.since, opening.retry, opening.tries = tick & 0xFFFFFFFF, retry_at(tick + FIN_RETRY), 0
    enter(connections, connection, FIN_WAIT)
    step(records, connection, CLIENT, TCP_CLOSE_WAIT, now)
    step(records, connection, CLIENT, TCP_LAST_ACK, now)
    counters.notices[NOTICE_FIRST_DATA_ANSWERED_FIN] += 1
    counters.events[CLIENT, RECEIVED_FIN_ACTIVE] += 1
    counters.events[CLIENT, SENT_FIN_PASSIVE] += 1


@kernel
def ended_by_reset(connections, connection):
    """Ends a connection that the RST seen last has ended."""
    of_target = record_at(connections.hot, connection).closing & RST_OF_TARGET != 0
    end(connections, connection, ACTIVE_RST if of_target else PASSIVE_RST, PASSIVE_RST if of_target else ACTIVE_RST)


@kernel
def closed(connections, connection):
    """Ends a connection that both sides have closed: who sent the first FIN was active, seen from its peer."""
    target_first = record_at(connections.hot, connection).closing & TARGET_FIRST != 0
    end(connections, connection, ACTIVE_CLOSE if target_first else PASSIVE_CLOSE,
        PASSIVE_CLOSE if target_first else ACTIVE_CLOSE)
