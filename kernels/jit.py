"""Jit options, and the place where compiled kernels are cached; nothing else sets either.

Numba's own cache does not notice a change in *another* file, and `NUMBA_BOUNDSCHECK` is not part of its
key (both tried: a loop composed anew still ran a stale helper). So every kernel's stamp is a digest of its
file and of all the files of ours, or of the user's, that it imports, of the jit options, the CPU and the
bounds check. The cache lies in one folder of the user's, never in `__pycache__`.
"""
import ast
import fcntl
import functools
import hashlib
import importlib.util
import os
import pathlib
import tempfile
import types

import llvmlite.binding
import numba
from numba.core import caching, config
from numba.core.registry import CPUDispatcher

from .lowering import InlinedCompiler, LoopCompiler

OPTIONS = {"nogil": True, "cache": True, "error_model": "numpy", "_nrt": False}
"""Options of every njit function of the engine. Without Numba's run-time (`_nrt`) a kernel cannot allocate, and no array
is reference-counted: with it, the cold start of a loop took 135 s instead of 81."""


def cache_folder():
    """Returns the folder (pathlib.Path) that holds compiled kernels and composed loops.

    `PIPELINE_CACHE` names it; without that it is `$XDG_CACHE_HOME/proxy-pipeline`, or, for a user without a home that
    can be written, a folder of the user's among the temporary files.
    """
    named = os.environ.get("PIPELINE_CACHE")
    if named:
        return pathlib.Path(named)
    home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    folder = pathlib.Path(home) / "proxy-pipeline"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return _temporary_folder()
    return folder if os.access(folder, os.W_OK) else _temporary_folder()


def _temporary_folder():
    folder = pathlib.Path(tempfile.gettempdir()) / f"proxy-pipeline-cache-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid() or folder.stat().st_mode & 0o077:
        raise PermissionError(f"{folder}: belongs to somebody else; name a cache folder of your own in PIPELINE_CACHE")
    return folder


def _is_ours(path):
    parts = path.parts
    return not {"site-packages", "dist-packages"} & set(parts) or "pipeline" in parts


@functools.lru_cache(maxsize=None)
def _imported_names(path):
    """Returns the absolute module names that the Python file at `path` (str) imports."""
    names, package = [], _package_of(path)
    for node in ast.walk(ast.parse(pathlib.Path(path).read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            origin = node.module or ""
            if node.level:
                origin = ".".join(filter(None, [*package.split(".")[:len(package.split(".")) - node.level + 1], origin]))
            names.append(origin)
            names += [f"{origin}.{alias.name}" for alias in node.names]
    return tuple(names)


def _package_of(path):
    """Returns the package that the file at `path` belongs to: ours by its place, any other by the `__init__.py`s above."""
    folder = pathlib.Path(path).resolve().parent
    here = pathlib.Path(__file__).resolve().parent
    if folder in (here, here.parent / "io"):
        return f"pipeline.{folder.name}"
    names = []
    while (folder / "__init__.py").exists():
        names.insert(0, folder.name)
        folder = folder.parent
    return ".".join(names)


def _module_file(name, beside):
    """Returns the resolved path of module `name`, or None where it is not one of ours or the user's."""
    neighbour = beside / (name.replace(".", "/") + ".py")
    if neighbour.exists():
        return neighbour.resolve()
    if name.split(".")[0] in ("numpy", "numba", "typing", "llvmlite"):
        return None
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError, AttributeError):
        return None
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        return None
    path = pathlib.Path(spec.origin).resolve()
    standard = pathlib.Path(ast.__file__).resolve().parent
    if standard in path.parents and "site-packages" not in path.parts:
        return None
    return path if _is_ours(path) else None


def sources(path):
    """Returns the sorted files (str) that the code in the file `path` depends on, `path` among them."""
    found, waiting = set(), [pathlib.Path(path).resolve()]
    while waiting:
        current = waiting.pop()
        if str(current) in found or not current.exists():
            continue
        found.add(str(current))
        for name in _imported_names(str(current)):
            origin = _module_file(name, current.parent)
            if origin is not None:
                waiting.append(origin)
    return sorted(found)


@functools.lru_cache(maxsize=None)
def _digest_of_file(path):
    return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()


@functools.lru_cache(maxsize=None)
def stamp(path):
    """Returns a digest (str) of all that decides what the kernels in the file `path` compile to."""
    digest = hashlib.sha256()
    for source in sources(path):
        digest.update(f"{source} {_digest_of_file(source)}\n".encode())
    digest.update(repr((sorted(OPTIONS.items()), numba.__version__, config.BOUNDSCHECK,
                        llvmlite.binding.get_host_cpu_name())).encode())
    return digest.hexdigest()


class SourcesLocator(caching._CacheLocator):
    """Numba cache locator whose stamp covers every source that a kernel depends on."""

    def __init__(self, py_func, py_file):
        self._file = str(pathlib.Path(py_file).resolve())
        self._line = py_func.__code__.co_firstlineno

    def get_cache_path(self):
        """Returns the folder for this kernel's file: bounds checking on and off never share one."""
        checked = "-checked" if config.BOUNDSCHECK else ""
        name = hashlib.sha256(self._file.encode()).hexdigest()[:12]
        return str(cache_folder() / "kernels" / f"{pathlib.Path(self._file).stem}-{name}{checked}")

    def get_source_stamp(self):
        """Returns the digest that a cached kernel must carry to be used."""
        return stamp(self._file)

    def get_disambiguator(self):
        """Returns the line of the function, as Numba's own locators do."""
        return str(self._line)

    @classmethod
    def from_function(cls, py_func, py_file):
        """Returns a locator for `py_func` if its cache folder can be written, else None."""
        locator = cls(py_func, py_file)
        try:
            locator.ensure_cache_path()
            _forget_other_sources(locator.get_cache_path(), locator.get_source_stamp())
        except OSError:
            return None
        return locator


@functools.lru_cache(maxsize=None)
def _forget_other_sources(folder, wanted):
    """Empties a cache folder (str) that was filled from sources with another stamp, or by a version that left none.

    Numba unpickles an index before it compares the stamp in it, which fails where a type has moved to another module.
    """
    note = pathlib.Path(folder) / "stamp"
    if note.exists() and note.read_text() == wanted:
        return
    for file in pathlib.Path(folder).glob("*.nb[ic]"):
        file.unlink(missing_ok=True)
    note.write_text(wanted)


config.CACHE_LOCATOR_CLASSES = f"{__name__}.SourcesLocator"


def _in_turn(save):
    """Wraps Numba's way to keep what it has compiled: one process at a time reads an index, adds to it and writes it.

    Of two at once one would lose its entry, or both would write one file, and one load the machine code of the other's types.
    """
    @functools.wraps(save)
    def alone(self, key, data):
        with open(pathlib.Path(self._cache_path) / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            save(self, key, data)
    return alone


caching.IndexDataCacheFile.save = _in_turn(caching.IndexDataCacheFile.save)


class Kernel(CPUDispatcher):
    """A kernel. Loops call it, inlined; Python can too, and compiles a second copy with a wrapper at the first call."""

    def __call__(self, *arguments):
        """Runs the kernel from Python."""
        return _callable_from_python(self.py_func)(*arguments)


@functools.lru_cache(maxsize=None)
def _callable_from_python(function):
    # Numba's cache does not tell a function with a wrapper from one without: a copy has a name, so a file, of its own.
    copy = types.FunctionType(function.__code__, function.__globals__, function.__name__, function.__defaults__)
    copy.__qualname__ = f"{function.__qualname__}_from_python"
    copy.__module__ = function.__module__
    return numba.njit(pipeline_class=LoopCompiler, **OPTIONS)(copy)


def kernel(function):
    """Compiles a kernel or a function that kernels call: inlined by LLVM into the loop that calls it.

    Wrappers for calls from Python and C took more than half of the cold start (81 s with, 30 s without): each one
    unpacks all the arrays of its NamedTuples. So they are made for what Python really calls.
    """
    compiled = numba.njit(forceinline=True, no_cpython_wrapper=True, no_cfunc_wrapper=True,
                          pipeline_class=InlinedCompiler, **OPTIONS)(function)
    if not config.DISABLE_JIT:
        compiled.__class__ = Kernel
    return compiled


def apart(function):
    """Compiles a function that kernels call and that stays one: what is done hardly ever, so that the loop does not grow by it.

    A loop that is too large for LLVM is slow all over: with one more kernel in it `express` took twice as long.
    """
    compiled = numba.njit(no_cpython_wrapper=True, no_cfunc_wrapper=True, pipeline_class=InlinedCompiler, **OPTIONS)(function)
    if not config.DISABLE_JIT:
        compiled.__class__ = Kernel
    return compiled


def loop(function):
    """Compiles a function that Python calls: a worker's loop, or a driver in a test or measurement."""
    return numba.njit(pipeline_class=LoopCompiler, **OPTIONS)(function)
