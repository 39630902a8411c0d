"""Copying payload out of packet memory."""
from numpy import int64

from .checksum import data_start
from .jit import kernel
from .native import copy_octets, record_at


@kernel
def copy_payload(packets, base, mbuf, start, skip, length, destination, at):
    """Copies `length` bytes that begin `skip` bytes behind arena offset `start`, through chained mbufs, to `destination`."""
    done, offset = 0, start + skip
    stop = data_start(packets, base, mbuf) + int64(record_at(packets.mbuf, mbuf).data_length)
    while done < length:
        if offset >= stop:
            if record_at(packets.mbuf, mbuf).next == 0:
                return
            beyond = offset - stop
            mbuf = int64(record_at(packets.mbuf, mbuf).next) - base
            offset = data_start(packets, base, mbuf) + beyond
            stop = offset - beyond + int64(record_at(packets.mbuf, mbuf).data_length)
            continue
        part = min(length - done, stop - offset)
        copy_octets(destination, at + done, packets.octets, offset, part)
        done += part
        offset += part
