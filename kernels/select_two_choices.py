"""The power of two choices (Mitzenmacher, 2001): of two targets drawn at random the less loaded, at the price of two looks."""
from .jit import kernel
from .select_balancing import next_number
from .select_least_connections import is_less_loaded
from .services import NO_MATCH, is_available


@kernel
def draw(selection, service, beside):
    """Returns a member drawn at random that can be had and is not `beside`, or the next such; NO_MATCH without one."""
    members = selection.services[service].members
    start = (next_number(selection, service) * members) >> 32
    for further in range(members):
        member = (start + further) % members
        if member != beside and is_available(selection, service, member):
            return member
    return NO_MATCH


@kernel
def two_choices(payload, service, selection):
    """Of two targets drawn at random, the one with fewer open connections for its weight."""
    one = draw(selection, service, NO_MATCH)
    other = draw(selection, service, one)
    return other if other >= 0 and is_less_loaded(selection, service, other, one) else one
