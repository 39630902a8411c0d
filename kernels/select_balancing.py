"""Select kernels that do not look at the payload. The slot `select`; a signature for all: see `select_content`."""
from .jit import kernel


@kernel
def round_robin(payload, service, selection):
    """Each target in turn."""
    turn = selection.memory[service, 0]
    selection.memory[service, 0] = turn + 1
    return turn % selection.services[service].members
