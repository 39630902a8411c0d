"""A select kernel by the client identifier in an MQTT CONNECT packet (3.1, 3.1.1 and 5). The slot `select`."""
import numpy as np
from numpy import int64

from .jit import apart, kernel
from .rules import find_rule
from .select_tls import number_at
from .services import NEED_MORE, NO_MATCH

CONNECT, MOST_OF_INTEGER = 0x10, 4
NAME, OLD_NAME = np.frombuffer(b"\0\4MQTT", np.uint8), np.frombuffer(b"\0\6MQIsdp", np.uint8)
"""The protocol's name, of 3.1.1 and 5 and of 3.1, behind its length (16 bits)."""
VERSION_5, BEHIND_VERSION = 5, 3
"""Level 5 has properties; flags (8 bits) and keep alive (16) stand behind the level."""


@kernel
def read_variable(payload, at, bound):
    """Returns a Variable Byte Integer (MQTT 5, section 1.5.5) and where it ends; or NEED_MORE or NO_MATCH and 0."""
    value = 0
    for place in range(MOST_OF_INTEGER):
        if at + place >= bound:
            return NO_MATCH, 0
        if at + place >= payload.shape[0]:
            return NEED_MORE, 0
        octet = int64(payload[at + place])
        value |= (octet & 0x7F) << 7 * place
        if octet & 0x80 == 0:
            return value, at + place + 1
    return NO_MATCH, 0


@kernel
def begins(payload, at, text):
    """Says whether a text stands at `at` in the payload: 1, 0, or NEED_MORE where it is cut."""
    for place in range(text.shape[0]):
        if at + place == payload.shape[0]:
            return NEED_MORE
        if payload[at + place] != text[place]:
            return 0
    return 1


@kernel
def read_level(payload, at):
    """Returns the protocol's level, whose name is at `at`, and where the level stands; or NEED_MORE or NO_MATCH and 0."""
    found, size = begins(payload, at, NAME), NAME.shape[0]
    if found == 0:
        found, size = begins(payload, at, OLD_NAME), OLD_NAME.shape[0]
    if found != 1:
        return NEED_MORE if found == NEED_MORE else NO_MATCH, 0
    if at + size == payload.shape[0]:
        return NEED_MORE, 0
    return int64(payload[at + size]), at + size


@kernel
def identifier(payload):
    """Returns where the client identifier of a CONNECT packet starts and stops (section 3.1.3.1), or NEED_MORE or NO_MATCH and 0."""
    if payload.shape[0] > 0 and payload[0] != CONNECT:
        return NO_MATCH, 0
    length, at = read_variable(payload, 1, 1 << 40)
    if length < 0:
        return length, 0
    bound = at + length
    level, at = read_level(payload, at)
    if level < 0:
        return level, 0
    at += 1 + BEHIND_VERSION
    if level == VERSION_5:
        length, at = read_variable(payload, at, bound)
        if length < 0:
            return length, 0
        at += length
    if at + 2 > bound:
        return NO_MATCH, 0
    if at + 2 > payload.shape[0]:
        return NEED_MORE, 0
    stop = at + 2 + number_at(payload, at, 2)
    if stop > bound:
        return NO_MATCH, 0
    return (at + 2, stop) if stop <= payload.shape[0] else (NEED_MORE, 0)


@apart
def mqtt_client_id(payload, service, selection):
    """The rule for the client identifier; none fits an empty one, for which the server makes one."""
    if payload.shape[0] == 0:
        return NEED_MORE
    start, stop = identifier(payload)
    if start < 0:
        return start
    if start == stop:
        return NO_MATCH
    return find_rule(payload[start:stop], stop - start, False, service, selection)
