"""Tries a kernel on generated input beside the reference of its slot, or beside what the slot asks of it.

Each function is given the kernel, which can be called, and its place; it returns what was tried (str) and the faults (list of str).
"""
import numpy as np

from pipeline import replacement
from pipeline.kernel_places import default_of, kernel_at, parameters_of
from pipeline.kernels import flow_table, lookup, octet_search, parse, payload_rules, records, schedule, services, shaping, wheel
from pipeline.kernels.batch import DROP, KIND_ARP, KIND_ICMP, KIND_NONE, KIND_TCP, NO_FLOW, PENDING, Batch
from pipeline.kernels.connection import COLD, HOT
from pipeline.kernels.flow_hash import hash_key
from pipeline.kernels.memory import allocate
from pipeline.slots import SLOTS
from pipeline.trial_engine import NOW, Bench, columns_differ, differing, outcome

BURSTS = (1, 2, 7, 32, 64, 256, 256)
PARSED = {KIND_TCP: Batch._fields[3:-1], KIND_ICMP: ("kind", "verdict", "frame", "network", "transport", "payload_length", "source", "destination"),
          KIND_ARP: ("kind", "verdict", "frame", "network"), KIND_NONE: ("kind", "verdict")}
"""Columns of a packet that count, by its kind: from `kind` on, and of TCP all."""


def others_differ(wanted, found, but):
    """Returns the sentences on all arrays that differ, but for those whose names begin with one of `but`."""
    sentences = (differing(name, wanted[name], found[name]) for name in wanted if not name.startswith(but))
    return [sentence for sentence in sentences if sentence]


def whole(answer):
    """Returns a list with a fault where an answer is no whole number."""
    return [] if isinstance(answer, (int, np.integer)) else [f"it answers {answer!r}, which is no whole number"]


def try_parse(kernel, place):
    """Bursts of frames of all sorts, most of them spoilt in some way."""
    bench, faults, tried, reference = Bench(), [], 0, parse.parse
    state = bench.state
    for count in BURSTS:
        bench.soil()
        bench.receive(*bench.frames(count))
        arguments = (state.packets, state.base[0], state.batch, count, 0, state.network, state.counters)
        wanted, found = (outcome(one, arguments, bench.watched())[1] for one in (reference, kernel))
        tried += count
        for row in range(count):
            dropped = wanted["state.batch.verdict"][row] == DROP
            columns = ("kind", "verdict", "reason") if dropped else PARSED[int(wanted["state.batch.kind"][row])]
            fault = columns_differ(wanted, found, [row], [column for column in columns if dropped or column not in ("reason", "hash", "flow")])
            faults += [f"burst of {count}: {fault}; the frame: {_hex(bench, row)}"] if fault else []
        faults += others_differ(wanted, found, ("state.batch",))
    return f"{tried} frames in {len(BURSTS)} bursts", faults


def _hex(bench, row):
    at = int(bench.mbufs[row])
    length = int(bench.network.arena.native.mbuf["data_length"][at])
    return bench.network.arena.octets[at + 256:at + 256 + min(length, 80)].tobytes().hex()


def keys(entries):
    """Returns the keys (int64[4, n]: remote, local, remote port, local port) of entries: clients and targets of many connections."""
    connection, side = entries >> 1, entries & 1
    return np.array([np.where(side == 0, 0x0A000000 + connection // 64, 0x0C000001 + connection % 3),
                     np.where(side == 0, 0xC0A80001, 0x0A020001),
                     np.where(side == 0, 1024 + connection % 64 * 911, 8080), np.where(side == 0, 80, 1024 + connection % 60_000)])


def try_hash(kernel, place):
    """Keys as connections have them: within 32 bits, the same each time, spread over buckets and tags."""
    made, faults = keys(np.arange(32768)), []
    hashes = np.array([int(kernel(*(int(part) for part in made[:, number]))) for number in range(made.shape[1])])
    if hashes.min() < 0 or hashes.max() >= 1 << 32:
        return "32,768 keys", [f"it answers {hashes.min() if hashes.min() < 0 else hashes.max()}, which is not from 0 to 2**32 - 1"]
    if any(int(kernel(*(int(part) for part in made[:, number]))) != hashes[number] for number in range(100)):
        faults.append("the same key has another hash when asked again")
    filled, tags = np.bincount(hashes >> 24, minlength=256), len(np.unique(hashes & 0xFFFF))
    if filled.min() < 32 or filled.max() > 384:
        faults.append(f"it spreads badly: of 32,768 keys {filled.min()} to {filled.max()} share their uppermost 8 bits, about 128 should")
    if tags < 13_000:
        faults.append(f"it spreads badly: 32,768 keys have {tags} different lowest 16 bits, some 25,800 there should be")
    return "32,768 keys", faults


class _Table:
    """A table, ours or the kernel's own, with hot records in which entry n has the n-th key."""

    def __init__(self, place, connections):
        own = replacement.own_functions("lookup", place) if replacement.brings("lookup", place) else {}
        self.own = bool(own)
        self.find, self.insert, self.remove = (own.get(name, getattr(flow_table, name)) for name in ("find", "insert", "remove"))
        self.buckets = replacement.allocator({"lookup": place}, "lookup")(connections)
        self.hot, self.keys = allocate(connections, HOT), keys(np.arange(2 * connections))
        for name, part in zip(("remote_address", "local_address", "remote_port", "local_port"), self.keys, strict=True):
            self.hot[name] = part.reshape(connections, 2)
        self.hashes = [int(hash_key(*self.key(entry))) for entry in range(2 * connections)]

    def key(self, entry):
        """Returns the key of an entry (four ints)."""
        return tuple(int(part) for part in self.keys[:, entry])


def try_lookup(kernel, place):
    """Keys come and go; each burst asks for some that are there and some that are not. A table of its own is tried as well."""
    bench, table, random, faults, tried, there = Bench(), _Table(place, 256), np.random.default_rng(5), [], 0, set()
    batch = bench.state.batch
    for turn in range(60):
        for entry in random.integers(0, 512, 40).tolist():
            done = table.remove(table.buckets, table.hashes[entry], entry) if entry in there else table.insert(
                table.buckets, table.hashes[entry], entry)
            if not done:
                faults.append(f"{'remove' if entry in there else 'insert'} of entry {entry} answers that it was not done")
            there ^= {entry}
        for entry in random.integers(0, 512, 20).tolist():
            found = int(table.find(table.buckets, table.hot, table.hashes[entry], *table.key(entry)))
            if found != (entry if entry in there else NO_FLOW):
                faults.append(f"find answers {found} for entry {entry}, which is{'' if entry in there else ' not'} there")
        count = BURSTS[turn % len(BURSTS)]
        entries = random.integers(0, 512, count)
        bench.soil()
        batch.source[:count], batch.destination[:count], batch.source_port[:count], batch.destination_port[:count] = table.keys[:, entries]
        batch.kind[:count] = np.where(random.random(count) < 0.9, KIND_TCP, KIND_ICMP)
        batch.verdict[:count] = np.where(random.random(count) < 0.9, PENDING, DROP)
        asked = (batch.kind[:count] == KIND_TCP) & (batch.verdict[:count] == PENDING)
        wanted = np.array([entry if entry in there and look else NO_FLOW for entry, look in zip(entries.tolist(), asked, strict=True)])
        before = {name: getattr(batch, name).copy() for name in Batch._fields}
        kernel(batch, count, table.buckets, table.hot)
        tried += count
        hashes = np.array([table.hashes[entry] for entry in entries])
        changed = [name for name in before if name not in ("flow", "hash", "above") and (before[name] != getattr(batch, name)).any()]
        faults += [f"burst of {count}: {sentence}" for sentence in (
            differing("batch.flow", wanted, batch.flow[:count]), differing("batch.hash", hashes, batch.hash[:count])) if sentence]
        faults += [f"it changes batch.{name}" for name in changed]
    return f"{tried} packets in 60 bursts on {'its own' if table.own else 'our'} table", faults


def try_select(kernel, place):
    """First payloads of all sorts: the answer must be a target of the service, NO_MATCH, NEED_MORE or ANSWER_CLIENT with a reply."""
    bench, random, faults, tried = Bench(), np.random.default_rng(3), [], 0
    selection = bench.state.selection
    texts = [b"", b"G", b"GET /a HTTP/1.1\r\nHost: b.example\r\n\r\n", b"GET /b/c HTTP/1.0\r\n\r\n", b"12345\n", bytes(range(256)), b"\r\n" * 20]
    texts += [random.integers(0, 256, int(random.integers(0, 2000)), np.uint8).tobytes() for _ in range(200)]
    for service in range(len(selection.services)):
        members = int(selection.services[service].members)
        for number, text in enumerate(texts):
            selection.rewrite[0], selection.excluded[:] = -1, (number % 3 - 1, -1)
            services_before = selection.services.tobytes()
            answer = kernel(np.frombuffer(text, np.uint8).copy(), service, selection)
            tried += 1
            if whole(answer):
                return f"{tried} payloads", whole(answer)
            answers = answer == services.ANSWER_CLIENT and 0 < selection.reply[0] <= len(text) and 0 < selection.reply[1] < 256
            if not (answers or answer in (services.NO_MATCH, services.NEED_MORE) or 0 <= answer < members
                    or services.GROUP <= answer < services.GROUP + len(selection.services)):
                faults.append(f"it answers {answer} to {text[:40]!r}; it must be 0 to {members - 1}, NO_MATCH (-1) or NEED_MORE (-2), "
                              "or ANSWER_CLIENT (-3) with `reply` within the payload and an octet that is not 0")
            if selection.rewrite[0] > len(selection.scratch):
                faults.append(f"it says that scratch has {selection.rewrite[0]} bytes; there is room for {len(selection.scratch)}")
            if selection.services.tobytes() != services_before:
                faults.append("it changes the services")
    return f"{tried} payloads", faults


def given_of(search, replacement):
    """Returns a `Given` of one rule with this search and replacement (bytes)."""
    octets = search + bytes(octet_search.failures(search)) + replacement
    rules = payload_rules.allocate_payload_rules(1, 1, len(octets))
    rules.octets[:len(octets)] = np.frombuffer(octets, np.uint8)
    rules.rows[0] = (0, 0, 8, 0, len(search), 2 * len(search), len(replacement), 0, 1000, 1000, 1)
    return payload_rules.Given(rules.rows, rules.octets, rules.hits, 0, 1, 0)


def try_payload(kernel, place):
    """Pieces of a stream, with and without room to grow: the answer must be within it, and nothing behind it be touched."""
    random, faults, user, position = np.random.default_rng(4), [], np.zeros(max(payload_rules.CELLS.values()), np.int64), 0
    rules = given_of(b"ab", b"abc")
    six = len(parameters_of("payload", place, kernel_at("payload", place))) == len(SLOTS["payload"].parameters)
    for _ in range(300):
        length, tailroom = int(random.integers(1, 1461)), int(random.choice([0, 1, 700, 6000]))
        whole_buffer = random.integers(0, 256, length + tailroom + 64, np.uint8)
        behind = whole_buffer[length + tailroom:].copy()
        further = (rules._replace(now=position),) if six else ()
        answer = kernel(whole_buffer[:length + tailroom], length, position, tailroom, user, *further)
        if whole(answer):
            return "300 pieces", whole(answer)
        if not 0 <= answer <= length + tailroom and answer not in (shaping.END_CONNECTION, shaping.SHOW_AGAIN):
            faults.append(f"it answers {answer} for {length} bytes with room for {tailroom} more; it must be 0 to {length + tailroom}")
        if (whole_buffer[length + tailroom:] != behind).any():
            faults.append(f"it writes behind the room for {length} + {tailroom} bytes")
        position += length
    return "300 pieces", faults


def try_schedule(kernel, place):
    """Inputs with bursts of all lengths: each has its turn once in a pass at most, and none is left out for ever."""
    inputs, random, faults = schedule.allocate_inputs(0, 3, 2), np.random.default_rng(6), []
    count, waits = len(inputs.order), np.zeros(len(inputs.order), int)
    for turn in range(2000):
        inputs.length[:] = random.choice([0, 1, 64], count) if turn % 500 < 250 else np.where(np.arange(count) == 4, 64, 1)
        answer = kernel(inputs)
        if whole(answer) or not 0 <= answer <= count:
            return "2,000 passes", whole(answer) or [f"it answers {answer}, which is not from 0 to {count}"]
        served = inputs.order[:answer].tolist()
        if len(set(served)) != len(served) or not set(served) <= set(range(count)):
            return "2,000 passes", [f"inputs.order begins with {served}: each must be one of 0 to {count - 1}, and only once"]
        waits += 1
        waits[served] = 0
        if waits.max() > 256:
            return "2,000 passes", [f"input {int(waits.argmax())} is left out for more than 256 passes"]
    return "2,000 passes", faults


def try_timers(kernel, place):
    """Timers are set, set again, stopped, and expire: beside a dictionary of their deadlines."""
    own = replacement.own_functions("timers", place) if replacement.brings("timers", place) else {}
    schedule_timer, cancel = own.get("schedule", wheel.schedule), own.get("cancel", wheel.cancel)
    timers = 200
    made = replacement.allocator({"timers": place}, "timers")(timers, allocate(timers, COLD))
    random, pending, now, expired, faults = np.random.default_rng(8), {}, 0, np.zeros(16, np.int64), []
    for turn in range(1500):
        for timer in random.integers(0, timers, 4).tolist():
            if random.random() < 0.2:
                cancel(made, timer)
                pending.pop(timer, None)
            else:
                away = int(random.choice([-3, 0, 1, 7, 255, 256, 300, 5000, 70_000])) + int(random.integers(0, 9))
                schedule_timer(made, timer, now + away)
                pending[timer] = max(now + away, now + 1)
        now += int(random.choice([1, 1, 2, 30, 256]))
        for _ in range(1000):
            count = int(kernel(made, now, expired))
            if not 0 <= count <= len(expired):
                return "1,500 turns", [f"it answers {count}, which is not from 0 to {len(expired)}, the length of expired"]
            for timer in expired[:count].tolist():
                if pending.pop(timer, now + 1) > made.now[0]:
                    faults.append(f"turn {turn}: timer {timer} expires at tick {made.now[0]}, and is not due")
            if made.now[0] >= now and made.now[1] == 0:
                break
        else:
            return "1,500 turns", [f"turn {turn}: after 1,000 calls it has not come to tick {now}: wheel.now is {made.now.tolist()}"]
        late = [timer for timer, deadline in pending.items() if deadline <= now]
        if late:
            return "1,500 turns", [f"turn {turn}: at tick {now} timer {late[0]}, due at {pending[late[0]]}, has not expired"]
    return "1,500 turns", faults


def try_record(kernel, place):
    """Connections end in all ways: a record may be kept or not, while there is room, and nothing else may be changed."""
    bench, random, faults, kept = Bench(), np.random.default_rng(9), [], 0
    connections = bench.state.connections
    for name in HOT.names:
        connections.hot[name] = random.integers(0, 200, connections.hot[name].shape)
    cold = allocate(1, COLD)
    for enabled in (1, 0):
        made = records.allocate_records(bool(enabled), 256, 8)
        for number in range(200):
            causes = int(random.integers(0, len(records.CAUSES))) | int(random.integers(0, len(records.CAUSES))) << 8
            head, hot_before = int(made.head[0]), connections.hot.tobytes()
            made.work[number if enabled else 0].opened = int(random.integers(0, NOW))
            kernel(made, connections.counters, connections.hot[number], cold[0], number, causes, NOW)
            added = int(made.head[0]) - head
            kept += added
            if added not in (0, 1) or made.head[0] - made.tail[0] > 8 or (added and not enabled):
                return "400 connections", [f"records.head moves by {added} with {head - int(made.tail[0])} of 8 places filled, enabled = {enabled}"]
            if connections.hot.tobytes() != hot_before:
                return "400 connections", ["it changes the connection"]
            if number % 3 == 0:
                made.tail[0] = made.head[0]
    return f"400 connections, {kept} records kept", faults


def try_observe(kernel, place):
    """Bursts whose connections are known: nothing but `observed` may change."""
    bench, faults, tried = Bench(), [], 0
    state = bench.state
    for count in BURSTS:
        bench.receive(*bench.frames(count))
        parse.parse(state.packets, state.base[0], state.batch, count, 0, state.network, state.counters)
        lookup.bucketed(state.batch, count, state.connections.buckets, state.connections.hot)
        before = {name: array.copy() for name, array in bench.watched().items()}
        kernel(state.packets, state.base[0], state.batch, count, state.connections, state.observed, NOW)
        tried += count
        faults += others_differ(before, bench.watched(), ("state.observed",))
    return f"{tried} packets in {len(BURSTS)} bursts", faults


def try_in_stages(slot):
    """Returns the function that tries a kernel of a slot on bursts of open connections (`trial_connections`)."""
    def tried(kernel, place):
        from pipeline.trial_connections import try_beside
        return try_beside(slot, kernel_at(slot, default_of(slot)), kernel)
    return tried


TRIALS = {"parse": try_parse, "hash": try_hash, "lookup": try_lookup, "select": try_select, "payload": try_payload,
          "express": try_in_stages("express"), "transition": try_in_stages("transition"), "rewrite": try_in_stages("rewrite"),
          "timers": try_timers, "schedule": try_schedule, "record": try_record, "observe": try_observe}
