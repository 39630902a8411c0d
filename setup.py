"""Lists the packages, and adds what is written in C: the shim over DPDK where pkg-config finds libdpdk, and the C twins of
kernels where there is a C compiler; the rest is in pyproject.toml.

Without either the install still works, and says what is missing when it is asked for it. Where they are found, an error while
C is compiled fails the install. The twins are compiled for the processor of this machine: so is a wheel that holds them.
"""
import os
import pathlib
import shutil
import subprocess
import sysconfig

from setuptools import find_namespace_packages, setup

OUTSIDE = ("io", "kernels", "configs")
"""Folders of the root that are packages inside `pipeline`; the links in pipeline/ are not in a source distribution."""


def has_dpdk():
    """Returns whether DPDK's headers and libraries are installed, as pkg-config sees it."""
    if not shutil.which("pkg-config"):
        return False
    return subprocess.run(["pkg-config", "--exists", "libdpdk"], check=False).returncode == 0


def has_compiler():
    """Returns whether there are a C compiler and Python's headers."""
    compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
    return shutil.which(compiler) is not None and pathlib.Path(sysconfig.get_path("include"), "Python.h").exists()


def in_c():
    """Returns the cffi modules that can be built here."""
    return (["csrc/build_twins.py:builder"] if has_compiler() else []) + (["csrc/build_dpdk.py:builder"] if has_dpdk() else [])


def packages():
    """Returns the names of all packages: those in pipeline/, and those in the folders OUTSIDE with what they hold."""
    inside = [name for name in find_namespace_packages("pipeline", exclude=["*__pycache__"])
              if name.partition(".")[0] not in OUTSIDE]
    outside = [f"{folder}.{name}".rstrip(".") for folder in OUTSIDE
               for name in ("", *find_namespace_packages(folder, exclude=["*__pycache__"]))]
    return ["pipeline", *(f"pipeline.{name}" for name in inside + outside)]


setup(packages=packages(), cffi_modules=in_c())
