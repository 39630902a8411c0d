"""`python -m pipeline kernels check`: is a kernel one for its slot, does it compile, and does it do what the slot asks of it."""
import contextlib
import os
import pathlib
import re
import sys
import threading

import numba
from numba import typeof
from numba.core.errors import NumbaError

from pipeline import kernel_places, kernel_statements, replacement
from pipeline.errors import ConfigurationError
from pipeline.kernel_trials import TRIALS
from pipeline.new_kernel import known_slot
from pipeline.slots import SLOTS, signature

SHOWN = 5
"""Differences that are shown; the number of the others is told."""


class _Tried:
    """A kernel that can be called, and remembers the types of its first arguments."""

    def __init__(self, kernel):
        self.kernel, self.types = kernel, None

    def __call__(self, *arguments):
        if self.types is None and not numba.config.DISABLE_JIT:
            self.types = tuple(typeof(value) for value in arguments)
        return self.kernel(*arguments)


def guessed_slot(place):
    """Returns the slot whose parameters a function has, or whose name; raises ConfigurationError where it has neither."""
    function = place.rpartition(":")[2]
    found = kernel_places.function_in(None, place, kernel_places.module_of(None, place))
    given = kernel_places.parameters_of(None, place, found)
    for slot, described in SLOTS.items():
        if given in (tuple(described.parameters), tuple(described.parameters)[:len(described.parameters) - described.spared]):
            return slot
    if function in SLOTS:
        return function
    known = "\n".join(f"  {signature(slot)}" for slot in SLOTS)
    raise ConfigurationError(f"{place}: {function}({', '.join(given)}) has the parameters of no slot; --slot SLOT says which one it "
                             f"is meant for:\n{known}")


def why(error, place):
    """Returns one sentence (str) on why a kernel does not compile, with file and line."""
    text, file = str(error), kernel_places.file_of(place)
    name = re.escape(pathlib.Path(file).name)
    lines = re.findall(rf'{name}", line (\d+)|{name} \((\d+)\)', text)
    unknown = re.search(r"NameError: name '(\w+)' is not defined", text)
    if unknown and not lines:
        lines = [(str(number), "") for number, line in enumerate(pathlib.Path(file).read_text().splitlines(), 1)
                 if re.search(rf"\b{unknown[1]}\b", line)]
    where = f"{file}:{next(filter(None, lines[0]))}" if lines else file
    if "NRT" in text or re.search(r"built-in function (zeros|empty|ones|full|array|arange)>", text):
        return (f"{where}: it allocates memory (a list, an array, a string), which a kernel cannot: kernels are compiled without "
                "Numba's run-time (NRT). Work on what the arguments hold.")
    told = [line.strip() for line in text.splitlines() if line.strip()]
    told = [line for line in told if not line.startswith(("Failed in nopython", "During:", "File ", "<source", "- ", ">>>"))]
    return f"{where}: {(told or [type(error).__name__])[0]}"


def _finding(what, faults, said=""):
    shown = faults[:SHOWN] + ([f"and {len(faults) - SHOWN} more"] if len(faults) > SHOWN else [])
    return {"what": what, "passed": not faults, "said": "\n".join(shown) if faults else said}


def float_faults(kernel, types):
    """Returns sentences (list of str) on floats and uint64 in a kernel and all that it calls, by what Numba infers for them."""
    from pipeline.typed_ir import walk
    faults = []
    walk(kernel, types, faults, set())
    return list(dict.fromkeys(re.sub(r"\$?\S*\$\S* is", "a value is", fault) for fault in faults))


def check(text, slot=None):
    """Returns what was found of the kernel at `text` (dict: kernel, slot, signature, passed, findings).

    Raises ConfigurationError for what `run` would refuse before it compiles anything: no such file or function, a wrong signature.
    """
    place = kernel_places.place_from(text, text)
    slot = known_slot(slot) if slot else guessed_slot(place)
    if fault := kernel_statements.fault(kernel_places.function_in(slot, place, kernel_places.module_of(slot, place))):
        return {"kernel": place, "slot": slot, "signature": signature(slot), "passed": False,
                "findings": [_finding("does what the slot asks", [fault])]}
    kernel = kernel_places.kernel_at(slot, place)
    own = replacement.brings(slot, place)
    findings = [_finding("signature", [], signature(slot, place.rpartition(":")[2])
                         + (f", with {', '.join(SLOTS[slot].beside)} of its own" if own else ""))]
    tried = _Tried(kernel)
    try:
        with_what, faults = TRIALS[slot](tried, place)
        compiles, same = _finding("compiles", [], "without memory of its own"), _finding("does what the slot asks", faults, with_what)
    except NumbaError as error:
        compiles, same = _finding("compiles", [why(error, place)]), None
    except Exception as error:  # a kernel may raise anything
        compiles = _finding("compiles", [], "without memory of its own")
        same = _finding("does what the slot asks", [f"it raises {type(error).__name__}: {error}; a kernel must not raise"])
    findings.append(compiles)
    if compiles["passed"] and tried.types is not None:
        findings.append(_finding("whole numbers alone", float_faults(kernel, tried.types), "no floating point, no uint64"))
    findings += [same] if same else []
    return {"kernel": place, "slot": slot, "signature": signature(slot), "passed": all(one["passed"] for one in findings),
            "findings": findings}


@contextlib.contextmanager
def time_limit(text, seconds):
    """Ends this process, with status 1 and a sentence, where what is done within takes longer: compiled code cannot be interrupted."""
    def give_up():
        print(f"{text}: has not come to an end within {seconds:g} seconds; a kernel that does not return stops its worker for good: "
              "look for a loop that nothing ends", file=sys.stderr, flush=True)
        os._exit(1)
    watch = threading.Timer(seconds, give_up)
    watch.daemon = True
    watch.start()
    try:
        yield
    finally:
        watch.cancel()


def text_of(report):
    """Returns a report as text."""
    lines = [f"{report['kernel']} for the slot {report['slot']}"]
    for finding in report["findings"]:
        lines.append(f"  {'ok    ' if finding['passed'] else 'FAILED'} {finding['what']}" + (": " if finding["said"] else "")
                     + finding["said"].replace("\n", "\n" + " " * 9))
    return "\n".join(lines)
