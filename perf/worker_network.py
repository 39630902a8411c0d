"""Workers that a script in perf/ drives each from the worker's own thread, on its own core, and times together.

The load is made in a worker's own time slices: its driver allocates, feeds, takes and frees on the worker's own side of the
pool, between the calls of its loop and in the same thread, so each ring still has one producer and one consumer.
"""
import concurrent.futures
import os
import threading

import numpy as np

from pipeline import compiled_loop
from pipeline.io.memory_port import MemoryPort
from pipeline.kernels import memory_device
from pipeline.kernels.jit import kernel, loop
from pipeline.kernels.native import address_of, load_acquire, store_release, ticks

STRIDE = 8
"""int64 from one cell of a Meeting to the next: a cache line."""
GIVEN_UP = 1 << 62


@kernel
def meet(cells, place):
    """Waits, spinning, until all others (one a STRIDE of `cells`, int64[n * STRIDE]) have come as often as this one."""
    come = cells[place * STRIDE] + 1
    store_release(address_of(cells) + 8 * STRIDE * place, come)
    for other in range(cells.shape[0] // STRIDE):
        while load_acquire(address_of(cells) + 8 * STRIDE * other) < come:
            pass


@kernel
def timed_passes(entry, state, passes, now):
    """Makes passes of the loop that has this entry, from the time `now` on; returns the ticks that they took."""
    if passes == 0:
        return 0
    state.clock[1] = now
    state.clock[0] = start = ticks()
    compiled_loop.call(entry, state, passes, -1)
    return ticks() - start


@kernel
def bursts_handed_over(state):
    """Returns how many bursts lie in the fullest of the rings on which others hand over to this worker."""
    inputs, most = state.inputs, 0
    for entered in range(inputs.ring.shape[0]):
        if inputs.ring[entered] >= 0:
            most = max(most, memory_device.waiting(state.device, inputs.ring[entered]))
    return (most + state.burst[0] - 1) // state.burst[0]


@loop
def in_step(entry, state, passes, cells, place, now):
    """Makes passes at the same time as all others do, then as many as what was handed over meanwhile needs.

    Each pass has packets or timers to deal with. Returns the ticks, without those of waiting for each other.
    """
    meet(cells, place)
    taken = timed_passes(entry, state, passes, now)
    meet(cells, place)
    passed = (taken * state.clock[2]) >> 32
    return taken + timed_passes(entry, state, bursts_handed_over(state), now + passed)


class WorkerPool:
    """The mbufs of one worker's side of a MemoryPool, for a driver in the worker's own thread."""

    def __init__(self, pool, worker):
        self.arena, self.device, self.devices = pool.arena, pool.devices[worker], [pool.devices[worker]]

    def allocate(self, count):
        """Returns the offsets of `count` fresh mbufs (int64[count]), those first that others have just sent home."""
        mbufs = np.empty(count, np.int64)
        memory_device.take_home(self.device)
        if count and memory_device.allocate(self.device, mbufs, count) == 0:
            raise MemoryError(f"a worker has {int(self.device.free_count[0])} free mbufs, and its driver needs {count}")
        return mbufs

    def release(self, mbufs):
        """Frees the frames that start with the mbufs at the offsets `mbufs` (int64[n]), all segments."""
        mbufs = np.ascontiguousarray(mbufs, np.int64)
        memory_device.release(self.device, mbufs, len(mbufs))


class WorkerNetwork:
    """One worker's rings and mbufs of a MemoryPool with `ports` ports; to be used as a MemoryNetwork is."""

    def __init__(self, pool, worker, ports):
        self.pool = WorkerPool(pool, worker)
        self.arena, self.devices, self.device = pool.arena, self.pool.devices, self.pool.device
        self.ports = [MemoryPort(self.pool, number) for number in range(ports)]


class Meeting:
    """Where `count` threads wait for each other: compiled ones at `cells` (see `meet`), Python's in `swap`."""

    def __init__(self, count):
        self.cells = np.zeros(count * STRIDE, np.int64)
        self.posted, self.barrier = [None] * count, threading.Barrier(count)

    def swap(self, place, given):
        """Gives something to the next thread; returns what the one before gives. They have to `meet` before they do so again."""
        self.posted[place] = given
        self.barrier.wait()
        return self.posted[place - 1]

    def give_up(self, place):
        """Has nobody wait any longer for the one at `place`, who will not come."""
        self.cells[place * STRIDE] = GIVEN_UP
        self.barrier.abort()


class Threads:
    """A thread for each of `cores`, pinned to it."""

    def __init__(self, cores):
        self.members = [concurrent.futures.ThreadPoolExecutor(1, f"core {core}", os.sched_setaffinity, (0, {core}))
                        for core in cores]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for member in self.members:
            member.shutdown()

    def each(self, tasks):
        """Runs `task(meeting, place)` for each of `tasks` (as many as there are cores, or fewer: then on the last ones).

        Returns what they return, in order. Where one fails, all end, and what it raised is raised.
        """
        meeting = Meeting(len(tasks))

        def attend(task, place):
            try:
                return task(meeting, place)
            except BaseException:
                meeting.give_up(place)
                raise
        running = [member.submit(attend, task, place)
                   for place, (member, task) in enumerate(zip(self.members[-len(tasks):], tasks, strict=True))]
        concurrent.futures.wait(running)
        failures = [made.exception() for made in running if made.exception() is not None]
        for failure in sorted(failures, key=lambda error: isinstance(error, threading.BrokenBarrierError)):
            raise failure
        return [made.result() for made in running]
