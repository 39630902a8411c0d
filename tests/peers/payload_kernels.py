"""Payload kernels of the tests, and select kernels that rewrite; they import nothing of the tests, for engines to load.

However the network cuts a stream, a payload kernel has to make of it what its twin (`payload_twins`) makes of the whole.
"""
import numpy as np

from pipeline.kernels.jit import kernel
from pipeline.kernels.services import NEED_MORE, is_excluded

RENAMED = np.frombuffer(b"renamed ", np.uint8)
A, B, ZERO, NINE, X, Y = 97, 98, 48, 57, 120, 121


@kernel
def swell(payload, length, position, tailroom, user):
    """Every a becomes bcd."""
    count = 0
    for at in range(length):
        count += payload[at] == A
    into = length + 2 * count
    if into > length + tailroom:
        return -1
    for at in range(length - 1, -1, -1):
        if payload[at] == A:
            into -= 3
            payload[into], payload[into + 1], payload[into + 2] = B, B + 1, B + 2
        else:
            into -= 1
            payload[into] = payload[at]
    return length + 2 * count


@kernel
def delete_digits(payload, length, position, tailroom, user):
    """Digits are deleted; user[1] counts them."""
    into = 0
    for at in range(length):
        if ZERO <= payload[at] <= NINE:
            user[1] += 1
        else:
            payload[into] = payload[at]
            into += 1
    return into


@kernel
def everything(payload, length, position, tailroom, user):
    """Digits are deleted, x becomes y, every a becomes bcd."""
    left = delete_digits(payload, length, position, tailroom, user)
    for at in range(left):
        if payload[at] == X:
            payload[at] = Y
    return swell(payload, left, position, tailroom + length - left, user)


@kernel
def number(payload, length, position, user, cell):
    """Each byte is changed by its place in the stream: shown twice, or out of order, it would come out wrong."""
    if user[cell] != position:
        return 0
    for at in range(length):
        payload[at] ^= (position + at) & 0x7F
    user[cell] += length
    return length


@kernel
def number_up(payload, length, position, tailroom, user):
    """Each byte is changed by its place; both directions share the user's cells, so each needs its own."""
    return number(payload, length, position, user, 2)


@kernel
def number_down(payload, length, position, tailroom, user):
    """As `number_up`, for the other direction."""
    return number(payload, length, position, user, 3)


@kernel
def announce(payload, length, position, tailroom, user):
    """A stream begins with a line of ours."""
    if position > 0:
        return length
    for at in range(length - 1, -1, -1):
        payload[at + 6] = payload[at]
    for at in range(6):
        payload[at] = 72 + at
    return length + 6


@kernel
def swallow(payload, length, position, tailroom, user):
    """Nothing is left."""
    return 0


@kernel
def overreach(payload, length, position, tailroom, user):
    """Answers with more than there is room for, having changed it all."""
    for at in range(length):
        payload[at] = X
    return length + tailroom + 1


@kernel
def rename(payload, service, selection):
    """Select: puts "renamed " before the payload, and chooses the first target that has not failed; "?" is not enough."""
    if payload.shape[0] > 0 and payload[0] == 63 and payload.shape[0] < 4:
        return NEED_MORE
    for at in range(8):
        selection.scratch[at] = RENAMED[at]
    for at in range(payload.shape[0]):
        selection.scratch[8 + at] = payload[at]
    selection.rewrite[0] = 8 + payload.shape[0]
    return 1 if is_excluded(selection, 0) else 0


@kernel
def cut_short(payload, service, selection):
    """Select: only the first byte of the payload is left, or none where that is a -."""
    selection.scratch[0] = payload[0]
    selection.rewrite[0] = 0 if payload[0] == 45 else 1
    return 0


@kernel
def shout(payload, service, selection):
    """Select: small letters become large ones in place, and once more when it is asked again."""
    for at in range(payload.shape[0]):
        if 97 <= payload[at] <= 122:
            payload[at] -= 32
        elif payload[at] == 65:
            payload[at] = 66
    return 1 if is_excluded(selection, 0) else 0


@kernel
def too_much(payload, service, selection):
    """Select: says that it has written more than there is room for."""
    selection.rewrite[0] = 1 << 30
    return 0
