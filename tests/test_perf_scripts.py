"""The scripts that measure run and print what they say; how fast anything is, is never asserted."""
import json
import pathlib
import subprocess
import sys

import pytest

PERF = pathlib.Path(__file__).parents[1] / "perf"


def run(script, *arguments):
    return subprocess.run([sys.executable, PERF / script, *arguments], capture_output=True, text=True, timeout=300,
                          check=False)


def test_stages_prints_one_json_document():
    made = run("stages.py", "--json", "--connections", "40", "--packets", "128", "--runs", "2", "--bursts", "1,3,32")
    assert made.returncode == 0, made.stderr
    result = json.loads(made.stdout)
    assert (result["connections"], result["packets"], result["runs"], result["bursts"]) == (40, 128, 2, [1, 3, 32])
    assert 1e8 < result["tsc_hertz"] < 1e11 and result["unit"] == "TSC ticks a packet"
    kernels = ["receive", "parse", "lookup", "verify", "open_connections", "transition", "rewrite", "dispose, send"]
    assert [name for name in result["stages"] if name in kernels] == kernels
    for row in [*result["stages"].values(), result["pass"]]:
        assert list(row) == ["1", "3", "32"]
        assert all(0 <= cell["low"] <= cell["median"] <= cell["high"] for cell in row.values())
    assert all(result["stages"]["parse"][burst]["median"] > 0 < result["pass"][burst]["low"] for burst in row)
    passes = result["pass"]
    assert result["ratio_32_to_1"] == pytest.approx(passes["32"]["median"] / passes["1"]["median"], abs=0.001)


def test_stages_prints_a_table():
    made = run("stages.py", "--connections", "40", "--packets", "64", "--runs", "1", "--bursts", "1,32")
    assert made.returncode == 0, made.stderr
    assert "whole pass" in made.stdout and "transition" in made.stdout and "in a burst of 32 costs" in made.stdout


def test_stages_refuses_what_it_cannot_do():
    for arguments in (["--bursts", "0,32"], ["--bursts", "x"], ["--core", "4096"], ["--connections", "0"]):
        made = run("stages.py", *arguments)
        assert made.returncode == 2 and arguments[0] in made.stderr and not made.stdout


def test_help_says_what_a_script_measures():
    for script in sorted(PERF.glob("*.py")):
        made = run(script.name, "--help")
        assert made.returncode == 0 and "--json" in made.stdout, f"{script.name}: {made.stderr}"
