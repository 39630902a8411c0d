from numpy import int64

from pipeline.kernels.batch import FORWARD
from pipeline.kernels.checksum import fold
from pipeline.kernels.rewrite import rewrite as ours

MARK = -1


def rewrite(packets, base, batch, count, connections, network, now):
    """Ours, and where MARK is no longer -1 what passes gets it as its DS field (RFC 2474): 184 is expedited forwarding.

    Header bytes are packets.octets from batch.frame, .network, .transport and .payload on. Who changes one keeps the checksum
    right: here that of the IPv4 header, by RFC 1624, equation 3. TCP's does not cover the DS field.
    """
    ours(packets, base, batch, count, connections, network, now)
    for row in range(count):
        at = batch.network[row]
        if MARK >= 0 and batch.verdict[row] == FORWARD and packets.octets[at + 1] != MARK:
            before = int64(packets.octets[at + 10]) << 8 | int64(packets.octets[at + 11])  # bytes are uint8: int64 before arithmetic
            after = 0xFFFF - fold((0xFFFF - before) + (0xFFFF - int64(packets.octets[at + 1])) + MARK)
            packets.octets[at + 1] = MARK
            packets.octets[at + 10], packets.octets[at + 11] = after >> 8, after & 0xFF
