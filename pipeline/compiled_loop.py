"""Calls a worker's loop that is compiled from a driver that is compiled: for tests, replays and measurements.

A driver that calls the loop as one kernel calls another has all of it compiled again, into itself: 12 s each, and what it
measures is its own copy. So it gets the loop's entry as an argument, and the loop stays the one that runs in production.
From Python a call takes 30 µs, for the state's hundreds of arrays are taken apart each time; from a driver it takes 1.
"""
from numba import typeof, types
from numba.core import cgutils, config
from numba.extending import intrinsic


def _arguments(state):
    return typeof(state), types.int64, types.int64


def is_compiled(run, state):
    """Says whether the loop `run` can be called with a `state` at once."""
    return bool(config.DISABLE_JIT) or _arguments(state) in run.overloads


def entry(run, state):
    """Returns the entry (int) of the loop `run` for a `state`, with which it has been called before: so it is compiled."""
    if config.DISABLE_JIT:
        return run
    made = run.overloads[_arguments(state)]
    return made.library.get_pointer_to_function(made.fndesc.llvm_func_name)


if config.DISABLE_JIT:
    def call(loop, state, passes, given):
        """Runs the loop itself."""
        return loop(state, passes, given)
else:
    @intrinsic
    def call(context, loop, state, passes, given):
        """Calls the loop that has this entry: `run` of pipeline/loop.py, with its arguments; returns its answer."""
        signature = types.int64(types.int64, state, types.int64, types.int64)

        def emit(context, builder, signature, arguments):
            """Calls the address, by Numba's own convention."""
            taken = signature.args[1:]
            kind = context.call_conv.get_function_type(types.int64, taken)
            function = builder.inttoptr(arguments[0], kind.as_pointer())
            status, answer = context.call_conv.call_function(builder, function, types.int64, taken, arguments[1:])
            with cgutils.if_unlikely(builder, status.is_error):  # where bounds are checked
                context.call_conv.return_status_propagate(builder, status)
            return answer
        return signature, emit
