"""Many frames at once, one a row of a matrix of octets: for generators and measurements, not for the data path.

Rows are zero behind their frame, and every function works on all rows in a few numpy operations: a million frames are
made, written into mbufs and read back in seconds.
"""
import numpy as np

from pipeline.kernels.headers import BUFFER, ETHERNET_LENGTH, HEADROOM, IPV4_LENGTH, MBUF, TCP_LENGTH

from .frames import frame_bytes

NETWORK = ETHERNET_LENGTH
TRANSPORT = ETHERNET_LENGTH + IPV4_LENGTH
HEADERS = TRANSPORT + TCP_LENGTH
"""Where the IPv4 header, the TCP header and its payload begin in a frame without tag and options."""


def store(rows, at, size, values):
    """Writes `values` (ints, one a row or one for all) as `size` octets in network order at column `at`."""
    values = np.broadcast_to(np.asarray(values, np.int64), len(rows))
    for place in range(size):
        rows[:, at + place] = (values >> (8 * (size - 1 - place))) & 0xFF


def load(rows, at, size):
    """Returns the `size` octets at column `at` of each row as a number (int64[n]); `at` may differ by row."""
    at = np.broadcast_to(at, len(rows))
    values = np.zeros(len(rows), np.int64)
    for place in range(size):
        values = values << 8 | rows[np.arange(len(rows)), at + place]
    return values


def ones_sum(octets):
    """Returns the one's complement sum (int64[n], 0 .. 0xFFFF) of each row of 16-bit words (RFC 1071)."""
    words = octets[:, :octets.shape[1] & ~1]
    total = (words[:, 0::2].sum(1, dtype=np.int64) << 8) + words[:, 1::2].sum(1, dtype=np.int64)
    if octets.shape[1] & 1:
        total += octets[:, -1].astype(np.int64) << 8
    for _ in range(3):
        total = (total & 0xFFFF) + (total >> 16)
    return total


def folded(total):
    """Returns a one's complement sum of at most 2**48 folded to 16 bits."""
    for _ in range(3):
        total = (total & 0xFFFF) + (total >> 16)
    return total


def span_sum(rows, start, end):
    """Returns the one's complement sum of the octets from column `start` to below `end`; both may differ by row."""
    start, end = np.broadcast_to(start, len(rows)), np.broadcast_to(end, len(rows))
    widest = max(int((end - start).max(initial=0)), 0)
    columns = start[:, None] + np.arange(widest)
    inside = columns < np.minimum(end, rows.shape[1])[:, None]
    picked = rows[np.arange(len(rows))[:, None], np.minimum(columns, rows.shape[1] - 1)]
    return ones_sum(np.where(inside, picked, 0))


def seal_ipv4(rows, header=IPV4_LENGTH, at=NETWORK):
    """Sets the IPv4 checksum of each row; `header` is the length of the header in octets, `at` where it begins."""
    store(rows, at + 10, 2, 0)
    store(rows, at + 10, 2, 0xFFFF - ones_sum(rows[:, at:at + header]))


def pseudo_sum(rows, length, at=NETWORK):
    """Returns the sum of TCP's pseudo header for segments of `length` octets (RFC 9293, section 3.1)."""
    return folded(ones_sum(rows[:, at + 12:at + 20]) + 6 + length)


def seal_tcp(rows, length, at=TRANSPORT, network=NETWORK):
    """Sets the TCP checksum of each row; `length` (int64[n]) is that of header and payload, nothing may lie behind."""
    store(rows, at + 16, 2, 0)
    total = folded(ones_sum(rows[:, at:]) + pseudo_sum(rows, np.asarray(length), network))
    store(rows, at + 16, 2, 0xFFFF - total)


def ethernet_ipv4(count, width, macs, protocol, addresses, length):
    """Returns rows (uint8[count, width]) with Ethernet and IPv4 headers, the latter's checksum not yet set.

    `macs` and `addresses` are pairs of destination and source, source and destination; `length` is the IPv4 packet's.
    """
    rows = np.zeros((count, width), np.uint8)
    store(rows, 0, 6, macs[0])
    store(rows, 6, 6, macs[1])
    store(rows, 12, 2, 0x0800)
    rows[:, NETWORK] = 0x45
    store(rows, NETWORK + 2, 2, length)
    store(rows, NETWORK + 6, 2, 0x4000)
    rows[:, NETWORK + 8] = 64
    rows[:, NETWORK + 9] = protocol
    store(rows, NETWORK + 12, 4, addresses[0])
    store(rows, NETWORK + 16, 4, addresses[1])
    return rows


def tcp_rows(macs, addresses, ports, numbers, control, payload=None, payload_length=None, options=b"", window=65535):
    """Returns TCP frames (uint8[n, width]) and their lengths (int64[n]), checksums right.

    `macs`: destination and source; `addresses` and `ports`: source and destination; `numbers`: seq and ack. Each is
    an int or an array of one a row, as are `control` and `window`. `payload` is uint8[n, m] with `payload_length`
    octets used in each row (default: all m); `options` are the same for all, a multiple of four octets.
    """
    given = [*macs, *addresses, *ports, *numbers, control]
    given_payload = (1,) if payload is None else payload.shape[:1]
    count = np.broadcast_shapes(*(np.shape(value) for value in given), given_payload)[0]
    most = 0 if payload is None else payload.shape[1]
    used = np.broadcast_to(np.asarray(most if payload_length is None else payload_length, np.int64), count)
    header = TCP_LENGTH + len(options)
    rows = ethernet_ipv4(count, max(TRANSPORT + header + most, 60), macs, 6, addresses, IPV4_LENGTH + header + used)
    store(rows, TRANSPORT, 2, ports[0])
    store(rows, TRANSPORT + 2, 2, ports[1])
    store(rows, TRANSPORT + 4, 4, numbers[0])
    store(rows, TRANSPORT + 8, 4, numbers[1])
    rows[:, TRANSPORT + 12] = header << 2
    rows[:, TRANSPORT + 13] = control
    store(rows, TRANSPORT + 14, 2, window)
    rows[:, HEADERS:HEADERS + len(options)] = np.frombuffer(options, np.uint8)
    if most:
        start = TRANSPORT + header
        rows[:, start:start + most] = np.where(np.arange(most) < used[:, None], payload, 0)
    seal_ipv4(rows)
    seal_tcp(rows, header + used)
    return rows, TRANSPORT + header + used


def octets_at(arena, width):
    """Returns a view of the arena that has at each offset the `width` octets from there on (uint8[offsets, width])."""
    return np.lib.stride_tricks.sliding_window_view(arena.octets, width, writeable=True)


def write_rows(pool, rows, lengths):
    """Writes frames of at most BUFFER octets into fresh mbufs of `pool`, one each; returns their offsets (int64[n])."""
    mbufs = pool.allocate(len(rows))
    fill_mbufs(pool.arena, mbufs, rows, lengths)
    return mbufs


def fill_mbufs(arena, mbufs, rows, lengths):
    """Writes one row into each of the fresh `mbufs` (offsets) and sets their lengths."""
    if rows.shape[1] > BUFFER:
        raise ValueError(f"rows of {rows.shape[1]} octets: an mbuf holds {BUFFER}")
    octets_at(arena, rows.shape[1])[mbufs + MBUF.itemsize + HEADROOM] = rows
    arena.native.mbuf["data_length"][mbufs] = lengths
    arena.native.mbuf["packet_length"][mbufs] = lengths


def read_rows(arena, mbufs, width):
    """Returns the first `width` octets of each frame (uint8[n, width], zero behind it) and its length (int64[n]).

    Frames in several segments are joined, one by one.
    """
    records = arena.native.mbuf
    starts = (records["buffer_address"][mbufs] - np.uint64(arena.base)).astype(np.int64) + records["data_off"][mbufs]
    rows = octets_at(arena, width)[starts]
    rows[np.arange(width) >= records["data_length"][mbufs].astype(np.int64)[:, None]] = 0
    for row in np.flatnonzero(records["segments"][mbufs] > 1):
        whole = np.frombuffer(frame_bytes(arena, int(mbufs[row])), np.uint8)[:width]
        rows[row, :len(whole)] = whole
    return rows, records["packet_length"][mbufs].astype(np.int64)


def take_rows(port, width):
    """Takes what workers have sent by a memory port and frees it; returns rows and lengths as `read_rows` does."""
    pool, mbufs = port.pool, port.taken_mbufs()
    rows, lengths = read_rows(pool.arena, mbufs, width)
    pool.release(mbufs)
    return rows, lengths
