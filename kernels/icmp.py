"""ICMP: echo to our addresses is answered (RFC 792, RFC 1122 section 3.2.2.6); errors are left to `icmp_errors`."""
from numpy import int64

from .batch import ANSWER, DROP, KIND_ICMP, PENDING
from .checksum import difference, fold, sum_octets, update
from .counters import DROP_ICMP_INVALID, DROP_ICMP_OTHER, DROP_NOT_OURS, NOTICE_ECHO_REPLIES
from .headers import ICMP_PARAMETER_PROBLEM, ICMP_TIME_EXCEEDED, ICMP_UNREACHABLE
from .jit import kernel
from .native import record_at
from .neighbours import owns
from .refuse import swap_macs

ECHO_REPLY, ECHO_REQUEST = 0, 8


@kernel
def is_error(kind):
    """Says whether an ICMP type is an error that is of use: source quench is not (RFC 6633, section 3)."""
    return kind == ICMP_UNREACHABLE or kind == ICMP_TIME_EXCEEDED or kind == ICMP_PARAMETER_PROBLEM


@kernel
def echo_in_place(packets, batch, row):
    """Turns an echo request into its reply; swapping the addresses leaves the IPv4 checksum as it was."""
    swap_macs(packets, batch.frame[row])
    ip, icmp = record_at(packets.ipv4, batch.network[row]), record_at(packets.icmp, batch.transport[row])
    source, destination = int64(ip.source), int64(ip.destination)
    ip.source, ip.destination = destination, source
    before = int64(ip.ttl) | (int64(ip.protocol) << 8)
    ip.ttl = 64
    ip.checksum = update(int64(ip.checksum), difference(before, 64 | (int64(ip.protocol) << 8)))
    icmp.type, icmp.checksum = ECHO_REPLY, 0
    # In full, for an update cannot tell a sum of zeros (checksum 0xFFFF) from one of 0xFFFF (RFC 1624, section 3).
    icmp.checksum = 0xFFFF - fold(sum_octets(packets, batch.transport[row], batch.payload_length[row]))
    record_at(packets.mbuf, batch.mbuf[row]).offload = 0


@kernel
def answer_icmp(packets, batch, count, network, counters):
    """Deals with ICMP rows: echo requests to an address of ours become replies, errors stay, everything else is dropped."""
    for row in range(count):
        if batch.kind[row] != KIND_ICMP or batch.verdict[row] != PENDING:
            continue
        icmp = record_at(packets.icmp, batch.transport[row])
        reason = -1
        if fold(sum_octets(packets, batch.transport[row], batch.payload_length[row])) != 0xFFFF:
            reason = DROP_ICMP_INVALID
        elif not owns(network, batch.destination[row], -1):
            reason = DROP_NOT_OURS
        elif is_error(icmp.type):
            continue
        elif icmp.type != ECHO_REQUEST or icmp.code != 0:
            reason = DROP_ICMP_OTHER
        if reason >= 0:
            batch.verdict[row] = DROP
            counters.drops[reason] += 1
            continue
        echo_in_place(packets, batch, row)
        counters.notices[NOTICE_ECHO_REPLIES] += 1
        batch.verdict[row] = ANSWER
