"""Describes `pipeline._twins`, the cffi module of the C twins; setup.py runs it where there is a C compiler.

It needs no DPDK. It is built for the processor of this machine (`-march=native`), so a wheel with it is for this machine
or its like. All layouts come from kernels/twin_layout.py and are asserted.
"""
import importlib.util
import pathlib

import cffi

ROOT = pathlib.Path(__file__).resolve().parent.parent


def load_layout():
    """Returns kernels/twin_layout.py as a module; it imports numpy alone, so the package need not be installed."""
    spec = importlib.util.spec_from_file_location("twin_layout", ROOT / "kernels" / "twin_layout.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


layout = load_layout()
functions = (ROOT / "csrc" / "twins.h").read_text()
builder = cffi.FFI()
builder.cdef("struct context;\n" + functions)
builder.set_source(
    "pipeline._twins",
    "#include <stddef.h>\n#include <stdint.h>\n" + layout.declarations() + "#include \"twins.h\"\n#include \"twins.c\"\n"
    f'const char *twin_layout(void)\n{{\n    return "{layout.digest()}";\n}}\n',
    depends=["csrc/twins.h", "csrc/twins.c", *(f"kernels/{name}.py" for name in ("twin_layout", *layout.SOURCES))],
    include_dirs=["csrc"],
    extra_compile_args=["-O3", "-march=native", "-Wall", "-Wextra", "-Wno-address-of-packed-member"],
)
