"""What the ends of a connection send: ordinary segments, and segments at every edge of windows, numbers and states.

A move is a function (connection, side, dice) -> Segment, or None where it cannot be made. EDGE moves are aimed at an edge.
"""
from .ends import CLIENT, ECN, STAMPS, TARGET, Segment
from .services import HELD
from .wire import ACK, CWR, ECE, FIN, MASK, PSH, RST, SYN, URG

WIDE = [0.0]
"""How often a segment may fill the MSS: rounds of small segments are faster."""


def _own(connection, side, kind, control=ACK, position=None, ack=None, length=0):
    """Returns a segment of an end that is as it should be where nothing else is said."""
    me = connection.ends[side]
    made = Segment(connection, side, kind, control, me.sent if position is None else position,
                   me.heard if ack is None else ack, length)
    made.window = me.window
    return made


def _room(connection, side):
    """Returns how many octets an end may still send."""
    me = connection.ends[side]
    return 0 if me.fin is not None else me.limit - me.sent


def _length(connection, side, dice, most=64):
    me = connection.ends[side]
    if dice.random() < WIDE[0]:
        most = 1460
    return 1 + int(dice.random() * min(most, me.mss - connection.extra(side)))


# Ordinary segments of a bound connection.


def data(connection, side, dice):
    """The next octets of the stream, within the window."""
    length = min(_length(connection, side, dice), _room(connection, side))
    return _own(connection, side, "data", ACK | PSH, length=length) if length > 0 else None


def acknowledgement(connection, side, dice):
    """What has come is acknowledged, with the window as it is now."""
    me = connection.ends[side]
    if dice.random() < 0.3:
        me.window = dice.choice((8192, 65535, 1000, 300, 64))
    return _own(connection, side, "ack")


def jump(connection, side, dice):
    """The last octets of the window, as if all before them had gone another way."""
    me, peer = connection.ends[side], connection.ends[1 - side]
    length = _length(connection, side, dice)
    last = min(me.limit, peer.edge, peer.told + (dice.choice((1 << 29, 1 << 20, 65000))))
    if me.fin is not None or last - length <= me.sent or not connection.free_of_held():
        return None
    made = _own(connection, side, "jump", position=last - length, length=length)
    made.jump = True
    return made


def fin(connection, side, dice):
    """Closes, with or without a last octet."""
    me = connection.ends[side]
    if me.fin is not None:
        return _own(connection, side, "fin again", FIN | ACK, position=me.fin)
    length = min(_length(connection, side, dice), _room(connection, side)) if dice.random() < 0.5 else 0
    if me.sent + length > connection.ends[1 - side].edge:
        return None
    return _own(connection, side, "fin", FIN | ACK, length=max(length, 0))


# Edges of a bound connection.


def keep_alive(connection, side, dice):
    """One below the window, with or without an octet (RFC 9293, section 3.8.4)."""
    peer = connection.ends[1 - side]
    return _own(connection, side, "keep-alive", position=peer.told - 1, length=dice.random() < 0.5)


def at_start(connection, side, dice):
    """Begins at the window's first octet: sent before, or not; the same octets or others."""
    me, peer = connection.ends[side], connection.ends[1 - side]
    if me.fin is not None and me.fin <= peer.told or peer.told >= me.limit:
        return None
    length = min(_length(connection, side, dice), max(me.sent - peer.told, 1 if me.limit > me.sent else 0),
                 me.limit - peer.told)
    if me.fin is not None:
        length = min(length, me.fin - peer.told)
    made = _own(connection, side, "at start", position=peer.told, length=length) if length > 0 else None
    if made and length <= me.sent - peer.told:
        made.twisted = dice.random() < 0.3
    return made


def before_start(connection, side, dice):
    """Old octets that end just below the window, at its start, or one beyond."""
    me, peer = connection.ends[side], connection.ends[1 - side]
    length = _length(connection, side, dice)
    last = peer.told + dice.choice((-1, 0, 1))
    if last > me.sent or me.fin is not None and last > me.fin or last - length < 1:
        return None
    made = _own(connection, side, "before start", position=last - length, length=length)
    made.twisted = dice.random() < 0.3
    return made


def overlap(connection, side, dice):
    """Octets sent before and new ones in one segment."""
    me = connection.ends[side]
    room = _room(connection, side)
    old = min(_length(connection, side, dice, 32), me.sent - 1)
    new = min(_length(connection, side, dice, 32), room, me.mss - connection.extra(side) - old)
    if old < 1 or new < 1:
        return None
    return _own(connection, side, "overlap", ACK | PSH, position=me.sent - old, length=old + new)


def at_end(connection, side, dice):
    """Ends one before the window's right edge, at it, or one beyond it."""
    me, peer = connection.ends[side], connection.ends[1 - side]
    length = _length(connection, side, dice)
    last = peer.edge + dice.choice((-1, 0, 0, 1))
    if me.fin is not None or last - length < me.sent or not connection.free_of_held() or dice.random() < 0.5 < (
            last - me.sent) / 65536:
        return None
    made = _own(connection, side, "at end", position=last - length, length=length)
    made.jump = last <= min(peer.edge, me.limit)
    return made if made.jump or last > peer.edge else None


def beyond_end(connection, side, dice):
    """Begins at the right edge or one beyond it: a zero-window probe, where the window is closed."""
    me, peer = connection.ends[side], connection.ends[1 - side]
    if me.fin is not None:
        return None
    return _own(connection, side, "beyond end", position=peer.edge + (dice.random() < 0.5), length=1)


def zero_window(connection, side, dice):
    """Closes its window, or opens it again by one octet."""
    me = connection.ends[side]
    me.window = 0 if me.window else dice.choice((1, 8192, 65535))
    return _own(connection, side, "zero window")


def old_ack(connection, side, dice):
    """An acknowledgement one below the last, a little below, or of the very first octet."""
    me = connection.ends[side]
    return _own(connection, side, "old ack", ack=max(me.told - dice.choice((1, 1, 7, 1 << 20)), 0),
                length=min(_room(connection, side), 1) if dice.random() < 0.2 else 0)


def ack_beyond(connection, side, dice):
    """Acknowledges one more than was sent, or far more."""
    peer = connection.ends[1 - side]
    return _own(connection, side, "ack beyond", ack=max(peer.top_may, peer.sent) + dice.choice((1, 1, 2, 5000, 1 << 30)))


def syn_inside(connection, side, dice):
    """A SYN, or SYN-ACK, in the window, at its start, or the first one once more (RFC 5961, section 4)."""
    me, peer = connection.ends[side], connection.ends[1 - side]
    position = dice.choice((0, peer.told, peer.told + 1, peer.edge, me.sent))
    last = me.top if me.fin is None else me.fin + 1
    if side == CLIENT and position > last and connection.states >> 7 & 1:
        position = 0    # in TIME_WAIT that would open it anew: `reopen` does it
    with_ack = dice.random() < (0.5 if side == TARGET else 0.2)
    return _own(connection, side, "syn inside", SYN | (ACK if with_ack else 0), position=position)


def reset_exact(connection, side, dice):
    """The RST that ends the connection."""
    peer = connection.ends[1 - side]
    return _own(connection, side, "rst exact", RST | (ACK if dice.random() < 0.5 else 0), position=peer.told)


def reset_inside(connection, side, dice):
    """A RST in the window, but not exact: only the receiver decides (RFC 5961, section 3)."""
    me, peer = connection.ends[side], connection.ends[1 - side]
    window = peer.edge - peer.told
    if window < 2:
        return None
    away = dice.choice((1, 1, 2, window - 1, window // 2 or 1, min(window - 1, 65535)))
    if 0 < me.top - peer.told < window and dice.random() < 0.4:  # as one who aborts does: behind all that it has sent
        away = me.top - peer.told
    return _own(connection, side, "rst inside", RST | (ACK if dice.random() < 0.5 else 0), position=peer.told + away)


def reset_outside(connection, side, dice):
    """A RST just below the window, just beyond it, or far away."""
    peer = connection.ends[1 - side]
    position = dice.choice((peer.told - 1, peer.edge, peer.edge + 1, peer.told + (1 << 31), peer.told - (3 << 29)))
    if position == peer.told or peer.told_may >= position > peer.told:
        return None
    return _own(connection, side, "rst outside", RST, position=position)


def early_fin(connection, side, dice):
    """A FIN in the window with a gap before it."""
    me, peer = connection.ends[side], connection.ends[1 - side]
    gap = dice.choice((1, 5, 100))
    if me.fin is not None or me.sent + gap + 1 > min(peer.edge, me.limit) or not connection.free_of_held():
        return None
    return _own(connection, side, "early fin", FIN | ACK, position=me.sent + gap)


def after_fin(connection, side, dice):
    """Octets behind the FIN, which its receiver has to ignore (RFC 9293, section 3.10.7.4)."""
    me = connection.ends[side]
    if me.fin is None:
        return None
    return _own(connection, side, "after fin", position=me.fin + 1, length=_length(connection, side, dice))


def urgent(connection, side, dice):
    """Urgent data."""
    made = data(connection, side, dice)
    if made:
        made.kind, made.urgent, made.control = "urgent", dice.choice((0, 1, made.length, 65535)), made.control | URG
    return made


def no_ack(connection, side, dice):
    """Without ACK: nothing may come of it (RFC 9293, section 3.10.7.4)."""
    me, peer = connection.ends[side], connection.ends[1 - side]
    return _own(connection, side, "no ack", dice.choice((0, PSH, FIN, URG | FIN | PSH, URG)),
                position=dice.choice((me.sent, peer.told)), length=dice.choice((0, 1, 20)))


def selective(connection, side, dice):
    """Selective acknowledgements at the edges of what was sent, and duplicate ones (RFC 2018, RFC 2883)."""
    if not connection.sacks(side):
        return acknowledgement(connection, side, dice)
    me, peer = connection.ends[side], connection.ends[1 - side]
    edges = []
    for _ in range(dice.choice((1, 1, 2, 3))):
        first = dice.choice((me.heard + 1, me.heard, me.told - 1, peer.sent - 1, 1, peer.sent))
        edges += [first, first + dice.choice((1, 100, 5000))]
    made = _own(connection, side, "selective ack")
    made.sack = tuple(edges)
    return made


def far(connection, side, dice):
    """Numbers far from any window."""
    peer = connection.ends[1 - side]
    return _own(connection, side, "far", dice.choice((ACK, ACK | PSH, ACK | FIN)),
                position=peer.told + dice.choice((1 << 31, -(1 << 30) - (1 << 17), (1 << 30) + (1 << 17) + 65536 * 2)),
                length=dice.choice((0, 1, 30)))


ORDINARY = {data: 30, acknowledgement: 22, jump: 2, fin: 2.2}
EDGE = {keep_alive: 4, at_start: 6, before_start: 4, overlap: 5, at_end: 6, beyond_end: 4, zero_window: 3, old_ack: 4,
        ack_beyond: 4, syn_inside: 3, reset_exact: 0.35, reset_inside: 2, reset_outside: 2.5, early_fin: 0.5, after_fin: 3,
        urgent: 2, no_ack: 3, selective: 4, far: 3}


def reset_of_the_dead(connection, side, dice):
    """An end that is gone answers whatever comes with a RST (RFC 9293, section 3.10.7.1)."""
    if dice.random() < 0.5:
        return None
    made = reset_exact(connection, side, dice)
    made.kind, made.control = "rst of the dead", RST
    return made


# Before binding.


def open_connection(connection, side, dice):
    """A client's SYN, with all that may stand in one."""
    flags = ECE | CWR if connection.offer & ECN else dice.choice((0, 0, 0, ECE, PSH, URG))
    made = _own(connection, CLIENT, "syn", SYN | flags, position=0, ack=0)
    if dice.random() < 0.05:
        made.length = 20
    return made


def first_ack(connection, side, dice):
    """Completes the handshake, perhaps with the first octets."""
    connection.ends[CLIENT].heard = 1
    return first_flight(connection, side, dice) if dice.random() < 0.3 else _own(connection, CLIENT, "first ack", ack=1)


def first_flight(connection, side, dice):
    """The next octets of the first flight, of any length."""
    client = connection.ends[CLIENT]
    client.heard = 1
    length = min(dice.choice((1, 2, 7, 40, 300, 536, 1000)), client.mss - connection.extra(CLIENT), _room(connection, CLIENT))
    if connection.have_may > connection.have and dice.random() < 0.9:
        position = connection.have + 1
        length = min(max(client.sent - position, 1), client.mss - connection.extra(CLIENT))
        return _own(connection, CLIENT, "first flight again", ACK | PSH, position=position, length=length)
    if length < 1:
        return None
    return _own(connection, CLIENT, "first flight", ACK | PSH, length=length)


def first_fin(connection, side, dice):
    """Closes before it is bound."""
    client = connection.ends[CLIENT]
    client.heard = 1
    if client.fin is not None:
        return _own(connection, CLIENT, "first fin again", FIN | ACK, position=client.fin)
    if connection.have_may + 1 != client.sent or connection.have != connection.have_may:
        return None
    length = min(20, _room(connection, CLIENT)) if dice.random() < 0.5 else 0
    return _own(connection, CLIENT, "first fin", FIN | ACK, length=max(length, 0))


def first_again(connection, side, dice):
    """What was held already, whole or in part, with the same octets or others, perhaps with new ones behind."""
    have = connection.have
    if have < 1 or connection.have_may != have or connection.ends[CLIENT].fin is not None:
        return None
    position = dice.choice((1, 1, max(have - 3, 1), have))
    length = dice.choice((1, have + 1 - position, have + 3 - position))
    made = _own(connection, CLIENT, "first again", ACK | PSH, position=position, length=max(length, 1))
    made.twisted = position + made.length <= have + 1 and dice.random() < 0.7
    return made


def first_gap(connection, side, dice):
    """Octets behind a gap: may be kept or dropped."""
    client = connection.ends[CLIENT]
    if client.fin is not None or connection.service.rule == "number" and connection.have == 0 and dice.random() < 0.5:
        return None
    return _own(connection, CLIENT, "first gap", position=connection.have_may + 1 + dice.choice((1, 10, 100)),
                length=dice.choice((1, 10, 200)))


def first_edge(connection, side, dice):
    """Around what the proxy's window takes: one below the first octet, at its limit and one beyond."""
    position, length = dice.choice(((0, 0), (0, 1), (HELD, 1), (HELD + 1, 1), (HELD + 2, 1), (HELD - 9, 10), (HELD - 9, 11)))
    if length and position < 1 or connection.ends[CLIENT].fin is not None:
        length = 0
    return _own(connection, CLIENT, "first edge", position=position, length=length)


def first_wrong_ack(connection, side, dice):
    """Acknowledges one more or less than the SYN-ACK's number."""
    return _own(connection, CLIENT, "first wrong ack", ack=dice.choice((0, 2, 2, 3, -5, 70000)),
                position=dice.choice((1, connection.have + 1)))


def first_reset(connection, side, dice):
    """A RST before binding: exact, one off, outside."""
    exact = connection.have + 1 + (connection.fin_held > 0)
    position = exact if dice.random() < 0.1 else exact + dice.choice((1, -1, 100, HELD, 1 << 20, 1 << 31))
    return _own(connection, CLIENT, "first rst", RST | (ACK if dice.random() < 0.5 else 0), position=position,
                ack=dice.choice((0, 1)))


def first_syn(connection, side, dice):
    """The SYN once more, or another one."""
    return _own(connection, CLIENT, "first syn", SYN, position=dice.choice((0, 0, 1, 5, 70000, -1)), ack=0)


def first_no_ack(connection, side, dice):
    """Without ACK before binding."""
    return _own(connection, CLIENT, "first no ack", dice.choice((0, PSH, FIN)), position=connection.have + 1,
                length=dice.choice((0, 1, 9)))


def last_ack(connection, side, dice):
    """Acknowledges the proxy's FIN."""
    return _own(connection, CLIENT, "last ack", ack=2)


OPENING = {first_ack: 10, open_connection: 0.8, first_wrong_ack: 1, first_reset: 1, first_syn: 1, first_no_ack: 0.5, first_fin: 0.5,
           first_edge: 0.7, first_gap: 0.2}
FIRST = {first_flight: 14, first_fin: 0.7, first_again: 4, first_gap: 1.5, first_edge: 2, first_wrong_ack: 1.2, first_reset: 1.4,
         first_syn: 1, first_no_ack: 1}
LEAVING = {last_ack: 3, first_fin: 1, first_wrong_ack: 1, first_reset: 0.5, first_again: 1, first_no_ack: 0.5, first_syn: 0.5}


# A target that is asked.


def syn_ack(connection, side, dice):
    """The target accepts."""
    connection.ends[TARGET].heard = 1
    agrees = ECE if connection.accepted & ECN else 0
    return _own(connection, TARGET, "syn-ack", SYN | ACK | agrees, position=0, ack=1)


def wrong_syn_ack(connection, side, dice):
    """A SYN-ACK, or bare acknowledgement of an old connection's, that is one off."""
    return _own(connection, TARGET, "wrong syn-ack", ACK | dice.choice((SYN, 0)), position=0,
                ack=dice.choice((0, 2, 1 << 20)))


def refusal(connection, side, dice):
    """The target refuses."""
    return _own(connection, TARGET, "refusal", RST | ACK, position=0, ack=1)


def wrong_refusal(connection, side, dice):
    """A RST that acknowledges nothing of ours: not believed (RFC 9293, section 3.10.7.3)."""
    return _own(connection, TARGET, "wrong refusal", RST | dice.choice((0, ACK)), position=dice.choice((0, 1)),
                ack=dice.choice((0, 2)))


def syn_of_target(connection, side, dice):
    """A SYN from a target on one of our ports is dropped (SPLICE 4.5)."""
    return _own(connection, TARGET, "syn of target", SYN, position=0, ack=0)


ANSWERING = {syn_ack: 10, wrong_syn_ack: 2, refusal: 0.25, wrong_refusal: 1, syn_of_target: 0.5}
EDGES = {*EDGE, *OPENING, *FIRST, *LEAVING, *ANSWERING} - {first_ack, open_connection, first_flight, last_ack, syn_ack, refusal}
"""Moves that count as near an edge."""


def stamped(connection, segment, now, dice):
    """Puts timestamps into a segment as its end does, now and then wrong ones."""
    side, control = segment.side, segment.control
    me = connection.ends[side]
    uses = connection.offer if control & SYN and side == CLIENT else (
        connection.agreed if side == CLIENT else connection.accepted)
    if not uses & STAMPS or control & RST and dice.random() < 0.7:
        return
    value = me.stamp_start + now // 1000
    if control & SYN and connection.states >> 7 & 1:    # in TIME_WAIT a later one would open it anew: `reopen` does it
        value = me.stamp_start
    echoed = me.recent
    if not control & SYN and connection.bound and dice.random() < 0.02:
        value -= dice.choice((1, 5000, 1 << 31))
    segment.stamps = (value & MASK, echoed if control & ACK else 0)
    segment.style = dice.random() < 0.05
