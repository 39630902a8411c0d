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
from pipeline.kernels import parse as parse_module
from pipeline.kernels import rewrite as rewrite_module
from pipeline.kernels import twin_layout
from pipeline.kernels.batch import ABSORB, DROP, FORWARD, KIND_TCP, PENDING
from pipeline.kernels.connection import HOLDS, OWNS, PLAIN, SCALED, SPECIAL, STAMPED
from pipeline.kernels.flow_table import SLOTS, hash_key, insert
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


def both(bed, count, kernel, twin, columns):
    """Runs a kernel and its twin from the same state, asserts that they leave the same; returns the columns."""
    state = [*bed.batch, bed.counters.drops, bed.counters.notices, bed.arena.octets]
    before = [column.copy() for column in state]
    kernel()
    expected = [column.copy() for column in state]
    for column, old in zip(state, before, strict=True):
        column[:] = old
    twin()
    names = [*bed.batch._fields, "drops", "notices", "octets"]
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
        seen = both(bed, ROWS, lambda: bucketed(batch, ROWS, buckets, hot), lambda: twins.lookup(batch, ROWS, buckets, hot), ("flow",))
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


@needs_twins
def test_a_configuration_names_the_twins():
    text = compose.source({"parse": "c", "lookup": "c", "rewrite": "c"}, ["round_robin"], "memory")
    assert all(f"from pipeline.kernels.twins import {slot} as {slot}\n" in text for slot in ("parse", "lookup", "rewrite"))


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
