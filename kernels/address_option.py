"""TOA: a TCP option that tells a target the client's address and port (kind 254, RFC 4727; as LVS and its kernel modules read it).

It goes on what begins with the first number after our SYN: the acknowledgement of the handshake, or the first held bytes, which
are cut so that there is room for it (SPLICE 6.2).
"""
from numpy import int64

from .connection import OPENS
from .headers import RST, SYN
from .jit import kernel
from .native import record_at, swap32
from .proxy_protocol import find_ends
from .sequence import wrap

ADDRESS_OPTION, ADDRESS_OPTION_LENGTH = 254, 8


@kernel
def address_room(connections, connection, at):
    """Returns how many bytes the option takes from the segment that begins with the held byte `at`."""
    service = int64(record_at(connections.cold, connection).service)
    return ADDRESS_OPTION_LENGTH if at == 0 and connections.proxied.tells[service] != 0 else 0


@kernel
def tells_address(connections, cold, row):
    """Says whether an ordered segment toward a target is one that the option goes on."""
    segments = connections.segments
    if connections.proxied.tells[int64(cold.service)] == 0 or cold.special & OPENS == 0 or segments.control[row] & (SYN | RST):
        return False
    return segments.seq[row] == wrap(int64(record_at(connections.openings, int64(cold.opening)).syn_isn) + 1)


@kernel
def write_address(packets, connections, connection, at):
    """Writes the option at byte offset `at`; returns its length."""
    ends = connections.proxied.ends
    find_ends(connections, connection, ends)
    record_at(packets.word32, at).value = swap32(ADDRESS_OPTION << 24 | ADDRESS_OPTION_LENGTH << 16 | ends[1])
    record_at(packets.word32, at + 4).value = swap32(ends[0])
    return ADDRESS_OPTION_LENGTH
