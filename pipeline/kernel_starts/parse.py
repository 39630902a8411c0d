from pipeline.kernels.batch import DROP, KIND_TCP, PENDING
from pipeline.kernels.counters import DROP_TCP_HEADER
from pipeline.kernels.parse import parse as ours

LOWEST_PORT = 0


def parse(packets, base, batch, count, port, network, counters):
    """Our parse, and one more reason to drop a packet: TCP from source ports below LOWEST_PORT (none, as it stands)."""
    ours(packets, base, batch, count, port, network, counters)
    for row in range(count):
        if batch.kind[row] == KIND_TCP and batch.verdict[row] == PENDING and batch.source_port[row] < LOWEST_PORT:
            batch.verdict[row] = DROP
            batch.reason[row] = DROP_TCP_HEADER
            counters.drops[DROP_TCP_HEADER] += 1  # every drop is counted by its reason: see DROP_REASONS in kernels/counters.py
