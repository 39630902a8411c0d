"""What a segment of a bound connection may do, and whether it has to pass (SPLICE 1.1, 1.4, 1.5, 4; RFC 9293, RFC 5961)."""
from .before_binding import unbind
from .ends import CLIENT, MAYBE, NO, TARGET, TIME_WAIT, YES
from .wire import ACK, FIN, RST, SYN

MAY, MUST = 1, 2
OLD = 1 << 16
"""How far below the window a segment still is an old one that has to pass: the end point acknowledges it."""
WIDEST = (1 << 16 << 14) + OLD
"""The widest window that scaling allows: what lies beyond can be in none."""
STORM = 8
"""Acknowledgements without progress after which a connection's may be taken for a storm (SPLICE 4.3)."""


def relay(connection, segment, now):
    """A segment of either end: sets its `want`, and moves on what the proxy may know."""
    control = segment.control
    if connection.gives_port_back():
        connection.answers.append((segment.side, RST, segment.ack, False))
    if control & RST:
        _reset(connection, segment, now)
    elif control & SYN:
        _syn(connection, segment)
    elif control & ACK == 0:
        segment.want = 0
    else:
        _pass(connection, segment, now)


def _syn(connection, segment):
    """Into a live connection: challenged with the last numbers relayed, whatever its number (RFC 5961, section 4.2)."""
    if segment.intact:
        name = "challenge" if segment.side == CLIENT else "challenge_target"
        connection.owes[name] = None


def _reset(connection, segment, now):
    """One in the window passes; the exact one ends the connection (SPLICE 4.1)."""
    receiver = connection.ends[1 - segment.side]
    if not segment.intact:
        return
    low, high = receiver.told, receiver.told_may
    at = segment.position
    window = max(receiver.edge - low, 0)
    reach = max(1 << 16 << receiver.scale, window)
    if high <= at <= max(receiver.edge - 1, low):
        segment.want = MUST
    elif low - reach - OLD <= at <= high + reach + OLD:
        segment.want = MAY
    # Behind a FIN that an end never sent the proxy follows no numbers: what is exact for that end is not for the proxy.
    false = connection.ends[segment.side].false_fin
    if segment.side == TARGET and at == low and _refuses_after_all(connection, segment, now):
        return
    if low == high == at and not connection.states >> TIME_WAIT & 1 and segment.ttl > 1 and not false:
        connection.end()
    elif segment.want:
        if low <= at <= high or at == low:
            connection.may_end = True
            connection.bound_states()
        connection.active = now
        connection.aborts = [None, None]
        connection.aborts[segment.side] = at
        if connection.reset_since is None:
            connection.reset_since = now
    if segment.ttl <= 1:
        segment.want = 0


def untouched(connection):
    """Says whether no octet or FIN of the client's has gone to its target, and none of the target's came (SPLICE 3.1)."""
    client, target = connection.ends
    if target.top > 1 or target.fin_seen == YES or connection.covered or connection.fin_sent:
        return NO
    if connection.have_may or connection.fin_held != NO:    # the held octets may be on their way in this burst
        return MAYBE
    if client.top > 1 or client.fin_seen == YES:
        return NO
    certain = client.top_may == target.top_may == 1 and client.fin_seen == target.fin_seen == NO
    return YES if certain else MAYBE


def _refuses_after_all(connection, segment, now):
    """A target resets before anything was sent: another one is asked. Returns whether that is certain (SPLICE 3.1)."""
    sure = untouched(connection)
    if sure == YES and not connection.may_end and segment.ttl > 1:
        segment.want = 0
        unbind(connection, now)
        return True
    if sure != NO:
        segment.want = MAY
        connection.may_end, connection.perhaps_refused = True, True
        connection.bound_states()
        return True
    return False


def _pass(connection, segment, now):
    """Payload, acknowledgements and FINs."""
    side = segment.side
    me, peer = connection.ends[side], connection.ends[1 - side]
    first, last, ack, intact = segment.position, segment.end, segment.ack, segment.intact
    inside = intact and peer.told_may <= last <= peer.edge and first <= peer.edge
    near = peer.told - WIDEST <= last <= peer.told_may + WIDEST
    fresh = me.told_may < ack
    held = side == CLIENT and connection.all_held_acked != YES and segment.length and first <= connection.have_may
    if segment.ttl <= 1 or held and connection.all_held_acked == NO and first <= connection.have:
        segment.want = 0
    elif held or not intact or side == TARGET and _tells_of_owned(connection, segment):
        segment.want = MAY
    elif (inside or peer.told - OLD <= first and last <= peer.edge) and me.told - OLD <= ack <= peer.top:
        segment.want = MUST
        if segment.length == 0 and not fresh and not segment.control & FIN:
            connection.repeats += 1
            if connection.repeats > STORM:
                segment.want = MAY
        else:
            connection.repeats = 0
    else:
        segment.want = MAY
    tracked = inside and segment.want and not held
    if segment.want and (connection.may_end or connection.gives_port_back()):
        segment.want = MAY
    if near and segment.want:
        _crosses_abort(connection, segment, tracked)
    _follow(connection, segment, tracked, near)
    if peer.told <= last <= peer.told_may + WIDEST:  # one that dies here was heard as well; what is blind was not
        _heard_of(connection, now, tracked)


def _crosses_abort(connection, segment, tracked):
    """What acknowledges all before the other side's RST shows that to be exact; what its own side sends, that it was not (4.1)."""
    side = segment.side
    if tracked:
        connection.aborts[side] = None
    if connection.aborts[1 - side] is not None and segment.ack == connection.aborts[1 - side]:
        connection.may_end = True
        connection.bound_states()


def _tells_of_owned(connection, segment):
    """A bare acknowledgement of octets that the proxy has acknowledged itself: to the client it says nothing new."""
    bare = segment.length == 0 and not segment.control & FIN
    return bare and connection.own_ack > 1 and connection.all_held_acked != YES


def _heard_of(connection, now, certain):
    """Traffic: the idle time begins anew, and what an inexact RST did is undone (SPLICE 4.1)."""
    connection.active = now
    if certain:
        connection.quiet_since = now
        connection.reset_since = None


def _follow(connection, segment, certain, possible):
    """Moves numbers on: for certain, or perhaps."""
    side = segment.side
    me, peer = connection.ends[side], connection.ends[1 - side]
    last, ack = segment.end, segment.ack
    closes = segment.control & FIN
    after_fin = me.fin_seen == YES and me.fin is not None and last > me.fin + 1
    if certain and not after_fin:
        if last > me.top:
            me.top = last
        if ack <= peer.top:
            me.edge = max(me.edge, ack + (segment.window << me.scale))
    me.edge_may = max(me.edge_may, me.edge)
    if possible and segment.intact and ack <= peer.top_may:
        me.edge_may = max(me.edge_may, max(ack, me.told_may) + (segment.window << me.scale))
    if possible and not after_fin and last > me.top_may:
        me.top_may = last
    me.top_may = max(me.top_may, me.top)
    if ack > me.told:
        if certain and ack <= peer.top:
            me.told = ack
            me.told_may = max(me.told_may, ack)
        elif ack <= peer.top_may:
            me.told_may = max(me.told_may, ack)
    changed = False
    acknowledged = peer.fin is not None and ack >= peer.fin + 1
    if peer.fin_seen and peer.fin_acked != YES and (acknowledged or peer.false_fin):
        if certain and peer.fin_seen == YES and not peer.false_fin:
            peer.fin_acked, changed = YES, True
        elif possible:
            peer.fin_acked, changed = max(peer.fin_acked, MAYBE), True
    if closes and me.fin_seen != YES and (certain or possible and segment.intact):
        if certain and me.fin == last - 1:
            me.fin_seen, changed = YES, True
            me.top = me.top_may = last      # the end of the stream, whatever was seen beyond
        else:
            me.fin_seen, changed = MAYBE, True
            me.false_fin = me.false_fin or me.fin != last - 1
    if side == TARGET and connection.all_held_acked != YES and segment.intact:
        _held_is_acknowledged(connection, ack, certain)
    if changed:
        connection.bound_states()


def _held_is_acknowledged(connection, ack, certain):
    """The target has what was held: it need not, and must not, be sent again."""
    if ack > connection.have_may + (connection.fin_held != NO) and certain and ack <= connection.ends[CLIENT].top:
        connection.all_held_acked, connection.due = YES, None
    elif ack > connection.have and ack <= connection.ends[CLIENT].top_may:
        connection.all_held_acked, connection.due = MAYBE, None
