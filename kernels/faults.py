"""The fault stage: what the network at a port does to packets on their way, as netem of Linux does (tc-netem(8)).

Each port has two lines, one for what comes in and one for what leaves. A line loses, duplicates, flips bits, delays and
reorders, in that order; its packets then wait in two rings: those in order, and those that are held back while others
pass them. Both rings are sorted by time by themselves, so that a packet costs the same however many wait.
Every fault of a line draws from a stream of its own: what it does depends on the seed and on how many packets have
come before, not on bursts, on time or on the other faults.
"""
from typing import NamedTuple

import numpy as np
from numpy import int64

from .checksum import data_start
from .headers import ETHERNET_LENGTH, ETHERTYPE_ARP
from .jit import kernel
from .native import record_at, swap16
from .outbox import discard
from .verify import OFFLOAD_BAD, OFFLOAD_GOOD

RECEIVING, TRANSMITTING = 0, 1
"""Line 2 * port + RECEIVING has what comes in by a port, 2 * port + TRANSMITTING what leaves by it."""
LOSS, DUPLICATE, FLIP, REORDER, JITTER, DELAY, REORDER_DELAY, QUEUE = range(8)
"""Settings of a line: four rates (ALWAYS is each packet), three spans in microseconds, and how many mbufs may wait."""
STREAMS = 5
"""Streams of random numbers of a line: one for each of LOSS to JITTER."""
ALWAYS = 1 << 32
NEVER = 1 << 62
"""A time that does not come."""
FAULTS = ("packets", "lost", "duplicated", "not_duplicated", "flipped", "delayed", "reordered", "overflowed")
"""What is counted of a line: packets that came to it; copies for which there was no mbuf are `not_duplicated`, packets
that found its queue full are `overflowed`."""
(FAULT_PACKETS, FAULT_LOST, FAULT_DUPLICATED, FAULT_NOT_DUPLICATED, FAULT_FLIPPED, FAULT_DELAYED, FAULT_REORDERED,
 FAULT_OVERFLOWED) = range(len(FAULTS))
MASK = 0xFFFFFFFF


class Faults(NamedTuple):
    """The lines of all ports; int64. Ring 2 * line has the packets in order, 2 * line + 1 those held back."""

    any: np.ndarray        # [1] how many lines have faults
    active: np.ndarray     # [lines] whether a line has faults
    setting: np.ndarray    # [lines, 8]
    random: np.ndarray     # [lines, STREAMS, 4]
    due: np.ndarray        # [rings, size] when a packet leaves the line, microseconds
    mbuf: np.ndarray       # [rings, size], size a power of two
    written: np.ndarray    # [rings] how many packets came into a ring since the start
    read: np.ndarray       # [rings] and out of it
    latest: np.ndarray     # [lines] when the last packet in order leaves
    copied: np.ndarray     # [rows] whether a packet of a burst goes twice
    fresh: np.ndarray      # [rows] mbufs for the copies
    counters: np.ndarray   # [lines, len(FAULTS)]


def allocate_faults(settings, seeds, rows):
    """Returns `Faults` with empty lines.

    `settings`: for each line its 8 settings, or None where it has no faults; `seeds`: an int for each line; `rows`: most
    packets that come to a line at once.
    """
    lines = len(settings)
    longest = max((setting[QUEUE] for setting in settings if setting), default=1)
    rings = (2 * lines, 1 << (longest - 1).bit_length())
    random = [np.random.SeedSequence([seed, line]).generate_state(4 * STREAMS) for line, seed in enumerate(seeds)]
    return Faults(
        any=np.array([sum(setting is not None for setting in settings)], np.int64),
        active=np.array([setting is not None for setting in settings], np.int64),
        setting=np.array([setting or [0] * 8 for setting in settings], np.int64),
        random=np.array(random, np.int64).reshape(lines, STREAMS, 4), due=np.zeros(rings, np.int64),
        mbuf=np.zeros(rings, np.int64), written=np.zeros(2 * lines, np.int64), read=np.zeros(2 * lines, np.int64),
        latest=np.zeros(lines, np.int64), copied=np.zeros(rows, np.int64), fresh=np.zeros(rows, np.int64),
        counters=np.zeros((lines, len(FAULTS)), np.int64))


@kernel
def rotated(word, places):
    """Returns 32 bits turned left by so many places."""
    return ((word << places) & MASK) | (word >> (32 - places))


@kernel
def draw(faults, line, stream):
    """Returns the next 32 bits of a line's stream: xoshiro128++ (Blackman and Vigna, ACM TOMS 47(4), 2021)."""
    words = faults.random[line, stream]
    first, second, third, fourth = words[0], words[1], words[2], words[3]
    drawn = (rotated((first + fourth) & MASK, 7) + first) & MASK
    shifted = (second << 9) & MASK
    third ^= first
    fourth ^= second
    words[1] = second ^ third
    words[0] = first ^ fourth
    words[2] = third ^ shifted
    words[3] = rotated(fourth, 11)
    return drawn


@kernel
def strikes(faults, line, fault):
    """Says whether a fault with a rate strikes the next packet."""
    rate = faults.setting[line, fault]
    return rate > 0 and draw(faults, line, fault) < rate


@kernel
def lose(faults, line, mbufs, count, outbox):
    """Has lost packets freed; returns how many of `mbufs[:count]` are left, which are moved up."""
    faults.counters[line, FAULT_PACKETS] += count
    if faults.setting[line, LOSS] == 0:
        return count
    kept = 0
    for number in range(count):
        if strikes(faults, line, LOSS):
            discard(outbox, mbufs[number])
        else:
            mbufs[kept] = mbufs[number]
            kept += 1
    faults.counters[line, FAULT_LOST] += count - kept
    return kept


@kernel
def choose_duplicates(packets, faults, line, mbufs, count):
    """Marks in `copied` which of the packets go twice; returns how many. A packet of several mbufs never does."""
    wanted = 0
    for number in range(count):
        copied = int64(strikes(faults, line, DUPLICATE) and int64(record_at(packets.mbuf, mbufs[number]).segments) == 1)
        faults.copied[number] = copied
        wanted += copied
    return wanted


@kernel
def copy_packet(packets, base, mbuf, fresh):
    """Makes a fresh mbuf a packet with the same bytes as `mbuf`, which is a single one; nobody has verified the copy."""
    original, copy = record_at(packets.mbuf, mbuf), record_at(packets.mbuf, fresh)
    length = int64(original.data_length)
    copy.data_off = int64(original.data_off)
    copy.data_length = length
    copy.packet_length = length
    copy.port = int64(original.port)
    start, stop = data_start(packets, base, mbuf), data_start(packets, base, fresh)
    for number in range(length):
        packets.octets[stop + number] = packets.octets[start + number]


@kernel
def flip_bit(packets, base, faults, line, mbuf):
    """Flips one bit behind the Ethernet header, in the first mbuf; what the NIC found of the checksum is forgotten.

    ARP is spared: it has no checksum of its own, and the frame's would have shown the flip. A neighbour with a wrong
    hardware address would keep everybody from it for many seconds (seen, with 2,000 clients at once).
    """
    head, start = record_at(packets.mbuf, mbuf), data_start(packets, base, mbuf)
    bits = 8 * (int64(head.data_length) - ETHERNET_LENGTH)
    place = (draw(faults, line, FLIP) * bits) >> 32
    if bits <= 0 or swap16(int64(record_at(packets.ethernet, start).ethertype)) == ETHERTYPE_ARP:
        return
    head.offload = int64(head.offload) & ~(OFFLOAD_GOOD | OFFLOAD_BAD)
    octet = start + ETHERNET_LENGTH + (place >> 3)
    packets.octets[octet] = int64(packets.octets[octet]) ^ (1 << (place & 7))
    faults.counters[line, FAULT_FLIPPED] += 1


@kernel
def enqueue(faults, line, mbuf, outbox, now):
    """Puts one packet into its line's queue, to leave it in time; one that finds the queue full is freed.

    Without REORDER nothing overtakes: a packet leaves no sooner than the one before it, whatever its jitter.
    """
    setting, ring = faults.setting, 2 * line
    waiting = faults.written[ring] - faults.read[ring] + faults.written[ring + 1] - faults.read[ring + 1]
    if waiting >= setting[line, QUEUE]:
        faults.counters[line, FAULT_OVERFLOWED] += 1
        discard(outbox, mbuf)
        return
    due = now + setting[line, DELAY]
    jitter = setting[line, JITTER]
    if jitter > 0:
        due += ((draw(faults, line, JITTER) * (2 * jitter + 1)) >> 32) - jitter
    due = max(due, faults.latest[line])
    faults.latest[line] = due
    if strikes(faults, line, REORDER):
        ring += 1
        due += setting[line, REORDER_DELAY]
        faults.counters[line, FAULT_REORDERED] += 1
    faults.counters[line, FAULT_DELAYED] += int64(due > now)
    place = faults.written[ring] & (faults.due.shape[1] - 1)
    faults.due[ring, place] = due
    faults.mbuf[ring, place] = mbuf
    faults.written[ring] += 1


@kernel
def hold(packets, base, faults, line, mbufs, count, copies, outbox, now):
    """Puts packets into a line's queue, those marked in `copied` twice; `copies` is how many mbufs in `fresh` serve that.

    Copy and original are struck by flips, jitter and reordering each by itself.
    """
    used = 0
    for number in range(count):
        mbuf = mbufs[number]
        twice = faults.copied[number] != 0
        fresh = mbuf
        if twice and used < copies:
            fresh = faults.fresh[used]
            used += 1
            copy_packet(packets, base, mbuf, fresh)
        for _ in range(1 + int64(fresh != mbuf)):
            if strikes(faults, line, FLIP):
                flip_bit(packets, base, faults, line, mbuf)
            enqueue(faults, line, mbuf, outbox, now)
            mbuf = fresh
        faults.counters[line, FAULT_NOT_DUPLICATED] += int64(twice and fresh == mbufs[number])
    faults.counters[line, FAULT_DUPLICATED] += used


@kernel
def first_due(faults, ring):
    """Returns when the first packet of a ring leaves, NEVER for an empty one."""
    read = faults.read[ring]
    return faults.due[ring, read & (faults.due.shape[1] - 1)] if read != faults.written[ring] else NEVER


@kernel
def emerge(faults, line, mbufs, limit, until):
    """Takes at most `limit` packets that leave a line by `until` into `mbufs`, in that order; returns how many."""
    count = 0
    while count < limit:
        ring = 2 * line + int64(first_due(faults, 2 * line + 1) < first_due(faults, 2 * line))
        if first_due(faults, ring) > until:
            break
        mbufs[count] = faults.mbuf[ring, faults.read[ring] & (faults.due.shape[1] - 1)]
        faults.read[ring] += 1
        count += 1
    return count


@kernel
def earliest(faults):
    """Returns when the next packet leaves any line."""
    time = int64(NEVER)
    if faults.any[0] != 0:
        for ring in range(faults.read.shape[0]):
            time = min(time, first_due(faults, ring))
    return time
