"""Initial sequence numbers (RFC 6528): a keyed hash of the 4-tuple plus a clock of 4 microseconds.

The hash is HalfSipHash-2-4 (Aumasson and Bernstein, SipHash, 2012, appendix of the reference code) on 16 bytes.
"""
from .jit import kernel

MASK = 0xFFFFFFFF


@kernel
def _rotate(word, by):
    return ((word << by) | (word >> (32 - by))) & MASK


@kernel
def _round(v0, v1, v2, v3):
    v0 = (v0 + v1) & MASK
    v1 = _rotate(v1, 5) ^ v0
    v0 = _rotate(v0, 16)
    v2 = (v2 + v3) & MASK
    v3 = _rotate(v3, 8) ^ v2
    v0 = (v0 + v3) & MASK
    v3 = _rotate(v3, 7) ^ v0
    v2 = (v2 + v1) & MASK
    v1 = _rotate(v1, 13) ^ v2
    return v0, v1, _rotate(v2, 16), v3


@kernel
def half_siphash(key0, key1, first, second, third):
    """Returns the 32-bit HalfSipHash-2-4 of the 12 bytes of three words under a key of two 32-bit words."""
    v0, v1, v2, v3 = key0, key1, 0x6C796765 ^ key0, 0x74656462 ^ key1
    for word in (first, second, third, 12 << 24):
        v3 ^= word
        v0, v1, v2, v3 = _round(v0, v1, v2, v3)
        v0, v1, v2, v3 = _round(v0, v1, v2, v3)
        v0 ^= word
    v2 ^= 0xFF
    for _ in range(4):
        v0, v1, v2, v3 = _round(v0, v1, v2, v3)
    return v1 ^ v3


@kernel
def initial_number(secret, remote, local, ports, now):
    """Returns our initial number for a connection; `ports` is remote << 16 | local, `now` in microseconds."""
    return (half_siphash(secret[0], secret[1], remote, local, ports) + (now >> 2)) & MASK
