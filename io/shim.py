"""The C shim over DPDK as Python sees it: found, loaded, and its errors turned into sentences."""
import contextlib
import importlib.machinery
import importlib.util
import pathlib
import sys

from pipeline.kernels import native


class DpdkError(RuntimeError):
    """DPDK refused something; the text is one sentence for the user."""


class DpdkMissing(DpdkError, ImportError):
    """The shim is not built here, or DPDK has gone since it was."""


LOG_LEVELS = {"critical": 3, "error": 4, "warning": 5, "notice": 6, "info": 7, "debug": 8}
"""DPDK's levels (rte_log.h), by the names that EAL's --log-level takes."""
MISSING = "DPDK is not installed: apt-get install libdpdk-dev, then make install"


def _installed_shim():
    """Returns the shim's path in the first installed package that has one, else None.

    A wheel's shim is looked for here when Python runs in the root of a checkout, whose own `pipeline` is in front.
    """
    for entry in sys.path:
        for suffix in importlib.machinery.EXTENSION_SUFFIXES:
            path = pathlib.Path(entry or ".") / "pipeline" / f"_dpdk{suffix}"
            if path.is_file():
                return path.resolve()
    return None


def _load():
    path = _installed_shim()
    spec = (importlib.util.spec_from_file_location("pipeline._dpdk", path) if path
            else importlib.util.find_spec("pipeline._dpdk"))
    if spec is None:
        raise DpdkMissing(MISSING)
    try:
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        native.use_shim(spec.origin)
    except (ImportError, OSError, RuntimeError) as error:
        raise DpdkMissing(f"the DPDK shim cannot be loaded ({error}): apt-get install libdpdk-dev, then make install"
                          ) from error
    return module


_module = _load()
ffi, lib = _module.ffi, _module.lib
PATH = _module.__file__
"""The shim's shared object; its symbols are visible to njit code once this module is imported."""


@contextlib.contextmanager
def recorded_log():
    """Keeps DPDK's log from standard error for the length of a `with`; yields a function that takes it (str).

    What has not been taken by then is written to standard error after all.
    """
    room = ffi.new("char[]", 8192)

    def take():
        return ffi.unpack(room, lib.shim_log_take(room, len(room))).decode(errors="replace")
    lib.shim_log_record(1)
    try:
        yield take
    finally:
        lib.shim_log_record(0)
        sys.stderr.write(take())


def ask(what, function, *arguments, hint=""):
    """Calls a function of the shim and returns its result (int); a negative one raises DpdkError.

    The sentence is `what`, the text of the error, the first line of DPDK's log if it wrote one (the later ones
    only say that the caller failed too) and `hint`.
    """
    with recorded_log() as take:
        result = function(*arguments)
        if result >= 0:
            # Drivers log as errors what they then do without (net_tap: no multiq, no secondary process).
            if lib.shim_log_level() <= LOG_LEVELS["error"]:
                take()
            return result
        said = take().strip().partition("\n")[0]
    # A bare -1 is no errno: drivers return it after they have logged what is the matter.
    reason = "" if result == -1 and said else f": {ffi.string(lib.shim_error_text(result)).decode()}"
    raise DpdkError(f"{what}{reason}" + (f" (DPDK: {said})" if said else "") + (f"; {hint}" if hint else ""))
