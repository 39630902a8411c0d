"""Session records of failures alone: the ring of records then reaches further back. The slot `record`."""
from .jit import kernel
from .records import ACTIVE_CLOSE, PASSIVE_CLOSE, finish


@kernel
def orderly(cause):
    """Says whether a release cause is that of a side which was closed by FINs."""
    return cause == PASSIVE_CLOSE or cause == ACTIVE_CLOSE


@kernel
def failures(records, counters, hot, cold, connection, causes, now):
    """Keeps the record of a connection, unless both sides ended in an orderly close."""
    if not (orderly(causes & 0xFF) and orderly(causes >> 8)):
        finish(records, counters, hot, cold, connection, causes, now)
