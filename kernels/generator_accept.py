"""A SYN to an address that the generator plays a server for makes a server's end; its SYN-ACK goes out in the same mbuf."""
from numpy import int64

from .connection import NO_NEIGHBOUR
from .counters import (
    DROP_CONNECTIONS_EXHAUSTED,
    DROP_DRAINING,
    DROP_FLOW_TABLE_FULL,
    DROP_NEIGHBOURS_EXHAUSTED,
    DROP_NO_ROUTE,
)
from .flow_table import insert
from .generator_ends import (
    OPEN,
    SCALED,
    SERVER,
    STAMPED,
    SYN_RECEIVED,
    enter,
    give_back,
    order,
    take_free,
)
from .headers import ACK, FIN, RST, SYN
from .jit import kernel
from .native import record_at, swap32
from .open import LEAST_MSS, client_neighbour
from .sequence import wrap
from .wheel import TICK_MICROSECONDS

NO_LISTENER, NOT_ACCEPTED = -1, -2
TIMESTAMPS_TAKE = 12


@kernel
def find_listener(ends, address, port):
    """Returns the row of `listening` with this address and port, -1 where nobody listens."""
    for row in range(ends.listening.shape[0]):
        if ends.listening[row, 0] == address and ends.listening[row, 1] == port:
            return row
    return NO_LISTENER


@kernel
def learn_options(packets, batch, row, end, settings):
    """Takes what a SYN says of its sender: window, MSS, and the options that both sides offer."""
    flags = int64(end.marks)
    window = batch.window[row]
    mss = min(batch.mss[row] if batch.mss[row] != 0 else LEAST_MSS, settings.mss)
    if batch.scale[row] >= 0 and settings.scale >= 0:
        flags |= SCALED
        end.scale = batch.scale[row]
        window >>= batch.scale[row]  # in a SYN alone it is not scaled
    if batch.stamps[row] != 0 and settings.stamps != 0:
        flags |= STAMPED
        mss -= TIMESTAMPS_TAKE
        end.stamp = swap32(int64(record_at(packets.word32, batch.stamps[row]).value))
    end.marks, end.mss, end.window = flags, mss, window
    end.their_initial, end.received = batch.seq[row], wrap(batch.seq[row] + 1)


@kernel
def fill_server(packets, batch, row, ends, number, target, neighbour, now):
    """Writes the record of a new server's end from the SYN that it is for."""
    end, settings = record_at(ends.hot, number), record_at(ends.settings, 0)
    end.remote_address[0], end.local_address[0] = batch.source[row], batch.destination[row]
    end.remote_port[0], end.local_port[0] = batch.source_port[row], batch.destination_port[row]
    initial = wrap(batch.hash[row] + (now >> 2))
    end.initial, end.acknowledged, end.next = initial, initial, wrap(initial + 1)
    end.marks, end.tries, end.scale, end.serial = 0, 0, 0, 0
    learn_options(packets, batch, row, end, settings)
    end.began, end.asked = now & 0xFFFFFFFF, now & 0xFFFFFFFF
    end.neighbour, end.target = neighbour, target
    end.due = now // TICK_MICROSECONDS + settings.retransmit


@kernel
def reason_to_refuse(ends, neighbour, draining):
    """Returns the drop reason for which a SYN is passed over, or -1.

    Our own clients' connections may still need servers while they drain.
    """
    if draining != 0 and record_at(ends.settings, 0).clients == 0:
        return DROP_DRAINING
    if neighbour == NO_NEIGHBOUR:
        return DROP_NO_ROUTE
    return DROP_NEIGHBOURS_EXHAUSTED if neighbour < 0 else -1


@kernel
def accept(packets, batch, row, ends, network, draining, now):
    """Returns the number of the new server's end, whose timer is to be set.

    NO_LISTENER where a row is no SYN to one, NOT_ACCEPTED where it is passed over, counted.
    """
    if batch.control[row] & (SYN | ACK | RST | FIN) != SYN:
        return NO_LISTENER
    listener = find_listener(ends, batch.destination[row], batch.destination_port[row])
    if listener < 0:
        return NO_LISTENER
    neighbour = client_neighbour(packets, batch, row, network, now // TICK_MICROSECONDS)
    reason = reason_to_refuse(ends, neighbour, draining)
    number = take_free(ends, SERVER) if reason < 0 else -1
    if number < 0:
        ends.counters.drops[DROP_CONNECTIONS_EXHAUSTED if reason < 0 else reason] += 1
        return NOT_ACCEPTED
    fill_server(packets, batch, row, ends, number, ends.listening[listener, 2], neighbour, now)
    enter(ends, number, SYN_RECEIVED)
    if not insert(ends.buckets, batch.hash[row], 2 * number):
        ends.counters.drops[DROP_FLOW_TABLE_FULL] += 1
        ends.counts[SERVER, OPEN] -= 1
        give_back(ends, number, SERVER)
        return NOT_ACCEPTED
    order(ends, number, SYN | ACK, int64(record_at(ends.hot, number).initial), 0, batch.mbuf[row])
    return number
