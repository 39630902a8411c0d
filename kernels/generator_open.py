"""Opens the generator's client connections: as many a second, at once and in all as configured, targets in turn."""
from numpy import int64

from .counters import DROP_SOURCE_PORTS_EXHAUSTED
from .generator_ends import (
    CLIENT,
    CREDIT,
    END,
    FIRST,
    OPEN,
    SERIAL,
    SINCE,
    SYN_SENT,
    enter,
    order,
    take_free,
)
from .headers import SYN
from .jit import kernel
from .native import address_of, prefetch, record_at
from .neighbours import REACHABLE
from .sequence import distance, wrap
from .wheel import TICK_MICROSECONDS, ask_for_timer, schedule

OPENED_A_PASS = 32
"""Connections opened in one pass of the loop at most: SYNs go out as a burst, not as a flood."""
SECOND = 1_000_000
END_BYTES = END.itemsize
APART = 0x9E3779B1
"""What the initial numbers of one client's end and the next differ by."""


@kernel
def may_open(ends, settings, now):
    """Returns how many connections are to be opened now."""
    pace = ends.pace
    wanted = min(OPENED_A_PASS, settings.most_open - ends.counts[CLIENT, OPEN])
    if settings.test_size > 0:
        wanted = min(wanted, settings.test_size - pace[SERIAL])
    if settings.a_second > 0:
        passed = min(now - pace[SINCE], SECOND)
        # What cannot be opened in time, for too many are open, is not made up for later.
        pace[CREDIT] = min(pace[CREDIT] + passed * settings.a_second, OPENED_A_PASS * SECOND)
        wanted = min(wanted, pace[CREDIT] // SECOND)
    pace[SINCE] = now
    return max(wanted, 0)


@kernel
def initial_of(end, number, now):
    """Returns the initial number of a client's end: by the clock of RFC 9293, section 3.4.1, and above what the end has used.

    A short, fast connection outruns that clock.
    """
    initial, last = wrap(number * APART + (now >> 2)), int64(end.next)
    return initial if last == 0 or distance(initial, last) > 0 else wrap(last + 1)


@kernel
def fill_client(ends, number, settings, now):
    """Writes the record of a new client's end."""
    end, serial = record_at(ends.hot, number), ends.pace[SERIAL]
    end.remote_address[0], end.local_address[0] = settings.address, ends.sources[number // settings.ports]
    end.remote_port[0], end.local_port[0] = settings.port, settings.first_port + number % settings.ports
    initial = initial_of(end, number, now)
    end.initial, end.acknowledged, end.next = initial, initial, wrap(initial + 1)
    end.received, end.began, end.asked = 0, now & 0xFFFFFFFF, now & 0xFFFFFFFF
    end.marks, end.tries, end.scale = 0, 0, 0
    end.serial = serial & 0xFFFFFFFF
    end.target = ends.client_targets[serial % ends.client_targets.shape[0]]
    end.neighbour = settings.neighbour
    end.due = now // TICK_MICROSECONDS + settings.retransmit


@kernel
def ask_for_clients(ends, wheel, count):
    """Asks for the records and timers of the next clients, which nobody has touched for long."""
    first_end, size = address_of(ends.hot), ends.free.shape[1]
    for place in range(count):
        number = ends.free[CLIENT, (ends.taken[CLIENT] + place) & (size - 1)]
        prefetch(first_end + number * END_BYTES)
        ask_for_timer(wheel, number)


@kernel
def open_clients(ends, network, wheel, now):
    """Opens as many connections as it is time for, once the next hop toward the service is known."""
    settings = record_at(ends.settings, 0)
    if settings.clients == 0 or record_at(network.neighbours, settings.neighbour).state < REACHABLE:
        return
    wanted = may_open(ends, settings, now)
    ask_for_clients(ends, wheel, wanted)
    for _ in range(wanted):
        number = take_free(ends, CLIENT)
        if number < 0:
            ends.counters.drops[DROP_SOURCE_PORTS_EXHAUSTED] += 1
            break
        if ends.pace[SERIAL] == 0:
            ends.pace[FIRST] = now
        fill_client(ends, number, settings, now)
        enter(ends, number, SYN_SENT)
        schedule(wheel, number, int64(record_at(ends.hot, number).due))
        order(ends, number, SYN, int64(record_at(ends.hot, number).initial), 0, -1)
        ends.pace[SERIAL] += 1
        ends.pace[CREDIT] -= SECOND
