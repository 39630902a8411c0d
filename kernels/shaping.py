"""Shaping: payload kernels see every byte of a direction once and in order, and may change it (SPLICE 5.1). The slot `payload`.

`kernel(payload, length, position, tailroom, user, given) -> length`: `payload` (uint8, 1-D) has `length` new bytes and
`tailroom` more behind them to grow into; `position` is the number of the first of them in the stream, from 0; `user` (int64
[USER_CELLS]) belongs to the connection, both directions share it, and starts as zeros; `given` (`payload_rules.Given`) has
what the configuration says, and a kernel may do without it. Where there are `payload_rules`, each has `user` to itself, and
`payload` is what the rule before it has left. The answer is how many bytes there are then, 0 to `length` + `tailroom`;
END_CONNECTION, to reset both sides; SHOW_AGAIN, to drop the segment, so that its sender repeats it (held bytes cannot be
dropped: there it is an error). Any other leaves all as it was, counted. Where the stream is cut is the network's.
"""
from typing import NamedTuple

import numpy as np
from numpy import int64

from .batch import DROP, FORWARD, KIND_TCP
from .connection import CLIENT, FIN_SEEN, SHAPED, SPECIAL, TARGET
from .copying import copy_payload
from .counters import DROP_PAYLOAD_SHOWN_AGAIN, DROP_UNEXPECTED_SEGMENT, NOTICE_FIRST_COPIES_GIVEN_UP, NOTICE_PAYLOAD_KERNEL_ERRORS, UNEXPECTED
from .edits import EDIT_BYTES, Edits, add_edit, allocate_edits, forget_edits, to_sender
from .first_copies import FirstCopies, allocate_first_copies, forget_copies, keep
from .headers import FIN, PSH, RST, SYN
from .jit import kernel
from .native import record_at
from .payload_rules import PayloadRules, allocate_payload_rules
from .sequence import distance, wrap
from .waiting_room import wait

USER_CELLS = 8
SHOWN_AT_ONCE = 2048
"""Bytes that a kernel is shown at once; it may make EDIT_BYTES of them."""
STREAM_BYTES = 60_000
"""Room for what a segment becomes; what is beyond is left to a retransmission."""
NOT_BEGUN = -1
END_CONNECTION, SHOW_AGAIN = -2, -3
"""What a payload kernel answers beside a number of bytes: both sides get a RST; these bytes are not taken, and dropped."""
REFUSED, NEXT, GAP = range(3)
"""What a segment of a shaped side is: not to be passed, what comes next (or came before), beyond a gap."""
WINDOW = 1 << 16
"""The widest window without scaling: what lies further from the receiver's last acknowledgement moves no number of ours.
Anchored there, and not at `next`, so that corrupt segments cannot walk it away in steps."""


class Shaped(NamedTuple):
    """What shaped connections have beside the others; int64 where nothing else is said. A flow is connection * 2 + side."""

    edits: Edits
    copies: FirstCopies
    seen: np.ndarray         # [flows] the sender's number behind the last byte that was shown
    position: np.ndarray     # [flows] how many bytes were shown, or NOT_BEGUN
    grown: np.ndarray        # [flows] by how much the log has lengthened the stream
    told_ack: np.ndarray     # [flows] acknowledgement (in the other side's numbers, NOT_BEGUN before the first one) and
    told_window: np.ndarray  # [flows] window, unscaled, of this side's last segment that passed
    user: np.ndarray         # [connections, cells] of all payload kernels of a service
    before: np.ndarray       # uint8: bytes as they came
    after: np.ndarray        # uint8: as a kernel has left them
    stream: np.ndarray       # uint8 [STREAM_BYTES] what a segment becomes
    part: np.ndarray         # [4] of `stream`: start, end, whether that is all, the first byte's number as the receiver counts
    rules: PayloadRules      # what payload kernels of each service there are, and what they are given


def allocate_shaped(edits, pieces, connections, held_bytes, rules=None, cells=USER_CELLS):
    """Returns `Shaped` for that many connections, a log of `edits` edits and `pieces` pieces of first copies, with these
    PayloadRules, whose kernels have `cells` cells of a connection's together."""
    columns = [np.zeros(2 * connections, np.int64) for _ in range(5)]
    return Shaped(allocate_edits(edits, connections), allocate_first_copies(pieces, connections), *columns,
                  np.zeros((connections, cells), np.int64), np.zeros(max(held_bytes, EDIT_BYTES), np.uint8),
                  np.zeros(max(held_bytes, EDIT_BYTES), np.uint8),
                  np.zeros(STREAM_BYTES, np.uint8), np.zeros(4, np.int64), rules or allocate_payload_rules(0, 1, 0))


@kernel
def begin_shaping(connections, connection, service):
    """Marks a new connection whose service has payload kernels."""
    hot, cold, shaped = record_at(connections.hot, connection), record_at(connections.cold, connection), connections.shaped
    for side in range(2):
        if service.payload_kernel[side] < 0:
            continue
        hot.options |= SPECIAL
        cold.special |= SHAPED << side
    if cold.special & (SHAPED * 3) == 0:  # not SPECIAL: mode `simple` is that too, and without payload kernels there is no room
        return
    for flow in range(connection * 2, connection * 2 + 2):
        shaped.position[flow], shaped.told_ack[flow], shaped.grown[flow] = NOT_BEGUN, NOT_BEGUN, 0
    for cell in range(shaped.user.shape[1]):
        shaped.user[connection, cell] = 0


@kernel
def is_shaped(connections, flow):
    """Says whether what a flow brings is shown to a payload kernel."""
    hot, cold = record_at(connections.hot, flow >> 1), record_at(connections.cold, flow >> 1)
    return hot.options & SPECIAL != 0 and cold.special & (SHAPED << (flow & 1)) != 0


@kernel
def sender_number(connections, flow, number):
    """Returns `number`, as the receiver of a flow counts, as its sender counts (SPLICE 5.2)."""
    shift = int64(record_at(connections.hot, flow >> 1).shift[flow & 1])
    if is_shaped(connections, flow):
        return to_sender(connections.shaped.edits, flow, shift, number, False)
    return wrap(number - shift)


@kernel
def acknowledged(connections, flow):
    """Returns the last acknowledgement that the receiver of a flow has sent, as the sender of the flow counts."""
    return sender_number(connections, flow, int64(record_at(connections.hot, flow >> 1).acked[1 - (flow & 1)]))


@kernel
def forget_acknowledged(connections, flow):
    """Forgets what the receiver of a flow has acknowledged of its edits and first copies; returns the acknowledgement, as the
    sender counts."""
    shaped, number = connections.shaped, int64(record_at(connections.hot, flow >> 1).acked[1 - (flow & 1)])
    forget_edits(shaped.edits, flow, number, False)
    number = sender_number(connections, flow, number)
    forget_copies(shaped.copies, flow, number, False)
    return number


@kernel
def widest(hot, side):
    """Returns the widest window, in bytes, that a side may have been given by the other (RFC 7323, section 2)."""
    return WINDOW << (int64(hot.scales) >> 4 if side == CLIENT else int64(hot.scales) & 0x0F)


@kernel
def place_of(batch, row, connections, flow, tick):
    """Returns NEXT if a payload kernel can be shown what a segment of a shaped side brings; else it waits, or is dropped.

    Nothing that was not shown may pass: what lies beyond the window or behind a FIN is dropped.
    """
    hot, shaped, side = record_at(connections.hot, flow >> 1), connections.shaped, flow & 1
    following = int64(hot.next[side])
    stop = wrap(batch.seq[row] + batch.payload_length[row] + int64(batch.control[row] & FIN))
    if stop == batch.seq[row] or distance(stop, following) <= 0:
        return NEXT
    if hot.closing & (FIN_SEEN << side) or distance(stop, acknowledged(connections, flow)) > widest(hot, side):
        batch.verdict[row] = DROP
        connections.counters.drops[DROP_UNEXPECTED_SEGMENT] += 1
        connections.counters.events[side, UNEXPECTED] += 1
        return REFUSED
    if distance(batch.seq[row], following) > 0:
        wait(batch, row, connections, flow, tick)
        return GAP
    if shaped.position[flow] == NOT_BEGUN:
        shaped.position[flow], shaped.seen[flow] = 0, following
    return NEXT


@kernel
def lies_beyond_shown(batch, row, shaped):
    """Says whether a row follows bytes that a payload kernel has not taken: its place is not known before these are."""
    flow = batch.flow[row]
    return shaped.position[flow] != NOT_BEGUN and distance(batch.seq[row], shaped.seen[flow]) > 0


@kernel
def show_again(batch, row, connections):
    """Drops a row whose bytes a payload kernel has not taken; its sender repeats it."""
    batch.verdict[row] = DROP
    connections.counters.drops[DROP_PAYLOAD_SHOWN_AGAIN] += 1


@kernel
def is_to_be_shown(batch, row, connections):
    """Says whether a row passes with payload that a payload kernel has to see, or has seen."""
    if batch.verdict[row] != FORWARD or batch.kind[row] != KIND_TCP or batch.control[row] & RST:
        return False
    if batch.payload_length[row] + int64(batch.control[row] & FIN) == 0 or not is_shaped(connections, batch.flow[row]):
        return False
    if lies_beyond_shown(batch, row, connections.shaped):
        show_again(batch, row, connections)
    if batch.verdict[row] == DROP or batch.payload_length[row] == 0:
        return False
    if batch.control[row] & SYN:  # mode `simple` passes SYNs on; their payload is shown to nobody
        batch.verdict[row] = DROP
        connections.counters.drops[DROP_UNEXPECTED_SEGMENT] += 1
        return False
    return True


@kernel
def take_new(packets, base, batch, row, connections):
    """Copies what is new in a row to `before` and `after`; returns how many bytes, 0 if there is nothing new."""
    flow, shaped = batch.flow[row], connections.shaped
    new = distance(wrap(batch.seq[row] + batch.payload_length[row]), shaped.seen[flow])
    if new <= 0 or shaped.position[flow] == NOT_BEGUN:
        return 0
    length = min(new, SHOWN_AT_ONCE)
    copy_payload(packets, base, batch.mbuf[row], batch.payload[row], batch.payload_length[row] - new, length, shaped.before, 0)
    for number in range(length):
        shaped.after[number] = shaped.before[number]
    return length


@kernel
def is_pushed(batch, row, shaped, length):
    """Returns 1 where the `length` bytes shown next are the last ones of a row, and its sender has no more for now, else 0."""
    stop = wrap(batch.seq[row] + batch.payload_length[row])
    return int64(batch.control[row] & (PSH | FIN) != 0 and wrap(shaped.seen[batch.flow[row]] + length) == stop)


@kernel
def same_ends(shaped, length, changed):
    """Returns how many bytes `before` and `after` have in common at their starts and at their ends.

    Of `before` at least one is left over where anything has changed.
    """
    least, head, tail = min(length, changed), 0, 0
    while head < least and shaped.before[head] == shaped.after[head]:
        head += 1
    while tail < least - head and shaped.before[length - 1 - tail] == shaped.after[changed - 1 - tail]:
        tail += 1
    if head + tail == length and changed > length:
        head, tail = (head - 1, tail) if head > 0 else (head, tail - 1)
    return head, tail


@kernel
def take_change(connections, flow, length, changed):
    """Notes that a kernel has seen the `length` bytes in `before` and made the `changed` bytes in `after` of them.

    Returns whether there was room in the log.
    """
    hot, shaped, side = record_at(connections.hot, flow >> 1), connections.shaped, flow & 1
    first, shift = shaped.seen[flow], int64(hot.shift[side])
    given_up = keep(shaped.copies, flow, first, shaped.before, length)
    connections.counters.notices[NOTICE_FIRST_COPIES_GIVEN_UP] += given_up
    shaped.seen[flow] = wrap(first + length)
    shaped.position[flow] += length
    if changed < 0 or changed > EDIT_BYTES:
        connections.counters.notices[NOTICE_PAYLOAD_KERNEL_ERRORS] += 1
        return True
    head, tail = same_ends(shaped, length, changed)
    if head == length and changed == length:
        return True
    old, new = length - head - tail, changed - head - tail
    if not add_edit(shaped.edits, flow, shift, wrap(first + head), old, shaped.after, head, new):
        return False
    hot.shift[side] = wrap(shift + new - old)
    shaped.grown[flow] += new - old
    return True


@kernel
def end_shaping(connections, connection):
    """Gives back what an ended connection has in the log and of first copies.

    Its shift toward the client is again what the handshakes made it.
    """
    hot, shaped = record_at(connections.hot, connection), connections.shaped
    for flow in range(connection * 2, connection * 2 + 2):
        forget_edits(shaped.edits, flow, 0, True)
        forget_copies(shaped.copies, flow, 0, True)
    hot.shift[TARGET] = wrap(int64(hot.shift[TARGET]) - shaped.grown[connection * 2 + TARGET])
