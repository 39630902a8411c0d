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
from .hand_over import HandOverRings
from .node_pools import NodePools
from .ring_port import Cable, RingPort
from .shim import PATH, DpdkError, DpdkMissing

__all__ = ["PATH", "Cable", "DpdkError", "DpdkMissing", "Environment", "HandOverRings", "NodePools", "Pool", "Port", "RingPort",
           "device", "registered_thread", "running_environment"]

SCRATCH = 1024
"""Addresses that a worker's device has room for at a time."""


def device(pool, ports, worker=0, rings=()):
    """Returns one worker's `dpdk_device.Device`: `pool` (Pool or NodePools) for what it allocates, `ports` in the engine's order.

    `worker`: its number from 0, which says what queue of each port it has; `rings`: the `addresses` of the engine's
    HandOverRings. Raises DpdkError when a port has no queue for that worker.
    """
    places = [port.queue_of(worker) for port in ports]
    return dpdk_device.Device(
        base=np.array([pool.arena.base], np.int64), pool=np.array([pool.of_worker(worker).address], np.int64),
        ports=np.array([number for number, _ in places], np.int64),
        queues=np.array([queue for _, queue in places], np.int64), rings=np.array(rings, np.int64),
        addresses=np.zeros(SCRATCH, np.int64))
