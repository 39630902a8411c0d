"""The stages of the loop up to one of them, by our own kernels: what a kernel that is tried there is handed."""
from pipeline.kernels.jit import loop
from pipeline.kernels.lookup import bucketed
from pipeline.kernels.open import open_connections, retire
from pipeline.kernels.parse import parse
from pipeline.kernels.release import release
from pipeline.kernels.transition import transition
from pipeline.kernels.verify import verify

TO_EXPRESS, TO_TRANSITION, TO_REWRITE = range(3)


@loop
def stages_until(state, port, count, now, stage):
    """Takes a burst that the batch lists through the stages before one of them."""
    packets, base, batch, connections = state.packets, state.base[0], state.batch, state.connections
    services, network = state.selection.services, state.network
    parse(packets, base, batch, count, port, network, connections.counters)
    bucketed(batch, count, connections.buckets, connections.hot)
    if stage == TO_EXPRESS:
        return
    verify(packets, base, batch, count, connections)
    retire(packets, batch, count, connections)
    release(connections, state.targets, state.sources, state.wheel, state.records, now)
    open_connections(packets, batch, count, connections, services, network, state.records, -1, now)
    if stage == TO_REWRITE:
        transition(packets, base, batch, count, connections, services, state.targets, network, state.records, now)
