"""The scripts that measure run and print what they say; how fast anything is, is never asserted."""
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

PERF = pathlib.Path(__file__).parents[1] / "perf"
SCRIPTS = sorted(path.name for path in PERF.glob("*.py") if "\n@measurement.script(" in path.read_text())


def run(script, *arguments):
    return subprocess.run([sys.executable, PERF / script, *arguments], capture_output=True, text=True, timeout=600,
                          check=False)


if os.environ.get("PIPELINE_SOAK") == "1":  # a minute of compiling
    def test_stages_prints_one_json_document():
        made = run("stages.py", "--json", "--connections", "40", "--packets", "128", "--runs", "2", "--bursts", "1,3,32")
        assert made.returncode == 0, made.stderr
        result = json.loads(made.stdout)
        assert (result["connections"], result["packets"], result["runs"], result["bursts"]) == (40, 128, 2, [1, 3, 32])
        assert result["unit"] == "TSC ticks a packet"
        kernels = ["receive", "parse", "lookup", "express, send", "verify", "open_connections", "transition", "rewrite",
                   "dispose, send"]
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


if os.environ.get("PIPELINE_SOAK") == "1":  # loops to compile
    def test_latency_at_every_load_has_percentiles_in_order():
        made = run("latency.py", "--json", "--without-ports", "--connections", "40", "--packets", "256", "--runs", "1",
                   "--loads", "10,50")
        assert made.returncode == 0, made.stderr
        result = json.loads(made.stdout)
        assert [row["load"] for row in result["memory"]["rows"]] == [10, 50] and result["ports"] == {"skipped": "left out"}
        assert result["memory"]["packets_a_second"]["median"] > 0
        for row in result["memory"]["rows"]:
            values = [row[share]["median"] for share in ("p50", "p90", "p99", "p99.9", "max")]
            assert values == sorted(values) and values[-1] > 0


def test_cps_takes_connections_through_their_whole_life():
    made = run("cps.py", "--json", "--open", "40,100", "--together", "32", "--runs", "2")
    assert made.returncode == 0, made.stderr
    result = json.loads(made.stdout)
    assert [row["open"] for row in result["rows"]] == [40, 100] and len(result["steps"]) == 9
    for row in result["rows"]:
        for records in (row["records_off"], row["records_on"]):
            assert list(records["steps"]) == result["steps"]
            assert all(cell["median"] > 0 for cell in records["steps"].values())
            whole = sum(cell["median"] for cell in records["steps"].values())
            assert records["ticks"]["median"] == pytest.approx(whole, rel=0.5)
            tsc_hertz = result["machine"]["tsc_hertz"]
            assert records["connections_a_second"] == pytest.approx(tsc_hertz / records["ticks"]["median"], rel=0.01)


def test_capacity_opens_uses_and_closes_all_connections():
    made = run("capacity.py", "--json", "--open", "33000", "--together", "1024", "--runs", "1")
    assert made.returncode == 0, made.stderr
    (row,) = json.loads(made.stdout)["rows"]
    assert row["open"] == 33000 and list(row["ticks"]) == ["open", "use, a packet each way", "close"]
    assert all(ticks > 0 for ticks in row["ticks"].values()) and not any(row["left"].values())
    assert row["octets_a_connection"] == pytest.approx(sum(row["octets"].values()) / row["capacity"]) and len(row["octets"]) == 5


def test_forward_measures_every_size_and_number():
    made = run("forward.py", "--json", "--connections", "50,200", "--octets", "64,1500", "--runs", "1", "--without-net-ring",
               "--without-testpmd")
    assert made.returncode == 0, made.stderr
    result = json.loads(made.stdout)
    assert [(row["connections"], row["octets"]) for row in result["rows"]] == [(50, 64), (50, 1500), (200, 64), (200, 1500)]
    assert all(row["memory"]["ticks"]["median"] > 0 and "net_ring" not in row for row in result["rows"])
    assert result["mbufs"] >= 16384 and result["verified"] > 0


@pytest.mark.skipif(shutil.which("dpdk-testpmd") is None, reason="testpmd is not installed (Debian: apt-get install dpdk-dev)")
def test_forward_is_compared_with_testpmd_on_the_same_kind_of_port():
    made = run("forward.py", "--connections", "50", "--octets", "64", "--runs", "1")
    assert made.returncode == 0, made.stderr
    assert all(words in made.stdout for words in ("net_ring", "macswap", "5tswap", "of macswap"))


def test_stages_refuses_what_it_cannot_do():
    for arguments in (["--bursts", "0,32"], ["--bursts", "x"], ["--core", "4096"], ["--connections", "0"]):
        made = run("stages.py", *arguments)
        assert made.returncode == 2 and arguments[0] in made.stderr and not made.stdout


def test_every_result_describes_the_machine():
    made = run("stages.py", "--json", "--connections", "40", "--packets", "64", "--runs", "1", "--bursts", "32", "--core", "0")
    result = json.loads(made.stdout)
    host = result["machine"]
    assert (result["script"], host["core"], host["python"]) == ("stages.py", 0, sys.version.split()[0])
    assert 1e8 < host["tsc_hertz"] < 1e11 and 1e8 < host["core_hertz"] < 1e11
    assert host["processor"] and host["kernel"] and host["numba"] and "dpdk" in host


if os.environ.get("PIPELINE_SOAK") == "1":  # half a minute
    def test_a_plot_goes_to_a_file(tmp_path):
        pytest.importorskip("matplotlib", reason="matplotlib is not installed: it comes with the extras perf and test")
        made = run("stages.py", "--connections", "40", "--packets", "64", "--runs", "1", "--bursts", "1,32",
                   "--plot", tmp_path / "stages.svg")
        assert made.returncode == 0, made.stderr
        drawn = (tmp_path / "stages.svg").read_text()
        assert drawn.startswith("<?xml") and "<svg" in drawn
        assert "whole pass" in made.stdout


def test_without_matplotlib_a_plot_is_refused_in_a_sentence(tmp_path):
    (tmp_path / "matplotlib.py").write_text("raise ImportError('not here')\n")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"}
    made = subprocess.run([sys.executable, PERF / "stages.py", "--plot", tmp_path / "x.svg"], capture_output=True, text=True,
                          timeout=600, check=False, env=environment)
    assert made.returncode == 1 and not made.stdout
    assert re.fullmatch(r"Error: --plot needs matplotlib: .*\n", made.stderr)


def test_runs_take_turns_and_the_first_only_warms_up():
    sys.path.insert(0, str(PERF))
    import measurement

    order = []
    taken = measurement.in_turns({name: lambda name=name: order.append(name) or len(order) for name in "ab"}, 3)
    assert order == list("abababab")
    assert (taken["a"].tolist(), taken["b"].tolist()) == ([3, 5, 7], [4, 6, 8])
    assert measurement.quartiles(taken["a"]) == {"low": 4.0, "median": 5.0, "high": 6.0}


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_says_what_a_script_measures(script):
    made = run(script, "--help")
    assert made.returncode == 0, made.stderr
    assert all(option in made.stdout for option in ("--json", "--plot", "--runs"))


LOST = """
import os, signal
import measurement

class Lost:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        list(range(9))

measurement.end_on_sigterm()
runs = []
def case():
    runs.append(Lost() and 0)
    assert len(runs) < 3, "it goes on"
    return 0
measurement.in_turns({"only": case}, 100)
"""


def test_a_script_ends_by_sigterm_also_where_python_loses_the_exception():
    made = subprocess.run([sys.executable, "-c", LOST], env={**os.environ, "PYTHONPATH": str(PERF)}, capture_output=True, text=True,
                          timeout=100, check=False)
    assert made.returncode == 143 and "Exception ignored" in made.stderr, made.stderr


if os.environ.get("PIPELINE_SOAK") == "1":  # half a minute
    @pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="two workers need two cores, and this process may use one")
    def test_scaling_sets_two_workers_beside_two_copies():
        made = run("scaling.py", "--json", "--open", "40", "--together", "32", "--runs", "1")
        assert made.returncode == 0, made.stderr
        result = json.loads(made.stdout)
        (row,) = result["rows"]
        assert row["open"] == 40 and len(result["cores"]) == 2 and len(result["steps"]) == 9
        assert [len(row[way]["ticks"]) for way in ("alone", "copies", "workers", "handed")] == [1, 2, 2, 2]
        for way in ("alone", "copies", "workers", "handed"):
            assert list(row[way]["steps"]) == result["steps"] and all(cell["median"] > 0 for cell in row[way]["steps"].values())
        (ticks,) = row["alone"]["ticks"]
        # The rate of one worker is a fraction of its ticks, and the runs are odd in number: their medians are of the same run.
        assert row["alone"]["connections_a_second"]["median"] == pytest.approx(result["machine"]["tsc_hertz"] / ticks["median"], rel=0.001)
        assert row["alone"]["scaling"] == {"median": 1.0, "low": 1.0, "high": 1.0}
        assert [goal["value"] for goal in result["goals"]] == [row["of_copies"]["median"], row["with_hand_over"]["median"]]
        assert [goal["reached"] for goal in result["goals"]] == [row["of_copies"]["median"] >= 0.95, row["with_hand_over"]["median"] <= 1.3]


def test_scaling_adds_the_rates_of_workers_run_by_run():
    sys.path.insert(0, str(PERF))
    import measurement
    import numpy as np
    import scaling
    shares = np.full(len(scaling.STEPS), 1 / len(scaling.STEPS))
    whole = {"alone": [[1000.0]] * 3, "copies": [[1000, 1250], [1250, 1000], [1000, 1000]],
             "workers": [[1000, 2000], [2000, 1000], [2000, 2000]], "handed": [[1500, 3000], [3000, 1500], [3000, 3000]]}
    row = scaling.compared(7, {way: np.array(ticks)[:, :, None] * shares for way, ticks in whole.items()})
    hertz = measurement.tsc_hertz()
    assert row["open"] == 7 and row["workers"]["connections_a_second"]["median"] == pytest.approx(hertz * 1.5 / 1000)
    assert row["copies"]["scaling"]["median"] == pytest.approx(1.8) and row["workers"]["scaling"]["median"] == pytest.approx(1.5)
    assert row["of_copies"]["median"] == pytest.approx(1.5 / 1.8, abs=1e-4) and row["with_hand_over"]["median"] == pytest.approx(1.5)
    assert [cell["median"] for cell in row["handed"]["ticks"]] == [3000, 3000]


def test_a_worker_that_fails_leaves_none_waiting():
    sys.path.insert(0, str(PERF))
    from worker_network import Threads, meet

    def waits(meeting, place):
        meet(meeting.cells, place)
        meet(meeting.cells, place)
        meeting.swap(place, "mine")

    def fails(meeting, place):
        raise ArithmeticError("a fault")
    with Threads([0, 0]) as threads:
        assert threads.each([lambda meeting, place: (place, meeting.swap(place, place))] * 2) == [(0, 1), (1, 0)]
        with pytest.raises(ArithmeticError, match="a fault"):
            threads.each([waits, fails])
