"""Packets of a recording laid out as the records of a pcap or pcapng file: compiled, so that a capture keeps up with the loop."""
from numpy import int64

from .jit import kernel, loop
from .native import copy_octets
from .recorder import SENT

PCAP_RECORD = 16
"""Octets before a packet: draft-ietf-opsawg-pcap, section 5."""
ENHANCED_PACKET = 6
"""Type of a block of pcapng with a packet: draft-ietf-opsawg-pcapng, section 4.3."""
PCAPNG_RECORD = 44
"""Octets around a packet: 28 before it, 8 of the option epb_flags, 4 of the end of options and 4 behind that."""
EPB_FLAGS, INBOUND, OUTBOUND = 2, 1, 2
BILLION = 1_000_000_000


@kernel
def store32(out, at, value):
    """Writes 32 bits at out[at:], little-endian; returns where they end."""
    for place in range(4):
        out[at + place] = (value >> (8 * place)) & 0xFF
    return at + 4


@kernel
def lay_pcap_record(octets, packet, moment, out, at):
    """Lays a packet of the time `moment` (nanoseconds since 1970) out at out[at:]; returns where it ends."""
    captured = int64(packet.captured)
    at = store32(out, at, moment // BILLION)
    at = store32(out, at, moment % BILLION)
    at = store32(out, at, captured)
    at = store32(out, at, int64(packet.length))
    copy_octets(out, at, octets, int64(packet.offset), captured)
    return at + captured


@kernel
def lay_pcapng_record(octets, packet, moment, port, kind, out, at):
    """Lays a packet out as an enhanced packet block of interface `port`, its time in nanoseconds; returns where it ends."""
    captured = int64(packet.captured)
    padded = (captured + 3) & -4
    length = PCAPNG_RECORD + padded
    for word in (ENHANCED_PACKET, length, port, moment >> 32, moment & 0xFFFFFFFF, captured, int64(packet.length)):
        at = store32(out, at, word)
    copy_octets(out, at, octets, int64(packet.offset), captured)
    for place in range(captured, padded):
        out[at + place] = 0
    at += padded
    for word in (EPB_FLAGS | 4 << 16, OUTBOUND if kind == SENT else INBOUND, 0, length):
        at = store32(out, at, word)
    return at


@loop
def lay_block(bursts, packets, octets, started, is_pcapng, out):
    """Lays all packets of a block out in `out` (uint8); returns how many octets they take.

    `bursts`, `packets` and `octets` are those of an `io.recording.Block`, `started` the nanoseconds since 1970 of time 0.
    """
    at = 0
    for burst in range(bursts.shape[0]):
        row = bursts[burst]
        first = int64(row.packet)
        moment = started + 1000 * int64(row.time)
        for number in range(first, first + int64(row.count)):
            if is_pcapng:
                at = lay_pcapng_record(octets, packets[number], moment, int64(row.port), int64(row.kind), out, at)
            else:
                at = lay_pcap_record(octets, packets[number], moment, out, at)
    return at
