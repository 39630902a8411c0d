"""PROXY protocol, received: the header with which a trusted source begins is taken out of the held bytes and acknowledged (SPLICE 6.2).

The client's initial number is then the last one of its header: select and payload kernels, and the target, know nothing of it.
"""
from numpy import int64

from .connection import CLIENT, FIN_SEEN, HOLDS, OWNS
from .connect import tried
from .counters import NOTICE_PROXY_HEADERS_MALFORMED, NOTICE_PROXY_HEADERS_TAKEN
from .handshake import acknowledge
from .jit import kernel
from .native import record_at
from .proxy_header import INCOMPLETE, MALFORMED, read_header
from .proxy_protocol import EXPECTED_BEFORE_PAYLOAD, find_ends
from .sequence import wrap
from .services import NEED_MORE, NO_MATCH, REFUSE_CLIENT


@kernel
def is_trusted(proxied, service, address):
    """Says whether a service takes a header from an address."""
    for number in range(proxied.trusted.shape[0]):
        if proxied.trusted[number, 0] == service and address & proxied.trusted[number, 2] == proxied.trusted[number, 1]:
            return True
    return False


@kernel
def expects_header(connections, connection):
    """Says whether a connection has still to begin with a PROXY header."""
    hot, cold, proxied = record_at(connections.hot, connection), record_at(connections.cold, connection), connections.proxied
    service = int64(cold.service)
    if proxied.accepts[service] == 0 or proxied.origins[connection, 0] != 0 or tried(connections, connection) > 0:
        return False
    return is_trusted(proxied, service, int64(hot.remote_address[CLIENT]))


@kernel
def consume(connections, connection, size):
    """Takes the first `size` held bytes away, as if the client's numbers began behind them; an empty slot is free again."""
    hot, cold, held = record_at(connections.hot, connection), record_at(connections.cold, connection), connections.held
    opening = record_at(connections.openings, int64(cold.opening))
    slot = int64(opening.held)
    start, left = slot * held.stride[0], held.length[slot] - size
    for number in range(left):
        held.octets[start + number] = held.octets[start + size + number]
    held.length[slot], held.urgent[slot] = left, max(held.urgent[slot] - size, 0)
    opening.client_isn = wrap(int64(opening.client_isn) + size)
    opening.syn_isn = wrap(int64(opening.syn_isn) + size)
    if left == 0 and hot.closing & (FIN_SEEN << CLIENT) == 0:
        held.free[held.free_count[0]] = slot
        held.free_count[0] += 1
        hot.options &= 0xFF ^ (HOLDS | OWNS)


@kernel
def read_held(connections, connection):
    """Reads the header that the held bytes of a connection begin with, and notes the origin that it tells; see `read_header`.

    One that is not complete by the client's FIN, or once the slot is full, is malformed.
    """
    hot, cold, held = record_at(connections.hot, connection), record_at(connections.cold, connection), connections.held
    if hot.options & HOLDS == 0:
        return INCOMPLETE
    slot, origin = int64(record_at(connections.openings, int64(cold.opening)).held), connections.proxied.origins[connection, 1:]
    start, length = slot * held.stride[0], held.length[slot]
    find_ends(connections, connection, origin)
    size = read_header(held.octets[start:start + length], length, held.limit[0], origin)
    complete = hot.closing & (FIN_SEEN << CLIENT) != 0 or length >= held.limit[0]
    return MALFORMED if size == INCOMPLETE and complete else size


@kernel
def take_header(connections, connection):
    """Takes the PROXY header of a connection before its select kernel is asked.

    Returns NO_MATCH where nothing is in the way of that; NEED_MORE; or REFUSE_CLIENT for what is no header.
    """
    if not expects_header(connections, connection):
        return NO_MATCH
    notices, proxied = connections.counters.notices, connections.proxied
    size = read_held(connections, connection)
    if size == INCOMPLETE:
        return NEED_MORE
    if size == MALFORMED:
        notices[NOTICE_PROXY_HEADERS_MALFORMED] += 1
        return REFUSE_CLIENT
    notices[NOTICE_PROXY_HEADERS_TAKEN] += 1
    proxied.origins[connection, 0] = 1
    consume(connections, connection, size)
    acknowledge(connections, connection, 0, 0)
    service = int64(record_at(connections.cold, connection).service)
    waits = proxied.accepts[service] == EXPECTED_BEFORE_PAYLOAD and record_at(connections.hot, connection).options & HOLDS == 0
    return NEED_MORE if waits else NO_MATCH
