"""`python -m pipeline kernels new`: writes a kernel that runs as it is, with what its slot asks of it, to begin with."""
import ast
import pathlib
import textwrap

from pipeline.configuration.values import suggestion
from pipeline.errors import ConfigurationError
from pipeline.slots import OF_SERVICES, SLOTS, signature

STARTS = pathlib.Path(__file__).parent / "kernel_starts"
WIDTH = 120


def known_slot(slot):
    """Returns a slot's name; raises ConfigurationError where there is none of that name."""
    if slot not in SLOTS:
        raise ConfigurationError(f'"{slot}" is no slot{suggestion(slot, SLOTS)}; python -m pipeline kernels lists them')
    return slot


def function_of(slot):
    """Returns the name of the kernel in a slot's starting point: the function with the slot's parameters."""
    tree = ast.parse((STARTS / f"{slot}.py").read_text())
    wanted = list(SLOTS[slot].parameters)
    wanted = wanted[:len(wanted) - SLOTS[slot].spared]
    return next(node.name for node in tree.body if isinstance(node, ast.FunctionDef)
                and [argument.arg for argument in node.args.args] == wanted)


def _wrapped(text, indent=""):
    return textwrap.fill(text, WIDTH, subsequent_indent=indent)


def text_of(slot, path):
    """Returns the text (str) of a starting point for a slot that is to lie at `path`."""
    described, place = SLOTS[slot], f"{path}:{function_of(slot)}"
    run = f"python -m pipeline run --kernel {slot}={place}"
    lines = [_wrapped(f'"""A kernel for the slot `{slot}`. {described.about}'), "",
             f"    {signature(slot)}", "",
             *(_wrapped(f"{name}: {meaning}", "    ") for name, meaning in described.parameters.items()), "",
             _wrapped(described.answer), "", _wrapped(f"It is called in {described.called}.")]
    if slot in OF_SERVICES:
        lines += ["", _wrapped("Each service names its own: select = \"FILE:FUNCTION\", or payload_to_target and payload_to_client.")]
    lines += ["", f"    {run}", f"    python -m pipeline kernels check {place}",
              "", _wrapped("A kernel is Python that Numba compiles: whole numbers alone (int64), no memory of its own, nothing raised."),
              '"""']
    return "\n".join(lines) + "\n" + (STARTS / f"{slot}.py").read_text()


def write(slot, path):
    """Writes the starting point for a slot into a new file; returns its place ("FILE:FUNCTION"). Raises ConfigurationError."""
    known_slot(slot)
    path = pathlib.Path(path)
    if path.suffix != ".py":
        raise ConfigurationError(f"{path}: must be the name of a Python file, such as {path.with_suffix('.py')}")
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(text_of(slot, path))
    except FileExistsError as error:
        raise ConfigurationError(f"{path}: is there already, and is not written over; name another file") from error
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be written ({error.strerror})") from error
    return f"{path}:{function_of(slot)}"
