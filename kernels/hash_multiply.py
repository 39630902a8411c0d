"""A hash of a flow's key by multiplication and shifts, for processors without a CRC instruction. The slot `hash`."""
from .jit import kernel

FACTOR = 0x45D9F3B
"""27 bits wide, so that the product with 32 stays below 2**63; by T. Mueller, who searched for the least bias."""


@kernel
def mixed(number):
    """Returns 32 bits in which every bit of `number` (32 bits) has a part; no two numbers get the same."""
    number = ((number ^ (number >> 16)) * FACTOR) & 0xFFFFFFFF
    number = ((number ^ (number >> 16)) * FACTOR) & 0xFFFFFFFF
    return number ^ (number >> 16)


@kernel
def multiply(remote, local, remote_port, local_port):
    """Returns the 32-bit hash of a key, as its packets from the remote end carry it."""
    return mixed(mixed(mixed(remote) ^ local) ^ ((remote_port << 16) | local_port))
