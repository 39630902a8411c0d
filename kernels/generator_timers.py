"""The generator's timers: what is not acknowledged is sent again, what takes too long is given up, TIME_WAIT ends.

One timer an end, set when it opens and when it comes into TIME_WAIT. In between it is lazy: it runs out, looks at `due`,
and is set anew.
"""
from numpy import int64

from .connection import FREE, TIME_WAIT
from .generator_ends import (
    CONNECT_TIMEOUT,
    END,
    STOPPED,
    SYN_RECEIVED,
    SYN_SENT,
    TIMEOUT,
    fail,
    order,
    release,
    role_of,
)
from .generator_send import go_on, send_again
from .headers import ACK, RST
from .jit import kernel
from .native import address_of, prefetch, record_at
from .wheel import TICK_MICROSECONDS, schedule

END_BYTES = END.itemsize


@kernel
def give_up(ends, number, role, kind, now):
    """Ends a connection that has failed; its peer gets a RST."""
    end = record_at(ends.hot, number)
    if end.state != SYN_SENT:
        order(ends, number, RST | ACK, int64(end.next), 0, -1)
    fail(ends, number, role, kind, now)
    release(ends, number, role)


@kernel
def is_too_late(end, settings, now):
    """Says whether a connection has taken too long, or has sent the same in vain too often."""
    handshake = end.state == SYN_SENT or end.state == SYN_RECEIVED
    longest = settings.connecting if handshake else settings.longest
    ticks = ((now - int64(end.began)) & 0xFFFFFFFF) // TICK_MICROSECONDS
    return ticks >= longest or int64(end.tries) > settings.tries


@kernel
def run_out(ends, number, wheel, tick, now):
    """The timer of an end has run out."""
    end, settings, role = record_at(ends.hot, number), record_at(ends.settings, 0), role_of(ends, number)
    if end.state == FREE:
        return
    if end.state == TIME_WAIT and tick >= int64(end.due):
        release(ends, number, role)
        return
    if end.state != TIME_WAIT:
        waits = end.acknowledged != end.next
        if waits and tick >= int64(end.due):
            end.tries = int64(end.tries) + 1
        if is_too_late(end, settings, now):
            handshake = end.state == SYN_SENT or end.state == SYN_RECEIVED
            give_up(ends, number, role, CONNECT_TIMEOUT if handshake else TIMEOUT, now)
            return
        if tick >= int64(end.due):
            end.due = tick + (settings.retransmit << min(int64(end.tries), 8))
            if go_on(ends, number, -1, now) == 0:
                send_again(ends, number)
    schedule(wheel, number, int64(end.due))


@kernel
def expire(ends, expired, count, wheel, now):
    """Deals with the ends expired[:count] whose timers have run out; nobody has touched them for long."""
    first = address_of(ends.hot)
    for place in range(count):
        prefetch(first + expired[place] * END_BYTES)
    for place in range(count):
        run_out(ends, expired[place], wheel, now // TICK_MICROSECONDS, now)


@kernel
def stop_some(ends, first, count, now):
    """Ends the connections of the ends `first` to below `first + count`, with a RST to each peer that may have one open."""
    for number in range(first, min(first + count, ends.hot.shape[0])):
        end, role = record_at(ends.hot, number), role_of(ends, number)
        if end.state == TIME_WAIT:
            release(ends, number, role)
        elif end.state != FREE:
            give_up(ends, number, role, STOPPED, now)
