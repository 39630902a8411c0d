"""A user's select kernel that goes astray where a client's first payload says so: for tests of isolation."""
from pipeline.kernels.jit import kernel
from pipeline.kernels.native import address_of, store_release

OUTSIDE, BEYOND = ord("o"), ord("b")


@kernel
def select(payload, service, selection):
    """Chooses the first target; at "outside" by an index outside its array, at "beyond" it writes behind an array's end."""
    if payload.shape[0] == 0:
        return -1
    if payload[0] == OUTSIDE:
        return selection.memory[service + 1000, 0]
    if payload[0] == BEYOND:
        store_release(address_of(selection.scratch) + selection.scratch.shape[0], 1)
    return 0
