"""Sessions of real programs through the engine, recorded by tests/recordings/make.py: a replay sends what was sent then."""
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from memory_loop import composed

from pipeline import compose, configuration, replay, replay_command
from pipeline.comparison import compare, fields_of, told
from pipeline.io.recording import HeldRecording
from pipeline.recording import bursts, open_recording

FOLDER = pathlib.Path(__file__).parent / "recordings"
NAMES = ("http", "tls", "ssh", "iperf3", "ldap")
SETTINGS = FOLDER / "sessions.toml"
SMALL = 200_000
SOAK = os.environ.get("PIPELINE_SOAK") == "1"


@pytest.fixture(scope="module")
def usual():
    """The loop that most tests share."""
    return composed()


def replayed(name, run):
    """What a replay of a session sends."""
    return replay.Replay(configuration.load(SETTINGS), run).run(open_recording(FOLDER / f"{name}.recording")).sent


@pytest.mark.parametrize("name", NAMES)
def test_a_replay_sends_what_the_engine_sent(usual, name):
    assert max((FOLDER / f"{name}.{kind}").stat().st_size for kind in ("recording", "expected")) < SMALL
    count, first = compare(open_recording(FOLDER / f"{name}.expected"), replayed(name, usual))
    assert count == 0, told(first)


def test_another_process_with_other_hashes_sends_the_same(usual):
    told_there = subprocess.run(
        [sys.executable, "-m", "pipeline", "replay", FOLDER / "iperf3.recording", SETTINGS, "--json"], check=True, capture_output=True,
        text=True, env={**os.environ, "PYTHONHASHSEED": "7"}, cwd=FOLDER.parents[1])
    assert json.loads(told_there.stdout)["digest"] == replay_command.digest(replayed("iperf3", usual))


@pytest.mark.parametrize("name", [name for name in NAMES if SOAK or name != "iperf3"])
def test_kernels_as_plain_python_send_the_same(name):
    """`replay` says so by its exit status."""
    done = subprocess.run([sys.executable, "-m", "pipeline", "replay", FOLDER / f"{name}.recording", SETTINGS, "--expect",
                           FOLDER / f"{name}.expected"], check=False, capture_output=True, text=True, cwd=FOLDER.parents[1],
                          env={**os.environ, "NUMBA_DISABLE_JIT": "1"})
    assert done.returncode == 0 and "all as in" in done.stdout, done.stdout + done.stderr


if SOAK:  # a loop of its own to compile
    def test_all_stages_without_the_short_way_send_the_same(usual):
        """`express` may only ever be faster: here every segment goes through all stages."""
        with compose.compiling():
            run = compose.compose({"express": "none"}, ["round_robin"], "memory")
        for name in NAMES:
            count, first = compare(open_recording(FOLDER / f"{name}.expected"), replayed(name, run))
            assert count == 0, told(first)


def test_a_single_octet_is_noticed_and_told_by_its_field(usual):
    expected = open_recording(FOLDER / "http.expected")
    burst = next(burst for burst in bursts(expected) for head in burst.headers() if head["protocol"] == 6)
    octets = expected.blocks[0].octets.copy()
    octets[int(burst.packets["offset"][0]) + 41] ^= 0xFF  # the last octet of the sequence number
    other = HeldRecording(expected.description, [expected.blocks[0]._replace(octets=octets), *expected.blocks[1:]])
    sent = replayed("http", usual)
    count, first = compare(other, sent)
    assert count == 1 and "Sequence Number (raw)" in told(first)
    assert compare(other, sent, fields_of("tcp.seq")) == (0, None)
    assert compare(other, sent, fields_of("tcp.ack,ip.id"))[0] == 1


def test_a_recording_says_who_took_part(usual):
    heads = np.concatenate([burst.headers() for burst in bursts(open_recording(FOLDER / "http.recording"))])
    to_port_80 = heads[(heads["protocol"] == 6) & (heads["destination_port"] == 80)]
    assert len(np.unique(to_port_80["source_port"])) == 3 and set(to_port_80["destination"]) == {0x0A010001}
