"""DPDK from Python: start an `Environment`, make a `Pool`, open `Port`s on it, hand `device(...)` to a worker.

    with closing(Environment()), closing(Pool("mbufs", 8192)) as pool, closing(Port("net_null0", "null", pool)) as port:
        burst = port.rx()

Importing this where DPDK is missing raises DpdkMissing, with one sentence that says what to install.
"""
import numpy as np

from pipeline.kernels import dpdk_device

from .dpdk_pool import Pool
from .dpdk_port import Port
from .environment import Environment, registered_thread, running_environment
from .ring_port import Cable, RingPort
from .shim import PATH, DpdkError, DpdkMissing

__all__ = ["PATH", "Cable", "DpdkError", "DpdkMissing", "Environment", "Pool", "Port", "RingPort", "device",
           "registered_thread", "running_environment"]

SCRATCH = 1024
"""Addresses that a worker's device has room for at a time."""


def device(pool, ports):
    """Returns one worker's `dpdk_device.Device`: `pool` for what it allocates, `ports` in the engine's order."""
    return dpdk_device.Device(
        base=np.array([pool.arena.base], np.int64), pool=np.array([pool.address], np.int64),
        ports=np.array([port.number for port in ports], np.int64), addresses=np.zeros(SCRATCH, np.int64))
