"""Replaces what many kernels call: the flow table, its hash, the timer wheel, the way records are finished.

Kernels import each other by name, and Numba compiles what they import. So a composition with, say, another flow table has
copies of the kernels that call the flow table: a package among the compositions, real files with paths of their own, by which
the cache of compiled kernels tells them from the originals. What does not depend on what is replaced is not copied. The package
is named by a digest of its text, which has the stamps of the user's files in it.
"""
import ast
import functools
import hashlib
import importlib.util
import os
import pathlib
import shutil
import sys
from typing import NamedTuple

from pipeline.errors import ConfigurationError
from pipeline.kernel_places import (
    compiled,
    default_of,
    file_of,
    is_ours,
    kernel_at,
    key,
    module_of,
    parameters_of,
    place_of,
    wrong_signature,
)
from pipeline.kernels import jit
from pipeline.slots import SLOTS

KERNELS = pathlib.Path(jit.__file__).resolve().parent
HOMES = {"hash": ("flow_hash", "hash_key"), "lookup": ("flow_table", None), "timers": ("wheel", "advance"),
         "record": ("records", "finish")}
"""Slot to the module whose functions are replaced, and to the one that stands for the slot's own kernel there, if any."""
ALLOCATORS = {"lookup": "allocate_buckets", "timers": "allocate_wheel"}
"""Slot to the function that makes what its kernels work on; a module that has one of its own brings all that stand beside it."""


class Package(NamedTuple):
    """Copies of kernels. `moved` says what is to be imported from here: names by module."""

    name: str
    files: dict    # text by name
    moved: dict


def _module_at(module):
    return importlib.import_module(f"pipeline.kernels.{module}")


def brings(slot, place):
    """Says whether the module of a kernel brings its own structure: a flow table or a timer wheel. Raises ConfigurationError
    where it brings a part of it, or functions with other parameters."""
    if slot not in ALLOCATORS or place == default_of(slot):
        return False
    module, home = module_of(slot, place), _module_at(HOMES[slot][0])
    own = getattr(module, ALLOCATORS[slot], None)
    if own is None or own is getattr(home, ALLOCATORS[slot]):
        return False
    beside = SLOTS[slot].beside
    missing = [name for name in beside if not callable(getattr(module, name, None))]
    if missing:
        raise ConfigurationError(f'{key(slot)} = "{place}" brings {ALLOCATORS[slot]}, so it must have {", ".join(beside)}; there is '
                                 f'no {" and no ".join(missing)}')
    for name in (*beside, *SLOTS[slot].also):
        ours, theirs = getattr(home, name), getattr(module, name, None)
        if theirs is None or name in ALLOCATORS.values():
            continue
        wanted, given = (parameters_of(slot, place, found) for found in (ours, theirs))
        if len(wanted) != len(given):
            raise wrong_signature(slot, place, f"{name}({', '.join(wanted)})", f"{name}({', '.join(given)})")
    return True


def allocator(kernels, slot):
    """Returns the function that allocates the flow table ("lookup") or the timer wheel ("timers") for chosen kernels (dict)."""
    place = place_of(slot, kernels.get(slot, SLOTS[slot].choices[0].name))
    home = _module_at(HOMES[slot][0])
    return getattr(module_of(slot, place) if brings(slot, place) else home, ALLOCATORS[slot])


def own_functions(slot, place):
    """Returns the functions (dict) of the kernel's module that stand for those of ours, compiled: for generated code."""
    module, (_, main) = module_of(slot, place), HOMES[slot]
    found = {main: kernel_at(slot, place)} if main else {}
    if brings(slot, place):
        wanted = [name for name in (*SLOTS[slot].beside, *SLOTS[slot].also) if name != ALLOCATORS[slot] and hasattr(module, name)]
        found |= {name: compiled(getattr(module, name)) for name in wanted}
    return found


def _bindings(slot, place):
    """Returns (names, source) of what stands in the package for the functions that a kernel replaces, each by its name."""
    module, (_, main) = module_of(slot, place), HOMES[slot]
    own, function = brings(slot, place), place.rpartition(":")[2]
    kernel_at(slot, place)
    beside = [name for name in (*SLOTS[slot].beside, *SLOTS[slot].also) if own and name != ALLOCATORS[slot]]
    there = [name for name in beside if hasattr(module, name)]
    lines = [f"from pipeline.kernels.no_hints import {name}\n" for name in beside if name not in there]
    if is_ours(place):
        lines += [f"from {module.__name__} import {function} as {main}\n"] if main else []
        lines += [f"from {module.__name__} import {name}\n" for name in there]
    else:
        located = place if not place.partition(":")[0].endswith(".py") else f"{file_of(place)}:{function}"
        names = ([main] if main else []) + there
        lines += ["from pipeline.replacement import own_functions\n", f"# {jit.stamp(file_of(place))}\n",
                  f"found = own_functions({slot!r}, {located!r})\n"]
        lines += [f"{name} = found[{name!r}]\n" for name in names]
    return ([main] if main else []) + beside, "".join(lines)


def imports(text):
    """Yields (node, module, names) of every import that a source makes from a module of the kernels; names (str, as)."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level == 1:
                module = f"pipeline.kernels.{module}"
            if module.startswith("pipeline.kernels.") and node.level < 2:
                yield node, module.rpartition(".")[2], [(alias.name, alias.asname) for alias in node.names]


@functools.cache
def _sources():
    return {path.stem: path.read_text() for path in sorted(KERNELS.glob("*.py"))}


@functools.cache
def _uses():
    """Returns, for each module, its imports (name there to (module, name)) and its functions (name to the names in them)."""
    found = {}
    for module, text in _sources().items():
        imported = {alias or name: (origin, name) for _, origin, names in imports(text) for name, alias in names}
        functions = {node.name: {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
                     for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)}
        found[module] = imported, functions
    return found


def _moves(moved, origin, name):
    """Says whether a name of a module is to come from the package."""
    return name in moved.get(origin, ())


def _affected(moved, homes):
    """Adds to `moved` all functions that call what is moved; `homes` are the modules whose own functions a module replaces."""
    grown = True
    while grown:
        grown = False
        for module, (imported, functions) in _uses().items():
            there = {name for name, (origin, own) in imported.items() if origin != homes.get(module) and _moves(moved, origin, own)}
            for function, used in functions.items():
                if not _moves(moved, module, function) and used & (there | moved.get(module, set())):
                    moved.setdefault(module, set()).add(function)
                    grown = True
    return moved


def redirected(text, package, moved, home=None):
    """Returns a source whose imports of what is moved come from `package` ("." inside of it), on the same lines.

    What it imports from `home` is what it replaces there: that stays the original.
    """
    lines = text.splitlines(keepends=True)
    for node, origin, names in imports(text):
        parts = []
        for where, chosen in ((f"{package}{origin}" if package == "." else f"{package}.{origin}", True),
                              (f"pipeline.kernels.{origin}", False)):
            mine = [name if alias is None else f"{name} as {alias}" for name, alias in names
                    if (origin != home and _moves(moved, origin, name)) == chosen]
            parts += [f"from {where} import {', '.join(mine)}"] if mine else []
        indent = " " * node.col_offset
        lines[node.lineno - 1] = indent + "; ".join(parts) + "\n"
        for number in range(node.lineno, node.end_lineno):
            lines[number] = "\n"
    return "".join(lines)


def _refuse_entangled(kernels, moved, homes):
    """Refuses kernels of the user's that import, from ours, what is replaced: they would call the one that is not in use."""
    for slot, place in kernels:
        if is_ours(place):
            continue
        for file in jit.sources(file_of(place)):
            if pathlib.Path(file).parent == KERNELS:
                continue
            for _, origin, names in imports(pathlib.Path(file).read_text()):
                for name, _ in names:
                    if _moves(moved, origin, name) and homes.get(slot) != origin:
                        raise ConfigurationError(
                            f'{key(slot)} = "{place}" imports {name} of pipeline.kernels.{origin}, which is not the one in use: '
                            f'{" and ".join(key(other) for other in homes)} replaced what it works on; leave one of them out')


def package_for(kernels, others=()):
    """Returns the Package for chosen kernels (slot to name or place), or None where nothing is replaced that others call.

    `others` are (slot, place) of the select and payload kernels, which are looked at for what they import.
    """
    places = {slot: place_of(slot, kernels[slot]) for slot in kernels if slot in SLOTS}
    moved, files, homes, chosen = {}, {}, {}, {}
    for slot, (home, main) in HOMES.items():
        place = places.get(slot, default_of(slot))
        if place == default_of(slot) or not (main or brings(slot, place)):
            continue
        names, text = _bindings(slot, place)
        moved[home], files[home], homes[slot] = set(names), text, home
        if is_ours(place):
            chosen[place.rpartition(":")[0].rpartition(".")[2]] = home
    if not moved:
        return None
    if "hash" in homes and places.get("lookup") == "pipeline.kernels.twins:lookup":
        raise ConfigurationError('kernels.lookup = "c" hashes by CRC32C itself; with it kernels.hash must be "crc32c"')
    moved = _affected(moved, chosen)
    _refuse_entangled([*places.items(), *others], moved, homes)
    copies = {module: _sources()[module] for module in moved if module not in files}
    files = {f"{module}.py": redirected(text, ".", moved, chosen.get(module)) for module, text in {**files, **copies}.items()}
    files["__init__.py"] = '"""Kernels that call what this composition has replaced."""\n'
    digest = hashlib.sha256(repr((sorted(files.items()), str(KERNELS))).encode()).hexdigest()[:16]
    return Package(f"kernels_{digest}", files, moved)


def _folder():
    return jit.cache_folder() / "compositions"


def provide(package):
    """Writes a Package among the compositions, unless it is there, and makes it known to Python under its name."""
    folder = _folder() / package.name
    if not folder.exists():
        draft = folder.with_name(f"{package.name}.{os.getpid()}")
        draft.mkdir(parents=True, exist_ok=True)
        for name, text in package.files.items():
            (draft / name).write_text(text)
        try:
            draft.rename(folder)
        except OSError:  # another process was faster
            shutil.rmtree(draft, ignore_errors=True)
    known = sys.modules.get(package.name)
    if known is None or known.__path__ != [str(folder)]:
        for name in [name for name in sys.modules if name.partition(".")[0] == package.name]:
            del sys.modules[name]
        spec = importlib.util.spec_from_file_location(package.name, folder / "__init__.py", submodule_search_locations=[str(folder)])
        sys.modules[package.name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[package.name])


def forget_unused():
    """Deletes the packages that no composition uses any more, and what was compiled of them."""
    texts = [path.read_text() for path in _folder().glob("loop_*.py")]
    for folder in _folder().glob("kernels_*"):
        if any(folder.name in text for text in texts):
            continue
        for file in folder.glob("*.py"):
            digest = hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:12]
            for made in (jit.cache_folder() / "kernels").glob(f"{file.stem}-{digest}*"):
                shutil.rmtree(made, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)
