"""Frames as bytes, in and out of mbufs: for tests, recordings and tools, not for the data path."""
import numpy as np

from pipeline.kernels.headers import BUFFER


def segments_of(arena, mbuf):
    """Yields the offset of the mbuf at `mbuf` and those of the segments chained to it."""
    while True:
        yield mbuf
        following = int(arena.wire.mbuf[mbuf].next)
        if not following:
            return
        mbuf = following - arena.base


def octets_of(arena, mbuf):
    """Returns the octets of one segment (the mbuf at offset `mbuf`) as a view of the arena (uint8[n])."""
    record = arena.wire.mbuf[mbuf]
    start = int(record.buffer_address) + int(record.data_off) - arena.base
    return arena.octets[start:start + int(record.data_length)]


def frame_bytes(arena, mbuf):
    """Returns a copy of the whole frame that starts with the mbuf at offset `mbuf`, all segments joined."""
    return b"".join(octets_of(arena, segment).tobytes() for segment in segments_of(arena, mbuf))


def pieces(frame, segment_length):
    """Cuts a frame (bytes) into what its segments hold: `segment_length` octets each (at most BUFFER, the default).

    Raises ValueError for a length that no mbuf holds.
    """
    length = BUFFER if segment_length is None else segment_length
    if not 0 < length <= BUFFER:
        raise ValueError(f"segment_length {segment_length}: an mbuf holds 1 to {BUFFER} octets of a frame")
    return [frame[start:start + length] for start in range(0, len(frame), length)] or [b""]


def write_frame(arena, mbufs, parts):
    """Writes one frame, cut into `parts` (bytes), into fresh mbufs at the offsets `mbufs` and chains them."""
    overlay = arena.wire.mbuf
    for mbuf, part in zip(mbufs, parts, strict=True):
        record = overlay[mbuf]
        record.data_length = len(part)
        octets_of(arena, mbuf)[:] = np.frombuffer(part, np.uint8)
    for mbuf, following in zip(mbufs, mbufs[1:], strict=False):
        overlay[mbuf].next = arena.base + int(following)
    first = overlay[mbufs[0]]
    first.segments = len(parts)
    first.packet_length = sum(map(len, parts))


def write_frames(pool, frames, segment_length=None):
    """Writes `frames` (bytes each) into fresh mbufs of `pool`; returns the offsets of their first mbufs (int64[n]).

    `segment_length` cuts each frame into chained mbufs of that many octets. Raises MemoryError, with nothing
    written, when the pool has too few mbufs.
    """
    cut = [pieces(frame, segment_length) for frame in frames]
    needed = sum(map(len, cut))
    mbufs = pool.allocate(needed)
    firsts, place = np.empty(len(cut), np.int64), 0
    for number, parts in enumerate(cut):
        firsts[number] = mbufs[place]
        write_frame(pool.arena, mbufs[place:place + len(parts)], parts)
        place += len(parts)
    return firsts
