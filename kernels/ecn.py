"""Explicit congestion notification that a target declines although its client was promised it (RFC 3168; SPLICE 2.2)."""
from numpy import int64

from .checksum import difference, update
from .connection import CLIENT
from .headers import CWR, ECE
from .jit import kernel
from .native import record_at

CODEPOINT = 3
"""The two bits of the type of service that say ECT or CE."""


@kernel
def clear_ecn(packets, batch, row, side):
    """Clears ECE and CWR of a row from `side`, and toward the target ECT and CE; returns what that adds to TCP's sum."""
    if side == CLIENT:
        ip = record_at(packets.ipv4, batch.network[row])
        service = int64(ip.service)
        if service & CODEPOINT:
            ip.service = service & (0xFF ^ CODEPOINT)
            ip.checksum = update(int64(ip.checksum), difference(service << 8, (service & (0xFF ^ CODEPOINT)) << 8))
    tcp = record_at(packets.tcp, batch.transport[row])
    control = int64(tcp.control)
    cleared = control & (0xFF ^ (ECE | CWR))
    if cleared == control:
        return 0
    tcp.control = cleared
    return difference(control << 8, cleared << 8)
