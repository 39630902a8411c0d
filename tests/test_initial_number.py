"""Initial sequence numbers: HalfSipHash against its published vectors, and the clock of RFC 6528."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_bed import generated

from pipeline.kernels.initial_number import half_siphash, initial_number

WORDS = st.integers(0, 2**32 - 1)
PUBLISHED = (
    0x5B9F35A9,
    0xB85A4727,
    0x03A662FA,
    0x04E7FE8A,
    0x89466E2A,
    0x69B6FAC5,
    0x23FC6358,
    0xC563CF8B,
    0x8F84B8D0,
    0x79E706F8,
    0x3479B094,
    0x50300808,
    0x2F87F057,
    0xFF63E677,
    0x7CF8FFD6,
    0x972BFE74,
)
"""HalfSipHash-2-4 with 4 octets of output, from the reference code's vectors: key 00 .. 07, messages of 0 to 15
octets 00, 01, 02, ... (github.com/veorq/SipHash, vectors_hsip32), as little-endian words."""


def rotated(word, by):
    return (word << by | word >> (32 - by)) % 2**32


def mixed(state, rounds):
    a, b, c, d = state
    for _ in range(rounds):
        a = (a + b) % 2**32
        c = (c + d) % 2**32
        b, d = rotated(b, 5) ^ a, rotated(d, 8) ^ c
        a = (rotated(a, 16) + d) % 2**32
        c = (c + b) % 2**32
        d, b = rotated(d, 7) ^ a, rotated(b, 13) ^ c
        c = rotated(c, 16)
    return a, b, c, d


def of_octets(key, message):
    """HalfSipHash-2-4, 32 bits, of a message of any length: what the kernel does for 12 octets alone."""
    k0, k1 = struct.unpack("<2I", key)
    a, b, c, d = k0, k1, 0x6C796765 ^ k0, 0x74656462 ^ k1
    padded = message + bytes(3 - len(message) % 4) + bytes([len(message) % 256])
    for (word,) in struct.iter_unpack("<I", padded):
        a, b, c, d = mixed((a, b, c, d ^ word), 2)
        a ^= word
    a, b, c, d = mixed((a, b, c ^ 0xFF, d), 4)
    return b ^ d


@pytest.mark.parametrize("length", range(len(PUBLISHED)))
def test_the_reference_of_this_test_gives_the_published_vectors(length):
    assert of_octets(bytes(range(8)), bytes(range(length))) == PUBLISHED[length]


def test_the_kernel_gives_the_published_vector_of_12_octets():
    key, words = struct.unpack("<2I", bytes(range(8))), struct.unpack("<3I", bytes(range(12)))
    assert half_siphash(*key, *words) == PUBLISHED[12]


@generated
@given(WORDS, WORDS, WORDS, WORDS, WORDS)
def test_the_kernel_is_half_siphash_for_every_key_and_message(key0, key1, first, second, third):
    expected = of_octets(struct.pack("<2I", key0, key1), struct.pack("<3I", first, second, third))
    assert half_siphash(key0, key1, first, second, third) == expected


@generated
@given(WORDS, WORDS, WORDS, st.integers(0, 2**50), st.integers(0, 2**34))
def test_the_clock_adds_one_every_four_microseconds(remote, local, ports, now, later):
    secret = np.array([1, 2], np.int64)
    first = initial_number(secret, remote, local, ports, now)
    assert 0 <= first < 2**32
    expected = (first + ((now + later) // 4 - now // 4)) % 2**32
    assert initial_number(secret, remote, local, ports, now + later) == expected


def test_the_secret_and_each_part_of_the_4_tuple_change_the_number():
    given_to = [
        ((1, 2), 3, 4, 5),
        ((0, 2), 3, 4, 5),
        ((1, 3), 3, 4, 5),
        ((1, 2), 2, 4, 5),
        ((1, 2), 3, 5, 5),
        ((1, 2), 3, 4, 4),
    ]
    assert len({initial_number(np.array(secret, np.int64), *key, 0) for secret, *key in given_to}) == len(given_to)
