"""How packets find the worker that owns their connection: what the configuration asks for, and what a worker then owns."""
import ipaddress
from typing import NamedTuple

import numpy as np

from pipeline.errors import ConfigurationError
from pipeline.io.steering import NOBODY, block_of, blocks, rules_by_address, rules_by_port
from pipeline.kernels.hand_over import AT_HAND, BY_ADDRESS, BY_HASH, BY_PORT, Steering, owners_by_hash
from pipeline.kernels.schedule import allocate_inputs
from pipeline.kernels.toeplitz import ENTRIES, KEY, make_tables

HANDED_AT_ONCE = 512
"""Packets of a port that one pass can find to be another worker's: more than a burst and the ARP of it."""
PORTS = 1 << 16


class Share(NamedTuple):
    """One worker's place among `workers`; `by`: how packets find their worker (AT_HAND ..), those of clients and of targets.

    `key` is that of the hash, `table` the redirection table that says which worker a hash leads to (int64[power of two]; None:
    each worker in turn); `mask` has the bits of a source port by which workers differ; `ruled`: whether rules of a NIC tell
    what targets send apart.
    """

    worker: int = 0
    workers: int = 1
    by: tuple = (AT_HAND, AT_HAND)
    key: bytes = KEY
    mask: int = 0
    table: np.ndarray | None = None
    ruled: bool = False


ALONE = Share()


def key_of(engine):
    """Returns the key (bytes) of the hash by which `[engine]` spreads packets."""
    return bytes.fromhex(engine.rss_key) if engine.rss_key else KEY


def shares_of(engine, by, table=None, ruled=False):
    """Returns the Share of each worker of `[engine]`, in order; the others are as in Share."""
    workers = len(engine.cores)
    return [Share(worker, workers, by, key_of(engine), engine.port_mask, table, ruled) for worker in range(workers)]


def part_of(configuration, workers):
    """Returns the Configuration with what one of `workers` gets of everything that is counted out once an engine."""
    shared = ("mbufs", "connections", "opening_connections", "held_connections", "waiting_segments", "edits", "first_copies",
              "records", "reset_rate")
    part = {key: -(-getattr(configuration.engine, key) // workers) for key in shared}
    return configuration.model_copy(update={"engine": configuration.engine.model_copy(update=part)})


def source_addresses(configuration):
    """Returns all addresses (sorted ints) from which services connect to targets."""
    return sorted({int(address) for _, _, address in configuration.sources()})


def port_blocks(configuration, share):
    """Returns the worker that each block of source ports belongs to (list of int), NOBODY for blocks that clients send to.

    A rule of a NIC for such a block would take the clients' packets too, where the listening address is a source address.
    """
    near = set(source_addresses(configuration)) if share.ruled else set()
    heard = {int(block_of(port, share.mask)) for service in configuration.services for port in service.listen.ports
             if any(ipaddress.IPv4Address(address) in service.listen.network for address in near)}
    return [NOBODY if block in heard else block % share.workers for block in range(blocks(share.mask))]


def owners_of_ports(configuration, share):
    """Returns the worker that owns each source port (int8[65536]), where it is the port that tells."""
    if share.by[1] != BY_PORT:
        return np.full(PORTS, share.worker, np.int8)
    return np.array(port_blocks(configuration, share), np.int8)[block_of(np.arange(PORTS), share.mask)]


def make_steering(configuration, share):
    """Returns the `Steering` and the `Inputs` of a worker."""
    ports, workers = configuration.port_count, share.workers
    addresses = np.array(source_addresses(configuration) if workers > 1 else [], np.int64)
    capacity = HANDED_AT_ONCE if workers > 1 else 1
    steering = Steering(
        worker=np.array([share.worker, workers, ports], np.int64), by=np.array(share.by, np.int64), tables=make_tables(share.key),
        redirection=np.arange(ENTRIES) % workers if share.table is None else share.table.copy(),
        port_owner=owners_of_ports(configuration, share), address=addresses, address_owner=np.arange(len(addresses)) % workers,
        mbuf=np.zeros((workers * ports, capacity), np.int64), filled=np.zeros(workers * ports, np.int64))
    return steering, allocate_inputs(share.worker, workers, ports)


def own_entries(share, steering, target, addresses, entries):
    """Returns those of a pool's entries (uint32: index of the source address << 16 | port) that a worker owns.

    `target` (configuration.Target) is where they lead to. Raises ConfigurationError where there is none.
    """
    entries = np.array(entries, np.int64)
    if share.workers == 1:
        return entries
    index, port, kind = entries >> 16, entries & 0xFFFF, share.by[1]
    if kind == BY_ADDRESS:
        owner = np.array([steering.address_owner[list(steering.address).index(address)] for address in addresses])[index]
    elif kind == BY_HASH:
        owner = np.full(len(entries), NOBODY)
        for number, address in enumerate(addresses):
            predicted = np.zeros(PORTS, np.int64)
            owners_by_hash(steering, int(target.ip), address, target.port, predicted)
            owner[index == number] = predicted[port[index == number]]
    else:
        owner = steering.port_owner[port]
    mine = entries[owner == share.worker]
    if len(mine) == 0:
        what = ("source_addresses: there are too few for" if kind == BY_ADDRESS else
                "source_ports: the range, or dst_port_mask in [engine], leaves none to")
        raise ConfigurationError(f'services: {what} worker {share.worker} of {share.workers} toward target "{target.id}"; '
                                 "each worker needs its own")
    return mine


def steering_rules(configuration, share, port):
    """Returns the SteeringRules by which a NIC brings what targets send to `port` (index) to the queue of its owner."""
    reached = {configuration.next_hop(target.ip).port for target in configuration.targets}
    if port not in reached:
        return []
    if share.by[1] == BY_ADDRESS:
        return rules_by_address(port, source_addresses(configuration), share.workers)
    if share.by[1] == BY_PORT:
        return rules_by_port(port, share.mask, port_blocks(configuration, share))
    return []
