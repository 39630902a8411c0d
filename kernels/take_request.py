"""Takes a client's request that is ours to answer, as its select kernel says: the octets are consumed, and one is answered.

The client goes on from there as if it had never sent it, and the target knows nothing of it (SPLICE 1.2).
"""
from numpy import int64

from .accept_proxy_protocol import consume
from .answers import say
from .connect import tried
from .connection import FIRST_DATA, HOLDS, note
from .counters import NOTICE_REQUESTS_ANSWERED
from .handshake import acknowledge
from .jit import kernel
from .native import record_at
from .open import SYN_RETRY
from .services import AWAIT_CLIENT, NO_MATCH
from .wheel import retry_at


@kernel
def take_request(connections, connection, selection, tick):
    """Carries out ANSWER_CLIENT, which a select kernel has answered with `selection.reply`: octets to take and octet to say.

    Returns AWAIT_CLIENT, or NO_MATCH where that cannot be: nothing held that is so long, an octet that is none, or a target
    that has been tried already.
    """
    hot, cold, held = record_at(connections.hot, connection), record_at(connections.cold, connection), connections.held
    opening = record_at(connections.openings, int64(cold.opening))
    size, octet = selection.reply[0], selection.reply[1]
    if hot.state != FIRST_DATA or hot.options & HOLDS == 0 or tried(connections, connection) > 0:
        return NO_MATCH
    if size < 1 or size > held.length[int64(opening.held)] or octet < 1 or octet > 0xFF:
        return NO_MATCH
    consume(connections, connection, size)
    say(connections, connection, octet)
    acknowledge(connections, connection, 0, 0)
    opening.retry, opening.tries = retry_at(tick + SYN_RETRY), 0
    note(connections.touched, connection, 0)
    connections.counters.notices[NOTICE_REQUESTS_ANSWERED] += 1
    return AWAIT_CLIENT


@kernel
def show_answers(connections, connection, selection):
    """Shows a select kernel how many requests of a connection have been answered."""
    opening = record_at(connections.openings, int64(record_at(connections.cold, connection).opening))
    selection.reply[0], selection.reply[1], selection.reply[2] = 0, 0, int64(opening.answers)
