"""perf/path.py runs and says what it says; how fast anything is, is never asserted."""
import json
import pathlib
import subprocess
import sys

from peers.requirements import needs_bed

SCRIPT = pathlib.Path(__file__).parents[1] / "perf" / "path.py"
pytestmark = needs_bed


def run(*arguments):
    """What the script answers."""
    return subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True, timeout=500, check=False)


def test_path_prints_one_json_document():
    made = run("--json", "--runs", "2", "--size", "1", "--case", "loss-1")
    assert made.returncode == 0, made.stderr
    result = json.loads(made.stdout)
    case, = result["cases"].values()
    assert (result["runs"], case["megabytes"], case["faults_of_each_port"]) == (2, 1, {"loss": 0.005})
    for way in ("up", "down"):
        row = case["ways"][way]
        assert all(len(row["rates"][mode]) == 2 and min(row["rates"][mode]) > 0 for mode in ("forward", "proxy"))
        assert abs(row["ratio"] - row["median"]["proxy"] / row["median"]["forward"]) < 0.02
        assert row["options"] == ["sack", "timestamps", "wscale"]
    assert case["counters"]["proxy"]["retransmitted"] > 0 < case["counters"]["forward"]["retransmitted"]


def test_path_prints_tables():
    made = run("--runs", "1", "--size", "1", "--case", "duplicate")
    assert made.returncode == 0, made.stderr
    assert "1 % repeated" in made.stdout and "challenge ACKs" in made.stdout and "SHA-256" in made.stdout


def test_path_refuses_what_it_does_not_know():
    made = run("--case", "nothing")
    assert made.returncode == 2 and "--case" in made.stderr and not made.stdout
