"""TCP frames built and taken apart by hand, by the octets alone: what the engine sends is judged without its code or scapy's.

`decode` refuses a frame whose lengths, checksums or options are not exactly those that the RFCs give (RFC 791, 9293, 7323, 2018).
"""
import socket
import struct
from typing import NamedTuple

FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = (1 << bit for bit in range(8))
END, NOP, MSS, SCALE, SACK_PERMITTED, SACK, STAMPS = 0, 1, 2, 3, 4, 5, 8
LENGTHS = {MSS: (4,), SCALE: (3,), SACK_PERMITTED: (2,), SACK: (10, 18, 26, 34), STAMPS: (10,)}
SYN_ALONE = (MSS, SCALE, SACK_PERMITTED)
FORMATS = {MSS: ">H", SCALE: ">B", STAMPS: ">2I"}


class Frame(NamedTuple):
    """What a frame says; `options` maps kinds to values (int, tuple of ints, or True), `length` is the IPv4 datagram's."""

    source: tuple
    destination: tuple
    flags: int
    seq: int
    ack: int
    window: int
    urgent: int
    options: dict
    data: bytes
    tos: int
    ttl: int
    length: int


def checksum(octets):
    """Returns the Internet checksum (RFC 1071) of octets: 0 where they hold a right one."""
    octets += b"\0" * (len(octets) & 1)
    total = sum(struct.unpack(f">{len(octets) // 2}H", octets))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF ^ total


def option(kind, value=True):
    """Returns one option as octets."""
    if kind == SACK:
        content = struct.pack(f">{len(value)}I", *value)
    elif kind == STAMPS:
        content = struct.pack(">2I", *value)
    else:
        content = b"" if value is True else struct.pack(FORMATS[kind], value)
    return bytes((kind, 2 + len(content))) + content


def encode(source, destination, macs, flags, seq, ack, window=8192, options=b"", data=b"", tos=0, urgent=0):
    """Returns a frame between two (address, port); `macs` are those of receiver and sender (str), `options` are octets,
    filled up with NOPs."""
    options += bytes((NOP,)) * (-len(options) % 4)
    addresses = b"".join(socket.inet_aton(end[0]) for end in (source, destination))
    head = struct.pack(">2H2I2B3H", source[1], destination[1], seq & 0xFFFFFFFF, ack & 0xFFFFFFFF, (20 + len(options)) << 2,
                       flags, window, 0, urgent) + options
    pseudo = addresses + struct.pack(">2H", 6, len(head) + len(data))
    head = head[:16] + struct.pack(">H", checksum(pseudo + head + data)) + head[18:]
    ip = struct.pack(">2B3H2BH", 0x45, tos, 20 + len(head) + len(data), 0, 0x4000, 64, 6, 0) + addresses
    ip = ip[:10] + struct.pack(">H", checksum(ip)) + ip[12:]
    return b"".join(bytes.fromhex(mac.replace(":", "")) for mac in macs) + b"\x08\x00" + ip + head + data


def decode(frame):
    """Returns the Frame in an Ethernet frame; AssertionError where anything in it is not as it has to be."""
    ip = frame[14:34]
    length, fragment = struct.unpack(">2xH2xH", ip[:8])
    assert frame[12:14] == b"\x08\x00" and ip[0] == 0x45 and ip[9] == 6 and fragment == 0x4000, ip.hex()
    assert length == len(frame) - 14 <= 1500, f"IPv4 says {length} octets of {len(frame) - 14}"
    assert checksum(ip) == 0, "IPv4 checksum"
    segment = frame[34:]
    head = segment[12] >> 2
    assert 20 <= head <= len(segment) and segment[12] & 0x0F == 0, f"TCP header of {head} octets in {len(segment)}"
    assert checksum(ip[12:20] + struct.pack(">2H", 6, len(segment)) + segment) == 0, "TCP checksum"
    ports_and_numbers = struct.unpack(">2H2I", segment[:12])
    flags, window, urgent = segment[13], *struct.unpack(">H2xH", segment[14:20])
    assert flags & ACK or ports_and_numbers[3] == 0, "an acknowledgement number without ACK"
    addresses = [socket.inet_ntoa(ip[at:at + 4]) for at in (12, 16)]
    return Frame((addresses[0], ports_and_numbers[0]), (addresses[1], ports_and_numbers[1]), flags, *ports_and_numbers[2:],
                 window, urgent, read_options(segment[20:head], flags), segment[head:], ip[1], ip[8], length)


def read_options(octets, flags):
    """Returns the options in a header; each at most once, with the length of its kind, and in place."""
    options, at = {}, 0
    while at < len(octets):
        kind = octets[at]
        if kind == END:
            assert not any(octets[at:]), f"octets behind the end of options: {octets.hex()}"
            break
        if kind == NOP:
            at += 1
            continue
        length = octets[at + 1] if at + 1 < len(octets) else 0
        assert length in LENGTHS.get(kind, ()) and at + length <= len(octets), f"option {kind} in {octets.hex()}"
        assert kind not in options, f"option {kind} twice in {octets.hex()}"
        in_syn = flags & SYN != 0
        assert (kind not in SYN_ALONE if not in_syn else kind != SACK), f"option {kind} has no place here"
        content = octets[at + 2:at + length]
        values = struct.unpack(f">{len(content) // 4}I" if kind == SACK else FORMATS.get(kind, ">"), content)
        options[kind] = values if kind in (SACK, STAMPS) else values[0] if values else True
        at += length
    return options
