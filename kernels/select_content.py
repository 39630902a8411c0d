"""Select kernels that choose a target by what the client says first. The slot `select`.

`select(payload, service, selection) -> int64`: `payload` is a view (uint8, 1-D) of the bytes held so far, `service` the
number of the service, `selection` a `services.Selection` with its rules. The answer is the number of a target among
the service's own, counted from 0; NO_MATCH; or NEED_MORE, to be asked again when more bytes have come. Payload is
hostile: nothing outside the view is read.
"""
from numpy import int64

from .jit import kernel
from .rules import find_rule, lower
from .services import NEED_MORE, NO_MATCH

TAB, LF, CR, SPACE, COLON, QUESTION_MARK, OPEN_BRACKET, CLOSE_BRACKET = 9, 10, 13, 32, 58, 63, 91, 93
LONGEST_NUMBER = 18


@kernel
def number_modulo(payload, service, selection):
    """ProxyEngine's test rule: the decimal number that starts the payload, modulo the number of targets."""
    number, digits = 0, 0
    for octet in payload[:LONGEST_NUMBER]:
        if octet < 48 or octet > 57:
            break
        number = number * 10 + (int64(octet) - 48)
        digits += 1
    if digits == 0:
        return NO_MATCH if payload.shape[0] > 0 else NEED_MORE
    return number % selection.services[service].members


@kernel
def find_octet(payload, octet, start):
    """Returns where `octet` next stands in the payload from `start` on, or -1."""
    for at in range(start, payload.shape[0]):
        if payload[at] == octet:
            return at
    return -1


@kernel
def first_line(payload):
    """Returns where an HTTP/1 message begins: empty lines before it are passed over (RFC 9112, section 2.2)."""
    begin = 0
    while begin < payload.shape[0] and (payload[begin] == CR or payload[begin] == LF):
        begin += 1
    return begin


@kernel
def request_target(payload):
    """Returns where the target of an HTTP/1 request line starts and stops (RFC 9112, section 3), start < 0 without one.

    NEED_MORE as long as the line may still grow.
    """
    begin = first_line(payload)
    line = find_octet(payload, LF, begin)
    bound = line if line >= 0 else payload.shape[0]
    start = find_octet(payload[:bound], SPACE, begin)
    stop = find_octet(payload[:bound], SPACE, start + 1) if start >= 0 else -1
    if stop < 0:
        return NO_MATCH if line >= 0 else NEED_MORE, 0
    return start + 1, stop


@kernel
def http_path(payload, service, selection):
    """The first rule that begins the path of an HTTP/1 request, or is all of it without the query where it is an exact one."""
    start, stop = request_target(payload)
    if start < 0:
        return start
    query = find_octet(payload[:stop], QUESTION_MARK, start)
    return find_rule(payload[start:stop], (query if query >= 0 else stop) - start, False, service, selection)


@kernel
def host_value(payload):
    """Returns where the value of the Host field starts and stops (RFC 9110, 7.2), start -1 without one, -2 not yet."""
    line = find_octet(payload, LF, first_line(payload)) + 1
    while line > 0:
        stop = find_octet(payload, LF, line)
        if stop < 0:
            return NEED_MORE, 0
        if stop - line <= 1:
            return NO_MATCH, 0
        if (stop - line > 5 and lower(payload[line]) == 104 and lower(payload[line + 1]) == 111
                and lower(payload[line + 2]) == 115 and lower(payload[line + 3]) == 116 and payload[line + 4] == COLON):
            start = line + 5
            while start < stop and (payload[start] == SPACE or payload[start] == TAB):
                start += 1
            while stop > start and (payload[stop - 1] == CR or payload[stop - 1] == SPACE or payload[stop - 1] == TAB):
                stop -= 1
            return start, stop
        line = stop + 1
    return NEED_MORE, 0


@kernel
def without_port(host):
    """Returns the length of a host (uint8 [n]) without its port (RFC 3986, section 3.2)."""
    literal = host.shape[0] > 0 and host[0] == OPEN_BRACKET
    colon = find_octet(host, COLON, max(find_octet(host, CLOSE_BRACKET, 0), 0) if literal else 0)
    return colon if colon >= 0 else host.shape[0]


@kernel
def http_host(payload, service, selection):
    """The rule for the Host of an HTTP/1 request, in any case, its port left out."""
    start, stop = host_value(payload)
    if start < 0:
        return start
    length = without_port(payload[start:stop])
    return find_rule(payload[start:start + length], length, True, service, selection)
