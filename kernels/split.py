"""Split: cuts segments that are larger than their receiver takes into several (SPLICE 2.6, 5.2), as segmentation offload does.

A target may take less than the client was told before it was known, and a payload kernel may have made payload grow.
`rewrite` notes the parts of such a row when all its headers are translated; `cut` writes them into fresh mbufs, and they
leave in the row's place. The original has been verified in full, so each part gets a checksum of its own.
"""
from numpy import int64

from .batch import ABSORB, DROP
from .checksum import data_start, difference, fold, pseudo_header, sum_octets, update
from .connection import RESHAPED, STAMPED, TARGET
from .copying import copy_payload
from .counters import DROP_SEGMENTS_FULL, NOTICE_SPLIT
from .headers import CWR, FIN, PSH, RST, TCP_LENGTH, URG
from .jit import kernel
from .native import record_at, swap16, swap32
from .outbox import set_length
from .sequence import wrap
from .tcp_options import TIMESTAMPS_LENGTH

LEAST_PART = 64


@kernel
def most_payload(batch, row, connections, flow, mss):
    """Returns how many bytes a row may carry to a side: what that takes (RFC 6691), and what fits our own ports (`mss`)."""
    hot, cold, other = record_at(connections.hot, flow >> 1), record_at(connections.cold, flow >> 1), 1 - (flow & 1)
    options = batch.payload[row] - batch.transport[row] - TCP_LENGTH
    left_out = TIMESTAMPS_LENGTH if other == TARGET and hot.options & STAMPED else 0
    takes = int64(record_at(connections.openings, int64(cold.opening)).mss[other])
    return max(min(takes + left_out, mss) - options, LEAST_PART)


@kernel
def is_split(batch, row, connections, flow, mss):
    """Says whether a row of a SPECIAL connection is to be split."""
    return (record_at(connections.cold, flow >> 1).special & RESHAPED != 0 and batch.control[row] & RST == 0
            and batch.payload_length[row] > most_payload(batch, row, connections, flow, mss))


@kernel
def plan(batch, row, connections, flow, mss):
    """Notes the parts of a row that is to be split, which is done with thereby; a row with too many parts is dropped."""
    parts, counters = connections.parts, connections.counters
    most, length = most_payload(batch, row, connections, flow, mss), batch.payload_length[row]
    count, place = (length + most - 1) // most, parts.filled[0]
    if place + count > parts.row.shape[0]:
        batch.verdict[row] = DROP
        counters.drops[DROP_SEGMENTS_FULL] += 1
        return
    for number in range(count):
        parts.row[place + number] = row
        parts.number[place + number] = number
        parts.offset[place + number] = number * most
        parts.length[place + number] = min(most, length - number * most)
    parts.filled[0] = place + count
    batch.verdict[row] = ABSORB
    counters.notices[NOTICE_SPLIT] += 1


@kernel
def write_part_ipv4(packets, at, length, number):
    """Gives a copied IPv4 header the length and the identification of its part, with the checksum updated."""
    ip = record_at(packets.ipv4, at)
    total, identification = swap16(length), swap16((swap16(int64(ip.identification)) + number) & 0xFFFF)
    changes = difference(int64(ip.total_length), total) + difference(int64(ip.identification), identification)
    ip.total_length, ip.identification = total, identification
    ip.checksum = update(int64(ip.checksum), changes)


@kernel
def write_part_tcp(packets, network, at, header, offset, length, last):
    """Gives a copied TCP header the number, control bits and checksum of its part.

    PSH and FIN are the last one's, CWR is the first one's (RFC 3168, section 6.1.2), urgent data those's that hold some.
    """
    tcp = record_at(packets.tcp, at)
    control, urgent = int64(tcp.control), swap16(int64(tcp.urgent))
    if not last:
        control &= 0xFF ^ (PSH | FIN)
    if offset > 0:
        control &= 0xFF ^ CWR
    if control & URG and urgent <= offset and offset > 0:
        control &= 0xFF ^ URG
    tcp.urgent = swap16(urgent - offset) if control & URG else 0
    tcp.control = control
    tcp.seq = swap32(wrap(swap32(int64(tcp.seq)) + offset))
    tcp.checksum = 0
    tcp.checksum = 0xFFFF - fold(sum_octets(packets, at, header + length) + pseudo_header(packets, network, header + length))


@kernel
def write_part(packets, base, batch, parts, part, mbuf):
    """Writes one part of a row into a fresh mbuf: a copy of all its headers and its bytes of the payload."""
    row, length = parts.row[part], parts.length[part]
    origin, frame = batch.frame[row], data_start(packets, base, mbuf)
    header = batch.payload[row] - origin
    for at in range(header):
        packets.octets[frame + at] = packets.octets[origin + at]
    copy_payload(packets, base, batch.mbuf[row], batch.payload[row], parts.offset[part], length, packets.octets, frame + header)
    network, transport = frame + batch.network[row] - origin, frame + batch.transport[row] - origin
    write_part_ipv4(packets, network, frame + header + length - network, parts.number[part])
    last = parts.offset[part] + length == batch.payload_length[row]
    write_part_tcp(packets, network, transport, frame + header - transport, parts.offset[part], length, last)
    set_length(packets, mbuf, header + length)


@kernel
def cut(packets, base, batch, parts, fresh, got):
    """Writes all planned parts into the mbufs fresh[:got], as many as there are parts; without mbufs none is left."""
    for part in range(got):
        write_part(packets, base, batch, parts, part, fresh[part])
        parts.mbuf[part] = fresh[part]
    parts.filled[0] = got
