"""The traffic generator: what the loop does with a burst in `mode = "generator"`, instead of the stages of the proxy.

Clients and servers in one engine, both plain TCP ends of our own (kernels/generator_*.py). Everything else, ports, ARP,
faults, clock, wheel and records of what was dropped, is the proxy's. `pipeline.compose` puts what stands between the two
marks into a copy of loop.py.
"""
from pipeline.kernels.jit import kernel
from pipeline.kernels.memory_device import allocate

# stages from here
from pipeline.kernels.arp import answer_arp, build_requests, neighbours_to_ask
from pipeline.kernels.counters import DROP_NO_MBUF
from pipeline.kernels.generator_build import build_segments
from pipeline.kernels.generator_ends import TICK
from pipeline.kernels.generator_lookup import ask_for_ends
from pipeline.kernels.generator_open import open_clients
from pipeline.kernels.generator_receive import receive_segments
from pipeline.kernels.generator_timers import expire, stop_some
from pipeline.kernels.icmp import answer_icmp
from pipeline.kernels.outbox import dispose
from pipeline.kernels.parse import parse
from pipeline.kernels.wheel import TICK_MICROSECONDS, advance
from pipeline.state import RUN, STOP

STOPPED_AT_ONCE = 64
"""Ends that are stopped in one pass, as many as the loop counts."""


@kernel
def timers(state, phase, stopped, now):
    """Between bursts: what is due, ARP that has to be asked, and new connections. Returns whether there is something to send."""
    ends, tick = state.connections, now // TICK_MICROSECONDS
    if phase == STOP:
        stop_some(ends, stopped, STOPPED_AT_ONCE, now)
        return True
    if tick != ends.pace[TICK]:
        ends.pace[TICK] = tick
        neighbours_to_ask(state.network, state.requests, now)
    if state.wheel.now[0] < tick or state.wheel.now[1] != 0:
        expire(ends, state.expired, advance(state.wheel, tick, state.expired), state.wheel, now)
    if phase == RUN:
        open_clients(ends, state.network, state.wheel, now)
    return ends.orders.filled[0] + state.requests.filled[0] > 0


@kernel
def own_frames(state, now):
    """Makes frames of the segments and ARP requests that this pass has ordered."""
    ends, requests = state.connections, state.requests
    wanted = ends.orders.fresh[0] + requests.filled[0]
    got = allocate(state.device, state.fresh, wanted) if wanted > 0 else 0
    ends.counters.drops[DROP_NO_MBUF] += wanted - got
    asked = min(requests.filled[0], got)
    build_requests(state.packets, state.base[0], state.fresh, asked, requests, state.network, state.outbox, ends.counters)
    build_segments(state.packets, state.base[0], ends, state.fresh[asked:], got - asked, state.network, state.outbox, now)


@kernel
def stages(state, port, count, handed, draining, now):
    """One burst of `count` packets (none, for what timers have ordered) through every stage."""
    packets, base, batch, ends = state.packets, state.base[0], state.batch, state.connections
    if count > 0:
        parse(packets, base, batch, count, port, state.network, ends.counters)
        answer_arp(packets, batch, count, state.network, ends.counters, now)
        answer_icmp(packets, batch, count, state.network, ends.counters)
        ask_for_ends(batch, count, ends)
        receive_segments(packets, batch, count, ends, state.network, state.wheel, draining, now)
    own_frames(state, now)
    if count > 0:
        dispose(batch, count, ends.parts, state.outbox, ends.counters)
# stages to here
