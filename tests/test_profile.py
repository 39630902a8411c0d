"""The profile: what it counts is what went through, its sums agree with one another, and nothing is written while it is off."""
import json
import re
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_bed import generated

from pipeline import compose, configuration, profile_marks, profile_report, profiling
from pipeline.attribution import solved
from pipeline.errors import ConfigurationError
from pipeline.io.frame_rows import write_rows
from pipeline.io.tcp_ends import TcpEnds
from pipeline.kernels import profile
from pipeline.kernels.headers import ACK, FIN
from pipeline.kernels.profile import IDLE, MOST_STAGES
from pipeline.memory_engine import MemoryEngine

CLIENTS = 20
SERVICE = 0x0A010001, 80
TEXT = """
[engine]
name = "profiled"
connections = 1024
held_connections = 64
burst = 32
idle = "spin"
[[ports]]
name = "clients"
device = "net_null0"
addresses = ["10.1.0.1/16"]
[[ports]]
name = "servers"
device = "net_null1"
addresses = ["10.2.0.1/24"]
[[targets]]
id = "a"
ip = "10.2.0.11"
port = 80
[[services]]
name = "web"
listen = "10.1.0.1:80"
targets = ["a"]
"""


class Profiled:
    """An engine on memory ports with `CLIENTS` ends on either side."""

    def __init__(self):
        self.engine = MemoryEngine(configuration.parse(TEXT, "test"), profiled=True)
        self.state, self.names = self.engine.state, profile_marks.stage_names(self.engine.run)
        numbers = np.arange(CLIENTS)
        self.ends = TcpEnds(self.engine, (0x0A010002 + numbers, 1024 + numbers), SERVICE, np.random.default_rng(1))

    def report(self):
        return profile_report.report([self.state], self.names, 1e9)

    def start(self, every=1):
        profiling.start([self.state], every, overhead=0, longest=1 << 60)

    def say(self, side, control=ACK, payload=0):
        """Has each end of one side send a segment; what comes of it is taken in by the other side."""
        ends, which = self.ends, np.arange(CLIENTS)
        if payload:
            frames = ends.segments(side, which, payload)
        else:
            frames = ends.frames(side, which, *ends.numbers(side, which), control)
        self.engine.feed(side, write_rows(self.engine.pool, *frames))
        self.engine.step()
        got = ends.take(1 - side)
        if payload:
            assert ends.accept(1 - side, got) == (CLIENTS, 0)

    def exchange(self):
        """Has all ends open, send once each way, and the clients say that they are done."""
        self.ends.open()
        self.say(0, payload=10)
        self.say(1, payload=20)
        self.say(0, FIN | ACK)


@pytest.fixture
def profiled():
    return Profiled()


def test_off_it_writes_nothing(profiled):
    profiled.exchange()
    assert not any(cells.any() for cells in profiled.state.profile)


def test_packets_are_counted_by_path(profiled):
    profiled.start()
    profiled.exchange()
    paths = {row["path"]: row for row in profiled.report()["paths"]}
    wanted = ("client SYN", "first payload", "target SYN-ACK", "ACK of first payload", "client to target", "target to client", "close")
    assert {name: paths[name]["packets"] for name in wanted} == dict.fromkeys(wanted, CLIENTS)
    assert set(paths) - set(wanted) == {"other", "timers"} and paths["other"]["packets"] == 1  # ARP of the target
    assert all(paths[name]["alone"]["count"] == CLIENTS for name in wanted)


def test_sums_agree(profiled):
    profiled.start()
    profiled.exchange()
    counted, found = profiled.state.profile, profiled.report()
    whole = counted.ticks[:IDLE].sum()
    assert found["packets"] == int(profiled.state.counters.totals[1]) == counted.bursts[:, 1].sum() == counted.packets[:-1].sum()
    assert 0 < whole <= counted.passes[profile.COUNTED, :IDLE, 1].sum()
    assert sum(row["share"] for row in found["stages"]) == pytest.approx(1, abs=0.01)
    for kind in ("paths", "sizes"):
        assert all(sum(row["stages"].values()) == pytest.approx(row["ticks_a_packet"], rel=0.02, abs=1) for row in found[kind])
    sizes = {row["size"]: row["packets"] for row in found["sizes"]}
    assert sum(sizes.values()) == found["packets"] and sizes["17-32"] >= 7 * CLIENTS
    assert {"parse", "lookup", "express", "transition", "connect", "own_frames"} <= {row["stage"] for row in found["stages"]}
    json.dumps(found)


def test_what_comes_before_the_warm_up_ends_is_not_counted(profiled):
    profiling.start([profiled.state], 1, warm_up=1000, overhead=0)
    profiled.exchange()
    assert not any(cells.any() for cells in profiled.state.profile[1:])


def test_what_was_interrupted_is_counted_apart(profiled):
    profiling.start([profiled.state], 1, overhead=0, longest=1)
    profiled.exchange()
    counted = profiled.state.profile
    assert not counted.bursts[:IDLE].any() and not counted.packets.any() and not counted.passes[:, :IDLE].any()
    assert counted.interrupted[profile.COUNTED, 0] > 5 and counted.interrupted[3, 0] >= counted.interrupted[profile.COUNTED, 0]


def test_it_is_switched_off_and_on_again(profiled):
    profiled.start()
    profiled.ends.open()
    profiling.stop([profiled.state])
    before = [cells.copy() for cells in profiled.state.profile]
    profiled.say(0, payload=10)
    assert all((cells == kept).all() for cells, kept in zip(profiled.state.profile[3:], before[3:], strict=True))
    profiled.start()
    profiled.say(1, payload=10)
    assert profiled.report()["packets"] == CLIENTS


@pytest.mark.parametrize("every", [2, 8])
def test_one_pass_in_so_many_is_sampled(profiled, every):
    profiling.start([profiled.state], every, overhead=0, longest=1 << 60)
    profiled.engine.run(profiled.state, 40_000, profiled.engine.now)
    counted = profiled.state.profile.passes[:, :, 0].sum(1)
    assert counted.sum() == 40_000
    assert counted[1:].sum() == pytest.approx(40_000 / every, rel=0.15)
    assert counted[1] == pytest.approx(7 * counted[2], rel=0.05)


@generated
@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(0, 40)).filter(any), min_size=12, max_size=40, unique=True),
       st.lists(st.integers(0, 5000), min_size=3, max_size=3))
def test_least_squares_finds_what_bursts_were_made_of(bursts, ticks):
    rows = np.array(bursts, float)
    if np.linalg.matrix_rank(rows) < 3:
        return
    weights = 1 / rows.sum(1)
    found = solved(rows.T @ (rows * weights[:, None]), rows.T @ ((rows @ ticks) * weights))
    assert found == pytest.approx(ticks, rel=1e-3, abs=1)


@generated
@given(st.integers(0, 256))
def test_sizes_are_named_as_they_are_bounded(packets):
    low, _, high = profile.SIZES[profile.size_of(packets)].replace("none", "0").partition("-")
    assert int(low) <= packets <= int(high or low)


def test_a_mark_stands_behind_every_stage():
    source = compose.source({}, ["round_robin"], "memory")
    made = profile_marks.marked(source)
    for name in ("parse", "express", "release", "dispose"):
        assert re.search(rf"\n *[^\n]*\b{name}\([^\n]*\n( +[^\n]*\n)?? *mark\(state\.profile, \d+\)\n", made), name
    assert "count_paths(state.profile, batch, count, connections.hot)\n        left = express" in made
    with pytest.raises(ConfigurationError, match="has room for"):
        profile_marks.marked("def stages(state):\n" + "    parse(state)\n" * MOST_STAGES)


def test_without_a_profile_there_is_no_mark():
    bare = profile_marks.unmarked(compose.source({}, ["round_robin"], "memory"))
    assert not re.search(r"^ +(mark|count_paths|close_burst|first_pass|next_pass|awake)\(", bare, re.MULTILINE)
    assert all(re.search(rf"^ +(\w+ = )?{name}\(", bare, re.MULTILINE) for name in ("parse", "express", "own_frames", "send", "stages"))


def test_a_generator_and_a_wire_have_the_stages_that_they_have():
    assert "mark(" in profile_marks.marked(compose.source({}, [], "memory", "generator"))
    assert profile_marks.marked(compose.source({}, [], "memory", "forward")).endswith(f"STAGE_NAMES = {list(profile_marks.RUN_STAGES)}\n")


def test_a_picture_is_drawn(profiled, tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: it comes with the extras perf and test")
    profiled.start()
    profiled.exchange()
    profile_report.plot(profiled.report(), tmp_path / "profile.svg")
    assert "<svg" in (tmp_path / "profile.svg").read_text()


def test_the_report_is_text_for_people(profiled):
    assert "no packet came" in profile_report.text(profiled.report())
    profiled.start()
    profiled.exchange()
    text = profile_report.text(profiled.report())
    assert all(words in text for words in ("Ticks by stage", "first payload", "17-32", "busy passes sampled"))


@pytest.mark.parametrize("arguments", [["--profile-every", "0"], ["--profile-warm-up", "-1"]])
def test_the_command_refuses_what_it_cannot_do(arguments):
    made = subprocess.run([sys.executable, "-m", "pipeline", "run", *arguments], capture_output=True, text=True, check=False)
    assert made.returncode == 2 and arguments[0] in made.stderr
