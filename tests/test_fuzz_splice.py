"""Thirty thousand segments through parse, transition and rewrite with bounds checked, judged by a model of the end points.

`tests/oracle` has the model and the fuzz (issue 3); four fifths belong to live connections, half of those to edges of their
windows and states. PIPELINE_SEED chooses the run. `make test` plays the same one each time, so that it fails for what a change
has done and not by chance; PIPELINE_SOAK=1 (`make soak`) plays ten million segments that nobody has seen before.
"""
import os
import pathlib
import secrets
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
SOAK = os.environ.get("PIPELINE_SOAK") == "1"
SEED = int(os.environ.get("PIPELINE_SEED") or (secrets.randbits(32) if SOAK else 5961))
TOTAL = int(os.environ.get("PIPELINE_FUZZ") or (10_000_000 if SOAK else 30_000))
LONGEST = 600 + TOTAL // 2000
"""Seconds: compiling, and far more than a segment takes."""


def test_what_passes_the_splice_is_what_the_end_points_may_see():
    environment = {**os.environ, "NUMBA_BOUNDSCHECK": "1", "PYTHONPATH": str(HERE.parent)}
    run = subprocess.run([sys.executable, HERE / "oracle", str(TOTAL), str(SEED)], env=environment, capture_output=True, text=True,
                         timeout=LONGEST, check=False)
    print(run.stdout)
    assert "bounds checked" in run.stdout
    assert run.returncode == 0, f"PIPELINE_SEED={SEED}\n{run.stdout[-12000:]}{run.stderr[-4000:]}"
