"""The Toeplitz hash by which a NIC spreads packets over its receive queues, and the queue that it gives (RSS).

Microsoft, "RSS hashing functions" and "Verifying the RSS hash calculation": each bit of the input that is set takes in
the 32 bits of the key that begin at that bit's place, so each octet of the input takes in one of 256 words, known
beforehand. The input are source address, destination address, source port and destination port, in network order.
"""
import numpy as np
from numpy import int64

from .jit import kernel

KEY = bytes.fromhex("6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa")
"""The key of Microsoft's verification suite (40 octets), which many NICs have from the start."""
INPUT = 12
"""Octets that are hashed of TCP over IPv4: two addresses, two ports."""
SHORTEST_KEY = INPUT + 4
"""Octets of a key that an input of INPUT octets reaches: it slides by a bit a bit, and 32 bits wide."""
ENTRIES = 128
"""Entries of a redirection table, as most NICs have them."""


def make_tables(key=KEY):
    """Returns what each value of each octet of the input takes into the hash under `key` (bytes): uint32[INPUT, 256].

    Raises ValueError for a key of under SHORTEST_KEY octets.
    """
    if len(key) < SHORTEST_KEY:
        raise ValueError(f"the RSS key has {len(key)} octets: {SHORTEST_KEY} at least are needed for TCP over IPv4, 40 are usual")
    bits, size = int.from_bytes(key, "big"), 8 * len(key)
    tables = np.zeros((INPUT, 256), np.uint32)
    values = np.arange(256)
    for place in range(8 * INPUT):
        window = bits >> (size - 32 - place) & 0xFFFFFFFF
        tables[place >> 3, values >> (7 - (place & 7)) & 1 == 1] ^= np.uint32(window)
    return tables


@kernel
def word(tables, place, value):
    """Returns what the 32 bits of `value`, octets `place` to `place + 3` of the input, take into the hash."""
    return (int64(tables[place, (value >> 24) & 0xFF]) ^ int64(tables[place + 1, (value >> 16) & 0xFF])
            ^ int64(tables[place + 2, (value >> 8) & 0xFF]) ^ int64(tables[place + 3, value & 0xFF]))


@kernel
def toeplitz(tables, source, destination, source_port, destination_port):
    """Returns the 32-bit hash of a packet of TCP over IPv4 that comes with these addresses and ports.

    With both ports 0 it is the hash over the two addresses alone: an octet that is 0 takes nothing in.
    """
    return word(tables, 0, source) ^ word(tables, 4, destination) ^ word(tables, 8, (source_port << 16) | destination_port)


@kernel
def queue_of(tables, table, source, destination, source_port, destination_port):
    """Returns the queue that RSS brings such a packet to; `table` (int64[n], n a power of two) is the redirection table."""
    place = toeplitz(tables, source, destination, source_port, destination_port) & (table.shape[0] - 1)
    return table[place]
