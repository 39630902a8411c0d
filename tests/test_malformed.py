"""A million malformed frames through the whole loop, while connections stay open and transfer data (issue 2).

Each frame is to be counted under its reason, or answered, or passed on; no mbuf may be lost; and every octet of the
connections has to arrive. PIPELINE_SEED repeats a run, PIPELINE_SOAK=1 (`make soak`) feeds a million of each kind.
"""
import os
import pathlib
import secrets
import subprocess
import sys

import pytest
from flood import SETTINGS, Flood
from malformed import EVERY_KIND, giants
from memory_loop import composed

from pipeline.memory_engine import MemoryEngine

SEED = int(os.environ.get("PIPELINE_SEED") or secrets.randbits(32))
SOAK = os.environ.get("PIPELINE_SOAK") == "1"
TOTAL = int(os.environ.get("PIPELINE_MALFORMED", "1000000"))
KINDS_A_ROUND, A_ROUND, GIANTS_A_ROUND = 8, 256, 64


@pytest.fixture
def flood():
    print(f"PIPELINE_SEED={SEED}")
    return Flood(MemoryEngine(SETTINGS, mbufs=1 << 15, ring_size=1 << 13, run=composed()), SEED)


@pytest.mark.parametrize("kind", EVERY_KIND, ids=lambda kind: kind.__name__)
def test_each_kind_has_its_reason(flood, kind):
    for _ in range(6):
        flood.round({kind: GIANTS_A_ROUND if kind is giants else 500})
    flood.finish()


def test_a_million_malformed_frames(flood):
    some = TOTAL // 64
    wanted = {kind: TOTAL if SOAK else some if kind is giants else -(-(TOTAL - some) // (len(EVERY_KIND) - 1))
              for kind in EVERY_KIND}
    while waiting := [kind for kind in EVERY_KIND if flood.kinds[kind.__name__] < wanted[kind]]:
        chosen = [waiting[number] for number in flood.random.permutation(len(waiting))[:KINDS_A_ROUND]]
        flood.round({kind: min(GIANTS_A_ROUND if kind is giants else A_ROUND,
                               -(-(wanted[kind] - flood.kinds[kind.__name__]) // 2)) for kind in chosen})
    assert flood.fed >= TOTAL * (len(EVERY_KIND) if SOAK else 1)
    flood.finish()
    print(f"{flood.fed} malformed frames: {flood.kinds}")


def test_nothing_is_read_outside_its_array():
    """The same with Numba's bounds checking, which compiles the loop once more, into its own part of the cache."""
    environment = {**os.environ, "NUMBA_BOUNDSCHECK": "1", "PIPELINE_MALFORMED": "1000000" if SOAK else "30000", "PIPELINE_SOAK": "",
                   "PIPELINE_SEED": str(SEED + 1)}
    run = subprocess.run([sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", __file__, "-k",
                          "each_kind or a_million"], env=environment, capture_output=True, text=True, timeout=900,
                         check=False)
    assert run.returncode == 0 and f"{len(EVERY_KIND) + 1} passed" in run.stdout, run.stdout + run.stderr


@pytest.mark.parametrize("device", ["ring", "af_packet"])
def test_a_real_device_hands_over_the_same(device):
    """A few thousand frames through DPDK: EAL starts once a process, so this one has a process of its own."""
    pytest.importorskip("pipeline.io.dpdk", reason="DPDK is not installed", exc_type=ImportError)
    if os.geteuid() != 0 and device == "af_packet":
        pytest.skip("needs root: network namespaces and packet sockets")
    script = pathlib.Path(__file__).with_name("malformed_devices.py")
    run = subprocess.run([sys.executable, script, device, str(SEED)], capture_output=True, text=True, timeout=300,
                         check=False)
    assert run.returncode == 0, f"PIPELINE_SEED={SEED}\n{run.stdout}{run.stderr}"
    assert int(run.stdout.split()[0]) > 5000
