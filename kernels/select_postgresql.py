"""Select kernels by the StartupMessage of a PostgreSQL client (Frontend/Backend Protocol, Message Formats). The slot `select`."""
import numpy as np

from .jit import apart, kernel
from .rules import find_rule
from .select_http2 import is_text
from .select_tls import number_at
from .services import ANSWER_CLIENT, NEED_MORE, NO_MATCH

HEADER, MOST_OF_MESSAGE = 8, 10000
"""Length, itself included, and version, both 32 bits; servers take no longer message (MAX_STARTUP_PACKET_LENGTH)."""
MAJOR_VERSION = 3
SSL_REQUEST, GSS_REQUEST, MOST_REQUESTS = 80877103, 80877104, 2
"""Codes in place of the version, in messages of 8 octets; a client asks for each at most once."""
NOT_WILLING = ord("N")
DATABASE, USER = np.frombuffer(b"database", np.uint8), np.frombuffer(b"user", np.uint8)


@kernel
def startup_end(payload, selection):
    """Returns where a whole StartupMessage of version 3 ends, NEED_MORE or NO_MATCH.

    SSLRequest and GSSENCRequest before it are refused as a server does that is not willing: the client goes on in the clear
    (sections SSL Session Encryption and GSSAPI Session Encryption).
    """
    known = min(payload.shape[0], 4)
    length = number_at(payload, 0, known) << 8 * (4 - known)
    if length > MOST_OF_MESSAGE:
        return NO_MATCH
    if payload.shape[0] < HEADER:
        return NEED_MORE
    if length == HEADER and selection.reply[2] < MOST_REQUESTS and SSL_REQUEST <= number_at(payload, 4, 4) <= GSS_REQUEST:
        selection.reply[0], selection.reply[1] = HEADER, NOT_WILLING
        return ANSWER_CLIENT
    if length <= HEADER or number_at(payload, 4, 2) != MAJOR_VERSION:
        return NO_MATCH
    return length if payload.shape[0] >= length else NEED_MORE


@kernel
def text_end(message, at):
    """Returns where the text that starts at `at` ends, with a byte 0, or -1."""
    for place in range(at, message.shape[0]):
        if message[place] == 0:
            return place
    return -1


@kernel
def find_parameter(message, wanted):
    """Returns where the value of a parameter starts and stops in a StartupMessage, or -1 and -1; the last one counts."""
    at, start, stop = HEADER, -1, -1
    while True:
        name_end = text_end(message, at)
        value_end = text_end(message, name_end + 1) if name_end > at else -1
        if value_end < 0:
            return start, stop
        if is_text(message[at:name_end], wanted):
            start, stop = name_end + 1, value_end
        at = value_end + 1


@apart
def postgresql_database(payload, service, selection):
    """The rule for the database that a client connects to: the one of its user's name unless it says another."""
    end = startup_end(payload, selection)
    if end < 0:
        return end
    start, stop = find_parameter(payload[:end], DATABASE)
    if start == stop:
        start, stop = find_parameter(payload[:end], USER)
    if start < 0:
        return NO_MATCH
    return find_rule(payload[start:stop], stop - start, False, service, selection)


@apart
def postgresql_user(payload, service, selection):
    """The rule for the user as which a client connects."""
    end = startup_end(payload, selection)
    if end < 0:
        return end
    start, stop = find_parameter(payload[:end], USER)
    if start < 0:
        return NO_MATCH
    return find_rule(payload[start:stop], stop - start, False, service, selection)
