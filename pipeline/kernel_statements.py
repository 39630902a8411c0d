"""What the source of a kernel must not have: statements that compile, and then end or hold up a worker in the middle of a burst."""
import ast
import inspect
import pathlib

REFUSED = {ast.Raise: "raises", ast.Assert: "asserts, which raises", ast.Try: "catches exceptions"}


def _functions(text):
    """Returns the functions at the top of a module's source, by name."""
    return {found.name: found for found in ast.parse(text).body if isinstance(found, ast.FunctionDef)}


def _reached(functions, name):
    """Yields the function of that name and those of the same module that it names, and so on, each once."""
    waiting, seen = [name], set()
    while waiting:
        name = waiting.pop()
        if name in functions and name not in seen:
            seen.add(name)
            yield functions[name]
            waiting += [node.id for node in ast.walk(functions[name]) if isinstance(node, ast.Name)]


def _does(node):
    """Returns what a node of the syntax tree does that a kernel must not (str), or None."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
        return "prints"
    return REFUSED.get(type(node))


def fault(function):
    """Returns a sentence (str) on the first statement in a function of Python's, or in one of its module that it calls, that a kernel
    must not have, with file and line; None where there is none, or no source."""
    function = inspect.unwrap(getattr(function, "py_func", function))
    try:
        path = inspect.getsourcefile(function)
        functions = _functions(pathlib.Path(path).read_text())
    except (OSError, TypeError, SyntaxError):
        return None
    for found in _reached(functions, function.__name__):
        for node in ast.walk(found):
            if _does(node):
                return (f"{path}:{node.lineno}: {found.name} {_does(node)}; a kernel must not raise or print: it answers with a "
                        "number, and counts in the cells that it has")
    return None
