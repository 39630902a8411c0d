"""Where bursts come from and go to when the ports are DPDK's; `memory_device` has the same six functions.

The loop knows an mbuf by its byte offset in the arena, DPDK by its address: they differ by `device.base`.
"""
from typing import NamedTuple

import numpy as np

from . import native
from .jit import kernel


class Device(NamedTuple):
    """One worker's way to DPDK; a worker never shares its `Device`, since `addresses` is scratch.

    `base` int64[1]: address of the arena's first byte; `pool` int64[1]: address of the rte_mempool;
    `ports` int64[n]: DPDK's number of each of the engine's ports; `addresses` int64[m]: scratch for a burst.
    """

    base: np.ndarray
    pool: np.ndarray
    ports: np.ndarray
    addresses: np.ndarray


@kernel
def receive(device, port, queue, mbufs, limit):
    """Stores the offsets of at most `limit` received mbufs in `mbufs` (int64[:]); returns how many."""
    wanted = min(limit, mbufs.size)
    count = native.shim_receive(device.ports[port], queue, native.address_of(mbufs), wanted)
    base = device.base[0]
    for place in range(count):
        mbufs[place] -= base
    return count


@kernel
def transmit(device, port, queue, mbufs, first, count):
    """Sends `mbufs[first:first + count]`; returns how many the device took: the rest stays the caller's."""
    base, addresses = device.base[0], device.addresses
    sent = 0
    while sent < count:
        chunk = min(count - sent, addresses.size)
        for place in range(chunk):
            addresses[place] = mbufs[first + sent + place] + base
        taken = native.shim_transmit(device.ports[port], queue, native.address_of(addresses), chunk)
        sent += taken
        if taken < chunk:
            break
    return sent


@kernel
def allocate(device, mbufs, count):
    """Stores the offsets of `count` fresh, empty mbufs in `mbufs`; returns `count`, or 0 if there are too few."""
    if native.shim_allocate(device.pool[0], native.address_of(mbufs), count) == 0:
        return 0
    base = device.base[0]
    for place in range(count):
        mbufs[place] -= base
    return count


@kernel
def available(device):
    """Returns how many mbufs are free. It goes over the caches of all cores: not for every burst."""
    return native.shim_pool_available(device.pool[0])


@kernel
def release(device, mbufs, count):
    """Frees `mbufs[:count]`, each with all its segments."""
    base, addresses = device.base[0], device.addresses
    done = 0
    while done < count:
        chunk = min(count - done, addresses.size)
        for place in range(chunk):
            addresses[place] = mbufs[done + place] + base
        native.shim_release(native.address_of(addresses), chunk)
        done += chunk


@kernel
def pause(device, microseconds):
    """Gives the core away for about `microseconds`."""
    native.usleep(np.uint32(microseconds))
