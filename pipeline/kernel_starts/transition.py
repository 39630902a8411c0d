from pipeline.kernels.batch import DROP, KIND_TCP, PENDING
from pipeline.kernels.counters import DROP_STRAY_SEGMENT
from pipeline.kernels.headers import ACK
from pipeline.kernels.transition import transition as ours

LEAST_WINDOW = 0


def transition(packets, base, batch, count, connections, services, targets, network, records, now):
    """Drops acknowledgements with a window below LEAST_WINDOW (none, as it stands), and leaves all others to our transition.

    A verdict for each PENDING row: FORWARD, ABSORB, REFUSE, DROP (counted) or WAIT; see kernels/batch.py. With a kernel of yours
    here every packet comes this way: `express` is left out unless the configuration names it.
    """
    for row in range(count):
        if batch.kind[row] == KIND_TCP and batch.verdict[row] == PENDING and batch.control[row] & ACK and batch.window[row] < LEAST_WINDOW:
            batch.verdict[row] = DROP
            connections.counters.drops[DROP_STRAY_SEGMENT] += 1
    ours(packets, base, batch, count, connections, services, targets, network, records, now)
