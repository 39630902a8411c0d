"""Smooth weighted round robin, as nginx has it: of weights 5, 1, 1 comes a, a, b, a, c, a, a and never five of one in a row."""
from .jit import kernel
from .services import NO_MATCH, is_available


@kernel
def weighted_round_robin(payload, service, selection):
    """Each target as often as its weight says, as evenly in between as can be.

    Whoever can be had gains its weight; the richest is chosen and pays what all have gained.
    """
    row, current, chosen, total = selection.services[service], selection.current, NO_MATCH, 0
    first = row.first_member
    for member in range(row.members):
        if is_available(selection, service, member):
            total += selection.weight[first + member]
            current[first + member] += selection.weight[first + member]
            if chosen < 0 or current[first + member] > current[first + chosen]:
                chosen = member
    if chosen >= 0:
        current[first + chosen] -= total
    return chosen
