"""Steering rules: what a NIC is asked for so that a server's packets come to the worker that owns their connection.

Plain data: `flow_rules` asks DPDK for them by rte_flow, `nic_model` does what a NIC would do by them.
"""
from typing import NamedTuple

FIELDS = {"destination_port": 16, "destination_address": 32}
"""The fields that a rule may look at, and how many bits they have."""

NOBODY = -1
"""Owner of a block of ports that no rule is for."""


class SteeringRule(NamedTuple):
    """Packets of TCP over IPv4, no fragments, that `port` receives and whose `field & mask == value` go to `queue`.

    `port` is the engine's number of the port; `field` is one of FIELDS; `value` and `mask` are ints in the machine's order.
    """

    port: int
    field: str
    value: int
    mask: int
    queue: int


def blocks(mask):
    """Returns how many blocks of source ports there are when the bits of `mask` tell them apart."""
    return 1 << int(mask).bit_count()


def block_of(source_port, mask):
    """Returns the block that a source port (int or int64[n]) is in: its bits that `mask` has, put together."""
    block, place = source_port & 0, 0
    for bit in range(FIELDS["destination_port"]):
        if mask >> bit & 1:
            block |= (source_port >> bit & 1) << place
            place += 1
    return block


def value_of(block, mask):
    """Returns the bits that all source ports of a block have under `mask`: the inverse of `block_of`."""
    value = 0
    for bit in range(FIELDS["destination_port"]):
        if mask >> bit & 1:
            value |= (block & 1) << bit
            block >>= 1
    return value


def rules_by_port(port, mask, owners):
    """Returns the rules that bring what is sent to each block of our source ports to queue `owners[block]` of `port`, if any.

    `mask` are the bits of a port that number its block (ProxyEngine's dst_port_mask); `owners` has an entry for each of the
    `blocks(mask)`. Raises ValueError where it has not.
    """
    if not 0 < mask < 1 << FIELDS["destination_port"]:
        raise ValueError(f"dst_port_mask = {mask:#x}: a mask of a 16-bit port is expected, 0x000f for instance")
    if len(owners) != blocks(mask):
        raise ValueError(f"dst_port_mask = {mask:#06x} makes {blocks(mask)} blocks of ports, and {len(owners)} have an owner")
    return [SteeringRule(port, "destination_port", value_of(block, mask), mask, owner) for block, owner in enumerate(owners)
            if owner != NOBODY]


def rules_by_address(port, addresses, queues=None):
    """Returns the rules that bring what is sent to `addresses[i]` (int) to queue i of `port`; of more addresses than `queues`
    (default: as many) each queue gets some in turn.

    Raises ValueError where two workers have one address.
    """
    if len(set(addresses)) != len(addresses):
        raise ValueError(f"port {port}: an address of two workers steers to neither; each worker needs one of its own")
    return [SteeringRule(port, "destination_address", address, 0xFFFFFFFF, number % (queues or len(addresses)))
            for number, address in enumerate(addresses)]
