"""A segment as its sender puts it on the wire, and as the other end has to see it (SPLICE 1.1, 2.2 to 2.5, 4.5)."""
from .ends import CLIENT, ECN, SACK, SCALING, STAMPS, TARGET
from .own_segments import MSS, SACK_BLOCKS, SACK_PERMITTED, SCALE, TIMESTAMPS, require
from .wire import ACK, CWR, ECE, FIN, MASK, PSH, RST, SYN, URG, Came, frame, options_of, signed

PROXY_MACS = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
HOST_MACS = bytes.fromhex("02aa00000001"), bytes.fromhex("02bb00000001")
UNKNOWN_OPTIONS = bytes([34, 2, 1, 1]), bytes([30, 4, 0, 1]), b"\1\1\1\1"
MOST_WINDOW = 0xFFFF
LEAST_PART = 64
"""Octets of payload that any target takes, whatever MSS it names."""
LONG_AGO = 1 << 29
"""Bytes after which what the proxy has acknowledged may be forgotten: half of the widest window."""


def offered_options(connection, segment, dice):
    """Returns the options of an end's SYN or SYN-ACK."""
    side = segment.side
    bits = connection.offer if side == CLIENT else connection.accepted
    scale = connection.client_scale if side == CLIENT else connection.target.scale
    octets = bytes([MSS, 4]) + connection.ends[side].takes.to_bytes(2)
    if bits & SACK:
        octets += bytes([1, 1, SACK_PERMITTED, 2])
    if bits & STAMPS and segment.stamps:
        octets += bytes([1, 1, TIMESTAMPS, 10]) + segment.stamps[0].to_bytes(4) + segment.stamps[1].to_bytes(4)
    if bits & SCALING:
        octets += bytes([1, SCALE, 3, scale])
    if side == CLIENT and dice.random() < 0.1:
        octets += dice.choice(UNKNOWN_OPTIONS)
    return octets


def options(stamps, edges, style):
    """Returns the octets of timestamps and selective acknowledgements, aligned as RFC 7323 has it, or not (`style`)."""
    octets = b""
    if stamps:
        octets = b"\1\1\x08\x0a" + stamps[0].to_bytes(4) + stamps[1].to_bytes(4)
        if style:
            octets = octets[1:] + b"\1"
    if edges:
        octets += b"\1\1\x05" + bytes([2 + 4 * len(edges)]) + b"".join([(edge & MASK).to_bytes(4) for edge in edges])
        if style and len(octets) <= 36:
            octets = b"\1" + octets + b"\1\1\1"
    return octets


def encode(connection, segment, identity, dice):
    """Returns the frame in which an end sends a segment."""
    side = segment.side
    me, control = connection.ends[side], segment.control
    other = connection.seen[1 - side]
    if side == CLIENT:
        places = connection.client_place, connection.service_place
    else:
        places = me.place, connection.local
    if control & SYN:
        octets = offered_options(connection, segment, dice)
    else:
        octets = options(segment.stamps, [other + edge for edge in segment.sack], segment.style)
    payload = connection.data(side, segment.position, segment.length, segment.twisted) if segment.length else b""
    ack = (other or 0) + segment.ack & MASK if control & ACK else 0
    return frame((PROXY_MACS[side], HOST_MACS[side]), identity, segment.tos, segment.ttl, *places,
                 me.isn + segment.position & MASK, ack, control, segment.window, segment.urgent, octets, payload)


def shown_window(connection, segment, owned=0):
    """Returns the window as the other end is shown it (SPLICE 2.3).

    `owned` octets that the proxy has acknowledged beyond the target are taken off: the right edge is the target's.
    """
    if not connection.agreed & SCALING:
        return max(segment.window - owned, 0)
    if segment.side == TARGET:
        octets = max((segment.window << connection.ends[TARGET].scale) - owned, 0)
        return min(octets >> connection.proxy_scale, MOST_WINDOW)
    if connection.accepted & SCALING:
        return segment.window
    return min(segment.window << connection.ends[CLIENT].scale, MOST_WINDOW)


def shown_stamps(connection, segment):
    """Returns the timestamps as the other end is shown them, None without (SPLICE 2.4)."""
    if segment.stamps is None or not connection.accepted & STAMPS:
        return None
    value, echoed = segment.stamps
    own, theirs = connection.client_shift, connection.stamp_shift
    if segment.side == CLIENT:
        return value + own & MASK, echoed - theirs & MASK if segment.control & ACK else echoed
    return value + theirs & MASK, echoed - own & MASK


def shown_ack(connection, segment):
    """Returns the acknowledged position that the other end is shown: never below what the proxy has acknowledged."""
    owned = segment.side == TARGET and connection.own_ack > 1
    return max(segment.ack, connection.own_ack) if owned else segment.ack


def expected(connection, segment, identity):
    """Returns the frame as which a segment has to come to the other end."""
    side = segment.side
    other = 1 - side
    peer = connection.ends[other]
    source = connection.local if side == CLIENT else connection.service_place
    edges = [peer.isn + edge for edge in segment.sack] if connection.accepted & SACK or side == TARGET else ()
    payload = connection.data(side, segment.position, segment.length, segment.twisted) if segment.length else b""
    ack = peer.isn + shown_ack(connection, segment) & MASK if segment.control & ACK else 0
    control, tos = segment.control, segment.tos
    if side == CLIENT and connection.agreed & ~connection.accepted & ECN:
        control, tos = control & ~(ECE | CWR), tos & ~3
    return frame((HOST_MACS[other], PROXY_MACS[other]), identity, tos, segment.ttl - 1, source,
                 connection.client_place if side == TARGET else peer.place, connection.seen[side] + segment.position & MASK, ack,
                 control, shown_window(connection, segment), segment.urgent,
                 options(shown_stamps(connection, segment), edges, segment.style), payload)


def compare(connection, segment, octets, now):
    """Compares a frame with the expected one field by field, where they differ somewhere; raises own_segments.Fault."""
    wanted = expected(connection, segment, 0)    # once more: what is known of timestamps may be newer
    came, right = Came(octets, 1 - segment.side), Came(wanted, 1 - segment.side)
    require(came.sane, "lengths of a translated frame agree")
    require(octets[:12] == wanted[:12], "a frame goes to the next hop of the other end")
    require((came.source, came.destination) == (right.source, right.destination), "rule 1.1: addresses are translated", came)
    require((came.ttl, came.tos) == (right.ttl, right.tos), "rule 4.5: the TTL is decremented, DSCP kept", came.ttl, came.tos)
    require((came.control, came.urgent) == (right.control, right.urgent), "flags and urgent pointer pass", came)
    require(came.payload == right.payload, "payload is untouched", came.payload, right.payload)
    require(came.seq == right.seq, "rule 1.1: sequence numbers are translated", came.seq, right.seq)
    owned = 0
    if came.control & ACK:
        more = signed(came.ack - right.ack & MASK)
        _acknowledged(connection, segment, more)
        owned = shown_ack(connection, segment) + more - segment.ack
    least = right.window
    if owned > 0:   # the right edge may stay the target's, rounded down in the target's scale and in the proxy's
        least = shown_window(connection, segment, owned + (1 << connection.ends[TARGET].scale))
    require(least <= came.window <= right.window or came.control & RST, "rule 2.3: the window is translated", came.window,
            right.window, owned)
    _options(connection, segment, came, right, now)


def compare_part(connection, segment, octets, done, now):
    """Compares a part of a segment that was split: it begins `done` octets behind the segment's first."""
    wanted = expected(connection, segment, 0)
    came, right = Came(octets, TARGET), Came(wanted, TARGET)
    length, last = len(came.payload), done + len(came.payload) == segment.length
    require(came.sane and octets[:12] == wanted[:12] and (came.source, came.destination) == (right.source, right.destination),
            "headers of a part agree with its segment's", came)
    require(came.seq == right.seq + done & MASK, "rule 2.6: the parts of a segment join up", came.seq, right.seq, done)
    require(came.payload == right.payload[done:done + length] and length, "payload is untouched", came.payload)
    require((came.ack, came.window, came.ttl, came.tos) == (right.ack, right.window, right.ttl, right.tos),
            "headers of a part are its segment's", came)
    _options(connection, segment, came, right, now)
    ends = URG | (0 if done == 0 else CWR) | (0 if last else PSH | FIN)
    require(came.control & ~URG == right.control & ~ends, "FIN and PSH belong to the last part, CWR to the first", came)


def _acknowledged(connection, segment, more):
    """The acknowledgement may lie above the target's, on what the proxy holds and so delivers itself (SPLICE 1.2)."""
    if more == 0 or segment.control & RST and shown_ack(connection, segment) + more == segment.ack:
        return
    shown = shown_ack(connection, segment) + more
    if connection.ends[TARGET].told_may - connection.own_ack > LONG_AGO and shown == segment.ack:
        return  # what the proxy has acknowledged is long past: to the client this is only an old segment
    owned = segment.side == TARGET and connection.own_ack > 1
    require(owned and connection.own_ack <= shown <= connection.have_may + 1,
            "rule 1.1: acknowledgements are translated", shown, segment.ack, connection.own_ack)
    connection.own_ack_may = max(connection.own_ack_may, shown)


def _options(connection, segment, came, right, now):
    """Timestamps and selective acknowledgements, however they are laid out."""
    found, wanted = options_of(came.options), options_of(right.options)
    require(found is not None, "options are well formed")
    found, wanted = dict(found), dict(wanted)
    blocks = found.pop(SACK_BLOCKS, b""), wanted.pop(SACK_BLOCKS, b"")
    require(blocks[0] == blocks[1], "edges of selective acknowledgements are translated", blocks[0].hex(), blocks[1].hex())
    declined = connection.agreed & STAMPS and not connection.accepted & STAMPS
    if declined and segment.side == TARGET and not came.control & RST:
        _inserted(connection, segment, found, now)
    elif TIMESTAMPS in wanted:
        require(TIMESTAMPS in found, "rule 2.4: timestamps are kept")
        value, echoed = (int.from_bytes(found[TIMESTAMPS][part:part + 4]) for part in (0, 4))
        own, theirs = (int.from_bytes(wanted[TIMESTAMPS][part:part + 4]) for part in (0, 4))
        off = signed(value - own & MASK), signed(echoed - theirs & MASK) if came.control & ACK else 0
        if came.control & ACK or segment.side == TARGET:
            _learn(connection, segment, off)
    else:
        require(TIMESTAMPS not in found, "rule 2.5: timestamps that the target declined are removed")
    require(not found.keys() - {TIMESTAMPS}, "no other option is inserted")


def _inserted(connection, segment, found, now):
    """Each segment toward a client that was promised timestamps carries them (SPLICE 2.5), where the header has room."""
    client = connection.ends[CLIENT]
    require(TIMESTAMPS in found, "rule 2.5: a client that was promised timestamps gets them in each segment")
    value, echoed = (int.from_bytes(found[TIMESTAMPS][part:part + 4]) for part in (0, 4))
    before, at = connection.proxy_stamp
    require(abs(signed(value - before & MASK) - (now - at) / 1000) <= 2, "rule 2.4: TSval is a clock of milliseconds")
    connection.proxy_stamp = value, now
    shown = signed(echoed - client.stamp_start & MASK)
    require(client.first_stamp <= shown <= now // 1000, "rule 2.4: TSecr is a TSval of the client's", shown)


def _learn(connection, segment, off):
    """The shift of timestamps is known within a rounding; the first segment tells it exactly, then it is a constant."""
    if connection.shift_sure or not any(off):
        require(off == (0, 0), "rule 2.4: timestamps are shifted by a constant", off)
        connection.shift_sure = True
        return
    require(abs(off[0]) <= 2 and abs(off[1]) <= 2, "rule 2.4: the shift joins the target's clock to the proxy's", off)
    connection.stamp_shift = connection.stamp_shift + (off[0] if segment.side == TARGET else -off[1]) & MASK
    connection.shift_sure = True


def deliver(connection, segment, intact):
    """Lets the other end take in a segment that has come to it whole."""
    side = segment.side
    me, peer = connection.ends[side], connection.ends[1 - side]
    if not intact or peer.dead:
        return
    control = segment.control
    if control & RST:
        peer.dead = peer.heard == segment.position
        return
    if control & ACK and segment.ack <= peer.sent:
        peer.limit = max(peer.limit, segment.ack + (shown_window(connection, segment) << connection.scale_toward(1 - side)))
        stamps = shown_stamps(connection, segment)
        if stamps:
            peer.recent = stamps[0]
    if peer.heard < segment.end <= min(max(peer.edge, peer.heard + 1), me.sent) and not peer.closed:
        peer.heard = segment.end        # what is missing before it counts as having come another way
        peer.closed = me.fin is not None and peer.heard == me.fin + 1

