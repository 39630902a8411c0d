from pipeline.kernels.jit import kernel


@kernel
def mix(number):
    """Returns 32 bits made of 32 bits. What a kernel calls has to be a kernel too, hence the line above."""
    number = ((number ^ (number >> 16)) * 0x45D9F3B) & 0xFFFFFFFF  # a factor of 27 bits: the product fits into an int64
    return number ^ (number >> 15)


def hash_key(remote, local, remote_port, local_port):
    """All four parts, one after the other. Numbers are int64: mask what must not grow beyond 32 bits."""
    return mix(mix(mix(remote) ^ local) ^ ((remote_port << 16) | local_port))
