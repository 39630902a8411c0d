"""Select kernels that do not look at the payload. The slot `select`; a signature for all: see `select_content`."""
from .jit import kernel
from .services import NO_MATCH, is_excluded

FIRST_NUMBER = 2463534242


@kernel
def round_robin(payload, service, selection):
    """Each target in turn, but for those that have failed this connection."""
    members = selection.services[service].members
    for _ in range(members):
        member = selection.memory[service, 0] % members
        selection.memory[service, 0] += 1
        if not is_excluded(selection, member):
            return member
    return NO_MATCH


@kernel
def at_random(payload, service, selection):
    """Any target, and where that has failed this connection the next that has not.

    The numbers are those of a 32-bit xorshift (Marsaglia, 2003): the same in every run, so that a replay is one.
    """
    members = selection.services[service].members
    number = selection.memory[service, 0]
    number = FIRST_NUMBER if number == 0 else number
    number ^= (number << 13) & 0xFFFFFFFF
    number ^= number >> 17
    number ^= (number << 5) & 0xFFFFFFFF
    selection.memory[service, 0] = number
    for further in range(members):
        member = (((number * members) >> 32) + further) % members
        if not is_excluded(selection, member):
            return member
    return NO_MATCH
