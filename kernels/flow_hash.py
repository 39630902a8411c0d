"""The hash of a flow's key: CRC32C, an instruction of the processor's for every eight bytes. The slot `hash`."""
from .jit import kernel
from .native import crc32c

SEED = 0x9E3779B9


@kernel
def hash_key(remote, local, remote_port, local_port):
    """Returns the 32-bit hash of a key, as its packets from the remote end carry it."""
    return crc32c(crc32c(SEED, (remote << 31) ^ local), (remote_port << 16) | local_port)
