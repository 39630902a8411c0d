"""The traffic generator: its clients against its servers on virtual time, and each failure that it has a name for."""
import json
import os
import pathlib
import random
import subprocess
import sys

import pytest
from generator_bed import PORT, STEP, TARGETS, Pair, edited
from kernel_bed import checked
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether

from pipeline.kernels.counters import DROP_TCP_CHECKSUM
from pipeline.state import DRAIN, STOP

SECOND = 1_000_000
ROOT = pathlib.Path(__file__).resolve().parents[1]


def payload_of(packet):
    """Returns a segment's payload (bytes)."""
    return bytes(packet[TCP].payload)[:packet.len - 4 * packet.ihl - 4 * packet[TCP].dataofs]


def test_a_connection_takes_seven_packets_where_the_server_only_closes():
    pair = Pair({"response_packets": 0, "closes_first": "server"}, test_size=1)
    clients, servers = pair.finish()
    assert pair.told() == ["> S", "< SA", "> A", "> PA", "< FA", "> FA", "< A"]
    assert (clients["completed"], servers["completed"], clients["failed"], servers["failed"]) == (1, 1, 0, 0)
    assert clients["connect_us"]["count"] == clients["request_us"]["count"] == 1


@pytest.mark.parametrize("first, told", [
    ("client", ["> S", "< SA", "> A", "> PA", "< PA", "> FA", "< FA", "> A"]),
    ("server", ["> S", "< SA", "> A", "> PA", "< PA", "< FA", "> A", "> FA", "< A"])])
def test_who_closes_first_is_configured(first, told):
    pair = Pair({"closes_first": first}, test_size=1)
    clients, servers = pair.finish()
    assert pair.told() == told
    assert (clients["completed"], servers["completed"]) == (1, 1)


def test_a_client_with_nothing_to_wait_for_closes_at_once():
    pair = Pair({"response_packets": 0}, test_size=1)
    pair.finish()
    assert pair.told() == ["> S", "< SA", "> A", "> PA", "> FA", "< A", "< FA", "> A"]


def test_a_server_can_speak_first():
    pair = Pair({"request_packets": 0, "response_packets": 2}, test_size=1)
    clients, _ = pair.finish()
    assert pair.told()[2:5] == ["> A", "< PA", "< PA"] and clients["completed"] == 1


def test_what_is_said_names_the_target_and_the_connection():
    pair = Pair(test_size=2)
    pair.finish()
    said = [(sender, payload_of(packet)) for sender, packet in pair.segments() if payload_of(packet)]
    requests = [payload for sender, payload in said if sender is pair.client]
    answers = [payload for sender, payload in said if sender is pair.server]
    assert [payload[:8] for payload in requests] == [b"0 a\n" + number.to_bytes(4, "little") for number in (0, 1)]
    assert [payload[:16] for payload in answers] == [b"a answers\n  " + number.to_bytes(4, "little") for number in (0, 1)]
    assert {len(payload) for _, payload in said} == {64} and requests[0][8:] == requests[1][8:]


@pytest.mark.parametrize("client, server, options", [
    ({}, {}, {"MSS"}),
    ({"sack": True, "timestamps": True, "window_scale": 7, "mss": 1000}, {"timestamps": True, "window_scale": 3, "sack": True},
     {"MSS", "SAckOK", "Timestamp", "WScale"}),
    ({"timestamps": True}, {}, {"MSS"}), ({}, {"timestamps": True, "window_scale": 2}, {"MSS"})])
def test_options_are_offered_as_configured_and_used_where_both_offer_them(client, server, options):
    pair = Pair({"request_packets": 3, "request_bytes": 1400, **client}, server_traffic={
        "request_packets": 3, "request_bytes": 1400, **server}, test_size=2)
    clients, _ = pair.finish()
    assert clients["completed"] == 2
    both = "timestamps" in client and "timestamps" in server
    for sender, packet in pair.segments():
        names = {name for name, _ in packet[TCP].options} - {"NOP"}
        if packet[TCP].flags == "S":
            offered = {"sack": "SAckOK", "timestamps": "Timestamp", "window_scale": "WScale"}
            assert names == {"MSS"} | {offered[key] for key in offered.keys() & client.keys()}
            assert dict(packet[TCP].options)["MSS"] == client.get("mss", 1460)
        elif packet[TCP].flags == "SA":
            assert names == options
        else:
            assert names == ({"Timestamp"} if both else set())
            assert len(payload_of(packet)) <= min(client.get("mss", 1460), 1460) - 12 * both
            if both:
                assert dict(packet[TCP].options)["Timestamp"][1] != 0


def test_windows_are_scaled_and_kept_to():
    """A window of 3,000 bytes lets no more be under way, however many segments may be."""
    traffic = {"request_packets": 40, "request_bytes": 500, "flight": 100, "window": 3000, "window_scale": 4}
    pair = Pair(traffic, test_size=1)
    pair.finish()
    acknowledged, most = None, 0
    for sender, packet in pair.segments():
        tcp = packet[TCP]
        if sender is pair.server and tcp.flags.A and not tcp.flags.S:
            acknowledged = tcp.ack
            assert tcp.window == 3000 >> 4
        elif payload_of(packet) and acknowledged is not None:
            most = max(most, tcp.seq + len(payload_of(packet)) - acknowledged)
    assert 2000 < most <= 3000


def test_long_messages_arrive_whole_each_way():
    sizes = {"request_packets": 60, "request_bytes": 1460, "response_packets": 90, "response_bytes": 1000}
    pair = Pair(sizes, test_size=4)
    clients, servers = pair.finish()
    assert clients["completed"] == servers["completed"] == 4
    assert servers["octets_received"] == clients["octets_sent"] == 4 * 60 * 1460
    assert clients["octets_received"] == servers["octets_sent"] == 4 * 90 * 1000
    assert clients["data_retransmitted"] == servers["data_retransmitted"] == 0


def test_all_connections_come_through_loss_duplicates_reordering_and_flipped_bits():
    faults = {"loss": 0.05, "duplicate": 0.05, "reorder": 0.05, "flip": 0.02, "delay": 0.005, "jitter": 0.002}
    sizes = {"request_packets": 5, "response_packets": 12, "response_bytes": 700, "timestamps": True, "retransmit": 0.2,
             "tries": 12}
    pair = Pair(sizes, faults, test_size=150, max_open=40)
    clients, servers = pair.finish()
    assert (clients["completed"], clients["failed"]) == (150, 0), clients
    assert servers["completed"] >= 150 - servers["failures"].get("connect_timeout", 0) - servers["failures"].get("reset", 0)
    assert clients["syn_retransmitted"] and clients["data_retransmitted"] and servers["data_retransmitted"]
    assert clients["out_of_order"] and pair.client.state.counters.drops.any()


def test_a_syn_without_an_answer_is_sent_again_with_back_off_and_given_up():
    pair = Pair({"retransmit": 0.5, "tries": 3}, test_size=1)
    times = []

    def nobody(sender, frame):
        if sender is pair.client and int.from_bytes(frame[12:14], "big") == 0x0800:
            times.append(pair.client.now)
            return []
        return [frame]

    pair.pass_on = nobody
    clients, servers = pair.finish()
    gaps = [round((later - earlier) / SECOND, 1) for earlier, later in zip(times, times[1:])]
    assert gaps == [0.5, 1.0, 2.0], "doubled each time"
    assert clients["failures"] == {"connect_timeout": 1} and servers["opened"] == 0
    assert clients["syn_retransmitted"] == 3


def test_data_without_an_acknowledgement_is_sent_again_with_back_off_and_given_up():
    pair = Pair({"retransmit": 0.5, "tries": 2}, test_size=1)
    pair.pass_on = lambda sender, frame: [] if len(frame) > 70 and sender is pair.client else [frame]
    clients, servers = pair.finish()
    sent = [packet[TCP] for sender, packet in pair.segments() if sender is pair.client]
    assert [str(segment.flags) for segment in sent] == ["S", "A", "PA", "PA", "PA", "RA", "R"], (
        "the RST is not exact: asked, it is (RFC 5961)")
    assert len({segment.seq for segment in sent[2:5]}) == 1
    assert clients["failures"] == {"timeout": 1} and servers["failures"] == {"reset": 1}


def test_a_port_where_nobody_listens_refuses():
    pair = Pair(test_size=3, connect=f"{TARGETS['a']}:81")
    clients, servers = pair.finish()
    assert clients["failures"] == {"refused": 3} and servers["opened"] == 0
    assert pair.told()[:2] == ["> S", "> S"] and pair.told()[-1] == "< RA"


def test_a_request_that_reaches_another_target_is_a_mismatch_on_both_sides():
    """All clients connect to where target a is played; every second one asks for b."""
    clients, servers = Pair(test_size=10, targets=["a", "b"]).finish()
    for role in (clients, servers):
        assert (role["completed"], role["failures"]) == (5, {"mismatch": 5})
    assert servers["targets"] == {"a": 5, "b": 0}


@pytest.mark.parametrize("of_client, change, kind", [
    (True, lambda payload: payload[:-1] + bytes([payload[-1] ^ 1]), "corrupt"),
    (False, lambda payload: payload[:20] + bytes([payload[20] ^ 0x80]) + payload[21:], "corrupt"),
    (False, lambda payload: payload[:12] + bytes([payload[12] ^ 1]) + payload[13:], "crossed")])
def test_changed_payload_is_found_though_its_checksum_is_right(of_client, change, kind):
    pair = Pair(test_size=2)
    pair.pass_on = lambda sender, frame: [edited(frame, change) if len(frame) > 70 and (sender is pair.client) == of_client
                                          else frame]
    clients, servers = pair.finish()
    assert (servers if of_client else clients)["failures"] == {kind: 2}


def test_an_answer_that_ends_too_early_is_incomplete():
    pair = Pair({"response_packets": 3}, server_traffic={"response_packets": 2, "closes_first": "server"}, test_size=2)
    clients, servers = pair.finish()
    assert clients["failures"] == {"incomplete": 2} and servers["completed"] == 2


def test_a_wrong_checksum_is_dropped_and_counted():
    pair = Pair(test_size=1)
    broken = []

    def break_first(sender, frame):
        if len(frame) > 70 and not broken:
            broken.append(frame)
            return [frame[:-1] + bytes([frame[-1] ^ 1])]
        return [frame]

    pair.pass_on = break_first
    clients, _ = pair.finish()
    assert clients["completed"] == 1 and clients["data_retransmitted"] == 1
    assert pair.server.state.counters.drops[DROP_TCP_CHECKSUM] == 1


def test_connections_are_opened_at_the_configured_rate():
    pair = Pair(cps_limit=200, max_open=1000)
    assert pair.run(0.1, lambda: pair.clients["opened"]), "ARP first"
    begun = pair.clients["opened"]
    pair.run(1)
    assert pair.clients["opened"] - begun == pytest.approx(200, abs=2)


def test_no_more_are_open_than_configured_and_no_more_opened_in_all():
    pair = Pair(max_open=7, test_size=20)
    pair.pass_on = lambda sender, frame: [] if sender is pair.server and len(frame) > 70 else [frame]
    pair.run(0.1)
    assert pair.clients["open"] == pair.clients["opened"] == 7 and pair.clients["established"] == 7
    pair.pass_on = lambda sender, frame: [frame]
    clients, _ = pair.finish()
    assert (clients["opened"], clients["completed"]) == (20, 20)


def test_ports_are_used_again_the_longest_free_first_also_while_the_server_waits():
    """Four ports carry twelve connections; the server, which closes first, has each in TIME_WAIT when its SYN comes again."""
    pair = Pair({"closes_first": "server"}, test_size=12, max_open=2, source_ports=[5000, 5003])
    clients, servers = pair.finish()
    assert clients["completed"] == servers["completed"] == 12
    ports = [packet[TCP].sport for sender, packet in pair.segments() if packet[TCP].flags == "S"]
    assert ports == [5000, 5001, 5002, 5003] * 3


def test_told_to_stop_every_open_connection_is_reset():
    pair = Pair(test_size=5, max_open=5)
    pair.pass_on = lambda sender, frame: [] if len(frame) > 70 else [frame]
    pair.run(0.05)
    pair.client.state.control[0] = STOP
    pair.carry(STEP)
    assert pair.clients["failures"] == {"stopped": 5} and pair.clients["open"] == 0
    assert pair.servers["failures"] == {"reset": 5}


def test_told_to_drain_no_new_connections_are_opened_and_the_others_end():
    pair = Pair(max_open=3, cps_limit=1000)
    pair.run(0.05)
    pair.client.state.control[0] = DRAIN
    pair.run(1)
    clients = pair.clients
    assert clients["opened"] == clients["completed"] > 3 and clients["open"] == 0 == pair.left()


def test_a_segment_of_no_connection_gets_a_reset_and_ping_is_answered():
    pair = Pair(test_size=1)
    pair.finish()
    before = len(pair.frames)
    mac = pair.client.macs[0].to_bytes(6, "big").hex(":")
    stray = Ether(src=mac, dst=mac) / IP(src="10.0.0.2", dst=TARGETS["a"]) / TCP(sport=5000, dport=PORT, flags="PA", seq=7, ack=99)
    pair.server.ports[0].feed([bytes(stray / b"hello")])
    pair.carry()
    answer = checked(pair.frames[before][1])
    assert (answer[TCP].flags, answer[TCP].seq) == ("R", 99)


def test_whatever_comes_every_connection_ends_and_nothing_is_lost():
    """Every fifth segment has octets of its headers or payload changed, and checksums that are right all the same."""
    pair, chance = Pair({"timestamps": True, "window_scale": 3, "request_packets": 4, "retransmit": 0.1, "tries": 4}, test_size=150,
                        max_open=30), random.Random(7)

    def mangle(sender, frame):
        if frame[12:14] != b"\x08\x00" or chance.random() > 0.2:
            return [frame]
        octets = bytearray(frame)
        for _ in range(chance.randint(1, 3)):
            octets[chance.randrange(14, len(frame))] = chance.randrange(256)
        packet = Ether(bytes(octets))
        for layer in (IP, TCP):
            if layer in packet:
                packet[layer].chksum = None
        return [bytes(octets), bytes(packet), frame][:chance.randint(1, 3)]

    pair.pass_on = mangle
    clients, servers = pair.finish(600)
    for role in (clients, servers):
        assert role["opened"] == role["completed"] + role["failed"]
    assert clients["completed"] > 50 and len(clients["failures"]) > 1, clients


STORY = """
import hashlib, json, sys
sys.path.insert(0, "tests")
from generator_bed import Pair
pair = Pair({"timestamps": True, "request_packets": 3}, {"loss": 0.1, "delay": 0.002}, test_size=6)
for engine in pair.engines:
    engine.state.connections.settings.retransmit = 10
clients, servers = pair.finish()
print(json.dumps([clients, servers, hashlib.sha256(b"".join(frame for _, frame in pair.frames)).hexdigest()]))
"""


def test_plain_python_does_the_same_as_the_compiled_loop():
    told = [subprocess.run([sys.executable, "-c", STORY], cwd=ROOT, env=os.environ | {"NUMBA_DISABLE_JIT": plain}, text=True,
                           capture_output=True, check=True, timeout=300).stdout for plain in ("0", "1")]
    assert json.loads(told[0]) == json.loads(told[1])
    assert json.loads(told[0])[0]["completed"] == 6
