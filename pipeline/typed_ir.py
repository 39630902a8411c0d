"""What Numba infers for a kernel and all that it calls: which numbers become floats, and which are reckoned with as uint64.

In Numba uint64 with a literal gives int64, uint64 with an int64 of another branch gives float64, and a subtraction of
two uint32 gives uint64: each is a wrong value in silence.
"""
from numba import types
from numba.core import ir
from numba.core.compiler import CompilerBase, DefaultPassBuilder, Flags, compile_extra
from numba.core.compiler_machinery import FunctionPass, PassManager, register_pass
from numba.core.registry import cpu_target
from numba.core.typed_passes import NopythonTypeInference


@register_pass(mutates_CFG=False, analysis_only=True)
class KeepTypes(FunctionPass):
    """Ends a compilation with what was inferred as its result."""

    _name = "keep_types"

    def __init__(self):
        super().__init__()

    def run_pass(self, state):
        """Keeps (IR, types of its variables, signatures of its calls)."""
        state.cr = state.func_ir, dict(state.typemap), dict(state.calltypes)
        return True


class TypesAlone(CompilerBase):
    """Numba's compiler up to the inference of types."""

    def define_pipelines(self):
        """Returns the one pipeline."""
        passes = PassManager("types_alone")
        passes.passes.extend(DefaultPassBuilder.define_untyped_pipeline(self.state).passes)
        passes.add_pass(NopythonTypeInference, "infer types")
        passes.add_pass(KeepTypes, "keep them")
        passes.finalize()
        return [passes]


def typed_ir(function, arguments):
    """Returns (IR, types of its variables, signatures of its calls) of a Python function for argument types."""
    flags = Flags()
    flags.error_model, flags.nrt = "numpy", False
    return compile_extra(
        cpu_target.typing_context,
        cpu_target.target_context,
        function,
        arguments,
        None,
        flags,
        {},
        pipeline_class=TypesAlone,
    )


def bad_variables(blocks, typemap):
    """Yields a sentence for each variable or constant that is a float."""
    for name, kind in typemap.items():
        if isinstance(kind, types.Float) or getattr(kind, "dtype", None) in (types.float64, types.float32):
            yield f"{name} is {kind}"


def bad_operations(blocks, typemap, calltypes):
    """Yields a sentence for each operation on a uint64 that is no test for equality, or that gives one."""
    for expression, signature in calltypes.items():
        if not isinstance(expression, ir.Expr) or expression.op not in ("binop", "inplace_binop", "unary"):
            continue
        symbol = getattr(expression.fn, "__name__", str(expression.fn))
        involved = [typemap[operand.name] for operand in expression.list_vars()] + [signature.return_type]
        if types.uint64 in involved and symbol not in ("eq", "ne"):
            yield f"{expression.loc}: {symbol}{signature}"


def called(calltypes):
    """Yields (function, argument types) of each njit function that is called."""
    for expression, signature in calltypes.items():
        if isinstance(expression, ir.Expr) and expression.op == "call" and signature is not None:
            yield expression, signature


def walk(function, arguments, faults, seen):
    """Collects the faults of a njit function and of all that it calls; `seen` are (function, types) that are done."""
    if (function.py_func, arguments) in seen:
        return
    seen.add((function.py_func, arguments))
    blocks, typemap, calltypes = typed_ir(function.py_func, arguments)
    name = f"{function.py_func.__module__}.{function.py_func.__name__}"
    faults += [
        f"{name}: {sentence}"
        for sentence in (*bad_variables(blocks, typemap), *bad_operations(blocks, typemap, calltypes))
    ]
    for expression, signature in called(calltypes):
        kind = typemap[expression.func.name]
        if isinstance(kind, types.Dispatcher):
            walk(kind.dispatcher, signature.args, faults, seen)
