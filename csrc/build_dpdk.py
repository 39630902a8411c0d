"""Describes `pipeline._dpdk`, the cffi module of the shim over DPDK; setup.py runs it where pkg-config finds libdpdk.

The layout that kernels/headers.py gives to `struct rte_mbuf` is asserted against DPDK's own headers here, so a
release that moves a field fails the build and not a packet.
"""
import importlib.util
import pathlib
import subprocess

import cffi

ROOT = pathlib.Path(__file__).resolve().parent.parent
HEADERS = ("dpdk_shim.h", "steering_shim.h", "yardsticks.h")
"""What Python and kernels call: the shim and its part for steering, and what the scripts in perf/ set beside our own."""


def load_headers():
    """Returns kernels/headers.py as a module; it imports numpy alone, so the package need not be installed."""
    spec = importlib.util.spec_from_file_location("headers", ROOT / "kernels" / "headers.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pkg_config(kind):
    """Returns what `pkg-config --KIND libdpdk` prints, as a list of arguments."""
    return subprocess.run(["pkg-config", f"--{kind}", "libdpdk"], capture_output=True, text=True,
                          check=True).stdout.split()


def assertions(headers):
    """Returns C that fails to compile unless DPDK lays an mbuf out as kernels/headers.py does."""
    facts = [f"sizeof(struct rte_mbuf) == {headers.MBUF.itemsize}",
             f"RTE_PKTMBUF_HEADROOM == {headers.HEADROOM}",
             f"RTE_MBUF_DEFAULT_DATAROOM == {headers.BUFFER}"]
    for name, in_c in headers.MBUF_FIELDS_IN_C.items():
        kind, offset = headers.MBUF.fields[name][:2]
        facts += [f"offsetof(struct rte_mbuf, {in_c}) == {offset}",
                  f"sizeof(((struct rte_mbuf *)0)->{in_c}) == {kind.itemsize}"]
    return "\n".join(f'_Static_assert({fact}, "kernels/headers.py: {fact}");' for fact in facts)


def declarations(name):
    """Returns a header of csrc/ for cffi, which knows no preprocessor."""
    text = (ROOT / "csrc" / name).read_text()
    return "\n".join(line for line in text.splitlines() if not line.startswith("#"))


builder = cffi.FFI()
for header in HEADERS:
    builder.cdef(declarations(header))
builder.set_source(
    "pipeline._dpdk",
    "#include <stddef.h>\n#include <rte_mbuf.h>\n" + "".join(f'#include "{header}"\n' for header in HEADERS)
    + assertions(load_headers()),
    sources=["csrc/dpdk_shim.c", "csrc/steering_shim.c", "csrc/yardsticks.c"],
    depends=[*(f"csrc/{header}" for header in HEADERS), "kernels/headers.py"],
    include_dirs=["csrc"],
    extra_compile_args=["-O3", "-Wall", "-Wextra", "-Wno-unused-parameter", *pkg_config("cflags")],
    extra_link_args=[*pkg_config("libs"), "-lrte_net_ring"],
)
