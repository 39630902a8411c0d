"""Lists the packages, and adds the shim over DPDK where pkg-config finds libdpdk; the rest is in pyproject.toml.

Without DPDK the install still works, and `pipeline.io.dpdk` says what is missing when it is asked for a port.
Where DPDK is found, an error while the shim is compiled fails the install.
"""
import shutil
import subprocess

from setuptools import find_namespace_packages, setup

OUTSIDE = ("io", "kernels", "configs")
"""Folders of the root that are packages inside `pipeline`; the links in pipeline/ are not in a source distribution."""


def has_dpdk():
    """Returns whether DPDK's headers and libraries are installed, as pkg-config sees it."""
    if not shutil.which("pkg-config"):
        return False
    return subprocess.run(["pkg-config", "--exists", "libdpdk"], check=False).returncode == 0


def packages():
    """Returns the names of all packages: those in pipeline/, and those in the folders OUTSIDE with what they hold."""
    inside = [name for name in find_namespace_packages("pipeline", exclude=["*__pycache__"])
              if name.partition(".")[0] not in OUTSIDE]
    outside = [f"{folder}.{name}".rstrip(".") for folder in OUTSIDE
               for name in ("", *find_namespace_packages(folder, exclude=["*__pycache__"]))]
    return ["pipeline", *(f"pipeline.{name}" for name in inside + outside)]


setup(packages=packages(), cffi_modules=["csrc/build_dpdk.py:builder"] if has_dpdk() else [])
