"""C twins of kernels: the same work as C does it with -O3 -march=native, in the same slots (`[kernels] lookup = "c"`).

They are the yardstick of what the machine can do; tests compare them with the kernels octet by octet. Rare cases of
`rewrite` are left to the kernel, so that they are written once. Importing this raises TwinsMissing where the twins are not
built, or were built for other layouts.
"""
import importlib.util

from numpy import int64

from .batch import FORWARD
from .jit import kernel
from .native import structure_of, twin_express, twin_lookup, twin_parse, twin_rewrite, use_library
from .rewrite import rewrite as rewrite_kernel
from .twin_layout import LEFT, digest
from .wheel import TICK_MICROSECONDS

NO_OUTBOX, NO_NUMBERS = (0,) * 5, (0,) * 3
"""Words of the context behind `mac_low` and behind `own_port`, for those that do not post."""
DONE = LEFT + 1
"""Verdict of a row that the twin has rewritten, while the kernel goes over the others."""


class TwinsMissing(ImportError):
    """The C twins are not there; the text is one sentence for the user."""


def _load():
    """Loads the extension; returns its path."""
    spec = importlib.util.find_spec("pipeline._twins")
    if spec is None:
        raise TwinsMissing("the C twins are not built: make install, with gcc and python3-dev")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if module.ffi.string(module.lib.twin_layout()).decode() != digest():
        raise TwinsMissing("the C twins were built for other records than the kernels have now: make install")
    use_library(spec.origin)
    return spec.origin


PATH = _load()
"""The twins' shared object; its symbols are visible to njit code once this module is imported."""


@kernel
def parse(packets, base, batch, count, port, network, counters):
    """The twin of parse.parse."""
    twin_parse(structure_of((batch, 0, 0, packets.octets, counters.drops, counters.notices, 0, 0, network.mac_high, network.mac_low,
                             NO_OUTBOX, 0, packets.octets.shape[0], base, port, NO_NUMBERS)), count)


@kernel
def lookup(batch, count, buckets, hot):
    """The twin of lookup.bucketed."""
    twin_lookup(structure_of((batch, hot, buckets, 0, 0, 0, 0, 0, 0, 0, NO_OUTBOX, buckets.shape[0], 0, 0, 0, NO_NUMBERS)), count)


@kernel
def exchange(batch, count, kept, shown):
    """Hides the rows that are FORWARD behind the verdict `kept`, and makes those with the verdict `shown` FORWARD."""
    for row in range(count):
        if batch.verdict[row] == FORWARD:
            batch.verdict[row] = kept
        elif batch.verdict[row] == shown:
            batch.verdict[row] = FORWARD


@kernel
def rewrite(packets, base, batch, count, connections, network, now):
    """The twin of rewrite.rewrite, which gets the rows that are LEFT: whose connection is not as usual."""
    twin_rewrite(structure_of((batch, connections.hot, 0, packets.octets, connections.counters.drops, 0, network.neighbours,
                               network.mtu, network.mac_high, network.mac_low, NO_OUTBOX, 0, packets.octets.shape[0], base, 0,
                               NO_NUMBERS)), count)
    left = 0
    for row in range(count):
        left += int64(batch.verdict[row] == LEFT)
    if left > 0:
        exchange(batch, count, DONE, LEFT)
        rewrite_kernel(packets, base, batch, count, connections, network, now)
        for row in range(count):
            if batch.verdict[row] == DONE:
                batch.verdict[row] = FORWARD


@kernel
def express(packets, batch, count, connections, network, outbox, now):
    """The twin of express.usual; it leaves what the target sends where its window has to be shown in another scale."""
    counters = connections.counters
    return twin_express(structure_of((batch, connections.hot, 0, packets.octets, counters.drops, 0, network.neighbours, network.mtu,
                                      network.mac_high, network.mac_low, outbox.mbuf, outbox.filled, outbox.released,
                                      outbox.to_release, counters.events, 0, packets.octets.shape[0], 0, 0, outbox.mbuf.shape[1],
                                      counters.events.shape[1], (now // TICK_MICROSECONDS) & 0xFFFFFFFF)), count)
