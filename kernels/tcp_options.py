"""TCP options: found in a header, agreed on both sides, translated as packets pass (SPLICE 2; RFC 7323, RFC 2018).

What the client is promised (`agreed`) is what it offered and every target of the service is believed to support. What
the target then declines is remembered for the service; the connection in which it was found out is translated.
"""
from numpy import int64

from .checksum import difference, fold
from .connection import (
    CLIENT,
    HOLDS,
    OFFERED_SCALE,
    OWNS,
    PROMISED_ECN,
    PROMISED_SACK,
    PROMISED_SCALING,
    PROMISED_TIMESTAMPS,
    SCALED,
    STAMPED,
    TARGET,
)
from .headers import (
    ACK,
    CWR,
    ECE,
    TCP_LENGTH,
    TCP_OPTION_END,
    TCP_OPTION_MSS,
    TCP_OPTION_NOP,
    TCP_OPTION_SACK,
    TCP_OPTION_TIMESTAMPS,
)
from .initial_number import half_siphash
from .jit import kernel
from .native import record_at, swap16, swap32
from .opening import client_stamp, keep_client_stamp
from .sequence import distance, wrap

ALIGNED_TIMESTAMPS = 0x0A080101
"""NOP, NOP, timestamps, length 10, as a little-endian machine loads it: the layout of RFC 7323, appendix A."""
TIMESTAMPS_LENGTH = 12
PROXY_SCALE = 10
"""The window scale that clients are offered while no target of the service has shown its own (SPLICE 2.3)."""
HIGHEST_SCALE = 14


@kernel
def find_option(packets, start, stop, kind):
    """Returns the byte offset of the first option of a kind between two offsets, 0 where there is none."""
    at = start
    while at < stop:
        option = int64(packets.octets[at])
        if option == TCP_OPTION_END:
            break
        if option == TCP_OPTION_NOP:
            at += 1
            continue
        if at + 1 >= stop:
            break
        length = int64(packets.octets[at + 1])
        if length < 2 or at + length > stop:
            break
        if option == kind:
            return at
        at += length
    return 0


@kernel
def find_timestamps(packets, start, stop):
    """Returns the byte offset of TSval in the options between two offsets, 0 without timestamps; TSecr is 4 further."""
    if stop - start >= TIMESTAMPS_LENGTH and int64(record_at(packets.word32, start).value) == ALIGNED_TIMESTAMPS:
        return start + 4
    at = find_option(packets, start, stop, TCP_OPTION_TIMESTAMPS)
    return at + 2 if at != 0 and packets.octets[at + 1] == 10 else 0


@kernel
def stamp_clock(connections, hot, now):
    """Returns our TSval toward the client at `now`: milliseconds from a start that only the key knows (RFC 7323, 5.4)."""
    ports = (int64(hot.remote_port[CLIENT]) << 16) | int64(hot.local_port[CLIENT])
    secret = connections.secret
    start = half_siphash(secret[1], secret[0], int64(hot.remote_address[CLIENT]), int64(hot.local_address[CLIENT]), ports)
    return wrap(start + now // 1000)


@kernel
def offered(batch, row):
    """Returns what a SYN or SYN-ACK offers: PROMISED_* bits. ECN is ECE and CWR in a SYN, ECE alone in a SYN-ACK (RFC 3168)."""
    ecn = ECE if batch.control[row] & ACK else ECE | CWR
    return ((PROMISED_ECN if batch.control[row] & (ECE | CWR) == ecn else 0) | (PROMISED_SACK if batch.sack_permitted[row] else 0)
            | (PROMISED_TIMESTAMPS if batch.stamps[row] else 0) | (PROMISED_SCALING if batch.scale[row] >= 0 else 0))


@kernel
def replace(packets, transport, at, new):
    """Writes a 32-bit word of the header (host order) at any offset; returns what that adds to the checksum's sum."""
    word = record_at(packets.word32, at)
    old, new = int64(word.value), swap32(new)
    word.value = new
    change = fold(difference(old, new))
    return swap16(change) if (at - transport) & 1 else change


@kernel
def shift_timestamps(packets, batch, row, hot, side):
    """Shifts the target's TSval, or the client's TSecr, by the connection's constant (SPLICE 2.4)."""
    at, by = batch.stamps[row], int64(hot.timestamp_shift)
    if at == 0:
        return 0
    if side == CLIENT:
        at, by = at + 4, -by
    value = swap32(int64(record_at(packets.word32, at).value))
    return replace(packets, batch.transport[row], at, wrap(value + by))


@kernel
def shift_stamp(packets, batch, row, by, side):
    """Shifts the client's TSval, or the target's TSecr, by the connection's constant (SPLICE 3.2)."""
    at = batch.stamps[row]
    if at == 0:
        return 0
    if side == TARGET:
        at, by = at + 4, -by
    value = swap32(int64(record_at(packets.word32, at).value))
    return replace(packets, batch.transport[row], at, wrap(value + by))


@kernel
def keep_stamp(packets, batch, row, connections, cold):
    """Keeps the client's latest TSval, to be echoed in what is inserted toward it (RFC 7323, section 4.3; SPLICE 2.5)."""
    if batch.stamps[row] != 0:
        value = swap32(int64(record_at(packets.word32, batch.stamps[row]).value))
        if distance(value, client_stamp(connections, cold)) > 0:
            keep_client_stamp(connections, cold, value)


@kernel
def clamp_mss(packets, batch, row, most):
    """Lowers the MSS of a SYN that goes from end to end to what every port of ours can carry."""
    transport = batch.transport[row]
    at = find_option(packets, transport + TCP_LENGTH, batch.payload[row], TCP_OPTION_MSS)
    if batch.mss[row] <= most or at == 0:
        return 0
    total = 0
    for octet, value in ((at + 2, most >> 8), (at + 3, most & 0xFF)):
        total += replace_octet(packets, transport, octet, value)
    return total


@kernel
def shift_sack(packets, batch, row, hot, side):
    """Shifts the edges of selective acknowledgements: they are numbers of the other side's data (RFC 2018, section 3)."""
    by = int64(hot.shift[1 - side])
    transport, stop = batch.transport[row], batch.payload[row]
    plain = TCP_LENGTH + (TIMESTAMPS_LENGTH if batch.stamps[row] != 0 else 0)
    if by == 0 or stop - transport <= plain:
        return 0
    at = find_option(packets, transport + TCP_LENGTH, stop, TCP_OPTION_SACK)
    if at == 0:
        return 0
    total = 0
    for edge in range(at + 2, at + int64(packets.octets[at + 1]) - 3, 4):
        value = swap32(int64(record_at(packets.word32, edge).value))
        total += replace(packets, transport, edge, wrap(value - by))
    return total


@kernel
def scale_window(packets, batch, row, hot, cold, side, declined):
    """Shows a window in the scale that the other end was promised, rounded down, at most 65,535 (SPLICE 2.3)."""
    theirs = int64(hot.scales) >> 4
    window = batch.window[row]
    if side == TARGET:
        shown = min((window << theirs) >> offered_scale(cold), 0xFFFF) if hot.options & SCALED else window
    elif hot.scales & 0x0F and declined & PROMISED_SCALING:
        shown = min(window << (int64(hot.scales) & 0x0F), 0xFFFF)
    else:
        return 0
    tcp = record_at(packets.tcp, batch.transport[row])
    old, new = int64(tcp.window), swap16(shown)
    tcp.window = new
    return difference(old, new) if old != new else 0


@kernel
def offered_scale(cold):
    """Returns the scale of windows toward the client, 0 where it was promised none."""
    agreed = int64(cold.agreed)
    return agreed >> OFFERED_SCALE if agreed & PROMISED_SCALING else 0


@kernel
def proxy_window(cold, room):
    """Returns the window that says how many bytes we can hold ourselves, behind the SYN-ACK: never zero (SPLICE 1.3)."""
    return min(max(room >> offered_scale(cold), 1), 0xFFFF)


@kernel
def replace_octet(packets, transport, at, new):
    """Writes one octet of the header; returns what that adds to the checksum's sum."""
    change = new - int64(packets.octets[at])
    packets.octets[at] = new
    return fold(0xFFFFFFFF + (change if (at - transport) & 1 == 0 else change * 256))


@kernel
def blank(packets, batch, row, kind):
    """Overwrites an option of a kind with NOPs; returns what that adds to the checksum's sum."""
    transport, stop = batch.transport[row], batch.payload[row]
    at = find_option(packets, transport + TCP_LENGTH, stop, kind)
    total = 0
    if at != 0:
        for octet in range(at, at + int64(packets.octets[at + 1])):
            total += replace_octet(packets, transport, octet, TCP_OPTION_NOP)
    return total


@kernel
def translate_options(packets, batch, row, hot, cold, side, declined):
    """Translates window and options of a packet toward the other side; returns what that adds to the checksum's sum.

    `declined`: PROMISED_* that the target does without, 0 as a rule.
    """
    total = 0
    if hot.options & (SCALED | HOLDS | OWNS):
        total += scale_window(packets, batch, row, hot, cold, side, declined)
    if hot.options & STAMPED:
        total += shift_timestamps(packets, batch, row, hot, side)
    total += shift_sack(packets, batch, row, hot, side)
    if side == CLIENT and declined:
        if declined & PROMISED_SACK:
            total += blank(packets, batch, row, TCP_OPTION_SACK)
        if declined & PROMISED_TIMESTAMPS:
            total += blank(packets, batch, row, TCP_OPTION_TIMESTAMPS)
    return total
