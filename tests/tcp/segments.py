"""TCP segments of the tests' hosts: built by scapy, and read back with every checksum and length looked at."""
import ipaddress
from typing import NamedTuple

from scapy.layers.inet import IP, TCP, in4_chksum
from scapy.layers.l2 import Ether
from scapy.utils import checksum

FLAGS = "FSRPAUEC"
MASK = 0xFFFFFFFF


def mac_of(address):
    """Returns the MAC (str) that the tests' host with this IPv4 address (str) has."""
    return "02:00:" + ":".join(f"{octet:02x}" for octet in ipaddress.IPv4Address(address).packed)


class Segment(NamedTuple):
    """What a frame that the engine sent says. Numbers are absolute; `ends` has (address, port) of both ends."""

    port: int           # the engine's port that it left by
    frame: bytes
    source: tuple
    destination: tuple
    flags: str          # letters of FLAGS, in that order
    seq: int
    ack: int
    window: int
    urgent: int
    data: bytes
    mss: int | None
    options: list
    ttl: int
    tos: int
    dont_fragment: bool
    intact: bool        # its TCP checksum is right

    def __str__(self):
        return (f"{self.source[0]}:{self.source[1]} > {self.destination[0]}:{self.destination[1]} {self.flags} "
                f"seq {self.seq} ack {self.ack} window {self.window} data {self.data[:40]!r} ({len(self.data)})")


def build(source, destination, port_mac, flags, seq, ack=0, data=b"", window=8192, mss=None, **fields):
    """Returns a frame (bytes) from `source` to `destination`, both (address, port); numbers are absolute.

    `fields`: `ttl`, `tos`, `dont_fragment`, `urgent`, `options`, and `corrupt` for a wrong TCP checksum.
    """
    options = fields.get("options", []) + ([("MSS", mss)] if mss else [])
    frame = bytes(
        Ether(src=mac_of(source[0]), dst=port_mac)
        / IP(src=source[0], dst=destination[0], ttl=fields.get("ttl", 64), tos=fields.get("tos", 0),
             flags="DF" if fields.get("dont_fragment", True) else 0)
        / TCP(sport=source[1], dport=destination[1], flags=flags, seq=seq & MASK, ack=ack & MASK, window=window,
              urgptr=fields.get("urgent", 0), options=options)
        / data)
    if fields.get("corrupt"):
        place = 14 + 20 + 16
        frame = frame[:place] + bytes([frame[place] ^ 0x5A]) + frame[place + 1:]
    return frame


def read(frame, port, port_mac):
    """Returns the Segment in a frame that left by engine port `port`, whose MAC (str) is `port_mac`.

    The frame must be addressed rightly, have no byte more or less than its headers say, and a right IPv4 checksum.
    """
    ether = Ether(frame)
    ip, tcp = ether[IP], ether[TCP]
    assert ether.src == port_mac and ether.dst == mac_of(ip.dst), ether.summary()
    raw_ip, raw_tcp = frame[14:14 + 4 * ip.ihl], frame[14 + 4 * ip.ihl:]
    assert ip.version == 4 and ip.len == len(frame) - 14 and ip.frag == 0 and "MF" not in ip.flags, ip.summary()
    assert checksum(raw_ip) == 0, f"IPv4 checksum of {ip.summary()}"
    options = dict(option for option in tcp.options if len(option) == 2)
    return Segment(port, frame, (ip.src, tcp.sport), (ip.dst, tcp.dport),
                   "".join(flag for flag in FLAGS if flag in str(tcp.flags)), tcp.seq, tcp.ack, tcp.window, tcp.urgptr,
                   raw_tcp[4 * tcp.dataofs:], options.get("MSS"), tcp.options, ip.ttl, ip.tos, "DF" in ip.flags,
                   in4_chksum(6, ip, raw_tcp) == 0)
