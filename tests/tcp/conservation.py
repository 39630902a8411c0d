"""What a worker must never lose: connections, keys, held slots, source ports, timers, mbufs, counts."""
import numpy as np

from pipeline.kernels import connection, counters, flow_hash, flow_table, free_list, records, wheel
from pipeline.kernels.connection import AGED, CLIENT, ESTABLISHED, FREE, HOLDS, LASTING, LENT, NO_TARGET, OPENS, SPECIAL, SPLICED, TARGET


def open_connections(state):
    """Returns the numbers of the connections that are not free."""
    return np.flatnonzero(state.connections.hot["state"] != FREE)


def conserved(state, pool, waiting, sources_at_start):
    """Asserts that a worker at rest (nothing waits in any list or ring) has all that it had, each thing once.

    `pool` is the MemoryPool, of which `waiting` mbufs lie in waiting rooms, its own among them;
    `sources_at_start` is what `free_sources` returned before the first packet.
    """
    _lists_are_empty(state)
    _connections(state)
    _openings(state)
    _flow_table(state)
    _held_slots(state)
    _source_ports(state, sources_at_start)
    _timers(state)
    _counts(state)
    _payload(state)
    assert pool.available + waiting == pool.mbufs, f"{pool.mbufs - pool.available - waiting} mbufs are missing"
    assert not state.connections.waiting.left[0] and not state.steering.filled.any()


def free_sources(state):
    """Returns the free entries of each pool of source ports, oldest first: a list of arrays."""
    ring = state.sources.ring
    return [np.roll(row, -int(head))[:int(free)]
            for row, head, free in zip(ring, state.sources.head, state.sources.free, strict=True)]


def _lists_are_empty(state):
    kept = state.connections
    lists = {"segments": kept.segments, "parts": kept.parts, "choices": kept.choices, "deliveries": kept.deliveries,
             "touched": kept.touched, "releases": kept.releases, "requests": state.requests}
    filled = {name: int(listed.filled[0]) for name, listed in lists.items() if listed.filled[0]}
    assert not filled and not state.outbox.filled.any() and not state.outbox.to_release[0], filled


def _connections(state):
    kept = state.connections
    free = free_list.free_numbers(kept.free, kept.cold)
    assert len(set(free)) == len(free) == kept.free[free_list.COUNT] and (kept.hot["state"][free] == FREE).all()
    assert sorted(free + open_connections(state).tolist()) == list(range(len(kept.hot)))


def _openings(state):
    kept = state.connections
    numbers = open_connections(state)
    free = free_list.free_numbers(kept.free_openings, kept.openings)
    assert len(free) == kept.free_openings[free_list.COUNT]
    opening = kept.cold["special"][numbers] & OPENS != 0
    assert sorted(free + kept.cold["opening"][numbers][opening].tolist()) == list(range(len(kept.openings)))
    spliced = (kept.hot["options"][numbers] & (SPLICED | HOLDS)) == SPLICED
    special = np.where(kept.hot["options"][numbers] & SPECIAL, kept.cold["special"][numbers], 0)
    needed = ~spliced | ((special & LASTING) != 0)
    assert opening[needed].all()
    silent = kept.hot["state"][numbers] == ESTABLISHED  # and those that were when they were last looked at
    assert (needed | silent | ((special & AGED) != 0))[opening].all()


def _flow_table(state):
    hot, cold, buckets = state.connections.hot, state.connections.cold, state.connections.buckets
    wanted = {}
    for number in open_connections(state):
        for side in (CLIENT, TARGET) if cold["target"][number] != NO_TARGET else (CLIENT,):
            key = (int(hot[field][number, side])
                   for field in ("remote_address", "local_address", "remote_port", "local_port"))
            wanted[2 * int(number) + side] = flow_hash.hash_key(*key)
    used = buckets["tag"] != 0
    assert sorted(buckets["entry"][used].tolist()) == sorted(wanted)
    passed = np.zeros((len(buckets), flow_table.CLASSES), np.int64)
    for place in np.flatnonzero(used.any(axis=1)):
        for entry in buckets["entry"][place][used[place]].tolist():
            number, tag = wanted[entry] * len(buckets) >> 32, wanted[entry] & 0xFFFF or 1
            step = 1 + tag % flow_table.STEPS if len(buckets) > flow_table.STEPS else 1
            while number != place:
                passed[number, tag % flow_table.CLASSES] += 1
                number = (number + step) % len(buckets)
    assert buckets["passed"].tolist() == passed.tolist()


def _held_slots(state):
    kept, held = state.connections, state.connections.held
    users = open_connections(state)
    users = users[(kept.hot["options"][users] & HOLDS) != 0]
    slots = held.free[:held.free_count[0]].tolist() + kept.openings["held"][kept.cold["opening"][users]].tolist()
    assert sorted(slots) == list(range(len(held.length)))


def _source_ports(state, at_start):
    kept = state.connections
    numbers = open_connections(state)
    numbers = numbers[(kept.cold["target"][numbers] != NO_TARGET) & (kept.cold["special"][numbers] & LENT == 0)]
    pools = state.targets.rows["pool"][kept.cold["target"][numbers]]
    for pool, free in enumerate(free_sources(state)):
        taken = numbers[pools == pool]
        everything = np.concatenate([free, (kept.cold["source"][taken].astype(int) << 16) | kept.hot["local_port"][taken, TARGET]])
        assert np.array_equal(np.sort(everything), np.sort(at_start[pool])), f"source ports of pool {pool}"


def _timers(state):
    pending = state.wheel.timers["place"] != wheel.NONE
    assert np.flatnonzero(pending).tolist() == open_connections(state).tolist()


def _payload(state):
    for pool in (state.connections.shaped.edits, state.connections.shaped.copies):
        flows = 2 * open_connections(state)
        used = 0
        for first in pool.first[np.concatenate([flows, flows + 1])] if len(pool.first) > 2 else ():
            while first >= 0:
                used, first = used + 1, int(pool.following[first])
        assert used == pool.used[0], f"{pool.used[0] - used} edits or first copies are missing"


def _counts(state):
    counted, hot, cold = state.counters, state.connections.hot, state.connections.cold
    numbers = open_connections(state)
    states = np.bincount(hot["state"], minlength=len(connection.STATES))
    assert counted.states.tolist() == states.tolist()
    total = dict(zip(counters.TOTALS, counted.totals.tolist(), strict=True))
    assert total["open"] == len(numbers) == total["opened"] - total["closed"]
    assert counted.causes[CLIENT].sum() == counted.causes[TARGET].sum() == total["closed"]
    assert not counted.causes[:, records.UNKNOWN].any()
    bound = cold["target"][numbers]
    bound = bound[bound != NO_TARGET]
    assert counted.targets[:, counters.OF_TARGET_OPEN].tolist() == np.bincount(
        bound, minlength=len(counted.targets)).tolist()
    assert counted.services[:, counters.OF_SERVICE_OPEN].tolist() == np.bincount(
        cold["service"][numbers], minlength=len(counted.services)).tolist()
    finished = total["closed"] if state.records.enabled[0] else 0
    assert int(state.records.head[0]) + counted.notices[counters.NOTICE_RECORDS_LOST] == finished
