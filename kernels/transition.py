"""Transition: what the TCP packets of a burst do to their connections, in order of arrival."""
from .batch import KIND_TCP, PENDING, REFUSE
from .connection import BOUND, CLIENT, ESTABLISHED, FREE
from .handshake import from_client, from_target
from .jit import kernel
from .native import record_at
from .open import reopens
from .splice import splice
from .waiting_room import come_next
from .wheel import TICK_MICROSECONDS


@kernel
def transition(packets, base, batch, count, connections, services, targets, network, records, now):
    """Gives every pending TCP row its verdict, by the state of its connection. The slot `transition`.

    Rows of no connection are left to `refuse`. Segments of the engine's own are ordered with `emit`.
    """
    tick = now // TICK_MICROSECONDS
    for row in range(count):
        if batch.kind[row] != KIND_TCP or batch.verdict[row] != PENDING:
            continue
        flow = batch.flow[row]
        if flow < 0 or record_at(connections.hot, flow >> 1).state == FREE:
            batch.verdict[row] = REFUSE
            if flow >= 0 and reopens(packets, batch, row, connections):
                come_next(batch, row, connections)
            continue
        connection, side = flow >> 1, flow & 1
        hot = record_at(connections.hot, connection)
        if hot.state >= ESTABLISHED and hot.options & BOUND:
            splice(packets, batch, row, connections, connection, side, records, now, tick)
        elif side == CLIENT:
            from_client(packets, base, batch, row, connections, connection, services, records, now, tick)
        else:
            from_target(packets, batch, row, connections, connection, services, targets, network, records, now, tick)
