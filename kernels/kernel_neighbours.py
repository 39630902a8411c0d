"""What the kernel's neighbour table says, as a worker hears of it: beside an exception port the kernel does ARP, not we.

A thread of the main program (`pipeline.kernel_neighbours`) puts changes into a worker's mailbox, a ring with one producer
and one consumer; the worker empties it between bursts. So nobody but the worker writes to its neighbour table.
"""
from typing import NamedTuple

import numpy as np
from numpy import int64

from .connection import NO_NEIGHBOUR
from .counters import NOTICE_NEIGHBOUR_MOVED
from .jit import kernel
from .native import address_of, load_acquire, record_at, store_release
from .neighbours import INCOMPLETE, PROBING, REACHABLE, STATIC, find_neighbour, hear

ADDRESS, PORT, MAC_HIGH, MAC_LOW, STATE = range(5)
"""Columns of a message; STATE is REACHABLE, PROBING (a MAC address that is not confirmed) or INCOMPLETE (nobody answers)."""


class Mailbox(NamedTuple):
    """A ring of messages from the main program to one worker. int64; the counters lie a cache line apart."""

    messages: np.ndarray     # [power of two, 5]
    written: np.ndarray      # [8] how many messages since the start, in the first; written with release
    read: np.ndarray         # [8] how many of them the worker has read


def allocate_mailbox(size):
    """Returns an empty `Mailbox` with room for `size` messages, a power of two."""
    return Mailbox(np.zeros((size, STATE + 1), np.int64), np.zeros(8, np.int64), np.zeros(8, np.int64))


@kernel
def write_message(mailbox, address, port, mac_high, mac_low, state):
    """Puts a message into a mailbox; says whether there was room. For the one producer."""
    messages, written = mailbox.messages, mailbox.written[0]
    if written - load_acquire(address_of(mailbox.read)) >= messages.shape[0]:
        return False
    place = written & (messages.shape[0] - 1)
    messages[place, ADDRESS], messages[place, PORT], messages[place, STATE] = address, port, state
    messages[place, MAC_HIGH], messages[place, MAC_LOW] = mac_high, mac_low
    store_release(address_of(mailbox.written), written + 1)
    return True


@kernel
def heed(network, address, port, mac_high, mac_low, state, tick):
    """Takes what the kernel says about one neighbour, if we know it; says whether its MAC address has changed.

    An address that is not confirmed, but the one that we have, is no news: the kernel's entry has only grown old.
    """
    number = find_neighbour(network, address)
    if number == NO_NEIGHBOUR or int64(record_at(network.neighbours, number).port) != port:
        return False
    entry = record_at(network.neighbours, number)
    if entry.state == STATIC:
        return False
    if state == INCOMPLETE:
        entry.state = INCOMPLETE
        return False
    same = entry.state >= REACHABLE and int64(entry.mac_high) == mac_high and int64(entry.mac_low) == mac_low
    if state == PROBING and same:
        return False
    moved = hear(network, number, mac_high, mac_low, tick)
    if state == PROBING:
        entry.state = PROBING
    return moved


@kernel
def read_mailbox(network, mailbox, counters, tick):
    """Takes all that the kernel has said since the last time."""
    messages, first, stop = mailbox.messages, mailbox.read[0], load_acquire(address_of(mailbox.written))
    for number in range(first, stop):
        place = number & (messages.shape[0] - 1)
        moved = heed(network, messages[place, ADDRESS], messages[place, PORT], messages[place, MAC_HIGH],
                     messages[place, MAC_LOW], messages[place, STATE], tick)
        counters.notices[NOTICE_NEIGHBOUR_MOVED] += int64(moved)
    if stop != first:
        store_release(address_of(mailbox.read), stop)
