"""A TCP pass-through proxy with delayed binding: DPDK bursts through Numba kernels."""

__version__ = "0.1.0"
