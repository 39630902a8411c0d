"""The flow table against a dictionary: colliding hashes, full tables, and nothing left behind by deletions."""

import math

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from kernel_bed import KernelBed, generated

from pipeline.kernels.batch import DROP, KIND_ARP, KIND_TCP, NO_FLOW, PENDING
from pipeline.kernels.connection import HOT
from pipeline.kernels.flow_hash import hash_key
from pipeline.kernels.flow_table import (
    BUCKET,
    CLASSES,
    LOAD,
    LONGEST,
    MOST_PASSED,
    NOT_FOUND,
    SLOTS,
    allocate_buckets,
    find,
    insert,
    remove,
    tag_of,
)
from pipeline.kernels.jit import loop
from pipeline.kernels.lookup import bucketed
from pipeline.kernels.native import _portable_crc32c, crc32c


@loop
def crc_step(seed, word):
    """One step of the CRC that `hash_key` uses: an intrinsic cannot be called from Python."""
    return crc32c(seed, word)


@loop
def fill(buckets, hashes):
    """Inserts an entry for each hash; returns how many found a place."""
    placed = 0
    for entry in range(len(hashes)):
        placed += insert(buckets, hashes[entry], entry)
    return placed


HASHES = st.one_of(
    st.sampled_from([0, 1, 2, 0xFFFF, 0x10000, 0x10001, 0x7FFF0001, 0x80000001, 0xFFFFFFFF, 0xFFFF0000]),
    st.integers(0, 2**32 - 1),
)


def key_of(entry):
    """The key that every entry has in these tests."""
    return 0x0A000000 + entry, 0xC0A80001, 1024 + entry, 80


def records(connections):
    """Returns hot records in which connection * 2 + side has the key `key_of` says."""
    hot = np.zeros(connections, HOT).view(np.recarray)
    for entry in range(2 * connections):
        record, side = hot[entry >> 1], entry & 1
        (record.remote_address[side], record.local_address[side], record.remote_port[side], record.local_port[side]) = (
            key_of(entry)
        )
    return hot


def tag(hashed):
    """The tag of a hash."""
    return hashed & 0xFFFF or 1


def walk(count, hashed):
    """Yields the numbers of the buckets that a hash goes to, the first one again and again at the end."""
    number, step = hashed * count >> 32, 1 + tag(hashed) % 16 if count > 16 else 1
    while True:
        yield number
        number = (number + step) % count


class FlowTable(RuleBasedStateMachine):
    """`held` says under which hash each entry was inserted; the table has to agree with it at every step."""

    @initialize(count=st.sampled_from([1, 2, 3, 4, 17]))
    def make(self, count):
        self.buckets = np.zeros(count, BUCKET).view(np.recarray)
        self.hot = records(24)
        self.held = {}

    @rule(entry=st.integers(0, 47), hashed=HASHES)
    def insert(self, entry, hashed):
        if entry in self.held:
            return
        before = self.buckets.copy()
        added = insert(self.buckets, hashed, entry)
        assert bool(added) == (len(self.held) < self.buckets.size * SLOTS)
        if added:
            self.held[entry] = hashed
        else:
            assert self.buckets.tobytes() == before.tobytes()

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def remove(self, data):
        entry = data.draw(st.sampled_from(sorted(self.held)))
        assert remove(self.buckets, self.held.pop(entry), entry)

    @rule(entry=st.integers(0, 47), hashed=HASHES)
    def remove_what_is_not_there(self, entry, hashed):
        if entry not in self.held:
            before = self.buckets.copy()
            assert not remove(self.buckets, hashed, entry)
            assert self.buckets.tobytes() == before.tobytes()

    @rule(entry=st.integers(0, 47), hashed=HASHES)
    def find_any(self, entry, hashed):
        found = find(self.buckets, self.hot, self.held.get(entry, hashed), *key_of(entry))
        assert found == (entry if entry in self.held else NOT_FOUND)

    @invariant()
    def every_entry_is_found_and_counts_are_exact(self):
        if not hasattr(self, "held"):
            return
        passed = np.zeros((self.buckets.size, CLASSES), int)
        places = {
            int(self.buckets.entry[number, slot]): number
            for number in range(self.buckets.size)
            for slot in range(SLOTS)
            if self.buckets.tag[number, slot]
        }
        assert places.keys() == self.held.keys()
        for entry, hashed in self.held.items():
            assert find(self.buckets, self.hot, hashed, *key_of(entry)) == entry
            for number in walk(self.buckets.size, hashed):
                if number == places[entry]:
                    break
                passed[number, tag(hashed) % CLASSES] += 1
        assert self.buckets.passed.tolist() == passed.tolist()


TestFlowTable = FlowTable.TestCase
TestFlowTable.settings = generated


@pytest.mark.parametrize("buckets", [2, 3])
@pytest.mark.parametrize("more", [1, 2, SLOTS - 1, SLOTS])
def test_what_found_its_bucket_full_is_found_until_it_is_removed(buckets, more):
    table, hot, hashed = np.zeros(buckets, BUCKET).view(np.recarray), records(SLOTS), 0x80050001
    entries = list(range(SLOTS + more))
    assert all(insert(table, hashed, entry) for entry in entries)
    assert table.passed[:, 1].tolist() == [0, more] + [0] * (buckets - 2) and table.passed.sum() == more
    for place in range(SLOTS):
        assert [int(find(table, hot, hashed, *key_of(entry))) for entry in entries] == [
            entry if entry >= place else NOT_FOUND for entry in entries
        ]
        assert remove(table, hashed, place)
    for left, entry in reversed(list(enumerate(entries[SLOTS:]))):
        assert find(table, hot, hashed, *key_of(entry)) == entry
        assert remove(table, hashed, entry) and table.passed[1, 1] == left
        assert find(table, hot, hashed, *key_of(entry)) == NOT_FOUND


def test_a_table_filled_and_emptied_is_as_new_whatever_the_order():
    generator = np.random.default_rng(3)
    for _ in range(5):
        buckets, hot = np.zeros(16, BUCKET).view(np.recarray), records(8 * SLOTS)
        entries = generator.permutation(16 * SLOTS)
        hashes = {int(entry): int(generator.integers(0, 2**32)) & 0xFFFF0003 for entry in entries}
        assert all(insert(buckets, hashes[int(entry)], int(entry)) for entry in entries)
        assert not insert(buckets, 7, 16 * SLOTS)
        assert all(find(buckets, hot, hashes[entry], *key_of(entry)) == entry for entry in hashes)
        assert all(remove(buckets, hashes[int(entry)], int(entry)) for entry in generator.permutation(entries))
        assert not buckets.tag.any() and not buckets.passed.any()


@pytest.mark.parametrize("connections", [1, 3, 4, 64, 1000])
def test_buckets_hold_two_keys_a_connection_and_lie_on_cache_lines(connections):
    buckets = allocate_buckets(connections)
    assert buckets.ctypes.data % 64 == 0 and buckets.itemsize == 64
    assert LOAD * (buckets.size - 23) * SLOTS < 2 * connections <= LOAD * buckets.size * SLOTS
    assert buckets.size <= 16 or all(math.gcd(buckets.size, step) == 1 for step in range(2, 17))


def test_keys_that_were_chosen_to_share_a_bucket_are_refused_beyond_a_bound():
    """Else each of a million of them would cost a walk through all the others."""
    buckets, hot, hashed = np.zeros(101, BUCKET).view(np.recarray), records(200), 0x80000005
    entries = list(range(400))
    placed = [entry for entry in entries if insert(buckets, hashed, entry)]
    assert placed == list(range(MOST_PASSED + SLOTS))
    numbers = [number for number, _ in zip(walk(101, hashed), range(LONGEST), strict=False)]
    assert buckets.passed.max() == MOST_PASSED == buckets.passed[numbers[0], 1]
    before = buckets.copy()
    assert not insert(buckets, hashed, 399) and buckets.tobytes() == before.tobytes()
    others = [hashed + 4 * number for number in (0x10, 0x20)]
    assert not any(insert(buckets, other, 399) for other in others) and insert(buckets, hashed + 1, 399)
    assert all(find(buckets, hot, hashed, *key_of(entry)) == entry for entry in placed)
    assert find(buckets, hot, hashed, *key_of(398)) == NOT_FOUND
    assert all(remove(buckets, hashed, entry) for entry in placed) and remove(buckets, hashed + 1, 399)
    assert not buckets.tag.any() and not buckets.passed.any()


def test_a_walk_has_an_end():
    """Buckets that are full for all classes alike: the LONGEST buckets are tried, no more."""
    buckets = np.zeros(101, BUCKET).view(np.recarray)
    numbers = [number for number, _ in zip(walk(101, 0x80000005), range(LONGEST), strict=False)]
    buckets.tag[numbers] = 9
    assert not insert(buckets, 0x80000005, 1)
    buckets.tag[numbers[-1], 3] = 0
    assert insert(buckets, 0x80000005, 1) and buckets.entry[numbers[-1], 3] == 1
    assert buckets.passed.sum() == LONGEST - 1
    assert remove(buckets, 0x80000005, 1) and not buckets.passed.any()


def test_a_table_at_90_percent_refuses_nothing():
    """100,000 connections with both their keys, more than LOAD allows; what is found beyond the first bucket stays little."""
    buckets, hashes = allocate_buckets(100_000, 0.9), np.random.default_rng(9).integers(0, 2**32, 200_000)
    assert fill(buckets, hashes) == len(hashes)
    used = (buckets.tag != 0).sum(axis=1)
    assert used.sum() == len(hashes) > 0.899 * buckets.size * SLOTS
    assert buckets.passed.sum() < 0.25 * len(hashes) and buckets.passed.max() < 40 and (buckets.passed > 0).mean() < 0.3


def test_no_hash_has_the_tag_of_an_empty_slot():
    assert [tag_of(0), tag_of(0xFFFF), tag_of(0x10000), tag_of(0xFFFF0000)] == [1, 0xFFFF, 1, 1]


def test_crc32c_by_instruction_and_in_python_gives_the_published_values():
    """The vectors of RFC 3720, appendix B.4."""

    def whole(step, octets):
        register = 0xFFFFFFFF
        for start in range(0, len(octets), 8):
            register = int(step(register, int.from_bytes(octets[start : start + 8], "little", signed=True)))
        return register ^ 0xFFFFFFFF

    for step in (_portable_crc32c, crc_step):
        assert whole(step, bytes(32)) == 0x8A9136AA
        assert whole(step, b"\xff" * 32) == 0x62A8AB43
        assert whole(step, bytes(range(32))) == 0x46DD794E


def test_the_hash_of_a_key_depends_on_every_part_and_spreads():
    keys = [
        (address, 0x0A010001, port, 80) for address in range(0x0A010002, 0x0A010042) for port in range(40000, 40064)
    ]
    hashes = {int(hash_key(*key)) for key in keys}
    assert all(0 <= hashed < 2**32 for hashed in hashes) and len(hashes) == len(keys)
    filled = np.bincount([hashed * 64 >> 32 for hashed in hashes], minlength=64)
    assert filled.min() > 20 and filled.max() < 130, "4,096 keys in 64 buckets are far from even"
    one = (1, 2, 3, 4)
    for part in range(4):
        assert hash_key(*one) != hash_key(*(value + (number == part) for number, value in enumerate(one)))


def test_lookup_finds_in_a_burst_what_find_finds_one_by_one():
    bed = KernelBed()
    hot, batch = bed.connections.hot, bed.batch
    hot[:] = records(len(hot))
    generator = np.random.default_rng(5)
    for entry in range(0, 2 * len(hot), 3):
        assert insert(bed.connections.buckets, hash_key(*key_of(entry)), entry)
    for _ in range(20):
        for row in range(64):
            entry = int(generator.integers(0, 2 * len(hot) + 20))
            batch.source[row], batch.destination[row], batch.source_port[row], batch.destination_port[row] = key_of(
                entry
            )
            batch.kind[row] = KIND_TCP if generator.random() < 0.9 else KIND_ARP
            batch.verdict[row] = PENDING if generator.random() < 0.9 else DROP
            batch.payload[row] = entry
        bucketed(batch, 64, bed.connections.buckets, hot)
        for row in range(64):
            entry = int(batch.payload[row])
            there = entry < 2 * len(hot) and entry % 3 == 0
            looked_for = batch.kind[row] == KIND_TCP and batch.verdict[row] == PENDING
            assert batch.flow[row] == (entry if there and looked_for else NO_FLOW)


def test_lookup_is_not_taken_in_by_another_key_with_the_same_tag_in_the_bucket():
    bed = KernelBed()
    hot, batch, buckets = bed.connections.hot, bed.batch, bed.connections.buckets
    hot[:] = records(len(hot))
    hashed = hash_key(*key_of(5))
    for entry in (9, 11, 5):
        assert insert(buckets, hashed, entry)
    batch.source[0], batch.destination[0], batch.source_port[0], batch.destination_port[0] = key_of(5)
    batch.kind[0], batch.verdict[0] = KIND_TCP, PENDING
    bucketed(batch, 1, buckets, hot)
    assert batch.flow[0] == 5
    remove(buckets, hashed, 5)
    bucketed(batch, 1, buckets, hot)
    assert batch.flow[0] == NO_FLOW
