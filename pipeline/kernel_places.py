"""Where kernels are: ours by their short names, the user's in modules and files; how they are loaded and what is refused."""
import contextlib
import hashlib
import importlib
import importlib.util
import inspect
import pathlib
import sys

import numba

from pipeline import kernel_statements
from pipeline.errors import ConfigurationError
from pipeline.kernels import jit
from pipeline.slots import SLOTS, fits, names, signature


def key(slot):
    """Returns the configuration's key for the kernel of a slot: each service names its own select and payload kernels.

    `slot` is None where the kernel is not of a configuration, and which slot it is for is still to be found out.
    """
    own = {None: "kernel", "select": "services: select", "payload": "services: payload_to_target or payload_to_client"}
    return own.get(slot, f"kernels.{slot}")


def place_of(slot, name):
    """Returns "module:function" or "file.py:function" for a kernel given by short name or place."""
    if ":" in name:
        return name
    for short, place, _ in SLOTS[slot].choices:
        if short == name:
            return place
    raise ConfigurationError(f'{key(slot)} = "{name}" is no kernel of this slot; it must be one of {", ".join(names(slot))}, '
                             'or "package.module:function", or "file.py:function"')


def place_from(text, said, form=""):
    """Returns the place that a user means by FILE:FUNCTION or MODULE:FUNCTION; a file's name is taken from the current folder.

    Raises ConfigurationError, whose sentence begins with what the user has `said`; `form` is what else
    it has to be.
    """
    origin, _, function = text.rpartition(":")
    if not origin or not function.isidentifier():
        raise ConfigurationError(f'{said}: must be {form}"file.py:function" or "package.module:function"')
    if not origin.endswith(".py"):
        return text
    path = pathlib.Path(origin).absolute()
    if not path.is_file():
        raise ConfigurationError(f"{said}: names no file: {path} does not exist")
    return f"{path}:{function}"


def default_of(slot):
    """Returns the place of the kernel that fills a slot where nothing else is said."""
    return SLOTS[slot].choices[0].place


@contextlib.contextmanager
def _without_bytecode():
    """Python takes a file's bytecode for new by its size and the second of its last change: an edit may be neither."""
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


def module_of(slot, place):
    """Returns the module of a kernel at "module:function" or "file.py:function"; raises ConfigurationError."""
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
    except (Exception, SystemExit) as error:  # the user's file may fail in any way, or end the program that loads it
        raise ConfigurationError(f'{key(slot)} = "{place}" cannot be loaded: {type(error).__name__}: {error}') from error


def file_of(place):
    """Returns the file (str) of a kernel at "module:function", which has been loaded, or "file.py:function"."""
    module = place.rpartition(":")[0]
    return str(pathlib.Path(module).resolve()) if module.endswith(".py") else importlib.import_module(module).__file__


def is_ours(place):
    """Says whether a place is that of a kernel of ours."""
    return place.startswith("pipeline.kernels.")


def parameters_of(slot, place, found):
    """Returns the names of the parameters (tuple of str) of a function that was found at a place; raises ConfigurationError."""
    try:
        return tuple(inspect.signature(getattr(found, "py_func", found)).parameters)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f'{key(slot)} = "{place}" is no function in Python, whose source can be compiled') from error


def function_in(slot, place, module):
    """Returns the function of `module` that a place names; raises ConfigurationError where there is none."""
    function = place.rpartition(":")[2]
    found = getattr(module, function, None)
    if not callable(found) or inspect.isclass(found):
        raise ConfigurationError(f'{key(slot)} = "{place}": there is no function {function} there')
    return found


def compiled(found):
    """Returns a function as a kernel; one that is compiled is taken as it is."""
    if isinstance(found, numba.core.dispatcher.Dispatcher) or numba.config.DISABLE_JIT:
        return found
    return jit.kernel(found)


def kernel_at(slot, place):
    """Returns the njit function for a slot at "module:function" or "file.py:function"; plain functions are compiled.

    Raises ConfigurationError where there is none, where its signature is not the slot's, or where it raises or prints.
    """
    found = function_in(slot, place, module_of(slot, place))
    given = parameters_of(slot, place, found)
    if not fits(slot, len(given)):
        raise wrong_signature(slot, place, signature(slot), f"{place.rpartition(':')[2]}({', '.join(given)})")
    if not is_ours(place) and (fault := kernel_statements.fault(found)):
        raise ConfigurationError(fault)
    return compiled(found)


def wrong_signature(slot, place, wanted, given):
    """Returns the ConfigurationError that shows both signatures (str)."""
    return ConfigurationError(f'{key(slot)} = "{place}" has the wrong signature\n  the slot\'s: {wanted}\n  this one\'s: {given}')
