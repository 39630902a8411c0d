"""The two end points of a connection, reduced to what a proxy between them has to keep right."""
import collections
import random

from .wire import ACK, FIN, RST, SYN, flags_text

CLIENT, TARGET = 0, 1
FREE, SYN_RECEIVED, FIRST_DATA, CONNECTING, ESTABLISHED, HALF_CLOSED, FIN_WAIT, TIME_WAIT = range(8)
STATES = ("free", "syn_received", "first_data", "connecting", "established", "half_closed", "fin_wait", "time_wait")
"""States of a connection in the proxy, named like their time-outs (issue 3, part 5)."""
SACK, STAMPS, SCALING, ECN = 1, 2, 4, 8
NO, MAYBE, YES = 0, 1, 2
STORY = 60
"""Lines that are kept of each connection for the report of a fault."""
PERIOD = 65521
_OCTETS = random.Random(9293).randbytes(PERIOD)
STREAM = _OCTETS * 2
OTHER = bytes(octet ^ 0x5A for octet in _OCTETS) * 2


def state_of(fins, acks):
    """Returns the state of a bound connection by how many FINs were seen and acknowledged."""
    return TIME_WAIT if fins == acks == 2 else FIN_WAIT if fins == 2 else HALF_CLOSED if fins else ESTABLISHED


def _possible(choice):
    return (0,) if choice == NO else (1,) if choice == YES else (0, 1)


def _bound_masks():
    """Returns, by (FIN of client, of target, acknowledged, acknowledged), each NO, MAYBE or YES, the states allowed."""
    masks = {}
    for number in range(81):
        known = (number // 27, number // 9 % 3, number // 3 % 3, number % 3)
        masks[known] = 0
        for first in _possible(known[0]):
            for second in _possible(known[1]):
                for third in _possible(known[2]):
                    for fourth in _possible(known[3]):
                        if third <= first and fourth <= second:
                            masks[known] |= 1 << state_of(first + second, third + fourth)
    return masks


BOUND_MASKS = _bound_masks()


class End:
    """One TCP end point, and what of it has passed the proxy. Positions: `sent`, `fin` in its own stream; `heard`, `told`,
    `told_may`, `edge`, `limit` in the other's, but for `limit`, which is how far it may send.

    What has passed only perhaps (a wrong checksum, a number outside the window: SPLICE 1.5) moves the `_may` twin alone.
    """

    __slots__ = ("closed", "dead", "edge", "edge_may", "false_fin", "fin", "fin_acked", "fin_seen", "first_stamp", "heard", "isn",
                 "limit", "mss", "place", "recent", "scale", "sent", "stamp_start", "takes", "told", "told_may", "top", "top_may",
                 "window")

    def __init__(self, place, isn):
        self.place, self.isn = place, isn
        self.sent, self.fin, self.dead, self.closed = 0, None, False, False
        self.heard, self.told, self.told_may = 0, 0, 0        # next octet expected; highest acknowledgement sent
        self.top, self.top_may = 0, 0                         # end of what it has sent within the window
        self.edge, self.edge_may, self.limit = 0, 0, 0        # right edge of the windows it offered; of those offered to it
        self.scale, self.window = 0, 8192                     # `window` as it stands in the header
        self.mss, self.takes = 536, 536                       # octets a segment that it may send; that it announces
        self.fin_seen, self.fin_acked = NO, NO
        self.false_fin = False           # one that it has not sent may have been taken for its own
        self.stamp_start, self.first_stamp, self.recent = 0, 0, 0   # its clock, first shown; the last TSval it was shown


class Segment:
    """What an end sends. `position` and `ack` are positions; `want`: whether it MUST (2), MAY (1) or must not (0) pass."""

    __slots__ = ("ack", "connection", "control", "intact", "jump", "kind", "length", "position", "sack", "side", "stamps", "style",
                 "tos", "ttl", "twisted", "urgent", "want", "window")

    def __init__(self, connection, side, kind, control, position, ack, length=0):
        self.connection, self.side, self.kind, self.control = connection, side, kind, control
        self.position, self.ack, self.length = position, ack, length
        self.window, self.urgent, self.stamps, self.sack = 0, 0, None, ()
        self.twisted, self.jump, self.intact, self.style = False, False, True, False
        self.ttl, self.tos, self.want = 64, 0, 0

    @property
    def end(self):
        """Position behind its last octet, FIN included."""
        return self.position + self.length + (self.control & FIN)

    def __str__(self):
        return (f"{'client' if self.side == CLIENT else 'target'} {self.kind}: {flags_text(self.control)} at {self.position}"
                f"+{self.length} ack {self.ack} window {self.window}{' other octets' if self.twisted else ''}"
                f"{' stamps %s' % (self.stamps,) if self.stamps else ''}{' sack %s' % (self.sack,) if self.sack else ''}"
                f"{'' if self.intact else ' corrupt'} want {('nothing', 'may pass', 'must pass')[self.want]}")


class Connection:
    """One connection: its two ends, what the proxy is allowed to be in, what it owes, and what it holds."""

    def __init__(self, number, service, client, prefix):
        self.number, self.service, self.prefix = number, service, prefix
        self.ends = [End(client, 0), None]
        self.seen = [None, None]                              # the initial number of each end as the other sees it
        self.client_place, self.service_place = client, service.place
        self.target, self.local = None, None                  # the target and the proxy's place toward it
        self.states, self.row, self.entered = 1 << FREE, -1, 0
        self.bound, self.leaving, self.loose = False, False, False
        self.have, self.have_may = 0, 0                       # octets of the first flight that the proxy holds
        self.gaps, self.gap_end = [], 0                       # what came behind a gap, and where that ends
        self.early = []                                       # all that ever came behind a gap, each (first, behind its last)
        self.fin_held, self.all_held_acked, self.own_ack, self.own_ack_may = False, NO, 1, 1
        self.salt = (number * 9973 % PERIOD, number * 31337 % PERIOD)
        self.offer = self.agreed = self.asked = self.accepted = 0   # SACK, STAMPS, SCALING, ECN: of C, P to C, P to T, T
        self.declined, self.declined_shared, self.above = 0, 0, None  # by targets of the service, by its targets for others
        self.client_scale, self.proxy_scale = 0, 0
        self.proxy_stamp, self.stamp_shift, self.shift_sure = None, None, False
        self.client_shift, self.last_stamp, self.uses = 0, None, {}   # TSval toward the target; the last shown; of each port
        self.owes, self.may, self.answers = {}, set(), []
        self.quiet_since, self.active, self.reset_since = 0, 0, None
        self.aborts = [None, None]                            # position of a RST that may be exact to a receiver that is not there yet
        self.resets, self.may_end, self.over = [False, False], False, False
        self.before, self.last = None, collections.deque(maxlen=STORY)
        self.due, self.patience, self.tried = None, 1 << 30, set()
        self.covered, self.fin_sent, self.repeats = 0, False, 0   # of what is held: sent to the target; bare repetitions
        self.replaced, self.lingers, self.fell_back = False, False, False
        self.marked = False                                   # a router has marked octets of the first flight (RFC 3168)
        self.perhaps_refused, self.replaces = False, False    # by a target that had accepted: in this half round; ever
        self.marks = [0, 0, NO]                               # `told` of both ends, `all_held_acked` when this half round began

    def mark(self):
        """Remembers what was so when a half round began: what the proxy sends in it may still carry that."""
        self.marks = [end.told if end else 0 for end in self.ends] + [self.all_held_acked]

    def extra(self, side):
        """Returns how many octets of options each segment of an end carries."""
        return 12 if (self.agreed if side == CLIENT else self.accepted) & STAMPS else 0

    def scale_toward(self, side):
        """Returns by how much an end shifts the windows that it is shown."""
        if side == CLIENT:
            return self.proxy_scale if self.agreed & SCALING else 0
        return self.ends[CLIENT].scale if self.accepted & SCALING else 0

    def sacks(self, side):
        """Says whether an end may send selective acknowledgements."""
        return (self.agreed if side == CLIENT else self.accepted) & SACK != 0

    def free_of_held(self):
        """Says whether the target has for certain all that the proxy held."""
        return self.all_held_acked == YES

    def state(self):
        """Returns the state if only one is possible, else None."""
        mask = self.states
        return mask.bit_length() - 1 if mask & (mask - 1) == 0 else None

    def data(self, side, position, length, twisted=False):
        """Returns what a stream has at a position: the request's beginning, then octets that tell their place."""
        first = (self.salt[side] + position) % PERIOD
        octets = (OTHER if twisted else STREAM)[first:first + length]
        if side == CLIENT and position <= len(self.prefix) and not twisted:
            skip = position - 1
            if skip >= 0:
                part = self.prefix[skip:skip + length]
                return part + octets[len(part):]
            return (octets[:1 - position] + self.prefix)[:length] + octets[1 - position + len(self.prefix):]
        return octets

    def bound_states(self):
        """Sets `states` by what is known of the FINs."""
        first, second = self.ends
        self.states = BOUND_MASKS[first.fin_seen, second.fin_seen, first.fin_acked, second.fin_acked]
        if self.may_end or self.gives_port_back():
            self.states |= 1 << FREE

    def adopt(self, state, before, now):
        """Takes over the state that the proxy has chosen where several were allowed; `before` is the one before them."""
        self.may_end = False
        if not self.bound:
            if state != before:
                self.entered = now
            self.states = 1 << state
            return
        ends, allowed = self.ends, []
        for first in _possible(ends[0].fin_seen):
            for second in _possible(ends[1].fin_seen):
                for third in _possible(ends[0].fin_acked):
                    for fourth in _possible(ends[1].fin_acked):
                        if third <= first and fourth <= second and state_of(first + second, third + fourth) == state:
                            allowed.append((first, second, third, fourth))
        if allowed:
            known = [NO if not any(column) else YES if all(column) else MAYBE for column in zip(*allowed, strict=True)]
            ends[0].fin_seen, ends[1].fin_seen, ends[0].fin_acked, ends[1].fin_acked = known
        self.bound_states()

    def gives_port_back(self):
        """Says whether it may end at any time, since in TIME_WAIT its source port is needed for another (SPLICE 3.2)."""
        return self.service.scarce and self.states >> TIME_WAIT & 1 == 1

    def end(self):
        """The connection is over for the proxy; what it owed it need no longer send, but may have."""
        self.states, self.over = 1 << FREE, True
        self.may |= set(self.owes)
        self.owes = {}

    def note(self, text, *values):
        """Keeps one line for the report of a failure; formatted only then."""
        self.last.append((text, values))

    def story(self):
        """Returns the last lines of what happened to it (str)."""
        first = (f"connection {self.number} of {self.service.name}: client {self.ends[CLIENT].place} initial number "
                 f"{self.ends[CLIENT].isn} seen {self.seen}, states "
                 f"{[name for number, name in enumerate(STATES) if self.states >> number & 1]} have {self.have} "
                 f"may {self.have_may}")
        if self.ends[TARGET]:
            first += f"; target {self.ends[TARGET].place} initial number {self.ends[TARGET].isn}"
        return "\n".join([first, *("    " + text.format(*values) for text, values in self.last)])


class Fault(AssertionError):
    """The proxy has done what no rule permits."""


def kind_of(segment, receiver):
    """Returns the name under which transitions count a segment: what it is, and for a RST where it lies."""
    control = segment.control
    if control & RST:
        where = segment.position - receiver
        return "RST exact" if where == 0 else "RST inside" if 0 < where < 1 << 16 else "RST outside"
    if control & SYN:
        return "SYN-ACK" if control & ACK else "SYN"
    if control & ACK == 0:
        return "no ACK"
    data = "data " if segment.length else ""
    return f"{data}FIN" if control & FIN else "data" if segment.length else "ACK"
