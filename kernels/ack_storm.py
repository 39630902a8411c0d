"""ACK storms: two ends that answer each other's acknowledgements for ever, cut by dropping one (SPLICE 4.3).

Each end takes the other's numbers for wrong and says so with an acknowledgement, which the other end takes for wrong too.
What tells a storm from all else is that duplicates come from both sides in turn and nothing moves meanwhile: those that ask
for a fast retransmission come from one side, keep-alives and probes of a window are one number behind.
"""
from numpy import int64

from .connection import CLIENT, TARGET
from .headers import ACK, TCP_LENGTH
from .jit import kernel
from .native import record_at
from .tcp_options import TIMESTAMPS_LENGTH

TICKS_A_SECOND = 100
SPREAD = 0x9E3779B1
"""2**32 over the golden ratio: spreads small differences over all bits."""


@kernel
def is_duplicate(batch, row, hot, side):
    """Says whether a row is a bare acknowledgement that says nothing new, in its side's own numbers; SACK says something."""
    if batch.payload_length[row] != 0 or batch.control[row] != ACK or batch.ack[row] != int64(hot.acked[side]):
        return False
    plain = TCP_LENGTH + (TIMESTAMPS_LENGTH if batch.stamps[row] != 0 else 0)
    return batch.seq[row] == int64(hot.next[side]) and batch.payload[row] - batch.transport[row] <= plain


@kernel
def digest(hot, window):
    """Returns 4 bits that change, but for once in 16 times, with a side's window and with what both have sent and acknowledged."""
    total = (int64(hot.next[CLIENT]) + 3 * int64(hot.next[TARGET]) + 5 * int64(hot.acked[CLIENT]) + 7 * int64(hot.acked[TARGET])
             + 11 * window)
    return (((total & 0x7FFFFFFF) * SPREAD) >> 24) & 0x0F


@kernel
def is_storm(hot, cold, side, window, most, tick):
    """Counts a duplicate of `side` if the last one was the other's; says whether there were more than `most` this second.

    Progress, another window or another second start the count anew.
    """
    second, known = (tick // TICKS_A_SECOND) & 0x7F, digest(hot, window)
    last = int64(cold.last_duplicate)
    cold.last_duplicate = (second << 1) | side
    if last >> 1 != second or known != int64(cold.known) >> 4 * side & 0x0F:
        cold.duplicates, cold.known = 0, int64(cold.known) & 0xF0 >> 4 * side | known << 4 * side
        return False
    if last & 1 != side:
        cold.duplicates = min(int64(cold.duplicates) + 1, 0xFF)
    return int64(cold.duplicates) > most


@kernel
def cuts_storm(batch, row, connections, connection, side, tick):
    """Says whether a row is part of an ACK storm and is to be dropped."""
    hot = record_at(connections.hot, connection)
    if not is_duplicate(batch, row, hot, side):
        return False
    return is_storm(hot, record_at(connections.cold, connection), side, batch.window[row], connections.budget[4], tick)
