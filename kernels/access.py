"""Access: SYNs of sources that the lists of the engine or of their service deny are stopped before they cost any state."""
from typing import NamedTuple

import numpy as np
from numpy import int64

from .batch import DROP, KIND_TCP, NO_FLOW, PENDING, REFUSE
from .counters import DROP_DENIED_BY_ENGINE, DROP_DENIED_BY_SERVICE, NOTICE_DENIED_BY_RESET
from .headers import ACK, FIN, RST, SYN
from .jit import kernel
from .prefix_table import PrefixTable, ask_for_block, ask_for_entry, class_of
from .services import find_service

OF_ENGINE, OF_SERVICES = 0, 1
"""Columns of `PrefixTable.denied`: the engine's lists, then those of each service."""
LISTS, RESETS, HALF = range(3)
"""Cells of `Access.settings`: whether there are lists, whether who is denied gets a RST, and which half of the table holds."""


class Access(NamedTuple):
    """Who may open connections."""

    settings: np.ndarray    # int64 [3] see LISTS
    table: PrefixTable
    row: np.ndarray         # int64 [BURST] rows of a burst that are asked for
    number: np.ndarray      # int64 [BURST] their services


@kernel
def reason_to_deny(access, number, address):
    """Returns why a source may not open a connection to a service, or -1."""
    found = class_of(access.table, access.settings[HALF], address)
    if access.table.denied[access.settings[HALF], found, OF_ENGINE] != 0:
        return DROP_DENIED_BY_ENGINE
    if access.table.denied[access.settings[HALF], found, OF_SERVICES + number] != 0:
        return DROP_DENIED_BY_SERVICE
    return -1


@kernel
def find_new(batch, count, access, services):
    """Finds the SYNs of a burst that open a connection to a service, and asks for the table's entries of all of them.

    Entries lie anywhere in 64 MiB: one behind the other each is waited for, which takes two thirds of the time (77 ticks a SYN).
    """
    found, half = 0, access.settings[HALF]
    for row in range(count):
        if batch.kind[row] != KIND_TCP or batch.verdict[row] != PENDING or batch.flow[row] != NO_FLOW:
            continue
        if batch.control[row] & (SYN | ACK | RST | FIN) != SYN:
            continue
        number = find_service(services, batch.destination[row], batch.destination_port[row])
        if number >= 0:
            access.row[found], access.number[found] = row, number
            ask_for_entry(access.table, half, batch.source[row])
            found += 1
    return found


@kernel
def admit(batch, count, access, services, counters):
    """Drops each SYN without a connection whose source is denied, or leaves it to `refuse`; a SYN to no service passes."""
    found, half = find_new(batch, count, access, services), access.settings[HALF]
    for place in range(found):
        ask_for_block(access.table, half, batch.source[access.row[place]])
    for place in range(found):
        row = access.row[place]
        reason = reason_to_deny(access, access.number[place], batch.source[row])
        if reason < 0:
            continue
        if access.settings[RESETS] != 0:
            batch.verdict[row] = REFUSE
            counters.notices[NOTICE_DENIED_BY_RESET] += 1
        else:
            batch.verdict[row] = DROP
            counters.drops[int64(reason)] += 1
