"""Puts a mark of the profile behind every stage of a loop's source, so that each is timed under its own name.

Marks are in a loop only where a profile is asked for, which is a composition of its own, kept in the cache like any other. Marks
that were in every loop, switched off, cost 1 % at most in one version of it, and 41 % in the next: see `jit.apart`.

A stage is a call that stands by itself, or whose answer is assigned, in the function `stages`: what is not in a loop there.
"""
import ast
import re

from pipeline.errors import ConfigurationError
from pipeline.kernels.profile import MOST_STAGES, OF_STAGES, RUN_STAGES

OF_THE_PROFILE = re.compile(r"(?m)^ *(?:mark|count_paths|close_burst|first_pass|next_pass|awake)\(.*\)\n")
"""Lines of loop.py that call the profile."""
UNTIMED = ("count_paths",)
"""What `stages` calls for the profile's own sake."""


def _calls(nodes):
    for node in nodes:
        value = getattr(node, "value", None)
        if isinstance(node, ast.If):
            yield from _calls([*node.body, *node.orelse])
        elif isinstance(node, (ast.Expr, ast.Assign)) and isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and (
                value.func.id not in UNTIMED):
            yield node, value.func.id


def _found(text):
    """Returns the stages in a loop's source: (node, name of the kernel) each, in order."""
    functions = [node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef) and node.name == "stages"]
    return list(_calls(functions[0].body)) if functions else []


def stage_names(run):
    """Returns the names (list of str) of the stages of a composed loop `run`, by their numbers in `Profile.ticks`."""
    return getattr(run, "py_func", run).__globals__.get("STAGE_NAMES", list(RUN_STAGES))


def unmarked(text):
    """Returns a loop's source (str) without the profile."""
    return OF_THE_PROFILE.sub("", text)


def marked(text):
    """Returns a loop's source (str) with a mark behind every stage."""
    lines, found = text.splitlines(keepends=True), _found(text)
    if OF_STAGES + len(found) > MOST_STAGES:
        raise ConfigurationError(f"the loop has {len(found)} stages, and kernels.profile.MOST_STAGES has room for {MOST_STAGES - OF_STAGES}")
    for number, (node, _) in reversed(list(enumerate(found))):
        lines.insert(node.end_lineno, f"{' ' * node.col_offset}mark(state.profile, {OF_STAGES + number})\n")
    names = [*RUN_STAGES, *(name for _, name in found)]
    return "".join(lines) + f"\n\nSTAGE_NAMES = {names}\n"
