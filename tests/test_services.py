"""Source ports against a first-in, first-out queue, and the look-up of services."""

import collections

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from kernel_bed import PORT, SERVICE, KernelBed, address, generated

from pipeline.kernels.services import SERVICE as SERVICE_ROW
from pipeline.kernels.services import find_service
from pipeline.kernels.source_ports import LAST, SourcePorts, give_source, take_source


def source_ports(sizes):
    """Returns `SourcePorts` with a pool for each of `sizes`, and the queues that they equal."""
    most = max(max(sizes), 1)
    ring = np.zeros((len(sizes), most), np.uint32)
    queues = []
    for pool, size in enumerate(sizes):
        queues.append(collections.deque(range(1000 * (pool + 1), 1000 * (pool + 1) + size)))
        ring[pool, :size] = queues[-1]
    sources = SourcePorts(ring, np.zeros(len(sizes), np.int64), np.array(sizes, np.int64), np.zeros((len(sizes), 1), np.int64),
                          np.zeros((len(sizes), 1), LAST).view(np.recarray))
    return sources, queues


@generated
@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=3),
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), max_size=80),
)
def test_source_ports_are_a_queue_for_each_pool(sizes, steps):
    sources, queues = source_ports(sizes)
    taken = [[] for _ in sizes]
    for pool, choice in steps:
        pool %= len(sizes)
        if choice and taken[pool]:
            entry = taken[pool].pop(choice % len(taken[pool]))
            give_source(sources, pool, entry)
            queues[pool].append(entry)
        else:
            entry = take_source(sources, pool)
            assert entry == (queues[pool].popleft() if queues[pool] else -1)
            if entry >= 0:
                taken[pool].append(int(entry))
        assert sources.free.tolist() == [len(queue) for queue in queues]


def test_the_port_given_back_last_is_used_again_last():
    sources, _ = source_ports([4])
    first = take_source(sources, 0)
    give_source(sources, 0, first)
    assert [int(take_source(sources, 0)) for _ in range(5)] == [1001, 1002, 1003, 1000, -1]


def test_entries_of_the_whole_range_are_kept_exactly():
    sources, _ = source_ports([1])
    take_source(sources, 0)
    give_source(sources, 0, 0xFFFF_FFFF)
    assert take_source(sources, 0) == 0xFFFF_FFFF


def test_services_are_found_by_address_and_port_both():
    rows = KernelBed().state.selection.services
    at = address(SERVICE)
    assert [find_service(rows, at, PORT), find_service(rows, at, PORT + 1)] == [0, 1]
    assert [find_service(rows, at, PORT + 2), find_service(rows, at + 1, PORT), find_service(rows[:0], at, PORT)] == [
        -1
    ] * 3


addresses = st.integers(0x0A010000, 0x0A01000F)
places = st.tuples(addresses, st.sampled_from([0xFFFFFFFF, 0xFFFFFFFE, 0xFFFFFFFC, 0xFFFFFFF0]), st.integers(78, 84), st.integers(0, 4))


@generated
@given(st.lists(places, max_size=6), addresses, st.integers(77, 90))
def test_the_most_specific_service_is_found(listed, at, port):
    rows = np.zeros(len(listed), SERVICE_ROW).view(np.recarray)
    fits = []
    for number, (first, mask, low, more) in enumerate(listed):
        rows[number].address, rows[number].mask, rows[number].port, rows[number].last_port = first & mask, mask, low, low + more
        if at & mask == first & mask and low <= port <= low + more:
            fits.append((-mask, more, number))
    assert find_service(rows, at, port) == (min(fits)[2] if fits else -1)
