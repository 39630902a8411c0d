"""Every select and payload kernel of ours is shown a million inputs that mean ill, with bounds checked: see select_fuzz.py, payload_fuzz.py.

PIPELINE_SEED chooses the run, PIPELINE_FUZZ how many inputs. Of the soak alone: a minute of compiling, and some of running.
"""
import os
import pathlib
import secrets
import subprocess
import sys

import pytest

from pipeline.slots import names

HERE = pathlib.Path(__file__).resolve().parent
SEED = int(os.environ.get("PIPELINE_SEED") or secrets.randbits(31))
INPUTS = int(os.environ.get("PIPELINE_FUZZ") or 1_000_000)
LONGEST = 600 + INPUTS // 200
"""Seconds."""


@pytest.mark.parametrize("slot", ["select", "payload"])
def test_no_bytes_lead_a_kernel_astray(slot):
    run = subprocess.run([sys.executable, HERE / f"{slot}_fuzz.py", str(INPUTS), str(SEED)], capture_output=True, text=True, timeout=LONGEST,
                         env={**os.environ, "NUMBA_BOUNDSCHECK": "1", "PYTHONPATH": str(HERE.parent)}, check=False)
    print(run.stdout)
    assert run.returncode == 0, f"PIPELINE_SEED={SEED}\n{run.stdout}{run.stderr[-4000:]}"
    told = run.stdout.splitlines()
    assert told[0] == "bounds checked" and [line.split()[0] for line in told[1:]] == list(names(slot))
