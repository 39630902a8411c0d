"""Where bursts come from and go to when the ports are DPDK's; `memory_device` has the same functions.

The loop knows an mbuf by its byte offset in the arena, DPDK by its address: they differ by `device.base`.
"""
from typing import NamedTuple

import numpy as np

from . import native
from .jit import kernel


class Device(NamedTuple):
    """One worker's way to DPDK; a worker never shares its `Device`, since `addresses` is scratch.

    `base` int64[1]: address of the arena's first byte; `pool` int64[1]: address of the rte_mempool;
    `ports` int64[n]: DPDK's number of each of the engine's ports; `queues` int64[n]: this worker's queue of each;
    `rings` int64[workers * workers * n]: address of the rte_ring of packets from one worker to another of each port,
    as number (from * workers + to) * n + port, 0 where from is to; none with one worker.
    `addresses` int64[m]: scratch for a burst.
    """

    base: np.ndarray
    pool: np.ndarray
    ports: np.ndarray
    queues: np.ndarray
    rings: np.ndarray
    addresses: np.ndarray


@kernel
def to_offsets(device, mbufs, count):
    """Makes offsets of the addresses in `mbufs[:count]`; returns `count`."""
    base = device.base[0]
    for place in range(count):
        mbufs[place] -= base
    return count


@kernel
def to_addresses(device, mbufs, first, count):
    """Puts the addresses of `mbufs[first:first + count]` into `device.addresses`, as many as have room; returns how many."""
    base, addresses = device.base[0], device.addresses
    chunk = min(count, addresses.size)
    for place in range(chunk):
        addresses[place] = mbufs[first + place] + base
    return chunk


@kernel
def receive(device, port, mbufs, limit):
    """Stores the offsets of at most `limit` mbufs received on this worker's queue in `mbufs` (int64[:]); returns how many."""
    wanted = min(limit, mbufs.size)
    return to_offsets(device, mbufs, native.shim_receive(device.ports[port], device.queues[port], native.address_of(mbufs), wanted))


@kernel
def transmit(device, port, mbufs, first, count):
    """Sends `mbufs[first:first + count]` on this worker's queue; returns how many the device took: the rest stays the caller's."""
    sent = 0
    while sent < count:
        chunk = to_addresses(device, mbufs, first + sent, count - sent)
        taken = native.shim_transmit(device.ports[port], device.queues[port], native.address_of(device.addresses), chunk)
        sent += taken
        if taken < chunk:
            break
    return sent


@kernel
def hand_over(device, ring, mbufs, first, count):
    """Puts `mbufs[first:first + count]` into a ring; returns how many had room, which are the taker's now.

    One worker alone puts into a ring, and one takes out of it: no lock (DPDK Programmer's Guide, Ring Library).
    """
    given = 0
    while given < count:
        chunk = to_addresses(device, mbufs, first + given, count - given)
        taken = native.shim_hand_over(device.rings[ring], native.address_of(device.addresses), chunk)
        given += taken
        if taken < chunk:
            break
    return given


@kernel
def take_over(device, ring, mbufs, limit):
    """Stores the offsets of at most `limit` mbufs out of a ring in `mbufs`, oldest first; returns how many."""
    return to_offsets(device, mbufs, native.shim_take_over(device.rings[ring], native.address_of(mbufs), min(limit, mbufs.size)))


@kernel
def waiting(device, ring):
    """Returns how many mbufs lie in a ring."""
    return native.shim_waiting(device.rings[ring])


@kernel
def allocate(device, mbufs, count):
    """Stores the offsets of `count` fresh, empty mbufs in `mbufs`; returns `count`, or 0 if there are too few."""
    return to_offsets(device, mbufs, native.shim_allocate(device.pool[0], native.address_of(mbufs), count))


@kernel
def available(device):
    """Returns how many mbufs are free. It goes over the caches of all cores: not for every burst."""
    return native.shim_pool_available(device.pool[0])


@kernel
def release(device, mbufs, count):
    """Frees `mbufs[:count]`, each with all its segments."""
    done = 0
    while done < count:
        chunk = to_addresses(device, mbufs, done, count - done)
        native.shim_release(native.address_of(device.addresses), chunk)
        done += chunk


@kernel
def pause(device, microseconds):
    """Gives the core away for about `microseconds`."""
    native.usleep(np.uint32(microseconds))
