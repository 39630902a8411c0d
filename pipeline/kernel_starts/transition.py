from pipeline.kernels.batch import DROP, KIND_TCP, PENDING
from pipeline.kernels.counters import DROP_STRAY_SEGMENT
from pipeline.kernels.headers import RST, SYN
from pipeline.kernels.transition import transition as ours


def transition(packets, base, batch, count, connections, services, targets, network, records, now):
    """Drops TCP segments with both SYN and RST, which nobody sends in earnest, and leaves all others to our transition.

    A verdict for each PENDING row: FORWARD, ABSORB, REFUSE, DROP (counted) or WAIT; see kernels/batch.py. With a kernel of yours
    here every packet comes this way: `express` is left out unless the configuration names it.
    """
    for row in range(count):
        if batch.kind[row] == KIND_TCP and batch.verdict[row] == PENDING and batch.control[row] & (SYN | RST) == SYN | RST:
            batch.verdict[row] = DROP
            connections.counters.drops[DROP_STRAY_SEGMENT] += 1
    ours(packets, base, batch, count, connections, services, targets, network, records, now)
