"""Verify: full checksums where a packet is about to change a connection's state (SPLICE 1.5).

Pure data and acknowledgements inside the splice are not verified: their checksum is updated incrementally, so that a
corrupt one stays corrupt and the end point finds it.
"""
from numpy import int64

from .batch import DROP, KIND_TCP, PENDING
from .checksum import fold, pseudo_header, sum_chain, sum_tcp
from .connection import COLD, ESTABLISHED, HOLDS, RESHAPED, RST_AT_END, SPECIAL
from .counters import DROP_TCP_CHECKSUM
from .headers import FIN, RST, SYN
from .jit import kernel
from .native import address_of, prefetch, record_at

OFFLOAD_BAD, OFFLOAD_GOOD = 1 << 3, 1 << 8
"""RTE_MBUF_F_RX_L4_CKSUM_BAD and _GOOD; both or neither mean that the NIC does not know."""
COLD_BYTES = COLD.itemsize


@kernel
def tcp_checksum_is_right(packets, base, batch, row):
    """Says whether a TCP segment's checksum is right: the NIC's word where it has one, else our own sum."""
    mbuf = record_at(packets.mbuf, batch.mbuf[row])
    word = int64(mbuf.offload) & (OFFLOAD_BAD | OFFLOAD_GOOD)
    if word == OFFLOAD_GOOD or word == OFFLOAD_BAD:
        return word == OFFLOAD_GOOD
    transport = batch.transport[row]
    length = batch.payload[row] - transport + batch.payload_length[row]
    if mbuf.segments == 1:
        total = sum_tcp(packets, transport, length)
    else:
        total = sum_chain(packets, base, batch.mbuf[row], transport, length)
    return fold(total + pseudo_header(packets, batch.network[row], length)) == 0xFFFF


@kernel
def verify(packets, base, batch, count, connections):
    """Drops segments with a wrong checksum where more hangs on them than their payload.

    Those that carry SYN, FIN or RST; that come before a target is bound; that can acknowledge held bytes, a FIN or a RST; whose
    payload will be cut or changed, so that it gets a checksum of ours. Of all others the cold record is needed shortly.
    """
    first = address_of(connections.cold)
    for row in range(count):
        if batch.kind[row] != KIND_TCP or batch.verdict[row] != PENDING:
            continue
        flow = batch.flow[row]
        hot = record_at(connections.hot, max(flow >> 1, 0))
        plain = flow >= 0 and hot.state == ESTABLISHED and hot.options & HOLDS == 0 and hot.closing & RST_AT_END == 0
        if plain and hot.options & SPECIAL:
            plain = record_at(connections.cold, flow >> 1).special & RESHAPED == 0
        if plain and batch.control[row] & (SYN | FIN | RST) == 0:
            continue
        prefetch(first + max(flow >> 1, 0) * COLD_BYTES)
        if not tcp_checksum_is_right(packets, base, batch, row):
            batch.verdict[row] = DROP
            connections.counters.drops[DROP_TCP_CHECKSUM] += 1
