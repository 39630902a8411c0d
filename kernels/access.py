"""Access: SYNs of sources that the lists of the engine or of their service deny are stopped before they cost any state."""
from typing import NamedTuple

import numpy as np
from numpy import int64

from .batch import DROP, KIND_TCP, NO_FLOW, PENDING, REFUSE
from .counters import DROP_DENIED_BY_ENGINE, DROP_DENIED_BY_SERVICE, NOTICE_DENIED_BY_RESET
from .headers import ACK, FIN, RST, SYN
from .jit import kernel
from .prefix_table import PrefixTable, class_of
from .services import find_service

OF_ENGINE, OF_SERVICES = 0, 1
"""Columns of `PrefixTable.denied`: the engine's lists, then those of each service."""
LISTS, RESETS = 0, 1
"""Cells of `Access.settings`: whether there are lists, and whether who is denied gets a RST."""


class Access(NamedTuple):
    """Who may open connections."""

    settings: np.ndarray    # int64 [2] see LISTS
    table: PrefixTable


@kernel
def reason_to_deny(access, number, address):
    """Returns why a source may not open a connection to a service, or -1."""
    found = class_of(access.table, address)
    if access.table.denied[found, OF_ENGINE] != 0:
        return DROP_DENIED_BY_ENGINE
    if access.table.denied[found, OF_SERVICES + number] != 0:
        return DROP_DENIED_BY_SERVICE
    return -1


@kernel
def admit(batch, count, access, services, counters):
    """Drops each SYN without a connection whose source is denied, or leaves it to `refuse`; a SYN to no service passes."""
    for row in range(count):
        if batch.kind[row] != KIND_TCP or batch.verdict[row] != PENDING or batch.flow[row] != NO_FLOW:
            continue
        if batch.control[row] & (SYN | ACK | RST | FIN) != SYN:
            continue
        number = find_service(services, batch.destination[row], batch.destination_port[row])
        reason = reason_to_deny(access, number, batch.source[row]) if number >= 0 else -1
        if reason < 0:
            continue
        if access.settings[RESETS] != 0:
            batch.verdict[row] = REFUSE
            counters.notices[NOTICE_DENIED_BY_RESET] += 1
        else:
            batch.verdict[row] = DROP
            counters.drops[int64(reason)] += 1
