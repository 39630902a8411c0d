"""Recordings as files: our own format, pcap and pcapng, whole, cut short and damaged."""
import contextlib
import shutil
import subprocess

import dpkt
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_bed import generated

from pipeline.errors import ConfigurationError
from pipeline.io.recording import BlockBuilder, Description, Recording, frames_of
from pipeline.kernels.recorder import RECEIVED, SENT, TIMERS
from pipeline.recorders import open_writer
from pipeline.recording import open_recording

DESCRIPTION = Description(("left", "right"), (0x020000000001, None), started=1_700_000_000_123_456_000, more={"secrets": [[1, 2]]})
BURST = st.tuples(st.integers(0, 10**9), st.integers(0, 1), st.lists(st.binary(min_size=14, max_size=90), max_size=5),
                  st.sampled_from([RECEIVED, SENT, TIMERS]))


def blocks_of(bursts):
    """Blocks with these bursts, in the order of their times: two of them, where there are enough."""
    builder, found = BlockBuilder(), []
    for number, (time, port, frames, kind) in enumerate(sorted(bursts, key=lambda burst: burst[0])):
        builder.add(time, port, frames, kind, [len(frame) + 3 for frame in frames], number)
        if number == 3:
            found += builder.blocks()
    return found + builder.blocks()


def written(path, blocks, description=DESCRIPTION):
    """The path of a file with these blocks."""
    with contextlib.closing(open_writer(path, description)) as writer:
        for block in blocks:
            writer.write(block)
    return path


@generated
@given(bursts=st.lists(BURST, max_size=9))
def test_what_was_written_is_read(tmp_path_factory, bursts):
    folder, blocks = tmp_path_factory.mktemp("files"), blocks_of(bursts)
    found = Recording(written(folder / "a.recording", blocks))
    assert found.description == DESCRIPTION and found.whole and len(found.blocks) == len(blocks)
    for ours, theirs in zip(blocks, found.blocks, strict=True):
        assert np.array_equal(ours.bursts, theirs.bursts) and np.array_equal(ours.packets, theirs.packets)
    assert [frame.octets for frame in frames_of(found)] == [frame for burst in sorted(bursts, key=lambda burst: burst[:2]) for frame in burst[2]]


@generated
@given(bursts=st.lists(BURST, min_size=1, max_size=9), kind=st.sampled_from(["pcap", "pcapng"]))
def test_captures_keep_octets_times_lengths_and_ports(tmp_path_factory, bursts, kind):
    path = written(tmp_path_factory.mktemp("files") / f"a.{kind}", blocks_of(bursts))
    wanted = [(burst[0], burst[1] if kind == "pcapng" else 0, frame, len(frame) + 3)
              for burst in sorted(bursts, key=lambda burst: burst[0]) for frame in burst[2]]
    found = open_recording(path)
    moment = found.description.started // 1000 - DESCRIPTION.started // 1000
    there = [(frame.time + moment, frame.port, frame.octets, frame.length) for frame in frames_of(found)]
    assert sorted(there) == sorted(wanted)
    with open(path, "rb") as file:  # what dpkt, which is not ours, makes of it
        assert [bytes(frame) for _, frame in dpkt.pcap.UniversalReader(file)] == [frame for _, _, frame, _ in wanted]


@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")
def test_tshark_reads_ports_and_directions(tmp_path):
    path = written(tmp_path / "a.pcapng", blocks_of([(5, 0, [bytes(60)], RECEIVED), (6, 1, [bytes(61)], SENT)]))
    told = subprocess.run(["tshark", "-r", path, "-T", "fields", "-e", "frame.interface_name", "-e", "frame.packet_flags_direction",
                           "-e", "frame.time_epoch", "-e", "frame.cap_len"], capture_output=True, text=True, check=True).stdout
    rows = [line.split("\t") for line in told.splitlines()]
    assert [row[0] for row in rows] == ["left", "right"] and [int(row[1], 16) for row in rows] == [1, 2]
    assert [row[2:] for row in rows] == [["1700000000.123461000", "60"], ["1700000000.123462000", "61"]]


def test_a_file_that_was_cut_short_is_read_as_far_as_it_is_whole(tmp_path):
    blocks = blocks_of([(number, 0, [bytes(100)], RECEIVED) for number in range(9)])
    whole = written(tmp_path / "whole", blocks).read_bytes()
    counts = set()
    for length in range(len(whole)):
        (tmp_path / "cut").write_bytes(whole[:length])
        try:
            found = Recording(tmp_path / "cut")
        except ValueError as error:
            assert str(tmp_path / "cut") in str(error)
            continue
        assert not found.whole
        assert [frame.octets for frame in frames_of(found)] == [bytes(100)] * found.packets
        counts.add(found.packets)
    assert counts == {0, 4, 9}


@pytest.mark.parametrize(("content", "words"), [
    (b"", "no capture"), (b"nonsense" * 9, "neither a recording"), (b"ppburst1" + bytes(80), "version 0"), (b"ppburst1", "damaged"),
    (bytes.fromhex("0a0d0d0a1c0000004d3c2b1a") + bytes(20), "damaged"), (bytes.fromhex("d4c3b2a102000400") + bytes(16), "link type is 0")])
def test_what_is_none_is_refused_in_a_sentence(tmp_path, content, words):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ConfigurationError, match=words) as refused:
        open_recording(tmp_path / "file")
    assert str(tmp_path / "file") in str(refused.value) and "\n" not in str(refused.value)


@generated
@given(flips=st.lists(st.tuples(st.integers(0, 700), st.integers(1, 255)), min_size=1, max_size=4))
def test_damage_is_told_or_does_no_harm(tmp_path_factory, flips):
    path = tmp_path_factory.mktemp("files") / "a.recording"
    written(path, blocks_of([(number, 0, [bytes(40)], RECEIVED) for number in range(6)]))
    content = bytearray(path.read_bytes())
    for place, flip in flips:
        content[place % len(content)] ^= flip
    path.write_bytes(content)
    try:
        list(frames_of(Recording(path)))
    except ValueError as error:
        assert str(path) in str(error)
