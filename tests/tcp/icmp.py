"""ICMP errors of the tests' routers: built from a frame that the engine has sent, and read back, inner packet and all."""
from scapy.layers.inet import ICMP, IP
from scapy.layers.l2 import Ether
from scapy.utils import checksum

from tcp.segments import mac_of

UNREACHABLE, TIME_EXCEEDED, PARAMETER_PROBLEM = 3, 11, 12


def after_hops(packet, hops):
    """Returns an IPv4 packet (bytes) as it is after so many more routers."""
    later = IP(packet)
    header = bytearray(packet[:4 * later.ihl])
    header[8] -= hops
    header[10:12] = b"\0\0"
    header[10:12] = checksum(bytes(header)).to_bytes(2, "big")
    return bytes(header) + packet[len(header):]


def error(frame, kind, code, router, mtu=0, quoted=548, **fields):
    """Returns the ICMP error (bytes of a frame) of `router`, which a frame of the engine's came to.

    `quoted` is how many bytes of its packet are quoted; `fields`: `hops` that it had passed, `ttl` of the error, `length` and
    `extension` of RFC 4884, `pointer`, `corrupt`, `ip` for fields of the outer header, `payload` in place of the quote.
    """
    ether = Ether(frame)
    quote = fields.get("payload", after_hops(frame[14:], fields.get("hops", 1))[:quoted])
    quote = quote.ljust(4 * fields.get("length", 0), b"\0") + fields.get("extension", b"")
    body = bytes([kind, code, 0, 0, fields.get("pointer", 0), fields.get("length", 0)]) + mtu.to_bytes(2, "big") + quote
    right = checksum(body) ^ (0x1111 if fields.get("corrupt") else 0)
    body = body[:2] + right.to_bytes(2, "big") + body[4:]
    outer = {"src": router, "dst": ether[IP].src, "proto": 1, "ttl": fields.get("ttl", 60), **fields.get("ip", {})}
    return bytes(Ether(src=mac_of(router), dst=ether.src) / IP(**outer) / body)


def read_error(frame):
    """Returns the outer IP and ICMP headers (scapy) of an error that the engine sent, and the bytes that it quotes.

    Both checksums of the outside and that of the quoted IP header have to be right, and the length that of the frame.
    """
    ip = Ether(frame)[IP]
    header, body = frame[14:14 + 4 * ip.ihl], frame[14 + 4 * ip.ihl:14 + ip.len]
    assert len(frame) == 14 + ip.len and checksum(header) == 0, ip.summary()
    assert checksum(body) == 0, f"ICMP checksum of {ip.summary()}"
    quote = body[8:]
    assert checksum(quote[:4 * (quote[0] & 15)]) == 0, f"IPv4 checksum of the packet quoted by {ip.summary()}"
    return ip, ip[ICMP], quote
