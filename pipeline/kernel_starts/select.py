from numpy import int64

from pipeline.kernels.services import NEED_MORE, NO_MATCH, is_excluded


def choose(payload, service, selection):
    """The first byte that the client has sent, modulo the number of targets."""
    if payload.shape[0] == 0:
        return NEED_MORE  # asked again when more has come
    members = selection.services[service].members
    member = int64(payload[0]) % members  # bytes are uint8: int64 before any arithmetic
    for _ in range(members):
        if not is_excluded(selection, member):  # a target that has failed this connection already
            return member
        member = (member + 1) % members
    return NO_MATCH  # the service's `default` decides
