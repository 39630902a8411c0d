"""perf/peers.py and perf/latency.py run over real ports and leave nothing behind; how fast anything is, is never asserted."""
import contextlib
import json
import os
import pathlib
import secrets
import subprocess
import sys

from peers.requirements import needs_bed

PERF = pathlib.Path(__file__).parents[1] / "perf"
SHORT = ("--devices", "af_packet", "--runs", "1", "--seconds", "0.1")
pytestmark = needs_bed


def start(*arguments):
    """The script's process; what it starts inherits a mark by which it is known among what others run on the machine."""
    mark = secrets.token_hex(8)
    process = subprocess.Popen([sys.executable, PERF / "peers.py", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               text=True, env={**os.environ, "STARTED_BY": mark})
    process.mark = f"STARTED_BY={mark}".encode()
    return process


def programs_of(process):
    """The command lines of what runs and was started by a script, itself among it."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            if process.mark in path.read_bytes().split(b"\0"):
                found.append(path.with_name("cmdline").read_bytes())
    return found


def assert_nothing_is_left_of(process):
    """No namespace of it, no entry of its bed, and no program of its."""
    name = f"peers{process.pid}"
    assert not [left for left in os.listdir("/run/netns") if left.startswith(f"{name}-")]
    assert not pathlib.Path(f"/run/proxy-pipeline/beds/{name}.json").exists()
    assert not programs_of(process)


def test_peers_prints_one_json_document_and_cleans_up():
    process = start("--json", "--peers", "engine,dnat", *SHORT)
    out, errors = process.communicate(timeout=500)
    assert process.returncode == 0, errors
    result = json.loads(out)
    there = [name for name in ("direct", "dnat", "engine af_packet") if name not in result["missing"]]
    assert list(result["peers"]) == there and {"direct", "engine af_packet"} <= set(there)
    for name, row in result["peers"].items():
        assert row["failed"] == 0 and row["one_core"]["connections"]["median"] > 0, name
        assert 0 < row["two_cores"]["alone_p50"]["median"] <= row["two_cores"]["alone_p99"]["median"]
        assert row["two_cores"]["gigabits"]["median"] > 0
        assert ("gigabits_offloaded" in row["two_cores"]) == (row["device"] is None)
    assert result["peers"]["direct"]["one_core"]["microseconds"]["median"] == 0
    assert "never what the engine can do" in result["says"]
    assert_nothing_is_left_of(process)


def test_peers_stopped_half_way_leaves_nothing():
    process = start("--peers", "engine", *SHORT, "--runs", "1000")
    assert any("starting engine" in line for line in process.stderr)
    running = programs_of(process)
    for words in ("peers.py", "kernel_ends.py\0serve", "kernel_ends.py\0ask"):
        assert any(words.encode() in line for line in running), running
    process.terminate()
    process.communicate(timeout=120)
    assert process.returncode == 143
    assert_nothing_is_left_of(process)


def test_a_peer_that_is_not_installed_is_named_with_its_package(monkeypatch):
    monkeypatch.syspath_prepend(str(PERF))
    import peers_started

    monkeypatch.setitem(peers_started.NEEDS, "haproxy", ("no-such-program", "haproxy"))
    assert peers_started.missing("haproxy") == "Debian's package haproxy is not installed (apt-get install haproxy)"
    assert peers_started.missing("engine") is None


if os.environ.get("PIPELINE_SOAK") == "1":  # a minute of compiling and waiting; test_perf_scripts.py runs the script without ports
    def test_latency_measures_round_trips_over_real_ports_too():
        made = subprocess.run([sys.executable, PERF / "latency.py", "--runs", "1", "--seconds", "0.1", "--connections", "40",
                               "--packets", "64", "--loads", "50"], capture_output=True, text=True, timeout=500, check=False)
        assert made.returncode == 0, made.stderr
        assert all(words in made.stdout for words in ("no peer", "plain wire", "engine af_packet", "the proxy adds"))


def test_peers_refuses_what_it_does_not_know():
    process = start("--devices", "nothing")
    out, errors = process.communicate(timeout=100)
    assert process.returncode == 2 and "--devices" in errors and not out
