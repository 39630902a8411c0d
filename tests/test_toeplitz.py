"""The Toeplitz hash against Microsoft's published vectors, and bit by bit against its definition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_bed import address, generated

from pipeline.kernels.toeplitz import INPUT, KEY, SHORTEST_KEY, make_tables, queue_of, toeplitz

VECTORS = (
    ("66.9.149.187", 2794, "161.142.100.80", 1766, 0x323E8FC2, 0x51CCC178),
    ("199.92.111.2", 14230, "65.69.140.83", 4739, 0xD718262A, 0xC626B0EA),
    ("24.19.198.95", 12898, "12.22.207.184", 38024, 0xD2D0A5DE, 0x5C2B394A),
    ("38.27.205.30", 48228, "209.142.163.6", 2217, 0x82989176, 0xAFC7327F),
    ("153.39.163.191", 44251, "202.188.127.2", 1303, 0x5D1809C5, 0x10E828A2),
)
"""Microsoft, "Verifying the RSS hash calculation": source, its port, destination, its port, IPv4 alone, IPv4 with TCP."""
TABLES = make_tables()
WORD, PORT = st.integers(0, 2**32 - 1), st.integers(0, 2**16 - 1)


def by_definition(key, octets):
    """Returns the hash as it is defined: for each bit that is set the 32 leftmost bits of a key that moves left by one a bit."""
    result, window = 0, int.from_bytes(key, "big")
    size = 8 * len(key)
    for octet in octets:
        for bit in range(7, -1, -1):
            if octet >> bit & 1:
                result ^= window >> (size - 32)
            window = window << 1 & ((1 << size) - 1)
    return result


def octets_of(source, destination, *ports):
    """Returns what is hashed, in network order."""
    return b"".join(word.to_bytes(4, "big") for word in (source, destination)) + b"".join(
        port.to_bytes(2, "big") for port in ports
    )


@pytest.mark.parametrize(("source", "source_port", "destination", "destination_port", "of_addresses", "of_all"), VECTORS)
def test_published_vectors(source, source_port, destination, destination_port, of_addresses, of_all):
    ends = address(source), address(destination)
    assert toeplitz(TABLES, *ends, source_port, destination_port) == of_all
    assert toeplitz(TABLES, *ends, 0, 0) == of_addresses
    assert by_definition(KEY, octets_of(*ends, source_port, destination_port)) == of_all


@pytest.mark.parametrize("bit", range(8 * INPUT))
def test_every_bit_of_the_input_takes_in_its_own_bits_of_the_key(bit):
    octets = (1 << (8 * INPUT - 1 - bit)).to_bytes(INPUT, "big")
    ends = [int.from_bytes(octets[start:end], "big") for start, end in ((0, 4), (4, 8), (8, 10), (10, 12))]
    assert toeplitz(TABLES, *ends) == int.from_bytes(KEY, "big") >> (8 * len(KEY) - 32 - bit) & 0xFFFFFFFF


@generated
@given(WORD, WORD, PORT, PORT, st.binary(min_size=SHORTEST_KEY, max_size=52))
def test_any_input_under_any_key_is_hashed_by_the_definition(source, destination, source_port, destination_port, key):
    ends = source, destination, source_port, destination_port
    assert toeplitz(make_tables(key), *ends) == by_definition(key, octets_of(*ends))
    assert toeplitz(make_tables(key), source, destination, 0, 0) == by_definition(key, octets_of(source, destination))


@generated
@given(WORD, WORD, PORT, PORT, st.integers(0, 9))
def test_the_queue_is_what_the_redirection_table_has_at_the_hash(source, destination, source_port, destination_port, power):
    ends = source, destination, source_port, destination_port
    table = np.random.default_rng(power).permutation(1 << power)
    assert queue_of(TABLES, table, *ends) == table[by_definition(KEY, octets_of(*ends)) % (1 << power)]


@pytest.mark.parametrize("key", [b"", bytes(15)])
def test_a_key_that_is_too_short_is_refused(key):
    with pytest.raises(ValueError, match=f"the RSS key has {len(key)} octets: 16 at least"):
        make_tables(key)
