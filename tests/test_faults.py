"""The fault stage of a line: rates, order, time, copies, bounds, and that it gives the same for the same seed.

Lines are driven on virtual time through the ports of an engine that forwards plainly; frames carry their number, so that
each can be told wherever and however often it comes out.
"""

import functools
import hashlib
import itertools
import math
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from numba.core import config

from pipeline import configuration, snapshot
from pipeline.io.frames import frame_bytes, write_frames
from pipeline.kernels import faults, memory_device
from pipeline.memory_engine import MemoryEngine
from pipeline.state import STOP
from tcp.proxy import Proxy

PORTS = """
[engine]
mode = "forward"
idle = "spin"
mbufs = 65536

[[ports]]
name = "left"
device = "net_null0"
[ports.faults]
{faults}

[[ports]]
name = "right"
device = "net_null1"
"""
HEADER = bytes.fromhex("02bb0000001102aa000000020800")
MILLISECOND = 1000


def frame(number, length=64):
    """A frame (bytes) whose payload is its number, over and over: a flipped bit does not make it another one's."""
    return HEADER + (number.to_bytes(4, "big") * (length // 4))[: length - len(HEADER)]


def number_of(octets):
    """The number that most copies of it in a frame agree on."""
    words = [octets[place : place + 4] for place in range(len(HEADER), len(octets) - 3, 4)]
    return int.from_bytes(max(set(words), key=words.count), "big")


class Wire:
    """A plain wire with faults at its left port; `run` moves the time on and collects what comes out, with the time."""

    def __init__(self, text, mbufs=16384, ring_size=4096):
        self.engine = MemoryEngine(configuration.parse(PORTS.format(faults=text), "wire.toml"), mbufs, ring_size)
        self.out = {0: [], 1: []}

    def send(self, frames, port=0):
        assert self.engine.ports[port].feed(frames) == len(frames)
        self.run(0)

    def run(self, microseconds):
        """Moves the time on at once and runs the loop."""
        self.engine.step(microseconds)
        for number, port in enumerate(self.engine.ports):
            self.out[number] += [(self.engine.now, octets) for octets in port.taken()]

    def numbers(self, port=1):
        """Numbers of the frames that have come out of a port, in order."""
        return [number_of(octets) for _, octets in self.out[port]]

    def counted(self, direction="receive"):
        return snapshot.of_faults([self.engine.state.faults], 0)[direction]

    @property
    def missing(self):
        """Mbufs that are neither free nor waiting in a line."""
        waiting = sum(line["waiting"] for line in snapshot.of_faults([self.engine.state.faults], 0).values())
        return self.engine.pool.mbufs - self.engine.pool.available - waiting


def wire_after(text, count, burst=50, port=0, gap=0):
    """A Wire through which frames 0 .. count - 1 have been sent, `gap` microseconds between bursts."""
    wire = Wire(text)
    for first in range(0, count, burst):
        wire.send([frame(number) for number in range(first, min(first + burst, count))], port)
        wire.run(gap)
    return wire


@functools.cache
def struck(fault, rate, seed=1, count=20_000):
    """Wire on which one fault with a rate has had its way with `count` packets."""
    return wire_after(f"{fault} = {rate}\nseed = {seed}", count)


def within(counted, count, rate):
    """Whether `counted` of `count` is within four standard deviations of a binomial distribution."""
    return abs(counted - count * rate) <= 4 * math.sqrt(count * rate * (1 - rate))


@pytest.mark.parametrize("rate", [0.001, 0.1, 0.5])
@pytest.mark.parametrize(("fault", "counter"), [("loss", "lost"), ("duplicate", "duplicated"), ("flip", "flipped")])
def test_a_fault_strikes_at_its_rate_and_no_other_does(fault, counter, rate):
    counted = struck(fault, rate).counted()
    assert counted["packets"] == 20_000 and within(counted[counter], 20_000, rate), counted
    assert {name for name, number in counted.items() if number} == {"packets", counter}


@pytest.mark.parametrize(("fault", "left"), [("loss", 0), ("duplicate", 200), ("flip", 100), ("reorder", 100)])
def test_rate_1_strikes_each_packet(fault, left):
    wire = wire_after(f"{fault} = 1\ndirection = 'receive'", 100)
    wire.run(MILLISECOND)
    assert len(wire.out[1]) == left and wire.missing == 0


def test_strikes_do_not_come_in_rows():
    """Of two successive packets both are lost at the square of the rate: the draws know nothing of each other."""
    came = set(struck("loss", 0.5).numbers())
    lost = np.array([number not in came for number in range(20_000)])
    assert within(int((lost[1:] & lost[:-1]).sum()), 19_999, 0.25)


def test_the_same_seed_gives_the_same_bytes_and_another_one_others():
    text = "loss = 0.1\nduplicate = 0.1\nflip = 0.1\nreorder = 0.1\ndelay = 0.002\njitter = 0.001\nseed = {}"
    first, again, other = (wire_after(text.format(seed), 2000, gap=MILLISECOND) for seed in (7, 7, 8))
    assert first.out == again.out and first.counted() == again.counted()
    assert first.numbers() != other.numbers()


def test_what_is_struck_depends_neither_on_bursts_nor_on_the_other_faults():
    alone = struck("loss", 0.1, count=3000)
    others = wire_after("loss = 0.1\nduplicate = 0.3\nflip = 0.3\nreorder = 0.3\ndelay = 0.01", 3000, burst=7)
    others.run(100 * MILLISECOND)
    assert set(others.numbers()) == set(alone.numbers())


def test_each_direction_and_each_port_has_its_own_stream():
    wire = wire_after("loss = 0.5", 1000)
    for first in range(0, 1000, 50):
        wire.send([frame(number) for number in range(first, first + 50)], port=1)
    assert wire.numbers(0) != wire.numbers(1)
    assert within(wire.counted("transmit")["lost"], 1000, 0.5)


@pytest.mark.parametrize(("direction", "out"), [("receive", (0, 1)), ("transmit", (1, 0)), ("both", (0, 0))])
def test_direction_says_whose_packets_are_struck(direction, out):
    wire = Wire(f'loss = 1\ndirection = "{direction}"')
    wire.send([frame(1)], port=1)
    wire.send([frame(2)], port=0)
    assert (len(wire.out[1]), len(wire.out[0])) == (int(direction == "transmit"), int(direction == "receive"))
    assert set(snapshot.of_faults([wire.engine.state.faults], 0)) == ({direction} if direction != "both" else {"receive", "transmit"})


def test_a_delay_is_exact():
    wire = Wire("delay = 0.025")
    for port in (0, 1):
        wire.send([frame(1)], port)
    for _ in range(2):
        wire.run(24_999)
        assert wire.out == {0: [], 1: []}
        wire.run(1)
        assert [len(wire.out[port]) for port in (0, 1)] == [1, 1]
        wire.out = {0: [], 1: []}
        for port in (0, 1):
            wire.send([frame(2)], port)


@functools.cache
def jittered():
    """A wire with jitter and packets 2 ms apart, far enough that none waits for another."""
    wire = Wire("delay = 0.01\njitter = 0.001\ndirection = 'receive'")
    begun = wire.engine.now
    for number in range(400):
        wire.send([frame(number)])
        for _ in range(100):
            wire.run(20)
    for _ in range(600):
        wire.run(20)
    return [at - begun - 2 * MILLISECOND * number for number, (at, _) in enumerate(wire.out[1])]


def test_jitter_is_even_and_within_its_bounds():
    delays = np.array(jittered())
    assert len(delays) == 400 and delays.min() >= 9_000 and delays.max() < 11_020
    halves = (delays < 10_010).sum(), ((delays > 9_500) & (delays <= 10_510)).sum()
    assert all(within(int(half), 400, 0.5) for half in halves), halves


def test_nothing_overtakes_without_reorder():
    wire = wire_after("delay = 0.01\njitter = 0.01", 2000, burst=5, gap=100)
    for _ in range(200):
        wire.run(100)
    assert wire.numbers() == list(range(2000))
    assert len({at for at, _ in wire.out[1]}) > 10, "they came with jitter all the same"


def test_reordered_packets_come_late_by_their_delay_and_the_others_in_order():
    wire = Wire("reorder = 0.1\nreorder_delay = 0.002\ndelay = 0.005\ndirection = 'receive'")
    begun = wire.engine.now
    for number in range(1000):
        wire.send([frame(number)])
        wire.run(100)
    for _ in range(80):
        wire.run(100)
    late = {number: at - begun - 100 * number for (at, _), number in zip(wire.out[1], wire.numbers(), strict=True)}
    held_back = [number for number, time in late.items() if time >= 7_000]
    in_order = [number for number in wire.numbers() if number not in set(held_back)]
    assert len(late) == 1000 and wire.counted()["reordered"] == len(held_back) and within(len(held_back), 1000, 0.1)
    assert in_order == sorted(in_order) and held_back == sorted(held_back)
    place = {number: place for place, number in enumerate(wire.numbers())}
    assert all(place[number + 15] < place[number] for number in held_back if number < 900 and number + 15 in in_order)


def test_a_copy_is_an_mbuf_of_its_own_and_struck_by_itself():
    wire = wire_after("duplicate = 1\nflip = 0.5\ndirection = 'receive'", 400)
    octets = [octets for _, octets in wire.out[1]]
    assert wire.numbers() == [number for number in range(400) for _ in range(2)], "the copy follows the original at once"
    pairs = list(zip(octets[::2], octets[1::2], strict=True))
    intact = [(first == frame(number), second == frame(number)) for number, (first, second) in enumerate(pairs)]
    assert {(True, True), (True, False), (False, True), (False, False)} <= set(intact)


def test_a_flip_changes_exactly_one_bit_anywhere_behind_the_ethernet_header():
    wire = wire_after("flip = 1\ndirection = 'receive'", 4000)
    places = []
    for number, (_, octets) in enumerate(wire.out[1]):
        sent = frame(number)
        bits = int.from_bytes(sent, "big") ^ int.from_bytes(octets, "big")
        assert len(octets) == len(sent) and bits.bit_count() == 1
        places.append(8 * len(sent) - bits.bit_length())
    assert min(places) >= 8 * 14 and len(set(places)) == 8 * (64 - 14), "each bit was struck, the last ones too"


def test_arp_which_has_no_checksum_is_spared_by_flips():
    asks = HEADER[:12] + bytes.fromhex("0806") + frame(1)[14:]
    wire = Wire("flip = 1\ndirection = 'receive'")
    wire.send([asks, frame(2)])
    assert [octets == sent for (_, octets), sent in zip(wire.out[1], [asks, frame(2)], strict=True)] == [True, False]


def test_frames_too_short_for_a_flip_or_of_several_mbufs_pass_as_they_are():
    wire = Wire("flip = 1\nduplicate = 1\ndirection = 'receive'")
    wire.send([HEADER, HEADER[:13]])
    assert [octets for _, octets in wire.out[1]] == [HEADER, HEADER, HEADER[:13], HEADER[:13]]
    wire.engine.ports[0].feed([frame(5, 300)], segment_length=100)
    wire.run(0)
    ((_, octets),) = wire.out[1][4:]
    assert number_of(octets) == 5 and len(octets) == 300, "a chain is not duplicated"
    assert wire.missing == 0


def test_what_the_nic_found_of_the_checksum_is_forgotten_with_a_flip():
    wire = Wire("flip = 1\ndirection = 'receive'")
    mbufs = write_frames(wire.engine.pool, [frame(1)])
    wire.engine.arena.native.mbuf["offload"][mbufs] = (1 << 8) | (1 << 7)
    wire.engine.feed(0, mbufs)
    wire.engine.step()
    came = np.empty(1, np.int64)
    assert memory_device.dequeue(wire.engine.pool.device.sent, 1, came, 0, 1) == 1
    assert wire.engine.arena.native.mbuf["offload"][came[0]] == 1 << 7
    assert frame_bytes(wire.engine.arena, int(came[0])) != frame(1)


def test_a_queue_holds_so_many_and_the_rest_is_dropped_and_counted():
    wire = wire_after("delay = 0.01\nqueue = 100\ndirection = 'receive'", 250)
    assert (wire.counted()["waiting"], wire.counted()["overflowed"]) == (100, 150)
    wire.run(10 * MILLISECOND)
    assert wire.numbers() == list(range(100)) and wire.missing == 0
    wire.send([frame(1000)])
    wire.run(10 * MILLISECOND)
    assert wire.numbers()[-1] == 1000 and wire.counted()["waiting"] == 0


def test_15_000_packets_wait_at_once():
    wire = Wire("delay = 0.05\nqueue = 16384\ndirection = 'receive'", mbufs=40_000)
    for first in range(0, 15_000, 1000):
        wire.send([frame(number) for number in range(first, first + 1000)])
        wire.run(3 * MILLISECOND)
    assert wire.counted()["waiting"] == 15_000 and not wire.out[1]
    for _ in range(50):
        wire.run(MILLISECOND)
    assert wire.numbers() == list(range(15_000)) and wire.missing == 0


def test_copies_without_an_mbuf_are_left_out_and_counted():
    wire = Wire("duplicate = 1\ndelay = 0.01\ndirection = 'receive'", mbufs=64)
    elsewhere = np.empty(2, np.int64)
    assert memory_device.allocate(wire.engine.pool.device, elsewhere, 2) == 2
    for number in range(32):
        wire.send([frame(number)])
    counted = wire.counted()
    assert (counted["duplicated"], counted["not_duplicated"], counted["waiting"]) == (30, 2, 62), counted
    wire.run(10 * MILLISECOND)
    assert wire.numbers() == sorted([*range(30), *range(32)]) and wire.missing == 2


@pytest.mark.parametrize("direction", ["receive", "transmit"])
def test_stop_is_not_kept_waiting_and_frees_what_waits(direction):
    wire = Wire(f"delay = 10\ndirection = '{direction}'")
    wire.send([frame(number) for number in range(300)], port=int(direction == "transmit"))
    assert wire.counted(direction)["waiting"] == 300
    wire.engine.state.control[0] = STOP
    wire.engine.run(wire.engine.state, -1, wire.engine.now)
    assert wire.counted(direction)["waiting"] == 0
    assert len(wire.engine.ports[0].taken()) == (300 if direction == "transmit" else 0), "what left already is let out"
    assert wire.engine.pool.available == wire.engine.pool.mbufs


def test_a_wire_without_faults_passes_everything_as_it_is():
    wire = Wire("")
    assert snapshot.of_faults([wire.engine.state.faults], 0) == {} and not wire.engine.state.faults.any[0]
    frames = [frame(number, length) for number, length in enumerate((14, 60, 64, 1500, 1514))]
    for port in (0, 1):
        wire.send(frames, port)
        assert [octets for _, octets in wire.out[1 - port]] == frames
    assert wire.missing == 0


def test_four_ports_are_two_wires():
    text = PORTS.format(faults="") + '[[ports]]\nname = "c"\ndevice = "net_null2"\n[[ports]]\nname = "d"\ndevice = "net_null3"\n'
    engine = MemoryEngine(configuration.parse(text, "wires.toml"))
    for number, port in enumerate(engine.ports):
        port.feed([frame(number)])
    engine.step()
    assert [[number_of(octets) for octets in port.taken()] for port in engine.ports] == [[1], [0], [3], [2]]


def plain_stream(words):
    """xoshiro128++ as its authors give it in C, on Python's own numbers."""
    mask = 0xFFFFFFFF
    words = [int(word) for word in words]

    def turned(word, places):
        return (word << places | word >> (32 - places)) & mask

    while True:
        yield (turned((words[0] + words[3]) & mask, 7) + words[0]) & mask
        shifted = words[1] << 9 & mask
        words[2] ^= words[0]
        words[3] ^= words[1]
        words[1] ^= words[2]
        words[0] ^= words[3]
        words[2] ^= shifted
        words[3] = turned(words[3], 11)


def test_draws_are_those_of_xoshiro128():
    stage = faults.allocate_faults([[0] * 7 + [1]], [5], 1)
    stage.random[0, 0] = 1, 2, 3, 4
    assert [int(faults.draw(stage, 0, 0)) for _ in range(10)][:4] == [641, 1573767, 3222811527, 3517856514]
    for stream in range(faults.STREAMS):
        expected = list(itertools.islice(plain_stream(stage.random[0, stream]), 1000))
        assert [int(faults.draw(stage, 0, stream)) for _ in range(1000)] == expected


def everything():
    """A digest of all bytes, and their times, that come through a wire with all faults at once, and of its counters."""
    wire = wire_after("loss = 0.1\nduplicate = 0.1\nflip = 0.1\nreorder = 0.1\ndelay = 0.002\njitter = 0.001", 300, gap=100)
    for _ in range(50):
        wire.run(100)
    assert len(wire.out[1]) > 200 and wire.missing == 0
    return hashlib.sha256(repr((wire.out, wire.counted())).encode()).hexdigest()


@pytest.mark.skipif(bool(config.DISABLE_JIT or config.BOUNDSCHECK), reason="this is the run that starts the others")
@pytest.mark.parametrize("mode", ["NUMBA_BOUNDSCHECK", "NUMBA_DISABLE_JIT"][:2 if os.environ.get("PIPELINE_SOAK") == "1" else 1])
def test_plain_python_and_checked_bounds_give_the_same_bytes(mode):
    here = pathlib.Path(__file__).resolve().parent
    done = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", "-c", "import test_faults; print(test_faults.everything())"],
        env=os.environ | {mode: "1", "PYTHONPATH": f"{here.parent}:{here}"}, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip() == everything()


def test_a_client_of_the_proxy_behind_25_ms_sees_50():
    proxy = Proxy(faults={"delay": 0.025})
    client = proxy.client()
    client.send("S")
    proxy.wait(0.049, step=0.001)
    client.nothing()
    proxy.wait(0.001)
    client.expect("SA", seq=0, ack=1)
    client.send("A")
    proxy.wait(0.05)
    proxy.finish()


def test_no_flipped_packet_passes_the_proxys_checks():
    proxy = Proxy(faults={"flip": 1, "direction": '"receive"'})
    for _ in range(300):
        proxy.client().send("S")
    assert proxy.count("opened") == 0 and sum(proxy.drops().values()) == 300, proxy.drops()
    assert set(proxy.drops()) >= {"ipv4_checksum", "tcp_checksum"}
    proxy.finish()


def test_resets_of_a_stopping_proxy_leave_although_they_would_be_delayed():
    proxy = Proxy(faults={"delay": 0.5, "direction": '"transmit"'})
    client = proxy.client()
    client.send("S")
    proxy.wait(0.5)
    client.expect("SA", seq=0, ack=1)
    client.send("A")
    assert proxy.states() == {"first_data": 1}
    proxy.stop()
    (segment,) = proxy.received[client.own, client.other]
    assert "R" in segment.flags
    proxy.conserved()
