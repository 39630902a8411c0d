"""PROXY protocol, sent: the header lies before the held bytes, in numbers below the client's (SPLICE 6.1).

Our SYN's initial number is the client's minus the header's length, so that the client's own numbers pass unchanged. From there
on the header is brought to the target as held bytes are: in its window and MSS, and again until it is acknowledged.
"""
from typing import NamedTuple

import numpy as np
from numpy import int64

from .connection import CLIENT, HOLDS
from .counters import DROP_FIRST_DATA_TOO_LONG, DROP_HELD_POOL_EMPTY, NOTICE_PROXY_HEADERS_SENT
from .hold import slot_for
from .jit import kernel
from .native import record_at
from .proxy_header import HEADER_ROOM, write_header
from .sequence import wrap

NOT_SENT = 0
EXPECTED_BEFORE_PAYLOAD, EXPECTED_ALONE = 1, 2
"""Of a service that takes a header from those it trusts: whether payload is waited for as well before a target is chosen."""


class Proxied(NamedTuple):
    """What the PROXY protocol needs. int64 where nothing else is said."""

    sent: np.ndarray      # [services] version of the header that its targets get, or NOT_SENT
    tells: np.ndarray     # [services] whether its targets are told by a TCP option (address_option.py)
    accepts: np.ndarray   # [services] 0, or EXPECTED_BEFORE_PAYLOAD or EXPECTED_ALONE
    trusted: np.ndarray   # [n, 3] service, network and mask of those from whom a header is taken
    origins: np.ndarray   # [connections, 5] whether a header was taken, and the origin that it told; none where nobody accepts
    header: np.ndarray    # uint8 [HEADER_ROOM] the header being written
    ends: np.ndarray      # [4] the origin that it tells


def allocate_proxied(sent, tells, accepts, trusted, origins):
    """Returns `Proxied` from lists of ints by service, and of (service, network, mask); `origins` are those of the records."""
    by_service = (np.array(column or [0], np.int64) for column in (sent, tells, accepts))
    return Proxied(*by_service, np.array(trusted, np.int64).reshape(-1, 3),
                   origins, np.zeros(HEADER_ROOM, np.uint8), np.zeros(4, np.int64))


@kernel
def has_origin(connections, connection):
    """Says whether a connection has come with a PROXY header."""
    origins = connections.proxied.origins
    return origins.shape[0] > 0 and origins[connection, 0] != 0


@kernel
def find_ends(connections, connection, ends):
    """Writes whose connection it is to `ends`: what a PROXY header has told, else the client and what it has connected to."""
    if has_origin(connections, connection):
        for field in range(4):
            ends[field] = connections.proxied.origins[connection, 1 + field]
        return
    hot = record_at(connections.hot, connection)
    ends[0], ends[1] = int64(hot.remote_address[CLIENT]), int64(hot.remote_port[CLIENT])
    ends[2], ends[3] = int64(hot.local_address[CLIENT]), int64(hot.local_port[CLIENT])


@kernel
def insert_before(held, slot, octets, size):
    """Puts `size` octets before those that a slot holds."""
    start = slot * held.stride[0]
    for number in range(held.length[slot] - 1, -1, -1):
        held.octets[start + size + number] = held.octets[start + number]
    for number in range(size):
        held.octets[start + number] = octets[number]
    held.length[slot] += size
    if held.urgent[slot] > 0:
        held.urgent[slot] += size


@kernel
def put_header(connections, connection):
    """Puts the PROXY header, where the service sends one, before the held bytes of a connection that has been given a target.

    Another target gets the same one. Returns -1, or the drop reason why there is no room for it.
    """
    hot, cold = record_at(connections.hot, connection), record_at(connections.cold, connection)
    proxied, held = connections.proxied, connections.held
    version = proxied.sent[int64(cold.service)]
    if version == NOT_SENT:
        return -1
    opening = record_at(connections.openings, int64(cold.opening))
    before = int64(opening.header)
    if before != 0 and hot.options & HOLDS:
        return -1
    slot = slot_for(connections, connection)
    if slot < 0:
        return DROP_HELD_POOL_EMPTY
    find_ends(connections, connection, proxied.ends)
    size = write_header(proxied.header, version, proxied.ends)
    if held.length[slot] + size > held.stride[0]:
        return DROP_FIRST_DATA_TOO_LONG
    insert_before(held, slot, proxied.header, size)
    opening.syn_isn = wrap(int64(opening.syn_isn) + before - size)
    opening.header = size
    connections.counters.notices[NOTICE_PROXY_HEADERS_SENT] += 1
    return -1
