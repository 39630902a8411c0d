"""Whose a packet is, against a plain twin; and that the workers' shares of source ports fit it, whatever tells them apart."""
import ipaddress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from select_bed import selection_of

from pipeline import configuration
from pipeline.io.steering import block_of
from pipeline.kernels.hand_over import AT_HAND, BY_ADDRESS, BY_HASH, BY_PORT, owner_of
from pipeline.kernels.toeplitz import KEY
from pipeline.steering import NOBODY, Share, make_steering, own_entries, part_of, port_blocks, steering_rules

TEXT = """
[[ports]]
name = "left"
device = "net_null0"
addresses = ["10.1.0.1/24"]
[[ports]]
name = "right"
device = "net_null1"
addresses = ["10.2.0.1/24"]
[[targets]]
id = "a"
ip = "10.2.0.11"
port = 8080
[[services]]
name = "web"
listen = "10.1.0.1:80"
targets = ["a"]
source_addresses = ["10.2.0.1", "10.2.0.2", "10.2.0.3"]
"""
SETTINGS = configuration.parse(TEXT, "test_hand_over.toml")
TARGET = SETTINGS.targets[0]
SERVICE, SOURCES = int(ipaddress.IPv4Address("10.1.0.1")), [int(ipaddress.IPv4Address(f"10.2.0.{last}")) for last in (1, 2, 3)]
SERVICES = selection_of(SETTINGS).services
KINDS = {"port": (AT_HAND, BY_PORT), "address": (AT_HAND, BY_ADDRESS), "rss": (AT_HAND, BY_HASH), "software": (BY_HASH, BY_PORT)}
MASKS = {2: 1, 3: 0xFC00}


def share_of(worker, workers, kind):
    """The Share of a worker."""
    return Share(worker, workers, KINDS[kind], KEY, MASKS[workers])


def plain_hash(source, destination, source_port, destination_port):
    """The Toeplitz hash bit by bit: each bit of the input that is set takes in the 32 bits of the key that begin there."""
    text = source << 64 | destination << 32 | source_port << 16 | destination_port
    key, found = int.from_bytes(KEY, "big"), 0
    for place in range(96):
        if text >> (95 - place) & 1:
            found ^= key >> (len(KEY) * 8 - 32 - place) & 0xFFFFFFFF
    return found


def plain_owner(share, source, destination, source_port, destination_port):
    """The worker that a packet belongs to."""
    kind = share.by[0] if (destination, destination_port) == (SERVICE, 80) else share.by[1]
    if kind == BY_HASH:
        return (plain_hash(source, destination, source_port, destination_port) & 127) % share.workers
    if kind == BY_PORT:
        return block_of(destination_port, share.mask) % share.workers
    if kind == BY_ADDRESS and destination in SOURCES:
        return SOURCES.index(destination) % share.workers
    return share.worker


@pytest.mark.parametrize("workers", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=50)
@given(data=st.data())
def test_the_owner_of_a_packet_is_that_of_the_plain_twin(kind, workers, data):
    share = share_of(data.draw(st.integers(0, workers - 1)), workers, kind)
    steering, _ = make_steering(SETTINGS, share)
    source = data.draw(st.integers(1, 2**32 - 1))
    destination = data.draw(st.sampled_from([SERVICE, *SOURCES, SERVICE + 5]))
    ports = data.draw(st.integers(1, 65535)), data.draw(st.one_of(st.just(80), st.integers(1, 65535)))
    assert owner_of(steering, SERVICES, source, destination, *ports) == plain_owner(share, source, destination, *ports)


@pytest.mark.parametrize("workers", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_what_a_target_answers_belongs_to_the_worker_that_has_the_port(kind, workers):
    entries = [(index << 16) | port for index in range(3) for port in range(1024, 65536)]
    parts = []
    for worker in range(workers):
        share = share_of(worker, workers, kind)
        steering, _ = make_steering(SETTINGS, share)
        mine = own_entries(share, steering, TARGET, SOURCES, entries)
        parts.append(mine)
        for entry in np.random.default_rng(worker).choice(mine, 300):
            back = int(TARGET.ip), SOURCES[entry >> 16], TARGET.port, entry & 0xFFFF
            assert owner_of(steering, SERVICES, *back) == worker
    together = np.concatenate(parts)
    assert len(together) == len(set(together.tolist())) == len(entries)
    assert min(map(len, parts)) > (0.6 if kind == "address" else 0.8) * len(entries) / workers


@pytest.mark.parametrize("workers, mask", [(2, 1), (2, 0xFC00), (3, 0xFC00)])
def test_rules_by_port_leave_out_the_blocks_that_clients_send_to(workers, mask):
    one_arm = configuration.parse(TEXT.replace('listen = "10.1.0.1:80"', 'listen = "10.2.0.1:80"'), "one_arm.toml")
    share = Share(0, workers, KINDS["port"], KEY, mask, None, True)
    blocks = port_blocks(one_arm, share)
    assert [block for block, owner in enumerate(blocks) if owner == NOBODY] == [block_of(80, mask)]
    rules = steering_rules(one_arm, share, 1)
    assert len(rules) == len(blocks) - 1 and not any(80 & rule.mask == rule.value for rule in rules)
    assert steering_rules(one_arm, share, 0) == []


def test_workers_share_out_what_there_is_once_an_engine():
    part = part_of(SETTINGS, 3).engine
    assert part.connections == -(-SETTINGS.engine.connections // 3) and part.held_bytes == SETTINGS.engine.held_bytes
