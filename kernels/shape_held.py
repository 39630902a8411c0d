"""Shape held: what a select kernel or a payload kernel makes of the bytes that are held, once a target is chosen (SPLICE 5).

The held slot then has the new bytes; what came from the client is gone. Where their number has changed, the client is told
at once that its own have come, so that from there on a constant shift serves both ways (SPLICE 1.2).
"""
from numpy import int64

from .connection import (
    CLIENT,
    FIN_SEEN,
    HOLDS,
    OWNS,
    REWRITTEN,
    SPECIAL,
    emit,
)
from .counters import NOTICE_PAYLOAD_KERNEL_ERRORS
from .headers import ACK
from .jit import kernel
from .native import record_at
from .sequence import wrap
from .shaping import NOT_BEGUN, is_shaped
from .tcp_options import proxy_window


@kernel
def end_of_data(hot):
    """Returns the client's number behind its last byte, its FIN left out."""
    return wrap(int64(hot.next[CLIENT]) - int64(hot.closing & (FIN_SEEN << CLIENT) != 0))


@kernel
def take_rewrite(connections, connection, selection):
    """Takes the held bytes that a select kernel has written to `scratch`, if it has."""
    held, length = connections.held, selection.rewrite[0]
    if length < 0:
        return
    if length > held.stride[0] or length > selection.scratch.shape[0]:
        connections.counters.notices[NOTICE_PAYLOAD_KERNEL_ERRORS] += 1
        return
    cold = record_at(connections.cold, connection)
    slot = int64(record_at(connections.openings, int64(cold.opening)).held)
    for number in range(length):
        held.octets[slot * held.stride[0] + number] = selection.scratch[number]
    held.length[slot] = length


@kernel
def copy_held(connections, start, length, selection):
    """Copies held bytes to `scratch`: once a target was chosen by them, no select kernel changes them any more."""
    for number in range(length):
        selection.scratch[number] = connections.held.octets[start + number]


@kernel
def take_held(connections, connection):
    """Copies held bytes that no payload kernel has seen to `before` and `after`; returns how many there are."""
    held, shaped, flow = connections.held, connections.shaped, connection * 2 + CLIENT
    if not is_shaped(connections, flow) or shaped.position[flow] != NOT_BEGUN:
        return 0
    cold = record_at(connections.cold, connection)
    opening = record_at(connections.openings, int64(cold.opening))
    slot, header = int64(opening.held), int64(opening.header)
    length, start = held.length[slot] - header, slot * held.stride[0] + header
    if length == 0 and header > 0:
        return 0
    for number in range(length):
        shaped.before[number] = held.octets[start + number]
        shaped.after[number] = held.octets[start + number]
    shaped.position[flow], shaped.seen[flow] = length, end_of_data(record_at(connections.hot, connection))
    return length


@kernel
def put_held(connections, connection, changed):
    """Holds the `changed` bytes that a payload kernel has left in `after`."""
    held, shaped, cold = connections.held, connections.shaped, record_at(connections.cold, connection)
    opening = record_at(connections.openings, int64(cold.opening))
    slot, header = int64(opening.held), int64(opening.header)
    if changed < 0 or header + changed > held.stride[0]:
        connections.counters.notices[NOTICE_PAYLOAD_KERNEL_ERRORS] += 1
        return
    for number in range(changed):
        held.octets[slot * held.stride[0] + header + number] = shaped.after[number]
    held.length[slot] = header + changed


@kernel
def settle_held(connections, connection):
    """Takes a new number of held bytes into the client's shift, and acknowledges what they were made of."""
    hot, cold, held = record_at(connections.hot, connection), record_at(connections.cold, connection), connections.held
    opening = record_at(connections.openings, int64(cold.opening))
    length, stop = held.length[int64(opening.held)], end_of_data(hot)
    target_end = wrap(int64(opening.syn_isn) + 1 + length)
    if wrap(stop + int64(hot.shift[CLIENT])) == target_end:
        return
    hot.shift[CLIENT] = wrap(target_end - stop)
    hot.options |= OWNS | SPECIAL
    cold.special |= REWRITTEN
    held.urgent[int64(opening.held)] = 0  # nobody knows where they are now
    window = proxy_window(cold, max(held.limit[0] - length, 1))
    emit(connections, connection, CLIENT, ACK, wrap(int64(opening.proxy_isn) + 1), stop, window, 0, 0, 0)


@kernel
def nothing_held(connections, connection):
    """Frees the held slot of a connection whose held bytes were deleted, unless their FIN is still to be delivered."""
    hot, cold, held = record_at(connections.hot, connection), record_at(connections.cold, connection), connections.held
    slot = int64(record_at(connections.openings, int64(cold.opening)).held)
    if hot.options & HOLDS == 0 or cold.special & REWRITTEN == 0 or held.length[slot] > 0:
        return
    if hot.closing & (FIN_SEEN << CLIENT):
        return
    held.free[held.free_count[0]] = slot
    held.free_count[0] += 1
    hot.options &= 0xFF ^ (HOLDS | OWNS)
