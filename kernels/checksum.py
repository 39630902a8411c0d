"""The Internet checksum (RFC 1071), in full and incrementally (RFC 1624).

Sums are over words as the machine loads them: a one's complement sum is the same in either byte order
(RFC 1071, section 2B), so nothing is swapped. Words lie at even distances from the start of the sum.
"""
from numpy import int64

from .headers import PROTOCOL_TCP, TCP_LENGTH
from .jit import kernel
from .native import record_at, swap16


@kernel
def fold(total):
    """Returns a sum of words (0 .. 2**48: what 64 KiB can add up to) folded to 16 bits."""
    total = (total & 0xFFFF) + ((total >> 16) & 0xFFFF) + (total >> 32)
    total = (total & 0xFFFF) + (total >> 16)
    return (total & 0xFFFF) + (total >> 16)


@kernel
def sum_octets(packets, start, length):
    """Returns the unfolded sum of `length` bytes of the arena from byte offset `start`."""
    total = 0
    end = start + (length & ~3)
    for offset in range(start, end, 4):
        total += int64(record_at(packets.word32, offset).value)
    if length & 2:
        total += int64(record_at(packets.word16, end).value)
        end += 2
    if length & 1:
        total += int64(packets.octets[end])
    return total


@kernel
def sum_ipv4(packets, at):
    """Returns the unfolded sum of the 20 bytes of an IPv4 header without options: five loads, no loop."""
    words = packets.word32
    return (int64(record_at(words, at).value) + int64(record_at(words, at + 4).value) + int64(record_at(words, at + 8).value)
            + int64(record_at(words, at + 12).value) + int64(record_at(words, at + 16).value))


@kernel
def data_start(packets, base, mbuf):
    """Returns the byte offset of the first data byte of the mbuf at byte offset `mbuf`; `base` is the arena's address."""
    return int64(record_at(packets.mbuf, mbuf).buffer_address) - base + int64(record_at(packets.mbuf, mbuf).data_off)


@kernel
def sum_chain(packets, base, mbuf, start, length):
    """Returns the folded sum of `length` bytes from offset `start` on, followed through chained mbufs.

    `mbuf` (byte offset) holds the first of them. A part of odd length shifts what follows by a byte.
    """
    total, odd, remaining = 0, False, length
    part = min(remaining, data_start(packets, base, mbuf) + int64(record_at(packets.mbuf, mbuf).data_length) - start)
    while remaining > 0:
        if part > 0:
            partial = fold(sum_octets(packets, start, part))
            total += swap16(partial) if odd else partial
            odd = odd != (part & 1 == 1)
            remaining -= part
        if remaining <= 0 or record_at(packets.mbuf, mbuf).next == 0:
            break
        mbuf = int64(record_at(packets.mbuf, mbuf).next) - base
        start = data_start(packets, base, mbuf)
        part = min(remaining, int64(record_at(packets.mbuf, mbuf).data_length))
    return fold(total)


@kernel
def sum_tcp(packets, at, length):
    """Returns the unfolded sum of a TCP segment of at least 20 bytes, all of it from byte offset `at` on in one mbuf."""
    return sum_ipv4(packets, at) + sum_octets(packets, at + TCP_LENGTH, length - TCP_LENGTH)


@kernel
def pseudo_header(packets, network, tcp_length):
    """Returns the unfolded sum of TCP's pseudo header, read from the IPv4 header at byte offset `network`."""
    ip = record_at(packets.ipv4, network)
    return int64(ip.source) + int64(ip.destination) + swap16(PROTOCOL_TCP) + swap16(tcp_length)


@kernel
def difference(old, new):
    """Returns what replacing word `old` by `new` (16 or 32 bits each) adds to a sum (RFC 1624, equation 3)."""
    return 0xFFFFFFFF - old + new


@kernel
def update(checksum, differences):
    """Returns a checksum field after `differences` (a sum of `difference`) have come into what it covers."""
    return 0xFFFF - fold((0xFFFF - checksum) + differences)
