"""The engine as its users run it: `python -m pipeline run CONFIG --json --records FILE`, a process of its own."""
import contextlib
import functools
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

from pipeline import stats_socket
from pipeline.errors import RunError

WORKERS = int(os.environ.get("BED_WORKERS", "1").split()[0])
"""How many workers an engine has, where a test does not say so itself."""


def cores(workers=WORKERS):
    """The keys of [engine] (dict) for so many workers; they share cores where the machine has fewer."""
    there = sorted(os.sched_getaffinity(0))
    if workers == 1:
        return {}
    return {"cores": [there[-1 - worker % len(there)] for worker in range(workers)], "oversubscribe": workers > len(there)}


def added(first, second):
    """Returns the sum of two counters, lists or dicts of them, whatever only one of them has included."""
    if isinstance(first, dict):
        return {key: added(first[key], second[key]) if key in first and key in second else {**first, **second}[key]
                for key in {**first, **second}}
    return first + second


def together(snapshot):
    """Returns a snapshot whose `workers` are one, the sum of all, so that a test need not know how many there are; `each` has them."""
    workers = snapshot.get("workers", [])
    return {**snapshot, "workers": [functools.reduce(added, workers)] if workers else [], "each": workers}


ROOT = pathlib.Path(__file__).resolve().parents[2]
COMPILED_WITHIN = 240
"""Seconds that the first start may take, kernels being compiled while others use the machine too."""


class EngineProcess:
    """Starts the engine on a configuration (TOML text), with its files in `folder`."""

    def __init__(self, text, folder):
        self.folder = pathlib.Path(folder)
        self.configuration = self.folder / "engine.toml"
        self.records_file = self.folder / "records.json"
        self.stats_path = self.folder / "stats.sock"
        self.configuration.write_text(text.replace("[engine]\n", f'[engine]\nstats_socket = "{self.stats_path}"\n', 1))
        self.process = None
        self.started = None
        self._output, self._errors = self.folder / "stdout", self.folder / "stderr"

    def start(self):
        """Start it; `wait_until_ready` says when it forwards."""
        self.folder.chmod(0o700)
        self.started = time.monotonic()
        with open(self._output, "wb") as output, open(self._errors, "wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pipeline", "run", str(self.configuration), "--json",
                 "--records", str(self.records_file)], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=errors,
                env={**os.environ, "PYTHONUNBUFFERED": "1"})

    def wait_until_ready(self):
        """Wait until its worker runs, and return its first counters; fails with what it said if it ends instead."""
        deadline = time.monotonic() + COMPILED_WITHIN
        while True:
            assert self.process.poll() is None, f"the engine ended with {self.process.returncode}:\n{self.words()}"
            assert time.monotonic() < deadline, f"the engine was not ready in time:\n{self.words()}"
            with contextlib.suppress(RunError):
                counters = self.stats()
                if counters["state"] == "running":
                    return counters
            time.sleep(0.05)

    def stats(self):
        """The counters of the running engine (dict, see `together`)."""
        return together(stats_socket.request(self.stats_path))

    def stop(self):
        """Ask it to stop, as Ctrl-C does; returns its summary (dict, see `together`)."""
        self.process.send_signal(signal.SIGINT)
        self.process.wait(30)
        assert self.process.returncode == 0, f"the engine ended with {self.process.returncode}:\n{self.words()}"
        return together(json.loads(self._output.read_text()))

    def kill(self):
        """End it at once, whatever it does; nothing happens if it has ended."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def records(self):
        """The session records written so far (list of dict)."""
        with open(self.records_file, encoding="utf-8") as lines:
            return [json.loads(line) for line in lines if line.endswith("\n")]

    def words(self):
        """The end of what it has said on standard error."""
        return self._errors.read_text(errors="replace")[-4000:]
