"""Acknowledgements of our own toward the sender of shaped payload: of what was deleted, and duplicates that tell of a gap.

What waits for a gap to be filled does not reach the receiver, so nobody but we can tell the sender of the gap (RFC 5681,
section 4.2; RFC 2018, section 4): without, each loss cost it a time-out, and a lossy path a tenth of its rate was left.
That something waits is only said selectively, which is advice: should it have to go again, its sender still has it.
"""
from numpy import int64

from .connection import CLIENT, FIN_SEEN, HOLDS, OWNS, PLAIN, PROMISED_SACK, PROMISED_SCALING, SPECIAL, TARGET, emit_acknowledgement
from .held_sender import shown_to_client
from .jit import kernel
from .native import record_at
from .sequence import wrap
from .shaping import NOT_BEGUN, is_shaped, sender_number
from .tcp_options import offered_scale
from .waiting_room import run_around

LEAST_WINDOW = 536
"""An open window is shown no narrower than this, however much has grown on its way: a closed one would be probed. What is
shown where nothing is known of it (RFC 9293, section 3.7.1)."""


@kernel
def told_to_sender(connections, flow):
    """Returns the acknowledgement that the sender of a flow has been told, in its own numbers."""
    hot = record_at(connections.hot, flow >> 1)
    acked = int64(hot.acked[CLIENT]) if flow & 1 == TARGET else shown_to_client(connections, flow >> 1)
    return sender_number(connections, flow, acked)


@kernel
def following_number(connections, flow):
    """Returns the number that follows what the sender of a flow has been sent: that of a segment of ours without payload.

    What the other side has sent in this very burst is not counted where it is shaped: nobody knows yet what becomes of it.
    """
    hot, shaped, other = record_at(connections.hot, flow >> 1), connections.shaped, 1 - (flow & 1)
    number = int64(hot.next[other])
    if is_shaped(connections, flow ^ 1) and shaped.position[flow ^ 1] != NOT_BEGUN and hot.closing & (FIN_SEEN << other) == 0:
        number = shaped.seen[flow ^ 1]
    return wrap(number + int64(hot.shift[other]))


@kernel
def scale_toward(hot, cold, side):
    """Returns the scale in which a side is shown windows (SPLICE 2.3)."""
    if side == TARGET:
        return int64(hot.scales) & 0x0F if cold.special & PROMISED_SCALING == 0 else 0
    if hot.options & SPECIAL and cold.special & PLAIN:
        return int64(hot.scales) >> 4
    return offered_scale(cold)


@kernel
def window_of_receiver(connections, flow):
    """Returns the last window of the receiver of a flow, in the scale that the flow's sender was told; never a zero of ours."""
    hot, cold, shaped = record_at(connections.hot, flow >> 1), record_at(connections.cold, flow >> 1), connections.shaped
    known, side = shaped.told_ack[flow ^ 1] != NOT_BEGUN, flow & 1
    if side == TARGET and not known and hot.options & (HOLDS | OWNS) != OWNS:  # else it says how much was owned
        return max(int64(record_at(connections.openings, int64(cold.opening)).window[CLIENT]), 1)
    window, scale = shaped.told_window[flow ^ 1] if known else LEAST_WINDOW, scale_toward(hot, cold, side)
    return min(max(window >> scale, int64(window > 0)), 0xFFFF)


@kernel
def acknowledge(connections, flow, ack, left, right):
    """Orders an acknowledgement toward the sender of a flow; numbers left .. right - 1, where there are any, are acknowledged
    selectively if that was agreed."""
    cold, side = record_at(connections.cold, flow >> 1), flow & 1
    agreed = int64(cold.agreed)
    if side == TARGET:
        agreed &= ~int64(cold.special)
    window = window_of_receiver(connections, flow)
    sack = agreed & PROMISED_SACK != 0
    emit_acknowledgement(connections, flow >> 1, side, following_number(connections, flow), ack, window, sack, left, right)


@kernel
def tell_of_gap(batch, row, connections, flow, told):
    """Tells the sender of a flow that a row has come too early, and what waits with it.

    And the other side what the row acknowledges beyond `told`: its acknowledgements do not wait with the payload.
    """
    left, right = run_around(connections.waiting, flow, batch.seq[row])
    for turn in range(2):
        acknowledge(connections, flow ^ turn, told_to_sender(connections, flow ^ turn), left, right)
        if int64(record_at(connections.hot, flow >> 1).acked[flow & 1]) == told:
            break
        left, right = 0, 0
