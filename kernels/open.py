"""Open: SYNs that belong to no connection make one, and the client gets its SYN-ACK (delayed binding, first half)."""
from numpy import int64

from .batch import ABSORB, DROP, KIND_TCP, NO_FLOW, PENDING, REFUSE
from .connection import (
    CLIENT,
    FIRST_DATA,
    FREE,
    HOT_BYTES,
    NO_HELD,
    NO_NEIGHBOUR,
    NO_TARGET,
    OFFERED_SCALE,
    PLAIN,
    PROMISED_ECN,
    PROMISED_SCALING,
    PROMISED_TIMESTAMPS,
    SCALED,
    SPECIAL,
    SYN_RECEIVED,
    TARGET,
    TIME_WAIT,
    ask,
    emit,
    enter,
)
from .counters import (
    DROP_BAD_SOURCE,
    DROP_CONNECTIONS_EXHAUSTED,
    DROP_FLOW_TABLE_FULL,
    DROP_NEIGHBOURS_EXHAUSTED,
    DROP_NO_ROUTE,
    DROP_OPENING_EXHAUSTED,
    DROP_SERVICE_FULL,
    DROP_UNEXPECTED_SEGMENT,
    NOTICE_LIMITED_BY_RESET,
    OF_SERVICE_CONNECTIONS,
    OF_SERVICE_OPEN,
    RECEIVED_SYN,
    SENT_SYN_ACK,
    TOTAL_OPEN,
    TOTAL_OPENED,
)
from .farewell import closed
from .flow_table import find, insert
from .free_list import COUNT, give, take, upcoming
from .headers import ACK, ECE, FIN, RST, SYN
from .initial_number import initial_number
from .jit import kernel
from .limits import RESETS, count_in, count_out
from .native import address_of, prefetch, record_at, swap16, swap32
from .neighbours import INCOMPLETE, PROBING, add_neighbour, hear, owns, route_to
from .opening import begin_opening, client_stamp, end_opening
from .records import REFUSED, ask_for_record, begin
from .sequence import distance, wrap
from .shaping import begin_shaping
from .services import SIMPLE, UNKNOWN_SCALE, find_service
from .source_ports import NUMBERS_APART
from .tcp_options import PROXY_SCALE, offered
from .verify import COLD_BYTES
from .wheel import TICK_MICROSECONDS, retry_at

SYN_RETRY = 100
"""Ticks until a SYN of ours is sent again: one second (RFC 6298, section 2.1), doubled each time."""
SYN_ACK_RETRY = 120
"""The same for a SYN-ACK. A client whose SYN-ACK got lost sends its SYN again after that second, and is echoed the TSval of that:
from one of ours before it, it would take the second for its round trip, and three for its time-out."""
EVERYTHING = 7
"""Mode `simple`: what a client offers goes to the target whole."""
LEAST_MSS = 536
"""MSS of a peer that names none (RFC 9293, section 3.7.1)."""


@kernel
def reopens(packets, batch, row, connections):
    """Says whether a row is a SYN that opens its connection anew: it has ended, or waits out TIME_WAIT with a lower number,
    or with a lower timestamp, by which the old connection's segments are told apart (RFC 6191, section 2)."""
    if batch.control[row] & (SYN | ACK | RST | FIN) != SYN or batch.flow[row] & 1 != CLIENT:
        return False
    hot, cold = record_at(connections.hot, batch.flow[row] >> 1), record_at(connections.cold, batch.flow[row] >> 1)
    if hot.state != TIME_WAIT or distance(batch.seq[row], int64(hot.next[CLIENT])) > 0:
        return hot.state == FREE or hot.state == TIME_WAIT
    if cold.agreed & PROMISED_TIMESTAMPS == 0 or batch.stamps[row] == 0:
        return False
    return distance(swap32(int64(record_at(packets.word32, batch.stamps[row]).value)), client_stamp(connections, cold)) > 0


@kernel
def retire(packets, batch, count, connections):
    """Ends connections in TIME_WAIT whose client opens anew beyond the old numbers or timestamps (RFC 9293, section 3.6.1).

    Rows whose connection has ended, here or before, lose their flow.
    """
    for row in range(count):
        flow = batch.flow[row]
        batch.above[row] = -1
        if flow < 0:
            continue
        hot = record_at(connections.hot, flow >> 1)
        if hot.state == TIME_WAIT and batch.verdict[row] == PENDING and reopens(packets, batch, row, connections):
            closed(connections, flow >> 1)
            batch.above[row] = wrap(int64(hot.next[TARGET]) + int64(hot.shift[TARGET]))
        if hot.state == FREE:
            batch.flow[row] = NO_FLOW


@kernel
def client_neighbour(packets, batch, row, network, tick):
    """Returns the next hop toward the sender of a row: learnt from its frame where the sender is on-link.

    NO_NEIGHBOUR where there is no route, -1 where the neighbour table is full.
    """
    address = batch.source[row]
    route = route_to(network, address)
    if route < 0:
        return NO_NEIGHBOUR
    gateway = network.route_gateway[route]
    number = add_neighbour(network, gateway if gateway != 0 else address, network.route_port[route])
    if number == NO_NEIGHBOUR:
        return -1
    entry = record_at(network.neighbours, number)
    entry.used = tick
    if gateway == 0 and entry.state == INCOMPLETE:
        ethernet = record_at(packets.ethernet, batch.frame[row])
        hear(network, number, swap16(int64(ethernet.source_high)), swap32(int64(ethernet.source_low)), tick)
        if network.exception[int64(entry.port)] >= 0:
            entry.state = PROBING  # until the kernel, which now asks for it, has confirmed it
    return number


@kernel
def source_is_bad(network, address):
    """Says whether an address cannot be a client's: none, loopback, multicast, broadcast, or one of our own."""
    first = address >> 24
    return first == 0 or first == 127 or first >= 224 or owns(network, address, -1)


@kernel
def fill(packets, batch, row, connections, connection, service, offer, mss, scale, binding, neighbour, now):
    """Writes the state of a new connection from its SYN. `offer` (PROMISED_*), `mss` and `scale` are what it is told at most."""
    hot, cold = record_at(connections.hot, connection), record_at(connections.cold, connection)
    opening, tick = record_at(connections.openings, int64(cold.opening)), now // TICK_MICROSECONDS
    remote, local = batch.source[row], batch.destination[row]
    ports = (batch.source_port[row] << 16) | batch.destination_port[row]
    hot.remote_address[CLIENT], hot.local_address[CLIENT] = remote, local
    hot.remote_port[CLIENT], hot.local_port[CLIENT] = ports >> 16, ports & 0xFFFF
    hot.remote_address[TARGET], hot.local_address[TARGET] = 0, 0
    hot.remote_port[TARGET], hot.local_port[TARGET] = 0, 0
    hot.shift[CLIENT], hot.shift[TARGET] = 0, 0
    hot.neighbour[CLIENT], hot.neighbour[TARGET] = neighbour, NO_NEIGHBOUR
    hot.stamp, hot.timestamp_shift, hot.closing, hot.options, hot.scales = tick & 0xFFFFFFFF, 0, 0, 0, 0
    cold.target, cold.service = NO_TARGET, service
    proxy_isn = initial_number(connections.secret, remote, local, ports, now)
    if batch.above[row] >= 0 and distance(proxy_isn, batch.above[row]) <= 0:  # fast transfers outrun the clock (SPLICE 4.4)
        proxy_isn = wrap(batch.above[row] + NUMBERS_APART)
    opening.client_isn, opening.proxy_isn, opening.syn_isn = batch.seq[row], proxy_isn, batch.seq[row]
    hot.next[CLIENT], hot.next[TARGET] = wrap(batch.seq[row] + 1), 0
    hot.acked[CLIENT], hot.acked[TARGET] = wrap(proxy_isn + 1), 0
    opening.since, opening.retry, opening.tries = tick & 0xFFFFFFFF, retry_at(tick + SYN_ACK_RETRY), 0
    opening.held, opening.header, cold.source = NO_HELD, 0, 0
    opening.answer, opening.answers = 0, 0
    cold.agreed, cold.stamp_shift = (offered(batch, row) & offer) | scale << OFFERED_SCALE, 0
    opening.stamp, cold.target_stamp = 0, 0
    if binding == SIMPLE:
        cold.special |= PLAIN
        hot.options = SPECIAL
    if cold.agreed & PROMISED_TIMESTAMPS:
        opening.stamp = swap32(int64(record_at(packets.word32, batch.stamps[row]).value))
    opening.first_stamp = int64(opening.stamp)
    if cold.agreed & PROMISED_SCALING:
        hot.options |= SCALED if binding != SIMPLE else 0
        hot.scales = batch.scale[row]
    opening.mss[CLIENT] = batch.mss[row] if batch.mss[row] != 0 else LEAST_MSS
    opening.mss[TARGET], opening.window[CLIENT] = mss, batch.window[row]
    cold.known, cold.duplicates, cold.last_duplicate, opening.wrapped = 0, 0, 0, 0
    opening.failed[0], opening.failed[1] = NO_TARGET, NO_TARGET


@kernel
def ask_for_next(connections):
    """Asks for the cache lines of the connection that is opened next."""
    connection = upcoming(connections.free, connections.hot)
    prefetch(address_of(connections.hot) + connection * HOT_BYTES)
    prefetch(address_of(connections.cold) + connection * COLD_BYTES)


@kernel
def send_syn_ack(connections, connection):
    """Orders the SYN-ACK toward the client: an MSS for every target, a window of what we can hold (SPLICE 1.3, 2.6)."""
    hot, cold = record_at(connections.hot, connection), record_at(connections.cold, connection)
    opening = record_at(connections.openings, int64(cold.opening))
    window = min(connections.held.limit[0], 0xFFFF)
    ecn = ECE if cold.agreed & PROMISED_ECN else 0
    emit(connections, connection, CLIENT, SYN | ACK | ecn, int64(opening.proxy_isn), int64(hot.next[CLIENT]), window,
         int64(opening.mss[TARGET]), 0, 0)
    connections.counters.events[CLIENT, SENT_SYN_ACK] += 1


@kernel
def make_connection(packets, batch, row, connections, services, number, offer, mss, scale, network, records, now):
    """Makes the connection of a row that is a SYN, with a flow, but in no state yet; returns -1, or why there is none.

    `offer` (PROMISED_*), `mss` and `scale` are what its client is told at most.
    """
    if connections.free[COUNT] == 0:
        return DROP_CONNECTIONS_EXHAUSTED
    if connections.free_openings[COUNT] == 0:
        return DROP_OPENING_EXHAUSTED
    neighbour = client_neighbour(packets, batch, row, network, now // TICK_MICROSECONDS)
    if neighbour == NO_NEIGHBOUR:
        return DROP_NO_ROUTE
    if neighbour < 0:
        return DROP_NEIGHBOURS_EXHAUSTED
    reason = count_in(connections.limits, connections.counters, number, batch.source[row], now)
    if reason >= 0:
        return reason
    connection = take(connections.free, connections.cold)
    ask_for_next(connections)
    ask_for_record(records, upcoming(connections.free, connections.hot))
    begin_opening(connections, connection)
    fill(packets, batch, row, connections, connection, number, offer, mss, scale, int64(services[number].binding), neighbour, now)
    begin_shaping(connections, connection, services[number])
    if connections.proxied.origins.shape[0] > 0:
        connections.proxied.origins[connection, 0] = 0
    if not insert(connections.buckets, batch.hash[row], connection * 2 + CLIENT):
        end_opening(connections, connection)
        count_out(connections.limits, record_at(connections.hot, connection), number)
        give(connections.free, connections.cold, connection)
        return DROP_FLOW_TABLE_FULL
    batch.flow[row] = connection * 2 + CLIENT
    begin(records, connection, batch.seq[row], now)
    counters = connections.counters
    counters.totals[TOTAL_OPENED] += 1
    counters.totals[TOTAL_OPEN] += 1
    counters.services[number, OF_SERVICE_CONNECTIONS] += 1
    counters.services[number, OF_SERVICE_OPEN] += 1
    return -1


@kernel
def open_one(packets, batch, row, connections, services, network, records, now):
    """Opens a connection for the SYN of one row; returns -1, or why the SYN is dropped."""
    number = find_service(services, batch.destination[row], batch.destination_port[row])
    binding = int64(services[number].binding)
    if source_is_bad(network, batch.source[row]):
        return DROP_BAD_SOURCE
    if binding == SIMPLE and batch.payload_length[row] > 0 and services[number].payload_kernel[CLIENT] >= 0:
        return DROP_UNEXPECTED_SEGMENT  # nobody is shown what a SYN carries: its sender does without (RFC 7413, section 4.1.3)
    offer = EVERYTHING if binding == SIMPLE else int64(services[number].offer)
    scale = int64(services[number].scale) if services[number].scale != UNKNOWN_SCALE else PROXY_SCALE
    reason = make_connection(packets, batch, row, connections, services, number, offer, int64(services[number].mss), scale, network,
                             records, now)
    if reason >= 0:
        return reason
    connection = batch.flow[row] >> 1
    connections.counters.events[CLIENT, RECEIVED_SYN] += 1
    if binding == SIMPLE:
        enter(connections, connection, FIRST_DATA)
        ask(connections, connection, row, REFUSED)
    else:
        enter(connections, connection, SYN_RECEIVED)
        send_syn_ack(connections, connection)
    return -1


@kernel
def open_connections(packets, batch, count, connections, services, network, records, refusal, now):
    """Opens a connection for each SYN of a burst that has none; then finds the flows of what followed it at once.

    A SYN to no service is left to `refuse`; `refusal` is the drop reason for all others, or -1 (SPLICE 9).
    """
    opened = 0
    for row in range(count):
        if batch.kind[row] != KIND_TCP or batch.verdict[row] != PENDING or batch.flow[row] >= 0:
            continue
        if opened > 0:
            batch.flow[row] = find(connections.buckets, connections.hot, batch.hash[row], batch.source[row],
                                   batch.destination[row], batch.source_port[row], batch.destination_port[row])
            if batch.flow[row] >= 0:
                continue
        if batch.control[row] & (SYN | ACK | RST | FIN) != SYN:
            continue
        if find_service(services, batch.destination[row], batch.destination_port[row]) < 0:
            batch.verdict[row] = REFUSE
            continue
        reason = refusal
        if refusal < 0:
            reason = open_one(packets, batch, row, connections, services, network, records, now)
        opened += int64(reason < 0)
        batch.verdict[row] = ABSORB if reason < 0 else DROP
        if reason >= DROP_SERVICE_FULL and connections.limits.settings[RESETS] != 0:
            batch.verdict[row] = REFUSE
            connections.counters.notices[NOTICE_LIMITED_BY_RESET] += 1
        elif reason >= 0:
            connections.counters.drops[reason] += 1
