"""Both flow tables against a dictionary, by the functions that a table has to have; and the look-up of a burst in each."""

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from kernel_bed import KernelBed, generated
from test_flow_table import HASHES, key_of, records

from pipeline.kernels import flow_table, linear_probing, lookup
from pipeline.kernels.batch import DROP, KIND_ARP, KIND_TCP, NO_FLOW, PENDING
from pipeline.kernels.flow_hash import hash_key

TABLES = {"bucketed": (flow_table, flow_table.BUCKET, lookup.bucketed), "linear": (linear_probing, linear_probing.SLOT, linear_probing.linear)}


class Table(RuleBasedStateMachine):
    """`held` says under which hash each entry was inserted; the table has to agree with it at every step."""

    @initialize(kind=st.sampled_from(sorted(TABLES)), size=st.sampled_from([1, 2, 5, 17, 40]))
    def make(self, kind, size):
        self.table, record, _ = TABLES[kind]
        self.buckets, self.hot, self.held = np.zeros(size, record).view(np.recarray), records(24), {}

    @rule(entry=st.integers(0, 47), hashed=HASHES)
    def insert(self, entry, hashed):
        if entry in self.held:
            return
        before = self.buckets.copy()
        if self.table.insert(self.buckets, hashed, entry):
            self.held[entry] = hashed
        else:
            assert self.buckets.tobytes() == before.tobytes() and self.buckets.tag.all()

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def remove(self, data):
        entry = data.draw(st.sampled_from(sorted(self.held)))
        assert self.table.remove(self.buckets, self.held.pop(entry), entry)

    @rule(entry=st.integers(0, 47), hashed=HASHES)
    def find_and_remove_what_may_not_be_there(self, entry, hashed):
        if entry not in self.held:
            before = self.buckets.copy()
            assert self.table.find(self.buckets, self.hot, hashed, *key_of(entry)) == flow_table.NOT_FOUND
            assert not self.table.remove(self.buckets, hashed, entry) and self.buckets.tobytes() == before.tobytes()

    @invariant()
    def every_entry_is_found(self):
        for entry, hashed in getattr(self, "held", {}).items():
            assert self.table.find(self.buckets, self.hot, hashed, *key_of(entry)) == entry
        assert not hasattr(self, "held") or np.count_nonzero(self.buckets.tag) == len(self.held)


TestTable = Table.TestCase
TestTable.settings = generated


@pytest.mark.parametrize("kind", TABLES)
def test_a_table_filled_and_emptied_is_as_new(kind):
    table, _, _ = TABLES[kind]
    random, hot = np.random.default_rng(3), records(200)
    buckets = table.allocate_buckets(200)
    hashes = {int(entry): int(random.integers(0, 2**32)) & 0xFF0F0003 for entry in random.permutation(400)}
    assert all(table.insert(buckets, hashed, entry) for entry, hashed in hashes.items())
    assert all(table.find(buckets, hot, hashed, *key_of(entry)) == entry for entry, hashed in hashes.items())
    for number, entry in enumerate(random.permutation(400).tolist()):
        assert table.remove(buckets, hashes.pop(entry), entry)
        if number % 40 == 0:
            assert all(table.find(buckets, hot, hashed, *key_of(other)) == other for other, hashed in hashes.items())
    assert not buckets.tag.any()


def test_linear_probing_refuses_keys_that_were_chosen_to_share_a_home_beyond_a_bound():
    buckets = linear_probing.allocate_buckets(1000)
    placed = [linear_probing.insert(buckets, 0x80000005, entry) for entry in range(600)]
    assert placed == [True] * linear_probing.LONGEST + [False] * (600 - linear_probing.LONGEST)
    assert all(linear_probing.remove(buckets, 0x80000005, entry) for entry in range(linear_probing.LONGEST)) and not buckets.tag.any()


@pytest.mark.parametrize("kind", TABLES)
def test_lookup_finds_in_a_burst_what_find_finds_one_by_one(kind):
    table, _, burst_lookup = TABLES[kind]
    bed, random = KernelBed(), np.random.default_rng(5)
    hot, batch = bed.connections.hot, bed.batch
    hot[:] = records(len(hot))
    buckets = table.allocate_buckets(len(hot))
    for entry in range(0, 2 * len(hot), 3):
        assert table.insert(buckets, hash_key(*key_of(entry)), entry)
    for _ in range(20):
        entries = random.integers(0, 2 * len(hot) + 20, 64)
        for row, entry in enumerate(entries.tolist()):
            batch.source[row], batch.destination[row], batch.source_port[row], batch.destination_port[row] = key_of(entry)
        batch.kind[:64] = np.where(random.random(64) < 0.9, KIND_TCP, KIND_ARP)
        batch.verdict[:64] = np.where(random.random(64) < 0.9, PENDING, DROP)
        burst_lookup(batch, 64, buckets, hot)
        asked = (batch.kind[:64] == KIND_TCP) & (batch.verdict[:64] == PENDING) & (entries < 2 * len(hot)) & (entries % 3 == 0)
        assert (batch.flow[:64] == np.where(asked, entries, NO_FLOW)).all()
