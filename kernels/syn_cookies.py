"""SYN cookies: SYNs are answered from their own mbufs, and nothing is kept of them (SPLICE 7; Bernstein, 1996; RFC 4987, 3.6).

All SYNs of a burst are found first, so that the hashes of all of them are reckoned in one loop without a branch.
"""
from typing import NamedTuple

import numpy as np
from numpy import int64

from .batch import ANSWER, BURST, DROP, KIND_TCP, PENDING
from .checksum import fold
from .connection import PROMISED_ECN, PROMISED_SACK, PROMISED_SCALING, PROMISED_TIMESTAMPS
from .cookie_number import EPOCH_BITS, SIZES, cookie_number, epoch_key, stamp_with
from .counters import DROP_BAD_SOURCE, NOTICE_COOKIES_SENT, RECEIVED_SYN, SENT_SYN_ACK
from .headers import ACK, ECE, FIN, IPV4_LENGTH, PROTOCOL_TCP, RST, SYN, TCP_LENGTH, TCP_OPTION_MSS
from .initial_number import half_siphash
from .jit import kernel
from .native import record_at, swap16, swap32
from .open import LEAST_MSS, source_is_bad
from .outbox import set_length
from .refuse import swap_macs, write_ipv4_header
from .sequence import wrap
from .services import SIMPLE, UNKNOWN_SCALE, find_service
from .tcp_options import PROXY_SCALE, TIMESTAMPS_LENGTH, offered

THRESHOLD = 0
"""Cell of `SynCookies.settings`: half-open connections from which on SYNs get cookies; 0 always, -1 never."""
EPOCH, SENT_IN = 0, 1
"""Cells of `SynCookies.epochs`: the one whose keys are there, and the one in which the last cookie was sent; -9 none."""


class SynCookies(NamedTuple):
    """What SYN cookies need: two keys, and columns for the SYNs of a burst."""

    settings: np.ndarray   # int64 [1] see THRESHOLD
    epochs: np.ndarray     # int64 [2] see EPOCH
    keys: np.ndarray       # int64 [4] two words for this epoch, two for the one before
    sizes: np.ndarray      # int64 [8] SIZES
    row: np.ndarray        # int64 [BURST] rows of the SYNs that are answered
    service: np.ndarray    # int64 [BURST] their services
    remote: np.ndarray     # int64 [BURST] their addresses and ports, what is hashed
    local: np.ndarray
    ports: np.ndarray
    hashed: np.ndarray     # int64 [BURST] hashes under this epoch's key
    clock: np.ndarray      # int64 [BURST] where their timestamps start


def allocate_cookies(threshold):
    """Returns `SynCookies` that are used from `threshold` half-open connections on."""
    columns = (np.zeros(BURST, np.int64) for _ in range(7))
    return SynCookies(np.array([threshold], np.int64), np.array([-9, -9], np.int64), np.zeros(4, np.int64), np.array(SIZES, np.int64),
                      *columns)


@kernel
def turn_keys(cookies, secret, now):
    """Makes the keys of this epoch and of the one before, where they are not there yet; returns the epoch."""
    epoch = now >> EPOCH_BITS
    if cookies.epochs[EPOCH] != epoch:
        for place in range(4):
            cookies.keys[place] = epoch_key(secret, epoch - (place >> 1), place & 1)
        cookies.epochs[EPOCH] = epoch
    return epoch


@kernel
def find_syns(packets, batch, count, services, network, cookies, counters):
    """Finds the SYNs of a burst that get a cookie; returns how many.

    Not those in mode `simple`, where the target answers, nor what opens a connection in TIME_WAIT anew: its client has shown where it
    is, and our number has to lie above the old one.
    """
    found = 0
    for row in range(count):
        if batch.kind[row] != KIND_TCP or batch.verdict[row] != PENDING or batch.flow[row] >= 0 or batch.above[row] >= 0:
            continue
        if batch.control[row] & (SYN | ACK | RST | FIN) != SYN:
            continue
        number = find_service(services, batch.destination[row], batch.destination_port[row])
        if number < 0 or services[number].binding == SIMPLE or record_at(packets.mbuf, batch.mbuf[row]).segments != 1:
            continue
        if source_is_bad(network, batch.source[row]):
            batch.verdict[row] = DROP
            counters.drops[DROP_BAD_SOURCE] += 1
            continue
        cookies.row[found], cookies.service[found] = row, number
        cookies.remote[found], cookies.local[found] = batch.source[row], batch.destination[row]
        cookies.ports[found] = (batch.source_port[row] << 16) | batch.destination_port[row]
        found += 1
    return found


@kernel
def hash_syns(cookies, secret, count):
    """Hashes the 4-tuples that were found, under this epoch's key and for the start of their timestamps."""
    remote, local, ports, hashed, clock = cookies.remote, cookies.local, cookies.ports, cookies.hashed, cookies.clock
    first, second, third, fourth = cookies.keys[0], cookies.keys[1], secret[1], secret[0]
    for place in range(count):
        hashed[place] = half_siphash(first, second, remote[place], local[place], ports[place])
        clock[place] = half_siphash(third, fourth, remote[place], local[place], ports[place])


@kernel
def write_options(packets, at, agreed, scale, mss, stamp, echo):
    """Writes the options of a SYN-ACK with a cookie; returns their length and their unfolded sum."""
    words, first = packets.word32, swap32((TCP_OPTION_MSS << 24) | (4 << 16) | mss)
    record_at(words, at).value = first
    if agreed == 0:
        return 4, first
    second, stamp = swap32(0x0402080A if agreed & PROMISED_SACK else 0x0101080A), swap32(stamp)
    record_at(words, at + 4).value = second
    record_at(words, at + 8).value = stamp
    record_at(words, at + 12).value = echo
    total = first + second + stamp + echo
    if agreed & PROMISED_SCALING == 0:
        return 4 + TIMESTAMPS_LENGTH, total
    last = swap32((0x010303 << 8) | scale)
    record_at(words, at + 4 + TIMESTAMPS_LENGTH).value = last
    return 8 + TIMESTAMPS_LENGTH, total + last


@kernel
def write_tcp_header(packets, at, batch, row, seq, ack, length, control, window, total):
    """Writes the TCP header at `at` of the answer to a row's segment; `total` is the sum of the options behind it.

    The checksum is of the words as they are written: read back, they had to wait until all stores were in the cache, which took
    twice as long as all else.
    """
    words, ports = packets.word32, swap16(batch.destination_port[row]) | swap16(batch.source_port[row]) << 16
    seq, ack, fourth = swap32(seq), swap32(ack), length << 2 | control << 8 | swap16(window) << 16
    record_at(words, at).value = ports
    record_at(words, at + 4).value = seq
    record_at(words, at + 8).value = ack
    record_at(words, at + 12).value = fourth
    total += swap32(batch.source[row]) + swap32(batch.destination[row]) + swap16(PROTOCOL_TCP) + swap16(length)
    record_at(words, at + 16).value = 0xFFFF - fold(total + ports + seq + ack + fourth)


@kernel
def answer_syn(packets, batch, row, service, number, clock, window, now):
    """Turns the SYN of a row into the SYN-ACK with our initial `number`; `clock` is where its timestamps start.

    Without timestamps it agrees to nothing, since nothing but the MSS would be known of it later (SPLICE 7.2).
    """
    agreed = offered(batch, row) & int64(service.offer)
    agreed = agreed if agreed & PROMISED_TIMESTAMPS else 0
    scale = int64(service.scale) if service.scale != UNKNOWN_SCALE else PROXY_SCALE
    frame, network, at = batch.frame[row], batch.network[row], batch.network[row] + IPV4_LENGTH
    echo = int64(record_at(packets.word32, batch.stamps[row]).value) if agreed else 0
    stamp = stamp_with(wrap(clock + now // 1000), agreed, batch.scale[row], scale)
    swap_macs(packets, frame)
    length, total = write_options(packets, at + TCP_LENGTH, agreed, scale, int64(service.mss), stamp, echo)
    length += TCP_LENGTH
    write_ipv4_header(packets, network, IPV4_LENGTH + length, batch.destination[row], batch.source[row])
    control = SYN | ACK | (ECE if agreed & PROMISED_ECN else 0)
    write_tcp_header(packets, at, batch, row, number, wrap(batch.seq[row] + 1), length, control, window, total)
    set_length(packets, batch.mbuf[row], network - frame + IPV4_LENGTH + length)
    record_at(packets.mbuf, batch.mbuf[row]).offload = 0


@kernel
def answer_syns(packets, batch, count, connections, services, network, cookies, now):
    """Answers the SYNs of a burst that belong to no connection with cookies; none of them costs any state."""
    counters, window = connections.counters, min(connections.held.limit[0], 0xFFFF)
    found = find_syns(packets, batch, count, services, network, cookies, counters)
    if found == 0:
        return
    epoch = turn_keys(cookies, connections.secret, now)
    cookies.epochs[SENT_IN] = epoch
    hash_syns(cookies, connections.secret, found)
    for place in range(found):
        row, service = cookies.row[place], services[cookies.service[place]]
        mss = batch.mss[row] if batch.mss[row] != 0 else LEAST_MSS
        number = cookie_number(cookies.hashed[place], batch.seq[row], mss, epoch)
        answer_syn(packets, batch, row, service, number, cookies.clock[place], window, now)
        batch.verdict[row], batch.out_port[row] = ANSWER, batch.port[row]
    counters.notices[NOTICE_COOKIES_SENT] += found
    counters.events[0, RECEIVED_SYN] += found
    counters.events[0, SENT_SYN_ACK] += found
