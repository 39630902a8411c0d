"""Session records (reference row 13): what a connection went through on each side, and why it ended."""
from typing import NamedTuple

import numpy as np
from numpy import int64

from .connection import CLIENT, SPLICED, TARGET
from .counters import NOTICE_RECORDS_LOST
from .jit import kernel
from .memory import allocate
from .native import address_of, load_acquire, prefetch, record_at, store_release

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

STEPS = 12
"""Steps of both sides together that a record has room for, behind the client's first (SynReceived, when it was opened)."""
COUNT = 12
"""sides: how far above the bits of the steps their number stands."""
COARSE = 1 << 31
"""Microseconds (36 minutes) from which on a step's time is kept in milliseconds, marked by this bit, for up to 24 days."""
WORK = np.dtype([
    ("opened", "i8"),                                   # microseconds of the engine's clock
    ("at", "u4", (STEPS,)),                             # when, after that (see `COARSE`)
    ("states", "u1", (STEPS // 2,)),                    # TCP_STATES, two a byte, the earlier one in the lower half
    ("sides", "u2"),                                    # a bit a step: of which side; from bit COUNT on: how many
])
"""What is written while a connection is open: one cache line, for which every connection that changes its state pays."""
WORK_BYTES = WORK.itemsize
RECORD = np.dtype([
    *((name, *WORK.fields[name][:1]) for name in WORK.names),
    ("closed", "i8"), ("octets", "i8", (2,)),           # microseconds; payload that each side has sent
    ("remote_address", "u4", (2,)), ("local_address", "u4", (2,)),
    ("remote_port", "u2", (2,)), ("local_port", "u2", (2,)),
    ("service", "u2"), ("target", "u2"), ("cause", "u1", (2,)),
    ("origin_port", "u2"), ("origin_address", "u4"),    # of the client, as a PROXY header has told; 0 without
    ("reserved", "u1", (4,)),
])
"""A finished record: two cache lines."""


class Records(NamedTuple):
    """Records being written, one a connection, and a ring of finished ones that Python empties."""

    enabled: np.ndarray   # int64 [1]
    work: np.ndarray      # WORK [connections, or 1 where not enabled]
    initial: np.ndarray   # uint32 [as many, 2] initial number of each side
    wraps: np.ndarray     # uint16 [as many, 2] how often `next` of each side has passed 2**32; the splice counts it
    ring: np.ndarray      # RECORD [n]
    head: np.ndarray      # int64 [1] finished so far, written by the worker
    tail: np.ndarray      # int64 [1] fetched so far, written by Python
    origins: np.ndarray   # int64 [connections, 5] what PROXY headers have told (proxy_protocol.Proxied); none where nobody accepts one


def allocate_records(enabled, connections, ring, origins=0):
    """Returns `Records`, with `origins` rows of what PROXY headers tell; without `enabled` nothing is kept and no memory taken."""
    kept = connections if enabled else 1
    return Records(np.array([int(enabled)], np.int64), allocate(kept, WORK), np.zeros((kept, 2), np.uint32),
                   np.zeros((kept, 2), np.uint16), allocate(ring if enabled else 1, RECORD), np.zeros(1, np.int64), np.zeros(1, np.int64),
                   np.zeros((origins, 5), np.int64))


def steps_of(record, side):
    """Returns the steps of one side of a record: a list of (name of the state, microseconds since it was opened)."""
    steps = [(TCP_STATES[TCP_SYN_RECEIVED], 0)] if side == CLIENT else []
    for number in range(int(record["sides"]) >> COUNT):
        if int(record["sides"]) >> number & 1 == side:
            at, state = int(record["at"][number]), int(record["states"][number >> 1]) >> 4 * (number & 1) & 0x0F
            steps.append((TCP_STATES[state], at if at < COARSE else (at - COARSE) * 1000))
    return steps


@kernel
def ask_for_record(records, connection):
    """Asks for the record of a connection that shortly changes its state."""
    if records.enabled[0] != 0:
        prefetch(address_of(records.work) + connection * WORK_BYTES)


@kernel
def ask_for_records(records, batch, count):
    """Asks for the records of the connections of a burst."""
    for row in range(count if records.enabled[0] != 0 else 0):
        prefetch(address_of(records.work) + max(batch.flow[row] >> 1, 0) * WORK_BYTES)


@kernel
def begin(records, connection, initial, now):
    """Starts the record of a new connection, whose client is in SynReceived, with the initial number that it has chosen."""
    if records.enabled[0] != 0:
        work = record_at(records.work, connection)
        work.opened, work.sides = now, 0
        records.initial[connection, CLIENT] = initial
        records.wraps[connection, CLIENT], records.wraps[connection, TARGET] = 0, 0


@kernel
def target_begins(records, connection, initial):
    """Notes the initial number of the target that a connection is spliced to."""
    if records.enabled[0] != 0:
        records.initial[connection, TARGET] = initial


@kernel
def step(records, connection, side, state, now):
    """Notes that one side has come into a TCP state at `now`; in a full record the last step makes room for it."""
    if records.enabled[0] != 0:
        work = record_at(records.work, connection)
        sides, passed = int64(work.sides), now - int64(work.opened)
        number = min(sides >> COUNT, STEPS - 1)
        half = 4 * (number & 1)
        work.at[number] = passed if passed < COARSE else COARSE | min(passed // 1000, COARSE - 1)
        work.states[number >> 1] = (int64(work.states[number >> 1]) & (0xF0 >> half)) | (state << half)
        work.sides = (sides & ((1 << number) - 1)) | (side << number) | ((number + 1) << COUNT)


@kernel
def octets_sent(hot, side, initial, wraps):
    """Returns how many payload bytes a side has sent, by its sequence numbers and how often they have wrapped; SYN and FIN do
    not count."""
    fin = (int64(hot.closing) >> side) & 1
    return int64(hot.next[side]) + (wraps << 32) - ((initial + 1) & 0xFFFFFFFF) - fin


@kernel
def keep_steps(work, done):
    """Copies what was written while a connection was open to its finished record."""
    done.opened, done.sides = int64(work.opened), int64(work.sides)
    for number in range(STEPS):
        done.at[number] = int64(work.at[number])
    for number in range(STEPS // 2):
        done.states[number] = int64(work.states[number])


@kernel
def finish(records, counters, hot, cold, connection, causes, now):
    """Completes the record of an ended connection and puts it into the ring; a full ring is counted."""
    if records.enabled[0] == 0:
        return
    head = records.head[0]
    if head - load_acquire(address_of(records.tail)) >= records.ring.shape[0]:
        counters.notices[NOTICE_RECORDS_LOST] += 1
        return
    done = record_at(records.ring, head % records.ring.shape[0])
    keep_steps(record_at(records.work, connection), done)
    done.closed, done.service, done.target = now, int64(cold.service), int64(cold.target)
    for side in range(2):
        done.cause[side] = (causes >> (8 * side)) & 0xFF
        done.remote_address[side], done.local_address[side] = int64(hot.remote_address[side]), int64(hot.local_address[side])
        done.remote_port[side], done.local_port[side] = int64(hot.remote_port[side]), int64(hot.local_port[side])
        done.octets[side] = 0
        if hot.options & SPLICED or side == CLIENT:
            done.octets[side] = octets_sent(hot, side, int64(records.initial[connection, side]), int64(records.wraps[connection, side]))
    done.origin_address, done.origin_port = 0, 0
    if records.origins.shape[0] > 0 and records.origins[connection, 0] != 0:
        done.origin_address, done.origin_port = records.origins[connection, 1], records.origins[connection, 2]
    store_release(address_of(records.head), head + 1)
