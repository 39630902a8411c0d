"""What the proxy may send of its own, and with which numbers (SPLICE 1.2 to 1.4, 2, 3.1, 4.1, 4.2)."""
from .before_binding import unbind
from .ends import (
    CLIENT,
    CONNECTING,
    ECN,
    FIRST_DATA,
    NO,
    SACK,
    SCALING,
    STAMPS,
    SYN_RECEIVED,
    TARGET,
    YES,
    End,
    Fault,
)
from .services import HELD, TIMEOUTS
from .wire import ACK, CWR, ECE, FIN, MASK, PSH, RST, SYN, options_of, signed

MSS, SCALE, SACK_PERMITTED, SACK_BLOCKS, TIMESTAMPS = 2, 3, 4, 5, 8
HIGHEST_SCALE = 14
SMALL = 536
"""A window that any host has (RFC 9293, section 3.7.1)."""
LEAST_MSS, MOST_MSS = 88, 1460
AGAIN = 5_000_000
"""Microseconds within which a source port is certainly used again too soon: less than twice any segment's lifetime."""
FIRST_DATA_TIME = round(TIMEOUTS["first_data"] * 1_000_000)


def require(condition, rule, *shown):
    """Raises Fault with the rule that was broken."""
    if not condition:
        raise Fault(f"{rule} {' '.join(str(each) for each in shown)}".rstrip())


CLOCK = [False]
"""Whether time has just passed, so that what is owned may be sent again."""
def agreed_options(came):
    """Returns what a SYN or SYN-ACK carries: bits, MSS, scale, TSval and TSecr."""
    options = options_of(came.options)
    require(options is not None, "options are well formed")
    values = dict(options)
    require(len(values) == len(options), "no option stands twice")
    require(not values.keys() - {MSS, SCALE, SACK_PERMITTED, TIMESTAMPS}, "rule 2.2: no unknown option is agreed to")
    setup = ECE if came.control & ACK else ECE | CWR                     # RFC 3168, section 6.1.1
    bits = (SACK * (SACK_PERMITTED in values) | SCALING * (SCALE in values) | STAMPS * (TIMESTAMPS in values)
            | ECN * (came.control & (ECE | CWR) == setup))
    stamps = values.get(TIMESTAMPS, bytes(8))
    return (bits, int.from_bytes(values.get(MSS, b"\0\0")), int.from_bytes(values.get(SCALE, b"\0")),
            (int.from_bytes(stamps[:4]), int.from_bytes(stamps[4:])))


def sent(connection, side, came, now, dice):
    """Checks a frame of the proxy's own toward an end; what it owed is paid. Returns what it was."""
    capable = side == TARGET and connection.accepted & ECN and came.payload
    marks = ((0, 2, 3) if connection.marked else (0, 2)) if capable else (0,)
    require(came.sane and came.ttl > 1 and came.tos & 3 in marks, "headers of the proxy's own are right")
    control = came.control
    if control & RST:
        return _reset(connection, side, came, now)
    if control & SYN:
        return _syn_ack(connection, came, now) if side == CLIENT else _syn(connection, came, now, dice)
    require(control & ACK, "every other segment acknowledges (RFC 9293, 3.10.4)")
    _stamped(connection, side, came, now)
    if side == TARGET:
        return _to_target(connection, came)
    require(not came.payload, "nothing is forged: the proxy has no payload for a client")
    return _fin(connection, came) if control & FIN else _acknowledgement(connection, came)


def pay(connection, *names):
    """Takes the first of these off what the proxy owes, or finds that it may send it; else it is a fault."""
    for name in names:
        if name in connection.owes:
            del connection.owes[name]
            connection.may.add(name)   # it may be sent once for each cause, and causes may be one burst apart
            return name
    for name in names:
        if name in connection.may or name == "repeat" and CLOCK[0]:
            return name
    raise Fault(f"nothing is sent without cause: none of {names} is owed or permitted")


def _place(connection, side, came):
    """Returns position and acknowledged position that a frame toward `side` shows."""
    first, second = connection.seen[1 - side], connection.ends[side].isn
    require(first is not None, "an end that has not been named gets nothing")
    return signed(came.seq - first & MASK), signed(came.ack - second & MASK)


def _near(number, position):
    """Returns the position nearest to `position` that is the same modulo 2**32 as `number`."""
    return position + signed(number - position & MASK)


def _stamped(connection, side, came, now):
    """Timestamps of the proxy's own segments (SPLICE 2.4; RFC 7323, section 3.2)."""
    options = options_of(came.options)
    require(options is not None, "options are well formed")
    for block in [value for kind, value in options if kind == SACK_BLOCKS]:
        _selective(connection, side, block)
    options = [(kind, value) for kind, value in options if kind != SACK_BLOCKS]
    require(all(kind == TIMESTAMPS for kind, _ in options), "only timestamps and one block of what came early stand in an ACK")
    agreed = connection.agreed & STAMPS if side == CLIENT else connection.accepted & STAMPS
    require(bool(options) == bool(agreed), "rule 2.5: timestamps stand in each segment where they were agreed, or in none")
    if agreed:
        value, echoed = int.from_bytes(options[0][1][:4]), int.from_bytes(options[0][1][4:])
        if side == CLIENT:
            _clock(connection, value, now)
            _of_clock(connection.ends[CLIENT], echoed, now, "rule 2.4: TSecr is a TSval of the client's")
        else:
            own = value - connection.client_shift & MASK
            _of_clock(connection.ends[CLIENT], own, now, "rule 2.4: P's segments carry a TSval of the client's")
            _of_clock(connection.ends[TARGET], echoed, now, "rule 2.4: TSecr is a TSval of the target's")


def _selective(connection, side, block):
    """One block of what has come before what it follows, in an acknowledgement toward the client before it is bound (RFC 2018)."""
    require(side == CLIENT and connection.agreed & SACK and len(block) == 8, "blocks stand where they were agreed")
    at, last = (signed(int.from_bytes(block[place:place + 4]) - connection.ends[CLIENT].isn & MASK) for place in (0, 4))
    require(at < last, "a block is not empty", at, last)
    for first, stop in sorted(connection.early):
        if first <= at:
            at = max(at, stop)
    require(last <= at, "what is acknowledged selectively has come", last, connection.early)


def _of_clock(end, value, now, rule):
    """A timestamp that an end has shown since its SYN."""
    shown = signed(value - end.stamp_start & MASK)
    require(end.first_stamp <= shown <= now // 1000, rule, shown, now // 1000)


def _clock(connection, value, now):
    """The proxy's TSval toward the client: milliseconds; once spliced, no more than the target's clock may have shown."""
    before, at = connection.proxy_stamp
    passed, due = signed(value - before & MASK), (now - at) / 1000
    if connection.bound and connection.accepted & STAMPS:
        require(-2 <= passed <= due + 2, "rule 2.4: TSval does not run ahead of the target's", passed, due)
        return
    require(abs(passed - due) <= 2, "rule 2.4: TSval is a clock of milliseconds", passed, due)
    connection.proxy_stamp = value, now


def _syn_ack(connection, came, now):
    require(came.control & ~0xC0 == SYN | ACK and not came.payload, "a SYN-ACK is nothing else")
    pay(connection, "syn_ack", *(("repeat",) if connection.states >> SYN_RECEIVED & 1 else ()))
    client, service = connection.ends[CLIENT], connection.service
    require(came.ack == client.isn + 1 & MASK, "rule 2.2: data in a SYN is ignored, the SYN is acknowledged")
    require(0 < came.window <= HELD, "rule 1.3: the window is not zero and at most what is held", came.window)
    bits, mss, scale, stamps = agreed_options(came)
    require(LEAST_MSS <= mss <= MOST_MSS, "rule 2.6: the MSS fits the path", mss)
    if connection.seen[TARGET] is None:
        if connection.above is not None:
            require(signed(came.seq - connection.above & MASK) > 0, "rule 4.4: the new number lies above the old ones")
        connection.seen[TARGET] = came.seq
        connection.agreed, connection.proxy_scale, connection.proxy_stamp = bits, scale, (stamps[0], now)
        client.scale = connection.client_scale if bits & SCALING else 0
        client.limit, client.mss, client.recent = 1 + came.window, mss, stamps[0]
        require(bits & ~connection.offer == 0, "rule 2.1: nothing is agreed to that the client did not offer")
        require(bits & connection.declined == 0, "rule 2.1: nothing is promised that a target of the group has declined")
        require(bits & connection.declined_shared == 0, "rule 2.1: what a target declined is known for each group that it is in",
                bits)
        if connection.declined_shared == 0:
            require(bits == connection.offer, "nothing is stripped that no target has declined", bits, connection.offer)
    require(came.seq == connection.seen[TARGET], "the SYN-ACK keeps its number")
    require(bits | ECN == connection.agreed | ECN and scale == connection.proxy_scale <= HIGHEST_SCALE, "it keeps its options")
    connection.agreed = bits        # a SYN sent again may have given ECN up (RFC 3168, section 6.1.1.1)
    if bits & STAMPS:
        _of_clock(client, stamps[1], now, "TSecr of the SYN-ACK is the SYN's TSval")
        _clock(connection, stamps[0], now)
    connection.due = None
    return service.name


def _fall_back(connection, now):
    """A client that has not said enough in time gets the service's default target, where it has one (issue 3, part 2)."""
    if connection.service.default and now >= connection.entered + FIRST_DATA_TIME - 20_000:
        connection.states, connection.entered, connection.active = 1 << CONNECTING, now, now
        connection.tried = {connection.service.default}
        connection.fell_back = True


def _port_again(connection, came, bits, now):
    """A source port that was used not long ago: numbers and TSvals lie above the last ones used (SPLICE 3.2)."""
    client, place = connection.ends[CLIENT], (came.source, came.destination)
    before = connection.uses.get(place)
    connection.uses[place] = connection
    if before is None:
        require(came.seq == client.isn, "rule 1.1: the client's numbers pass unchanged", came.seq, client.isn)
    elif before is not connection and now - before.active < AGAIN:
        above = signed(came.seq - before.seen[CLIENT] - before.ends[CLIENT].top & MASK)
        require(above > 0, "rule 3.2: the initial number lies above the last one used", above)
        if bits & STAMPS and before.last_stamp is not None:
            value = client.stamp_start + client.first_stamp + connection.client_shift
            later = signed(value - before.last_stamp & MASK)
            require(later > 0, "rule 3.2: the TSval lies above the last one used", later)


def _perhaps_later(connection, value, now):
    """A further SYN to a target may carry a later TSval of the client's than its first: what came before it is gone."""
    client = connection.ends[CLIENT]
    shown = signed(value - client.stamp_start & MASK)
    if connection.replaces and client.first_stamp <= shown <= now // 1000:
        client.first_stamp = shown


def _syn(connection, came, now, dice):
    require(came.control & ~0xC0 == SYN and not came.payload and came.ack == 0, "a SYN is nothing else")
    if connection.states == 1 << FIRST_DATA and CLOCK[0]:
        _fall_back(connection, now)
    elsewhere = connection.bound and (came.source, came.destination) != (connection.local, connection.target.place)
    if elsewhere and connection.perhaps_refused:
        unbind(connection, now)
    connecting = connection.states >> CONNECTING & 1
    pay(connection, "syn", "refusal", *(("repeat",) if connecting else ()))
    bits, mss, scale, stamps = agreed_options(came)
    client = connection.ends[CLIENT]
    again = connection.local == came.source and connection.target.place == came.destination
    asked = connection.agreed & ~ECN if again and not bits & ECN else connection.agreed   # RFC 3168, section 6.1.1.1
    require(bits == asked, "rule 2.1: the target is offered exactly what was promised", bits, connection.agreed)
    require(scale == (connection.client_scale if bits & SCALING else 0), "the client's window scale goes to the target")
    require(LEAST_MSS - 12 <= mss <= client.takes, "the target is told no larger MSS than the client's", mss)
    require(stamps[1] == 0, "TSecr of a SYN is zero (RFC 7323, section 3.2)", stamps)
    if bits & STAMPS:
        _perhaps_later(connection, stamps[0], now)
        shift = stamps[0] - client.stamp_start - client.first_stamp & MASK
        require(shift == connection.client_shift if again else shift == 0 or (came.source, came.destination) in connection.uses,
                "rule 2.4: the SYN carries the lowest TSval", stamps)
        connection.client_shift = shift
    if connection.local != came.source or connection.target.place != came.destination:
        matching = [target for target in connection.service.targets if target.place == came.destination]
        require(matching, "a target of the service is chosen")
        tried = connection.tried if connection.ends[TARGET] is None else None
        require(not tried or matching[0] in tried, "the target is the one that the octets name", matching[0].name)
        require(connection.ends[TARGET] is None or not connection.bound, "rule 3.1: no other target after the first held octet")
        connection.target, connection.local = matching[0], came.source
        target = connection.ends[TARGET] = End(came.destination, dice.randrange(1 << 32))
        connection.seen[CLIENT] = came.seq
        _port_again(connection, came, bits, now)
        target.mss, target.recent, target.limit = mss, stamps[0], 1 + came.window
        target.takes = dice.choice((1460, 1400, 536, 536, 300, 100))
        target.stamp_start = dice.choice((-3000, 0, dice.randrange(1 << 32))) & MASK
        target.first_stamp = now // 1000
        target.window = dice.choice((8192, 65535, 2048, 2048, 1024, 300))
        target.scale = matching[0].scale if bits & matching[0].accepts & SCALING else 0
        connection.entered = connection.active = now
    if not connection.bound:
        connection.asked, connection.accepted = bits, bits & connection.target.accepts
    require(came.seq == connection.seen[CLIENT], "the SYN keeps its number")
    connection.due = None
    return "syn"


def _reset(connection, side, came, now):
    """A RST answers a segment, or ends the connection with what its receiver acknowledged last (SPLICE 4.2)."""
    require(not came.payload and came.control & ~ACK == RST, "a RST is nothing else")
    position, acknowledged = _place(connection, side, came)
    for answer in connection.answers:
        if answer[0] == side and came.control == RST and signed(answer[2] - position & MASK) == 0:
            connection.answers.remove(answer)
            return "answer"
    end = connection.ends[side]
    position = _near(position, end.told)
    low, high = (connection.marks[side], end.told_may) if connection.bound or side == TARGET else (1, 1)
    if connection.bound and connection.ends[1 - side].false_fin:    # behind it no numbers are followed: what was acknowledged since is not known
        low = 1
    require(max(low, 1) <= position <= max(high, 1), "rule 4.2: a RST carries what its receiver acknowledged last", position,
            (low, high))
    if came.control & ACK and connection.bound:
        other = connection.ends[1 - side]
        acknowledged = _near(acknowledged, other.told)
        least = other.told if side == TARGET else min(other.told, connection.own_ack)
        require(least <= acknowledged <= max(other.told_may, connection.have_may + 2),
                "a RST acknowledges what was acknowledged", acknowledged)
    if side == TARGET and "reset_target" in connection.owes:
        pay(connection, "reset_target")
    elif side == CLIENT and ("refused" in connection.owes or "refusal" in connection.owes):
        pay(connection, "refused", "refusal")
    connection.resets[side] = True
    return "RST"


def _fin(connection, came):
    require(connection.leaving, "the proxy closes only toward a client that closed without a word")
    pay(connection, "fin", "repeat")
    position, acknowledged = _place(connection, CLIENT, came)
    require(came.control & ~PSH == FIN | ACK and position == 1 and acknowledged == connection.have + 2,
            "the FIN of a client that closed without a word is answered", position, acknowledged)
    connection.due = None
    return "FIN"


def _acknowledgement(connection, came):
    """A bare acknowledgement toward the client: a challenge, or of octets that are now the proxy's (SPLICE 1.2, 4.1)."""
    position, acknowledged = _place(connection, CLIENT, came)
    client, target = connection.ends
    if not connection.bound:
        fin = connection.fin_held
        require(position == (1 if not connection.leaving else position) and position in (1, 2),
                "an acknowledgement carries the number that comes next", position)
        lowest, highest = connection.have + 1 + (fin == YES), connection.have_may + 1 + (fin != NO)
        name = pay(connection, *(("gap", "more") if acknowledged == connection.own_ack else ("more", "gap")), "challenge")
        if name != "more" and acknowledged == connection.own_ack:
            return name
        require(connection.own_ack <= acknowledged <= highest, "it acknowledges what is held", acknowledged, (lowest, highest))
        if acknowledged < lowest and name == "more" and connection.states == 1 << FIRST_DATA:
            connection.owes["more"] = None    # one more has to come, for what came later
        require(came.window > 0, "rule 1.3: the proxy never advertises zero")
        connection.have = max(connection.have, acknowledged - 1 - (fin == YES))
        connection.have_may = max(connection.have_may, connection.have)
        connection.own_ack = connection.own_ack_may = max(connection.own_ack, acknowledged)
        window = came.window << connection.scale_toward(CLIENT)
        client.limit = max(client.limit, acknowledged + window)
        return name
    pay(connection, "challenge")
    position, acknowledged = _near(position, client.told), _near(acknowledged, target.told)
    require(connection.marks[CLIENT] <= position <= client.told_may, "rule 4.1: a challenge repeats the last numbers relayed",
            position, (client.told, client.told_may))
    owned = connection.have_may + 1 if connection.own_ack > 1 else 0
    require(connection.marks[TARGET] <= acknowledged <= max(target.told_may, connection.own_ack_may, owned),
            "rule 4.1: a challenge repeats the last acknowledgement relayed", acknowledged, (target.told, target.told_may))
    connection.own_ack_may = max(connection.own_ack_may, min(acknowledged, owned))
    require(acknowledged >= connection.own_ack, "rule 1.2: acknowledgements never go back below the proxy's own", acknowledged,
            connection.own_ack)
    window = came.window << connection.scale_toward(CLIENT)
    require(acknowledged + window <= max(target.edge, target.edge_may, client.limit) or _small(connection, CLIENT, came),
            "rule 4.1: a challenge offers no more window than the target has", acknowledged + window,
            max(target.edge, client.limit))
    return "challenge"


def _small(connection, side, came):
    """Says whether a window is the least that can be shown, or no more than one small segment's: not known is not zero."""
    return came.window <= 1 or came.window << connection.scale_toward(side) <= SMALL


def _to_target(connection, came):
    """Held octets, the last step of the handshake, or a challenge."""
    answered = connection.bound or connection.replaces and connection.may & {"ack_target", "challenge_target"}    # then it reset
    require(answered, "a target gets nothing but a SYN before it has answered")
    client, target = connection.ends
    position, acknowledged = _place(connection, TARGET, came)
    position, acknowledged = _near(position, target.told), _near(acknowledged, client.told)
    require(connection.marks[CLIENT] <= acknowledged <= client.told_may, "the acknowledgement is the client's last", acknowledged,
            (client.told, client.told_may))
    offered = acknowledged + (came.window << connection.scale_toward(TARGET))
    require(offered <= max(client.edge, client.edge_may) or _small(connection, TARGET, came),
            "the proxy offers no more window than the client has", offered, client.edge)
    closes = came.control & FIN
    if not came.payload and not closes:
        pay(connection, "challenge_target", "ack_target", *(("held",) if connection.have_may == 0 else ()))
        require(connection.marks[TARGET] <= position <= target.told_may or position == 1,
                "it carries the number that comes next", position)
        return "ACK"
    return _held(connection, came, position, closes)


def _held(connection, came, position, closes):
    """Held octets are the first copies, within what is held, the target's MSS and its window (SPLICE 1.2, 1.4)."""
    target, length = connection.ends[TARGET], len(came.payload)
    require(connection.marks[2] != YES, "rule 1.4: held octets are not sent again once acknowledged")
    last = position + length
    require(1 <= position and last <= connection.have_may + 1, "rule 1.2: only what is held is sent", position, last)
    require(length <= target.takes - connection.extra(TARGET), "held octets are cut to the target's MSS", length, target.mss)
    require(came.payload == connection.data(CLIENT, position, length), "rule 1.4: the first copy of each octet is what is sent")
    edge = max(target.edge, target.edge_may)
    probes = length == 1 and position <= edge   # a closed window (RFC 9293, 3.8.6.1)
    require(last <= edge or probes, "rule 1.2: held octets go out within the target's window", last, target.edge)
    if closes:
        held = connection.fin_held != NO and connection.have + 1 <= last <= connection.have_may + 1
        client = connection.ends[CLIENT]
        require(held or client.fin_seen != NO and client.fin == last, "a FIN goes where the client's is", last, client.fin)
        connection.fin_sent = True
    if position <= connection.covered + 1:
        connection.covered = max(connection.covered, last - 1)
    if position <= target.heard < last + closes and not target.dead:
        target.heard = min(last + closes, max(target.edge, target.heard))
        target.closed |= bool(closes) and target.heard == last + 1
    connection.due = None
    return "held"
