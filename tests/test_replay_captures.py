"""Captures from elsewhere in a replay: by which port their packets come in, what of two packets may differ, and what chance decides."""
import contextlib
import pathlib

import numpy as np
import pytest
from kernel_bed import KernelBed
from memory_loop import composed
from scapy.layers.inet import ICMP, IP, TCP
from scapy.layers.l2 import ARP, Dot1Q, Ether

from pipeline import assemble, comparison, configuration, replay, replay_command
from pipeline.capture_ports import assigned
from pipeline.errors import ConfigurationError
from pipeline.io.recording import BlockBuilder, Description, HeldRecording, frames_of
from pipeline.kernels.recorder import RECEIVED
from pipeline.recorders import open_writer
from pipeline.recording import open_recording

FOLDER = pathlib.Path(__file__).parent / "recordings"
SETTINGS = configuration.load(FOLDER / "sessions.toml")
ROUTER, US = "02:aa:00:00:00:02", "02:bb:00:00:00:01"


def capture(frames, ports=("",), apart=20_000):
    """A recording as it is made of a capture: a frame every 20 ms, or so many microseconds `apart`."""
    builder = BlockBuilder()
    for number, frame in enumerate(frames):
        builder.add(1_000_000 + apart * number, 0, [bytes(frame)], RECEIVED, turn=number)
    return HeldRecording(Description(ports, (None,) * len(ports)), builder.blocks())


def packet(source, destination, layer, to=US):
    """A frame between two addresses."""
    return Ether(src=ROUTER, dst=to) / IP(src=source, dst=destination) / layer


FRAMES = [packet("10.1.0.2", "10.1.0.1", TCP(dport=80, flags="S")), packet("10.2.0.11", "10.2.0.1", ICMP()),
          Ether(src=ROUTER, dst="ff:ff:ff:ff:ff:ff") / ARP(psrc="10.2.0.12", pdst="10.2.0.1"),
          packet("10.1.0.1", "10.1.0.2", TCP(sport=80, flags="SA"), ROUTER)]


def test_packets_come_in_by_the_port_that_owns_the_address_and_others_are_left_out():
    found, left_out = assigned(capture(FRAMES), SETTINGS)
    assert [frame.port for frame in frames_of(found)] == [0, 1, 1] and left_out == 1
    assert found.description.macs == (0x02BB00000001, 0x02BB00000001)
    assert found.description.more["targets"]["http-a"] == 0x02AA00000002 and "http-b" not in found.description.more["targets"]


def test_packets_come_in_by_the_port_that_is_named():
    found, left_out = assigned(capture(FRAMES), SETTINGS, "servers")
    assert {frame.port for frame in frames_of(found)} == {1} and left_out == 0
    found, _ = assigned(capture(FRAMES, ("servers",)), SETTINGS)
    assert {frame.port for frame in frames_of(found)} == {1}
    with pytest.raises(ConfigurationError, match="clients, servers"):
        assigned(capture(FRAMES), SETTINGS, "nowhere")


def test_a_capture_is_answered_the_same_each_time(tmp_path):
    path = tmp_path / "a.pcap"
    given = capture(FRAMES)
    with contextlib.closing(open_writer(path, given.description)) as writer:
        for block in given.blocks:
            writer.write(block)
    sent = [replay.Replay(SETTINGS, composed()).run(assigned(open_recording(path), SETTINGS)[0]).sent for _ in range(2)]
    assert comparison.compare(*sent) == (0, None)
    answers = [Ether(frame.octets) for frame in frames_of(sent[0]) if frame.port == 0]
    assert any(TCP in answer and answer[TCP].flags == "SA" and answer.src == US for answer in answers)


def test_a_capture_with_a_silence_of_days_is_refused():
    found, _ = assigned(capture(FRAMES, apart=3 * 86_400_000_000), SETTINGS)
    with pytest.raises(ConfigurationError, match="72 hours pass without a packet, after 1 packets"):
        replay.Replay(SETTINGS, composed()).run(found)


def test_recordings_that_do_not_fit_are_refused():
    for described, words in ((Description(("a",), (None,)), "1 ports"), (Description(("a", "b"), (None, None), 2), "2 workers")):
        with pytest.raises(ConfigurationError, match=words):
            replay.replay(HeldRecording(described, []), SETTINGS)


OPTIONS = [("MSS", 1460), ("Timestamp", (7, 8)), ("SAckOK", b"")]


@pytest.mark.parametrize(("field", "change"), [
    ("tcp.seq", {"seq": 9}), ("tcp.ack", {"ack": 9}), ("tcp.window_size", {"window": 9}), ("tcp.srcport", {"sport": 9}),
    ("tcp.flags", {"flags": "R"}), ("tcp.options.timestamp.tsval", {"options": [OPTIONS[0], ("Timestamp", (9, 8)), OPTIONS[2]]}),
    ("tcp.options.timestamp.tsecr", {"options": [OPTIONS[0], ("Timestamp", (7, 9)), OPTIONS[2]]})])
@pytest.mark.parametrize("tag", [None, Dot1Q(vlan=3)])
def test_a_field_that_may_differ_is_all_that_may(field, change, tag):
    def frame(**fields):
        below = Ether(src=ROUTER, dst=US) / (tag or b"") if tag else Ether(src=ROUTER, dst=US)
        return bytes(below / IP(src="10.1.0.2", dst="10.1.0.1") / TCP(**{"options": OPTIONS, "flags": "S", **fields}) / b"payload")

    this, other = capture([frame()]), capture([frame(**change)])
    assert comparison.compare(this, other)[0] == 1
    assert comparison.compare(this, other, comparison.fields_of(field)) == (0, None)
    for wrong in set(comparison.FIELDS) - {field, "tcp.checksum"}:
        assert comparison.compare(this, other, comparison.fields_of(f"{wrong},tcp.checksum"))[0] == 1, wrong


def test_a_packet_too_many_is_told():
    count, first = comparison.compare(capture(FRAMES[:1]), capture(FRAMES[:2]))
    assert count == 1 and "was sent and is not expected" in comparison.told(first)
    with pytest.raises(ConfigurationError, match="did you mean tcp.seq"):
        comparison.fields_of("tcp.sec")


def test_a_secret_settles_all_that_is_random():
    one, two, other = (KernelBed() for _ in range(3))
    before = np.sort(one.state.sources.ring[0]).tolist()
    for bed, secret in ((one, (1, 2)), (two, (1, 2)), (other, (1, 3))):
        assemble.settle_chances(bed.state, secret)
    assert np.array_equal(one.state.sources.ring, two.state.sources.ring) and one.connections.secret.tolist() == [1, 2]
    assert not np.array_equal(one.state.sources.ring, other.state.sources.ring)
    assert np.sort(one.state.sources.ring[0]).tolist() == before


def test_what_is_read_is_not_written_over(tmp_path):
    mine, link, golden = tmp_path / "http.recording", tmp_path / "other.recording", tmp_path / "http.expected"
    content = (FOLDER / "http.recording").read_bytes()
    mine.write_bytes(content)
    golden.write_bytes((FOLDER / "http.expected").read_bytes())
    link.symlink_to(mine)
    for out, expect in ((mine, None), (link, None), (golden, golden)):
        with pytest.raises(ConfigurationError, match="is the file .* that is read"):
            replay_command.perform(mine, FOLDER / "sessions.toml", out=str(out), expect=expect)
    assert mine.read_bytes() == content


def test_fields_that_may_differ_need_what_they_may_differ_from():
    with pytest.raises(ConfigurationError, match="--expect FILE, which is missing"):
        replay_command.perform(FOLDER / "http.recording", FOLDER / "sessions.toml", leave_out="ip.id")


def test_packets_that_were_recorded_in_part_are_counted():
    builder = BlockBuilder()
    builder.add(1_000_000, 0, [b"0" * 60, b"1" * 60], RECEIVED, [60, 1514])
    assert replay_command.cut_packets(HeldRecording(Description(("",), (None,)), builder.blocks())) == 1
    said = {"received": 2, "sent": 0, "seconds": 0.0, "counters": {"drops": {}}, "left_out": 0, "cut": 1, "whole": True,
            "dropped_in_recording": 0, "digest": ""}
    assert "1 packets were recorded in part (--record-snap)" in replay_command.text(said)
