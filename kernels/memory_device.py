"""Where bursts come from and go to when there is no DPDK: rings of mbuf offsets in numpy arrays.

The same functions as `dpdk_device`. Workers run them while another thread feeds and empties their rings
(`pipeline.io.memory_port`), so every ring has one producer and one consumer, and its two counters are read
with acquire and written with release. Each mbuf is at home on one of the sides, a worker's or the feeder's; each
has a `Device`. A side that frees an mbuf of another's sends it home through a ring of that pair, so none ever
touches the free mbufs of another.
"""
from typing import NamedTuple

import numpy as np

from . import native
from .headers import HEADROOM
from .jit import kernel

COUNTER_STRIDE = 8
"""Counters lie 8 int64 (64 octets) apart, so that two threads do not write to one cache line."""
NO_PORT = 0xFFFF
"""Port of an mbuf that was not received (RTE_MBUF_PORT_INVALID)."""


class Rings(NamedTuple):
    """Single-producer, single-consumer rings, one a row.

    `slots` int64[rings, size], size a power of two; `written`, `read` int64[rings, COUNTER_STRIDE]: how many
    values went in and came out since the start, in column 0.
    """

    slots: np.ndarray
    written: np.ndarray
    read: np.ndarray


class Device(NamedTuple):
    """One side of a memory network: that of the thread that feeds it, number 0, or that of worker w, number w + 1.

    `base` int64[1]: address of the arena's first byte; `home` int64[2]: mbufs from the first of these offsets to
    below the second are this side's own; `mbuf`: the arena's mbuf overlay; `received`, `sent`: this side's own rings,
    one for each port; `handed`: shared by all, ring number (from * workers + to) * ports + port has what one worker
    hands over to another; `side` int64[1]: this side's number; `ends` int64[sides]: offset behind the last mbuf of each
    side; `homeward`: shared by all, ring number from * sides + to has the mbufs of `to` that `from` has freed; `foreign`:
    those of them that this side fills, a ring for each side; `free` int64[n], `free_count` int64[1]: a stack of this side's free mbufs.
    """

    base: np.ndarray
    home: np.ndarray
    mbuf: np.ndarray
    received: Rings
    sent: Rings
    handed: Rings
    side: np.ndarray
    ends: np.ndarray
    homeward: Rings
    foreign: Rings
    free: np.ndarray
    free_count: np.ndarray


@kernel
def enqueue(rings, ring, values, first, count):
    """Puts `values[first:first + count]` into a ring; returns how many had room."""
    slots, counter = rings.slots, 8 * COUNTER_STRIDE * ring
    written = rings.written[ring, 0]
    used = written - native.load_acquire(native.address_of(rings.read) + counter)
    size = slots.shape[1]
    stored = min(count, size - used)
    for place in range(stored):
        slots[ring, (written + place) & (size - 1)] = values[first + place]
    native.store_release(native.address_of(rings.written) + counter, written + stored)
    return stored


@kernel
def dequeue(rings, ring, values, first, limit):
    """Takes at most `limit` values out of a ring into `values[first:]`; returns how many."""
    slots, counter = rings.slots, 8 * COUNTER_STRIDE * ring
    read = rings.read[ring, 0]
    count = min(limit, native.load_acquire(native.address_of(rings.written) + counter) - read)
    mask = slots.shape[1] - 1
    for place in range(count):
        values[first + place] = slots[ring, (read + place) & mask]
    native.store_release(native.address_of(rings.read) + counter, read + count)
    return count


@kernel
def filling(rings, ring):
    """Returns how many values lie in a ring, to its consumer."""
    return native.load_acquire(native.address_of(rings.written) + 8 * COUNTER_STRIDE * ring) - rings.read[ring, 0]


@kernel
def receive(device, port, mbufs, limit):
    """Stores the offsets of at most `limit` received mbufs in `mbufs` (int64[:]); returns how many."""
    return dequeue(device.received, port, mbufs, 0, min(limit, mbufs.size))


@kernel
def transmit(device, port, mbufs, first, count):
    """Sends `mbufs[first:first + count]`; returns how many the ring took: the rest stays the caller's."""
    return enqueue(device.sent, port, mbufs, first, count)


@kernel
def hand_over(device, ring, mbufs, first, count):
    """Puts `mbufs[first:first + count]` into a ring; returns how many had room, which are the taker's now."""
    return enqueue(device.handed, ring, mbufs, first, count)


@kernel
def take_over(device, ring, mbufs, limit):
    """Stores the offsets of at most `limit` mbufs out of a ring in `mbufs`, oldest first; returns how many."""
    return dequeue(device.handed, ring, mbufs, 0, min(limit, mbufs.size))


@kernel
def waiting(device, ring):
    """Returns how many mbufs lie in a ring, to the worker that takes them over."""
    return filling(device.handed, ring)


@kernel
def reset(mbuf):
    """Makes one free mbuf (a record) fresh and empty, as rte_pktmbuf_reset does.

    Its second cache line is left alone: `next` of a free mbuf is 0, and what else stands there nobody reads.
    """
    mbuf.data_off = HEADROOM
    mbuf.refcnt = 1
    mbuf.segments = 1
    mbuf.port = NO_PORT
    mbuf.offload = 0
    mbuf.packet_type = 0
    mbuf.packet_length = 0
    mbuf.data_length = 0


@kernel
def take_home(device):
    """Takes the mbufs that others have sent home to the free ones; returns how many there are now."""
    sides, count = device.ends.shape[0], device.free_count[0]
    for other in range(sides):
        ring = other * sides + device.side[0]
        count += dequeue(device.homeward, ring, device.free, count, device.free.size - count)
    device.free_count[0] = count
    return count


@kernel
def allocate(device, mbufs, count):
    """Stores the offsets of `count` fresh, empty mbufs in `mbufs`; returns `count`, or 0 if there are too few."""
    free, available = device.free, device.free_count[0]
    if available < count:
        available = take_home(device)
    if available < count:
        return 0
    for place in range(count):
        native.prefetch(device.base[0] + free[available - 1 - place])
    for place in range(count):
        offset = free[available - 1 - place]
        reset(native.record_at(device.mbuf, offset))
        mbufs[place] = offset
    device.free_count[0] = available - count
    return count


@kernel
def available(device):
    """Returns how many of this side's mbufs are free, those that wait to be taken home among them."""
    sides, count = device.ends.shape[0], device.free_count[0]
    for other in range(sides):
        count += filling(device.homeward, other * sides + device.side[0])
    return count


@kernel
def _put(rings, ring, offset):
    """Puts one mbuf into a ring that has room for every mbuf it may ever hold."""
    written = rings.written[ring, 0]
    rings.slots[ring, written & (rings.slots.shape[1] - 1)] = offset
    native.store_release(native.address_of(rings.written) + 8 * COUNTER_STRIDE * ring, written + 1)


@kernel
def _send_home(device, offset):
    """Sends the mbuf of another side home.

    Nearly all that workers free is the feeder's: with the number of its ring reckoned as for any other, that took twice as
    long (12 ticks an mbuf, and 6.5).
    """
    if offset < device.ends[0]:
        _put(device.foreign, 0, offset)
        return
    owner = 1
    while offset >= device.ends[owner]:
        owner += 1
    _put(device.foreign, owner, offset)


@kernel
def _release_segment(device, offset):
    """Frees one segment, whose `next` is 0 or no longer counts, unless others hold it too."""
    record = native.record_at(device.mbuf, offset)
    holders = np.int64(record.refcnt) - 1
    if holders > 0:
        record.refcnt = holders
        return
    if record.segments != 1:
        record.segments = 1
    if device.home[0] <= offset < device.home[1]:
        device.free[device.free_count[0]] = offset
        device.free_count[0] += 1
    else:
        _send_home(device, offset)


@kernel
def _release_chain(device, offset):
    """Frees an mbuf of several segments."""
    while offset >= 0:
        record = native.record_at(device.mbuf, offset)
        following = np.int64(record.next)
        if record.refcnt == 1:
            record.next = 0
        _release_segment(device, offset)
        offset = following - device.base[0] if following != 0 else -1


@kernel
def release(device, mbufs, count):
    """Frees `mbufs[:count]`, each with all its segments; of one alone the second cache line, where `next` is, is not touched."""
    for place in range(count):
        if native.record_at(device.mbuf, mbufs[place]).segments == 1:
            _release_segment(device, mbufs[place])
        else:
            _release_chain(device, mbufs[place])


@kernel
def pause(device, microseconds):
    """Gives the core away for about `microseconds`."""
    native.usleep(np.uint32(microseconds))
