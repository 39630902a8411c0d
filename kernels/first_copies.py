"""First copies: what payload kernels were shown, as it came, until its receiver has acknowledged it (SPLICE 1.4).

A sender that repeats itself can say something else. Without these a first copy that only we get to see (its TTL ends behind
us, or its receiver refuses it for an option) would be judged in place of a second one that nobody looks at. So whatever
is repeated is made from here (`repetition`), whether a kernel had changed it or not.

Pieces of one pool serve all flows. What is acknowledged is given back at once and is used again first: memory is touched as
far as bytes are under way, not as far as there is room. Where none is left the oldest piece of all is given up, which is
that of whoever has gone without an acknowledgement for longest: a client cannot keep the room from others by sending what
never arrives.
"""
from typing import NamedTuple

import numpy as np
from numpy import int64

from .jit import kernel
from .sequence import distance, wrap

NONE = -1
PIECE_BYTES = 2048
"""Room of a piece: what a kernel is shown at once fits, and small segments share one."""


class FirstCopies(NamedTuple):
    """A pool of pieces, each free or in the list of its flow, in the order of its numbers, and in that of all by their age.

    A flow is connection * 2 + the side that sends; its pieces join up. int64 but for `first` and `last` (int32), `octets`.
    """

    free: np.ndarray       # [1] first free piece; free ones are linked by `following`
    used: np.ndarray       # [1] pieces in use
    oldest: np.ndarray     # [1] ends of the list of all
    youngest: np.ndarray   # [1]
    first: np.ndarray      # [2 * connections] ends of each flow's list
    last: np.ndarray       # [2 * connections]
    following: np.ndarray  # [pieces] of the same flow
    older: np.ndarray      # [pieces]
    younger: np.ndarray    # [pieces]
    flow: np.ndarray       # [pieces]
    seq: np.ndarray        # [pieces] the sender's number of the first byte
    length: np.ndarray     # [pieces] bytes
    octets: np.ndarray     # uint8 [pieces * PIECE_BYTES]


def allocate_first_copies(pieces, connections):
    """Returns `FirstCopies` of that many pieces, all free."""
    following = np.arange(1, max(pieces, 1) + 1, dtype=np.int64)
    following[-1] = NONE
    flows = [np.full(2 * connections, NONE, np.int32) for _ in range(2)]
    columns = [np.zeros(max(pieces, 1), np.int64) for _ in range(5)]
    return FirstCopies(np.array([0 if pieces else NONE]), np.zeros(1, np.int64), np.array([NONE]), np.array([NONE]), *flows,
                       following, *columns, np.zeros(pieces * PIECE_BYTES, np.uint8))


@kernel
def give_first_back(copies, flow):
    """Makes the first piece of a flow free."""
    piece = int64(copies.first[flow])
    following, older, younger = copies.following[piece], copies.older[piece], copies.younger[piece]
    copies.first[flow] = following
    if following == NONE:
        copies.last[flow] = NONE
    if older == NONE:
        copies.oldest[0] = younger
    else:
        copies.younger[older] = younger
    if younger == NONE:
        copies.youngest[0] = older
    else:
        copies.older[younger] = older
    copies.following[piece] = copies.free[0]
    copies.free[0] = piece
    copies.used[0] -= 1


@kernel
def take_piece(copies, flow, number):
    """Puts a free piece at the end of a flow's list, for bytes from `number` on; returns how many were given up for it."""
    given_up = int64(copies.free[0] == NONE)
    if given_up:  # a flow's pieces age in the order of its numbers: the oldest of all is the first of its flow
        give_first_back(copies, copies.flow[copies.oldest[0]])
    piece, last, youngest = copies.free[0], int64(copies.last[flow]), copies.youngest[0]
    copies.free[0] = copies.following[piece]
    copies.used[0] += 1
    copies.flow[piece], copies.seq[piece], copies.length[piece] = flow, number, 0
    copies.following[piece], copies.older[piece], copies.younger[piece] = NONE, youngest, NONE
    if last == NONE:
        copies.first[flow] = piece
    else:
        copies.following[last] = piece
    copies.last[flow] = piece
    if youngest == NONE:
        copies.oldest[0] = piece
    else:
        copies.younger[youngest] = piece
    copies.youngest[0] = piece
    return given_up


@kernel
def keep(copies, flow, number, octets, length):
    """Keeps octets[:length], which follow what is kept of a flow and begin with the sender's `number`.

    Returns how many pieces were given up for them.
    """
    done, given_up = 0, 0
    while done < length:
        last = int64(copies.last[flow])
        if last == NONE or copies.length[last] == PIECE_BYTES:
            given_up += take_piece(copies, flow, wrap(number + done))
            last = int64(copies.last[flow])
        filled = copies.length[last]
        part, at = min(length - done, PIECE_BYTES - filled), last * PIECE_BYTES + filled
        for place in range(part):
            copies.octets[at + place] = octets[done + place]
        copies.length[last] = filled + part
        done += part
    return given_up


@kernel
def forget_copies(copies, flow, acknowledged, everything):
    """Frees the pieces of a flow all of whose bytes lie before the sender's number `acknowledged`, or all of them."""
    piece = int64(copies.first[flow])
    while piece != NONE and (everything or distance(wrap(copies.seq[piece] + copies.length[piece]), acknowledged) <= 0):
        give_first_back(copies, flow)
        piece = int64(copies.first[flow])
