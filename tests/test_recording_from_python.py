"""Recordings from Python: the code in the README runs as it stands, and says what it should."""
import pathlib

import numpy as np
import pytest

from pipeline import configuration, recording, workbench
from pipeline.errors import ConfigurationError
from pipeline.kernels import parse
from pipeline.kernels.batch import KIND_TCP

ROOT = pathlib.Path(__file__).parents[1]
FOLDER = ROOT / "tests" / "recordings"
BEGINS = "from pipeline import configuration, recording, replay, workbench\n"


def example():
    """The code block of the README."""
    for file in sorted(ROOT.glob("README*.md")):
        for block in file.read_text().split("```python\n")[1:]:
            if block.startswith(BEGINS):
                return block.partition("```")[0]
    raise AssertionError("the README has no such example")


def test_the_example_runs(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    scope = {}
    exec(example(), scope)  # noqa: S102 - the README's own code
    found, result, said = scope["found"], scope["result"], capsys.readouterr().out
    assert result.received == found.packets and result.counters["connections"]["opened"] == 3
    assert said.count("\n") == sum(1 for part in (found, result.sent) for _ in recording.bursts(part)) + 2


def test_a_kernel_fills_the_columns_of_a_burst():
    found = recording.open_recording(FOLDER / "http.recording")
    bench = workbench.Workbench(configuration.load(FOLDER / "sessions.toml"), found.description.macs)
    segments = 0
    for burst in recording.bursts(found):
        bench.put(burst).run(parse.parse)
        heads, columns = burst.headers(), bench.columns
        is_tcp = (heads["ethertype"] == 0x0800) & (heads["protocol"] == 6)
        assert np.array_equal(columns.kind == KIND_TCP, is_tcp) and bench.frames == burst.frames
        assert np.array_equal(columns.seq[is_tcp], heads["seq"][is_tcp])
        segments += int(is_tcp.sum())
    assert segments > 20


def test_what_a_workbench_does_not_have_is_said():
    bench = workbench.Workbench(configuration.load(FOLDER / "sessions.toml"))
    with pytest.raises(ConfigurationError, match="asks for nobody"):
        bench.run(lambda nobody: nobody)
