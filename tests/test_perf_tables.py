"""perf/flow_table.py, perf/timer_wheel.py and perf/twins.py run and print what they say; no speed is ever asserted."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import pytest

PERF = pathlib.Path(__file__).parents[1] / "perf"
HAS_SHIM = importlib.util.find_spec("pipeline._dpdk") is not None


def run(script, *arguments):
    return subprocess.run([sys.executable, PERF / script, *arguments], capture_output=True, text=True, timeout=300, check=False)


def in_order(cell):
    return 0 < cell["low"] <= cell["median"] <= cell["high"]


def test_flow_table_sets_ours_beside_rte_hash():
    made = run("flow_table.py", "--json", "--runs", "2", "--keys", "1000,2001", "--loads", "50,90", "--pages", "small")
    assert made.returncode == 0, made.stderr
    result = json.loads(made.stdout)
    assert result["unit"] == "TSC ticks a key" and not result["huge_pages"]
    names = ["ours, 50 %", "ours, 90 %"] + HAS_SHIM * ["rte_hash, keys of 12", "rte_hash, keys of 16"]
    assert [(row["keys"], row["table"]) for row in result["rows"]] == [(keys, name) for keys in (1000, 2001) for name in names]
    for row in result["rows"]:
        assert all(in_order(row[operation]) for operation in ("hit", "miss", "insert", "delete"))
        assert abs(row["load"] - float(row["table"][-4:-2]) / 100) < 0.05 if row["table"].startswith("ours") else row["load"] <= 1
        assert ("hit_ratio" in row) == (HAS_SHIM and row["table"].startswith("ours"))


def test_timer_wheel_sets_ours_beside_rte_timer():
    made = run("timer_wheel.py", "--runs", "2", "--timers", "500,2000", "--rte-most", "1000", "--json")
    assert made.returncode == 0, made.stderr
    rows = json.loads(made.stdout)["rows"]
    assert [(row["timers"], row["kind"]) for row in rows] == [(500, "ours"), *HAS_SHIM * [(500, "rte_timer")], (2000, "ours")]
    for row in rows:
        both = row.pop("schedule_and_cancel")
        assert in_order(both) and all(in_order(cell) for cell in row.values() if isinstance(cell, dict)) and len(row) == 9


def test_they_print_tables():
    made = run("flow_table.py", "--runs", "1", "--keys", "1000", "--loads", "90", "--pages", "small")
    assert made.returncode == 0 and "ours, 90 %" in made.stdout, made.stderr
    made = run("timer_wheel.py", "--runs", "1", "--timers", "500")
    assert made.returncode == 0 and "set + stop" in made.stdout, made.stderr


@pytest.mark.skipif(importlib.util.find_spec("pipeline._twins") is None, reason="the C twins are not built here: make install")
def test_twins_sets_kernels_beside_their_twins():
    made = run("twins.py", "--json", "--runs", "2", "--bursts", "1,32", "--connections", "100", "--packets", "128")
    assert made.returncode == 0, made.stderr
    bursts = json.loads(made.stdout)["bursts"]
    wanted = ["parse", "lookup", "rewrite", "express"]
    assert list(bursts) == ["1", "32"] and all(list(stages) == wanted for stages in bursts.values())
    for cell in (cell for stages in bursts.values() for cell in stages.values()):
        assert in_order(cell["numba"]) and in_order(cell["c"]) and cell["ratio"] > 0


if os.environ.get("PIPELINE_SOAK") == "1":  # loops to compile with and without marks
    def test_profile_measures_both_workloads_and_its_own_cost():
        made = run("profile.py", "--json", "--runs", "2", "--open", "64", "--together", "32", "--every", "2", "--bursts", "1,32")
        assert made.returncode == 0, made.stderr
        result = json.loads(made.stdout)
        assert list(result["workloads"]) == ["connections", "forwarding"]
        for found in result["workloads"].values():
            assert all(in_order(found["ticks"][way]) for way in ("off", "marked", "on")) and found["cost_on"]["median"] > 0
            assert found["profile"]["packets"] > 0 and found["profile"]["stages"] and found["profile"]["paths"]
        assert {row["size"] for row in result["by_size"]["sizes"]} >= {"1", "17-32"}
