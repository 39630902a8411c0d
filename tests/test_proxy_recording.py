"""An engine that records what it receives and sends, with real programs around it, and replays of that."""
import os
import shutil
import sys

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "recordings"))
import make

from pipeline import configuration, replay_command
from pipeline.comparison import compare
from pipeline.io.recording import frames_of
from pipeline.recording import open_recording

pytestmark = [pytest.mark.skipif(os.geteuid() != 0, reason="a bed can only be made by root"),
              pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")]
SETTINGS = make.HERE / "sessions.toml"


@pytest.fixture
def own_bed(monkeypatch):
    """A bed of this process' own."""
    monkeypatch.setattr(make, "NAMESPACE", f"pt{os.getpid()}-golden")
    text = make.configuration
    monkeypatch.setattr(make, "configuration", lambda name: text(name).replace('network_namespace = "golden"',
                                                                               f'network_namespace = "{make.NAMESPACE}"'))


def test_a_replay_sends_what_the_engine_has_just_sent(own_bed, tmp_path):
    recording, sent = tmp_path / "a.recording", tmp_path / "sent.pcapng"
    summary = make.record("http", tmp_path, recording, sent)
    assert summary["recorded"]["received"]["packets"] == summary["packets"] and summary["connections"]["opened"] == 3
    said = replay_command.perform(recording, SETTINGS, out=tmp_path / "again.pcapng", expect=sent)
    assert said["differences"] == 0, said["first"]
    assert compare(open_recording(tmp_path / "again.pcapng"), open_recording(sent)) == (0, None)


def test_only_what_the_filter_wants_is_recorded_cut_and_up_to_the_limit(own_bed, tmp_path):
    recording, sent = tmp_path / "a.pcapng", tmp_path / "sent.recording"
    summary = make.record("http", tmp_path, recording, sent, "--record-filter", "tcp dst port 80 or tcp src port 80", "--record-snap", "60",
                          "--record-limit", "9")
    there, left = (list(frames_of(open_recording(path))) for path in (recording, sent))
    assert summary["recorded"]["received"]["packets"] == len(there) == len(left) == 9
    assert summary["recorded"]["received"]["dropped"] == 0 and summary["recorded"]["received"]["seen"] >= 9
    assert all(len(frame.octets) <= 60 and frame.octets[36:38] == b"\0\x50" for frame in there)
    assert all(len(frame.octets) <= 60 and frame.octets[34:36] == b"\0\x50" for frame in left)
    assert configuration.load(SETTINGS).ports[0].name == "clients" and {frame.port for frame in there + left} == {0}
