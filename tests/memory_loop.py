"""The loops that the tests run over memory ports: as few different ones as will do, for each takes a dozen seconds to compile."""
import functools

from pipeline import compiled_loop, compose

USUAL = ("round_robin", "http_path", "number_modulo")
"""Select kernels of the loop that most tests share: a configuration names the first ones of these, in this order, or all."""


@functools.lru_cache(maxsize=None)
def composed(selects=USUAL, payloads=(), checked=False):
    """Returns the loop with these select and payload kernels, by their numbers: where they are the first of USUAL, with all of it.

    It is compiled at its first call: `started` does that under the lock that cold starts take.
    """
    if selects == USUAL[:len(selects)]:
        selects = USUAL
    with compose.compiling():
        return compose.compose({}, list(selects), "memory", payloads=payloads, checked=checked)


def started(state, selects=USUAL, payloads=(), checked=False):
    """Returns the loop for a state, compiled: see `composed`. No packet has been received and no time has passed."""
    run = composed(selects, payloads, checked)
    if not compiled_loop.is_compiled(run, state):
        with compose.compiling():
            run(state, 0, 0)
    return run
