"""Select kernels that do not look at the payload. The slot `select`; a signature for all: see `select_content`."""
from .jit import kernel
from .services import NO_MATCH, is_excluded


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
