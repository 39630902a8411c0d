"""Where a worker's time goes: ticks of the time-stamp counter by stage, by size of burst and by path, of one pass in so many.

`pipeline.profile_marks` puts a `mark` behind every stage; unless its pass is sampled, it does nothing. Whatever is
written here is the worker's alone; `control[EVERY]` is Python's as well (see pipeline/profiling.py).
"""
from typing import NamedTuple

import numpy as np
from numpy import int64

from .batch import KIND_TCP, NO_FLOW, PENDING
from .connection import CLIENT, CONNECTING, ESTABLISHED, FIRST_DATA, HOLDS, SYN_RECEIVED
from .headers import ACK, FIN, RST, SYN
from .histogram import BUCKETS, bucket_of
from .jit import apart, kernel
from .native import record_at, ticks, unlikely

EVERY, SAMPLED, LEFT, IN_TURN, RANDOM, MOMENT, BEGUN, COUNT_FROM, OVERHEAD, MARKS, RESTED, MOST = range(12)
"""`control`: one pass in so many is sampled (0: none, -1: the worker is to set 0), whether this one is (below), passes until the
next ones, and how many of those are left; a number at random; ticks at the last mark and at the start of this pass, and from
when on passes count; ticks that a mark takes itself, which are left out; how many marks there were; ticks slept; ticks above which a burst
or pass was interrupted."""
STOP_SAMPLING = -1
NOT, COUNTED, WARMING = range(3)
"""SAMPLED: no; yes; it is timed, but not counted."""
TOGETHER = 8
"""Passes that are sampled one behind the other, of which the first is not counted: to the processor, marks that are taken are
news, and it guesses every branch around them wrong. Of single passes in 16 the stages summed up to 110 % of whole passes."""

AT_PASS, AT_POLL, AT_RECEIVE, AT_TIMERS, AT_RECORD, AT_STAGES, AT_SEND, OF_STAGES = range(8)
"""Stages of `run`; OF_STAGES is the first of those within `stages`."""
RUN_STAGES = ("pass", "poll", "receive", "timers", "record", "stages", "send")
MOST_STAGES = 48

CLIENT_SYN, HANDSHAKE_ACK, FIRST_PAYLOAD, TARGET_SYN_ACK, FIRST_ANSWER, TO_TARGET, TO_CLIENT, CLOSE, OTHER, ORDERED = range(10)
PATHS = ("client SYN", "handshake ACK", "first payload", "target SYN-ACK", "ACK of first payload", "client to target",
         "target to client", "close", "other", "timers")
"""What packets are told apart by. The last is a burst of none: what timers have ordered."""
WEIGHT_BITS = 8
"""Fixed point of `products` and `sums`."""

NONE, IDLE = 0, 10
SIZES = ("none", "1", "2", "3-4", "5-8", "9-16", "17-32", "33-64", "65-128", "129-256", "idle")
"""Sizes of bursts: none is what a pass with packets, or with timers, does besides; idle a pass without either."""
WIDEST = 9
LONGEST = 1 << 21
"""Ticks: what takes longer was interrupted, unless the worker is told otherwise.

A burst of 256 first payloads takes a quarter, a time slice of Linux ten times that."""


class Profile(NamedTuple):
    """What has been counted of a worker's passes. int64."""

    control: np.ndarray      # [16] see above
    current: np.ndarray      # [MOST_STAGES] ticks of the burst under way
    rows: np.ndarray         # [PATHS] its packets
    ticks: np.ndarray        # [SIZES, MOST_STAGES] of sampled bursts
    bursts: np.ndarray       # [SIZES, 2] sampled bursts and their packets
    packets: np.ndarray      # [PATHS] of sampled bursts
    products: np.ndarray     # [PATHS, PATHS] sums over bursts of packets times packets, each divided by all of the burst
    sums: np.ndarray         # [PATHS, MOST_STAGES] and of packets times ticks: the normal equations of weighted least squares
    passes: np.ndarray       # [3, SIZES, 2] how many passes and their ticks, by SAMPLED and by the packets in them
    interrupted: np.ndarray  # [4, 2] the same of what took too long to count: passes by SAMPLED, and bursts
    histograms: np.ndarray   # [MOST_STAGES + PATHS + SIZES, BUCKETS] ticks a burst of a stage, a packet of a path and of a size


def allocate_profile():
    """Returns a `Profile` that counts nothing until it is told to."""
    sizes, paths = len(SIZES), len(PATHS)
    shapes = [16, MOST_STAGES, paths, (sizes, MOST_STAGES), (sizes, 2), paths, (paths, paths), (paths, MOST_STAGES), (3, sizes, 2), (4, 2),
              (MOST_STAGES + paths + sizes, BUCKETS)]
    return Profile(*(np.zeros(shape, np.int64) for shape in shapes))


@kernel
def mark(profile, stage):
    """Ends a stage: what has passed since the last mark is its time."""
    if unlikely(profile.control[SAMPLED] != 0):
        now = ticks()
        profile.current[stage] += now - profile.control[MOMENT] - profile.control[OVERHEAD]
        profile.control[MARKS] += 1
        profile.control[MOMENT] = now


@kernel
def size_of(packets):
    """Returns the place in SIZES of a burst of so many packets."""
    size = min(packets, 1)
    while 0 < size < WIDEST and 1 << (size - 1) < packets:
        size += 1
    return size


@kernel
def path_of(batch, row, hot):
    """Returns the path of a row that look-up has been over, and nothing behind it."""
    flow, control, payload = batch.flow[row], batch.control[row], batch.payload_length[row]
    if batch.kind[row] != KIND_TCP or batch.verdict[row] != PENDING:
        return OTHER
    if control & (SYN | ACK) == SYN:
        return CLIENT_SYN
    if flow == NO_FLOW:
        return OTHER
    connection, side = record_at(hot, flow >> 1), flow & 1
    state = int64(connection.state)
    if control & SYN != 0:
        return OTHER if side == CLIENT else TARGET_SYN_ACK
    if control & (FIN | RST) != 0 or (payload == 0 and (state > ESTABLISHED or connection.closing != 0)):
        return CLOSE
    if state >= ESTABLISHED:
        if side == CLIENT:
            return TO_TARGET
        return FIRST_ANSWER if connection.options & HOLDS else TO_CLIENT
    if side == CLIENT and payload > 0 and (state == SYN_RECEIVED or state == FIRST_DATA or state == CONNECTING):
        return FIRST_PAYLOAD
    return HANDSHAKE_ACK if side == CLIENT and state == SYN_RECEIVED else OTHER


@apart
def count_rows(batch, count, hot, rows):
    """Counts the packets of a burst by path in `rows` (int64 [PATHS])."""
    for row in range(count):
        rows[path_of(batch, row, hot)] += 1


@kernel
def count_paths(profile, batch, count, hot):
    """Counts the packets of a burst in a sampled pass by path. Look-up has just touched their connections; not timed."""
    if unlikely(profile.control[SAMPLED] != 0):
        count_rows(batch, count, hot, profile.rows)
        profile.control[MOMENT] = ticks()


@kernel
def add_equations(profile, total, count):
    """Adds a burst to the equations that tell what a packet of each path takes, and, of one path alone, to its histogram.

    A burst of n packets counts 1 / n: its ticks vary as n does, and so what is attributed sums up to what was measured.
    """
    rows, different, path, packets = profile.rows, 0, 0, max(count, 1)
    if count == 0:
        rows[ORDERED] = 1
    for one in range(rows.shape[0]):
        if rows[one] == 0:
            continue
        different, path, weighted = different + 1, one, rows[one] << WEIGHT_BITS
        profile.packets[one] += rows[one]
        for other in range(rows.shape[0]):
            profile.products[one, other] += weighted * rows[other] // packets
        for stage in range(MOST_STAGES):
            profile.sums[one, stage] += weighted * profile.current[stage] // packets
    if different == 1:
        profile.histograms[MOST_STAGES + path, bucket_of(max(total, 0) // packets)] += packets


@kernel
def add_burst(profile, size, count):
    """Adds what has been timed since the last burst to a row of `ticks` and to the histograms; returns the ticks."""
    total = 0
    for stage in range(MOST_STAGES):
        taken = profile.current[stage]
        total += taken
        profile.ticks[size, stage] += taken
        if taken > 0 and size != IDLE:
            profile.histograms[stage, bucket_of(taken)] += 1
    profile.bursts[size, 0] += 1
    profile.bursts[size, 1] += count
    of_size = MOST_STAGES + profile.rows.shape[0] + size
    profile.histograms[of_size, bucket_of(max(total, 0) // max(count, 1))] += max(count, 1)
    return total


@kernel
def sum_of(numbers):
    """Returns the sum of an array (int64)."""
    total = 0
    for place in range(numbers.shape[0]):
        total += numbers[place]
    return total


@apart
def put_away(profile, size, count, went):
    """Adds what has been timed to what was before, and begins anew; `went` says whether it is a burst, which has paths."""
    total = sum_of(profile.current)
    if total > profile.control[MOST] and size != IDLE:
        profile.interrupted[3, 0] += 1
        profile.interrupted[3, 1] += total
    elif profile.control[SAMPLED] == COUNTED:
        if went:
            add_equations(profile, total, count)
        add_burst(profile, size, count)
    profile.current[:] = 0
    profile.rows[:] = 0


@kernel
def close_burst(profile, count):
    """Ends a burst of `count` packets, or of none, of what timers have ordered. Not timed."""
    if unlikely(profile.control[SAMPLED] != 0):
        put_away(profile, size_of(count), count, True)
        profile.control[MOMENT] = ticks()


@kernel
def end_pass(profile, sampled, received, worked, taken):
    """Counts a pass that took so many ticks; what was timed in it behind its last burst goes where it belongs."""
    size = size_of(received) if worked else IDLE
    if sampled != NOT:
        put_away(profile, NONE if worked else IDLE, 0, False)
    if taken > profile.control[MOST] and size != IDLE:
        profile.interrupted[sampled, 0] += 1
        profile.interrupted[sampled, 1] += taken
    else:
        profile.passes[sampled, size, 0] += 1
        profile.passes[sampled, size, 1] += taken


@kernel
def draw_gap(control):
    """Draws how many passes go by until the next ones are sampled: at random, so that no rhythm is followed."""
    control[RANDOM] = control[RANDOM] * 6364136223846793005 + 1442695040888963407
    control[LEFT] = ((control[RANDOM] >> 33) & 0x7FFFFFFF) % (2 * TOGETHER * (control[EVERY] - 1) + 1)
    control[IN_TURN] = TOGETHER


@apart
def choose_pass(profile, now):
    """Says whether the pass that begins is sampled: NOT, COUNTED or WARMING."""
    control = profile.control
    if control[EVERY] == STOP_SAMPLING:
        control[EVERY] = 0
    control[BEGUN] = 0
    if control[EVERY] <= 0 or now < control[COUNT_FROM]:
        return NOT
    control[BEGUN] = now
    if control[LEFT] == 0 and control[IN_TURN] == 0:
        draw_gap(control)
    if control[LEFT] > 0:
        control[LEFT] -= 1
        return NOT
    control[IN_TURN] -= 1
    return WARMING if control[IN_TURN] == TOGETHER - 1 and control[EVERY] > 1 else COUNTED


@apart
def turn(profile, received, worked):
    """Counts the pass that ends and begins the next; see next_pass."""
    control = profile.control
    mark(profile, AT_PASS)
    sampled, now = control[SAMPLED], ticks()
    if control[BEGUN] != 0:
        end_pass(profile, sampled, received, worked, now - control[BEGUN])
    if sampled != NOT:
        now = ticks()
    control[SAMPLED] = choose_pass(profile, now)
    control[MOMENT] = now


@kernel
def next_pass(profile, received, worked):
    """Between two passes: counts the one that ends, with its packets and whether it had something to do, and begins the next."""
    if unlikely(profile.control[EVERY] != 0):
        turn(profile, received, worked)


@kernel
def awake(profile):
    """Behind a rest between two passes, which is no part of either."""
    control = profile.control
    if unlikely(control[EVERY] != 0) and control[BEGUN] != 0:
        now = ticks()
        control[RESTED] += now - control[BEGUN]
        control[BEGUN] = control[MOMENT] = now


@kernel
def first_pass(profile):
    """Before the first pass of a call of the loop: what passed since the last call is none of its time."""
    if unlikely(profile.control[EVERY] != 0):
        profile.current[:] = 0
        profile.control[SAMPLED] = choose_pass(profile, ticks())
        profile.control[MOMENT] = ticks()
