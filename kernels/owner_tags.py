"""Owner tags: whose each mbuf is, so that a worker that touches another's is caught. For `isolation = "checked"` alone.

An mbuf is a worker's from the moment at which it receives, allocates or takes it over, until it sends, frees or hands it over;
then it is nobody's: the device's, the pool's, or on its way. What waits in a worker meanwhile stays its own. What a worker
gives away is marked before it is given: the next one may have it at once.

Kernels do not raise, but for these: a worker that is caught does not go on with what is broken.
"""
from typing import NamedTuple

import numpy as np
from numpy import int64

from .jit import kernel
from .native import record_at

NOBODY = 0
PLACE_BITS = 7
"""No two mbufs begin within the same 128 octets, which are the size of the rte_mbuf itself."""
KEPT = 64
RECEIVED, ALLOCATED, TAKEN_OVER, SENT, FREED, HANDED_OVER = range(6)
DONE = ("received", "allocated", "took over", "sent", "freed", "handed over")
"""What a worker did, by these numbers."""


class OwnershipError(Exception):
    """A worker got an mbuf that somebody held, or gave away one that was not its own; `Owned.noted` says which."""


class Owned(NamedTuple):
    """A worker's device with the tags beside it.

    `ports` is the `Device` (dpdk_device's or memory_device's); `mbuf` the arena's mbuf overlay; `tags` uint8[n], one array for
    all workers: tag of the mbuf at an offset at `offset >> PLACE_BITS`, NOBODY or worker + 1; `tag` int64[1]: this worker's;
    `violations` int64[1]: how many were caught; `noted` int64[KEPT, 3]: of the first ones what was done (RECEIVED ..), the
    mbuf's offset, the tag that it had (-1: there is no such mbuf).
    """

    ports: NamedTuple
    mbuf: np.ndarray
    tags: np.ndarray
    tag: np.ndarray
    violations: np.ndarray
    noted: np.ndarray


@kernel
def note(owned, done, offset, found):
    """Counts a violation, and keeps the first ones for the message."""
    number = owned.violations[0]
    if number < owned.noted.shape[0]:
        owned.noted[number, 0], owned.noted[number, 1], owned.noted[number, 2] = done, offset, found
    owned.violations[0] = number + 1


@kernel
def change(owned, mbufs, first, count, before, after, done):
    """Changes the tags of `mbufs[first:first + count]`, each with all its segments, from `before` to `after`.

    Where a tag is another one than `before` that is a violation, and the mbuf's further segments are left alone. Raises
    OwnershipError in the end where there was one.
    """
    tags, caught = owned.tags, owned.violations[0]
    for place in range(first, first + count):
        offset = mbufs[place]
        alone = True
        while offset >= 0 and offset >> PLACE_BITS < tags.shape[0]:
            number = offset >> PLACE_BITS
            if tags[number] != before:
                note(owned, done, offset, int64(tags[number]))
                break
            tags[number] = after
            record = record_at(owned.mbuf, offset)
            if alone and record.segments == 1:
                break
            alone = False
            following = int64(record.next)
            if following == 0:
                break
            offset = following - owned.ports.base[0]
        if offset < 0 or offset >> PLACE_BITS >= tags.shape[0]:
            note(owned, done, offset, -1)
    if owned.violations[0] != caught:
        raise OwnershipError


@kernel
def get(owned, mbufs, first, count, done):
    """Marks `mbufs[first:first + count]` as this worker's, which were nobody's: they have come, or were to be given and found
    no room."""
    change(owned, mbufs, first, count, NOBODY, owned.tag[0], done)


@kernel
def give(owned, mbufs, first, count, done):
    """Marks `mbufs[first:first + count]` as nobody's, which were this worker's: before they are given away."""
    change(owned, mbufs, first, count, owned.tag[0], NOBODY, done)
