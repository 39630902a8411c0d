"""The exception port, kernel by kernel: what goes to the kernel, unchanged, and what comes back; and what the kernel's
neighbour table does to ours."""
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_bed import CLIENT, CLIENT_MAC, GATEWAY, NOW, PORT, SERVICE, TARGETS, KernelBed, address, generated, mac_text
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Raw

from pipeline.kernels.arp import ANNOUNCEMENTS, PROBE_AFTER, TRIES, neighbours_to_ask
from pipeline.kernels.batch import ANSWER, DROP, PENDING
from pipeline.kernels.exception import leave_to_kernel, take_from_kernel
from pipeline.kernels.icmp_errors import pass_icmp_errors
from pipeline.kernels.kernel_neighbours import allocate_mailbox, read_mailbox, write_message
from pipeline.kernels.lookup import bucketed
from pipeline.kernels.neighbours import INCOMPLETE, PROBING, REACHABLE, STATIC, find_neighbour

BED = KernelBed(exceptions=("left",))
WITHOUT = KernelBed()
EXCEPTION, BURST = 2, 64
OURS, SOURCE, OTHER_HOST = mac_text(BED.macs[0]), "10.2.0.1", "10.1.0.9"
DESTINATIONS = {"own": OURS, "another's": "02:99:00:00:00:01", "broadcast": "ff:ff:ff:ff:ff:ff", "multicast": "01:00:5e:00:00:fb"}
TRANSPORTS = {
    "syn to a service": TCP(sport=40000, dport=PORT, flags="S"),
    "syn to no service": TCP(sport=40000, dport=22, flags="S"),
    "reset to no service": TCP(sport=40000, dport=45000, flags="R"),
    "from a target's port": TCP(sport=8080, dport=20000, flags="SA"),
    "from another port of a target": TCP(sport=8081, dport=20000, flags="SA"),
    "udp": UDP(sport=40000, dport=PORT),
    "echo": ICMP(),
    "reply": ICMP(type=0),
    "error": ICMP(type=3, code=1) / Raw(bytes(40)),
    "protocol": Raw(bytes(24)),
}
ADDRESSED_TO_US = {
    "mac": ["own"], "tag": [None], "network": ["ipv4"], "transport": list(TRANSPORTS), "source": [CLIENT, TARGETS[0], OTHER_HOST],
    "destination": [SERVICE, SOURCE, OTHER_HOST], "fragment": [None, "first", "later"], "wrong": [None, "IPv4 checksum", "TCP length"],
    "pieces": [None, 70]}
"""All that is combined with all: what decides once a frame is IPv4 and for our MAC address."""
ALL_KINDS = {
    **ADDRESSED_TO_US, "mac": list(DESTINATIONS), "tag": [None, 0, 7], "network": ["ipv4", "arp", "ipv6", "lldp"],
    "transport": ["syn to a service", "syn to no service", "echo", "udp"], "source": [CLIENT], "destination": [SERVICE],
    "fragment": [None], "wrong": [None]}
"""The same for what decides before."""


def combined(choices):
    """Returns all combinations of choices, as dicts."""
    return [dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())]


def frame_of(made):
    """Returns the frame (bytes) that a combination describes."""
    packet = Ether(src=mac_text(CLIENT_MAC), dst=DESTINATIONS[made["mac"]])
    if made["tag"] is not None:
        packet /= Dot1Q(vlan=made["tag"], prio=1)
    if made["network"] == "arp":
        return bytes(packet / ARP(psrc=made["source"], pdst=made["destination"]))
    if made["network"] == "ipv6":
        return bytes(packet / IPv6(dst="fe80::1") / UDP())
    if made["network"] == "lldp":
        return bytes(packet / Raw(bytes(40))).replace(b"\x90\x00", b"\x88\xcc", 1)
    transport = TRANSPORTS[made["transport"]].copy()
    if made["wrong"] == "TCP length" and TCP in transport:
        transport.dataofs = 3
    fields = {"proto": 132} if made["transport"] == "protocol" else {}
    if made["fragment"] is not None:
        fields |= {"flags": "MF", "frag": 0 if made["fragment"] == "first" else 10}
    if made["wrong"] == "IPv4 checksum":
        fields["chksum"] = 0x1234
    return bytes(packet / IP(src=made["source"], dst=made["destination"], **fields) / transport / Raw(b"x" * 60))


def is_the_kernels(made):
    """Whether a frame that a combination describes is to go to the kernel: the same as the kernel says, from what was wanted."""
    if made["mac"] == "another's":
        return False
    if made["tag"] == 7 or made["network"] != "ipv4":
        return True
    if made["mac"] != "own":
        return True  # nobody's connection comes by multicast: whatever it is, we do not look
    if made["wrong"] == "IPv4 checksum":
        return False
    transport, to = made["transport"], made["destination"]
    ours = ((transport == "syn to a service" and to == SERVICE)
            or (transport == "from a target's port" and made["source"] == TARGETS[0] and to == SOURCE))
    if made["fragment"] is not None:
        return made["fragment"] == "later" or not ours
    if made["wrong"] == "TCP length" and TCP in TRANSPORTS[transport]:
        return False
    if transport == "error":
        return made["pieces"] is not None or to not in (SERVICE, SOURCE)
    return not ours


def left_to_kernel(bed, frames, port=0, pieces=None):
    """Lets the engine see frames; returns how many rows there are."""
    bed.counters.drops[:], bed.counters.notices[:] = 0, 0
    count = bed.parse(frames, port, pieces)
    bucketed(bed.batch, count, bed.connections.buckets, bed.connections.hot)
    leave_to_kernel(bed.packets, bed.batch, count, port, bed.state.selection.services, bed.state.claims, bed.state.network,
                    bed.counters)
    return count


@pytest.mark.parametrize("pieces", [None, 70])
@pytest.mark.parametrize("choices", [ADDRESSED_TO_US, ALL_KINDS], ids=["addressed to us", "all kinds"])
def test_what_is_not_ours_goes_to_the_kernel_as_it_is(choices, pieces):
    cases = combined({**choices, "pieces": [pieces]})
    for first in range(0, len(cases), BURST):
        made = cases[first:first + BURST]
        frames = [frame_of(each) for each in made]
        count = left_to_kernel(BED, frames, pieces=pieces)
        given_away = BED.batch.verdict[:count] == ANSWER
        wrong = [each for each, given in zip(made, given_away, strict=True) if given != is_the_kernels(each)]
        assert not wrong, wrong[0]
        assert [BED.frame(row) for row in range(count)] == frames
        assert (BED.batch.out_port[:count] == np.where(given_away, EXCEPTION, 0)).all()
        assert BED.notices.get("to_kernel", 0) == given_away.sum()
        assert sum(BED.drops.values()) == (BED.batch.verdict[:count] == DROP).sum(), "what goes to the kernel is not dropped"
        BED.free(count)


@pytest.mark.parametrize("port, bed", [(1, BED), (0, WITHOUT)], ids=["another port", "no exception port"])
def test_without_an_exception_port_beside_it_all_stays(bed, port):
    frames = [bytes(Ether(dst=mac_text(bed.macs[port])) / IPv6() / UDP()), bytes(Ether(dst=DESTINATIONS["broadcast"]) / ARP())]
    count = left_to_kernel(bed, frames, port)
    assert [bed.batch.verdict[row] for row in range(count)] == [DROP, PENDING] and bed.drops == {"other_ethertype": 1}
    bed.free(count)


def test_an_icmp_error_about_no_connection_goes_to_the_kernel_with_its_quote():
    quoted = IP(src=SERVICE, dst=CLIENT) / TCP(sport=5555, dport=40000)
    frames = [bytes(Ether(src=mac_text(CLIENT_MAC), dst=OURS) / IP(src="10.1.0.77", dst=SERVICE) / ICMP(type=3, code=1) / inner)
              for inner in (quoted, IP(src=SERVICE, dst=CLIENT) / UDP(sport=53, dport=1234))]
    count = left_to_kernel(BED, frames)
    assert [BED.batch.verdict[row] for row in range(count)] == [PENDING, PENDING]
    pass_icmp_errors(BED.packets, BED.batch, count, BED.connections, BED.state.network, NOW)
    assert [BED.batch.verdict[row] for row in range(count)] == [ANSWER, ANSWER] and not BED.drops
    assert [BED.frame(row) for row in range(count)] == frames and BED.batch.out_port[0] == EXCEPTION
    BED.free(count)


def test_what_is_too_long_for_the_exception_port_is_counted_and_dropped():
    frames = [bytes(Ether(dst=OURS) / Dot1Q(vlan=7) / Raw(bytes(length))) for length in (1500, 1501)]
    count = left_to_kernel(BED, frames)
    assert [BED.batch.verdict[row] for row in range(count)] == [ANSWER, DROP] and BED.drops == {"larger_than_mtu": 1}
    BED.free(count)


@pytest.mark.parametrize("pieces", [None, 50])
def test_what_the_kernel_sends_leaves_by_the_port_beside_as_it_is(pieces):
    frames = [bytes(Ether(dst=DESTINATIONS["broadcast"]) / Dot1Q(vlan=9) / ARP()), bytes(Ether() / IPv6() / UDP() / Raw(bytes(200)))]
    count = BED.write(frames, pieces)
    BED.counters.notices[:] = 0
    take_from_kernel(BED.packets, BED.batch, count, EXCEPTION, BED.state.network, BED.state.outbox, BED.counters)
    assert BED.posted(0) == frames and BED.notices == {"from_kernel": 2}


# ---- neighbours ------------------------------------------------------------------------------


def test_neighbours_beside_an_exception_port_grow_old_but_are_not_asked_for_nor_addresses_announced():
    bed = KernelBed(mbufs=2, exceptions=("left", "right"))
    network, requests = bed.state.network, bed.state.requests
    number = find_neighbour(network, address(TARGETS[0]))
    bed.hears(number, 7, tick=100)
    for tick in range(0, 100 + PROBE_AFTER + 500, 50):
        neighbours_to_ask(network, requests, tick * 10_000)
        assert requests.filled[0] == 0 and network.neighbours[number].state == (REACHABLE if tick < 100 + PROBE_AFTER else PROBING)
    assert network.announced[0] == ANNOUNCEMENTS and TRIES > 0


def test_addresses_of_the_other_port_are_announced_still():
    bed = KernelBed(mbufs=2, exceptions=("left",))
    neighbours_to_ask(bed.state.network, bed.state.requests, 0)
    requests = bed.state.requests
    asked = [int(number) for number in requests.connection[:requests.filled[0]]]
    assert [address(SOURCE)] == [int(bed.state.network.own_address[-1 - number]) for number in asked if number < 0]
    assert len([number for number in asked if number >= 0]) == len({*TARGETS[:2], GATEWAY})


def heeded(entry, message, tick):
    """What becomes of a neighbour (state, MAC, confirmed) by a message (MAC, state), said plainly."""
    state, mac, confirmed = entry
    told_mac, told = message
    if state == STATIC or (told == PROBING and state >= REACHABLE and mac == told_mac):
        return entry
    return (INCOMPLETE, mac, confirmed) if told == INCOMPLETE else (told, told_mac, tick)


KNOWN = [*TARGETS[:2], GATEWAY]
MESSAGES = st.lists(st.tuples(st.sampled_from([*KNOWN[:2], "10.1.0.200"]), st.sampled_from([1, 1, 1, 0]),
                              st.sampled_from([0x02AA00000001, 5]), st.sampled_from([INCOMPLETE, REACHABLE, PROBING])),
                    min_size=12, max_size=40)


@generated
@given(MESSAGES, st.booleans())
def test_what_the_kernel_says_is_taken_in_order_and_only_of_neighbours_that_are_known(messages, static):
    bed, network, mailbox = BED, BED.state.network, allocate_mailbox(4)
    bed.counters.notices[:] = 0
    for text in KNOWN:
        entry = network.neighbours[find_neighbour(network, address(text))]
        entry.state, entry.mac_high, entry.mac_low, entry.confirmed = INCOMPLETE, 0, 0, 0
    if static:
        network.neighbours[find_neighbour(network, address(KNOWN[0]))].state = STATIC
    expected = {text: (STATIC if static and text == KNOWN[0] else INCOMPLETE, 0, 0) for text in KNOWN}
    moved, tick, left = 0, 100, list(messages)
    while left:
        written = 0
        while left and write_message(mailbox, address(left[0][0]), left[0][1], left[0][2] >> 32, left[0][2] & 0xFFFFFFFF, left[0][3]):
            text, port, mac, state = left.pop(0)
            written += 1
            if text in expected and port == 1:
                before, expected[text] = expected[text], heeded(expected[text], (mac, state), tick)
                moved += before[0] in (REACHABLE, PROBING) and expected[text][0] != INCOMPLETE and before[1] != expected[text][1]
        assert written == 4 or not left, "a mailbox takes as many as it has places"
        read_mailbox(network, mailbox, bed.counters, tick)
        tick += 1
    for text, wanted in expected.items():
        entry = network.neighbours[find_neighbour(network, address(text))]
        assert (int(entry.state), int(entry.mac_high) << 32 | int(entry.mac_low), int(entry.confirmed)) == wanted, text
    assert bed.notices.get("neighbour_moved", 0) == moved and network.known[0] == len(KNOWN)
