"""Kernels of a user's for the tests of changed payload: one that spells letters out, one that rewrites what was held.

`spell` deletes every `-`, makes `xyz` of each `x` and the next digit of each `n`: it grows, shrinks, changes in place, and
shows by the digits whether it was run more than once over a byte. `spelled` is the same of a whole stream, by Python.
"""
from pipeline.kernels.jit import kernel

DASH, N, X, Y, Z, ZERO = 45, 110, 120, 121, 122, 48
SHAPED, SHAPED_FIRST, REWRITES, SHAPED_FEW = 7501, 7502, 7503, 7504
"""Ports of the services: both directions spelled, binding delayed and immediate; the held bytes rewritten by select; both
directions spelled toward the target `c`, with three source ports."""


@kernel
def spell(payload, length, position, tailroom, user):
    """Payload kernel; user[0] and user[1] count the bytes and the digits, user[2] says that a byte came out of order."""
    if position != user[0]:
        user[2] = 1
    kept, grown = 0, 0
    for at in range(length):
        octet = payload[at]
        if octet == DASH:
            continue
        if octet == N:
            octet = ZERO + user[1] % 10
            user[1] += 1
        if octet == X:
            grown += 1
        payload[kept] = octet
        kept += 1
    user[0] += length
    total = kept + 2 * grown
    to = total
    for at in range(kept - 1, -1, -1):
        octet = payload[at]
        if octet == X:
            payload[to - 1], payload[to - 2] = Z, Y
            to -= 2
        to -= 1
        payload[to] = octet
    return total


@kernel
def rewriting(payload, service, selection):
    """Select kernel: once a line is there, it is held as `GET ` and the line; else more is needed."""
    length = payload.shape[0]
    if length == 0 or payload[length - 1] != 10:
        return -2
    for at in range(length - 1, -1, -1):
        selection.scratch[at + 4] = payload[at]
    selection.scratch[0], selection.scratch[1], selection.scratch[2], selection.scratch[3] = 71, 69, 84, 32
    selection.rewrite[0] = length + 4
    return 0


def spelled(stream, digits=0):
    """Returns what `spell` makes of a whole stream (bytes) whose first `n` becomes `digits`."""
    out = bytearray()
    for octet in stream:
        if octet == X:
            out += b"xyz"
        elif octet == N:
            out.append(ZERO + digits % 10)
            digits += 1
        elif octet != DASH:
            out.append(octet)
    return bytes(out)
