"""Frames of the fuzz: built one by one with struct, checked by the thousand as rows of a matrix with numpy."""
import struct

import numpy as np

FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = 1, 2, 4, 8, 16, 32, 64, 128
MASK = 0xFFFFFFFF
HEADER = struct.Struct(">6s6sHBBHHHBBHIIHHIIBBHHH")
"""Ethernet, IPv4 and TCP without options: 54 octets."""
LENGTH = HEADER.size
IP_SUM, TCP_SUM = 24, 50
WIDEST = 1536


def frame(macs, identity, tos, ttl, source, destination, seq, ack, control, window, urgent, options, payload):
    """Returns a frame (bytes) whose checksums are still 0; `macs`: destination and source, ends: (address, port)."""
    size = len(options)
    return HEADER.pack(macs[0], macs[1], 0x0800, 0x45, tos, 40 + size + len(payload), identity, 0x4000, ttl, 6, 0,
                       source[0], destination[0], source[1], destination[1], seq, ack, (20 + size) << 2, control, window, 0,
                       urgent) + options + payload


def signed(number):
    """Returns a difference of two sequence numbers as a signed one."""
    return ((number + 0x80000000) & MASK) - 0x80000000


def matrix(frames, width=0):
    """Returns frames as rows (uint8[n, width], an even width that holds the longest) and their lengths (int64[n])."""
    lengths = np.array([len(each) for each in frames], np.int64)
    width = max(width, int(lengths.max(initial=60)) + 1 & ~1)
    octets = b"".join([each.ljust(width, b"\0") for each in frames])
    return np.frombuffer(octets, np.uint8).reshape(len(frames), width).copy(), lengths


def _fold(total):
    for _ in range(3):
        total = (total & 0xFFFF) + (total >> 16)
    return total


def sums(rows):
    """Returns the one's complement sums (int64[n] each) that RFC 1071 has over IPv4 header and over TCP: 0xFFFF is right.

    Rows are zero behind their frame, as Ethernet pads.
    """
    words = rows.view(">u2")
    total = words[:, 17:].sum(1, dtype=np.int64) + words[:, 13:17].sum(1, dtype=np.int64)
    length = words[:, 8].astype(np.int64) - 20
    return _fold(words[:, 7:17].sum(1, dtype=np.int64)), _fold(total + 6 + length)


def ones_sum(octets):
    """Returns the one's complement sum of octets (bytes), padded to 16-bit words."""
    return int(_fold(np.frombuffer(octets + bytes(len(octets) & 1), ">u2").sum(dtype=np.int64)))


def seal(rows):
    """Writes both checksums, which must be 0 before, into all rows."""
    ip, tcp = sums(rows)
    for at, total in ((IP_SUM, ip), (TCP_SUM, tcp)):
        rows[:, at], rows[:, at + 1] = (0xFFFF - total) >> 8, (0xFFFF - total) & 0xFF


def options_of(octets):
    """Returns the options in a TCP header as a list of (kind, value in bytes), NOPs left out; None where malformed."""
    found, at = [], 0
    while at < len(octets) and octets[at] != 0:
        if octets[at] == 1:
            at += 1
            continue
        if at + 1 >= len(octets) or octets[at + 1] < 2 or at + octets[at + 1] > len(octets):
            return None
        found.append((octets[at], octets[at + 2:at + octets[at + 1]]))
        at += octets[at + 1]
    return found


class Came:
    """A frame that came out of the proxy, read. Ends are (address, port); `sane` says lengths and headers agree."""

    __slots__ = ("ack", "control", "destination", "identity", "octets", "options", "payload", "port", "sane", "seq", "source",
                 "tos", "ttl", "urgent", "window")

    def __init__(self, octets, port):
        (_, _, kind, version, self.tos, total, self.identity, fragment, self.ttl, protocol, _, source, destination,
         source_port, destination_port, self.seq, self.ack, offset, self.control, self.window, _, self.urgent) = (
             HEADER.unpack_from(octets))
        header = (offset >> 4) * 4
        self.port, self.octets = port, octets
        self.source, self.destination = (source, source_port), (destination, destination_port)
        self.sane = (kind == 0x0800 and version == 0x45 and protocol == 6 and fragment & 0x3FFF == 0
                     and total == len(octets) - 14 and 20 <= header <= total - 20)
        self.options, self.payload = octets[LENGTH:34 + header], octets[34 + header:]

    def __str__(self):
        return (f"{address_text(self.source)} > {address_text(self.destination)} {flags_text(self.control)} seq {self.seq} "
                f"ack {self.ack} window {self.window} options {self.options.hex()} payload {len(self.payload)}")


def address_text(end):
    """Returns (address, port) as text."""
    return ".".join(str(end[0] >> shift & 0xFF) for shift in (24, 16, 8, 0)) + f":{end[1]}"


def flags_text(control):
    """Returns the flags of a TCP header as letters, such as SA or FPA."""
    return "".join(letter for bit, letter in enumerate("FSRPAUEC") if control >> bit & 1) or "none"
