"""Which NUMA node a core belongs to."""
import pathlib

CORES = pathlib.Path("/sys/devices/system/cpu")
ANY = -1
"""DPDK's word for memory of whatever node (SOCKET_ID_ANY)."""


def node_of(core, folder=CORES):
    """Returns the number of the NUMA node that `core` belongs to, or ANY where Linux does not say."""
    nodes = sorted(folder.glob(f"cpu{core}/node[0-9]*"))
    return int(nodes[0].name.removeprefix("node")) if nodes else ANY
