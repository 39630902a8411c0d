"""Slots whose kernels are called from many places: what is copied for them, that the copies run, and what is refused."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from pipeline import chosen_kernels, compose, footprint, replacement, slots, snapshot, trial_engine
from pipeline.errors import ConfigurationError
from pipeline.io.frame_rows import write_rows
from pipeline.io.tcp_ends import TcpEnds
from pipeline.kernel_places import kernel_at
from pipeline.kernels import flow_table, wheel
from pipeline.memory_engine import MemoryEngine

ROOT = pathlib.Path(__file__).resolve().parent.parent
STARTS = ROOT / "pipeline" / "kernel_starts"
CLIENTS = 40
REPLACED = {"hash": "multiply", "lookup": "linear", "timers": "single", "record": "failures"}


def write(folder, name, text):
    """Writes a user's file; returns its path as text."""
    (folder / name).write_text(text)
    return str(folder / name)


def lived(kernels):
    """Has connections opened, used and closed by an engine with these kernels; returns its last counters and finished records."""
    settings = trial_engine.settings().model_copy(update={"kernels": kernels})
    engine, numbers = MemoryEngine(settings), np.arange(CLIENTS)
    ends = TcpEnds(engine, (0x0A010002 + numbers % 5, 20_000 + numbers), trial_engine.SERVICE, np.random.default_rng(2))
    ends.open()
    for side in (0, 1, 0):
        engine.feed(ends.ports[side], write_rows(engine.pool, *ends.segments(side, numbers, 100)))
        engine.step()
        assert ends.accept(1 - side, ends.take(1 - side)) == (CLIENTS, 0)
    ends.close()
    half_way = snapshot.of_worker(0, engine.state)
    for _ in range(200):
        engine.step(2_000_000)
    return half_way, snapshot.of_worker(0, engine.state), int(engine.state.records.head[0])


def test_an_engine_with_everything_replaced_does_the_same_and_leaves_nothing_behind():
    """The look-up, the hash, the timers, the records and a tap, ours of the second kind: compiled for this test alone."""
    half_way, end, kept = lived(REPLACED | {"observe": "sizes"})
    assert half_way["connections"]["open"] == CLIENTS and half_way["connections"]["table"] == 2 * CLIENTS
    assert end["connections"] == {"open": 0, "opened": CLIENTS, "closed": CLIENTS, "table": 0, "held": 0}
    assert end["expired_timers"] >= CLIENTS and end["release_causes"]["client"] == {"PassiveClose": CLIENTS}
    assert kept == 0 and end["observed"][6] == CLIENTS and end["observed"][7] == 3 * CLIENTS


def test_only_functions_that_call_what_is_replaced_come_from_the_copies():
    package = replacement.package_for({"timers": "single"})
    assert package.moved["expire"] == {"set_timers"} and package.moved["release"] == {"release"} and "transition" not in package.moved
    text = compose.source({"timers": "single"}, ["round_robin"], "memory")
    assert f"from {package.name}.expire import set_timers; from pipeline.kernels.expire import expire, release_removed, stop_all" in text
    assert f"from {package.name}.wheel import advance; from pipeline.kernels.wheel import TICK_MICROSECONDS" in text


@pytest.mark.parametrize("kernels", [{slot: name} for slot, name in REPLACED.items()] + [REPLACED])
def test_copies_have_the_lines_of_the_originals(kernels):
    for name, text in replacement.package_for(kernels).files.items():
        if name[:-3] not in {home for home, _ in replacement.HOMES.values()} | {"__init__"}:
            original = (replacement.KERNELS / name).read_text().splitlines()
            lines = text.splitlines()
            assert len(lines) == len(original)
            assert [line for line in lines if line.startswith("def ")] == [line for line in original if line.startswith("def ")]


def test_without_a_replacement_there_are_no_copies():
    assert replacement.package_for({}) is None
    assert replacement.package_for({"lookup": "bucketed", "timers": "hierarchical", "schedule": "longest_first", "observe": "sizes"}) is None
    assert "OBSERVES = 0\n" in compose.source({}, ["round_robin"], "memory")
    assert "OBSERVES = 1\n" in compose.source({"observe": "sizes"}, ["round_robin"], "memory")


def test_an_edit_of_a_users_table_makes_another_package_and_another_loop(tmp_path):
    path = write(tmp_path, "mine.py", (STARTS / "lookup.py").read_text())
    program = (f"from pipeline import compose, replacement; kernels = {{'lookup': {path + ':probe'!r}}}\n"
               "print(replacement.package_for(kernels).name, hash(compose.source(kernels, ['round_robin'], 'memory')))")

    def made():
        environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "0", "PIPELINE_CACHE": str(tmp_path / "cache")}
        return subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True).stdout.split()
    before = made()
    assert made() == before
    write(tmp_path, "mine.py", (STARTS / "lookup.py").read_text() + "UNUSED = 1\n")
    assert all(old != new for old, new in zip(before, made(), strict=True))


def test_what_no_loop_uses_any_more_is_deleted(tmp_path, monkeypatch):
    monkeypatch.setenv("PIPELINE_CACHE", str(tmp_path))
    with compose.compiling():
        compose.compose({"record": "failures"}, ["round_robin"], "memory")
    folder = tmp_path / "compositions"
    kept = replacement.package_for({"record": "failures"}).name
    (folder / "kernels_old").mkdir()
    (folder / "kernels_old" / "release.py").write_text("")
    replacement.forget_unused()
    assert [path.name for path in folder.glob("kernels_*")] == [kept]
    next(folder.glob("loop_*.py")).unlink()
    replacement.forget_unused()
    assert not list(folder.glob("kernels_*"))


def test_the_engine_allocates_what_the_kernel_brings(tmp_path):
    path = write(tmp_path, "mine.py", (STARTS / "lookup.py").read_text())
    assert replacement.allocator({}, "lookup") is flow_table.allocate_buckets
    assert replacement.allocator({"timers": "hierarchical"}, "timers") is wheel.allocate_wheel
    assert replacement.allocator({"lookup": f"{path}:probe"}, "lookup")(10).tolist() == [0] * 40
    settings = trial_engine.settings().model_copy(update={"kernels": {"lookup": f"{path}:probe", "timers": "single"}})
    found = footprint.of_connections(settings)
    assert found["flow table"] == 32 * 256 and found["timer wheel"] == 8 * (256 + 4096 + 1) + 16


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("def remove(", "def take_out("), ["brings allocate_buckets", "there is no remove"]),
        (("def insert(buckets, hashed, entry)", "def insert(buckets, hashed)"),
         ["wrong signature", "insert(buckets, hashed, entry)", "insert(buckets, hashed)"]),
        (("def probe(batch, count, buckets, hot)", "def probe(batch, count, buckets)"),
         ["wrong signature", "lookup(batch, count, buckets, hot)", "probe(batch, count, buckets)"]),
    ],
)
def test_a_table_in_part_and_wrong_signatures_are_refused(tmp_path, change, words):
    path = write(tmp_path, "mine.py", (STARTS / "lookup.py").read_text().replace(*change))
    with pytest.raises(ConfigurationError) as caught:
        kernel_at("lookup", f"{path}:probe")
        replacement.package_for({"lookup": f"{path}:probe"})
    assert all(word in str(caught.value) for word in words), caught.value


def test_kernels_that_would_call_what_is_not_in_use_are_refused(tmp_path):
    path = write(tmp_path, "mine.py", (STARTS / "lookup.py").read_text())
    with pytest.raises(ConfigurationError, match="imports hash_key of pipeline.kernels.flow_hash, which is not the one in use"):
        replacement.package_for({"lookup": f"{path}:probe", "hash": "multiply"})
    with pytest.raises(ConfigurationError, match='with it kernels.hash must be "crc32c"'):
        replacement.package_for({"lookup": "c", "hash": "multiply"})


def test_kernels_of_the_command_line_replace_those_of_the_configuration(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "my.py", "def f(payload, service, selection):\n    return 0\n")
    made = chosen_kernels.override(trial_engine.settings(), ["timers=single", "select=my.py:f", "payload=mask_digits", "timers=hierarchical"])
    assert made.kernels == {"timers": "hierarchical"}
    assert {service.select for service in made.services} == {f"{tmp_path / 'my.py'}:f"}
    assert made.payload_kernels == ("mask_digits",) and all(not service.rules for service in made.services)


@pytest.mark.parametrize(("text", "words"), [
    ("lookups=x", 'did you mean "lookup"?'), ("lookup", "must be SLOT=KERNEL"), ("lookup=linar", 'did you mean "linear"?'),
    ("lookup=gone.py:f", "gone.py does not exist"), ("timers=x.py:", "must be SLOT=KERNEL"),
    ("select=http_path", 'must have a rule for select = "http_path"')])
def test_a_choice_that_cannot_be_is_refused_in_one_sentence(text, words):
    with pytest.raises(ConfigurationError) as caught:
        chosen_kernels.override(trial_engine.settings(), [text])
    assert words in caught.value.faults[0] and text in caught.value.faults[0] and "\n" not in caught.value.faults[0]


def test_every_kernel_of_ours_is_where_it_is_said_to_be():
    for slot in slots.described().values():
        for kernel in slot["kernels"]:
            line = pathlib.Path(kernel["file"]).read_text().splitlines()[kernel["line"] - 1]
            assert line.startswith(f"def {kernel['function'].rpartition(':')[2]}(")


ENDLESS = """
from pipeline.kernels.jit import kernel


@kernel
def select(payload, service, selection):
    at = 0
    while at < 1:
        at *= 2
    return at
"""


def test_check_of_a_kernel_that_never_returns_comes_to_an_end(tmp_path):
    file = tmp_path / "endless.py"
    file.write_text(ENDLESS)
    done = subprocess.run([sys.executable, "-m", "pipeline", "kernels", "check", f"{file}:select", "--time-limit", "20"],
                          capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "has not come to an end within 20 seconds" in done.stderr
