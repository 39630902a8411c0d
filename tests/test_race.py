"""Races: the same recording through two compositions, timed in turns, and what they send set beside one another."""
import contextlib
import json

import numpy as np
import pytest
from click.testing import CliRunner
from test_profile import CLIENTS, SERVICE, TEXT

from pipeline import assemble, configuration, race, recording
from pipeline.command_line import commands
from pipeline.errors import ConfigurationError
from pipeline.io.frames import frame_bytes
from pipeline.io.recording import BlockBuilder, Description, HeldRecording
from pipeline.io.tcp_ends import TcpEnds
from pipeline.kernels import recorder
from pipeline.kernels.headers import ACK, FIN
from pipeline.memory_engine import MemoryEngine
from pipeline.recorders import open_writer
from pipeline.replay import SECRET
from pipeline.replay_command import digest


class Recorded(MemoryEngine):
    """A MemoryEngine that keeps what it was fed."""

    builder, turn = None, 0

    def feed(self, number, mbufs):
        """Keeps the frames as a burst."""
        if self.builder is not None:
            frames = [frame_bytes(self.arena, int(mbuf)) for mbuf in mbufs]
            self.builder.add(self.now, number, frames, recorder.RECEIVED, [len(frame) for frame in frames], self.turn)
            self.turn += 1
        super().feed(number, mbufs)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A recording of sessions of 20 clients, and the configuration that it was made with."""
    folder = tmp_path_factory.mktemp("race")
    settings = configuration.parse(TEXT, "test")
    engine = Recorded(settings)
    assemble.settle_chances(engine.state, SECRET)
    engine.builder, which = BlockBuilder(), np.arange(CLIENTS)
    ends = TcpEnds(engine, (0x0A010002 + which, 1024 + which), SERVICE, np.random.default_rng(1))
    ends.open()
    for side in (0, 1):
        ends._exchange(side, ends.segments(side, which, 100))
        ends.accept(1 - side, ends.take(1 - side))
    ends._exchange(0, ends.frames(0, which, *ends.numbers(0, which), FIN | ACK))
    described = Description(("clients", "servers"), tuple(engine.macs), more={"secrets": [list(SECRET)]})
    made = HeldRecording(described, engine.builder.blocks())
    with contextlib.closing(open_writer(folder / "sessions.rec", described)) as writer:
        for block in made.blocks:
            writer.write(block)
    (folder / "a.toml").write_text(TEXT)
    (folder / "b.toml").write_text(TEXT.replace("[timeouts]", "").replace('ip = "10.2.0.11"', 'ip = "10.2.0.11"\nmac = "02:00:00:00:00:77"'))
    return folder


def test_a_composition_against_itself_sends_the_same(files):
    said = race.race(files / "sessions.rec", [files / "a.toml"] * 2, ((), ()), runs=2)
    given = recording.open_recording(files / "sessions.rec")
    assert said["packets"] == given.packets == 1 + 7 * CLIENTS
    assert said["outputs"]["differences"] == 0 and len(set(said["outputs"]["digests"])) == 1 and said["outputs"]["sent"][0] > 5 * CLIENTS
    assert [len(rounds) for rounds in said["rounds"]] == [2, 2] and min(min(rounds) for rounds in said["rounds"]) > 0
    assert {"parse", "lookup", "express", "transition"} <= {row["stage"] for row in said["stages"]}
    json.dumps(said)


def test_what_differs_is_shown(files):
    result = CliRunner().invoke(commands, ["race", str(files / "sessions.rec"), str(files / "a.toml"), "--b-config", str(files / "b.toml"),
                                           "--runs", "2", "--plot", str(files / "race.svg")])
    assert result.exit_code == 0, result.output
    assert "what they send differs in" in result.output and "02:00:00:00:00:77" in result.output
    assert "whole passes" in result.output and "<svg" in (files / "race.svg").read_text()


def test_timed_rounds_deal_with_every_packet(files):
    settings = configuration.load(files / "a.toml")
    found = recording.open_recording(files / "sessions.rec")
    chunks = race.chunks_of(found)
    racer = race.Racer(settings, False, 0)
    taken = racer.race(chunks, found.description)
    assert len(taken) == sum(len(chunk.now) for chunk in chunks) and np.median(taken) > 0
    assert int(racer.engine.state.counters.totals[1]) == found.packets and not racer.engine.state.counters.drops.any()
    assert digest(racer.run(found).sent) == digest(racer.run(found).sent)


def test_a_difference_is_real_where_rounds_agree():
    random = np.random.default_rng(1)
    base = 100 + random.random(20)
    assert race.compared(base, base * 1.05)["real"] and race.compared(base, base * 0.95)["ratio"] == pytest.approx(0.95)
    assert not race.compared(base, base)["real"] and race.compared(base, base)["sign_test"] == 1
    noise = race.compared(100 + random.normal(0, 5, 20), 100 + random.normal(0, 5, 20))
    assert not noise["real"] and noise["interval"][0] < 1 < noise["interval"][1]
    assert not race.compared(base[:5], base[:5] * 1.5)["real"]  # 5 of 5 come by chance once in 16


def test_an_interrupted_pass_counts_as_four_medians():
    rounds = np.full((5, 3), 10)
    rounds[2, 1] = 10_000
    assert race.settled(rounds).tolist() == [30, 30, 60, 30, 30]


def test_what_cannot_be_raced_is_refused(files):
    other = TEXT.replace('"clients"', '"x"').replace('"servers"', '"y"').replace("10.1.0.1", "10.77.0.1").replace("10.2.0", "10.78.0")
    (files / "other.toml").write_text(other)
    for arguments in ([str(files / "sessions.rec")], [str(files / "sessions.rec"), str(files / "a.toml"), "--a", "lookup"]):
        assert CliRunner().invoke(commands, ["race", *arguments]).exit_code == 2
    with pytest.raises(ConfigurationError):
        race.race(files / "sessions.rec", [files / "other.toml"] * 2, ((), ()), runs=2)
