"""Packets that workers hand over to each other on DPDK's rings: none is lost, none comes twice, and they come in order."""
import contextlib
import threading

import numpy as np
import pytest
from dpdk_bed import MBUFS

from pipeline.kernels import dpdk_device
from pipeline.kernels.jit import loop

dpdk = pytest.importorskip("pipeline.io.dpdk", reason="DPDK is not installed", exc_type=ImportError)

FROM_0_TO_1, FROM_1_TO_0 = 3, 5
"""Numbers of the rings of port 1 between two workers with two ports: (from * 2 + to) * 2 + 1."""


@loop
def give(device, ring, mbufs, first, count):
    """`hand_over` for Python."""
    return dpdk_device.hand_over(device, ring, mbufs, first, count)


@loop
def take(device, ring, mbufs, limit):
    """`take_over` for Python."""
    return dpdk_device.take_over(device, ring, mbufs, limit)


@loop
def waiting(device, ring):
    """`waiting` for Python."""
    return dpdk_device.waiting(device, ring)


@loop
def give_all(device, ring, mbufs, sent, rounds):
    """Hands `rounds` mbufs over, as many at a time as it likes, and stores them in `sent`."""
    given = 0
    while given < rounds:
        count = min(1 + given % 60, rounds - given)
        if dpdk_device.allocate(device, mbufs, count) == 0:
            continue
        for place in range(count):
            sent[given + place] = mbufs[place]
        done = 0
        while done < count:
            done += dpdk_device.hand_over(device, ring, mbufs, done, count - done)
        given += count
    return given


@loop
def take_all(device, ring, mbufs, taken, rounds):
    """Takes `rounds` mbufs over and frees them."""
    got = 0
    while got < rounds:
        count = dpdk_device.take_over(device, ring, mbufs, 32)
        for place in range(count):
            taken[got + place] = mbufs[place]
        dpdk_device.release(device, mbufs, count)
        got += count
    return got


@pytest.fixture
def rings(pool):
    with contextlib.closing(dpdk.HandOverRings(2, 2, 1024, pool)) as made:
        yield made


def test_there_is_a_ring_between_any_two_workers_for_each_port(pool, rings):
    rows = rings.addresses.reshape(2, 2, 2)
    assert (rows[0, 0] == 0).all() and (rows[1, 1] == 0).all()
    assert len(set(rings.addresses.tolist()) - {0}) == 4


def test_a_ring_takes_what_has_room_and_gives_it_in_order(pool, rings):
    giver, taker = dpdk.device(pool, [], 0, rings.addresses), dpdk.device(pool, [], 1, rings.addresses)
    mbufs, got = pool.allocate(2000), np.zeros(64, np.int64)
    assert give(giver, FROM_0_TO_1, mbufs, 5, 1500) == 1023 and give(giver, FROM_0_TO_1, mbufs, 1028, 1) == 0
    assert waiting(taker, FROM_0_TO_1) == 1023 and waiting(giver, FROM_1_TO_0) == waiting(giver, FROM_0_TO_1 - 1) == 0
    assert take(taker, FROM_0_TO_1, got, 40) == 40 and (got[:40] == mbufs[5:45]).all() and (got[40:] == 0).all()
    assert take(taker, FROM_0_TO_1, got, 1000) == 64 and (got == mbufs[45:109]).all()
    assert give(giver, FROM_0_TO_1, mbufs, 1028, 972) == 104 and take(taker, FROM_1_TO_0, got, 64) == 0
    pool.release(np.concatenate((mbufs[:5], mbufs[5:109], mbufs[1132:])))


def test_what_lies_in_rings_is_freed_with_them(pool):
    with contextlib.closing(dpdk.HandOverRings(3, 1, 64, pool)) as rings:
        device = dpdk.device(pool, [], 0, rings.addresses)
        for number in (1, 2, 3, 7):
            assert give(device, number, pool.allocate(60), 0, 60) == 60
        assert pool.available == MBUFS - 240
    assert pool.available == MBUFS
    rings.close()
    dpdk.HandOverRings(3, 1, 64, pool).close()


def test_two_workers_hand_over_without_losing_one(pool, rings):
    rounds = 200_000
    sent, taken = np.zeros(rounds, np.int64), np.zeros(rounds, np.int64)
    devices = [dpdk.device(pool, [], worker, rings.addresses) for worker in (0, 1)]
    scratch = [np.zeros(64, np.int64) for _ in devices]
    give_all(devices[0], FROM_0_TO_1, scratch[0], sent, 0)
    take_all(devices[1], FROM_0_TO_1, scratch[1], taken, 0)
    giver = threading.Thread(target=give_all, args=(devices[0], FROM_0_TO_1, scratch[0], sent, rounds))
    giver.start()
    assert take_all(devices[1], FROM_0_TO_1, scratch[1], taken, rounds) == rounds
    giver.join()
    assert (sent == taken).all() and pool.available == MBUFS


@pytest.mark.parametrize("size, name, fault", [
    (1000, "hand_over", "size = 1000, a power of two"), (64, "two words", "rings 'two words': a name of letters")])
def test_rings_that_cannot_be_are_refused_in_a_sentence(pool, size, name, fault):
    with pytest.raises(dpdk.DpdkError, match=fault):
        dpdk.HandOverRings(2, 1, size, pool, name)


def test_a_name_is_taken_once_and_nothing_is_left_of_the_second(pool, rings):
    with pytest.raises(dpdk.DpdkError, match="ring hand_over_2 from worker 1 to worker 0: File exists"):
        dpdk.HandOverRings(2, 1, 64, pool)


def test_a_worker_without_a_queue_is_refused(pool):
    with contextlib.closing(dpdk.Port("net_null0", "null", pool, queues=2)) as port:
        device = dpdk.device(pool, [port], 1)
        assert (device.ports.tolist(), device.queues.tolist()) == ([port.number], [1])
        with pytest.raises(dpdk.DpdkError, match=r"port 'null' \(net_null0\): worker 2 has no queue, queues = 2"):
            dpdk.device(pool, [port], 2)
