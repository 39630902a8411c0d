"""Packets copied for a recording while the loop runs: into blocks that Python writes to a file meanwhile.

A block is laid out as the file has it (`pipeline.io.recording`). The worker fills one after the other and hands them over
by `head`, Python gives them back by `tail`: one producer, one consumer, and nobody waits. What finds no block free is
counted and left out.
"""
from typing import NamedTuple

import numpy as np
from numpy import int64

from . import memory
from .checksum import data_start
from .copying import copy_payload
from .headers import HEADROOM, MBUF
from .jit import kernel
from .native import address_of, copy_octets, load_acquire, prefetch, record_at, store_release

RECEIVED, AGAIN, TIMERS, HANDED, SENT = range(5)
"""Kinds of bursts: of packets that came in by a port; of packets recorded before that come again; of no packets, for what
timers ordered; of packets that another worker handed over (recorded there); of packets that were sent."""
BURST = np.dtype([
    ("time", "<i8"), ("turn", "<i8"), ("packet", "<u4"), ("count", "<u4"), ("whole", "<u4"), ("port", "<u2"),
    ("kind", "u1"), ("phase", "u1"),
])
"""32 bytes: the loop's `now` (microseconds) and its number of the pass; first packet in the block, how many, and how many there
were before the filter and the limit; port; kind; what `control` asked of the worker (state.RUN, DRAIN, STOP)."""
PACKET = np.dtype([("offset", "<u4"), ("captured", "<u4"), ("length", "<u4")])
"""12 bytes: where its octets begin in the block, how many there are, and how many the frame had."""
BLOCK = np.dtype([
    ("magic", "S8"), ("worker", "<u4"), ("bursts", "<u4"), ("packets", "<u4"), ("octets", "<u4"), ("first", "<i8"),
    ("last", "<i8"), ("dropped", "<u8"), ("dropped_bursts", "<u8"), ("reserved", "<u8"),
])
"""64 bytes before a block: how many bursts, packets and octets it has, the times of its first and last burst, and how many
packets and bursts have been dropped until then."""
MAGIC = b"burstblk"

BURSTS, PACKETS, OCTETS, SINCE, NOW, FIRST_BURST, FIRST_PACKET, FIRST_OCTET = range(8)
"""`filled`: of the current block, when it was begun, the time of the pass, and where the block lies in the arrays."""
BLOCKS, MOST_BURSTS, MOST_PACKETS, MOST_OCTETS, SNAP = range(5)
"""`shape`: blocks, what each holds, and the snap length."""
RECORDED, DROPPED, DROPPED_BURSTS, SEEN = range(4)
"""`counted`: packets recorded; packets and bursts for which no block was free; packets that were looked at."""

MOST_A_BURST = 256
"""Packets that one burst in a recording has at most."""
STALE = 1_000_000
"""Microseconds after which a block is handed over though it is not full, so that little is lost with the process."""
AHEAD = 8
SLACK = 64
FRAME = MBUF.itemsize + HEADROOM


class Recorder(NamedTuple):
    """Blocks of one worker's, side by side in each array. What is handed over is numbered; `order` says in which block it is.

    Numbers tail .. head - 1 are Python's. Of those given back the worker takes the last one first: it may still be in a cache
    (in turns through 64 MiB recording cost 19 % of the connections workload, in turns through 4 MiB it cost 4 %).
    """

    bursts: np.ndarray    # BURST [blocks * MOST_BURSTS]
    packets: np.ndarray   # PACKET [blocks * MOST_PACKETS]
    octets: np.ndarray    # uint8 [blocks * MOST_OCTETS + SLACK]
    blocks: np.ndarray    # BLOCK [blocks]
    shape: np.ndarray     # int64 [5]
    filled: np.ndarray    # int64 [8]
    counted: np.ndarray   # int64 [4]
    left: np.ndarray      # int64 [1] packets still to be recorded; nothing is once it is 0, all are where it is negative
    order: np.ndarray     # int64 [blocks] the block of each number, modulo their count; that of `head` is the current one
    free: np.ndarray      # int64 [2 + blocks] numbers seen to be given back, how many blocks are free, and those, as a stack
    head: np.ndarray      # int64 [1] blocks handed over so far, written by the worker
    tail: np.ndarray      # int64 [1] blocks given back so far, written by Python


def stride_of(snap):
    """Returns how many octets a packet of `snap` takes in a block."""
    return -(-snap // 8) * 8


def allocate_recorder(buffer=0, snap=0, limit=-1, block=1 << 20):
    """Returns a `Recorder` of blocks with `block` octets, or what one burst may need; of about `buffer` octets in all.

    Without a `buffer` it takes next to no memory, and nothing may be recorded.
    """
    size = max(block, MOST_A_BURST * stride_of(snap)) if buffer else 0
    packets = max(size // 64, MOST_A_BURST) if buffer else 1
    bursts = max(packets // 4, 64) if buffer else 1
    blocks = max(buffer // (size + packets * PACKET.itemsize + bursts * BURST.itemsize), 3) if buffer else 1
    counters = [memory.on_lines(np.zeros(count, np.int64)) for count in (8, 4, 1, 1, 1)]
    counters[2][0] = limit
    order, free = (memory.on_lines(np.zeros(blocks + more, np.int64)) for more in (0, 2))
    free[1:blocks + 1] = [blocks - 1, *range(blocks - 1, 0, -1)]
    arrays = (memory.allocate(blocks * bursts, BURST), memory.allocate(blocks * packets, PACKET), memory.octets(blocks * size + SLACK))
    for array in arrays:  # written here, so that its pages are there before packets come
        array.view(np.uint8)[:] = 0
    return Recorder(*arrays, memory.allocate(blocks, BLOCK), np.array([blocks, bursts, packets, size, snap], np.int64),
                    *counters[:3], order, free, *counters[3:])


@kernel
def free_blocks(recorder):
    """Returns how many blocks are free, those that Python has given back since taken in."""
    order, free, tail = recorder.order, recorder.free, load_acquire(address_of(recorder.tail))
    while free[0] < tail:
        free[2 + free[1]] = order[free[0] % recorder.shape[BLOCKS]]
        free[0] += 1
        free[1] += 1
    return free[1]


@kernel
def hand_over_block(recorder):
    """Hands the current block over to Python, a free one becomes the current one: the caller knows that there is one."""
    filled, shape, head, free = recorder.filled, recorder.shape, recorder.head[0], recorder.free
    block = record_at(recorder.blocks, head % shape[BLOCKS])
    block.bursts, block.packets, block.octets = filled[BURSTS], filled[PACKETS], filled[OCTETS]
    block.dropped, block.dropped_bursts = recorder.counted[DROPPED], recorder.counted[DROPPED_BURSTS]
    free[1] -= 1
    following = free[2 + free[1]]
    recorder.order[(head + 1) % shape[BLOCKS]] = following
    filled[BURSTS], filled[PACKETS], filled[OCTETS] = 0, 0, 0
    filled[FIRST_BURST], filled[FIRST_PACKET] = following * shape[MOST_BURSTS], following * shape[MOST_PACKETS]
    filled[FIRST_OCTET] = following * shape[MOST_OCTETS]
    store_release(address_of(recorder.head), head + 1)


@kernel
def has_room(recorder, count, now):
    """Says whether a burst of `count` packets can be recorded; a block that is full or stale is handed over before that."""
    filled, shape = recorder.filled, recorder.shape
    needed = count * ((shape[SNAP] + 7) & -8)
    full = (filled[BURSTS] >= shape[MOST_BURSTS] or filled[PACKETS] + count > shape[MOST_PACKETS]
            or filled[OCTETS] + needed > shape[MOST_OCTETS])
    if full or (filled[BURSTS] > 0 and now - filled[SINCE] > STALE):
        if free_blocks(recorder) > 0:
            hand_over_block(recorder)
        elif full:
            return False
    return True


@kernel
def begin_burst(recorder, count, now):
    """Says whether a burst of at most MOST_A_BURST packets is to be recorded; `end_burst` has to follow then.

    Counts those that find no room.
    """
    if recorder.left[0] == 0:
        return False
    recorder.counted[SEEN] += count
    if not has_room(recorder, count, now):
        recorder.counted[DROPPED] += count
        recorder.counted[DROPPED_BURSTS] += 1
        return False
    if recorder.filled[BURSTS] == 0:
        recorder.filled[SINCE] = now
    return True


@kernel
def end_burst(recorder, number, octets, whole, port, kind, phase, turn, now):
    """Ends a burst: the block has `number` packets and that many `octets` now; `whole` packets were looked at."""
    filled = recorder.filled
    count = number - filled[PACKETS]
    row = record_at(recorder.bursts, filled[FIRST_BURST] + filled[BURSTS])
    row.time, row.turn, row.packet, row.count, row.whole = now, turn, filled[PACKETS], count, whole
    row.port, row.kind, row.phase = port, kind, phase
    filled[BURSTS] += 1
    filled[PACKETS], filled[OCTETS] = number, octets
    recorder.counted[RECORDED] += count
    if recorder.left[0] > 0:
        recorder.left[0] = max(recorder.left[0] - count, 0)


@kernel
def forget_last(recorder, count):
    """Takes the last `count` packets of the last burst out again: they could not be sent."""
    filled = recorder.filled
    if count <= 0 or filled[BURSTS] == 0:
        return
    row = record_at(recorder.bursts, filled[FIRST_BURST] + filled[BURSTS] - 1)
    kept = max(int64(row.count) - count, 0)
    filled[PACKETS] -= int64(row.count) - kept
    recorder.counted[RECORDED] -= int64(row.count) - kept
    row.count = kept


@kernel
def ask_for(base, mbufs, first, stop):
    """Asks for the memory of packets that are copied shortly: both cache lines that most of them fill."""
    for row in range(first, stop):
        mbuf = base + mbufs[row]
        prefetch(mbuf)
        prefetch(mbuf + FRAME)
        prefetch(mbuf + FRAME + 64)


@kernel
def keep(recorder, packets, base, mbuf, number, octets):
    """Copies a packet behind the `number` packets and `octets` of the current block; returns where the octets end then."""
    filled, frame = recorder.filled, record_at(packets.mbuf, mbuf)
    length = int64(frame.packet_length)
    captured = min(length, recorder.shape[SNAP])
    start, at = data_start(packets, base, mbuf), filled[FIRST_OCTET] + octets
    if captured <= int64(frame.data_length):
        copy_octets(recorder.octets, at, packets.octets, start, captured)
    else:
        copy_payload(packets, base, mbuf, start, 0, captured, recorder.octets, at)
    entry = record_at(recorder.packets, filled[FIRST_PACKET] + number)
    entry.offset, entry.captured, entry.length = octets, captured, length
    return octets + ((captured + 7) & -8)


@kernel
def every(octets, start, length):
    """Wants every packet: the filter where none is given."""
    return True
