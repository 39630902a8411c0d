"""Select kernels that do not look at the payload: each target in turn, and at random. A signature for all: see `select_content`.

All of them pass over who cannot be had (`services.is_available`).
"""
from .jit import kernel
from .services import NO_MATCH, is_available

FIRST_NUMBER = 2463534242


@kernel
def round_robin(payload, service, selection):
    """Each target in turn, but for those that have failed this connection or are not up."""
    members = selection.services[service].members
    for _ in range(members):
        member = selection.memory[service, 0] % members
        selection.memory[service, 0] += 1
        if is_available(selection, service, member):
            return member
    return NO_MATCH


@kernel
def next_number(selection, service):
    """Returns the next of 32 bits that look random (xorshift; Marsaglia, 2003): the same in every run, so that a replay is one."""
    number = selection.memory[service, 0]
    number = FIRST_NUMBER if number == 0 else number
    number ^= (number << 13) & 0xFFFFFFFF
    number ^= number >> 17
    number ^= (number << 5) & 0xFFFFFFFF
    selection.memory[service, 0] = number
    return number


@kernel
def at_random(payload, service, selection):
    """Any target, and where that cannot be had the next that can."""
    members = selection.services[service].members
    number = next_number(selection, service)
    for further in range(members):
        member = (((number * members) >> 32) + further) % members
        if is_available(selection, service, member):
            return member
    return NO_MATCH
