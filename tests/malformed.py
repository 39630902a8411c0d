"""Malformed frames by the thousand, each with what the engine has to make of it, from a seeded generator.

Every kind starts from frames that are right in every respect, data, SYN, FIN, RST of open connections among them, and
breaks one thing; checksums are made right again behind it, so that nothing else gives the frame away. Random octets
are judged by `judgement`, which knows the formats by itself.
"""
import itertools
from typing import NamedTuple

import numpy as np

from pipeline.io.frame_rows import (
    HEADERS,
    NETWORK,
    TRANSPORT,
    ethernet_ipv4,
    folded,
    load,
    octets_at,
    ones_sum,
    pseudo_sum,
    seal_ipv4,
    seal_tcp,
    span_sum,
    store,
    tcp_rows,
    write_rows,
)
from pipeline.kernels.counters import DROP_REASONS
from pipeline.kernels.headers import ACK, BUFFER, FIN, PSH, RST, SYN

FORWARDED, CORRUPT, REFUSED, ECHOED, ARP_ANSWERED, ABSORBED = range(-6, 0)
"""What becomes of a frame that is not dropped: it passes; passes with its TCP checksum still wrong; gets a RST, an echo
reply, an ARP reply; is learnt from and gone. Drops are given by the number of their reason."""
WIDTH = 192
"""Octets of a row: the longest valid frame here, with a tag and 40 octets of options put into it."""
CLOSED_PORTS = 32768
"""No service listens at this port or above."""


def drop(reason):
    """Returns the number of a drop reason."""
    return DROP_REASONS.index(reason)


class Frames(NamedTuple):
    """Frames for one port: rows (uint8[n, width], zero behind each frame), lengths and outcomes (int64[n])."""

    rows: np.ndarray
    lengths: np.ndarray
    outcomes: np.ndarray


def joined(parts, width=WIDTH):
    """Returns (rows, lengths) pairs as one, each row `width` octets wide."""
    rows = np.zeros((sum(len(part) for part, _ in parts), width), np.uint8)
    start = 0
    for part, _ in parts:
        rows[start:start + len(part), :part.shape[1]] = part
        start += len(part)
    return rows, np.concatenate([lengths for _, lengths in parts])


def cut_to(rows, lengths):
    """Clears what lies behind each frame's length."""
    rows[np.arange(rows.shape[1]) >= lengths[:, None]] = 0


def inserted(rows, at, octets):
    """Returns rows with `octets` (uint8[n, m]) put in at column `at`; the last m columns fall off."""
    size = octets.shape[1]
    return np.concatenate([rows[:, :at], octets, rows[:, at:rows.shape[1] - size]], axis=1)


class Valid:
    """Frames without a fault, as the ends of open connections and strangers send them to one port of the engine."""

    def __init__(self, ends, generator):
        self.ends, self.random = ends, generator

    def mac(self, side):
        """Returns the MAC of the engine's port toward clients (0) or servers (1), and that of the hosts there."""
        return self.ends.macs[side]

    def address(self, side):
        """Returns the engine's own address on a side."""
        return int(self.ends.proxy_address[0]) if side else self.ends.service[0]

    def data(self, side, count, most=64, back=0):
        """Copies of payload that open connections sent before: they pass, and the receiver drops them.

        They end at least `back` octets before the end of what was sent.
        """
        which = self.random.integers(0, len(self.ends.address), count)
        lengths = self.random.integers(1, most + 1, count)
        ends_before = self.random.integers(lengths, np.minimum(self.ends.sent[side, which], 2000) + 1)
        return self.ends.segments(side, which, lengths, ends_before + back)

    def closing(self, side, count):
        """FINs and RSTs that would end an open connection, were they believed."""
        which = self.random.integers(0, len(self.ends.address), count)
        control = self.random.choice([FIN | ACK, RST, RST | ACK, FIN | PSH | ACK], count)
        return self.ends.frames(side, which, *self.ends.numbers(side, which), control)

    def opening(self, side, count, port=None):
        """SYNs of strangers to the service, or to another port (int64[count])."""
        stranger = 0x0A090000 + self.random.integers(1, 0xFFFF, count)
        service = self.ends.service
        return tcp_rows(self.mac(side), (stranger, service[0]),
                        (self.random.integers(1024, 65536, count), service[1] if port is None else port),
                        (self.random.integers(0, 1 << 32, count), 0), SYN, options=bytes([2, 4, 5, 0xB4]))

    def echo(self, side, count):
        """Echo requests to the engine's own address."""
        size = self.random.integers(8, 65, count)
        stranger = 0x0A090000 + self.random.integers(1, 0xFFFF, count)
        rows = ethernet_ipv4(count, WIDTH, self.mac(side), 1, (stranger, self.address(side)), 20 + size)
        rows[:, TRANSPORT] = 8
        rows[:, TRANSPORT + 4:TRANSPORT + 64] = self.random.integers(0, 256, (count, 60), np.uint8)
        cut_to(rows, TRANSPORT + size)
        seal_ipv4(rows)
        store(rows, TRANSPORT + 2, 2, 0xFFFF - ones_sum(rows[:, TRANSPORT:]))
        return rows, TRANSPORT + size

    def mixed(self, side, count):
        """Some of each, in any order."""
        share = max(count // 4, 1)
        rows, lengths = joined([self.data(side, share), self.closing(side, share), self.opening(side, share),
                                self.echo(side, max(count - 3 * share, 1))])
        order = self.random.permutation(len(rows))[:count]
        lengths = lengths[order].copy()
        return rows[order], lengths

    def reset(self, side, count):
        """Segments without SYN to ports where nothing listens: each gets a RST."""
        stranger = 0x0A090000 + self.random.integers(1, 0xFFFF, count)
        return tcp_rows(self.mac(side), (stranger, self.ends.service[0]),
                        (self.random.integers(1024, 65536, count), self.random.integers(CLOSED_PORTS, 65536, count)),
                        (self.random.integers(0, 1 << 32, count), self.random.integers(0, 1 << 32, count)), ACK)


def judgement(rows, lengths, mac, owned):
    """Returns the outcome of frames that belong to no connection and name no port where something listens.

    `mac` is that of the port they come to, `owned` the addresses of the engine there.
    """
    outcomes = np.full(len(rows), 1 << 20)

    def decide(which, outcome):
        outcomes[which & (outcomes == 1 << 20)] = outcome

    decide(lengths < 14, drop("runt_frame"))
    ethertype = load(rows, 12, 2)
    tagged = (ethertype == 0x8100) | (ethertype == 0x88A8)
    decide(tagged & (lengths < 18), drop("runt_frame"))
    decide(tagged & (load(rows, 14, 2) & 0xFFF != 0), drop("other_vlan"))
    ethertype, at = np.where(tagged, load(rows, 16, 2), ethertype), np.where(tagged, 18, 14)
    to = load(rows, 0, 6)
    decide((to != mac) & ((to != 0xFFFFFFFFFFFF) | (ethertype != 0x0806)), drop("other_mac"))
    judge_arp(decide, rows, lengths, at, ethertype == 0x0806, owned)
    decide(ethertype != 0x0800, drop("other_ethertype"))
    judge_ipv4(decide, rows, lengths - at, at)
    judge_transport(decide, rows, at, owned)
    return outcomes


def judge_arp(decide, rows, lengths, at, which, owned):
    """Decides on ARP packets (RFC 826); `at` is where they begin."""
    decide(which & (lengths < at + 28), drop("arp_invalid"))
    fits = (load(rows, at, 6) == 0x000108000604) & (load(rows, at + 8, 1) & 1 == 0)
    decide(which & ~fits, drop("arp_invalid"))
    asks = (load(rows, at + 6, 2) == 1) & np.isin(load(rows, at + 24, 4), owned)
    decide(which & asks & ~np.isin(load(rows, at + 14, 4), owned), ARP_ANSWERED)
    decide(which, ABSORBED)


def judge_ipv4(decide, rows, available, at):
    """Decides on IPv4 headers (RFC 791)."""
    header = (load(rows, at, 1) & 15) * 4
    decide((available < 20) | (load(rows, at, 1) >> 4 != 4) | (header < 20) | (available < header), drop("ipv4_header"))
    total = load(rows, at + 2, 2)
    decide((total < header) | (total > available), drop("ipv4_length"))
    decide(span_sum(rows, at, at + header) != 0xFFFF, drop("ipv4_checksum"))
    decide(load(rows, at + 6, 2) & 0x3FFF != 0, drop("fragment"))


def judge_transport(decide, rows, at, owned):
    """Decides on TCP (RFC 9293) and ICMP (RFC 792) behind a right IPv4 header."""
    header, protocol = (load(rows, at, 1) & 15) * 4, load(rows, at + 9, 1)
    start = np.minimum(at + header, rows.shape[1] - 20)
    size = load(rows, at + 2, 2) - header
    ours, icmp, tcp = np.isin(load(rows, at + 16, 4), owned), protocol == 1, protocol == 6
    whole = span_sum(rows, start, start + np.where(icmp | tcp, size, 0))
    decide(icmp & ((size < 8) | (whole != 0xFFFF)), drop("icmp_invalid"))
    decide(icmp & ~ours, drop("not_ours"))
    judge_quote(decide, rows, start, size, icmp & np.isin(load(rows, start, 1), [3, 11, 12]))
    decide(icmp & (load(rows, start, 2) != 0x0800), drop("icmp_other"))
    decide(icmp, ECHOED)
    decide(~tcp, drop("other_protocol"))
    offset = (load(rows, start + 12, 1) >> 4) * 4
    decide((size < 20) | (offset < 20) | (offset > size), drop("tcp_header"))
    pseudo = span_sum(rows, at + 12, at + 20) + 6 + size
    decide(folded(whole + pseudo) != 0xFFFF, drop("tcp_checksum"))
    decide(~ours, drop("not_ours"))
    decide(load(rows, start + 13, 1) & RST != 0, drop("stray_segment"))
    decide(tcp, REFUSED)


def judge_quote(decide, rows, start, size, which):
    """Decides on ICMP errors, `which` begin at `start` and have `size` octets: they quote no packet of a connection."""
    quote = np.minimum(start + 8, rows.shape[1] - 20)
    header, total = (load(rows, quote, 1) & 15) * 4, load(rows, quote + 2, 2)
    tcp = (load(rows, quote, 1) >> 4 == 4) & (header >= 20) & (size >= header + 16) & (load(rows, quote + 9, 1) == 6)
    decide(which & ~(tcp & (load(rows, quote + 6, 2) & 0x1FFF == 0) & (total >= header + 20)), drop("icmp_quote_invalid"))
    decide(which, drop("icmp_no_connection"))


def truncated(valid, side, count):
    """Frames cut off anywhere, lengths of the mbuf and all."""
    rows, lengths = valid.mixed(side, count)
    lengths = (valid.random.random(count) * lengths).astype(np.int64)
    cut_to(rows, lengths)
    return Frames(rows, lengths, np.select([lengths < 14, lengths < 34], [drop("runt_frame"), drop("ipv4_header")],
                                           drop("ipv4_length")))


def total_length(valid, side, count):
    """IP total lengths beyond the frame, shorter than the IP header, shorter than the TCP header."""
    rows, lengths = joined([valid.data(side, count)])
    variant = valid.random.integers(0, 3, count)
    more = lengths - 14 + 1 + valid.random.integers(0, 65535 - lengths + 14)
    store(rows, NETWORK + 2, 2, np.choose(variant, [more, valid.random.integers(0, 20, count),
                                                    valid.random.integers(20, 40, count)]))
    seal_ipv4(rows)
    return Frames(rows, lengths, np.choose(variant, [drop("ipv4_length"), drop("ipv4_length"), drop("tcp_header")]))


def header_length(valid, side, count):
    """IP headers shorter than there are, longer than the frame, longer than was meant; other versions."""
    rows, lengths = joined([valid.data(side, count, most=16)])
    variant = valid.random.integers(0, 4, count)
    other = valid.random.choice([number for number in range(16) if number != 4], count)
    rows[:, NETWORK] = np.choose(variant, [0x40 + valid.random.integers(0, 5, count), other * 16 + 5, 0x4F,
                                           0x40 + valid.random.integers(6, 11, count)])
    seal_ipv4(rows)
    right = span_sum(rows, NETWORK, NETWORK + (rows[:, NETWORK] & 15).astype(np.int64) * 4) == 0xFFFF
    rows[(variant == 3) & right, NETWORK] = 0x44
    wrong = (variant == 3) & ~right
    return Frames(rows, lengths, np.where(wrong, drop("ipv4_checksum"), drop("ipv4_header")))


def data_offset(valid, side, count):
    """TCP headers shorter than there are, longer than the segment; longer than was meant passes, its checksum wrong."""
    rows, lengths = joined([valid.data(side, count, most=36)])
    variant = valid.random.integers(0, 3, count)
    words = (lengths - TRANSPORT) // 4
    beyond = words + 1 + (valid.random.random(count) * (15 - words)).astype(np.int64)
    meant = np.minimum(valid.random.integers(6, 16, count), words)
    short = (variant == 2) & (words < 6)
    offset = np.choose(variant, [valid.random.integers(0, 5, count), beyond, meant])
    rows[:, TRANSPORT + 12] = np.where(short, 4, offset) << 4
    return Frames(rows, lengths, np.where((variant == 2) & ~short, CORRUPT, drop("tcp_header")))


def ip_options(valid, side, count):
    """Random octets as IP options, 4 to 40: data passes, a SYN to a closed port is refused."""
    half = count // 2
    closed = valid.random.integers(CLOSED_PORTS, 65536, count - half)
    rows, lengths = joined([valid.data(side, half), valid.opening(side, count - half, closed)])
    size = 4 * int(valid.random.integers(1, 11))
    rows = inserted(rows, TRANSPORT, valid.random.integers(0, 256, (count, size), np.uint8))
    rows[:, NETWORK] = 0x45 + size // 4
    store(rows, NETWORK + 2, 2, lengths - NETWORK + size)
    seal_ipv4(rows, 20 + size)
    return Frames(rows, lengths + size, np.where(np.arange(count) < half, FORWARDED, REFUSED))


def fragments(valid, side, count):
    """First, middle and last fragments."""
    rows, lengths = valid.mixed(side, count)
    more, offset = valid.random.integers(0, 2, count), valid.random.integers(0, 1 << 13, count)
    flags = valid.random.integers(0, 2, count) << 14 | more << 13
    store(rows, NETWORK + 6, 2, flags | np.where(more, offset, offset | 1))
    seal_ipv4(rows)
    return Frames(rows, lengths, np.full(count, drop("fragment")))


def vlan(valid, side, count):
    """Priority tags, which pass; tags of a VLAN, two tags, half a tag."""
    rows, lengths = joined([valid.data(side, count)])
    variant, priority = valid.random.integers(0, 5, count), valid.random.integers(0, 16, count) << 12
    tag = np.zeros((count, 4), np.uint8)
    store(tag, 0, 2, np.where((variant == 2) | (variant == 3), 0x88A8, 0x8100))
    store(tag, 2, 2, priority | np.where((variant == 1) | (variant == 2), valid.random.integers(1, 4096, count), 0))
    inner = np.tile(np.array([0x81, 0, 0, 5], np.uint8), (int((variant == 3).sum()), 1))
    rows[variant == 3] = inserted(rows[variant == 3], 12, inner)
    rows = inserted(rows, 12, tag)
    lengths = np.where(variant == 4, valid.random.integers(14, 18, count), lengths + 4 + 4 * (variant == 3))
    cut_to(rows, lengths)
    return Frames(rows, lengths, np.choose(variant, [FORWARDED, drop("other_vlan"), drop("other_vlan"),
                                                     drop("other_ethertype"), drop("runt_frame")]))


def spoilt(valid, rows, at):
    """Changes the 16-bit checksum at column `at`, and never to the other zero of one's complement."""
    store(rows, at, 2, load(rows, at, 2) ^ valid.random.integers(1, 0xFFFF, len(rows)))


def ip_checksum(valid, side, count):
    """Wrong IP checksums."""
    rows, lengths = valid.mixed(side, count)
    spoilt(valid, rows, NETWORK + 10)
    return Frames(rows, lengths, np.full(count, drop("ipv4_checksum")))


def tcp_checksum(valid, side, count):
    """Wrong TCP checksums: on SYN, FIN and RST they are found; on data, also with other numbers, they pass wrong."""
    third = max(count // 3, 1)
    parts = [valid.data(side, count - 2 * third), valid.closing(side, third), valid.opening(side, third)]
    rows, lengths = joined(parts)
    is_data = np.arange(count) < count - 2 * third
    spoilt(valid, rows, TRANSPORT + 16)
    variant = valid.random.integers(0, 3, count)
    numbers = valid.random.integers(0, 256, (count, 8), np.uint8)
    rows[:, TRANSPORT + 4:TRANSPORT + 12] = np.where((is_data & (variant == 1))[:, None], numbers,
                                                     rows[:, TRANSPORT + 4:TRANSPORT + 12])
    rows[:, HEADERS] ^= np.where(is_data & (variant == 2), valid.random.integers(1, 256, count), 0).astype(np.uint8)
    right = folded(ones_sum(rows[:, TRANSPORT:]) + pseudo_sum(rows, lengths - TRANSPORT)) == 0xFFFF
    rows[right, TRANSPORT + 16] ^= 1
    return Frames(rows, lengths, np.where(is_data, CORRUPT, drop("tcp_checksum")))


def icmp_checksum(valid, side, count):
    """Wrong ICMP checksums, and echo requests without a fault."""
    rows, lengths = valid.echo(side, count)
    wrong = valid.random.integers(0, 4, count) > 0
    changed = rows[wrong]
    spoilt(valid, changed, TRANSPORT + 2)
    rows[wrong] = changed
    return Frames(rows, lengths, np.where(wrong, drop("icmp_invalid"), ECHOED))


def random_octets(valid, side, count):
    """Random octets: all of the frame, behind our MAC, as an IPv4 header, behind a right one, as TCP, TCP sealed."""
    rows = valid.random.integers(0, 256, (count, 1536), np.uint8)
    lengths = valid.random.integers(0, 1515, count)
    depth = valid.random.integers(0, 6, count)
    mac = valid.mac(side)[0]

    def overwrite(least, at, size, values):
        rows[depth >= least, at:at + size] = template(at, size, values)[depth >= least]

    def template(at, size, values):
        columns = np.zeros((count, size), np.uint8)
        store(columns, 0, size, values)
        return columns
    overwrite(1, 0, 6, mac)
    overwrite(2, 12, 2, 0x0800)
    lengths = np.where(depth >= 3, np.maximum(lengths, HEADERS), lengths)
    overwrite(3, NETWORK, 1, 0x45)
    overwrite(3, NETWORK + 2, 2, lengths - NETWORK)
    overwrite(3, NETWORK + 6, 2, 0x4000)
    overwrite(4, NETWORK + 9, 1, 6)
    overwrite(4, NETWORK + 16, 4, valid.address(side))
    overwrite(4, TRANSPORT + 2, 2, valid.random.integers(CLOSED_PORTS, 65536, count))
    overwrite(5, TRANSPORT + 12, 1, 0x50)
    cut_to(rows, lengths)
    for least, seal in ((3, seal_ipv4), (5, lambda part: seal_tcp(part, lengths[depth >= 5] - TRANSPORT))):
        part = rows[depth >= least]
        seal(part)
        rows[depth >= least] = part
    return Frames(rows, lengths, judgement(rows, lengths, mac, [valid.address(side), valid.ends.service[0]]))


def random_arp(valid, side, count):
    """ARP with some fields at random, or cut off; senders are never hosts that connections go to."""
    rows = np.zeros((count, 60), np.uint8)
    mac, address = valid.mac(side)[0], valid.address(side)
    store(rows, 0, 6, np.where(valid.random.integers(0, 2, count), mac, 0xFFFFFFFFFFFF))
    rows[:, 6:12] = valid.random.integers(0, 256, (count, 6), np.uint8)
    store(rows, 12, 2, 0x0806)
    store(rows, 14, 6, 0x000108000604)
    store(rows, 20, 2, valid.random.integers(0, 4, count))
    rows[:, 22:42] = valid.random.integers(0, 256, (count, 20), np.uint8)
    store(rows, 28, 4, np.choose(valid.random.integers(0, 4, count), [
        address, 0, (address & 0xFFFFFF00) + valid.random.integers(128, 256, count),
        0xC0000000 + valid.random.integers(0, 1 << 24, count)]))
    store(rows, 38, 4, np.where(valid.random.integers(0, 3, count), address, load(rows, 38, 4)))
    spoil = valid.random.integers(0, 2, count) == 0
    column = valid.random.integers(14, 20, count)
    rows[spoil, column[spoil]] ^= valid.random.integers(1, 256, int(spoil.sum())).astype(np.uint8)
    lengths = np.where(valid.random.integers(0, 5, count) == 0, valid.random.integers(14, 42, count), 60)
    cut_to(rows, lengths)
    owned = [address, valid.ends.service[0]] if side == 0 else [address]
    return Frames(rows, lengths, judgement(rows, lengths, mac, owned))


def random_icmp(valid, side, count):
    """ICMP of any type to us and to others, its checksum right or at random, cut off within its header."""
    rows, lengths = valid.echo(side, count)
    deep = valid.random.integers(0, 2, count)
    rows[:, TRANSPORT] = np.where(deep, rows[:, TRANSPORT], valid.random.integers(0, 256, count))
    rows[:, TRANSPORT + 1] = np.where(valid.random.integers(0, 4, count) == 0, valid.random.integers(0, 256, count), 0)
    store(rows, NETWORK + 16, 4, np.where(valid.random.integers(0, 4, count) == 0, 0x0A636363, valid.address(side)))
    store(rows, TRANSPORT + 2, 2, 0)
    right, other = 0xFFFF - ones_sum(rows[:, TRANSPORT:]), valid.random.integers(0, 1 << 16, count)
    store(rows, TRANSPORT + 2, 2, np.where(valid.random.integers(0, 3, count) == 0, other, right))
    lengths = np.where(valid.random.integers(0, 6, count) == 0, valid.random.integers(34, 42, count), lengths)
    cut_to(rows, lengths)
    store(rows, NETWORK + 2, 2, lengths - NETWORK)
    seal_ipv4(rows)
    owned = [valid.address(side), valid.ends.service[0]]
    return Frames(rows, lengths, judgement(rows, lengths, valid.mac(side)[0], owned))


def icmp_quotes(valid, side, count):
    """ICMP errors whose quote has something wrong: length, version, protocol, fragment, a packet of nobody's.

    The rest of the quote is a packet that the engine could have sent, its numbers never in flight.
    """
    mac, address, size = valid.mac(side), valid.address(side), valid.random.integers(8, 140, count)
    stranger = 0x0A090000 + valid.random.integers(1, 0xFFFF, count)
    rows = ethernet_ipv4(count, WIDTH, mac, 1, (stranger, address), 20 + size)
    rows[:, TRANSPORT] = valid.random.choice([3, 11, 12], count)
    rows[:, TRANSPORT + 1] = valid.random.integers(0, 16, count)
    rows[:, TRANSPORT + 5] = np.where(valid.random.integers(0, 3, count) == 0, valid.random.integers(0, 256, count), 0)
    quote = TRANSPORT + 8
    rows[:, quote:] = valid.random.integers(0, 256, (count, WIDTH - quote), np.uint8)
    store(rows, quote, 4, 0x45000000 + valid.random.choice([40, 39, 48, 1500, 0, 65535], count))
    store(rows, quote + 4, 6, 0x00004000FF06)
    store(rows, quote + 12, 4, address)
    spoil, at = valid.random.integers(0, 2, count) == 0, valid.random.integers(0, 12, count)
    rows[spoil, quote + at[spoil]] ^= valid.random.integers(1, 256, int(spoil.sum())).astype(np.uint8)
    lengths = TRANSPORT + size
    cut_to(rows, lengths)
    store(rows, TRANSPORT + 2, 2, 0)
    store(rows, TRANSPORT + 2, 2, 0xFFFF - ones_sum(rows[:, TRANSPORT:]))
    seal_ipv4(rows)
    return Frames(rows, lengths, judgement(rows, lengths, mac[0], [address, valid.ends.service[0]]))


ON_THE_WIRE = (truncated, total_length, header_length, data_offset, ip_options, fragments, vlan, ip_checksum,
               tcp_checksum, icmp_checksum, icmp_quotes, random_octets, random_arp, random_icmp)
"""Kinds that any port can receive: (valid, side, count) -> Frames."""


def write_chains(pool, rows, lengths, cuts):
    """Writes frames cut at the columns `cuts` into chained mbufs; returns their offsets (int64[n, segments])."""
    edges = [0, *cuts, rows.shape[1]]
    mbufs = pool.allocate(len(rows) * (len(edges) - 1)).reshape(len(rows), len(edges) - 1)
    records = pool.arena.native.mbuf
    octets = octets_at(pool.arena, BUFFER)
    for number, (start, end) in enumerate(itertools.pairwise(edges)):
        octets[mbufs[:, number] + 256, :end - start] = rows[:, start:end]
        records["data_length"][mbufs[:, number]] = np.clip(lengths - start, 0, end - start)
    for number in range(mbufs.shape[1] - 1):
        records["next"][mbufs[:, number]] = (mbufs[:, number + 1] + pool.arena.base).astype(np.uint64)
    records["segments"][mbufs[:, 0]] = mbufs.shape[1]
    records["packet_length"][mbufs[:, 0]] = lengths
    return mbufs


def mbuf_lengths(valid, side, count, pool):
    """Mbufs that do not agree with themselves, or hold more than fits in their buffer."""
    mbufs = write_rows(pool, *valid.data(side, count))
    records, variant = pool.arena.native.mbuf, valid.random.integers(0, 4, count)
    said = records["packet_length"][mbufs].astype(np.int64)
    packet = np.choose(variant, [said + valid.random.integers(1, 1 << 31, count), valid.random.integers(0, said),
                                 valid.random.integers(2049, 65536, count), said])
    records["packet_length"][mbufs] = packet
    records["data_length"][mbufs] = np.where(variant == 2, packet, said)
    records["data_off"][mbufs] = np.where(variant == 3, 2176 - said + valid.random.integers(1, 60000, count), 128)
    return mbufs, np.full(count, drop("mbuf_chain"))


def segment_chains(valid, side, count, pool):
    """Chains cut within a header, or behind all of them, which pass; chains that miscount; some longer than any."""
    endless = min(count, int(valid.random.integers(0, 3)) * 16)
    rows, lengths = joined([valid.data(side, count)])
    variant, parts = int(valid.random.integers(0, 4)), 65 + int(valid.random.integers(0, 4))
    first = int(valid.random.integers(1, HEADERS) if variant == 0 else valid.random.integers(HEADERS, HEADERS + 40))
    long = write_chains(pool, rows[:endless], lengths[:endless], range(1, parts))[:, 0]
    mbufs = write_chains(pool, rows[endless:], lengths[endless:], [first, first + 20])[:, 0]
    records = pool.arena.native.mbuf
    if variant == 2:
        records["segments"][mbufs] = valid.random.choice([0, 2, 4, 5, 200, 65535], len(mbufs))
    if variant == 3:
        lie = valid.random.choice([-5, -1, 1, 60000, 1 << 30], len(mbufs))
        records["packet_length"][mbufs] = lengths[endless:] + lie
    header = drop("runt_frame" if first < 14 else "ipv4_header" if first < 34 else "tcp_header")
    outcome = [header, FORWARDED, drop("mbuf_chain"), drop("mbuf_chain")][variant]
    return np.concatenate([long, mbufs]), np.where(np.arange(count) < endless, drop("mbuf_chain"), outcome)


def giants(valid, side, count, pool):
    """Frames of 65,549 octets in 33 segments: data beyond any MTU, SYNs right and wrong, echo requests, no end."""
    variant = int(valid.random.integers(0, 5))
    syn = valid.opening(side, count, valid.random.integers(CLOSED_PORTS, 65536, count))
    heads = {0: valid.data(side, count, back=1 << 16), 3: valid.echo(side, count)}.get(variant, syn)
    rows, _ = joined([heads], BUFFER)
    rows[:, 128:] = 0
    size = 65535 + NETWORK
    store(rows, NETWORK + 2, 2, 65535)
    seal_ipv4(rows)
    seal_tcp(rows, 65535 - 20)
    if variant == 2:
        spoilt(valid, rows, TRANSPORT + 16)
    chains = pool.allocate(count * 33).reshape(count, 33)
    records, octets = pool.arena.native.mbuf, octets_at(pool.arena, BUFFER)
    octets[chains + 256] = 0
    octets[chains[:, 0] + 256] = rows
    records["data_length"][chains] = BUFFER
    records["data_length"][chains[:, -1]] = size - 32 * BUFFER - int(variant == 4)
    records["next"][chains[:, :-1]] = (chains[:, 1:] + pool.arena.base).astype(np.uint64)
    records["segments"][chains[:, 0]] = 33
    records["packet_length"][chains[:, 0]] = size - int(variant == 4)
    reasons = ("larger_than_mtu", "stray_segment", "tcp_checksum", "icmp_invalid", "ipv4_length")
    return chains[:, 0].copy(), np.full(count, drop(reasons[variant]))


IN_MEMORY = (mbuf_lengths, segment_chains, giants)
"""Kinds that only whoever fills mbufs can make: (valid, side, count, pool) -> offsets of mbufs, outcomes."""
EVERY_KIND = (*ON_THE_WIRE, *IN_MEMORY)
