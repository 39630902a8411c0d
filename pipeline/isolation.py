"""Per-core isolation: no array of a worker's is another's too, nor on a cache line with one, and with
`isolation = "checked"` whoever touches what is not its own is caught (DESIGN, section 7).

What catches whom then: an index outside its array raises (the loop is compiled with NUMBA_BOUNDSCHECK); an address outside it
faults, for each array lies between inaccessible pages; an mbuf of another's, or of nobody's, raises (`kernels.owner_tags`).
"""
import faulthandler
import os
import sys

import numba
import numpy as np

from pipeline.errors import ConfigurationError, IsolationError
from pipeline.kernels import memory, memory_device, owner_tags
from pipeline.own_memory import fields, guarded_blocks, line_blocks, moved, on_own_lines, regions

SHARED = {"packets": "the arena, whose mbufs have owner tags"}
"""What all workers share, and why: fields of a state with all that is in them."""
SHARED_BY_MEMORY_DEVICES = {
    "device.base": "the arena's address, which nobody writes",
    "device.mbuf": "the arena",
    "device.ends": "the bounds of each side's mbufs, which nobody writes",
    "device.handed": "rings of one producer and one consumer each",
    "device.homeward": "rings of one producer and one consumer each",
    "device.foreign": "this side's rows of `homeward`",
}
BOUNDS = "NUMBA_BOUNDSCHECK"


def shared(state):
    """Returns the paths (tuple of str) of what a worker's state has in common with others; see SHARED."""
    return tuple(SHARED) + (tuple(SHARED_BY_MEMORY_DEVICES) if isinstance(state.device, memory_device.Device) else ())


def _is_in(path, names):
    return any(path == name or path.startswith(f"{name}.") for name in names)


def _places(state, worker, line):
    """Yields (first address, address behind, worker, path) of each array, in units of `line` bytes; -1 for what is shared."""
    names = shared(state)
    for path, array in fields(state):
        if not array.size:
            continue
        (low, high, _), = regions({path: array})
        common = _is_in(path, names)
        if not common or line == 1:
            yield low // line, -(-high // line), -1 if common else worker, path


def refuse_shared(states, line=1):
    """Raises IsolationError where an array of one worker's overlaps one of another's, or what is shared.

    With `line`, where they are on one block of that many bytes: a cache line that one writes is taken from the other.
    """
    last = {}
    places = [place for number, state in enumerate(states) for place in _places(state, number, line)]
    for low, high, worker, path in sorted(places):
        for other, (end, held) in last.items():
            if other != worker and low < end:
                raise IsolationError(_refusal(other, held, worker, path, line))
        if worker not in last or high > last[worker][0]:
            last[worker] = high, path


def _refusal(one, held, other, path, line):
    names = [f"{name} of worker {number}" if number >= 0 else f"{name}, which all share,"
             for number, name in ((one, held), (other, path))]
    where = "are the same memory" if line == 1 else f"lie on one cache line of {line} bytes"
    return f"{names[0]} and {names[1]} {where}: each worker's state must be its own"


def isolated(states, checked=False):
    """Returns the workers' states, each with memory of its own; the given ones are not to be used any more.

    `checked`: between guard pages, and with owner tags around the device (`owner_tags.Owned`), for a loop that is composed
    for that. Raises IsolationError where two share what they should not.
    """
    refuse_shared(states)
    if checked:
        moved_there = [moved(state, _stays(state), guarded_blocks, lambda low, high: False) for state in states]
    elif len(states) > 1:
        moved_there = [moved(state, _stays(state), line_blocks, on_own_lines) for state in states]
    else:
        return list(states)
    refuse_shared(moved_there, memory.LINE)
    return _tagged(moved_there) if checked else moved_there


def _stays(state):
    """Returns the function that says of a path whether its array stays where it is: the pool of a memory device, and whoever
    feeds it, work on the same ones."""
    names = (*SHARED, "device") if isinstance(state.device, memory_device.Device) else tuple(SHARED)
    return lambda path: _is_in(path, names)


def _tagged(states):
    """Returns the states with owner tags around their devices, which they have in common."""
    octets = states[0].packets.octets
    tags = np.zeros((octets.size >> owner_tags.PLACE_BITS) + 1, np.uint8)
    return [state._replace(device=owner_tags.Owned(
        ports=state.device, mbuf=state.packets.mbuf, tags=tags, tag=memory.on_lines(np.array([worker + 1])),
        violations=memory.on_lines(np.zeros(1, np.int64)), noted=memory.on_lines(np.zeros((owner_tags.KEPT, 3), np.int64))))
        for worker, state in enumerate(states)]


def _holder(tag):
    return {owner_tags.NOBODY: "which nobody holds", -1: "and there is none"}.get(tag, f"which worker {tag - 1} holds")


def cause(error, state):
    """Returns in words what ended a worker with this `error`, which its `state` may tell more about."""
    if not isinstance(error, owner_tags.OwnershipError):
        return repr(error)
    owned = state.device
    done, mbuf, tag = owned.noted[0].tolist()
    more = int(owned.violations[0]) - 1
    return (f"as worker {int(owned.tag[0]) - 1} it {owner_tags.DONE[done]} the mbuf at {mbuf:#x}, {_holder(tag)}"
            + (f", and {more} more like that" if more else ""))


def refuse_unchecked():
    """Raises ConfigurationError where kernels were loaded without their bounds being checked. Has faults told on stderr."""
    if not numba.config.BOUNDSCHECK:
        raise ConfigurationError(f'engine.isolation = "checked": kernels were loaded without bounds being checked; {BOUNDS} = "1" '
                                 "must be in the environment before Python starts")
    if sys.stderr is not None and not faulthandler.is_enabled():
        faulthandler.enable()


def start_anew_checked():
    """Starts this process anew with the bounds of arrays checked, where they are not: kernels are loaded by now.

    Does not return then.
    """
    if not numba.config.BOUNDSCHECK:
        sys.stdout.flush()
        sys.stderr.flush()
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, BOUNDS: "1"})
