"""Source hash: whoever comes from an address comes to the same target again, as long as that can be had."""
from .hash_multiply import mixed
from .jit import kernel
from .services import NO_MATCH, is_available

MOST_TRIES = 32
AGAIN = 0x9E3779B9
"""What is put into a hash before it is hashed again: the golden ratio in 32 bits."""


@kernel
def weighed(selection, service, number):
    """Returns the member in whose share of all weights a number of 32 bits lies, whether it can be had or not; or NO_MATCH."""
    row, total = selection.services[service], 0
    for place in range(row.first_member, row.first_member + row.members):
        total += selection.weight[place]
    left = (number * total) >> 32
    for member in range(row.members):
        left -= selection.weight[row.first_member + member]
        if left < 0:
            return member
    return NO_MATCH


@kernel
def source_hash(payload, service, selection):
    """The target by a hash of the client's address; where it cannot be had, by a hash of that, so that only its own clients move."""
    number = mixed(selection.client[0])
    for _ in range(MOST_TRIES):
        member = weighed(selection, service, number)
        if member >= 0 and is_available(selection, service, member):
            return member
        number = mixed(number ^ AGAIN)
    for member in range(selection.services[service].members):
        if is_available(selection, service, member):
            return member
    return NO_MATCH
