"""The model of a NIC against a plain twin, bit by bit: which queue a frame goes to, by rules and by RSS, and what is counted."""

import threading

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from kernel_bed import generated
from test_toeplitz import by_definition

from pipeline.io.frames import frame_bytes, write_frames
from pipeline.io.nic_model import MOST_RULES, NicModel
from pipeline.io.steering import SteeringRule, rules_by_address, rules_by_port
from pipeline.kernels import memory_device, native
from pipeline.kernels.jit import loop
from pipeline.kernels.toeplitz import KEY

QUEUES, LAST, MBUFS = 32, 31, 33 * 320
WIDE = NicModel(ports=2, queues=QUEUES, mbufs=MBUFS, ring_size=8)
"""Queues enough that hardly two hashes that differ give the same one."""
WORD, PORT = st.integers(0, 2**32 - 1), st.integers(0, 2**16 - 1)
SOURCE, DESTINATION, SOURCE_PORT, DESTINATION_PORT = 0xC6336407, 0x0A020164, 443, 0xA5C3
TAG, QINQ_TAG = bytes.fromhex("81000000"), bytes.fromhex("88a80000")


def frame_of(source=SOURCE, destination=DESTINATION, ports=(SOURCE_PORT, DESTINATION_PORT), tags=b"", options=b"", protocol=6,
             fragment=0x4000, version=4, length=None):
    """Returns a frame (bytes) of 60 octets or more, cut to `length`; checksums are nothing to a NIC."""
    ip = bytes([version << 4 | 5 + len(options) // 4, 0]) + (20 + len(options) + 20).to_bytes(2, "big") + bytes(2)
    ip += fragment.to_bytes(2, "big") + bytes([64, protocol, 0, 0]) + source.to_bytes(4, "big") + destination.to_bytes(4, "big")
    transport = b"".join(port.to_bytes(2, "big") for port in ports) + bytes(16)
    return (bytes(12) + tags + b"\x08\x00" + ip + options + transport).ljust(60, b"\0")[:length]


def twin(frame, table, rules=(), port=0, key=KEY):
    """Returns the queue for a frame, from its bytes alone."""
    at = 16 if frame[12:14] == b"\x81\x00" else 12
    kind, ip = frame[at:at + 2], frame[at + 2:]
    if kind != b"\x08\x00" or len(ip) < 20 or ip[0] >> 4 != 4 or ip[0] & 15 < 5:
        return 0
    ports = ip[4 * (ip[0] & 15):][:4]
    if ip[9] != 6 or int.from_bytes(ip[6:8], "big") & 0x3FFF or len(ports) < 4:
        return table[by_definition(key, ip[12:20]) % len(table)]
    fields = {"destination_address": int.from_bytes(ip[16:20], "big"), "destination_port": int.from_bytes(ports[2:], "big")}
    for rule in rules:
        if rule.port == port and fields[rule.field] & rule.mask == rule.value:
            return rule.queue
    return table[by_definition(key, ip[12:20] + ports) % len(table)]


def queues_of(nic, frames, port=0):
    """Feeds frames one by one; returns the queue (list) in which each was found."""
    found = []
    for frame in frames:
        assert nic.ports[port].feed([frame]) == 1
        bursts = [nic.ports[port].rx(queue=queue) for queue in range(nic.queues)]
        [queue] = [queue for queue, burst in enumerate(bursts) if len(burst)]
        assert bytes(bursts[queue][0]) == frame
        bursts[queue].release()
        found.append(queue)
    return found


@pytest.fixture(autouse=True)
def none_lost():
    yield
    assert WIDE.pool.available == MBUFS and not WIDE.rules


def with_rules(nic, rules):
    """Replaces the rules of a NIC."""
    for rule in list(nic.rules):
        nic.remove_rule(rule)
    for rule in rules:
        nic.add_rule(rule)


def test_every_bit_that_is_hashed_moves_the_packet_as_the_hash_says():
    frames = [frame_of()]
    for bit in range(32):
        frames += [frame_of(source=SOURCE ^ 1 << bit), frame_of(destination=DESTINATION ^ 1 << bit)]
    for bit in range(16):
        frames += [frame_of(ports=(SOURCE_PORT ^ 1 << bit, DESTINATION_PORT)), frame_of(ports=(SOURCE_PORT, DESTINATION_PORT ^ 1 << bit))]
    came = queues_of(WIDE, frames)
    assert came == [twin(frame, WIDE.table) for frame in frames]
    assert sum(queue != came[0] for queue in came) > 80, "most bits of the input are among those that this table looks at"


@pytest.mark.parametrize("kind", [{"protocol": 17}, {"protocol": 1}, {"fragment": 0x2000}, {"fragment": 0x0001}, {"fragment": 0x1000}])
def test_of_other_packets_the_addresses_alone_are_hashed(kind):
    frames = [frame_of(**kind), frame_of(ports=(1, 2), **kind)]
    for bit in range(32):
        frames += [frame_of(source=SOURCE ^ 1 << bit, **kind), frame_of(destination=DESTINATION ^ 1 << bit, **kind)]
    came = queues_of(WIDE, frames)
    assert came == [twin(frame, WIDE.table) for frame in frames] and came[0] == came[1] and len(set(came)) > 20


@pytest.mark.parametrize("tags", [b"", TAG])
def test_a_frame_cut_anywhere_is_hashed_by_what_is_whole_of_it(tags):
    frames = [frame_of(tags=tags, options=bytes(8), length=length) for length in range(60)]
    came = queues_of(WIDE, frames)
    assert came == [twin(frame, WIDE.table) for frame in frames] and len(set(came)) == 3


@pytest.mark.parametrize("tags", [b"", TAG])
@pytest.mark.parametrize("mask", [0x000F, 0xF000, 0x8421, 0xFFFF])
def test_a_rule_takes_what_equals_its_value_in_every_bit_of_its_mask(mask, tags):
    rule = SteeringRule(0, "destination_port", DESTINATION_PORT & mask, mask, LAST)
    frames = [frame_of(tags=tags, ports=(SOURCE_PORT, DESTINATION_PORT ^ 1 << bit)) for bit in range(16)]
    with_rules(WIDE, [rule])
    came = queues_of(WIDE, [*frames, frame_of(tags=tags)])
    with_rules(WIDE, [])
    without = [twin(frame, WIDE.table) for frame in frames]
    assert all(came[bit] == (without[bit] if mask >> bit & 1 else LAST) for bit in range(16)) and came[16] == LAST
    assert without.count(LAST) < 3


def test_a_rule_for_an_address_takes_it_whole_on_its_own_port_alone():
    frames = [frame_of(destination=DESTINATION ^ 1 << bit) for bit in range(32)]
    with_rules(WIDE, [SteeringRule(1, "destination_address", DESTINATION, 0xFFFFFFFF, LAST)])
    came, elsewhere = queues_of(WIDE, [*frames, frame_of()], port=1), queues_of(WIDE, [frame_of()], port=0)
    with_rules(WIDE, [])
    assert came == [*(twin(frame, WIDE.table) for frame in frames), LAST] and elsewhere == [twin(frame_of(), WIDE.table)] != [LAST]


@pytest.mark.parametrize("kind", [{"protocol": 17}, {"fragment": 0x2000}, {"fragment": 0x0001}, {"tags": TAG + TAG}, {"tags": QINQ_TAG}])
def test_rules_leave_alone_what_is_no_whole_tcp_over_ipv4(kind):
    with_rules(WIDE, rules_by_address(0, [1, 2, DESTINATION]))
    came = queues_of(WIDE, [frame_of(**kind)])
    with_rules(WIDE, [])
    assert came == [twin(frame_of(**kind), WIDE.table)] != [2]


FRAMES = st.builds(
    frame_of,
    source=WORD,
    destination=WORD | st.sampled_from([DESTINATION, DESTINATION + 1]),
    ports=st.tuples(PORT, PORT),
    tags=st.sampled_from([b"", b"", TAG, QINQ_TAG, TAG + TAG, QINQ_TAG + TAG]),
    options=st.integers(0, 10).map(lambda words: b"\x01\x02\x03\x04" * words),
    protocol=st.sampled_from([6, 6, 6, 17, 1, 0]),
    fragment=st.sampled_from([0, 0x4000, 0x8000, 0x2000, 0x1FFF, 1]),
    version=st.sampled_from([4, 4, 4, 4, 6, 0]),
    length=st.integers(0, 120),
)
RULES = st.one_of(
    st.just([]),
    st.tuples(st.sampled_from([0x0003, 0x0300, 0xC000]), st.lists(st.integers(0, QUEUES - 1), min_size=4, max_size=4)).map(
        lambda drawn: rules_by_port(0, *drawn)
    ),
    st.just(rules_by_address(0, [DESTINATION, DESTINATION + 1])),
)


@generated
@given(st.lists(FRAMES, max_size=8), RULES, st.sampled_from([None, 3, 20, 40]))
@example([b"", bytes(13), bytes(14), bytes(12) + b"\x08\x00", bytes(12) + TAG, bytes(12) + TAG + b"\x08"], [], None)
def test_any_frames_go_where_the_twin_says_in_order(frames, rules, segment_length):
    with_rules(WIDE, rules)
    expected = [[] for _ in range(QUEUES)]
    for frame in frames:
        expected[twin(frame, WIDE.table, rules)].append(frame)
    whole = write_frames(WIDE.pool, frames)
    for feed in (lambda: WIDE.ports[0].feed(frames, segment_length), lambda: WIDE.ports[0].feed_mbufs(whole)):
        assert feed() == len(frames) == WIDE.ports[0].waiting
        came = [WIDE.ports[0].rx(queue=queue) for queue in range(QUEUES)]
        assert [[bytes(frame) for frame in burst] for burst in came] == expected
        for burst in came:
            burst.release()
    with_rules(WIDE, [])


def test_what_has_no_room_is_missed_and_counted_for_its_queue():
    nic = NicModel(ports=1, queues=2, mbufs=96, ring_size=4)
    port = nic.ports[0]
    nic.add_rule(SteeringRule(0, "destination_address", DESTINATION, 0xFFFFFFFF, 1))
    frames = [frame_of(ports=(number, 80)) for number in range(10)]
    assert port.feed([*frames, b"x"]) == 5 and port.waiting == 5
    assert port.feed_mbufs(write_frames(nic.pool, [*frames, b"y" * 100])) == 1
    counted = port.statistics()
    assert (counted["queue_packets"], counted["queue_missed"]) == ([2, 4], [0, 16])
    assert (counted["received_packets"], counted["missed"], counted["received_octets"]) == (6, 16, 4 * 60 + 1 + 100)
    assert (counted["steered"], counted["hashed_by_ports"], counted["hashed_by_addresses"], counted["unhashed"]) == (20, 0, 0, 2)
    for queue in range(2):
        burst = port.rx(queue=queue)
        assert port.tx(burst, queue=queue) == len(burst)
    assert port.taken() == [b"x", b"y" * 100, *frames[:4]] and nic.pool.available == 96
    assert port.statistics()["sent_packets"] == 6 and port.statistics()["sent_octets"] == 341


def test_a_pool_that_runs_short_feeds_and_counts_nothing():
    nic = NicModel(ports=1, queues=2, mbufs=6, ring_size=4)
    with pytest.raises(MemoryError, match="2 free mbufs on the feeding side and 3 are needed"):
        nic.ports[0].feed([frame_of()] * 3)
    assert nic.ports[0].waiting == 0 and nic.pool.available == 6
    assert not any(value for value in nic.ports[0].statistics().values() if value != [0, 0])


RULE = SteeringRule(1, "destination_port", 5, 0xF, 1)


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"port": 2}, "there is no port 2, the NIC has ports 0 to 1"),
        ({"port": -1}, "there is no port -1"),
        ({"field": "source_port"}, "the NIC cannot look at 'source_port', only at destination_port or destination_address"),
        ({"queue": 2}, "port 1 has no queue 2, only 0 to 1"),
        ({"queue": -1}, "port 1 has no queue -1"),
        ({"mask": 0, "value": 0}, "mask 0x0 is none of destination_port, which has 16 bits"),
        ({"mask": 0x10000, "value": 0}, "mask 0x10000 is none of destination_port"),
        ({"mask": -1}, "mask -0x1 is none of destination_port"),
        ({"value": 0x15}, "value 0x15 has bits that mask 0xf has not"),
        ({"queue": 0}, "port 1 has a rule for destination_port 0x5 already"),
        ({"mask": 0xFF}, "the rules of port 1 look at destination_port under mask 0xf, and the NIC has one mask"),
        ({"field": "destination_address"}, "the rules of port 1 look at destination_port under mask 0xf"),
    ],
)
def test_a_rule_that_a_nic_would_refuse_is_refused_and_changes_nothing(changed, fault):
    nic = NicModel(ports=2, queues=2, mbufs=64)
    nic.add_rule(RULE)
    with pytest.raises(ValueError, match=f"SteeringRule.*: {fault}"):
        nic.add_rule(RULE._replace(**changed))
    assert nic.rules == [RULE] and queues_of(nic, [frame_of(ports=(1, 0x25))], port=1) == [1]


def test_a_nic_holds_so_many_rules_and_forgets_those_that_are_removed():
    nic = NicModel(ports=2, queues=2, mbufs=64)
    rules = [SteeringRule(0, "destination_address", DESTINATION + number, 0xFFFFFFFF, number % 2) for number in range(MOST_RULES + 1)]
    for rule in rules[:-1]:
        nic.add_rule(rule)
    with pytest.raises(ValueError, match=f"port 0 has {MOST_RULES} rules already"):
        nic.add_rule(rules[-1])
    nic.remove_rule(rules[0])
    with pytest.raises(ValueError, match="the NIC has no such rule"):
        nic.remove_rule(rules[0])
    nic.add_rule(rules[-1])
    frames = [frame_of(destination=DESTINATION + number) for number in (0, 1, 2, MOST_RULES - 1, MOST_RULES)]
    assert queues_of(nic, frames) == [twin(frames[0], nic.table), 1, 0, 1, 0]


def test_key_and_table_are_those_that_are_given():
    key, table = bytes(range(7, 47)), np.random.default_rng(3).integers(0, 3, 64)
    nic = NicModel(ports=1, queues=3, mbufs=64, key=key, table=table)
    frames = [frame_of(source=SOURCE + number) for number in range(100)]
    assert queues_of(nic, frames) == [twin(frame, table, key=key) for frame in frames] != [twin(frame, table) for frame in frames]


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"queues": 0}, "queues = 0: a port has 1 to 128"),
        ({"queues": 129}, "queues = 129: a port has 1 to 128"),
        ({"table": [0, 1, 0]}, "the redirection table has 3 entries: a power of two"),
        ({"table": [0, 1, 2, 0]}, "entry 2 of the redirection table is queue 2: there are queues 0 to 1"),
        ({"key": bytes(12)}, "the RSS key has 12 octets"),
        ({"mbufs": 2}, "mbufs = 2: .* at least 3"),
    ],
)
def test_a_nic_that_cannot_be_is_refused(settings, fault):
    with pytest.raises(ValueError, match=fault):
        NicModel(**{"queues": 2, **settings})


@loop
def relay(device, worker, workers, stop, mbufs):
    """Hands half of what port 0 receives to the next worker, sends the rest and what it takes over out of port 1."""
    moved, following = 0, (worker + 1) % workers
    there, here = (worker * workers + following) * 2, (((worker - 1) % workers) * workers + worker) * 2
    while True:
        told = native.load_acquire(native.address_of(stop))
        count = memory_device.receive(device, 0, mbufs, 32)
        given = memory_device.hand_over(device, there, mbufs, 0, count // 2)
        sent = given + memory_device.transmit(device, 1, mbufs, given, count - given)
        memory_device.release(device, mbufs[sent:], count - sent)
        waits = memory_device.waiting(device, here)
        taken = memory_device.take_over(device, here, mbufs, 32)
        sent = memory_device.transmit(device, 1, mbufs, 0, taken)
        memory_device.release(device, mbufs[sent:], taken - sent)
        moved += taken
        if count == 0 and waits == 0:
            if told != 0:
                return moved
            memory_device.pause(device, 50)


@pytest.mark.parametrize("workers", [2, 3])
def test_workers_in_threads_of_their_own_hand_over_and_lose_no_mbuf(workers):
    nic = NicModel(ports=2, queues=workers, mbufs=768, ring_size=32)
    stops = np.zeros((workers, 1), np.int64)
    scratch = [np.empty(32, np.int64) for _ in range(workers)]
    relay(nic.device, 0, workers, np.ones(1, np.int64), scratch[0])
    moved = [0] * workers

    def work(worker):
        moved[worker] = relay(nic.devices[worker], worker, workers, stops[worker], scratch[worker])

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(workers)]
    for thread in threads:
        thread.start()
    fed, came = 0, []
    random = np.random.default_rng(1)
    try:
        for _ in range(400):
            frames = [frame_of(source=int(source)) for source in random.integers(0, 2**32, 40)]
            fed += nic.ports[0].feed(frames)
            came += nic.ports[1].taken()
    finally:
        for worker, thread in enumerate(threads):
            stops[worker, 0] = 1
            thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    came += nic.ports[1].taken()
    for ring in range(len(nic.device.handed.slots)):  # a worker that stopped first may have left some to the next
        count = memory_device.take_over(nic.pool.feeding, ring, scratch[0], 32)
        came += [frame_bytes(nic.arena, int(mbuf)) for mbuf in scratch[0][:count]]
        nic.pool.release(scratch[0][:count])
    assert 0 < len(came) <= fed == nic.ports[0].statistics()["received_packets"] and all(moved)
    assert nic.pool.available == 768
