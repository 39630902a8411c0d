"""Makes the state of a worker in `mode = "generator"` from a configuration, as pipeline.assemble does for the proxy."""
from typing import NamedTuple

import numpy as np

from pipeline import assemble
from pipeline.kernels import (
    batch,
    connection,
    counters,
    faults,
    flow_table,
    generator_ends,
    generator_payload,
    hand_over,
    headers,
    histogram,
    memory,
    neighbours,
    outbox,
    profile,
    schedule,
    waiting_room,
    wheel,
)
from pipeline.state import ORDERS, TIMERS_A_PASS
from pipeline.steering import ALONE, make_steering

TICKS_A_SECOND = 1_000_000 // wheel.TICK_MICROSECONDS
LONGEST = 3600
"""Seconds: the longest connection whose age its record can tell."""


class GeneratorState(NamedTuple):
    """The state of one worker: fields of the same names are those of pipeline.state.State."""

    control: np.ndarray
    clock: np.ndarray
    idle: np.ndarray
    device: NamedTuple
    base: np.ndarray
    packets: headers.Packets
    batch: batch.Batch
    connections: generator_ends.Ends
    network: neighbours.Network
    wheel: wheel.Wheel
    outbox: outbox.Outbox
    requests: connection.Listed
    expired: np.ndarray
    fresh: np.ndarray
    burst: np.ndarray
    faults: faults.Faults
    inputs: schedule.Inputs
    steering: hand_over.Steering
    profile: profile.Profile

    @property
    def counters(self):
        """The worker's counters."""
        return self.connections.counters


def _numbers(*values):
    return np.array(values, np.int64)


def texts(configuration):
    """Returns what a client and what a server says first (bytes), for each target: texts[role][target].

    Where packets have a size they are filled up to a multiple of four, for the serial number to follow.
    """
    traffic = configuration.generator
    found = []
    for text, size in ((traffic.request, traffic.request_bytes), (traffic.response, traffic.response_bytes)):
        said = [text.format(number=number, target=target.id).encode() for number, target in enumerate(configuration.targets)]
        found.append([words + b" " * (-len(words) % 4) for words in said] if size else said)
    return found


def make_contents(configuration):
    """Returns the `Contents` of a configuration."""
    traffic, said = configuration.generator, texts(configuration)
    sizes = [(traffic.request_packets, traffic.request_bytes), (traffic.response_packets, traffic.response_bytes)]
    filling = np.random.default_rng(1).integers(33, 127, generator_payload.FILLING, np.uint8)
    repeated = np.concatenate([filling, filling[:generator_payload.ROW]])
    rows, total, serial_at, segment = [], [], [], []
    for (packets, size), words in zip(sizes, said, strict=True):
        total.append([packets * size if size else packets * len(text) for text in words])
        serial_at.append([len(text) if size and packets else -1 << 32 for text in words])
        segment.append(size or max(map(len, words)) or 1)
        for text in words:
            row = repeated[:generator_payload.ROW].copy()
            row[:len(text)] = np.frombuffer(text, np.uint8)
            row[len(text):len(text) + generator_payload.SERIAL_LENGTH] = 0
            rows.append(row)
    octets = np.concatenate([*rows, repeated])
    words32 = headers.overlay(octets, headers.WORD32.newbyteorder("<"))
    return generator_ends.Contents(octets, words32, np.array(total, np.int64), np.array(serial_at, np.int64), _numbers(*segment))


def make_settings(configuration, sources, neighbour):
    """Returns the SETTINGS (one row) of a configuration; `sources` are the clients' addresses."""
    traffic, clients = configuration.generator, configuration.generator.clients
    mss = assemble.path_mss(configuration)
    settings = np.zeros(1, generator_ends.SETTINGS).view(np.recarray)
    settings.mss = mss if traffic.mss is None else min(traffic.mss, mss)
    settings.scale = -1 if traffic.window_scale is None else traffic.window_scale
    settings.sack, settings.stamps = int(traffic.sack), int(traffic.timestamps)
    settings.window, settings.flight = traffic.window, traffic.flight
    settings.retransmit, settings.tries = round(traffic.retransmit * TICKS_A_SECOND), traffic.tries
    settings.connecting = round(configuration.timeouts.connecting * TICKS_A_SECOND)
    settings.longest = round(min(configuration.timeouts.established, LONGEST) * TICKS_A_SECOND)
    settings.time_wait = round(configuration.timeouts.time_wait * TICKS_A_SECOND)
    settings.verify = int(traffic.verify)
    settings.closes_first = generator_ends.SERVER if traffic.closes_first == "server" else generator_ends.CLIENT
    if clients is not None:
        low, high = clients.source_ports
        settings.address, settings.port = int(clients.connect.address), clients.connect.port
        settings.first_port, settings.ports, settings.first_address = low, high - low + 1, min(sources)
        settings.clients = len(sources) * (high - low + 1)
        settings.neighbour, settings.most_open = neighbour, clients.max_open
        settings.a_second, settings.test_size = clients.cps_limit, clients.test_size
    return settings


def make_ends(configuration, neighbour):
    """Returns the `Ends` of a configuration, all free; `neighbour` is the clients' next hop."""
    traffic, targets = configuration.generator, configuration.targets
    sources = [int(address) for address in configuration.client_addresses] or [0]
    settings = make_settings(configuration, sources, neighbour)
    clients, servers = int(settings.clients[0]), configuration.engine.connections if traffic.servers else 0
    source_number = np.full(max(sources) - min(sources) + 1, -1, np.int64)
    source_number[np.array(sources) - min(sources)] = np.arange(len(sources))
    size = 1 << max(clients, servers, 1).bit_length()
    free = np.zeros((2, size), np.int64)
    free[0, :clients], free[1, :servers] = np.arange(clients), clients + np.arange(servers)[::-1]
    counted = counters.allocate_counters(len(targets), 1, 1, len(generator_ends.STATES))
    counted.states[connection.FREE] = clients + servers
    number_of = {target.id: number for number, target in enumerate(targets)}
    listening = [(int(target.ip), target.port, number_of[target.id]) for target in configuration.played_targets]
    named = [number_of[identifier] for identifier in (traffic.clients.targets or number_of)] if traffic.clients else [0]
    return generator_ends.Ends(
        hot=memory.allocate(max(clients + servers, 1), generator_ends.END),
        buckets=flow_table.allocate_buckets(max(servers // 2, 1)), free=free, taken=_numbers(0, 0),
        given=_numbers(clients, servers),
        orders=generator_ends.allocate_orders(ORDERS), settings=settings, contents=make_contents(configuration),
        listening=np.array(listening, np.int64).reshape(-1, 3), sources=_numbers(*sources), source_number=source_number,
        client_targets=_numbers(*named), pace=np.zeros(len(generator_ends.PACE), np.int64),
        counts=np.zeros((2, len(generator_ends.COUNTS)), np.int64), failures=np.zeros((2, len(generator_ends.KINDS)), np.int64),
        served=np.zeros((2, len(targets)), np.int64), latency=np.zeros((2, histogram.BUCKETS), np.int64), counters=counted,
        parts=connection.allocate_parts(1), waiting=waiting_room.allocate_waiting_room(0, 0, len(configuration.ports)))


def want_neighbours(configuration, network):
    """Puts gateways and the next hop of clients into the neighbour table, to be kept fresh; returns that one's number."""
    hops = [(int(route.gateway), configuration.on_link(route.gateway)[0]) for route in configuration.routes]
    if configuration.generator.clients:
        hop = configuration.next_hop(configuration.generator.clients.connect.address)
        hops.append((int(hop.address), hop.port))
    number = 0
    for address, port in hops:
        number = int(neighbours.add_neighbour(network, address, port))
        network.neighbours[number].wanted = 1
    return number


def make_generator_state(configuration, device, arena, macs, ticks_now, hertz):
    """Returns a worker's `GeneratorState`; the arguments are those of `assemble.make_state`."""
    network, engine = assemble.make_network(configuration, macs), configuration.engine
    steering, inputs = make_steering(configuration, ALONE)
    ends = make_ends(configuration, want_neighbours(configuration, network))
    return GeneratorState(
        control=np.zeros(8, np.int64), clock=_numbers(ticks_now, 0, round((1 << 32) * 1_000_000 / hertz)),
        idle=_numbers(engine.idle_sleep_us if engine.idle == "backoff" else 0, assemble.EMPTY_PASSES),
        device=device, base=_numbers(arena.base), packets=arena.native, batch=batch.allocate_batch(batch.BURST), connections=ends,
        network=network, wheel=wheel.allocate_wheel(len(ends.hot)), outbox=outbox.allocate_outbox(len(macs), assemble.OUTBOX),
        requests=connection.allocate_listed(ORDERS // 4), expired=np.zeros(TIMERS_A_PASS, np.int64),
        fresh=np.zeros(assemble.OUTBOX, np.int64), burst=_numbers(engine.burst), faults=assemble.make_faults(configuration),
        inputs=inputs, steering=steering, profile=profile.allocate_profile())
