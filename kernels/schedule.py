"""Scheduling: in which order a worker turns to the queues that packets wait in (row 10 of ProxyEngine). The slot `schedule`.

An input is a queue of a port, or the ring on which another worker hands over what came to it. Timers, control and what the
engine itself has to send are no inputs: they have their turn in every pass, whatever the policy.
"""
from typing import NamedTuple

import numpy as np

from .jit import kernel

STARVED = 8
"""Passes that `longest_first` leaves an input out at most."""


class Inputs(NamedTuple):
    """The inputs of a worker, one a row: hand-over first, then ports. int64."""

    port: np.ndarray       # [n] the engine's port whose packets they are
    ring: np.ndarray       # [n] number of the ring on which they are handed over, -1 for those that come from the device
    length: np.ndarray     # [n] packets that the last burst had; what waits in a queue, no device here says
    passed: np.ndarray     # [n] passes since the input had its turn
    order: np.ndarray      # [n] inputs in the order of this pass; at the start that of their rows


def allocate_inputs(worker, workers, ports):
    """Returns the `Inputs` of a worker: a ring from each other worker for each port (see `ring_of`), and the ports."""
    rings = [(port, ring_of(sender, worker, port, workers, ports)) for sender in range(workers) if sender != worker
             for port in range(ports)]
    rows = np.array(rings + [(port, -1) for port in range(ports)], np.int64)
    count = len(rows)
    return Inputs(rows[:, 0].copy(), rows[:, 1].copy(), np.zeros(count, np.int64), np.zeros(count, np.int64), np.arange(count))


def ring_of(sender, owner, port, workers, ports):
    """Returns the number of the ring by which a worker hands packets of a port over to their owner."""
    return (sender * workers + owner) * ports + port


@kernel
def round_robin(inputs):
    """Every input in every pass, always in the same order: none waits for more than one burst of each other one.

    Returns how many of `order` are served in this pass.
    """
    return inputs.order.shape[0]


@kernel
def longest_first(inputs):
    """What is handed over first, then the inputs whose last burst was the longest (ProxyEngine's policy).

    One with less than half of the longest's is left out, STARVED passes long at most: so none waits for more than
    STARVED bursts of each other one. Returns how many of `order` are served in this pass.
    """
    length, order, longest, count = inputs.length, inputs.order, 0, 0
    for number in range(length.shape[0]):
        longest = max(longest, length[number])
    for number in range(length.shape[0]):
        inputs.passed[number] += 1
        urgent = inputs.ring[number] >= 0 or inputs.passed[number] >= STARVED
        if not urgent and 2 * length[number] < longest:
            continue
        inputs.passed[number] = 0
        place = count
        while place > 0 and inputs.ring[number] < 0 and inputs.ring[order[place - 1]] < 0 and length[order[place - 1]] < length[number]:
            order[place] = order[place - 1]
            place -= 1
        order[place] = number
        count += 1
    return count
