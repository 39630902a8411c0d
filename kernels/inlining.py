"""How the code of kernels is kept: as bitcode that is linked into the loop that calls them.

Numba optimises each function together with all that it calls, and makes machine code of it, before it does the same to
its callers. Kernels are inlined, so that all of this is thrown away; five levels deep it is done five times.
"""
import llvmlite.binding
from llvmlite.binding import newpassmanagers
from numba.core import codegen


class Library(codegen.JITCodeLibrary):
    """A library as Numba makes it, with the kernels that it calls linked in."""

    def finalize(self):
        """Links, optimises and makes machine code."""
        inlined = [library for library in self._linking_libraries if isinstance(library, InlinedLibrary)]
        self._linking_libraries = [library for library in self._linking_libraries if library not in inlined]
        for part in reversed(parts_of(inlined)):  # callers first: LLVM leaves out what nobody has called yet
            self._final_module.link_in(llvmlite.binding.parse_bitcode(part))
        for library in inlined:
            self._reload_init.update(library._reload_init)
        super().finalize()

    @classmethod
    def _unserialize(cls, target, state):
        name, kind, data = state
        if kind != InlinedLibrary.KIND:
            return super()._unserialize(target, state)
        library = InlinedLibrary(target, name)
        library.parts, library._finalized = dict.fromkeys(data), True
        return library


class WithoutEnvironments:
    """Numba's code generator, but for the addresses of environments: those are set in machine code."""

    def __init__(self, target):
        self._target = target

    def __getattr__(self, name):
        return getattr(self._target, name)

    def set_env(self, name, environment):
        """Does nothing."""


class InlinedLibrary(Library):
    """A library of which others take `parts`, bitcode (bytes) of itself and of all that it calls, in a dict for their order.

    Nothing in it can be called.
    """

    KIND = "inlined"

    def __init__(self, target, name):
        super().__init__(target, name)
        self.parts = None

    @property
    def codegen(self):
        """The code generator."""
        return WithoutEnvironments(self._codegen)

    def _optimize_functions(self, module):
        """Takes tuples apart: whole ones are loaded for each of their fields, which is dear to whatever comes later."""
        module.data_layout = self._codegen._data_layout
        for function in module.functions:
            builder = self._codegen._pass_builder()
            passes = newpassmanagers.create_new_function_pass_manager()
            passes.add_instruction_combine_pass()
            passes.add_sroa_pass()
            passes.add_simplify_cfg_pass()
            passes.run(function, builder)

    def finalize(self):
        """Gathers `parts`. An address that stands in the code of this process alone is looked for where they are linked."""
        self._raise_if_finalized()
        self.parts = parts_of(self._linking_libraries)
        for function in self._final_module.functions:
            if not function.is_declaration and function.linkage == llvmlite.binding.Linkage.external:
                function.linkage = "linkonce_odr"
        self.parts[self._final_module.as_bitcode()] = None
        self._finalized = True

    def get_pointer_to_function(self, name):
        """Returns 0, which to Numba says that there is no machine code."""
        return 0

    def serialize_using_object_code(self):
        """Returns what the cache keeps."""
        return self.name, self.KIND, tuple(self.parts)


def parts_of(libraries):
    """Returns the bitcode of all that libraries consist of, callers behind what they call, in a dict for its order."""
    parts = {}
    for library in libraries:
        if isinstance(library, InlinedLibrary):
            parts |= library.parts
        else:
            parts[library._get_module_for_linking().as_bitcode()] = None
    return parts


codegen.JITCPUCodegen._library_class = Library
