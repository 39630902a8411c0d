"""Answers: an octet that the engine itself says to a client before it has a target, and says again until that has heard it.

It takes a number of our own: our initial number toward the client goes up by one, and the target's numbers are shifted by that
much more. No target is asked for while an answer is unheard, so the splice begins with nothing of ours on its way (SPLICE 1.1).
"""
from numpy import int64

from .connection import CLIENT, FIRST_DATA, HOLDS, NO_ROW, ask
from .headers import PSH
from .jit import kernel
from .native import record_at
from .records import REFUSED
from .sequence import wrap


@kernel
def is_unheard(connections, connection):
    """Says whether the client of a connection that is being opened has not acknowledged what we have answered."""
    return record_at(connections.openings, int64(record_at(connections.cold, connection).opening)).answer != 0


@kernel
def carry_answer(connections, connection, row):
    """Has an ordered segment toward a client bring what we have answered, where that is unheard; without room there is none."""
    opening, segments = record_at(connections.openings, int64(record_at(connections.cold, connection).opening)), connections.segments
    if opening.answer == 0 or segments.filled[0] == row:
        return
    segments.seq[row], segments.control[row] = int64(opening.proxy_isn), segments.control[row] | PSH
    held = connections.held
    segments.held[row], segments.length[row] = held.length.shape[0] * held.stride[0] + int64(opening.answer), 1


@kernel
def hear_answer(connections, connection):
    """The client has acknowledged our answer: what it has sent meanwhile is looked at now."""
    hot, opening = record_at(connections.hot, connection), record_at(connections.openings, int64(record_at(connections.cold, connection).opening))
    opening.answer = 0
    if hot.state == FIRST_DATA:
        opening.retry, opening.tries = 0, 0
        if hot.options & HOLDS:
            ask(connections, connection, NO_ROW, REFUSED)


@kernel
def acknowledges(connections, connection, number):
    """Says whether a client's acknowledgement is one of what we have sent before it is bound; takes in that it has heard an answer."""
    opening = record_at(connections.openings, int64(record_at(connections.cold, connection).opening))
    if number == wrap(int64(opening.proxy_isn) + 1):
        if opening.answer != 0:
            hear_answer(connections, connection)
        return True
    return opening.answer != 0 and number == int64(opening.proxy_isn)


@kernel
def say(connections, connection, octet):
    """Takes an octet as our answer to a client; the next segment toward it carries it."""
    hot, opening = record_at(connections.hot, connection), record_at(connections.openings, int64(record_at(connections.cold, connection).opening))
    opening.answer, opening.answers = octet, min(int64(opening.answers) + 1, 0xFF)
    opening.proxy_isn = wrap(int64(opening.proxy_isn) + 1)
    hot.acked[CLIENT] = wrap(int64(opening.proxy_isn) + 1)
