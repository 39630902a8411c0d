"""Repetition: what a segment of a shaped side says again is made what it was the first time (SPLICE 1.4)."""
from numpy import int64

from .checksum import fold, pseudo_header, sum_chain
from .copying import replace_payload
from .counters import DROP_FIRST_COPY_GONE, NOTICE_REPEATED_OTHERWISE
from .first_copies import NONE, PIECE_BYTES
from .jit import kernel
from .native import record_at
from .sequence import distance, wrap
from .shaping import NOT_BEGUN, acknowledged


@kernel
def seal(packets, base, batch, row):
    """Computes the TCP checksum of a row in full."""
    tcp = record_at(packets.tcp, batch.transport[row])
    length = batch.payload[row] - batch.transport[row] + batch.payload_length[row]
    tcp.checksum = 0
    total = sum_chain(packets, base, batch.mbuf[row], batch.transport[row], length)
    tcp.checksum = 0xFFFF - fold(total + pseudo_header(packets, batch.network[row], length))


@kernel
def put_first_copy(packets, base, batch, row, copies, flow, start, stop):
    """Writes what is kept over bytes start .. stop - 1 of a row's payload; returns how many were others before, -1 where not
    all of them are kept."""
    piece, seq, others = int64(copies.first[flow]), batch.seq[row], 0
    if piece == NONE or distance(copies.seq[piece], wrap(seq + start)) > 0:
        return -1
    while start < stop and piece != NONE:
        skip = distance(wrap(seq + start), copies.seq[piece])
        part = min(copies.length[piece] - skip, stop - start)
        if part > 0:
            others += replace_payload(packets, base, batch.mbuf[row], batch.payload[row], start, part, copies.octets,
                                      piece * PIECE_BYTES + skip)
            start += part
        piece = copies.following[piece]
    return others if start == stop else -1


@kernel
def restore(packets, base, batch, row, connections):
    """Makes what a row repeats of payload that was shown the first copy of that; returns -1, or why its connection has to end.

    What its receiver has acknowledged is left out later on (`reshape`). Bytes that are no longer kept cannot be passed
    unseen, and nobody can supply them: to drop them would have both ends wait for a time-out.
    """
    flow, shaped, seq = batch.flow[row], connections.shaped, batch.seq[row]
    stop = min(distance(shaped.seen[flow], seq), batch.payload_length[row])
    if shaped.position[flow] == NOT_BEGUN or stop <= 0:
        return -1
    start = max(distance(acknowledged(connections, flow), seq), 0)
    if start >= stop:
        return -1
    others = put_first_copy(packets, base, batch, row, shaped.copies, flow, start, stop)
    if others < 0:
        return DROP_FIRST_COPY_GONE
    if others > 0:
        connections.counters.notices[NOTICE_REPEATED_OTHERWISE] += 1
        seal(packets, base, batch, row)
    return -1
