"""Session records (reference row 13): what a connection went through on each side, and why it ended."""
from typing import NamedTuple

import numpy as np
from numpy import int64

from .connection import CLIENT, SPLICED, TARGET
from .counters import NOTICE_RECORDS_LOST
from .jit import kernel
from .native import address_of, load_acquire, store_release

CAUSES = ("Unknown", "Timeout", "PassiveClose", "ActiveClose", "PassiveRst", "ActiveRst", "Refused", "Exhausted", "Stopped",
          "TargetRefused", "TargetUnreachable")
"""Release causes: ProxyEngine's six, then: no target for this payload, no source port left, the engine stopped, the last
target tried refused or could not be reached (one that is silent ends as Timeout). Passive is what the peer on that side
began, active what we passed on to it."""
UNKNOWN, TIMEOUT, PASSIVE_CLOSE, ACTIVE_CLOSE, PASSIVE_RST, ACTIVE_RST, REFUSED, EXHAUSTED, STOPPED, \
    TARGET_REFUSED, TARGET_UNREACHABLE = range(len(CAUSES))

TCP_STATES = ("Closed", "Listen", "SynSent", "SynReceived", "Established", "FinWait1", "FinWait2", "CloseWait",
              "Closing", "LastAck", "TimeWait")
"""States of RFC 9293, section 3.3.2, as the engine's own end of each side goes through them."""
(TCP_CLOSED, TCP_LISTEN, TCP_SYN_SENT, TCP_SYN_RECEIVED, TCP_ESTABLISHED, TCP_FIN_WAIT_1, TCP_FIN_WAIT_2,
 TCP_CLOSE_WAIT, TCP_CLOSING, TCP_LAST_ACK, TCP_TIME_WAIT) = range(len(TCP_STATES))

STEPS = 8
RECORD = np.dtype([
    ("opened", "i8"), ("closed", "i8"),                 # microseconds of the engine's clock
    ("at", "i8", (2, STEPS)), ("state", "u1", (2, STEPS)), ("steps", "u1", (2,)),
    ("cause", "u1", (2,)), ("service", "u2"), ("target", "u2"),
    ("remote_address", "u4", (2,)), ("local_address", "u4", (2,)),
    ("remote_port", "u2", (2,)), ("local_port", "u2", (2,)),
    ("octets", "i8", (2,)),                             # of payload that each side has sent
])


class Records(NamedTuple):
    """Records being written, one a connection, and a ring of finished ones that Python empties."""

    enabled: np.ndarray   # int64 [1]
    work: np.ndarray      # RECORD [connections, or 1 where not enabled]
    ring: np.ndarray      # RECORD [n]
    head: np.ndarray      # int64 [1] finished so far, written by the worker
    tail: np.ndarray      # int64 [1] fetched so far, written by Python


def allocate_records(enabled, connections, ring):
    """Returns `Records`; without `enabled` nothing is kept and no memory taken."""
    size = connections if enabled else 1
    return Records(np.array([int(enabled)], np.int64), np.zeros(size, RECORD).view(np.recarray),
                   np.zeros(ring if enabled else 1, RECORD).view(np.recarray), np.zeros(1, np.int64), np.zeros(1, np.int64))


@kernel
def begin(records, connection, now):
    """Starts the record of a new connection."""
    if records.enabled[0] != 0:
        work = records.work[connection]
        work.opened = now
        work.steps[CLIENT] = 0
        work.steps[TARGET] = 0


@kernel
def step(records, connection, side, state, now):
    """Notes that one side has come into a TCP state at `now`; what does not fit is left out."""
    if records.enabled[0] != 0:
        work = records.work[connection]
        number = int64(work.steps[side])
        if number < STEPS:
            work.state[side, number] = state
            work.at[side, number] = now
            work.steps[side] = number + 1


@kernel
def octets_sent(hot, cold, side):
    """Returns how many payload bytes a side has sent, by its sequence numbers; SYN and FIN do not count."""
    initial = int64(cold.client_isn) if side == CLIENT else int64(cold.proxy_isn) - int64(hot.shift[TARGET])
    fin = (int64(hot.closing) >> side) & 1
    return int64(hot.next[side]) + (int64(cold.wraps[side]) << 32) - ((initial + 1) & 0xFFFFFFFF) - fin


@kernel
def finish(records, counters, hot, cold, connection, causes, now):
    """Completes the record of an ended connection and puts it into the ring; a full ring is counted."""
    if records.enabled[0] == 0:
        return
    head = records.head[0]
    if head - load_acquire(address_of(records.tail)) >= records.ring.shape[0]:
        counters.notices[NOTICE_RECORDS_LOST] += 1
        return
    work, done = records.work[connection], records.ring[head % records.ring.shape[0]]
    spliced = hot.options & SPLICED != 0
    done.opened, done.closed = work.opened, now
    done.service, done.target = cold.service, cold.target
    for side in range(2):
        done.cause[side] = (causes >> (8 * side)) & 0xFF
        done.steps[side] = work.steps[side]
        done.remote_address[side] = hot.remote_address[side]
        done.local_address[side] = hot.local_address[side]
        done.remote_port[side] = hot.remote_port[side]
        done.local_port[side] = hot.local_port[side]
        done.octets[side] = octets_sent(hot, cold, side) if spliced or side == CLIENT else 0
        for number in range(STEPS):
            done.state[side, number] = work.state[side, number]
            done.at[side, number] = work.at[side, number]
    store_release(address_of(records.head), head + 1)
