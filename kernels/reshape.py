"""Reshape: writes a passing segment of a shaped connection as the edit log has it (SPLICE 5.1, 5.2).

However a retransmission is cut, what overlaps an edit is made from the log. What has grown beyond the receiver's MSS is split
later on, as any segment that is too large (`split`). Rows keep numbers that the constant shifts of the connection turn into
the right ones, so that rewrite need not know of the log.
"""
from numpy import int64

from .batch import ABSORB, DROP, FORWARD, KIND_TCP
from .checksum import data_start, difference, update
from .connection import CLIENT, FREE, SHAPED, SPECIAL, TARGET, end
from .copying import copy_payload
from .counters import NOTICE_SEGMENTS_RESHAPED
from .edits import EDIT_BYTES, NONE, find_edit, to_receiver, to_sender
from .expire import reset_both
from .headers import ACK, BUFFER, FIN, PSH, RST, SYN, TCP_LENGTH, TCP_OPTION_NOP, TCP_OPTION_SACK, URG
from .jit import kernel
from .native import record_at, swap16, swap32
from .opening import keep_stamp_of
from .own_acknowledgement import LEAST_WINDOW, acknowledge
from .records import TCP_CLOSED, step
from .sequence import distance, wrap
from .repetition import seal
from .shaping import STREAM_BYTES, forget_acknowledged
from .tcp_options import find_option


@kernel
def map_sack(packets, base, batch, row, connections, data, shift):
    """Maps the edges of a row's selective acknowledgements; blocks of which nothing is left are taken out."""
    octets, edits = packets.octets, connections.shaped.edits
    at = find_option(packets, batch.transport[row] + TCP_LENGTH, batch.payload[row], TCP_OPTION_SACK)
    if at == 0:
        return
    into, stop = at + 2, at + int64(octets[at + 1])
    for block in range(at + 2, stop - 7, 8):
        left = to_sender(edits, data, shift, swap32(int64(record_at(packets.word32, block).value)), True)
        right = to_sender(edits, data, shift, swap32(int64(record_at(packets.word32, block + 4).value)), False)
        if distance(right, left) > 0:
            record_at(packets.word32, into).value = swap32(wrap(left + shift))
            record_at(packets.word32, into + 4).value = swap32(wrap(right + shift))
            into += 8
    octets[at + 1] = into - at
    for octet in range(at if into == at + 2 else into, stop):
        octets[octet] = TCP_OPTION_NOP
    seal(packets, base, batch, row)


@kernel
def map_window(packets, batch, row, hot, side, told):
    """Shows the sender the window from `told` (window, the edge that it reaches, both as the sender counts)."""
    scale = int64(hot.scales) >> 4 if side == TARGET else int64(hot.scales) & 0x0F
    window = batch.window[row]
    shown = min(max(max(told, min(window << scale, LEAST_WINDOW)) >> scale, int64(window > 0)), 0xFFFF)
    if shown != window:
        tcp = record_at(packets.tcp, batch.transport[row])
        tcp.checksum = update(int64(tcp.checksum), difference(int64(tcp.window), swap16(shown)))
        tcp.window = swap16(shown)
        batch.window[row] = shown


@kernel
def map_acknowledgement(packets, base, batch, row, connections):
    """Maps acknowledgement, window and selective acknowledgements of what the other side sends, where edits are pending."""
    flow, edits = batch.flow[row], connections.shaped.edits
    hot, side, data = record_at(connections.hot, flow >> 1), flow & 1, flow ^ 1
    if int64(edits.first[data]) == NONE or batch.control[row] & (ACK | SYN) != ACK:
        return
    shift, scale = int64(hot.shift[1 - side]), int64(hot.scales) >> 4 if side == TARGET else int64(hot.scales) & 0x0F
    told = to_sender(edits, data, shift, batch.ack[row], False)
    if batch.control[row] & RST == 0:
        edge = to_sender(edits, data, shift, wrap(batch.ack[row] + (batch.window[row] << scale)), False)
        map_window(packets, batch, row, hot, side, distance(edge, told))
        map_sack(packets, base, batch, row, connections, data, shift)
    batch.ack[row] = wrap(told + shift)


@kernel
def put_bytes(shaped, at, octets, start, length):
    """Appends bytes to the stream as far as there is room; returns where the next one goes."""
    part = min(length, STREAM_BYTES - at)
    for number in range(part):
        shaped.stream[at + number] = octets[start + number]
    return at + part


@kernel
def put_payload(packets, base, batch, row, shaped, at, skip, length):
    """Appends bytes of a row's payload to the stream as far as there is room; returns where the next one goes."""
    part = min(length, STREAM_BYTES - at)
    copy_payload(packets, base, batch.mbuf[row], batch.payload[row], skip, part, shaped.stream, at)
    return at + part


@kernel
def compose_stream(packets, base, batch, row, connections, edit):
    """Makes what a row becomes, from the edit (or NONE) that its first byte is not behind; returns how many bytes.

    -1 less that number where not all of it had room.
    """
    shaped, edits, at, wanted = connections.shaped, connections.shaped.edits, 0, 0
    seq, length, done = batch.seq[row], batch.payload_length[row], 0
    while edit != NONE:
        position = distance(edits.position[edit], seq)
        if position >= length:
            break
        gap = max(position - done, 0)
        at = put_payload(packets, base, batch, row, shaped, at, done, gap)
        at = put_bytes(shaped, at, edits.octets, edit * EDIT_BYTES, edits.new[edit])
        wanted += gap + edits.new[edit]
        done = position + edits.old[edit]
        edit = edits.following[edit]
    rest = max(length - done, 0)
    at = put_payload(packets, base, batch, row, shaped, at, done, rest)
    return at if at == wanted + rest else -1 - at


@kernel
def own_window(batch, row, hot, side):
    """Returns the window of a row in bytes."""
    return batch.window[row] << (int64(hot.scales) >> 4 if side == TARGET else int64(hot.scales) & 0x0F)


@kernel
def room_in(packets, mbuf, used):
    """Returns how many bytes fit into an mbuf behind the first `used` of its data."""
    head = record_at(packets.mbuf, mbuf)
    return int64(head.buffer_length) - int64(head.data_off) - used


@kernel
def put_stream(packets, base, shaped, mbuf, used, at, stop):
    """Writes bytes at .. stop - 1 of the stream behind the first `used` of an mbuf's data, as far as they fit; returns
    where the next one is."""
    part, place = min(stop - at, room_in(packets, mbuf, used)), data_start(packets, base, mbuf) + used
    for offset in range(part):
        packets.octets[place + offset] = shaped.stream[at + offset]
    record_at(packets.mbuf, mbuf).data_length = used + part
    return at + part


@kernel
def put_chain(packets, base, shaped, mbuf, headers, start, stop, fresh, count):
    """Writes bytes start .. stop - 1 of the stream behind the headers of a packet: into its own mbufs, then into
    fresh[:count]; returns where the first one is that had no room."""
    head, segments, taken = record_at(packets.mbuf, mbuf), 1, 0
    at = put_stream(packets, base, shaped, mbuf, headers, start, stop)
    while True:
        following = int64(record_at(packets.mbuf, mbuf).next)
        if following == 0 and at < stop and taken < count:
            following = base + fresh[taken]
            record_at(packets.mbuf, mbuf).next = following
            taken += 1
        if following == 0:
            break
        mbuf = following - base
        at = put_stream(packets, base, shaped, mbuf, 0, at, stop)
        segments += 1
    head.segments, head.packet_length = segments, headers + at - start
    return at


@kernel
def write_stream(packets, base, batch, row, connections, fresh, count):
    """Makes a row carry its part of the stream. What has no room, even in fresh[:count], is left to a retransmission."""
    shaped, flow = connections.shaped, batch.flow[row]
    start, stop, number = shaped.part[0], shaped.part[1], shaped.part[3]
    end = put_chain(packets, base, shaped, batch.mbuf[row], batch.payload[row] - batch.frame[row], start, stop, fresh, count)
    control = batch.control[row]
    if end < stop or shaped.part[2] == 0:
        control &= 0xFF ^ (FIN | PSH)
    if end == start:
        control &= 0xFF ^ PSH
    ip, tcp = record_at(packets.ipv4, batch.network[row]), record_at(packets.tcp, batch.transport[row])
    total = swap16(batch.payload[row] - batch.network[row] + end - start)
    ip.checksum = update(int64(ip.checksum), difference(int64(ip.total_length), total))
    ip.total_length = total
    tcp.control = control
    batch.control[row], batch.payload_length[row] = control, end - start
    batch.seq[row] = wrap(number - int64(record_at(connections.hot, flow >> 1).shift[flow & 1]))
    seal(packets, base, batch, row)


@kernel
def acknowledge_deleted(connections, flow, seq):
    """Acknowledges toward the sender of a flow bytes from `seq` on of which nothing was left, as soon as the receiver has
    all that lies before them (SPLICE 5.2)."""
    ack = forget_acknowledged(connections, flow)
    if distance(ack, seq) > 0:
        acknowledge(connections, flow, ack, 0, 0)


@kernel
def nothing_left(batch, row, connections):
    """Deals with a row of whose payload nothing is left: as a bare acknowledgement it passes only if it says something new.

    To its receiver a repeated one would be a duplicate, which tells of a loss (RFC 5681, section 2).
    """
    flow, shaped = batch.flow[row], connections.shaped
    hot, side = record_at(connections.hot, flow >> 1), flow & 1
    told = wrap(batch.ack[row] - int64(hot.shift[1 - side]))
    if told == shaped.told_ack[flow] and own_window(batch, row, hot, side) == shaped.told_window[flow]:
        batch.verdict[row] = ABSORB
    acknowledge_deleted(connections, flow, batch.seq[row])


@kernel
def reshape(packets, base, batch, row, connections):
    """Maps a row of a shaped side into the receiver's numbers, and its payload into what the log says.

    Returns -1 where its payload stays as it is, else how many mbufs the new one (`write_stream`) needs beside its own.
    Bytes that the receiver has acknowledged are left out, so that each retransmission of a long edit gets further; a
    segment of one byte below them is a probe, and passes.
    """
    flow, shaped = batch.flow[row], connections.shaped
    hot, seq, length, side = record_at(connections.hot, flow >> 1), batch.seq[row], batch.payload_length[row], flow & 1
    shift, edit = int64(hot.shift[side]), find_edit(shaped.edits, flow, seq, False)
    start = to_receiver(shaped.edits, flow, shift, seq)
    batch.seq[row] = wrap(start - shift)
    overlaps = edit != NONE and distance(shaped.edits.position[edit], wrap(seq + length)) < 0
    behind = distance(int64(hot.acked[1 - side]), start)
    if length == 0 or batch.control[row] & RST or not (overlaps or (behind > 0 and length > 1)):
        return -1
    batch.seq[row] = seq
    made = compose_stream(packets, base, batch, row, connections, edit)
    shaped.part[2] = int64(made >= 0)
    made = made if made >= 0 else -1 - made
    skip = min(max(behind, 0), made)
    shaped.part[0], shaped.part[1], shaped.part[3] = skip, made, wrap(start + skip)
    connections.counters.notices[NOTICE_SEGMENTS_RESHAPED] += 1
    if batch.control[row] & URG:
        tcp = record_at(packets.tcp, batch.transport[row])
        urgent = to_receiver(shaped.edits, flow, shift, wrap(seq + swap16(int64(tcp.urgent))))
        tcp.urgent = swap16(min(max(distance(urgent, shaped.part[3]), 0), 0xFFFF))
    if made == skip and batch.control[row] & FIN == 0:
        nothing_left(batch, row, connections)
    missing = made - skip - room_in(packets, batch.mbuf[row], batch.payload[row] - batch.frame[row])
    return -(-missing // BUFFER) if missing > 0 else 0


@kernel
def map_row(packets, base, batch, row, connections):
    """Maps a row, if it passes and its connection is shaped; returns as `reshape`."""
    flow, shaped = batch.flow[row], connections.shaped
    if batch.verdict[row] != FORWARD or batch.kind[row] != KIND_TCP:
        return -1
    hot, cold, side = record_at(connections.hot, flow >> 1), record_at(connections.cold, flow >> 1), flow & 1
    if hot.options & SPECIAL == 0 or cold.special & (SHAPED * 3) == 0:
        return -1
    if batch.stamps[row] != 0 and batch.control[row] & SYN == 0:
        keep_stamp_of(connections, cold, side, swap32(int64(record_at(packets.word32, batch.stamps[row]).value)))
    if cold.special & (SHAPED << (1 - side)):
        map_acknowledgement(packets, base, batch, row, connections)
    wanted = reshape(packets, base, batch, row, connections) if cold.special & (SHAPED << side) else -1
    if batch.verdict[row] == FORWARD and batch.control[row] & (SYN | RST) == 0:
        shaped.told_ack[flow] = wrap(batch.ack[row] - int64(hot.shift[1 - side]))
        shaped.told_window[flow] = own_window(batch, row, hot, side)
    return wanted if batch.verdict[row] == FORWARD else -1


@kernel
def exhausted(batch, row, count, connections, reason, cause, records, now):
    """Ends the connection of a row for which a pool has nothing left, or which a payload kernel has ended, with RST to both
    sides and that release cause; its rows from there on are dropped for that reason."""
    connection, counters = batch.flow[row] >> 1, connections.counters
    for later in range(row, count):
        if batch.verdict[later] == FORWARD and batch.flow[later] >> 1 == connection:
            batch.verdict[later] = DROP
            counters.drops[reason] += 1
    if record_at(connections.hot, connection).state == FREE:
        return
    reset_both(connections, connection)
    step(records, connection, CLIENT, TCP_CLOSED, now)
    step(records, connection, TARGET, TCP_CLOSED, now)
    end(connections, connection, cause, cause)
