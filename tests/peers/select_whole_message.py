"""Select kernels of the tests' own: they want a whole message before they choose, so the proxy has to ask for more."""
from pipeline.kernels.services import NEED_MORE

LENGTH = 61_440
"""Octets of the long message: 60 KiB."""


def last_of_60_kib(payload, service, selection):
    """The target that the last octet of a message of 60 KiB names."""
    if payload.shape[0] < LENGTH:
        return NEED_MORE
    return payload[LENGTH - 1] % selection.services[service].members


def after_line(payload, service, selection):
    """The target that the first octet names, but not before a line has ended."""
    for octet in payload:
        if octet == 10:
            return payload[0] % selection.services[service].members
    return NEED_MORE
