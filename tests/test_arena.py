"""Packet memory without DPDK: the layout of mbufs, the overlays, and where free mbufs are at home."""
import numpy as np
import pytest

from pipeline.io.frames import frame_bytes, segments_of, write_frames
from pipeline.io.memory_pool import ELEMENT, MemoryPool, make_arena
from pipeline.kernels import memory_device
from pipeline.kernels.headers import BUFFER, HEADROOM, MBUF, MBUF_ALIGNMENT


def test_every_mbuf_is_aligned_and_initialised_as_dpdk_does():
    arena = make_arena(50)
    assert arena.base % MBUF_ALIGNMENT == 0 and ELEMENT % MBUF_ALIGNMENT == 0
    assert len(arena.octets) == 50 * ELEMENT and arena.octets.ctypes.data == arena.base
    for number in range(50):
        record = arena.native.mbuf[number * ELEMENT]
        assert record.buffer_address == arena.base + number * ELEMENT + MBUF.itemsize
        assert (record.data_off, record.refcnt, record.segments, record.next) == (HEADROOM, 1, 1, 0)
        assert record.buffer_length == HEADROOM + BUFFER


def test_the_two_overlays_are_one_memory_in_two_byte_orders():
    arena = make_arena(2)
    place = 301
    arena.wire.tcp[place].seq = 0x01020304
    assert arena.octets[place + 4:place + 8].tolist() == [1, 2, 3, 4]
    assert arena.native.tcp[place].seq == 0x04030201
    arena.native.tcp[place].window = 0x0102
    assert arena.wire.tcp[place].window == 0x0201


def test_an_overlay_reaches_the_last_octet_and_no_further():
    arena = make_arena(1)
    last = len(arena.octets) - arena.wire.icmp.dtype.itemsize
    arena.wire.icmp[last].sequence = 0xABCD
    assert arena.octets[-2:].tolist() == [0xAB, 0xCD]
    with pytest.raises(IndexError):
        arena.wire.icmp[last + 1]


def test_a_frame_of_64_kib_lies_in_chained_segments():
    pool = MemoryPool(200)
    frame = np.random.default_rng(1).bytes(65536)
    first = int(write_frames(pool, [frame], segment_length=1000)[0])
    chain = list(segments_of(pool.arena, first))
    record = pool.arena.native.mbuf[first]
    assert (len(chain), record.segments, record.packet_length) == (66, 66, 65536)
    assert frame_bytes(pool.arena, first) == frame
    assert pool.available == 200 - 66
    pool.release([first])
    assert pool.available == 200
    assert pool.arena.native.mbuf[first].next == 0


@pytest.mark.parametrize("length", [0, -1, BUFFER + 1])
def test_a_segment_that_no_mbuf_holds_is_refused(length):
    pool = MemoryPool(20)
    with pytest.raises(ValueError, match=f"segment_length {length}: .* 1 to {BUFFER}"):
        write_frames(pool, [b"x" * 100], segment_length=length)
    assert pool.available == 20


def test_a_pool_that_runs_short_says_so_and_writes_nothing():
    pool = MemoryPool(20)
    with pytest.raises(MemoryError, match="10 free mbufs on the feeding side and 11 are needed"):
        write_frames(pool, [b"x"] * 11)
    assert pool.available == 20
    assert len(pool.allocate(10)) == 10


def test_mbufs_come_fresh_whatever_was_done_to_them():
    pool = MemoryPool(2)
    (mbuf,) = pool.allocate(1)
    record = pool.arena.native.mbuf[mbuf]
    record.data_off, record.data_length, record.packet_length, record.port, record.offload = 7, 9, 9, 3, 5
    pool.release([mbuf])
    assert pool.allocate(1)[0] == mbuf
    assert (record.data_off, record.data_length, record.packet_length) == (HEADROOM, 0, 0)
    assert (record.port, record.offload) == (memory_device.NO_PORT, 0)


def test_a_segment_that_others_hold_is_freed_by_the_last():
    pool = MemoryPool(4)
    (mbuf,) = pool.allocate(1)
    pool.arena.native.mbuf[mbuf].refcnt = 2
    pool.release([mbuf])
    assert pool.available == 3
    pool.release([mbuf])
    assert pool.available == 4


def test_free_mbufs_go_home_from_either_side():
    pool = MemoryPool(16)
    worker, out = pool.device, np.empty(16, np.int64)
    for _ in range(100):
        mine = pool.allocate(8)
        memory_device.release(worker, mine, 8)
        assert memory_device.allocate(worker, out, 8) == 8
        assert set(out[:8].tolist()).isdisjoint(mine.tolist())
        pool.release(out[:8])
    assert pool.available == 16
    assert memory_device.allocate(worker, out, 9) == 0


@pytest.mark.parametrize("workers", [1, 2, 3, 5])
@pytest.mark.parametrize("mbufs", [60, 61, 64])
def test_every_mbuf_goes_home_whoever_frees_it(workers, mbufs):
    pool = MemoryPool(mbufs, workers=workers)
    sides = [*pool.devices, pool.feeding]
    shares = [int(side.free_count[0]) for side in sides]
    assert sum(shares) == mbufs and max(shares) - min(shares) <= 1
    for turn in range(1, 3 * len(sides)):
        held = [np.empty(share, np.int64) for share in shares]
        for side, mine in zip(sides, held, strict=True):
            assert memory_device.allocate(side, mine, len(mine)) == len(mine)
            assert (mine >= side.home[0]).all() and (mine < side.home[1]).all()
            assert memory_device.available(side) == 0
        assert len(np.unique(np.concatenate(held))) == mbufs
        shuffled = np.random.default_rng(turn).permutation(np.concatenate(held))
        for number, side in enumerate(sides):
            freed = shuffled[number::len(sides)].copy()
            memory_device.release(side, freed, len(freed))
        assert [memory_device.available(side) for side in sides] == shares and pool.available == mbufs


def test_workers_hand_mbufs_over_on_the_ring_that_is_named():
    pool = MemoryPool(48, ports=2, ring_size=8, workers=2)
    giver, taker = pool.devices
    mine, came = np.empty(12, np.int64), np.empty(12, np.int64)
    assert memory_device.allocate(giver, mine, 12) == 12
    ring = (0 * 2 + 1) * 2 + 1
    assert memory_device.hand_over(giver, ring, mine, 1, 11) == 8 and memory_device.hand_over(giver, ring, mine, 9, 3) == 0
    assert [memory_device.waiting(taker, number) for number in range(8)] == [8 * (number == ring) for number in range(8)]
    assert memory_device.take_over(taker, ring - 1, came, 12) == 0
    assert memory_device.take_over(taker, ring, came, 5) == 5 and came[:5].tolist() == mine[1:6].tolist()
    assert memory_device.take_over(taker, ring, came, 100) == 3 and came[:3].tolist() == mine[6:9].tolist()
    memory_device.release(taker, mine[1:9].copy(), 8)
    memory_device.release(giver, np.concatenate([mine[:1], mine[9:]]), 4)
    assert memory_device.available(giver) == 16 and pool.available == 48


@pytest.mark.parametrize("settings, fault", [({"mbufs": 1}, "mbufs = 1"), ({"ring_size": 1000}, "ring_size = 1000"),
                                             ({"mbufs": 2, "workers": 2}, "mbufs = 2: .* at least 3"), ({"workers": 0}, "workers = 0")])
def test_a_pool_that_cannot_be_is_refused(settings, fault):
    with pytest.raises(ValueError, match=fault):
        MemoryPool(**settings)
