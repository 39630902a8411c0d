"""Inserts a timestamps option toward a client that was promised timestamps by a target that declines them (SPLICE 2.5).

Every segment but a RST has to carry one from then on (RFC 7323, section 3.2).
"""
from numpy import int64

from .checksum import difference, fold, update
from .connection import CLIENT, PROMISED_TIMESTAMPS, SPECIAL
from .jit import kernel
from .native import record_at, swap16, swap32
from .tcp_options import ALIGNED_TIMESTAMPS, TIMESTAMPS_LENGTH, stamp_clock

LONGEST_HEADER = 60


@kernel
def inserted_toward(connections, connection, side):
    """Returns how many bytes are inserted into each segment toward a side: the path MTU is that much less for the other."""
    special = record_at(connections.hot, connection).options & SPECIAL
    if side != CLIENT or special == 0 or record_at(connections.cold, connection).special & PROMISED_TIMESTAMPS == 0:
        return 0
    return TIMESTAMPS_LENGTH


@kernel
def move_headers(packets, base, batch, row, by):
    """Moves all headers of a row `by` bytes toward the start of the mbuf, and makes it that much longer."""
    frame, stop = batch.frame[row], batch.payload[row]
    for at in range(frame, stop):
        packets.octets[at - by] = packets.octets[at]
    mbuf = record_at(packets.mbuf, batch.mbuf[row])
    mbuf.data_off = int64(mbuf.data_off) - by
    mbuf.data_length = int64(mbuf.data_length) + by
    mbuf.packet_length = int64(mbuf.packet_length) + by
    batch.frame[row] -= by
    batch.network[row] -= by
    batch.transport[row] -= by


@kernel
def insert_timestamps(packets, base, batch, row, connections, connection, now):
    """Inserts NOP, NOP, timestamps behind the TCP header of a row; returns what that adds to the checksum's sum.

    A header without room for it (RFC 9293 allows 60 bytes) stays as it is.
    """
    hot, cold = record_at(connections.hot, connection), record_at(connections.cold, connection)
    header = batch.payload[row] - batch.transport[row]
    if header + TIMESTAMPS_LENGTH > LONGEST_HEADER or int64(record_at(packets.mbuf, batch.mbuf[row]).data_off) < TIMESTAMPS_LENGTH:
        return 0
    move_headers(packets, base, batch, row, TIMESTAMPS_LENGTH)
    ip, tcp = record_at(packets.ipv4, batch.network[row]), record_at(packets.tcp, batch.transport[row])
    long = swap16(swap16(int64(ip.total_length)) + TIMESTAMPS_LENGTH)
    ip.checksum = update(int64(ip.checksum), difference(int64(ip.total_length), long))
    ip.total_length = long
    before = int64(tcp.data_offset)
    tcp.data_offset = before + (TIMESTAMPS_LENGTH << 2)
    at = batch.transport[row] + header
    words = packets.word32
    record_at(words, at).value = ALIGNED_TIMESTAMPS
    record_at(words, at + 4).value = swap32(stamp_clock(connections, hot, now))
    record_at(words, at + 8).value = swap32(int64(record_at(connections.openings, int64(cold.opening)).stamp))
    total = difference(before, int64(tcp.data_offset)) + swap16(TIMESTAMPS_LENGTH)
    for word in range(at, at + TIMESTAMPS_LENGTH, 4):
        total += int64(record_at(words, word).value)
    return fold(total)
