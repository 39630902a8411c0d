"""Plain forwarding: what the loop does with a burst in `mode = "forward"`, instead of the stages of the proxy.

Ports 0 and 1, 2 and 3 and so on are the two ends of a wire. Everything else, ports and faults included, is the proxy's:
what a measurement finds here is the network's part.
"""
from pipeline.kernels.jit import kernel
from pipeline.kernels.outbox import post
from pipeline.state import STOP


@kernel
def timers(state, phase, stopped, now):
    """Says whether a pass of the loop is needed without a packet: only to send what is delayed before the end."""
    return phase == STOP


@kernel
def stages(state, port, count, handed, draining, now):
    """Posts each packet of a burst, as it is, to the port at the other end of the wire."""
    for row in range(count):
        post(state.outbox, port ^ 1, state.batch.mbuf[row], state.connections.counters)
