"""What comes back of SYN cookies: the first payload makes the connection whose SYN was answered with one (SPLICE 7.1 to 7.3)."""
from numpy import int64

from .batch import ABSORB, ANSWER, DROP, KIND_TCP, PENDING
from .connection import CLIENT, PROMISED, PROMISED_ECN, PROMISED_SACK, PROMISED_SCALING, SYN_RECEIVED, enter
from .cookie_number import FORGED, GENUINE, agreed_by, judge, size_of
from .counters import DROP_COOKIE_OUT_OF_ORDER, NOTICE_COOKIES_ACCEPTED, NOTICE_COOKIES_REFUSED
from .flow_table import find
from .headers import ACK, CWR, ECE, FIN, IPV4_LENGTH, RST, SYN, TCP_LENGTH
from .initial_number import half_siphash
from .jit import kernel
from .native import record_at, swap32
from .open import make_connection
from .outbox import set_length
from .refuse import swap_macs, write_ipv4_header
from .sequence import wrap
from .services import IMMEDIATE, SIMPLE, find_service
from .tcp_options import HIGHEST_SCALE
from .syn_cookies import SENT_IN, THRESHOLD, answer_syns, turn_keys, write_tcp_header


@kernel
def hash_of(batch, row, cookies, number):
    """Returns the hash of a row's 4-tuple under the key of the epoch that a cookie names."""
    age = (cookies.epochs[0] ^ number) & 1
    ports = (batch.source_port[row] << 16) | batch.destination_port[row]
    return half_siphash(cookies.keys[2 * age], cookies.keys[2 * age + 1], batch.source[row], batch.destination[row], ports)


@kernel
def is_last_acknowledgement(batch, row, cookies):
    """Says whether a row acknowledges the FIN with which we have answered one without state."""
    number = wrap(batch.ack[row] - 2)
    if batch.payload_length[row] > 0 or batch.control[row] & FIN:
        return False
    return judge(hash_of(batch, row, cookies, number), number, wrap(batch.seq[row] - 2)) == GENUINE


@kernel
def answer_fin_of_nobody(packets, batch, row):
    """Turns a FIN without data, of a client of which nothing is kept, into the FIN that answers it (SPLICE 7.3)."""
    frame, network, ack = batch.frame[row], batch.network[row], wrap(batch.seq[row] + 1)
    swap_macs(packets, frame)
    write_ipv4_header(packets, network, IPV4_LENGTH + TCP_LENGTH, batch.destination[row], batch.source[row])
    write_tcp_header(packets, network + IPV4_LENGTH, batch, row, batch.ack[row], ack, TCP_LENGTH, FIN | ACK, batch.window[row], 0)
    set_length(packets, batch.mbuf[row], network - frame + IPV4_LENGTH + TCP_LENGTH)
    record_at(packets.mbuf, batch.mbuf[row]).offload = 0
    batch.verdict[row], batch.out_port[row] = ANSWER, batch.port[row]


@kernel
def show_as_syn(packets, batch, row, mss):
    """Gives a row the columns that its SYN had, as far as they are known; returns what was agreed to and the scale that we said."""
    agreed = scale = 0
    batch.seq[row], batch.mss[row], batch.scale[row], batch.sack_permitted[row] = wrap(batch.seq[row] - 1), mss, -1, 0
    if batch.stamps[row] != 0:
        stamp = swap32(int64(record_at(packets.word32, batch.stamps[row] + 4).value))
        agreed, scale = agreed_by(stamp) & PROMISED, min(stamp >> 4 & 15, HIGHEST_SCALE)
        batch.scale[row] = stamp & 15 if agreed & PROMISED_SCALING else -1
        batch.sack_permitted[row] = int64(agreed & PROMISED_SACK != 0)
    batch.control[row] = SYN | (ECE | CWR if agreed & PROMISED_ECN else 0)
    return agreed, scale


@kernel
def open_by_cookie(packets, batch, row, connections, services, number, mss, network, records, now):
    """Makes the connection that a row's cookie stands for, as if its SYN-ACK were out; returns -1, or why there is none.

    What the client was told of MSS is not known any more: the most that may have been.
    """
    control, seq = batch.control[row], batch.seq[row]
    agreed, scale = show_as_syn(packets, batch, row, mss)
    reason = make_connection(packets, batch, row, connections, services, number, agreed, network.mss[0], scale, network, records, now)
    batch.control[row], batch.seq[row] = control, seq
    if reason >= 0:
        return reason
    connection = batch.flow[row] >> 1
    hot, cold = record_at(connections.hot, connection), record_at(connections.cold, connection)
    record_at(connections.openings, int64(cold.opening)).proxy_isn = wrap(batch.ack[row] - 1)
    hot.acked[CLIENT] = batch.ack[row]
    enter(connections, connection, SYN_RECEIVED)
    return -1


@kernel
def take_acknowledgement(packets, batch, row, connections, services, number, network, records, cookies, refusal, now):
    """Looks at a segment of no connection that may have a cookie; returns whether it has made a connection."""
    cookie, counters = wrap(batch.ack[row] - 1), connections.counters
    hashed = hash_of(batch, row, cookies, cookie)
    found = judge(hashed, cookie, wrap(batch.seq[row] - 1))
    if found != GENUINE and is_last_acknowledgement(batch, row, cookies):
        batch.verdict[row] = ABSORB
        return False
    if found == FORGED:
        counters.notices[NOTICE_COOKIES_REFUSED] += 1
        return False
    reason = DROP_COOKIE_OUT_OF_ORDER
    if found == GENUINE:
        if batch.payload_length[row] == 0 and services[number].binding != IMMEDIATE and services[number].fallback < 0:
            if batch.control[row] & FIN and record_at(packets.mbuf, batch.mbuf[row]).segments == 1:
                answer_fin_of_nobody(packets, batch, row)
            else:
                batch.verdict[row] = ABSORB
            return False
        reason = refusal
        if refusal < 0:
            mss = size_of(cookies.sizes, hashed, cookie)
            reason = open_by_cookie(packets, batch, row, connections, services, number, mss, network, records, now)
    if reason >= 0:
        batch.verdict[row] = DROP
        counters.drops[reason] += 1
        return False
    counters.notices[NOTICE_COOKIES_ACCEPTED] += 1
    return True


@kernel
def take_acknowledgements(packets, batch, count, connections, services, network, records, cookies, refusal, now):
    """Makes a connection of each segment with a cookie that has to have one; then finds the flows of what followed it at once."""
    opened = 0
    for row in range(count):
        if batch.kind[row] != KIND_TCP or batch.verdict[row] != PENDING or batch.flow[row] >= 0:
            continue
        if opened > 0:
            batch.flow[row] = find(connections.buckets, connections.hot, batch.hash[row], batch.source[row],
                                   batch.destination[row], batch.source_port[row], batch.destination_port[row])
        if batch.flow[row] >= 0 or batch.control[row] & (SYN | RST | ACK) != ACK:
            continue
        number = find_service(services, batch.destination[row], batch.destination_port[row])
        if number >= 0 and services[number].binding != SIMPLE:
            opened += int64(take_acknowledgement(packets, batch, row, connections, services, number, network, records, cookies,
                                                 refusal, now))


@kernel
def keep_no_state(packets, batch, count, connections, services, network, records, cookies, refusal, now):
    """SYN cookies, both ways: SYNs are answered from the threshold on, and what comes back is taken for two epochs.

    `refusal` is the drop reason for new connections, or -1: then SYNs are left to `open_connections`, which drops them.
    """
    if cookies.epochs[SENT_IN] >= turn_keys(cookies, connections.secret, now) - 1:
        take_acknowledgements(packets, batch, count, connections, services, network, records, cookies, refusal, now)
    if refusal < 0 and connections.counters.states[SYN_RECEIVED] >= cookies.settings[THRESHOLD]:
        answer_syns(packets, batch, count, connections, services, network, cookies, now)
