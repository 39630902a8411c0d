"""The edit log against a plain model that keeps every edit and both streams."""
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kernel_bed import generated
from pipeline.kernels import edits as log
from pipeline.kernels.edits import EDIT_BYTES, add_edit, allocate_edits, find_edit, forget_edits, to_receiver, to_sender

MASK = 0xFFFFFFFF
FLOW = 3
STARTS = st.sampled_from([0, 1, 2**31 - 20, 2**32 - 30, 2**32 - 1])
CHANGES = st.lists(st.tuples(st.integers(0, 9), st.integers(1, 6), st.integers(0, 9)), max_size=14)
"""Of each edit: how many bytes lie between it and the one before, how many it replaces, and by how many."""


class Model:
    """Every edit as (start, old, new) in bytes from the first of the stream; nothing is ever forgotten."""

    def __init__(self, changes):
        self.edits, at = [], 0
        for gap, old, new in changes:
            self.edits.append((at + gap, old, new))
            at += gap + old
        self.length = at + 7

    def to_receiver(self, place):
        """The receiver's place of a byte of the sender's; inside an edit, of the edit's start."""
        grown = 0
        for start, old, new in self.edits:
            if place >= start + old:
                grown += new - old
            elif place >= start:
                return start + grown
        return place + grown

    def to_sender(self, place, opens):
        """The sender's place of an edge between the receiver's bytes."""
        grown = 0
        for start, old, new in self.edits:
            first = start + grown
            if place >= first + new:
                grown += new - old
            elif place > first:
                return start + old if opens else start
        return place - grown


def logged(model, first, shift):
    """Returns a log with the edits of a model whose byte 0 has the sender's number `first`, and the shift behind them."""
    edits = allocate_edits(32, 4)
    for start, old, new in model.edits:
        octets = np.arange(start, start + new, dtype=np.uint8) if new else np.zeros(1, np.uint8)
        assert add_edit(edits, FLOW, shift, (first + start) & MASK, old, octets, 0, new)
        shift = (shift + new - old) & MASK
    return edits, shift


@generated
@given(CHANGES, STARTS, STARTS)
def test_numbers_are_mapped_both_ways_as_the_model_has_them(changes, first, shift):
    model = Model(changes)
    edits, now = logged(model, first, shift)
    end = model.to_receiver(model.length)
    for place in range(model.length + 1):
        mapped = (first + shift + model.to_receiver(place)) & MASK
        assert to_receiver(edits, FLOW, now, (first + place) & MASK) == mapped
    for place in range(end + 1):
        for opens in (False, True):
            mapped = (first + model.to_sender(place, opens)) & MASK
            assert to_sender(edits, FLOW, now, (first + shift + place) & MASK, opens) == mapped


@generated
@given(CHANGES, STARTS, STARTS, st.integers(0, 200))
def test_what_is_forgotten_changes_no_number_from_the_acknowledgement_on(changes, first, shift, acknowledged):
    model = Model(changes)
    edits, now = logged(model, first, shift)
    end = model.to_receiver(model.length)
    acknowledged = min(acknowledged, end)
    forget_edits(edits, FLOW, (first + shift + acknowledged) & MASK, False)
    told = model.to_sender(acknowledged, False)
    for place in range(acknowledged, end + 1):
        for opens in (False, True):
            mapped = to_sender(edits, FLOW, now, (first + shift + place) & MASK, opens)
            assert mapped == (first + model.to_sender(place, opens)) & MASK
    for place in range(told, model.length + 1):
        assert to_receiver(edits, FLOW, now, (first + place) & MASK) == (first + shift + model.to_receiver(place)) & MASK
    for place in range(told):
        away = to_receiver(edits, FLOW, now, (first + place) & MASK) - first - shift - acknowledged
        assert (away + 2**31) % 2**32 - 2**31 <= 0, "a stale byte where the receiver expects a new one"
    for place in range(acknowledged):
        away = to_sender(edits, FLOW, now, (first + shift + place) & MASK, False) - first - told
        assert (away + 2**31) % 2**32 - 2**31 <= 0, "a stale acknowledgement of what has not come"


@generated
@given(CHANGES, STARTS)
def test_the_search_finds_the_first_edit_that_a_number_is_not_behind(changes, first):
    model = Model(changes)
    edits, _ = logged(model, first, 5)
    for place in range(model.length + 1):
        found = find_edit(edits, FLOW, (first + place) & MASK, False)
        wanted = next((number for number, (start, old, _) in enumerate(model.edits) if place < start + old), -1)
        assert found == wanted


@generated
@given(CHANGES, st.integers(0, 200))
def test_edits_are_conserved_and_keep_their_bytes(changes, acknowledged):
    model = Model(changes)
    edits, _ = logged(model, 0, 0)
    assert edits.used[0] == len(model.edits)
    for number, (start, _, new) in enumerate(model.edits):
        assert edits.octets[number * EDIT_BYTES:number * EDIT_BYTES + new].tolist() == list(range(start, start + new))
    forget_edits(edits, FLOW, acknowledged, False)
    forget_edits(edits, FLOW, 0, True)
    assert edits.used[0] == 0 and edits.first[FLOW] == edits.last[FLOW] == log.NONE
    free, place = [], int(edits.free[0])
    while place != log.NONE:
        free.append(place)
        place = int(edits.following[place])
    assert sorted(free) == list(range(32))


def test_a_full_log_takes_no_more_and_serves_again_once_edits_are_acknowledged():
    edits, octets = allocate_edits(2, 1), np.zeros(4, np.uint8)
    assert add_edit(edits, 0, 0, 10, 1, octets, 0, 2) and add_edit(edits, 1, 0, 10, 1, octets, 0, 2)
    assert not add_edit(edits, 0, 1, 20, 1, octets, 0, 2) and edits.used[0] == 2
    forget_edits(edits, 0, 12, False)
    assert add_edit(edits, 0, 1, 20, 1, octets, 0, 2)
