"""Byte layout of everything that lies in packet memory, and the overlays through which it is read.

This file imports numpy alone: the build of the C shim loads it to assert the offsets of `rte_mbuf`.

An overlay is a structured array over the whole arena with a **stride of one byte**: `tcp[offset].seq`
is the sequence number of the TCP header that starts at byte `offset` of the arena, wherever a VLAN tag
or IP options have put it. Tried under njit: a read-modify-write of one header takes 1.1 ns, the same as
an overlay with the mbuf's 64-byte stride, which can only say where a header is *expected* to be.

The dtypes are in network order, for Python. Kernels get the same layout in the machine's order
(`overlays(..., native=True)`) and convert with `native.swap16` and `native.swap32`, since Numba has no
big-endian dtypes.
"""
from typing import NamedTuple

import numpy as np

ETHERNET = np.dtype([
    ("destination_high", ">u2"), ("destination_low", ">u4"),
    ("source_high", ">u2"), ("source_low", ">u4"),
    ("ethertype", ">u2"),
])
"""Ethernet II, 14 bytes. A MAC address is split in its upper 16 and lower 32 bits."""

VLAN = np.dtype([("tag", ">u2"), ("ethertype", ">u2")])
"""IEEE 802.1Q tag, 4 bytes, after the two MAC addresses and the ethertype 0x8100 or 0x88A8."""

ARP = np.dtype([
    ("hardware", ">u2"), ("protocol", ">u2"), ("hardware_length", "u1"), ("protocol_length", "u1"),
    ("operation", ">u2"),
    ("sender_high", ">u2"), ("sender_low", ">u4"), ("sender_address", ">u4"),
    ("target_high", ">u2"), ("target_low", ">u4"), ("target_address", ">u4"),
])
"""ARP for Ethernet and IPv4, 28 bytes (RFC 826)."""

IPV4 = np.dtype([
    ("version_length", "u1"), ("service", "u1"), ("total_length", ">u2"),
    ("identification", ">u2"), ("fragment", ">u2"),
    ("ttl", "u1"), ("protocol", "u1"), ("checksum", ">u2"),
    ("source", ">u4"), ("destination", ">u4"),
])
"""IPv4 without options, 20 bytes (RFC 791)."""

TCP = np.dtype([
    ("source_port", ">u2"), ("destination_port", ">u2"),
    ("seq", ">u4"), ("ack", ">u4"),
    ("data_offset", "u1"), ("control", "u1"), ("window", ">u2"),
    ("checksum", ">u2"), ("urgent", ">u2"),
])
"""TCP without options, 20 bytes (RFC 9293, section 3.1); `control` holds the eight control bits."""

ICMP = np.dtype([
    ("type", "u1"), ("code", "u1"), ("checksum", ">u2"),
    ("identifier", ">u2"), ("sequence", ">u2"),
])
"""ICMP echo, 8 bytes (RFC 792). In errors, `sequence` is the next hop's MTU (RFC 1191, section 4)."""

PLAIN = np.dtype({
    "names": ["destination_high", "destination_low", "source_high", "source_low", "ethertype", "first_word", "version_length",
              "total_length", "second_word", "fragment", "third_word", "ttl", "protocol", "checksum", "source", "destination",
              "ports", "source_port", "destination_port", "seq", "ack", "data_offset", "control", "window", "tcp_checksum",
              "option", "stamp", "echo"],
    "formats": [">u2", ">u4", ">u2", ">u4", ">u2", ">u4", "u1", ">u2", ">u4", ">u2", ">u4", "u1", "u1", ">u2", ">u4", ">u4",
                ">u4", ">u2", ">u2", ">u4", ">u4", "u1", "u1", ">u2", ">u2", ">u4", ">u4", ">u4"],
    "offsets": [0, 2, 6, 8, 12, 14, 14, 16, 18, 20, 22, 22, 23, 24, 26, 30, 34, 34, 36, 38, 42, 46, 47, 48, 50, 54, 58, 62],
    "itemsize": 66,
})
"""Ethernet, IPv4 and TCP as they nearly always are, without tag and IPv4 options: all in one record, so at constant distances
from one address. `first_word` to `third_word` are the IPv4 header before its addresses, `ports` is both; `option`, `stamp`
and `echo` are TCP options, timestamps mostly."""

MBUF = np.dtype({
    "names": ["buffer_address", "data_off", "refcnt", "segments", "port", "offload", "packet_type",
              "packet_length", "data_length", "buffer_length", "pool", "next", "tx_offload"],
    "formats": ["u8", "u2", "u2", "u2", "u2", "u8", "u4", "u4", "u2", "u2", "u8", "u8", "u8"],
    "offsets": [0, 16, 18, 20, 22, 24, 32, 36, 40, 54, 56, 64, 72],
    "itemsize": 128,
})
"""`struct rte_mbuf` of DPDK 22.11, 128 bytes, in the machine's order; only what the kernels touch."""

MBUF_FIELDS_IN_C = {
    "buffer_address": "buf_addr", "data_off": "data_off", "refcnt": "refcnt", "segments": "nb_segs",
    "port": "port", "offload": "ol_flags", "packet_type": "packet_type", "packet_length": "pkt_len",
    "data_length": "data_len", "buffer_length": "buf_len", "pool": "pool", "next": "next",
    "tx_offload": "tx_offload",
}
"""Names that DPDK gives to the fields of `MBUF`, for the assertions in the shim."""

HEADROOM = 128
"""RTE_PKTMBUF_HEADROOM: bytes before the frame in a fresh mbuf."""
BUFFER = 2048
"""Bytes for a frame after the headroom (RTE_MBUF_DEFAULT_DATAROOM)."""
MBUF_ALIGNMENT = 64
"""Every mbuf starts at a multiple of this from the arena's base."""

ETHERNET_LENGTH, VLAN_LENGTH, ARP_LENGTH, IPV4_LENGTH, TCP_LENGTH, ICMP_LENGTH = 14, 4, 28, 20, 20, 8
ETHERTYPE_IPV4, ETHERTYPE_ARP, ETHERTYPE_VLAN, ETHERTYPE_QINQ = 0x0800, 0x0806, 0x8100, 0x88A8
PROTOCOL_ICMP, PROTOCOL_TCP = 1, 6
FRAGMENT_OFFSET = 0x1FFF
"""Of `fragment` in an IPv4 header: where in the datagram the fragment lies (RFC 791, section 3.1)."""
ICMP_UNREACHABLE, ICMP_TIME_EXCEEDED, ICMP_PARAMETER_PROBLEM = 3, 11, 12
ICMP_QUOTED_WORDS = 5
"""Where an ICMP error says how many 32-bit words it quotes, 0 where it carries no extensions (RFC 4884, section 3)."""
FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = 1, 2, 4, 8, 16, 32, 64, 128

TCP_OPTION_END, TCP_OPTION_NOP, TCP_OPTION_MSS = 0, 1, 2
TCP_OPTION_WINDOW_SCALE, TCP_OPTION_SACK_PERMITTED, TCP_OPTION_SACK, TCP_OPTION_TIMESTAMPS = 3, 4, 5, 8


class Packets(NamedTuple):
    """Packet memory as the kernels see it; each overlay is indexed by a byte offset into the arena.

    `octets` is the arena itself (uint8). `mbuf` has the machine's order; the other overlays have it
    too when made for kernels, and network order when made for Python.
    """

    octets: np.ndarray
    mbuf: np.ndarray
    ethernet: np.ndarray
    vlan: np.ndarray
    arp: np.ndarray
    ipv4: np.ndarray
    tcp: np.ndarray
    icmp: np.ndarray
    word16: np.ndarray
    word32: np.ndarray
    plain: np.ndarray


WORD16 = np.dtype([("value", ">u2")])
"""Any 16-bit word, for checksums and options at odd offsets."""
WORD32 = np.dtype([("value", ">u4")])
"""Any 32-bit word, for options at odd offsets."""


def overlay(octets, dtype):
    """Returns `octets` (uint8, 1-D) as a recarray of `dtype` with a stride of one byte.

    Its length is that of `octets` less the header's, plus one: an index is a byte offset.
    """
    count = max(len(octets) - dtype.itemsize + 1, 0)
    return np.ndarray((count,), dtype, octets, 0, (1,)).view(np.recarray)


def overlays(octets, native):
    """Returns the `Packets` of an arena; `native` gives the machine's byte order, else the network's."""
    order = "<" if native else ">"
    wire = [ETHERNET, VLAN, ARP, IPV4, TCP, ICMP, WORD16, WORD32, PLAIN]
    return Packets(octets, overlay(octets, MBUF), *(overlay(octets, kind.newbyteorder(order)) for kind in wire))
