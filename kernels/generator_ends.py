"""The ends of connections that the generator plays itself, clients and servers alike: one record of 64 bytes each.

An end that is not FREE has one timer in the wheel. Clients have their number by source address and port, servers theirs
by the flow table.
"""
from typing import NamedTuple

import numpy as np
from numpy import int64

from .connection import FREE
from .counters import DROP_SEGMENTS_FULL, TOTAL_CLOSED, TOTAL_OPEN, TOTAL_OPENED, Counters
from .flow_hash import hash_key
from .flow_table import remove
from .jit import kernel
from .native import record_at

CLIENT, SERVER = 0, 1
ROLES = ("clients", "servers")
SYN_SENT, SYN_RECEIVED, ESTABLISHED, FIN_WAIT, CLOSE_WAIT, LAST_ACK = range(1, 7)
STATES = ("free", "syn_sent", "syn_received", "established", "fin_wait", "close_wait", "last_ack", "time_wait")
"""States of RFC 9293, section 3.3.2. FIN_WAIT is FIN-WAIT-1, FIN-WAIT-2 and CLOSING: what has been acknowledged says which."""

STAMPED, SCALED = 1, 2        # timestamps, window scaling are in use
FIN_RECEIVED = 4
ANSWERED = 8                  # a client's request is answered: its time is taken
MISMATCHED, CORRUPTED, CROSSED, INCOMPLETE = 16, 32, 64, 128
"""What is wrong with the payload: it is of another target's, or changed, or of another connection's, or too short."""

END = np.dtype([
    ("remote_address", "u4", (1,)), ("local_address", "u4", (1,)),
    ("remote_port", "u2", (1,)), ("local_port", "u2", (1,)),    # as the flow table wants its keys
    ("initial", "u4"), ("acknowledged", "u4"), ("next", "u4"),  # our numbers: first, oldest not acknowledged, next to send
    ("their_initial", "u4"), ("received", "u4"),                # theirs: first, next expected
    ("window", "u2"), ("mss", "u2"),                            # as on the wire; payload that fits a segment
    ("began", "u4"), ("asked", "u4"),                           # microseconds: first SYN, request sent
    ("stamp", "u4"),                                            # their latest TSval
    ("due", "u4"),                                              # tick of the next retransmission, or of the end of TIME_WAIT
    ("serial", "u4"),                                           # of the connection: the client's choice, in every payload
    ("neighbour", "u2"), ("target", "u2"),
    ("state", "u1"), ("marks", "u1"),
    ("tries", "u1"), ("scale", "u1"),                           # retransmissions in turn; their scale + 16 * duplicates
])
"""Everything that a segment of a connection touches: one cache line of 64 bytes."""

KINDS = ("refused", "reset", "connect_timeout", "timeout", "mismatch", "corrupt", "crossed", "incomplete", "stopped")
"""How a connection can fail. `connect_timeout`: no answer to a SYN or SYN-ACK; `timeout`: later; `stopped`: still open
when the generator was told to stop. The others, from `mismatch` to `incomplete`, are found in the payload."""
REFUSED, RESET, CONNECT_TIMEOUT, TIMEOUT, MISMATCH, CORRUPT, CROSS, TOO_SHORT, STOPPED = range(len(KINDS))

COUNTS = ("opened", "open", "established", "completed", "failed", "syn_retransmitted", "data_retransmitted",
          "fin_retransmitted", "out_of_order", "octets_sent", "octets_received")
(OPENED, OPEN, CAME_TO_BE, COMPLETED, FAILED, SYN_AGAIN, DATA_AGAIN, FIN_AGAIN, OUT_OF_ORDER, OCTETS_SENT,
 OCTETS_RECEIVED) = range(len(COUNTS))
"""`open` leaves TIME_WAIT out. Octets are payload's, each counted once."""

SETTINGS = np.dtype([(name, "i8") for name in (
    "clients",                                               # ends that are clients'; those behind them are servers'
    "mss", "scale", "sack", "stamps", "window", "flight",    # of our SYN; -1, 0, 0: left out; most segments under way
    "retransmit", "tries", "connecting", "longest", "time_wait",   # ticks, but for the number of tries
    "verify", "closes_first",                                # whether payload is looked at; CLIENT or SERVER
    "address", "port", "first_port", "ports", "first_address", "neighbour",   # where clients connect to, and from
    "most_open", "a_second", "test_size",                    # 0: no limit
)])

PACE = ("credit", "since", "serial", "first", "latest", "tick")
"""What the pace of opening needs to remember: connections that may be opened, times 1,000,000; until when that is
counted; connections opened; microseconds of the first SYN and of the latest end; the tick of the latest pass."""
CREDIT, SINCE, SERIAL, FIRST, LATEST, TICK = range(len(PACE))


class Orders(NamedTuple):
    """Segments to be built at the end of a burst, in order. int64 columns."""

    filled: np.ndarray      # [1]
    fresh: np.ndarray       # [1] how many of them need a fresh mbuf
    end: np.ndarray
    control: np.ndarray
    seq: np.ndarray
    ack: np.ndarray
    length: np.ndarray      # of the payload
    mbuf: np.ndarray        # of the segment that it answers, or -1


class Contents(NamedTuple):
    """What clients and servers say: a row for each role and target, then the filling (generator_payload)."""

    octets: np.ndarray      # uint8
    words: np.ndarray       # the same, as 32-bit words at every byte
    total: np.ndarray       # int64 [2, targets] bytes that a client, a server says in a connection
    serial_at: np.ndarray   # int64 [2, targets] where the serial number stands among them, negative: nowhere
    segment: np.ndarray     # int64 [2] bytes of a packet


class Ends(NamedTuple):
    """All ends of a generator and what its stages share; the loop knows it as `connections`."""

    hot: np.ndarray          # END [clients + servers]
    buckets: np.ndarray      # flow_table.BUCKET, servers' keys alone
    free: np.ndarray         # int64 [2, n] free ends: clients' a ring, the oldest is the next; servers' a stack
    taken: np.ndarray        # int64 [2] how many have been taken out of the ring, and how many put into it; the stack has
    given: np.ndarray        # int64 [2] as many as were put into it, less those that were taken out
    orders: Orders
    settings: np.ndarray     # SETTINGS [1]
    contents: Contents
    listening: np.ndarray    # int64 [n, 3] address, port, target that servers are played for
    sources: np.ndarray      # int64 [n] clients' addresses
    source_number: np.ndarray  # int64 [n] number of the client's address `settings.first_address` + n, or -1
    client_targets: np.ndarray  # int64 [n] targets that clients name in turn
    pace: np.ndarray         # int64 [len(PACE)]
    counts: np.ndarray       # int64 [2, len(COUNTS)]
    failures: np.ndarray     # int64 [2, len(KINDS)]
    served: np.ndarray       # int64 [2, targets] connections completed
    latency: np.ndarray      # int64 [2, histogram.BUCKETS] microseconds to connect, to be answered
    counters: Counters
    parts: NamedTuple        # connection.Parts, waiting_room.WaitingRoom: what the loop wants to see empty
    waiting: NamedTuple


def allocate_orders(capacity):
    """Returns empty `Orders` of `capacity` rows."""
    return Orders(np.zeros(1, np.int64), np.zeros(1, np.int64), *(np.zeros(capacity, np.int64) for _ in Orders._fields[2:]))


@kernel
def order(ends, number, control, seq, length, mbuf):
    """Orders a segment of an end's; it acknowledges what has come so far. `mbuf` is one to write it into, or -1.

    Where the list is full it is counted as dropped: timers send again whatever matters.
    """
    orders = ends.orders
    row = orders.filled[0]
    if row >= orders.end.shape[0]:
        ends.counters.drops[DROP_SEGMENTS_FULL] += 1
        return
    orders.end[row], orders.control[row], orders.seq[row] = number, control, seq
    orders.ack[row], orders.length[row], orders.mbuf[row] = int64(record_at(ends.hot, number).received), length, mbuf
    orders.fresh[0] += int64(mbuf < 0)
    orders.filled[0] = row + 1


@kernel
def has_room(ends):
    """Says whether a segment more can be ordered in this pass."""
    return ends.orders.filled[0] < ends.orders.end.shape[0]


@kernel
def role_of(ends, number):
    """Returns CLIENT or SERVER."""
    return int64(number >= record_at(ends.settings, 0).clients)


@kernel
def enter(ends, number, state):
    """Puts an end in `state` and keeps the count by state."""
    end = record_at(ends.hot, number)
    ends.counters.states[end.state] -= 1
    ends.counters.states[state] += 1
    end.state = state


@kernel
def take_free(ends, role):
    """Returns a free end, now counted as open: the client that has been free for longest, whose ports the network may still
    remember, and the server that has been for the shortest, which the cache still has. -1 where none is free."""
    taken, given, size = ends.taken[role], ends.given[role], ends.free.shape[1]
    if taken == given:
        return -1
    ends.counts[role, OPENED] += 1
    ends.counts[role, OPEN] += 1
    ends.counters.totals[TOTAL_OPENED] += 1
    ends.counters.totals[TOTAL_OPEN] += 1
    if role == SERVER:
        ends.given[role] = given - 1
        return ends.free[role, (given - 1) & (size - 1)]
    ends.taken[role] = taken + 1
    return ends.free[role, taken & (size - 1)]


@kernel
def fail(ends, number, role, kind, now):
    """Counts an open connection as failed."""
    ends.failures[role, kind] += 1
    ends.counts[role, FAILED] += 1
    ends.counts[role, OPEN] -= 1
    ends.pace[LATEST] = now


@kernel
def complete(ends, number, role, now):
    """Counts an open connection that has ended as it should, or as failed where its payload was not what it should be."""
    end = record_at(ends.hot, number)
    flags = int64(end.marks)
    if flags & (MISMATCHED | CORRUPTED | CROSSED | INCOMPLETE):
        kind = MISMATCH if flags & MISMATCHED else CORRUPT if flags & CORRUPTED else CROSS if flags & CROSSED else TOO_SHORT
        fail(ends, number, role, kind, now)
        return
    ends.counts[role, COMPLETED] += 1
    ends.counts[role, OPEN] -= 1
    ends.served[role, end.target] += 1
    ends.pace[LATEST] = now


@kernel
def give_back(ends, number, role):
    """Makes an end free; its timer may still run out, which means nothing then."""
    enter(ends, number, FREE)
    given = ends.given[role]
    ends.free[role, given & (ends.free.shape[1] - 1)] = number
    ends.given[role] = given + 1
    ends.counters.totals[TOTAL_OPEN] -= 1
    ends.counters.totals[TOTAL_CLOSED] += 1


@kernel
def release(ends, number, role):
    """Makes an end free, and its key unknown if it is a server's."""
    end = record_at(ends.hot, number)
    if role == SERVER:
        remove(ends.buckets, hash_key(int64(end.remote_address[0]), int64(end.local_address[0]), int64(end.remote_port[0]),
                                      int64(end.local_port[0])), 2 * number)
    give_back(ends, number, role)
