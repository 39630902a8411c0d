"""The state of a connection: one hot cache line, a cold record, and the lists that the stages hand one another.

A connection has two sides, CLIENT and TARGET. Whatever both sides have is a field of two elements indexed by the
side, so that every rule is written once and serves both directions.
"""
from typing import NamedTuple

import numpy as np
from numpy import int64

from .counters import DROP_SEGMENTS_FULL, Counters
from .headers import ACK
from .jit import kernel
from .native import record_at

CLIENT, TARGET = 0, 1
FREE, SYN_RECEIVED, FIRST_DATA, CONNECTING, ESTABLISHED, HALF_CLOSED, FIN_WAIT, TIME_WAIT = range(8)
STATES = ("free", "syn_received", "first_data", "connecting", "established", "half_closed", "fin_wait", "time_wait")
"""States of a connection, named like their time-outs. From ESTABLISHED on it is bound to its target; a client that
closes before it was bound waits in FIN_WAIT with `target` NO_TARGET."""

LINGERING = 1024
"""Keys of connections that we have reset and whose ends may still ask for the exact RST, a power of two."""
NO_ROW, ASK_NOBODY = -1, -2
"""`Choices.row`: no SYN is to be passed on; nor is the select kernel asked, its service's fall-back is taken."""
NO_TARGET = 0xFFFF
NO_NEIGHBOUR = 0xFFFF
NO_HELD = 0xFFFFFFFF

FIN_SEEN = 1      # shifted by the side that sent the FIN
FIN_ACKED = 4     # shifted by the side whose FIN the other has acknowledged
RST_SEEN = 16     # a RST that may not have been exact has passed (SPLICE 4.1)
TARGET_FIRST = 32  # the target's FIN came before the client's
RST_OF_TARGET = 64  # the RST that was seen last was the target's
RST_AT_END = 128  # it had the number behind all that its sender has sent, and that has said nothing since
HOLDS = 1         # options: `held` of its OPENING record names bytes that the target has not acknowledged
ASKED = 2         # options: it stands in `choices`
SPLICED = 4       # options: the target has answered
BOUND = 8         # options: it has a target
STAMPED = 16      # options: timestamps are in use on both sides
SCALED = 32       # options: the target's window is shown to the client in another scale
SPECIAL = 64      # options: `special` of the cold record says what is not as usual
OWNS = 128        # options: held bytes have been acknowledged to the client, so they are ours to deliver (SPLICE 1.2)
PROMISED_SACK, PROMISED_TIMESTAMPS, PROMISED_SCALING, PROMISED_ECN = 1, 2, 4, 8
PROMISED = 15     # agreed: all of them; above stands the window scale that the client was offered
OFFERED_SCALE = 4  # agreed: how far above

DECLINED = 15     # special: PROMISED_* that the target does without
NARROW = 16       # special: the target takes smaller segments than the client was told: they are split (SPLICE 2.6)
SHAPED = 32       # special, shifted by the side that sends: its payload is shown to a payload kernel (SPLICE 5)
WAITS = 128       # special: segments of this connection lie in the waiting room
AGED = 256        # special: the client's timestamps are shifted by `stamp_shift` (SPLICE 3.2)
PLAIN = 512       # special: mode `simple`, options go end to end
REWRITTEN = 1024  # special: select, or a payload kernel, has changed the held bytes
LENT = 2048       # special: its source port has been given back while it waits out TIME_WAIT
MARKED = 4096     # special: a router has marked held bytes with CE; the next segment that carries some takes the mark on (RFC 3168)
OPENS = 8192      # special: it has an OPENING record, which alone is nothing unusual
UNUSUAL = 0xFFFF ^ OPENS
"""Of `special`: whatever makes it SPECIAL."""
RESHAPED = NARROW | SHAPED << CLIENT | SHAPED << TARGET
"""Of `special`: segments may be larger than their receiver takes; they are verified in full and split (SPLICE 2.6, 5.2)."""
LASTING = RESHAPED | PROMISED_TIMESTAMPS
"""Of `special`: its OPENING record is needed as long as the connection lives."""

HOT = np.dtype([
    ("remote_address", "u4", (2,)),   # of the client and of the target
    ("local_address", "u4", (2,)),    # the service's, and the one we speak to the target from
    ("remote_port", "u2", (2,)),
    ("local_port", "u2", (2,)),
    ("shift", "u4", (2,)),            # added to this side's sequence numbers on their way to the other side
    ("next", "u4", (2,)),             # end of the highest sequence number this side has sent, in its own numbers
    ("acked", "u4", (2,)),            # highest acknowledgement this side has sent, in the numbers that it sees
    ("neighbour", "u2", (2,)),        # next hop toward this side
    ("stamp", "u4"),                  # tick of the last packet
    ("timestamp_shift", "u4"),        # added to the target's TSval toward the client (SPLICE 2.4)
    ("state", "u1"), ("closing", "u1"), ("options", "u1"),
    ("scales", "u1"),                 # window scale of the client, and of the target in the upper half; 0 without
])
"""What every packet of a connection touches: exactly one cache line of 64 bytes."""
HOT_BYTES = HOT.itemsize

COLD = np.dtype([
    ("place", "u4"), ("deadline", "u4"),          # its timer's (wheel.TIMER)
    ("opening", "u4"),                            # its OPENING record, where it OPENS; see below
    ("stamp_shift", "u4"),                        # added to the client's TSval toward the target, where AGED; see below
    ("target_stamp", "u4"),                       # TSval of the target's SYN-ACK, or a later one of its that was kept
    ("target", "u2"), ("service", "u2"),          # target is NO_TARGET until one was chosen
    ("special", "u2"),                            # DECLINED and the other bits of what is not as usual
    ("source", "u2"),                             # which of the source addresses toward the target is its own
    ("agreed", "u1"),                             # PROMISED_*, and the scale to the client
    ("known", "u1"),                              # four bits a side of what its last duplicate acknowledgement has told
    ("duplicates", "u1"), ("last_duplicate", "u1"),  # for ACK storms: how many in turn; second * 2 + side
])
"""What time-outs, rare cases and the end of a connection touch: 32 bytes, its timer among them.

`opening` is also the next free connection of a free one (free_list.py). Where a connection OPENS no more, `opening` is the
number behind what it owned, as the target sees it, and `stamp_shift` the client's TSval; where that is AGED, `opening` is the
latter: see opening.py.
"""

OPENING = np.dtype([
    ("client_isn", "u4"), ("proxy_isn", "u4"),    # initial numbers of the client's SYN and of our SYN-ACK
    ("syn_isn", "u4"),                            # initial number of our SYN to the target
    ("since", "u4"),                              # tick at which a handshake state was entered
    ("retry", "u4"),                              # tick of the next retransmission of ours, 0 for none
    ("held", "u4"),                               # slot of the held bytes, or NO_HELD
    ("first_stamp", "u4"), ("stamp", "u4"),       # TSval of the client's SYN, and its latest one
    ("mss", "u2", (2,)),                          # each side's
    ("failed", "u2", (2,)),                       # targets that have failed this connection, or NO_TARGET
    ("window", "u2", (1,)),                       # the client's last, as on the wire, where it is kept
    ("tries", "u1"), ("wrapped", "u1"),           # retransmissions so far; sides (1 << side) whose `next` has passed 2**32
    ("opening", "u4"),                            # of a free record: the next free one
    ("header", "u2"),                             # bytes of the PROXY header that lie before what the client has sent, 0 without
    ("answer", "u1"), ("answers", "u1"),          # octet of ours that the client has not acknowledged, 0 for none; how many so far
    ("room", "u4", (3,)),
])
"""What a connection needs until it is spliced, and its held bytes have arrived: 64 bytes, of which there are fewer than of
connections. The few whose target splits what passes, does without timestamps, or shows it to payload kernels (LASTING)
need it as long as they live."""


DELIVERY = np.dtype([
    ("sent", "i8"), ("acked", "i8"),              # bytes sent and acknowledged, a FIN counts as one
    ("edge", "i8"), ("widest", "i8"),             # where the target's window ends, and the widest it has shown
    ("congestion", "i8"), ("threshold", "i8"),    # congestion window and slow start threshold (RFC 5681)
    ("recover", "i8"),                            # bytes sent when fast recovery began, 0 outside of it (RFC 6582)
    ("duplicates", "u4"), ("doublings", "u2"),    # acknowledgements without progress; of the time-out
    ("timeout", "u2"),                            # ticks until what is not acknowledged is sent again
])
"""How far the held bytes of a slot have been brought to the target: 64 bytes, counted from the first held byte."""


class Held(NamedTuple):
    """Payload received before the target could take it (SPLICE 1.4): slots that are filled up to `limit` bytes.

    They are `stride` bytes long: where payload kernels can lengthen what is held, that is more. Behind them lie the 256
    values of an octet, for what we answer of our own (answers.py).
    """

    octets: np.ndarray      # uint8 [slots * stride + 256]
    length: np.ndarray      # int64 [slots] bytes held, contiguous from the client's first
    urgent: np.ndarray      # int64 [slots] how many of them the client has called urgent, from the first on; 0 for none
    delivery: np.ndarray    # DELIVERY [slots]
    free: np.ndarray        # int64 [slots] stack of free slots
    free_count: np.ndarray  # int64 [1]
    limit: np.ndarray       # int64 [1]
    stride: np.ndarray      # int64 [1]


class Segments(NamedTuple):
    """Segments that the engine sends of its own, to be built at the end of a burst. int64 columns."""

    filled: np.ndarray      # [1]
    connection: np.ndarray
    side: np.ndarray        # toward which side
    control: np.ndarray
    seq: np.ndarray         # in that side's numbers
    ack: np.ndarray
    window: np.ndarray
    mss: np.ndarray         # 0: no option
    held: np.ndarray        # offset of the payload in the held octets
    length: np.ndarray      # of the payload
    urgent: np.ndarray      # how many octets from `seq` on are urgent, 0 for none
    left: np.ndarray        # first number that is acknowledged selectively, and the one behind the last (RFC 2018); equal without
    right: np.ndarray


class Parts(NamedTuple):
    """Parts of the rows that are split in one pass (split.py), in order. int64 columns."""

    filled: np.ndarray      # [1]
    row: np.ndarray
    number: np.ndarray      # of the part within its row, from 0
    offset: np.ndarray      # of its first byte in the row's payload
    length: np.ndarray      # of its payload
    mbuf: np.ndarray        # what it was written into


class Listed(NamedTuple):
    """Connections waiting for a later stage, in order. int64."""

    filled: np.ndarray      # [1]
    connection: np.ndarray
    detail: np.ndarray      # what the stage wants to know of it


class Choices(NamedTuple):
    """Connections ready to be given a target, in order. int64."""

    filled: np.ndarray      # [1]
    connection: np.ndarray
    row: np.ndarray         # the batch's row of the SYN that is to be passed on (mode `simple`), NO_ROW or ASK_NOBODY
    cause: np.ndarray       # why the connection ends if there is no target for it: REFUSED, or why the last one failed
    answer: np.ndarray      # what the select kernel answered


class Connections(NamedTuple):
    """All connections of a worker and what its stages share; setting up fills it, one worker alone touches it."""

    hot: np.ndarray         # HOT [capacity]
    cold: np.ndarray        # COLD [capacity]
    free: np.ndarray        # int64 [3] free connections, chained through `cold` (free_list.py)
    openings: np.ndarray    # OPENING [n]
    free_openings: np.ndarray  # int64 [3] the free ones of these, likewise
    buckets: np.ndarray     # flow_table.BUCKET [n], or what the kernel in the slot `lookup` has brought
    held: Held
    segments: Segments
    parts: Parts
    choices: Choices
    waiting: NamedTuple     # waiting_room.WaitingRoom
    deliveries: Listed      # have held bytes to send; detail: what (held_sender)
    shaped: NamedTuple      # shaping.Shaped
    proxied: NamedTuple     # proxy_protocol.Proxied
    touched: Listed         # their timer has to be set anew
    releases: Listed        # have ended; detail: release causes, client's + 256 * target's
    timeouts: np.ndarray    # int64 [services, 8] ticks by state
    budget: np.ndarray      # int64 [5] resets and challenges left, gained a second, microseconds of the last gain, tick; most
                            # duplicate acknowledgements in turn a second
    secret: np.ndarray      # int64 [2] key of the initial sequence numbers
    lingering: np.ndarray   # int64 [LINGERING, 2] hash and tick of keys that we have lately reset (SPLICE 4.2)
    limits: NamedTuple      # limits.Limits
    wraps: np.ndarray       # uint16 [as many as have records, 2] how often `next` of each side has passed 2**32
    counters: Counters


def allocate_listed(capacity):
    """Returns an empty `Listed` of `capacity` rows."""
    return Listed(np.zeros(1, np.int64), np.zeros(capacity, np.int64), np.zeros(capacity, np.int64))


def allocate_choices(capacity):
    """Returns empty `Choices` of `capacity` rows."""
    return Choices(np.zeros(1, np.int64), *(np.zeros(capacity, np.int64) for _ in Choices._fields[1:]))


def allocate_segments(capacity):
    """Returns empty `Segments` of `capacity` rows."""
    return Segments(np.zeros(1, np.int64), *(np.zeros(capacity, np.int64) for _ in Segments._fields[1:]))


def allocate_parts(capacity):
    """Returns empty `Parts` of `capacity` rows."""
    return Parts(np.zeros(1, np.int64), *(np.zeros(capacity, np.int64) for _ in Parts._fields[1:]))


def allocate_held(slots, limit, stride):
    """Returns `Held` of `slots` slots of `stride` bytes that take up to `limit`, all free."""
    octets = np.concatenate([np.zeros(slots * stride, np.uint8), np.arange(256, dtype=np.uint8)])
    return Held(octets, np.zeros(slots, np.int64), np.zeros(slots, np.int64),
                np.zeros(slots, DELIVERY).view(np.recarray),
                np.arange(slots, dtype=np.int64)[::-1].copy(), *(np.array([value], np.int64) for value in (slots, limit, stride)))


@kernel
def note(listed, connection, detail):
    """Appends a connection to a list. A full list forgets it: lists hold more rows than a burst can add."""
    row = listed.filled[0]
    if row < listed.connection.shape[0]:
        listed.connection[row] = connection
        listed.detail[row] = detail
        listed.filled[0] = row + 1


@kernel
def ask(connections, connection, row, cause):
    """Lists a connection in `choices`, once however many segments of a burst make it ready for a target.

    `row` and `cause` as in `Choices`.
    """
    hot, choices = record_at(connections.hot, connection), connections.choices
    filled = choices.filled[0]
    if hot.options & ASKED == 0 and filled < choices.connection.shape[0]:
        hot.options |= ASKED
        choices.connection[filled] = connection
        choices.row[filled] = row
        choices.cause[filled] = cause
        choices.filled[0] = filled + 1


@kernel
def emit(connections, connection, side, control, seq, ack, window, mss, held, length):
    """Orders a segment of the engine's own toward `side`; counted as dropped where the burst has too many."""
    segments = connections.segments
    row = segments.filled[0]
    if row >= segments.seq.shape[0]:
        connections.counters.drops[DROP_SEGMENTS_FULL] += 1
        return
    segments.connection[row] = connection
    segments.side[row] = side
    segments.control[row] = control
    segments.seq[row] = seq
    segments.ack[row] = ack
    segments.window[row] = window
    segments.mss[row] = mss
    segments.held[row] = held
    segments.length[row] = length
    segments.urgent[row], segments.left[row], segments.right[row] = 0, 0, 0
    segments.filled[0] = row + 1


@kernel
def emit_acknowledgement(connections, connection, side, seq, ack, window, sack, left, right):
    """Orders a bare acknowledgement; where `sack` was agreed, numbers left .. right - 1, if any, are acknowledged selectively."""
    segments = connections.segments
    row = segments.filled[0]
    emit(connections, connection, side, ACK, seq, ack, window, 0, 0, 0)
    if segments.filled[0] > row and sack:
        segments.left[row], segments.right[row] = left, right


@kernel
def copy_segment(segments, row, to):
    """Copies an ordered segment to another row."""
    segments.connection[to], segments.side[to], segments.control[to] = segments.connection[row], segments.side[row], segments.control[row]
    segments.seq[to], segments.ack[to], segments.window[to] = segments.seq[row], segments.ack[row], segments.window[row]
    segments.mss[to], segments.held[to], segments.length[to] = segments.mss[row], segments.held[row], segments.length[row]
    segments.urgent[to], segments.left[to], segments.right[to] = segments.urgent[row], segments.left[row], segments.right[row]


@kernel
def withdraw(connections, connection, side):
    """Takes back the segments that this burst has ordered toward one side of a connection."""
    segments, kept = connections.segments, 0
    for row in range(segments.filled[0]):
        if segments.connection[row] == connection and segments.side[row] == side:
            continue
        if kept != row:
            copy_segment(segments, row, kept)
        kept += 1
    segments.filled[0] = kept


@kernel
def enter(connections, connection, state):
    """Puts a connection in `state`, keeps the count by state, and has its timer set anew."""
    hot = record_at(connections.hot, connection)
    connections.counters.states[hot.state] -= 1
    connections.counters.states[state] += 1
    hot.state = state
    note(connections.touched, connection, 0)


@kernel
def count_wrap(connections, connection, side):
    """Counts that `next` of a side has passed 2**32, for the records; and marks it while the connection OPENS."""
    cold, wraps = record_at(connections.cold, connection), connections.wraps
    if connection < wraps.shape[0]:
        wraps[connection, side] += 1
    if cold.special & OPENS:
        opening = record_at(connections.openings, int64(cold.opening))
        opening.wrapped = int64(opening.wrapped) | (1 << side)


@kernel
def move_on(connections, connection, side, number):
    """Moves `next` of a side on to a number, and counts where it passes 2**32, for the records."""
    hot = record_at(connections.hot, connection)
    if number < int64(hot.next[side]):
        count_wrap(connections, connection, side)
    hot.next[side] = number


@kernel
def end(connections, connection, client_cause, target_cause):
    """Ends a connection: from here on it counts as FREE; the release stage gives back what it holds."""
    hot = record_at(connections.hot, connection)
    if hot.state != FREE:
        connections.counters.states[hot.state] -= 1
        connections.counters.states[FREE] += 1
        hot.state = FREE
        note(connections.releases, connection, client_cause + 256 * target_cause)
