"""Composes a worker's loop: `loop.py` with the kernels that the configuration names, written as source and compiled once.

A loop that captured its kernels in a closure would miss Numba's cache in every new process. So the composition is a
module of its own, which imports its kernels by name and is kept under the digest of its text; a second process loads it
from the cache.
"""
import contextlib
import fcntl
import gc
import hashlib
import os
import pathlib
import shutil
import sys
import time
import types

import numba
from numba.core.errors import NumbaError

from pipeline import replacement
from pipeline.errors import ConfigurationError
from pipeline.kernel_places import default_of, file_of, is_ours, kernel_at, parameters_of, place_of
from pipeline.kernels import jit
from pipeline.profile_marks import marked, unmarked
from pipeline.slots import SLOTS

BEGIN, END = "# composed from here\n", "# composed to here\n"
STAGES_BEGIN, STAGES_END = "# stages from here\n", "# stages to here\n"
WIRE = "from pipeline.wire import stages, timers\n"
"""What stands there instead of the stages of the proxy in `mode = "forward"`."""
PORTS_END = "# ports to here\n"
KEPT, YOUNG = 20, 86400
"""So many compositions stay in the cache, and all that were used within so many seconds: the tests use more in one run, and one
that went and comes again takes a minute to compile."""


def _import_lines(slot, place, name):
    """Returns the source that binds `name` to the kernel at `place`, checked against the slot's signature."""
    module, _, function = place.rpartition(":")
    kernel_at(slot, place)
    if is_ours(place):
        return f"from {module} import {function} as {name}\n"
    origin = file_of(place)
    located = f"{origin}:{function}" if module.endswith(".py") else place
    return f"# {jit.stamp(origin)}\n{name} = kernel_at({slot!r}, {located!r})\n"


def _dispatch(slot, name, places, otherwise):
    """Returns the source of `name`, which asks one of the kernels at `places`, by their numbers; else it answers so.

    A kernel that does without the last parameters is not given them.
    """
    parameters = list(SLOTS[slot].parameters)
    lines = [f"@kernel\ndef {name}(number, {', '.join(parameters)}):\n"]
    for number, place in enumerate(places):
        taken = parameters[:len(parameters_of(slot, place, kernel_at(slot, place)))]
        lines.append(f"    if number == {number}:\n        return whole_number({slot}_{number}({', '.join(taken)}))\n")
    return "".join(lines) + f"    return {otherwise}\n\n\n"


def _generator():
    """Returns the source of what stands instead of the stages of the proxy in `mode = "generator"`."""
    text = (pathlib.Path(__file__).parent / "generator.py").read_text()
    return text.partition(STAGES_BEGIN)[2].partition(STAGES_END)[0]


def _chosen(kernels, slot):
    """Returns the place of the kernel that fills a slot of [kernels]."""
    return place_of(slot, kernels[slot]) if slot in kernels else default_of(slot)


def express_for(kernels):
    """Returns the short name of the kernel for the slot `express` where the configuration names none.

    Where transition or rewrite is another one than ours, none: they are to see every packet.
    """
    ours = all(_chosen(kernels, slot) == default_of(slot) for slot in ("transition", "rewrite"))
    return "usual" if ours else "none"


def _device_lines(device, checked):
    """Returns the source that binds the functions of a device, or those that set owner tags around it."""
    if not checked:
        return (f"from pipeline.kernels.{device}_device import allocate, available, pause, receive, release as free, take_over, transmit\n"
                f"from pipeline.kernels.{device}_device import hand_over as hand_on\n")
    text = (pathlib.Path(__file__).parent / "owned_device.py").read_text()
    return f"from pipeline.kernels import {device}_device as ports\n" + text.partition(PORTS_END)[2] + "\n\n"


NO_TAPS = "from pipeline.kernels.recorder import every as is_recorded\n\nRECORDING, CAPTURING = 0, 0\n"
"""Source of what the loop records: nothing (see `pipeline.recorders`)."""


def source(kernels, selects, device, mode="proxy", payloads=(), checked=False, taps=NO_TAPS):
    """Returns the source (str) of a loop.

    `kernels`: slot to kernel where it is not the default (where others call what is replaced, their copies are written: see
    `replacement`); `selects`, `payloads`: the select and the payload kernels, in the
    order of their numbers; `device`: "dpdk" or "memory"; `mode`: "proxy", or "forward" or "generator", which have no slots;
    `checked`: with owner tags (`owner_tags.Owned` around the device); `taps`: source of what is recorded.
    """
    text = (pathlib.Path(__file__).parent / "loop.py").read_text()
    head, _, rest = text.partition(BEGIN)
    tail = rest.partition(END)[2]
    ports = _device_lines(device, checked)
    plan = _import_lines("schedule", _chosen(kernels, "schedule"), "schedule")
    if mode != "proxy":
        before, _, stages = tail.partition(STAGES_BEGIN)
        return head + "from pipeline.compose import kernel_at\n" + ports + plan + taps + (WIRE if mode == "forward" else _generator()) + before + stages.partition(STAGES_END)[2]
    lines = ["from pipeline.compose import kernel_at\n", "from pipeline.kernels.native import whole_number\n", ports, plan, taps]
    kernels = {"express": express_for(kernels), **kernels}
    for slot in ("express", "lookup", "observe", "parse", "rewrite", "transition"):
        lines.append(_import_lines(slot, _chosen(kernels, slot), slot))
    numbered = [(slot, number, place_of(slot, name)) for slot, names in (("select", selects), ("payload", payloads))
                for number, name in enumerate(names)]
    lines += [_import_lines(slot, place, f"{slot}_{number}") for slot, number, place in numbered]
    lines.append(f"\n\nPAYLOAD_KERNELS = {len(payloads)}\nOBSERVES = {int(_chosen(kernels, 'observe') != default_of('observe'))}\n\n\n")
    lines.append(_dispatch("select", "select", [place for slot, _, place in numbered if slot == "select"], "NO_MATCH"))
    lines.append(_dispatch("payload", "show", [place for slot, _, place in numbered if slot == "payload"], "length"))
    package = replacement.package_for(kernels, [(slot, place) for slot, _, place in numbered])
    text = head + "".join(lines) + tail
    if package is None:
        return text
    replacement.provide(package)
    return replacement.redirected(text, package.name, package.moved)


def complaint(error, kernels, selects):
    """Returns a sentence about a loop that Numba refused to compile (`error`), naming the kernels that are not ours."""
    foreign = [f'"{name}"' for name in [*kernels.values(), *selects] if ":" in name]
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith(("Failed in nopython", "During:", "File ", "<source", "- "))]
    places = [line for line in lines if line.startswith("File ") and "pipeline" not in line]
    ours = [line.rpartition("Error: ")[2] for line in lines if "has to answer" in line]
    return (f"the kernels do not compile{', with ' + ', '.join(foreign) if foreign else ''}: {(ours or told or lines)[0]}"
            + (f" ({places[-1].rstrip(':')})" if places else ""))


def first_call(run, state, kernels, named):
    """Has a loop compiled for a state, or taken from the cache, by a call that makes no pass.

    Raises ConfigurationError where one of the `kernels` (dict by slot), or of the select and payload kernels `named`, does not compile.
    """
    try:
        run(state, 0, 0)
    except NumbaError as error:
        raise ConfigurationError(complaint(error, kernels, named)) from error


@contextlib.contextmanager
def compiling():
    """Holds the lock under which loops are written and compiled: of many cold starts at once, one compiles.

    What has its bounds checked shares nothing with what has not, so neither waits for the other.
    """
    folder = jit.cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ("lock-checked" if numba.config.BOUNDSCHECK else "lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        gc.disable()  # Numba makes objects by the million and hardly any garbage: without, 33 s instead of 31
        try:
            yield
        finally:
            gc.enable()


def _write(text):
    folder = jit.cache_folder() / "compositions"
    folder.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256((text + str(pathlib.Path(__file__).resolve().parent)).encode()).hexdigest()[:16]
    path = folder / f"loop_{digest}.py"
    if not path.exists():
        draft = path.with_suffix(f".{os.getpid()}")
        draft.write_text(text)
        os.replace(draft, path)
    os.utime(path)
    last_used = {file: file.stat().st_mtime for file in folder.glob("loop_*.py")}
    for old in sorted(last_used, key=last_used.get, reverse=True)[KEPT:]:
        if last_used[old] > time.time() - YOUNG:
            continue
        old.unlink(missing_ok=True)
        for compiled in (jit.cache_folder() / "kernels").glob(f"{old.stem}-*"):
            shutil.rmtree(compiled, ignore_errors=True)
    replacement.forget_unused()
    return path


def compose(kernels, selects, device, mode="proxy", payloads=(), checked=False, taps=NO_TAPS, profiled=False):
    """Returns the `run` of a loop with these kernels (see `source`), not yet compiled. Call it within `compiling`.

    `profiled`: with marks for the profile (profile_marks.py).
    """
    text = source(kernels, selects, device, mode, payloads, checked, taps)
    path = _write(marked(text) if profiled else unmarked(text))
    module = types.ModuleType(f"pipeline_{path.stem}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module
    exec(compile(path.read_text(), str(path), "exec"), module.__dict__)  # noqa: S102 - no __pycache__ beside it
    return module.run
