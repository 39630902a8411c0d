"""Taps: they see every burst once its connections are known, and change nothing but their own numbers. The slot `observe`."""
from .batch import KIND_TCP, PENDING
from .jit import kernel

OBSERVED = 64
"""int64 cells of a worker that its tap has to itself."""


@kernel
def none(packets, base, batch, count, connections, observed, now):
    """Looks at nothing."""


@kernel
def sizes(packets, base, batch, count, connections, observed, now):
    """Counts TCP packets by their payload: cell 0 none, cell n from 2**(n - 1) to 2**n - 1 octets."""
    for row in range(count):
        if batch.kind[row] == KIND_TCP and batch.verdict[row] == PENDING:
            left, cell = batch.payload_length[row], 0
            while left > 0:
                left >>= 1
                cell += 1
            observed[cell] += 1
