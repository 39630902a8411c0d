"""The edit log: where payload kernels have changed the stream, until the receiver has acknowledged it (SPLICE 5.1, 5.2).

Numbers of a flow (connection * 2 + the side that sends) exist twice: as the sender counts and as the receiver counts.
`shift`, added to the sender's, leads from the one to the other behind the last edit; each edit keeps the shift that held
before it. An edit replaces at least one byte (an insertion takes a neighbour in), so that no number of the receiver's
inside what was inserted can be taken for an acknowledgement of the bytes around it.
"""
from typing import NamedTuple

import numpy as np
from numpy import int64

from .jit import kernel
from .sequence import distance, wrap

NONE = -1
EDIT_BYTES = 8192
"""Room for the new bytes of one edit."""


class Edits(NamedTuple):
    """A pool of edits, each free or in the list of its flow, in the order of its numbers. int64 but for the ends of the
    lists (int32) and `octets`."""

    free: np.ndarray       # [1] first free edit; free ones are linked by `following`
    used: np.ndarray       # [1] edits in use
    first: np.ndarray      # [2 * connections] ends of each flow's list
    last: np.ndarray       # [2 * connections]
    following: np.ndarray  # [edits]
    previous: np.ndarray   # [edits]
    position: np.ndarray   # [edits] the sender's number of the first byte that is replaced
    old: np.ndarray        # [edits] how many bytes are replaced, at least one
    new: np.ndarray        # [edits] by how many
    before: np.ndarray     # [edits] shift of the numbers up to `position`
    octets: np.ndarray     # uint8 [edits * EDIT_BYTES] the new bytes


def allocate_edits(count, connections):
    """Returns `Edits` of `count` edits, all free."""
    following = np.arange(1, max(count, 1) + 1, dtype=np.int64)
    following[-1] = NONE
    ends = [np.full(2 * connections, NONE, np.int32) for _ in range(2)]
    columns = [np.zeros(max(count, 1), np.int64) for _ in range(5)]
    return Edits(np.array([0 if count else NONE]), np.zeros(1, np.int64), *ends, following, *columns,
                 np.zeros(count * EDIT_BYTES, np.uint8))


@kernel
def is_past(edits, edit, number, of_receiver):
    """Says whether a number lies behind an edit: beyond all that it replaces, or at or beyond the end of its new bytes."""
    away = distance(number, edits.position[edit])
    if of_receiver:
        return distance(number, wrap(edits.position[edit] + edits.before[edit])) >= edits.new[edit]
    return away >= edits.old[edit]


@kernel
def find_edit(edits, flow, number, of_receiver):
    """Returns the first edit of a flow that `number` (the sender's, or the receiver's) is not behind, NONE if there is none.

    New data lies at the end of the log and acknowledgements at its start: the search begins where the number is nearer.
    """
    place, last = int64(edits.first[flow]), int64(edits.last[flow])
    if place == NONE or is_past(edits, last, number, of_receiver):
        return NONE
    near = edits.position[place] + (edits.before[place] if of_receiver else 0)
    far = edits.position[last] + (edits.before[last] if of_receiver else 0)
    if abs(distance(number, wrap(near))) <= abs(distance(number, wrap(far))):
        while is_past(edits, place, number, of_receiver):
            place = edits.following[place]
        return place
    while edits.previous[last] != NONE and not is_past(edits, edits.previous[last], number, of_receiver):
        last = edits.previous[last]
    return last


@kernel
def to_receiver(edits, flow, shift, number):
    """Returns a number of the sender's as the receiver counts; inside an edit: the edit's start."""
    edit = find_edit(edits, flow, number, False)
    if edit == NONE:
        return wrap(number + shift)
    if distance(number, edits.position[edit]) > 0:
        number = edits.position[edit]
    return wrap(number + edits.before[edit])


@kernel
def to_sender(edits, flow, shift, number, opens):
    """Returns a number of the receiver's as the sender counts.

    Inside an edit: the edit's start, so that the sender sends all of it again; the edit's end where the number `opens` a
    block of selective acknowledgement, which must not cover what has not come. What was deleted at `number` counts as come.
    """
    edit = find_edit(edits, flow, number, True)
    if edit == NONE:
        return wrap(number - shift)
    start = edits.position[edit]
    inside = distance(number, wrap(start + edits.before[edit]))
    if inside <= 0:
        return wrap(number - edits.before[edit])
    return wrap(start + edits.old[edit]) if opens else start


@kernel
def add_edit(edits, flow, shift, position, old, octets, start, new):
    """Logs that `old` bytes from the sender's number `position` on became octets[start:start + new]; no later number of the
    flow has an edit. Returns whether there was a free edit."""
    edit, last = edits.free[0], int64(edits.last[flow])
    if edit == NONE:
        return False
    edits.free[0] = edits.following[edit]
    edits.used[0] += 1
    edits.following[edit], edits.previous[edit] = NONE, last
    if last == NONE:
        edits.first[flow] = edit
    else:
        edits.following[last] = edit
    edits.last[flow] = edit
    edits.position[edit], edits.old[edit], edits.new[edit], edits.before[edit] = position, old, new, shift
    for number in range(new):
        edits.octets[edit * EDIT_BYTES + number] = octets[start + number]
    return True


@kernel
def forget_edits(edits, flow, acknowledged, everything):
    """Frees the edits whose new bytes the receiver has acknowledged, or all of a flow.

    What they have shifted stays in the shift of what follows. A stale repetition from before then maps to numbers up to
    `acknowledged` at most, and a stale acknowledgement to no more than the sender was told already: neither does harm.
    """
    edit = int64(edits.first[flow])
    while edit != NONE and (everything or is_past(edits, edit, acknowledged, True)):
        following = edits.following[edit]
        edits.following[edit] = edits.free[0]
        edits.free[0] = edit
        edits.used[0] -= 1
        edit = following
    edits.first[flow] = edit
    if edit == NONE:
        edits.last[flow] = NONE
    else:
        edits.previous[edit] = NONE
