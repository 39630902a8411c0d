"""The target with the fewest connections open for its weight, as this worker counts them."""
from numpy import int64

from .counters import OF_TARGET_OPEN
from .jit import kernel
from .services import NO_MATCH, is_available


@kernel
def is_less_loaded(selection, service, one, other):
    """Says whether one member has fewer connections for its weight than another, those of this burst counted in."""
    first = selection.services[service].first_member
    target, rival = selection.target[first + one], selection.target[first + other]
    load = selection.counted[target, OF_TARGET_OPEN] + selection.pending[target]
    burden = selection.counted[rival, OF_TARGET_OPEN] + selection.pending[rival]
    return load * selection.weight[first + other] < burden * selection.weight[first + one]


@kernel
def least_connections(payload, service, selection):
    """The target with the fewest open connections for its weight; of equals each in turn."""
    members = selection.services[service].members
    start, chosen = selection.memory[service, 0], NO_MATCH
    for further in range(members):
        member = int64((start + further) % members)
        if is_available(selection, service, member) and (chosen < 0 or is_less_loaded(selection, service, member, chosen)):
            chosen = member
    if chosen >= 0:
        selection.memory[service, 0] = chosen + 1
    return chosen
