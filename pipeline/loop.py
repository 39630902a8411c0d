"""A packet's way, top to bottom: the loop that every worker runs. Read this first.

`pipeline.compose` writes a copy of this file for each composition, with the imports between the two marks replaced by
the kernels that the configuration names; as it stands it runs our own kernels over memory ports.
"""
# isort: skip_file
from numpy import int64

from pipeline.kernels.accept_proxy_protocol import take_header
from pipeline.kernels.access import LISTS, admit
from pipeline.kernels.answers import is_unheard
from pipeline.kernels.arp import answer_arp, build_requests, neighbours_to_ask
from pipeline.kernels.batch import KIND_TCP, REFUSE, REPORT
from pipeline.kernels.build import build
from pipeline.kernels.checksum import data_start
from pipeline.kernels.clock import read_clock, refill
from pipeline.kernels.connect import connect, exclude, target_of, tried
from pipeline.kernels.connection import ASK_NOBODY, CLIENT, HOLDS, TIME_WAIT
from pipeline.kernels.cookie_acknowledgements import keep_no_state
from pipeline.kernels.counters import (
    DROP_DRAINING,
    DROP_EDIT_LOG_FULL,
    DROP_MBUFS_SHORT,
    DROP_NO_MBUF,
    DROP_PAYLOAD_REFUSED,
    NOTICE_TAKEN_OVER,
    TOTAL_BURSTS,
    TOTAL_LOOPS,
    TOTAL_OPEN,
    TOTAL_PACKETS,
    TOTAL_SLEEPS,
)
from pipeline.kernels.exception import leave_to_kernel, take_from_kernel
from pipeline.kernels.expire import expire, release_removed, set_timers, stop_all
from pipeline.kernels.faults import NEVER, RECEIVING, TRANSMITTING, choose_duplicates, earliest, emerge, hold, lose
from pipeline.kernels.hand_over import (
    MOST_SHARED,
    hand_over,
    hand_over_errors,
    is_arp_to_share,
    share,
    taken_over,
)
from pipeline.kernels.held_sender import deliver
from pipeline.kernels.icmp import answer_icmp
from pipeline.kernels.icmp_errors import pass_icmp_errors
from pipeline.kernels.jit import kernel, loop
from pipeline.kernels.kernel_neighbours import read_mailbox
from pipeline.kernels.native import address_of, load_acquire, record_at
from pipeline.kernels.open import open_connections, retire
from pipeline.kernels.outbox import dispose, settle
from pipeline.kernels.profile import AT_POLL, AT_RECEIVE, AT_RECORD, AT_SEND, AT_STAGES, AT_TIMERS
from pipeline.kernels.profile import awake, close_burst, count_paths, first_pass, mark, next_pass
from pipeline.kernels.proxy_protocol import find_ends
from pipeline.kernels.refuse import refuse
from pipeline.kernels.recorder import (
    AGAIN,
    AHEAD as RECORDED_AHEAD,
    HANDED,
    MOST_A_BURST,
    NOW,
    OCTETS,
    PACKETS,
    RECEIVED,
    SENT,
    TIMERS,
    ask_for,
    begin_burst,
    end_burst,
    forget_last,
    keep,
)
from pipeline.kernels.payload_rules import Given
from pipeline.kernels.release import release
from pipeline.kernels.records import EXHAUSTED, REFUSED, ask_for_records
from pipeline.kernels.report import report
from pipeline.kernels.repetition import restore
from pipeline.kernels.reshape import exhausted, map_row, write_stream
from pipeline.kernels.services import ANSWER_CLIENT, AWAIT_CLIENT, GROUP, NEED_MORE, NO_MATCH, REFUSE_CLIENT, claim, is_usable
from pipeline.kernels.shape_held import copy_held, put_held, settle_held, take_held, take_rewrite
from pipeline.kernels.shaping import EDIT_BYTES, END_CONNECTION, SHOW_AGAIN, is_pushed, is_to_be_shown, show_again, take_change, take_new
from pipeline.kernels.split import cut
from pipeline.kernels.source_ports import lend
from pipeline.kernels.syn_cookies import THRESHOLD
from pipeline.kernels.take_request import show_answers, take_request
from pipeline.kernels.verify import verify
from pipeline.kernels.waiting_room import send_oldest_away, take_again
from pipeline.kernels.wheel import TICK_MICROSECONDS, advance
from pipeline.state import DRAIN, STOP

# composed from here
from pipeline.kernels.express import usual as express
from pipeline.kernels.lookup import bucketed as lookup
from pipeline.kernels.memory_device import allocate, available, pause, receive, release as free, take_over, transmit
from pipeline.kernels.memory_device import hand_over as hand_on
from pipeline.kernels.observe import none as observe
from pipeline.kernels.parse import parse
from pipeline.kernels.recorder import every as is_recorded
from pipeline.kernels.rewrite import rewrite
from pipeline.kernels.schedule import round_robin as schedule
from pipeline.kernels.select_balancing import round_robin as select_0
from pipeline.kernels.transition import transition


@kernel
def select(number, payload, service, selection):
    """Asks the select kernel with that number."""
    if number == 0:
        return select_0(payload, service, selection)
    return NO_MATCH


RECORDING, CAPTURING = 0, 0
PAYLOAD_KERNELS = 0
OBSERVES = 0


@kernel
def show(number, payload, length, position, tailroom, user, given):
    """Shows the payload kernel with that number the next bytes of a stream."""
    return length
# composed to here


STOPPED_A_PASS = 64
EMERGE_AT_ONCE = 512
"""Most packets that come out of a line of faults in one pass, to be sent: what does not find room is freed at once."""
OVERSLEEP = 120
"""Microseconds by which a short sleep lasts too long (measured: 55 to 75, by Linux' timer slack of 50)."""


# stages from here
@kernel
def show_all(state, connection, side, octets, length, position, pushed, now):
    """Shows a piece of a stream to each payload kernel of its direction in turn; returns what the last one has answered."""
    shaped, rules, room = state.connections.shaped, state.connections.shaped.rules, octets.shape[0]
    chain = rules.chains[state.connections.cold[connection].service, side]
    for number in range(chain[0], chain[1]):
        rule = rules.rows[number]
        cells = shaped.user[connection, rule.first_cell:rule.first_cell + rule.cells]
        given = Given(rules.rows, rules.octets, rules.hits, number, pushed, now)
        answer = show(rule.kernel, octets, length, position, room - length, cells, given)
        if answer < 0 or answer > room:
            return answer
        length = answer
    return length


@kernel
def show_held(state, connection, now):
    """A connection is given a target: takes in what select has made of the held bytes, and shows them to the payload kernel.

    Both once, whatever becomes of the target (SPLICE 5.1, 5.3). Returns whether the connection may go on.
    """
    connections, shaped, room = state.connections, state.connections.shaped, state.connections.held.stride[0]
    if tried(connections, connection) == 0:
        take_rewrite(connections, connection, state.selection)
    if PAYLOAD_KERNELS:
        length = take_held(connections, connection)
        if length > 0:
            changed = show_all(state, connection, CLIENT, shaped.after[:room], length, 0, 1, now)
            if changed == END_CONNECTION:
                connections.counters.drops[DROP_PAYLOAD_REFUSED] += 1
                return False
            put_held(connections, connection, changed)
    settle_held(connections, connection)
    return True


@kernel
def ask_select(state, connection):
    """Returns what the select kernel of a connection's service answers to the bytes that are held so far."""
    connections, selection, held = state.connections, state.selection, state.connections.held
    hot, cold = connections.hot[connection], connections.cold[connection]
    service = cold.service
    exclude(connections, connection, service, selection, state.targets)
    show_answers(connections, connection, selection)
    start, length = 0, 0
    if hot.options & HOLDS:
        slot, header = int64(connections.openings[cold.opening].held), int64(connections.openings[cold.opening].header)
        start, length = slot * held.stride[0] + header, held.length[slot] - header
    payload = held.octets[start:start + length]
    if tried(connections, connection) > 0:  # what it changes in place now is nobody's
        copy_held(connections, start, length, selection)
        payload = selection.scratch[:length]
    return select(selection.services[service].select, payload, service, selection)


@kernel
def find_answer(state, connection, asks, now):
    """Returns what is answered to a connection: by its select kernel where that `asks`, behind a PROXY header that is taken.

    A request that the engine answers itself is taken, and nothing asked until the client has heard that.
    """
    connections, selection = state.connections, state.selection
    answer = take_header(connections, connection)
    find_ends(connections, connection, selection.client)
    unheard = is_unheard(connections, connection)
    if not asks:
        return REFUSE_CLIENT if answer == NEED_MORE or unheard else answer
    if answer == NO_MATCH and unheard:
        return AWAIT_CLIENT
    if answer == NO_MATCH:
        answer = ask_select(state, connection)
    if answer == ANSWER_CLIENT:
        return take_request(connections, connection, selection, now // TICK_MICROSECONDS)
    return answer


@kernel
def ask_group(state, connection, row):
    """Has the balancing kernel of a group choose; returns the member of the connection's service that this is, or NO_MATCH."""
    selection = state.selection
    exclude(state.connections, connection, row, selection, state.targets)
    group = selection.services[row]
    member = select(group.select, selection.scratch[:0], row, selection)
    return selection.home[group.first_member + member] if 0 <= member < group.members else NO_MATCH


@kernel
def settle_answer(state, connection, answer):
    """Returns what an answer comes to: a group's is its member, and who cannot be had is nobody's, the fall-back too."""
    connections, selection, targets = state.connections, state.selection, state.targets
    if answer >= GROUP:
        answer = ask_group(state, connection, answer - GROUP)
    service = selection.services[connections.cold[connection].service]
    if 0 <= answer < service.members and not is_usable(selection, targets.members[service.first_member + answer]):
        answer = NO_MATCH
    target = target_of(connections, connection, answer, selection, targets)
    if target >= GROUP:
        member = ask_group(state, connection, target - GROUP)
        return member if member >= 0 else REFUSE_CLIENT
    return REFUSE_CLIENT if target >= 0 and not is_usable(selection, target) else answer


@kernel
def choose(state, now):
    """Has every connection in `choices` answered, by its select kernel unless nobody is to be asked.

    What is held of one that gets a target, the fall-back too, is shown to the payload kernel then.
    """
    connections, selection, targets = state.connections, state.selection, state.targets
    choices = connections.choices
    if choices.filled[0] > 0:
        selection.pending[:] = 0
        selection.tick[0] = connections.budget[3]
    for number in range(choices.filled[0]):
        connection, asks = choices.connection[number], choices.row[number] != ASK_NOBODY
        selection.rewrite[0] = -1
        answer = settle_answer(state, connection, find_answer(state, connection, asks, now))
        choices.answer[number] = answer
        target = target_of(connections, connection, answer, selection, targets)
        if target >= 0:
            claim(selection, targets, target)
            if connections.hot[connection].options & HOLDS and not show_held(state, connection, now):
                choices.answer[number] = REFUSE_CLIENT


@kernel
def show_payload(state, count, now):
    """Shows every payload kernel what is new in the rows that pass, in order, and logs what it changes (SPLICE 5.1).

    What they repeat is made the first copy of that before (SPLICE 1.4).
    """
    connections, shaped, batch = state.connections, state.connections.shaped, state.batch
    for row in range(count):
        if not is_to_be_shown(batch, row, connections):
            continue
        cause, reason = EXHAUSTED, restore(state.packets, state.base[0], batch, row, connections)
        while reason < 0:
            length = take_new(state.packets, state.base[0], batch, row, connections)
            if length == 0:
                break
            flow = batch.flow[row]
            pushed = is_pushed(batch, row, shaped, length)
            changed = show_all(state, flow >> 1, flow & 1, shaped.after[:EDIT_BYTES], length, shaped.position[flow], pushed, now)
            if changed == SHOW_AGAIN:
                show_again(batch, row, connections)
                break
            if changed == END_CONNECTION:
                reason, cause = DROP_PAYLOAD_REFUSED, REFUSED
            elif not take_change(connections, flow, length, changed):
                reason = DROP_EDIT_LOG_FULL
        if reason >= 0:
            exhausted(batch, row, count, connections, reason, cause, state.records, now)


@kernel
def shape(state, count, now):
    """Has payload kernels see and change what passes; what has grown beyond its mbuf goes on in fresh ones behind it."""
    packets, base, batch, connections = state.packets, state.base[0], state.batch, state.connections
    show_payload(state, count, now)
    for row in range(count):
        wanted = map_row(packets, base, batch, row, connections)
        if wanted >= 0:
            got = allocate(state.device, state.fresh, wanted) if wanted > 0 else 0
            connections.counters.drops[DROP_NO_MBUF] += wanted - got
            write_stream(packets, base, batch, row, connections, state.fresh, got)


@kernel
def watch_mbufs(state):
    """Sees whether mbufs run short: an eighth of what the pool had when nothing was under way, or two bursts (SPLICE 9).

    What the send queues may keep until they are full counts as under way.
    """
    left, reserve = available(state.device), state.reserve
    if reserve[1] < 0:
        reserve[1] = max((left - reserve[0]) >> 3, 2 * state.burst[0])
    reserve[2] = 1 if left < reserve[1] else 0


@kernel
def refusal(state, draining):
    """Returns the drop reason for which new connections are refused now, or -1."""
    if draining != 0:
        return DROP_DRAINING
    return DROP_MBUFS_SHORT if state.reserve[2] != 0 else -1


@kernel
def timers(state, phase, stopped, now):
    """Between bursts: what is due, ARP that has to be asked, and the end of all connections once told to stop.

    Returns whether a pass of the loop is needed for what it ordered.
    """
    tick = now // TICK_MICROSECONDS
    if phase == STOP:
        stop_all(state.connections, stopped, STOPPED_A_PASS, state.records, now)
        return True
    if state.targets.health[2] != state.targets.health[3]:
        release_removed(state.connections, state.targets, STOPPED_A_PASS, state.records, now)
        return True
    if tick == state.connections.budget[3] and state.wheel.now[0] >= tick and state.wheel.now[1] == 0:
        return state.connections.releases.filled[0] > 0
    if tick != state.connections.budget[3]:
        state.connections.budget[3] = tick
        refill(state.connections.budget, now)
        send_oldest_away(state.connections, tick)
        read_mailbox(state.network, state.mailbox, state.connections.counters, tick)
        neighbours_to_ask(state.network, state.requests, now)
        watch_mbufs(state)
    count = advance(state.wheel, tick, state.expired)
    expire(state.connections, state.expired, count, state.selection.services, state.targets, state.network, state.records,
           now)
    return True


@kernel
def own_frames(state, now):
    """Makes frames of the segments, ARP requests and parts of segments that this pass has ordered, in fresh mbufs."""
    segments, requests, parts = state.connections.segments, state.requests, state.connections.parts
    wanted = segments.filled[0] + requests.filled[0] + parts.filled[0]
    if wanted == 0:
        return
    got = allocate(state.device, state.fresh, wanted)
    if got == 0:
        state.connections.counters.drops[DROP_NO_MBUF] += wanted
    ordered = segments.filled[0] if got != 0 else 0
    asked = requests.filled[0] if got != 0 else 0
    cut(state.packets, state.base[0], state.batch, parts, state.fresh[ordered + asked:], got - ordered - asked)
    base = state.base[0]
    build(state.packets, base, state.fresh, ordered, state.connections, state.network, state.outbox,
          now)
    build_requests(state.packets, base, state.fresh[ordered:], asked, requests, state.network, state.outbox,
                   state.connections.counters)


@kernel
def share_arp(state, count):
    """Lists copies of the ARP rows of a burst for the other workers, as far as there are mbufs for it."""
    steering, counters = state.steering, state.connections.counters
    shared, wanted = 0, steering.worker[1] - 1
    for row in range(count):
        if shared < MOST_SHARED and is_arp_to_share(state.packets, state.batch, row):
            shared += 1
            if allocate(state.device, state.fresh, wanted) != 0:
                share(state.packets, state.base[0], state.batch, row, state.fresh, steering, state.outbox, counters)
            else:
                counters.drops[DROP_NO_MBUF] += wanted


@kernel
def answer_others(state, count, handed, now):
    """Deals with the rows that are not TCP, if there are any: one look at a burst without is cheaper than three."""
    packets, batch, network, connections, others = state.packets, state.batch, state.network, state.connections, 0
    for row in range(count):
        others += int64(batch.kind[row] != KIND_TCP)
    if others == 0:
        return
    alone = state.steering.worker[1] == 1 or handed
    if not alone:
        share_arp(state, count)
    answer_arp(packets, batch, count, network, connections.counters, now)
    answer_icmp(packets, batch, count, network, connections.counters)
    if not alone:
        hand_over_errors(packets, batch, count, connections, state.steering, state.selection.services, state.outbox)
    pass_icmp_errors(packets, batch, count, connections, network, now)


@kernel
def answer_refused(state, count, now):
    """Answers the rows that could not be passed on, or belong to no connection, if there are any."""
    packets, batch, connections, found = state.packets, state.batch, state.connections, 0
    for row in range(count):
        found += int64(batch.verdict[row] == REPORT) | int64(batch.verdict[row] == REFUSE)
    if found > 0:
        report(packets, batch, count, connections, state.network)
        refuse(packets, batch, count, connections, state.selection.services, state.targets, state.network, now)


@kernel
def stages(state, port, count, handed, draining, now):
    """One burst of `count` packets (none, for what timers have ordered) through every stage.

    What other workers own is handed over to them, but for packets that one of them has `handed` to this one.
    The usual segments of established connections are sent on by `express`; what is `left` of the burst goes through all
    others. Frames of our own are posted before those that pass: held payload goes out ahead of what follows it.
    Behind each call comes a mark for the profile (profile_marks.py).
    """
    packets, base, batch, connections = state.packets, state.base[0], state.batch, state.connections
    services, network, counters = state.selection.services, state.network, state.connections.counters
    left, given = 0, 0
    if count > 0:
        parse(packets, base, batch, count, port, network, counters)
        lookup(batch, count, connections.buckets, connections.hot)
        if state.steering.worker[1] > 1 and not handed:
            given = hand_over(batch, count, state.steering, services, state.outbox, counters)
        if OBSERVES:
            observe(packets, base, batch, count, connections, state.observed, now)
        count_paths(state.profile, batch, count, connections.hot)
        left = express(packets, batch, count, connections, network, state.outbox, now)
        left -= given
    if left > 0:
        leave_to_kernel(packets, batch, count, port, services, state.claims, network, counters)
        answer_others(state, count, handed, now)
        ask_for_records(state.records, batch, count)
        verify(packets, base, batch, count, connections)
        retire(packets, batch, count, connections)
    release(connections, state.targets, state.sources, state.wheel, state.records, now)
    if left > 0:
        if state.access.settings[LISTS] != 0:
            admit(batch, count, state.access, services, counters)
        if state.cookies.settings[THRESHOLD] >= 0:
            keep_no_state(packets, batch, count, connections, services, network, state.records, state.cookies,
                          refusal(state, draining), now)
        open_connections(packets, batch, count, connections, services, network, state.records,
                         refusal(state, draining), now)
        transition(packets, base, batch, count, connections, services, state.targets, network, state.records, now)
    if PAYLOAD_KERNELS:
        shape(state, count, now)
    choose(state, now)
    connect(batch, connections, state.selection, state.targets, state.sources, network, state.records, now)
    if left > 0:
        rewrite(packets, base, batch, count, connections, network, now)
        answer_refused(state, count, now)
    lend(connections, state.targets, state.sources, now // TICK_MICROSECONDS)
    deliver(connections)
    own_frames(state, now)
    set_timers(connections, state.wheel, now)
    if left > 0:
        dispose(batch, count, connections.parts, state.outbox, counters)
# stages to here


@kernel
def through_faults(state, line, mbufs, count, limit, now, until):
    """Hands `count` packets to the faults of a line; returns how many have come out of it by `until` into `mbufs`."""
    faults = state.faults
    if count > 0:
        kept = lose(faults, line, mbufs, count, state.outbox)
        wanted = choose_duplicates(state.packets, faults, line, mbufs, kept)
        copies = allocate(state.device, faults.fresh, wanted) if wanted > 0 else 0
        hold(state.packets, state.base[0], faults, line, mbufs, kept, copies, state.outbox, now)
    return emerge(faults, line, mbufs, limit, until)


@kernel
def moment(state, given):
    """Returns the time for packets that come to a line of faults: `given`, or read anew where that is -1.

    The time at the start of the pass may be long ago where the core is shared: packets left up to 3 ms too early by it.
    """
    return given if given >= 0 else read_clock(state.clock)


@kernel
def record(state, recorder, mbufs, first, count, port, kind, phase, now):
    """Copies a burst into a recording before anything changes it: of its packets those that the filter wants.

    A burst of none is kept too: what timers did is done again at the same time in a replay. Returns whether it found room.
    """
    if not begin_burst(recorder, count, now):
        return False
    packets, base, filled, left = state.packets, state.base[0], recorder.filled, recorder.left[0]
    number, octets, stop = filled[PACKETS], filled[OCTETS], first + count
    most = number + (left if left > 0 else count)
    ask_for(base, mbufs, first, min(first + RECORDED_AHEAD, stop))
    for row in range(first, stop):
        if row + RECORDED_AHEAD < stop:
            ask_for(base, mbufs, row + RECORDED_AHEAD, row + RECORDED_AHEAD + 1)
        mbuf = mbufs[row]
        length = int64(record_at(packets.mbuf, mbuf).data_length)
        if number < most and is_recorded(packets.octets, data_start(packets, base, mbuf), length):
            octets = keep(recorder, packets, base, mbuf, number, octets)
            number += 1
    end_burst(recorder, number, octets, count, port, kind, phase, state.connections.counters.totals[TOTAL_LOOPS], now)
    return True


@kernel
def record_turn(state, port, count, fresh, timed, handed, phase, now):
    """Records what a worker turns to: a burst of which so many packets are `fresh` from the port, or timers (`timed`)."""
    kind = TIMERS if timed else HANDED if handed else RECEIVED if fresh == count else AGAIN
    record(state, state.recorder, state.batch.mbuf, 0, count if kind == RECEIVED else 0, port, kind, phase, now)


@kernel
def transmit_captured(state, port, phase):
    """Sends what lies in the outbox for a port and captures what the device takes of it; returns how many it took."""
    mbufs, filled, sent, now = state.outbox.mbuf[port], state.outbox.filled[port], 0, state.capture.filled[NOW]
    while sent < filled:
        count = min(filled - sent, MOST_A_BURST)
        captured = record(state, state.capture, mbufs, sent, count, port, SENT, phase, now)
        taken, left = transmit(state.device, port, mbufs, sent, count), 0
        for row in range(sent + taken, sent + count if captured else 0):
            start = data_start(state.packets, state.base[0], mbufs[row])
            left += int64(is_recorded(state.packets.octets, start, int64(record_at(state.packets.mbuf, mbufs[row]).data_length)))
        forget_last(state.capture, left)
        sent += taken
        if taken < count:
            break
    return sent


@kernel
def send(state, given, phase):
    """Sends what lies in the outbox, port by port, and frees every mbuf that is done with.

    What a port's faults have delayed is sent once it is due, or when the worker ends.
    """
    outbox = state.outbox
    for port in range(outbox.filled.shape[0]):
        line = 2 * port + TRANSMITTING
        if state.faults.active[line] != 0:
            now = moment(state, given)
            outbox.filled[port] = through_faults(state, line, outbox.mbuf[port], outbox.filled[port], EMERGE_AT_ONCE, now,
                                                 NEVER - 1 if phase == STOP else now)
        if outbox.filled[port] > 0:
            if CAPTURING:
                sent = transmit_captured(state, port, phase)
            else:
                sent = transmit(state.device, port, outbox.mbuf[port], 0, outbox.filled[port])
            settle(outbox, port, sent, state.connections.counters)
        if outbox.to_release[0] > 0:
            free(state.device, outbox.released, outbox.to_release[0])
            outbox.to_release[0] = 0
    room = state.connections.waiting
    if room.left[0] > 0:
        free(state.device, room.leaving, room.left[0])
        room.left[0] = 0


@kernel
def send_to_workers(state):
    """Hands what this burst has found to be other workers' over to them."""
    steering = state.steering
    rows = steering.filled.shape[0]
    for row in range(rows):
        if steering.filled[row] > 0:
            taken = hand_on(state.device, steering.worker[0] * rows + row, steering.mbuf[row], 0, steering.filled[row])
            taken_over(steering, row, taken, state.outbox, state.connections.counters)


@kernel
def receive_burst(state, port, given):
    """Receives a burst: of what has waited and comes again, else from the device and through the port's faults.

    Returns how many mbufs.
    """
    room, batch, totals, line = state.connections.waiting, state.batch, state.connections.counters.totals, 2 * port + RECEIVING
    if room.used[0] > 0:
        count = take_again(room, port, batch.mbuf, state.burst[0])
        if count > 0:
            return count
    count = receive(state.device, port, batch.mbuf, state.burst[0])
    if state.faults.active[line] != 0:
        come = moment(state, given)
        count = through_faults(state, line, batch.mbuf, count, batch.mbuf.shape[0], come, come)
    totals[TOTAL_BURSTS] += min(count, 1)
    totals[TOTAL_PACKETS] += count
    return count


@kernel
def take_burst(state, entered, given):
    """Takes the next burst of an input: from another worker, or from a port; returns how many mbufs."""
    inputs = state.inputs
    if inputs.ring[entered] >= 0:
        count = take_over(state.device, inputs.ring[entered], state.batch.mbuf, state.burst[0])
        state.connections.counters.notices[NOTICE_TAKEN_OVER] += count
    else:
        count = receive_burst(state, inputs.port[entered], given)
    inputs.length[entered] = count
    return count


@kernel
def rest(state, idle, now):
    """Gives the core away after enough empty passes, for longer and longer up to the configured time.

    Never beyond the moment at which a delayed packet is due: the last bit of the way is spun.
    """
    longest = state.idle[0]
    if longest > 0 and idle > state.idle[1]:
        span = min(longest, 1 + ((idle - state.idle[1]) >> 3), earliest(state.faults) - now - OVERSLEEP)
        if span > 0:
            state.connections.counters.totals[TOTAL_SLEEPS] += 1
            pause(state.device, span)


@kernel
def give_up_delayed(state):
    """Frees every packet that still waits in a line of faults."""
    for line in range(state.faults.active.shape[0]):
        count = state.fresh.shape[0]
        while count > 0:
            count = emerge(state.faults, line, state.fresh, state.fresh.shape[0], NEVER - 1)
            free(state.device, state.fresh, count)


@loop
def run(state, passes, given):
    """Runs a worker until it is told to stop, or for `passes` passes (-1: no limit); returns how many it made.

    `given` is the time in microseconds for a replay or a test, or -1 to read the clock.
    """
    done, idle, stopped, profile = 0, 0, 0, state.profile
    counters, outbox, inputs, alone = state.connections.counters, state.outbox, state.inputs, state.steering.worker[1] == 1
    first_pass(profile)
    while done != passes:
        phase = load_acquire(address_of(state.control))
        if phase == DRAIN and alone and counters.totals[TOTAL_OPEN] == counters.states[TIME_WAIT]:
            phase = STOP
        now = given if given >= 0 else read_clock(state.clock)
        received, worked = 0, False
        turns = schedule(inputs)
        for turn in range(turns + 1):
            count, port, handed, before = 0, 0, False, counters.totals[TOTAL_PACKETS]
            if turn < turns:
                entered = inputs.order[turn]
                port, handed = inputs.port[entered], inputs.ring[entered] >= 0
                count = take_burst(state, entered, given)
                received += count
                mark(profile, AT_RECEIVE if count > 0 else AT_POLL)
                if count == 0 and outbox.to_release[0] == 0:
                    continue
            else:
                ordered = timers(state, phase, stopped, now)
                mark(profile, AT_TIMERS)
                if not (ordered or earliest(state.faults) <= now):
                    continue
            worked = True
            if RECORDING:
                record_turn(state, port, count, counters.totals[TOTAL_PACKETS] - before, turn == turns, handed, phase, now)
                mark(profile, AT_RECORD)
            if CAPTURING:
                state.capture.filled[NOW] = now
            if state.network.beside[port] >= 0:
                take_from_kernel(state.packets, state.batch, count, port, state.network, outbox, counters)
            else:
                stages(state, port, count, handed, phase, now)
            mark(profile, AT_STAGES)
            if not alone:
                send_to_workers(state)
            send(state, given, phase)
            mark(profile, AT_SEND)
            close_burst(profile, count)
        done += 1
        counters.totals[TOTAL_LOOPS] += 1
        next_pass(profile, received, worked)
        if phase == STOP:
            stopped += STOPPED_A_PASS
            if stopped >= state.connections.hot.shape[0] + STOPPED_A_PASS and state.connections.waiting.used[0] == 0:
                give_up_delayed(state)
                break
        elif received > 0:
            idle = 0
        else:
            idle += 1
            rest(state, idle, now)
            awake(profile)
    return done
