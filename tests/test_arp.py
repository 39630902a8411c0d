"""ARP: answers, what is learnt and from whom, who is asked when, and warnings of duplicates (RFC 826, RFC 5227)."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_bed import CLIENT_MAC, GATEWAY, NOW, TARGETS, KernelBed, address, generated, mac_text
from scapy.layers.l2 import ARP, Dot1Q, Ether

from pipeline.kernels.arp import ASK_EVERY, PROBE_AFTER, TRIES, answer_arp, build_requests, neighbours_to_ask
from pipeline.kernels.batch import ABSORB, ANSWER, DROP
from pipeline.kernels.memory_device import allocate
from pipeline.kernels.neighbours import (
    INCOMPLETE,
    NEIGHBOUR,
    PROBING,
    REACHABLE,
    STATIC,
    add_neighbour,
    find_neighbour,
    hear,
    next_hop,
    owns,
    route_to,
)

TICK = 10_000
BROADCAST, NONE = "ff:ff:ff:ff:ff:ff", 0xFFFF
OURS = ("10.1.0.1", "10.2.0.1")


@pytest.fixture
def bed():
    return KernelBed(mbufs=64)


def packet(bed, sender, target, operation=1, mac=CLIENT_MAC, port=0, to=BROADCAST, tag=None, **fields):
    """Returns an ARP packet as a frame; a request unless told otherwise."""
    ethernet = Ether(src=mac_text(mac), dst=to or mac_text(bed.macs[port]))
    if tag is not None:
        ethernet /= Dot1Q(vlan=0, prio=tag)
    return bytes(ethernet / ARP(op=operation, hwsrc=mac_text(mac), psrc=sender, pdst=target, **fields))


def heard(bed, frame, port=0, now=NOW):
    """Lets the engine hear one frame; returns verdict and what its mbuf holds then."""
    count = bed.parse([frame], port)
    answer_arp(bed.packets, bed.batch, count, bed.state.network, bed.counters, now)
    verdict, after = int(bed.batch.verdict[0]), bed.frame(0)
    bed.free(count)
    return verdict, after


def known(bed, text):
    """Returns the neighbour with this address, or None."""
    number = int(find_neighbour(bed.state.network, address(text)))
    return None if number == NONE else bed.state.network.neighbours[number]


def mac_of(entry):
    return int(entry.mac_high) << 32 | int(entry.mac_low)


@pytest.mark.parametrize("port", [0, 1])
@pytest.mark.parametrize("to", [BROADCAST, None])
@pytest.mark.parametrize("tag", [None, 5])
def test_a_request_for_our_address_is_answered_and_a_known_sender_learnt(bed, port, to, tag):
    sender, ours = ("10.1.0.2", "10.2.0.11")[port], OURS[port]
    add_neighbour(bed.state.network, address(sender), port)
    verdict, frame = heard(bed, packet(bed, sender, ours, port=port, to=to, tag=tag), port)
    reply = Ether(frame)
    assert verdict == ANSWER and bed.batch.out_port[0] == port and bed.notices["arp_replies"] == 1
    assert (reply.src, reply.dst) == (mac_text(bed.macs[port]), mac_text(CLIENT_MAC))
    arp = reply[ARP]
    assert (arp.op, arp.hwtype, arp.ptype, arp.hwlen, arp.plen) == (2, 1, 0x0800, 6, 4)
    assert (arp.hwsrc, arp.psrc, arp.hwdst, arp.pdst) == (mac_text(bed.macs[port]), ours, mac_text(CLIENT_MAC), sender)
    entry = known(bed, sender)
    assert (
        mac_of(entry) == CLIENT_MAC
        and entry.state == REACHABLE
        and entry.port == port
        and entry.confirmed == NOW // TICK
    )


@pytest.mark.parametrize(
    ("sender", "target", "port", "reason"),
    [
        ("10.1.0.2", "10.1.0.3", 0, "another host"),
        ("10.1.0.2", "10.2.0.1", 0, "our address on the other port"),
        ("10.1.0.2", "10.1.0.2", 0, "an announcement"),
        ("0.0.0.0", "10.1.0.9", 0, "a probe of another's"),
    ],
)
def test_requests_that_are_not_for_us_are_not_answered_and_teach_nothing(bed, sender, target, port, reason):
    frame, before = packet(bed, sender, target, port=port), int(bed.state.network.known[0])
    verdict, after = heard(bed, frame, port)
    assert (verdict, after) == (ABSORB, frame), reason
    assert bed.state.network.known[0] == before and not bed.notices and not bed.drops


def test_a_probe_of_our_address_is_answered_but_its_sender_has_no_address_yet(bed):
    before = int(bed.state.network.known[0])
    verdict, frame = heard(bed, packet(bed, "0.0.0.0", OURS[0]))
    assert verdict == ANSWER and Ether(frame)[ARP].psrc == OURS[0] and bed.state.network.known[0] == before


def test_an_unknown_sender_is_answered_and_not_added(bed):
    """Else the neighbour table could be filled by requests in many names."""
    before = int(bed.state.network.known[0])
    for sender, port in (("10.1.0.50", 0), ("10.9.0.13", 1), ("192.0.2.1", 0), ("10.2.0.50", 0)):
        assert heard(bed, packet(bed, sender, OURS[port], port=port), port)[0] == ANSWER
    assert bed.state.network.known[0] == before


@pytest.mark.parametrize("frame", ["reply", "announcement", "request for another"])
def test_a_known_neighbour_is_learnt_from_whatever_arp_packet_it_sends(bed, frame):
    """So a gateway whose MAC changes is followed as soon as any ARP packet of its shows the new one."""
    sender = TARGETS[0]
    sent = {
        "reply": packet(bed, sender, OURS[1], 2, 0x02BB00000011, 1, to=None),
        "announcement": packet(bed, sender, sender, 1, 0x02BB00000011, 1),
        "request for another": packet(bed, sender, "10.2.0.77", 1, 0x02BB00000011, 1),
    }[frame]
    assert known(bed, sender).state == INCOMPLETE
    assert heard(bed, sent, 1)[0] == ABSORB
    entry = known(bed, sender)
    assert entry.state == REACHABLE and mac_of(entry) == 0x02BB00000011 and not bed.notices
    assert heard(bed, packet(bed, sender, sender, 1, 0x02BB00000099, 1), 1, NOW + 5 * TICK)[0] == ABSORB
    entry = known(bed, sender)
    assert (
        mac_of(entry) == 0x02BB00000099 and entry.confirmed == NOW // TICK + 5 and bed.notices == {"neighbour_moved": 1}
    )


def test_a_neighbour_is_not_learnt_from_another_port(bed):
    heard(bed, packet(bed, TARGETS[0], TARGETS[0], port=0), 0)
    assert known(bed, TARGETS[0]).state == INCOMPLETE


def test_a_static_neighbour_stays_as_configured(bed):
    entry = known(bed, TARGETS[0])
    entry.state, entry.mac_high, entry.mac_low = STATIC, 0x0200, 7
    heard(bed, packet(bed, TARGETS[0], TARGETS[0], port=1), 1)
    assert known(bed, TARGETS[0]).state == STATIC and mac_of(known(bed, TARGETS[0])) == 0x020000000007


@pytest.mark.parametrize(("sender", "operation"), [(OURS[0], 1), (OURS[0], 2)])
def test_a_host_with_our_address_is_warned_of_and_not_answered(bed, sender, operation):
    frame = packet(bed, sender, OURS[0], operation, mac=0x020304050607)
    assert heard(bed, frame) == (ABSORB, frame)
    assert bed.notices == {"duplicate_address": 1}
    assert bed.state.network.duplicate.tolist() == [address(OURS[0]), 0x0203, 0x04050607]
    assert known(bed, OURS[0]) is None


@pytest.mark.parametrize(
    "fields",
    [{"hwtype": 6}, {"ptype": 0x86DD}, {"hwlen": 8}, {"plen": 16}, {"mac": 0x010000000001}, {"mac": 0xFFFFFFFFFFFF}],
)
def test_invalid_packets_are_counted(bed, fields):
    fields = dict(fields)
    mac = fields.pop("mac", CLIENT_MAC)
    frame = bytearray(packet(bed, "10.1.0.2", OURS[0], mac=mac))
    for name, value in fields.items():
        place, size = {"hwtype": (14, 2), "ptype": (16, 2), "hwlen": (18, 1), "plen": (19, 1)}[name]
        frame[place : place + size] = value.to_bytes(size, "big")
    verdict, after = heard(bed, bytes(frame))
    assert verdict == DROP and bed.drops == {"arp_invalid": 1} and after == bytes(frame)


def asked_at(entry, ticks, hears_at=()):
    """Returns the ticks at which a neighbour (fields by name) is asked for, and its state in each tick of `ticks`."""
    bed = KernelBed(mbufs=2)
    network, requests = bed.state.network, bed.state.requests
    network.announced[0] = 99
    network.known[0] = 1
    network.neighbours[0] = np.zeros(1, NEIGHBOUR)[0]
    for name, value in entry.items():
        setattr(network.neighbours[0], name, value)
    asked, states = [], []
    for tick in ticks:
        if tick in hears_at:
            hear(network, 0, 1, 2, tick)
        neighbours_to_ask(network, requests, tick * TICK)
        asked += [tick] * int(requests.filled[0])
        requests.filled[0] = 0
        states.append(int(network.neighbours[0].state))
    return asked, states


def test_a_new_neighbour_is_asked_for_once_a_second_and_a_wanted_one_for_ever():
    ticks = range(5, 1005)
    assert asked_at({"state": INCOMPLETE}, ticks)[0] == [5 + number * ASK_EVERY for number in range(TRIES)]
    assert asked_at({"state": INCOMPLETE, "wanted": 1}, ticks)[0] == list(range(5, 1005, ASK_EVERY))


def test_asking_at_tick_0_is_remembered():
    assert asked_at({"state": INCOMPLETE, "wanted": 1}, range(0, 150))[0] in ([0, 100], [0, 101])


def test_a_wanted_neighbour_is_probed_when_its_answer_is_old_and_given_up_after_three_questions():
    ticks = range(100, 100 + PROBE_AFTER + 5 * ASK_EVERY)
    asked, states = asked_at({"state": REACHABLE, "wanted": 1, "confirmed": 100}, ticks)
    first = 100 + PROBE_AFTER
    assert asked[:4] == [first + number * ASK_EVERY for number in range(4)]
    by_tick = dict(zip(ticks, states, strict=True))
    assert by_tick[first - 1] == REACHABLE and by_tick[first] == by_tick[first + 3 * ASK_EVERY - 1] == PROBING
    assert by_tick[first + 3 * ASK_EVERY] == INCOMPLETE


def test_an_answer_to_a_probe_ends_the_questions():
    first = 100 + PROBE_AFTER
    asked, states = asked_at({"state": REACHABLE, "wanted": 1, "confirmed": 100}, range(100, first + 500), [first + 7])
    assert asked == [first] and states[-1] == REACHABLE


def test_a_neighbour_that_nobody_uses_is_not_probed():
    idle = {"state": REACHABLE, "confirmed": 100, "used": 100}
    assert asked_at(idle, range(100, 100 + 3 * PROBE_AFTER, 50)) == ([], [REACHABLE] * 180)
    asked, _ = asked_at({**idle, "used": 150}, range(100, 101 + PROBE_AFTER))
    assert asked == [100 + PROBE_AFTER]


def built(bed):
    """Builds all requests that were listed; returns the packets of each port."""
    requests = bed.state.requests
    count = int(requests.filled[0])
    assert allocate(bed.state.device, bed.state.fresh, count) == count
    build_requests(
        bed.packets, bed.base, bed.state.fresh, count, requests, bed.state.network, bed.state.outbox, bed.counters
    )
    assert requests.filled[0] == 0
    return [[Ether(frame) for frame in bed.posted(port)] for port in range(2)]


def test_requests_ask_for_next_hops_by_the_right_port_in_our_name(bed):
    bed.state.network.announced[0] = 99
    free = bed.pool.available
    neighbours_to_ask(bed.state.network, bed.state.requests, NOW)
    left, right = built(bed)
    assert not left and {found[ARP].pdst for found in right} == {TARGETS[0], TARGETS[1], GATEWAY}
    for found in right:
        assert (found.src, found.dst, found.type) == (mac_text(bed.macs[1]), BROADCAST, 0x0806)
        arp = found[ARP]
        assert (arp.op, arp.hwtype, arp.ptype, arp.hwlen, arp.plen) == (1, 1, 0x0800, 6, 4)
        assert (arp.hwsrc, arp.psrc, arp.hwdst) == (mac_text(bed.macs[1]), OURS[1], "00:00:00:00:00:00")
        assert len(bytes(found)) == 42
    assert bed.notices == {"arp_requests": 3} and bed.pool.available == free


def test_our_addresses_are_announced_twice_two_seconds_apart(bed):
    announced = []
    for tick in range(0, 1000):
        neighbours_to_ask(bed.state.network, bed.state.requests, tick * TICK)
        for port, packets in enumerate(built(bed)):
            announced += [(tick, port, found[ARP].psrc) for found in packets if found[ARP].psrc == found[ARP].pdst]
    assert announced == [(0, 0, OURS[0]), (0, 1, OURS[1]), (200, 0, OURS[0]), (200, 1, OURS[1])]


@generated
@given(st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 1)), max_size=60))
def test_the_neighbour_table_is_a_dictionary(found):
    bed = KernelBed(mbufs=2)
    network = bed.state.network
    network.known[0] = 0
    network.slots[:] = -1
    numbers = {}
    for text, port in found:
        text = np.int64(text)
        assert (find_neighbour(network, text) != NONE) == (int(text) in numbers)
        number = int(add_neighbour(network, text, port))
        assert number == numbers.setdefault(int(text), len(numbers))
    for text, number in numbers.items():
        assert find_neighbour(network, text) == number and network.neighbours[number].address == text


def test_a_full_neighbour_table_takes_no_more_and_keeps_what_it_has():
    bed = KernelBed(mbufs=2)
    small = bed.state.network._replace(
        neighbours=bed.state.network.neighbours[:4], slots=np.full(8, -1, np.int64), known=np.zeros(1, np.int64)
    )
    assert [int(add_neighbour(small, 100 + number, 0)) for number in range(6)] == [0, 1, 2, 3, NONE, NONE]
    assert [int(find_neighbour(small, 100 + number)) for number in range(6)] == [0, 1, 2, 3, NONE, NONE]


@pytest.mark.parametrize(
    ("text", "hop"),
    [("10.1.0.77", "10.1.0.77"), ("10.2.0.77", "10.2.0.77"), ("10.9.3.4", GATEWAY), ("192.0.2.1", None)],
)
def test_the_next_hop_is_the_address_or_its_gateway(bed, text, hop):
    number = int(next_hop(bed.state.network, address(text)))
    if hop is None:
        assert number == NONE and route_to(bed.state.network, address(text)) == -1
    else:
        entry = bed.state.network.neighbours[number]
        assert entry.address == address(hop) and entry.port == (0 if hop.startswith("10.1") else 1)


def test_the_longest_prefix_wins(bed):
    network = bed.state.network._replace(
        route_network=np.array([address("10.9.1.0"), address("10.9.0.0"), 0]),
        route_mask=np.array([0xFFFFFF00, 0xFFFF0000, 0]),
        route_gateway=np.array([1, 2, 3]),
        route_port=np.array([0, 1, 0]),
    )
    assert [int(route_to(network, address(text))) for text in ("10.9.1.5", "10.9.2.5", "8.8.8.8")] == [0, 1, 2]


def test_which_addresses_are_ours_depends_on_the_port_asked(bed):
    network = bed.state.network
    seen = [[bool(owns(network, address(text), port)) for port in (-1, 0, 1)] for text in (*OURS, "10.1.0.2")]
    assert seen == [[True, True, False], [True, False, True], [False, False, False]]
