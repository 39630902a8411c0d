"""How Numba is made to write less code for kernels, whose NamedTuples hold hundreds of arrays.

Of a cold start of 90 s, 40 were spent on taking these apart and putting them together, and on what was never used of it.
"""
from collections import defaultdict

from numba.core import ir, lowering, typed_passes, types
from numba.core.analysis import compute_cfg_from_blocks, compute_use_defs, must_use_alloca
from numba.core.compiler import CompilerBase, DefaultPassBuilder, Flags
from numba.core.compiler_machinery import PassManager, register_pass
from numba.core.datamodel import models, register_default

from .inlining import InlinedLibrary


class Whole:
    """A NamedTuple is one argument, where Numba makes one of each number in each of its arrays."""

    def get_argument_type(self):
        """Returns the type that it has as a value."""
        return self.get_value_type()

    def as_argument(self, builder, value):
        """Returns the value."""
        return value

    def from_argument(self, builder, value):
        """Returns the value."""
        return value


@register_default(types.NamedTuple)
class WholeTuple(Whole, models.TupleModel):
    """A NamedTuple of several types."""


@register_default(types.NamedUniTuple)
class WholeUniTuple(Whole, models.UniTupleModel):
    """A NamedTuple of one type."""


class Lowering(lowering.Lower):
    """Keeps a variable that is set once, before all of its uses, as a value: Numba itself does so only within a block.

    Any other is loaded from the stack as a whole, for each of its uses and before it is set.
    """

    def _find_singly_assigned_variable(self):
        super()._find_singly_assigned_variable()
        blocks = self.func_ir.blocks
        use_defs, dominators = compute_use_defs(blocks), compute_cfg_from_blocks(blocks).dominators()
        kept = must_use_alloca(blocks)
        places, uses = defaultdict(list), defaultdict(list)
        for place, block in blocks.items():
            for statement in block.find_insts(ir.Assign):
                places[statement.target.name].append(place)
            for name in use_defs.usemap[place]:
                uses[name].append(place)
        self._values = {name for name, found in places.items() if len(found) == 1 and name not in kept
                        and all(found[0] in dominators[use] and found[0] < use for use in uses[name])}
        self._singly_assigned_vars |= self._values

    def delvar(self, name):
        """Ends a variable; a value has no end."""
        if name not in self._values:
            super().delvar(name)


@register_pass(mutates_CFG=True, analysis_only=False)
class NativeLowering(typed_passes.BaseNativeLowering):
    """Numba's pass of that name, with our `Lowering`."""

    _name = "native_lowering_of_values"

    @property
    def lowering_class(self):
        """The class that does it."""
        return Lowering


class LoopCompiler(CompilerBase):
    """Numba's usual pipeline with our `NativeLowering`."""

    def define_pipelines(self):
        """Returns the list of pass managers."""
        pipeline = PassManager("nopython")
        for part in (DefaultPassBuilder.define_untyped_pipeline, DefaultPassBuilder.define_typed_pipeline,
                     DefaultPassBuilder.define_nopython_lowering_pipeline):
            for step, says in part(self.state).passes:
                pipeline.add_pass(NativeLowering if step is typed_passes.NativeLowering else step, says)
        pipeline.finalize()
        return [pipeline]


class InlinedCompiler(LoopCompiler):
    """The same into an `InlinedLibrary`."""

    def define_pipelines(self):
        """Returns the list of pass managers."""
        state = self.state
        state.library = InlinedLibrary(state.targetctx.codegen(), state.func_id.func_qualname)
        return super().define_pipelines()


def equals(flags, other):
    """Says whether two sets of compiler flags are the same. Numba fills in both to compare them, 100,000 times for a loop."""
    return flags._values == other._values or flags.values() == other.values()


Flags.__eq__, Flags.__hash__ = equals, lambda flags: hash(Flags)
