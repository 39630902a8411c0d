"""Composes a worker's loop: `loop.py` with the kernels that the configuration names, written as source and compiled once.

A loop that captured its kernels in a closure would miss Numba's cache in every new process. So the composition is a
module of its own, which imports its kernels by name and is kept under the digest of its text; a second process loads it
from the cache.
"""
import contextlib
import fcntl
import gc
import hashlib
import importlib
import importlib.util
import inspect
import os
import pathlib
import shutil
import sys
import types

import numba

from pipeline.errors import ConfigurationError
from pipeline.kernels import jit
from pipeline.profile_marks import marked, unmarked

SLOTS = {
    "parse": [("offset", "pipeline.kernels.parse:parse", "Finds all headers by offset; malformed packets are counted."),
              ("c", "pipeline.kernels.twins:parse", "The same in C, a yardstick.")],
    "lookup": [("bucketed", "pipeline.kernels.lookup:bucketed",
                "Buckets of one cache line with 16-bit tags, looked up in prefetched passes."),
               ("c", "pipeline.kernels.twins:lookup", "The same in C, a yardstick.")],
    "select": [
        ("round_robin", "pipeline.kernels.select_balancing:round_robin", "Each target in turn."),
        ("http_path", "pipeline.kernels.select_content:http_path", "Longest rule that begins the HTTP/1 path."),
        ("http_host", "pipeline.kernels.select_content:http_host", "Rule that equals the HTTP/1 Host."),
        ("number_modulo", "pipeline.kernels.select_content:number_modulo",
         "ProxyEngine's test rule: the number that starts the payload, modulo the number of targets."),
    ],
    "payload": [
        ("unchanged", "pipeline.kernels.payload_text:unchanged", "Shows every byte to a kernel that changes none."),
        ("mask_digits", "pipeline.kernels.payload_text:mask_digits", "Every decimal digit becomes a star."),
    ],
    "express": [
        ("usual", "pipeline.kernels.express:usual", "Usual segments of established connections, all in one pass."),
        ("c", "pipeline.kernels.twins:express", "The same in C, a yardstick."),
        ("none", "pipeline.kernels.express:none", "Every packet goes through all stages: so where these are the user's."),
    ],
    "transition": [("splice", "pipeline.kernels.transition:transition", "Handshakes, splice and closes, in order.")],
    "schedule": [("round_robin", "pipeline.kernels.schedule:round_robin", "A burst of every queue in every pass."),
                 ("longest_first", "pipeline.kernels.schedule:longest_first",
                  "Hand-over first, then the queues whose last burst was the longest; none is left out for more than 8 passes.")],
    "rewrite": [("incremental", "pipeline.kernels.rewrite:rewrite", "Header translation, checksums by RFC 1624."),
                ("c", "pipeline.kernels.twins:rewrite", "The same in C, a yardstick; rare cases by the kernel above.")],
}
"""Every slot of the loop with our kernels for it: (short name, "module:function", what it does); the first is the
default, but for `select` and `payload`, which each service names."""

SIGNATURES = {
    "parse": ("packets", "base", "batch", "count", "port", "network", "counters"),
    "lookup": ("batch", "count", "buckets", "hot"),
    "select": ("payload", "service", "selection"),
    "payload": ("payload", "length", "position", "tailroom", "user"),
    "express": ("packets", "batch", "count", "connections", "network", "outbox", "now"),
    "transition": ("packets", "base", "batch", "count", "connections", "services", "targets", "network", "records",
                   "now"),
    "schedule": ("inputs",),
    "rewrite": ("packets", "base", "batch", "count", "connections", "network", "now"),
}
"""Parameters of a kernel in each slot; `loop.py` shows what is handed over."""

BEGIN, END = "# composed from here\n", "# composed to here\n"
STAGES_BEGIN, STAGES_END = "# stages from here\n", "# stages to here\n"
WIRE = "from pipeline.wire import stages, timers\n"
"""What stands there instead of the stages of the proxy in `mode = "forward"`."""
PORTS_END = "# ports to here\n"
KEPT = 20


def key(slot):
    """Returns the configuration's key for the kernel of a slot: each service names its own select and payload kernels."""
    own = {"select": "services: select", "payload": "services: payload_to_target or payload_to_client"}
    return own.get(slot, f"kernels.{slot}")


def place_of(slot, name):
    """Returns "module:function" or "file.py:function" for a kernel given by short name or place."""
    if ":" in name:
        return name
    for short, place, _ in SLOTS[slot]:
        if short == name:
            return place
    known = ", ".join(short for short, _, _ in SLOTS[slot])
    raise ConfigurationError(f'{key(slot)} = "{name}" is no kernel of this slot; it must be one of {known}, '
                             'or "package.module:function", or "file.py:function"')


@contextlib.contextmanager
def _without_bytecode():
    """Python takes a file's bytecode for new by its size and the second of its last change: an edit may be neither."""
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


def _module_of(slot, place):
    origin = place.rpartition(":")[0]
    with contextlib.nullcontext() if origin.startswith("pipeline.") else _without_bytecode():
        return _load(slot, place, origin)


def _load(slot, place, origin):
    try:
        if not origin.endswith(".py"):
            return importlib.import_module(origin)
        path = pathlib.Path(origin).resolve()
        name = f"pipeline_kernel_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        if str(path.parent) not in sys.path:
            sys.path.append(str(path.parent))
        spec.loader.exec_module(module)
        return module
    except Exception as error:  # the user's file may fail in any way
        raise ConfigurationError(f'{key(slot)} = "{place}" cannot be loaded: {type(error).__name__}: {error}') from error


def kernel_at(slot, place):
    """Returns the njit function for a slot at "module:function" or "file.py:function"; plain functions are compiled.

    Raises ConfigurationError where there is none, or where its signature is not the slot's.
    """
    module, function = _module_of(slot, place), place.rpartition(":")[2]
    found = getattr(module, function, None)
    if not callable(found):
        raise ConfigurationError(f'{key(slot)} = "{place}": there is no function {function} there')
    plain = getattr(found, "py_func", found)
    try:
        given = tuple(inspect.signature(plain).parameters)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f'{key(slot)} = "{place}" is no function in Python, whose source can be compiled') from error
    if len(given) != len(SIGNATURES[slot]):
        raise ConfigurationError(f'{key(slot)} = "{place}" has the wrong signature\n'
                                 f"  the slot's: {slot}({', '.join(SIGNATURES[slot])})\n"
                                 f"  this one's: {function}({', '.join(given)})")
    compiled = isinstance(found, numba.core.dispatcher.Dispatcher) or numba.config.DISABLE_JIT
    return found if compiled else jit.kernel(found)


def _import_lines(slot, place, name):
    """Returns the source that binds `name` to the kernel at `place`, checked against the slot's signature."""
    module, _, function = place.rpartition(":")
    kernel_at(slot, place)
    if place.startswith("pipeline.kernels."):
        return f"from {module} import {function} as {name}\n"
    origin = str(pathlib.Path(module).resolve()) if module.endswith(".py") else importlib.import_module(module).__file__
    located = f"{origin}:{function}" if module.endswith(".py") else place
    return f"# {jit.stamp(origin)}\n{name} = kernel_at({slot!r}, {located!r})\n"


def _dispatch(slot, name, count, otherwise):
    """Returns the source of `name`, which asks one of `count` kernels of a slot that are numbered; else it answers so."""
    arguments = ", ".join(SIGNATURES[slot])
    lines = [f"@kernel\ndef {name}(number, {arguments}):\n"]
    for number in range(count):
        lines.append(f"    if number == {number}:\n        return whole_number({slot}_{number}({arguments}))\n")
    return "".join(lines) + f"    return {otherwise}\n\n\n"


def _generator():
    """Returns the source of what stands instead of the stages of the proxy in `mode = "generator"`."""
    text = (pathlib.Path(__file__).parent / "generator.py").read_text()
    return text.partition(STAGES_BEGIN)[2].partition(STAGES_END)[0]


def express_for(kernels):
    """Returns the short name of the kernel for the slot `express` where the configuration names none.

    Where transition or rewrite is another one than ours, none: they are to see every packet.
    """
    ours = all(place_of(slot, kernels.get(slot, SLOTS[slot][0][0])) == SLOTS[slot][0][1] for slot in ("transition", "rewrite"))
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

    `kernels`: slot to kernel where it is not the default; `selects`, `payloads`: the select and the payload kernels, in the
    order of their numbers; `device`: "dpdk" or "memory"; `mode`: "proxy", or "forward" or "generator", which have no slots;
    `checked`: with owner tags (`owner_tags.Owned` around the device); `taps`: source of what is recorded.
    """
    text = (pathlib.Path(__file__).parent / "loop.py").read_text()
    head, _, rest = text.partition(BEGIN)
    tail = rest.partition(END)[2]
    ports = _device_lines(device, checked)
    plan = _import_lines("schedule", place_of("schedule", kernels.get("schedule", SLOTS["schedule"][0][0])), "schedule")
    if mode != "proxy":
        before, _, stages = tail.partition(STAGES_BEGIN)
        return head + "from pipeline.compose import kernel_at\n" + ports + plan + taps + (WIRE if mode == "forward" else _generator()) + before + stages.partition(STAGES_END)[2]
    lines = ["from pipeline.compose import kernel_at\n", "from pipeline.kernels.native import whole_number\n", ports, plan, taps]
    kernels = {"express": express_for(kernels), **kernels}
    for slot in ("express", "lookup", "parse", "rewrite", "transition"):
        lines.append(_import_lines(slot, place_of(slot, kernels.get(slot, SLOTS[slot][0][0])), slot))
    for slot, names in (("select", selects), ("payload", payloads)):
        for number, name in enumerate(names):
            lines.append(_import_lines(slot, place_of(slot, name), f"{slot}_{number}"))
    lines.append(f"\n\nPAYLOAD_KERNELS = {len(payloads)}\n\n\n")
    lines.append(_dispatch("select", "select", len(selects), "NO_MATCH"))
    lines.append(_dispatch("payload", "show", len(payloads), "length"))
    return head + "".join(lines) + tail


def complaint(error, kernels, selects):
    """Returns a sentence about a loop that Numba refused to compile (`error`), naming the kernels that are not ours."""
    foreign = [f'"{name}"' for name in [*kernels.values(), *selects] if ":" in name]
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith(("Failed in nopython", "During:", "File ", "<source", "- "))]
    places = [line for line in lines if line.startswith("File ") and "pipeline" not in line]
    ours = [line.rpartition("Error: ")[2] for line in lines if "has to answer" in line]
    return (f"the kernels do not compile{', with ' + ', '.join(foreign) if foreign else ''}: {(ours or told or lines)[0]}"
            + (f" ({places[-1].rstrip(':')})" if places else ""))


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
    by_age = sorted(folder.glob("loop_*.py"), key=lambda file: -file.stat().st_mtime)
    for old in by_age[KEPT:]:
        old.unlink(missing_ok=True)
        for compiled in (jit.cache_folder() / "kernels").glob(f"{old.stem}-*"):
            shutil.rmtree(compiled, ignore_errors=True)
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
