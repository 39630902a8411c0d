"""Arithmetic of TCP sequence numbers (RFC 9293, section 3.4): int64 values in 0 .. 2**32 - 1."""
from .jit import kernel

MASK = 0xFFFFFFFF
HALF = 0x80000000


@kernel
def wrap(number):
    """Returns `number` modulo 2**32."""
    return number & MASK


@kernel
def distance(later, earlier):
    """Returns later - earlier as a signed number in -2**31 .. 2**31 - 1."""
    return ((later - earlier + HALF) & MASK) - HALF


@kernel
def before(first, second):
    """Says whether sequence number `first` is before `second`."""
    return distance(first, second) < 0
