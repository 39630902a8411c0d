"""Where the headers of a frame lie, found by offset: past VLAN tags and IP options, never by assumption."""
from typing import NamedTuple

from pipeline.kernels import headers

from .frames import octets_of

ABSENT = -1
ETHERTYPE_AT = headers.ETHERNET_LENGTH - 2
TAGS = tuple(kind.to_bytes(2, "big") for kind in (headers.ETHERTYPE_VLAN, headers.ETHERTYPE_QINQ))


class Places(NamedTuple):
    """Byte offsets in the arena of the headers of one frame, ABSENT where there is none.

    `payload` to `end` is what follows the innermost header that was found, without Ethernet padding.
    """

    ethernet: int = ABSENT
    arp: int = ABSENT
    ipv4: int = ABSENT
    tcp: int = ABSENT
    icmp: int = ABSENT
    payload: int = ABSENT
    end: int = ABSENT


def _after_tags(wire, ethernet, end):
    """Returns the EtherType of a frame and the offset of what it names, past any VLAN tags."""
    kind, place = int(wire.ethernet[ethernet].ethertype), ethernet + headers.ETHERNET_LENGTH
    while kind in (headers.ETHERTYPE_VLAN, headers.ETHERTYPE_QINQ) and place + headers.VLAN_LENGTH <= end:
        kind, place = int(wire.vlan[place].ethertype), place + headers.VLAN_LENGTH
    return kind, place


def network_of(frame):
    """Returns the EtherType of a frame (bytes) and the offset of what it names, past any VLAN tags; (-1, its length) where it ends before."""
    at = ETHERTYPE_AT
    while frame[at:at + 2] in TAGS:
        at += headers.VLAN_LENGTH
    return (int.from_bytes(frame[at:at + 2], "big"), at + 2) if len(frame) >= at + 2 else (-1, len(frame))


def _locate_transport(wire, found, end):
    """Adds what follows the IPv4 header at `found.ipv4` to `found`; fragments and lies get no transport header."""
    ip = wire.ipv4[found.ipv4]
    length = 4 * (int(ip.version_length) & 15)
    place = found.ipv4 + length
    end = min(end, found.ipv4 + int(ip.total_length))
    if int(ip.version_length) >> 4 != 4 or length < headers.IPV4_LENGTH or place > end:
        return found._replace(payload=found.ipv4 + headers.IPV4_LENGTH)
    found = found._replace(payload=place, end=end)
    if int(ip.fragment) & headers.FRAGMENT_OFFSET:
        return found
    if int(ip.protocol) == headers.PROTOCOL_ICMP and place + headers.ICMP_LENGTH <= end:
        return found._replace(icmp=place, payload=place + headers.ICMP_LENGTH)
    if int(ip.protocol) == headers.PROTOCOL_TCP and place + headers.TCP_LENGTH <= end:
        payload = place + 4 * (int(wire.tcp[place].data_offset) >> 4)
        return found._replace(tcp=place, payload=min(max(payload, place + headers.TCP_LENGTH), end))
    return found


def locate(arena, mbuf):
    """Returns the `Places` of the frame in the mbuf at offset `mbuf`; only its first segment is searched."""
    wire, octets = arena.wire, octets_of(arena, mbuf)
    ethernet = octets.ctypes.data - arena.base
    end = ethernet + len(octets)
    if len(octets) < headers.ETHERNET_LENGTH:
        return Places(payload=ethernet, end=end)
    kind, place = _after_tags(wire, ethernet, end)
    found = Places(ethernet=ethernet, payload=place, end=end)
    if kind == headers.ETHERTYPE_ARP and place + headers.ARP_LENGTH <= end:
        return found._replace(arp=place, payload=place + headers.ARP_LENGTH)
    if kind == headers.ETHERTYPE_IPV4 and place + headers.IPV4_LENGTH <= end:
        return _locate_transport(wire, found._replace(ipv4=place), end)
    return found
