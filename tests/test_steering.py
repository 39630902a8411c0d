"""The rules that a NIC is asked for: which packets each takes, and what is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_bed import generated

from pipeline.io.steering import SteeringRule, block_of, blocks, rules_by_address, rules_by_port, value_of

MASK = st.integers(1, 2**16 - 1).filter(lambda mask: mask.bit_count() <= 6)


@generated
@given(MASK, st.integers(0, 2**16 - 1), st.integers(1, 4))
def test_every_source_port_has_one_rule_and_it_names_the_owner_of_its_block(mask, source_port, workers):
    owners = [block % workers for block in range(blocks(mask))]
    taken = [rule for rule in rules_by_port(1, mask, owners) if source_port & rule.mask == rule.value]
    assert [rule.queue for rule in taken] == [owners[block_of(source_port, mask)]]
    assert {(rule.port, rule.field, rule.mask) for rule in taken} == {(1, "destination_port", mask)}


@generated
@given(MASK)
def test_blocks_are_as_large_as_each_other_and_numbered_without_a_gap(mask):
    of_all = block_of(np.arange(1 << 16), mask)
    assert np.bincount(of_all).tolist() == [(1 << 16) // blocks(mask)] * blocks(mask)
    assert all(block_of(value_of(block, mask), mask) == block for block in range(blocks(mask)))


def test_rules_by_address_name_each_address_whole():
    assert rules_by_address(2, [0x0A000001, 0x0A000002]) == [
        SteeringRule(2, "destination_address", 0x0A000001, 0xFFFFFFFF, 0),
        SteeringRule(2, "destination_address", 0x0A000002, 0xFFFFFFFF, 1),
    ]


@pytest.mark.parametrize(
    ("rules", "arguments", "fault"),
    [
        (rules_by_port, (0, 0, [0]), "dst_port_mask = 0x0: a mask of a 16-bit port"),
        (rules_by_port, (0, 0x10000, [0, 1]), "dst_port_mask = 0x10000: a mask of a 16-bit port"),
        (rules_by_port, (0, 3, [0, 1]), "dst_port_mask = 0x0003 makes 4 blocks of ports, and 2 have an owner"),
        (rules_by_address, (3, [7, 7]), "port 3: an address of two workers"),
    ],
)
def test_rules_that_cannot_be_are_refused(rules, arguments, fault):
    with pytest.raises(ValueError, match=fault):
        rules(*arguments)
