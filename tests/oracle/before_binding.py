"""What a segment may do to a connection that has no live target yet (SPLICE 1.2 to 1.4, 3, 4.5; RFC 9293, 3.10.7.4)."""
from .ends import (
    CLIENT,
    CONNECTING,
    FIN_WAIT,
    FIRST_DATA,
    NO,
    STAMPS,
    SYN_RECEIVED,
    TARGET,
    YES,
)
from .services import HELD, MORE, REFUSE, choose
from .wire import ACK, FIN, MASK, RST, SYN

ONLY = {state: 1 << state for state in range(8)}


def opens(connection, segment, now):
    """The first SYN: the proxy answers it with its SYN-ACK."""
    client = connection.ends[CLIENT]
    client.sent = max(client.sent, 1)
    connection.states, connection.entered, connection.active = ONLY[SYN_RECEIVED], now, now
    client.first_stamp, client.edge = now // 1000, 1 + segment.window
    connection.owes["syn_ack"] = None
    expect_repeat(connection, "syn_ack", now, 1_400_000)


def expect_repeat(connection, what, now, within):
    """What the proxy owns has to be sent again, unless answered, within that many microseconds (SPLICE 3.1)."""
    connection.due, connection.patience = what, now + within


def from_client(connection, segment, now):
    """A client's segment in SYN_RECEIVED, FIRST_DATA, CONNECTING, or after it closed without a word."""
    if not segment.intact:
        return
    control, ack = segment.control, segment.ack
    if control & RST:
        _reset(connection, segment)
    elif control & SYN:
        if connection.states & ONLY[SYN_RECEIVED] and segment.position == 0 and not control & (ACK | FIN):
            connection.owes["syn_ack"] = None
        else:
            connection.may |= {"syn_ack", "challenge"}
    elif control & ACK == 0:
        connection.may.add("challenge")
    elif connection.leaving and ack == 2:
        connection.end()
    elif ack != 1:
        _wrong_acknowledgement(connection, segment)
    else:
        _acceptable(connection, segment, now)


def _reset(connection, segment):
    """Before binding the proxy is the end point, and knows which number comes next (RFC 5961, section 3.2)."""
    first, last = _next(connection)
    if first <= segment.position <= last:
        connection.may |= {"challenge"} if first != last else set()
        if connection.states & ONLY[CONNECTING]:
            connection.owes["reset_target"] = None
        if first == last:
            connection.end()
        else:
            connection.may_end = True
            connection.states |= 1
            connection.may |= set(connection.owes)
            connection.owes = {}
    elif segment.position == connection.own_ack or connection.fin_held != NO and first - 1 <= segment.position <= last:
        # What the client was shown last, or would be: its FIN is not acknowledged before the target has done so.
        connection.may_end = True
        connection.states |= 1
        connection.may |= set(connection.owes) | {"reset_target", "challenge"}
        connection.owes = {}
    else:
        connection.may.add("challenge")


def _next(connection):
    """Returns the lowest and the highest position that the proxy may expect next of the client."""
    fin = connection.fin_held
    return connection.have + 1 + (fin == YES), connection.have_may + 1 + (fin != NO)


def _wrong_acknowledgement(connection, segment):
    """In SYN_RECEIVED a RST with its number; later only an acknowledgement, since the connection is synchronised."""
    answer = (CLIENT, RST, segment.ack)
    if connection.leaving:
        connection.may.add("challenge")
        connection.answers.append((*answer, False))
    elif connection.state() == SYN_RECEIVED:
        inside = 1 <= segment.position <= HELD
        connection.answers.append((*answer, inside and not connection.service.drops_strays))
        connection.may.add("challenge")
    else:
        connection.may |= {"challenge", "rst_in_first_data"}
        connection.answers.append((*answer, False))
        if segment.ack < 1:  # RFC 9293: an old acknowledgement may be ignored, and the text be processed
            _perhaps(connection, segment)


def _perhaps(connection, segment):
    """Text that may be taken, or not."""
    if segment.length and segment.position <= connection.have_may + 1 < segment.position + segment.length:
        connection.have_may = min(segment.position + segment.length - 1, HELD)
        connection.may |= {"more", "syn", "refused"}
        connection.loose = True


def _acceptable(connection, segment, now):
    """An acknowledgement of our SYN-ACK, with or without text and FIN."""
    client = connection.ends[CLIENT]
    client.edge = max(client.edge, 1 + (segment.window << client.scale))
    inside = 1 <= segment.position <= connection.have_may + 1 + HELD
    if connection.state() == SYN_RECEIVED:
        if not inside:  # its acknowledgement proves who it is, its number is wrong: RFC 9293 would only answer
            connection.states |= ONLY[FIRST_DATA]
            connection.may |= {"challenge", "syn"}
            if connection.service.rule == "first":
                connection.states |= ONLY[CONNECTING]
            connection.active = now
            return
        connection.states, connection.due = ONLY[FIRST_DATA], None
        connection.entered = now
        if connection.service.rule == "first" and not (
                segment.control & FIN and segment.end == 2):
            decide(connection, now)
    connection.active = now
    if segment.position < _next(connection)[1] or connection.gap_end:
        connection.may.add("challenge")      # a keep-alive or old text: RFC 9293 has it acknowledged (SPLICE 4.5)
        if connection.own_ack > 1:
            connection.may.add("more")
    if connection.leaving:
        if segment.control & FIN:
            connection.owes["fin"] = None
        return
    if segment.length or segment.control & FIN:
        _text(connection, segment, now)


def _text(connection, segment, now):
    """Text of the first flight. The first copy of each octet wins; what lies behind a gap may be kept (SPLICE 1.4)."""
    if connection.fin_held == YES:
        return
    first, last = segment.position, segment.position + segment.length - 1
    closes = segment.control & FIN
    before = connection.have
    if first > connection.have + 1:
        connection.early.append((first, segment.end))
    if first > connection.have_may + 1:
        if connection.states == ONLY[FIRST_DATA] and connection.have == connection.have_may and not connection.loose \
                and connection.fin_held == NO and first <= connection.have + HELD:
            connection.owes["gap"] = None    # RFC 5681, section 4.2
        connection.gaps.append((first, min(last, HELD)))
        connection.gap_end = max(connection.gap_end, last + 1)
        if closes:
            connection.loose = True
        connection.may.add("challenge")
        return
    if first > connection.have + 1:           # behind what it has for certain, within what it may have
        connection.have_may = max(connection.have_may, min(last, HELD))
        connection.loose |= bool(closes)
        _fill(connection)
        if connection.state() == FIRST_DATA and not connection.leaving:
            _may_decide(connection)
        return
    if last > connection.have:
        fits = last <= HELD
        if fits:
            connection.have = last
        connection.have_may = max(connection.have_may, min(last, HELD))
        _fill(connection)
    if closes:
        _fin(connection, segment, last, now)
    if connection.state() == FIRST_DATA and not connection.leaving and (
            connection.have > before or connection.fin_held or connection.have_may > connection.have):
        decide(connection, now)


def _fill(connection):
    """Joins kept segments to the octets that the proxy may hold without a gap."""
    again = True
    while again:
        again = False
        for first, last in connection.gaps:
            if first <= connection.have_may + 1 and last > connection.have_may:
                connection.have_may, again = last, True
    connection.gaps = [gap for gap in connection.gaps if gap[1] > connection.have_may]


def _fin(connection, segment, last, now):
    """A FIN in order. Without a word before it, in FIRST_DATA, the proxy closes by itself."""
    if last != connection.have:
        connection.loose |= last > connection.have
        return
    if connection.have_may > connection.have:
        connection.loose = True
    if connection.state() == FIRST_DATA and connection.have == 0:
        connection.leaving, connection.states = True, ONLY[FIN_WAIT]
        connection.entered = now
        connection.owes["fin"] = None
        connection.fin_held = YES
        expect_repeat(connection, "fin", now, 500_000)
    else:
        connection.fin_held = YES


def _may_decide(connection):
    """Notes what the service may answer where all that may be held is."""
    answer = choose(connection.service, connection.data(CLIENT, 1, connection.have_may), connection.have_may >= HELD)
    outcomes = set(answer) if isinstance(answer, tuple) else {answer}
    if outcomes != {MORE}:
        connection.may |= {"more", "refused", "syn"}
        connection.states |= ONLY[CONNECTING] | 1
        connection.tried = outcomes - {MORE, REFUSE}


def decide(connection, now):
    """Asks the service, and notes what the proxy owes for its answer; with octets that may be held, either answer goes."""
    complete = connection.fin_held == YES
    outcomes = set()
    for have in {connection.have, connection.have_may}:
        answer = choose(connection.service, connection.data(CLIENT, 1, have), complete or have >= HELD)
        outcomes |= set(answer) if isinstance(answer, tuple) else {answer}
    if "more" in connection.owes:
        del connection.owes["more"]
    connection.may.add("more")
    targets = outcomes - {MORE, REFUSE}
    if len(outcomes) > 1 and targets != outcomes:
        connection.may |= {"more", "refused", "syn"}
        connection.states |= ONLY[CONNECTING] | 1
        connection.tried = targets
        return
    if targets:
        connection.states, connection.entered = ONLY[CONNECTING], now
        if connection.service.scarce:      # of which none may be free
            connection.states |= 1
            connection.owes["refusal"] = None
        else:
            connection.owes["syn"] = None
        connection.tried = targets
        expect_repeat(connection, "syn", now, 1_400_000)
    elif outcomes == {REFUSE}:
        connection.owes["refused"] = None
        connection.states, connection.over = 1, True
    elif connection.have_may:
        connection.owes["more"] = None


def from_target(connection, segment, now):
    """A target's segment while the proxy connects to it."""
    target, control = connection.ends[TARGET], segment.control
    target.sent = max(target.sent, segment.end, 1 if control & SYN else 0)
    if not segment.intact:
        return
    if control & RST:
        if control & ACK and segment.ack == 1:
            connection.owes["refusal"] = None
            connection.states = 1 | ONLY[CONNECTING]
    elif control & (SYN | ACK | FIN) == SYN | ACK and segment.ack == 1:
        _bind(connection, segment, now)
    elif control & ACK:
        connection.answers.append((TARGET, RST, segment.ack, False))   # SPLICE 3.2; RFC 9293, 3.10.7.3
        connection.may |= {"syn", "ack_target"}


def unbind(connection, now):
    """The target has reset the connection before anything was sent: as if it had refused (SPLICE 3.1)."""
    connection.bound, connection.replaces, connection.all_held_acked = False, True, NO
    connection.may_end, connection.perhaps_refused = False, False
    connection.entered = connection.active = now
    connection.quiet_since, connection.reset_since = 0, None
    connection.may |= set(connection.owes)
    connection.owes = {"refusal": None}
    connection.states = 1 | ONLY[CONNECTING]


def _bind(connection, segment, now):
    """The target's SYN-ACK: what was held goes out, from here on it is a splice."""
    client, target = connection.ends
    connection.bound, connection.active, connection.entered = True, now, now
    target.sent = max(target.sent, 1)
    target.top = target.top_may = 1
    target.told = target.told_may = 1
    target.edge = 1 + segment.window
    client.told = client.told_may = 1
    client.fin_seen = connection.fin_held
    client.top, client.top_may = _next(connection)
    client.top_may = max(client.top_may, connection.gap_end)
    connection.all_held_acked = NO if connection.have_may or connection.fin_held else YES
    if segment.stamps and connection.accepted & STAMPS and connection.proxy_stamp:
        value, at = connection.proxy_stamp
        connection.stamp_shift, connection.shift_sure = (value + (now - at) // 1000 - segment.stamps[0]) & MASK, False
    connection.owes["held" if connection.have or connection.fin_held == YES else "ack_target"] = None
    connection.may |= {"held", "ack_target"}
    connection.due = None
    if connection.have and not connection.loose:
        expect_repeat(connection, "held", now, 500_000)
    connection.bound_states()
