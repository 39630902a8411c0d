"""Release: gives back all that ended connections hold, one place for every way in which a connection ends."""
from numpy import int64

from .connection import BOUND, CLIENT, HOLDS, SHAPED, SPECIAL, TARGET, WAITS
from .counters import OF_SERVICE_OPEN, OF_TARGET_OPEN, OF_TARGET_TIMEOUTS, TOTAL_CLOSED, TOTAL_OPEN
from .flow_hash import hash_key
from .flow_table import ask_for_key, remove
from .free_list import give
from .jit import kernel
from .limits import count_out
from .native import record_at
from .opening import end_opening
from .records import TIMEOUT, ask_for_record, finish
from .source_ports import give_back_source
from .shaping import end_shaping
from .waiting_room import send_away
from .wheel import TICK_MICROSECONDS, cancel

AHEAD = 3
"""Ended connections whose keys are asked for before it is their turn."""


@kernel
def ask_for_keys(connections, connection):
    """Asks for the buckets in which both keys of a connection lie, since it is given back shortly."""
    hot = record_at(connections.hot, connection)
    for side in range(2):
        hashed = hash_key(int64(hot.remote_address[side]), int64(hot.local_address[side]),
                          int64(hot.remote_port[side]), int64(hot.local_port[side]))
        ask_for_key(connections.buckets, hashed)


@kernel
def forget_key(connections, hot, connection, side):
    """Takes the key of one side out of the flow table."""
    hashed = hash_key(int64(hot.remote_address[side]), int64(hot.local_address[side]),
                      int64(hot.remote_port[side]), int64(hot.local_port[side]))
    remove(connections.buckets, hashed, connection * 2 + side)


@kernel
def give_back(connections, connection, targets, sources, tick):
    """Frees the keys, the held slot, what waits, and the source port of a connection."""
    hot, cold, held = record_at(connections.hot, connection), record_at(connections.cold, connection), connections.held
    forget_key(connections, hot, connection, CLIENT)
    if hot.options & HOLDS:
        held.free[held.free_count[0]] = int64(record_at(connections.openings, int64(cold.opening)).held)
        held.free_count[0] += 1
        hot.options &= 0xFF ^ HOLDS
    if hot.options & SPECIAL and cold.special & WAITS:
        send_away(connections, connection)
    if hot.options & BOUND:
        forget_key(connections, hot, connection, TARGET)
        give_back_source(connections, connection, targets, sources, tick)


@kernel
def release(connections, targets, sources, wheel, records, now):
    """Goes through `releases` and empties it: records are finished, counters kept, everything is given back."""
    releases, counters = connections.releases, connections.counters
    for number in range(releases.filled[0]):
        following = releases.connection[min(number + AHEAD, releases.filled[0] - 1)]
        ask_for_keys(connections, following)
        ask_for_record(records, following)
        connection, causes = releases.connection[number], releases.detail[number]
        hot, cold = record_at(connections.hot, connection), record_at(connections.cold, connection)
        if hot.options & SPECIAL and cold.special & (SHAPED * 3):
            end_shaping(connections, connection)
        finish(records, counters, hot, cold, connection, causes, now)
        give_back(connections, connection, targets, sources, now // TICK_MICROSECONDS)
        cancel(wheel, connection)
        counters.totals[TOTAL_OPEN] -= 1
        counters.totals[TOTAL_CLOSED] += 1
        counters.causes[CLIENT, causes & 0xFF] += 1
        counters.causes[TARGET, causes >> 8] += 1
        counters.services[cold.service, OF_SERVICE_OPEN] -= 1
        count_out(connections.limits, hot, int64(cold.service))
        if hot.options & BOUND:
            counters.targets[cold.target, OF_TARGET_OPEN] -= 1
            counters.targets[cold.target, OF_TARGET_TIMEOUTS] += int64(causes >> 8 == TIMEOUT)
        end_opening(connections, connection)
        give(connections.free, connections.cold, connection)
    releases.filled[0] = 0
