"""Copying payload out of packet memory, and into it."""
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


@kernel
def replace_payload(packets, base, mbuf, start, skip, length, octets, at):
    """Writes octets[at:at + length] over payload, which begins and goes on as for `copy_payload`; returns how many bytes of it
    were others."""
    done, offset, others = 0, start + skip, 0
    stop = data_start(packets, base, mbuf) + int64(record_at(packets.mbuf, mbuf).data_length)
    while done < length:
        if offset >= stop:
            if record_at(packets.mbuf, mbuf).next == 0:
                return others
            beyond = offset - stop
            mbuf = int64(record_at(packets.mbuf, mbuf).next) - base
            offset = data_start(packets, base, mbuf) + beyond
            stop = offset - beyond + int64(record_at(packets.mbuf, mbuf).data_length)
            continue
        part = min(length - done, stop - offset)
        for number in range(part):
            others += int64(packets.octets[offset + number] != octets[at + done + number])
            packets.octets[offset + number] = octets[at + done + number]
        done += part
        offset += part
    return others
