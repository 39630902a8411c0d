"""Outbox: what leaves at the end of a burst, by port, and what becomes of every mbuf that came in."""
from typing import NamedTuple

import numpy as np

from .batch import ANSWER, FORWARD, SENT, WAIT
from .counters import DROP_TRANSMIT_FULL, TOTAL_TRANSMITTED
from .jit import kernel
from .native import record_at


class Outbox(NamedTuple):
    """mbufs to be sent, and those to be freed. int64."""

    mbuf: np.ndarray         # [ports, capacity]
    filled: np.ndarray       # [ports]
    released: np.ndarray     # [capacity]
    to_release: np.ndarray   # [1]
    unsent: np.ndarray       # [ports] how many mbufs the device had no room for, since the start


def allocate_outbox(ports, capacity):
    """Returns an empty `Outbox`; `capacity` must hold all that one burst can make."""
    return Outbox(np.zeros((ports, capacity), np.int64), np.zeros(ports, np.int64), np.zeros(capacity, np.int64),
                  np.zeros(1, np.int64), np.zeros(ports, np.int64))


@kernel
def set_length(packets, mbuf, length):
    """Makes a fresh mbuf one of `length` bytes in one piece."""
    head = record_at(packets.mbuf, mbuf)
    head.data_length, head.packet_length, head.segments, head.offload = length, length, 1, 0


@kernel
def discard(outbox, mbuf):
    """Puts an mbuf among those to be freed."""
    outbox.released[outbox.to_release[0]] = mbuf
    outbox.to_release[0] += 1


@kernel
def append(lists, filled, row, mbuf, outbox, counters, reason):
    """Puts an mbuf at the end of a list, a row of `lists` with `filled[row]` in it; counted and freed where there is no room."""
    place = filled[row]
    if place < lists.shape[1]:
        lists[row, place] = mbuf
        filled[row] = place + 1
    else:
        counters.drops[reason] += 1
        discard(outbox, mbuf)


@kernel
def empty(lists, filled, row, taken, outbox, counters, reason):
    """Empties a list of which somebody has taken the first `taken` mbufs: the others are counted and freed."""
    for number in range(taken, filled[row]):
        counters.drops[reason] += 1
        discard(outbox, lists[row, number])
    filled[row] = 0


@kernel
def post(outbox, port, mbuf, counters):
    """Puts an mbuf among those to be sent by a port; counted and freed where there is no room."""
    append(outbox.mbuf, outbox.filled, port, mbuf, outbox, counters, DROP_TRANSMIT_FULL)


@kernel
def dispose(batch, count, parts, outbox, counters):
    """Posts every FORWARD and ANSWER row, and discards the mbufs of all others but those that wait or lie there already.

    `parts` leave in the place of their row.
    """
    part, stop = 0, parts.filled[0]
    for row in range(count):
        if batch.verdict[row] == FORWARD or batch.verdict[row] == ANSWER:
            post(outbox, batch.out_port[row], batch.mbuf[row], counters)
        elif batch.verdict[row] != WAIT and batch.verdict[row] != SENT:
            discard(outbox, batch.mbuf[row])
            while part < stop and parts.row[part] == row:
                post(outbox, batch.out_port[row], parts.mbuf[part], counters)
                part += 1
    parts.filled[0] = 0


@kernel
def settle(outbox, port, sent, counters):
    """Empties a port's list after `sent` of its mbufs went out: what the device had no room for is counted and freed."""
    outbox.unsent[port] += outbox.filled[port] - sent
    empty(outbox.mbuf, outbox.filled, port, sent, outbox, counters, DROP_TRANSMIT_FULL)
    counters.totals[TOTAL_TRANSMITTED] += sent
