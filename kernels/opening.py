"""Opening: the records of connections that are being opened, taken with the SYN and given back once that is done.

There are fewer of them than of connections (`engine.opening_connections`), and those taken last are taken first, so that
they stay in the cache where most of what there is to know of a connection does not.
"""
from numpy import int64

from .connection import (
    AGED,
    CLIENT,
    ESTABLISHED,
    HOLDS,
    LASTING,
    OPENS,
    OWNS,
    PLAIN,
    SPECIAL,
    SPLICED,
    TARGET,
    UNUSUAL,
)
from .free_list import give, take
from .jit import kernel
from .native import record_at, swap32
from .sequence import distance, wrap
from .wheel import retry_at

LOOK_AGAIN = 100
"""Ticks after which a spliced connection of which nobody has said anything is looked at again: one second."""


@kernel
def begin_opening(connections, connection):
    """Takes an OPENING record for a connection; there has to be a free one."""
    cold = record_at(connections.cold, connection)
    cold.opening = take(connections.free_openings, connections.openings)
    cold.special = OPENS


@kernel
def end_opening(connections, connection):
    """Gives the OPENING record of a connection back, where it has one."""
    cold = record_at(connections.cold, connection)
    if cold.special & OPENS:
        give(connections.free_openings, connections.openings, int64(cold.opening))
        cold.special &= UNUSUAL


@kernel
def owned_end(connections, connection):
    """Returns the number behind what we owned of a connection that holds nothing any more, as the target sees it.

    How much it was, is kept where the client's window was while its OPENING record is there.
    """
    cold = record_at(connections.cold, connection)
    if cold.special & OPENS == 0:
        return int64(cold.opening)
    opening = record_at(connections.openings, int64(cold.opening))
    return wrap(int64(opening.syn_isn) + 1 + int64(opening.window[0]))


@kernel
def keep_recent(packets, batch, row, hot, opening):
    """Keeps the TSval of a client's segment before it is spliced, to be echoed (RFC 7323, section 4.3).

    To a client that is echoed the one of its SYN, all the time since then would be the time there and back of what it sends again.
    """
    if batch.stamps[row] == 0 or distance(batch.seq[row], int64(hot.next[CLIENT])) > 0:
        return
    value = swap32(int64(record_at(packets.word32, batch.stamps[row]).value))
    if distance(value, int64(opening.stamp)) > 0:
        opening.stamp = value


@kernel
def client_stamp(connections, cold):
    """Returns the client's TSval that is kept: its last one before it was spliced, or the last one that `keep_stamp` saw."""
    if cold.special & OPENS:
        return int64(record_at(connections.openings, int64(cold.opening)).stamp)
    return int64(cold.opening) if cold.special & AGED else int64(cold.stamp_shift)


@kernel
def keep_client_stamp(connections, cold, value):
    """Keeps another TSval of the client's."""
    if cold.special & OPENS:
        record_at(connections.openings, int64(cold.opening)).stamp = value
    elif cold.special & AGED:
        cold.opening = value
    else:
        cold.stamp_shift = value


@kernel
def keep_stamp_of(connections, cold, side, value):
    """Keeps another TSval of a side's."""
    if side == CLIENT:
        keep_client_stamp(connections, cold, value)
    else:
        cold.target_stamp = value


@kernel
def is_silent(hot, cold, opening):
    """Says whether neither end of a spliced connection has said anything yet: its target may still be replaced (SPLICE 3.1)."""
    return (hot.state == ESTABLISHED and cold.special & PLAIN == 0 and opening.wrapped & 1 << CLIENT == 0
            and int64(hot.next[CLIENT]) == wrap(int64(opening.client_isn) + 1)
            and wrap(int64(hot.next[TARGET]) + int64(hot.shift[TARGET])) == wrap(int64(opening.proxy_isn) + 1))


@kernel
def settle_opening(connections, connection, tick):
    """Gives the OPENING record of a connection back where it is spliced and holds nothing; what may still be asked for is kept.

    That is the client's TSval and the end of what we owned. There is no room for both where its timestamps are shifted.
    While neither end says anything it is looked at again from time to time.
    """
    hot, cold = record_at(connections.hot, connection), record_at(connections.cold, connection)
    if cold.special & OPENS == 0 or hot.options & (SPLICED | HOLDS) != SPLICED:
        return
    if hot.options & SPECIAL and (cold.special & LASTING or (cold.special & AGED and hot.options & OWNS)):
        return
    opening = record_at(connections.openings, int64(cold.opening))
    if is_silent(hot, cold, opening):
        opening.retry = retry_at(tick + LOOK_AGAIN)
        return
    owned = owned_end(connections, connection) if hot.options & OWNS else 0
    stamp = int64(opening.stamp)
    end_opening(connections, connection)
    if cold.special & AGED:
        cold.opening = stamp
    else:
        cold.opening, cold.stamp_shift = owned, stamp
