"""The loops that the tests run over memory ports: as few different ones as will do, for each takes a dozen seconds to compile.

Where bounds are checked (NUMBA_BOUNDSCHECK) so is the rest of isolation: guard pages and owner tags, whatever runs there.
"""
import functools

from numba.core import config

from pipeline import compiled_loop, compose, isolation

USUAL = ("round_robin", "http_path", "number_modulo")
"""Select kernels of the loop that most tests share: a configuration names the first ones of these, in this order, or all."""

CHECKED = bool(config.BOUNDSCHECK) and not config.DISABLE_JIT


def own(states):
    """Returns the states of a loop's workers as the loop wants them (`isolation.isolated`)."""
    return isolation.isolated(states, CHECKED)


@functools.lru_cache(maxsize=None)
def composed(selects=USUAL, payloads=()):
    """Returns the loop with these select and payload kernels, by their numbers: where they are the first of USUAL, with all of it.

    It is compiled at its first call: `started` does that under the lock that cold starts take.
    """
    if selects == USUAL[:len(selects)]:
        selects = USUAL
    with compose.compiling():
        return compose.compose({}, list(selects), "memory", payloads=payloads, checked=CHECKED)


def started(state, selects=USUAL, payloads=()):
    """Returns the loop for a state, compiled: see `composed`. No packet has been received and no time has passed."""
    run = composed(selects, payloads)
    if not compiled_loop.is_compiled(run, state):
        with compose.compiling():
            run(state, 0, 0)
    return run
