"""Adds the shim over DPDK where pkg-config finds libdpdk; all else about the package is in pyproject.toml.

Without DPDK the install still works, and `pipeline.io.dpdk` says what is missing when it is asked for a port.
Where DPDK is found, an error while the shim is compiled fails the install.
"""
import shutil
import subprocess

from setuptools import setup


def has_dpdk():
    """Returns whether DPDK's headers and libraries are installed, as pkg-config sees it."""
    if not shutil.which("pkg-config"):
        return False
    return subprocess.run(["pkg-config", "--exists", "libdpdk"], check=False).returncode == 0


setup(cffi_modules=["csrc/build_dpdk.py:builder"] if has_dpdk() else [])
