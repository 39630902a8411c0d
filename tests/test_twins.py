"""The C twins against the kernels whose slots they fill: every column, every counter and every octet of packet memory."""

import importlib.util
import random

import numpy as np
import pytest
from kernel_bed import CLIENT, CLIENT_MAC, KernelBed, mac_text
from scapy.layers.inet import ICMP, IP, UDP, IPOption_NOP, IPOption_Router_Alert
from scapy.layers.l2 import ARP, Ether

from pipeline import compose
from pipeline.io.frames import write_frames
from pipeline.kernels import express
from pipeline.kernels import parse as parse_module
from pipeline.kernels import rewrite as rewrite_module
from pipeline.kernels import twin_layout
from pipeline.kernels.batch import ABSORB, DROP, FORWARD, KIND_TCP, PENDING, SENT
from pipeline.kernels.connection import BOUND, ESTABLISHED, HOLDS, OWNS, PLAIN, SCALED, SPECIAL, STAMPED
from pipeline.kernels.flow_hash import hash_key
from pipeline.kernels.flow_table import SLOTS, insert
from pipeline.kernels.lookup import bucketed
from pipeline.kernels.neighbours import INCOMPLETE, PROBING

BUILT = importlib.util.find_spec("pipeline._twins") is not None
needs_twins = pytest.mark.skipif(not BUILT, reason="the C twins are not built here: make install, with gcc and python3-dev")
ROWS, BATCHES = 64, 60
OPTIONS = [[], [("Timestamp", (5, 6)), ("NOP", None), ("NOP", None)], [("NOP", None), ("NOP", None), ("Timestamp", (7, 2**32 - 1))],
           [("NOP", None), ("NOP", None), ("SAck", (1000, 2000))], [("SAck", (5, 9, 2**32 - 3, 20)), ("EOL", None)],
           [("NOP", None), ("NOP", None), ("Timestamp", (9, 9)), ("NOP", None), ("NOP", None), ("SAck", (1, 2))],
           [("MSS", 1400), ("SAckOK", b""), ("Timestamp", (1, 0)), ("NOP", None), ("WScale", 7)], [("WScale", 200), ("MSS", 1)],
           [("NOP", None)] * 5 + [("Timestamp", (3, 4))], [("AltChkSum", (1, 2)), ("NOP", None)]]


@pytest.fixture(scope="module")
def twins():
    from pipeline.kernels import twins

    return twins


@pytest.fixture(scope="module")
def bed():
    return KernelBed()


def frames_of(bed, generator):
    """Returns frames of every kind that parse knows: segments with options and tags, ARP, ICMP, other protocols."""
    found = []
    for number in range(120):
        tcp = {"flags": generator.choice([0, 2, 16, 16, 16, 18, 24, 17, 4, 194]), "seq": generator.getrandbits(32),
               "ack": generator.getrandbits(32), "window": generator.getrandbits(16), "options": generator.choice(OPTIONS)}
        tag = generator.choice([None, None, None, {"vlan": 0}, {"vlan": 5}])
        ip_options = generator.choice([(), (), (), [IPOption_Router_Alert()], [IPOption_NOP()] * 9])
        payload = bytes(generator.randrange(256) for _ in range(generator.choice([0, 0, 1, 6, 77])))
        ip = {"ttl": generator.choice([0, 1, 2, 64]), "flags": generator.choice(["", "DF", "DF", "DF", "MF"])}
        found.append(bed.segment(payload, tag=tag, ip=ip, ip_options=ip_options, **tcp))
    ether = Ether(src=mac_text(CLIENT_MAC), dst=mac_text(bed.macs[0]))
    rest = [IP(src=CLIENT) / ICMP() / b"ping", IP(src=CLIENT) / UDP(), IP(src=CLIENT, proto=6), ARP(pdst="10.1.0.1")]
    found += [bytes(ether / packet) for packet in rest] + [bytes(Ether(dst="ff:ff:ff:ff:ff:ff") / ARP()), b"", bytes(13), bytes(60)]
    return found


def changed(frame, generator):
    """Returns a frame with some of its octets changed or cut off; mostly its IPv4 checksum is made right again."""
    octets = bytearray(frame)
    for _ in range(generator.choice([0, 1, 1, 2, 4])):
        if octets:
            octets[generator.randrange(min(len(octets), 80))] = generator.choice([0, 1, 2, 8, 10, 255, generator.randrange(256)])
    if generator.random() < 0.1:
        del octets[generator.randrange(len(octets) + 1):]
    length = (octets[14] & 15) * 4 if len(octets) > 14 else 0
    if generator.random() < 0.8 and len(octets) >= 14 + length >= 34:
        octets[24:26] = bytes(2)
        total = sum(int.from_bytes(octets[at:at + 2], "big") for at in range(14, 14 + length, 2))
        while total >> 16:
            total = (total & 0xFFFF) + (total >> 16)
        octets[24:26] = (0xFFFF - total).to_bytes(2, "big")
    return bytes(octets)


def both(bed, count, kernel, twin, columns, more=()):
    """Runs a kernel and its twin from the same state, asserts that they leave the same (in the arrays `more` too).

    Returns the columns.
    """
    state = [*bed.batch, bed.counters.drops, bed.counters.notices, bed.arena.octets, *more]
    before = [column.copy() for column in state]
    kernel()
    expected = [column.copy() for column in state]
    for column, old in zip(state, before, strict=True):
        column[:] = old
    twin()
    names = [*bed.batch._fields, "drops", "notices", "octets", *(f"further array {number}" for number in range(len(more)))]
    for name, column, wanted in zip(names, state, expected, strict=True):
        differing = np.flatnonzero(column != wanted)
        assert not len(differing), f"{name}[{differing[0]}] is {column[differing[0]]}, the kernel has {wanted[differing[0]]}"
    return {name: getattr(bed.batch, name)[:count].copy() for name in columns}


def fill_with_rubbish(bed, generator):
    """What a column held before must not matter."""
    for column in bed.batch:
        column[:] = generator.integers(0, 2**32, len(column))


@needs_twins
def test_parse_does_to_a_batch_what_the_kernel_does(bed, twins):
    generator, rubbish = random.Random(1), np.random.default_rng(1)
    frames, reasons, kinds = frames_of(bed, generator), set(), set()
    for number in range(BATCHES):
        given = [changed(generator.choice(frames), generator) for _ in range(ROWS)]
        mbufs = write_frames(bed.pool, given, generator.choice([None, None, None, 20, 60]))
        fill_with_rubbish(bed, rubbish)
        bed.batch.mbuf[:ROWS] = mbufs
        bed.counters.drops[:] = 0
        if number % 4 == 0:
            bed.packets.mbuf["data_length"][mbufs[5]] += 3000
            bed.packets.mbuf["packet_length"][mbufs[6]] += 1
        arguments = (bed.packets, bed.base, bed.batch, ROWS, number % 2, bed.state.network, bed.counters)
        bed.state.network.mac_high[1], bed.state.network.mac_low[1] = bed.state.network.mac_high[0], bed.state.network.mac_low[0]
        seen = both(bed, ROWS, lambda: parse_module.parse(*arguments), lambda: twins.parse(*arguments), ("kind", "verdict"))
        reasons |= set(np.flatnonzero(bed.counters.drops))
        kinds |= set(seen["kind"][seen["verdict"] == PENDING])
        if number % 4 == 0:
            bed.packets.mbuf["data_length"][mbufs[5]] -= 3000
        bed.pool.release(mbufs)
    assert len(reasons) >= 11 and len(kinds) == 3


@needs_twins
@pytest.mark.parametrize("load", [0.5, 0.9, 1.0])
def test_lookup_finds_what_the_kernel_finds(bed, twins, load):
    generator = np.random.default_rng(int(load * 10))
    hot, buckets = bed.connections.hot, np.zeros_like(bed.connections.buckets)[:12]
    for name in ("remote_address", "local_address", "remote_port", "local_port"):
        hot[name] = generator.integers(0, 2**16, hot[name].shape)

    def key_of(entry):
        return [int(hot[name][entry >> 1, entry & 1]) for name in ("remote_address", "local_address", "remote_port", "local_port")]
    entries = generator.permutation(2 * len(hot))[:int(load * len(buckets) * SLOTS)]
    assert all(insert(buckets, hash_key(*key_of(entry)), entry) for entry in entries)
    assert (buckets.passed > 0).any() == (load > 0.5)
    batch = bed.batch
    for _ in range(BATCHES):
        for row in range(ROWS):
            key = key_of(generator.integers(0, 2 * len(hot)))
            batch.source[row], batch.destination[row], batch.source_port[row], batch.destination_port[row] = key
            batch.destination_port[row] ^= generator.random() < 0.2
            batch.kind[row] = KIND_TCP if generator.random() < 0.9 else 2
            batch.verdict[row] = PENDING if generator.random() < 0.9 else DROP
        seen = both(bed, ROWS, lambda: bucketed(batch, ROWS, buckets, hot),
                    lambda: twins.lookup(batch, ROWS, buckets, hot), ("flow",))
        assert (seen["flow"] >= 0).any() and (seen["flow"] < 0).any()


def random_connections(bed, generator):
    """Gives every connection numbers, options and next hops at random."""
    hot = bed.connections.hot
    for name in ("remote_address", "local_address", "shift", "timestamp_shift"):
        hot[name] = generator.integers(0, 2**32, hot[name].shape)
    hot.shift[::5] = 0
    hot.remote_port, hot.local_port = generator.integers(0, 2**16, (2, *hot.remote_port.shape))
    hot.options = sum(bit * (generator.random(len(hot)) < share) for bit, share in
                      ((SCALED, 0.1), (OWNS, 0.1), (STAMPED, 0.5), (HOLDS, 0.1), (SPECIAL, 0.1)))
    hot.scales = generator.integers(0, 256, len(hot))
    hops = [bed.knows("10.1.0.99", 0, 0x02CC00000001), bed.knows("10.2.0.99", 1, 0x02DD00000002)]
    hot.neighbour = generator.choice(hops, hot.neighbour.shape)
    bed.connections.cold.special = PLAIN
    return bed.state.network.neighbours[hops[0]]


@needs_twins
def test_rewrite_makes_of_packets_what_the_kernel_makes(bed, twins):
    generator, rubbish = random.Random(2), np.random.default_rng(2)
    frames, verdicts = [frame for frame in frames_of(bed, generator) if len(frame) > 60], set()
    hop = random_connections(bed, rubbish)
    bed.state.network.mtu[1] = 120
    for number in range(BATCHES):
        mbufs = write_frames(bed.pool, [generator.choice(frames) for _ in range(ROWS)], generator.choice([None, None, 90]))
        bed.batch.mbuf[:ROWS] = mbufs
        bed.packets.mbuf["offload"][mbufs[3]] = 5
        parse_module.parse(bed.packets, bed.base, bed.batch, ROWS, 0, bed.state.network, bed.counters)
        tcp = (bed.batch.kind == KIND_TCP) & (bed.batch.verdict == PENDING)
        bed.batch.verdict[tcp] = rubbish.choice([FORWARD, FORWARD, FORWARD, ABSORB], int(tcp.sum()))
        bed.batch.flow[:] = rubbish.integers(0, 2 * len(bed.connections.hot), len(bed.batch.flow))
        hop.state = INCOMPLETE if number % 7 == 0 else PROBING
        arguments = (bed.packets, bed.base, bed.batch, ROWS, bed.connections, bed.state.network, 0)
        seen = both(bed, ROWS, lambda: rewrite_module.rewrite(*arguments), lambda: twins.rewrite(*arguments), ("verdict",))
        verdicts |= set(seen["verdict"].tolist())
        bed.pool.release(mbufs)
    assert {FORWARD, ABSORB, DROP} <= verdicts and max(verdicts) < twin_layout.LEFT
    assert {"ttl_exceeded", "larger_than_mtu", "unresolved_neighbour"} <= bed.drops.keys()


def usual_segments(bed, generator, hot):
    """Returns segments of connections, most of them just what these wait for, and whose each is (flow)."""
    frames, flows = [], []
    for _ in range(ROWS):
        flow = generator.randrange(2 * len(hot))
        one, side = hot[flow >> 1], flow & 1
        near = generator.choice([0, 0, 0, 0, 1, -1, -6, 70_000, -70_000, 2**30])
        stamps = [("NOP", None), ("NOP", None), ("Timestamp", (generator.getrandbits(32), 90))]
        ip = {"ttl": generator.choice([64, 64, 64, 64, 1]), "flags": "DF"}
        frames.append(bed.segment(
            bytes(generator.choice([0, 6, 77])), ip=ip, tag=generator.choice([None] * 9 + [{"vlan": 0}]),
            seq=(int(one.next[side]) + near) % 2**32, ack=(int(one.acked[side]) + generator.choice([0, 5, -5, 2**31])) % 2**32,
            flags=generator.choice(["A", "A", "A", "PA", "PA", "PA", "FA", "R", "S", "UA"]), window=generator.getrandbits(16),
            options=generator.choice([[], [], stamps, stamps, [("NOP", None)] * 4])))
        flows.append(flow if generator.random() < 0.95 else -1)
    return frames, flows


@needs_twins
def test_express_sends_on_what_the_kernel_sends_on(bed, twins):
    generator, rubbish = random.Random(3), np.random.default_rng(3)
    hot, outbox, verdicts = bed.connections.hot, bed.state.outbox, set()
    arguments = (bed.packets, bed.batch, ROWS, bed.connections, bed.state.network, outbox, 12_345_678)
    for number in range(BATCHES):
        hop = random_connections(bed, rubbish)
        hot.options = sum(bit * (rubbish.random(len(hot)) < share) for bit, share in (
            (BOUND, 0.95), (STAMPED, 0.5), (HOLDS, 0.05), (SPECIAL, 0.05), (OWNS, 0.1)))
        hot.state, hot.closing = rubbish.choice([ESTABLISHED] * 9 + [2], len(hot)), rubbish.choice([0] * 9 + [1], len(hot))
        hot.next = rubbish.integers(0, 2**32, hot.next.shape)
        hot.next[::5] = rubbish.integers(2**32 - 8, 2**32, hot.next[::5].shape)
        hot.acked = (hot.next[:, ::-1].astype(np.int64) + hot.shift[:, ::-1]) & 0xFFFFFFFF
        hop.state = INCOMPLETE if number % 7 == 0 else PROBING
        frames, flows = usual_segments(bed, generator, hot)
        mbufs = write_frames(bed.pool, frames)
        bed.batch.mbuf[:ROWS] = mbufs
        bed.packets.mbuf["offload"][mbufs[3]] = 5
        parse_module.parse(bed.packets, bed.base, bed.batch, ROWS, 0, bed.state.network, bed.counters)
        bed.batch.flow[:ROWS] = flows
        outbox.filled[:], outbox.to_release[0] = (0, outbox.mbuf.shape[1] - number % 3 * 2), 0
        left = []
        more = (hot.view(np.uint8), outbox.mbuf, outbox.filled, outbox.released, outbox.to_release, bed.counters.events)
        seen = both(bed, ROWS, lambda: left.append(express.usual(*arguments)), lambda: left.append(twins.express(*arguments)),
                    ("verdict",), more)
        assert left[0] == left[1] == int((seen["verdict"] != SENT).sum())
        verdicts |= set(seen["verdict"].tolist())
        outbox.filled[:], outbox.to_release[0] = 0, 0
        bed.pool.release(mbufs)
    assert {SENT, PENDING} <= verdicts and "transmit_full" in bed.drops


@needs_twins
def test_express_leaves_windows_in_another_scale_to_the_kernels(bed, twins):
    hot, shown = random_connections(bed, np.random.default_rng(4)) and bed.connections.hot[1], []
    for scaled in (0, SCALED):
        hot.state, hot.closing, hot.options = ESTABLISHED, 0, BOUND | scaled
        hot.shift, hot.next, hot.acked = 0, (100, 200), (200, 100)
        mbufs = write_frames(bed.pool, [bed.segment(b"answer", seq=200, ack=100, flags="A")])
        bed.batch.mbuf[:1] = mbufs
        parse_module.parse(bed.packets, bed.base, bed.batch, 1, 0, bed.state.network, bed.counters)
        bed.batch.flow[0] = 3
        shown.append(twins.express(bed.packets, bed.batch, 1, bed.connections, bed.state.network, bed.state.outbox, 5))
        bed.state.outbox.filled[:] = 0
        bed.pool.release(mbufs)
    assert shown == [0, 1]


@needs_twins
def test_a_configuration_names_the_twins():
    text = compose.source(dict.fromkeys(("parse", "lookup", "express", "rewrite"), "c"), ["round_robin"], "memory")
    for slot in ("parse", "lookup", "express", "rewrite"):
        assert f"from pipeline.kernels.twins import {slot} as {slot}\n" in text


@needs_twins
def test_twins_of_another_layout_are_refused(twins, monkeypatch):
    monkeypatch.setattr(twins, "digest", lambda: "another")
    with pytest.raises(ImportError, match="built for other records than the kernels have now: make install"):
        twins._load()


def test_the_declarations_have_every_field_of_every_record():
    text = twin_layout.declarations()
    from pipeline.kernels.batch import Batch
    from pipeline.kernels.connection import HOT

    assert all(f"offsetof(struct hot, {field}) == {HOT.fields[field][1]}" in text for field in HOT.names)
    assert twin_layout.context_fields()[:len(Batch._fields)] == Batch._fields
    assert f"#define ESTABLISHED {twin_layout.names_of('connection')['ESTABLISHED']}\n" in text
