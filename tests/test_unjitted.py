"""The same work as plain Python and with bounds checked: the whole loop byte by byte, and the kernels' tests."""

import functools
import json
import os
import pathlib
import subprocess
import sys

import pytest
from numba.core import config

HERE = pathlib.Path(__file__).resolve().parent
MODES = {"jitted": {}, "plain Python": {"NUMBA_DISABLE_JIT": "1"}, "bounds checked": {"NUMBA_BOUNDSCHECK": "1"}}
OF_KERNELS = (
    "sequence",
    "checksum",
    "flow_table",
    "tables",
    "single_wheel",
    "wheel",
    "parse",
    "rewrite",
    "express",
    "initial_number",
    "select_kernels",
    "payload_rules",
    "arp",
    "icmp",
    "icmp_errors",
    "refuse",
    "build",
    "services",
    "arena",
    "toeplitz",
    "nic_model",
    "proxy_header",
    "exception",
)
if os.environ.get("PIPELINE_SOAK") == "1":  # half a minute of compiling
    OF_KERNELS += ("select_tls", "select_octets", "select_http", "select_http2", "select_ldap", "select_postgresql", "select_redis",
                   "select_mqtt")
LONGEST_COMPILATION = 600

pytestmark = pytest.mark.skipif(
    bool(config.DISABLE_JIT or config.BOUNDSCHECK), reason="this is the run that starts the others"
)


def child(mode, *command):
    """Runs Python in one of MODES with warnings of overflow as errors; returns what it wrote to stdout."""
    environment = {
        name: value for name, value in os.environ.items() if name not in ("NUMBA_DISABLE_JIT", "NUMBA_BOUNDSCHECK")
    }
    environment |= MODES[mode] | {"PYTHONPATH": str(HERE.parent), "KERNEL_EXAMPLES": "6"}
    done = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", *command],
        env=environment,
        cwd=HERE.parent,
        capture_output=True,
        text=True,
        timeout=LONGEST_COMPILATION,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


@functools.cache
def story(mode):
    """What whole_connection.py tells in a mode."""
    return json.loads(child(mode, str(HERE / "whole_connection.py")))


def test_the_story_is_worth_comparing():
    told = story("jitted")
    ports = [port for port, _ in told["frames"]]
    assert ports.count(0) > 50 and ports.count(1) > 20 and told["open"] == told["lost_mbufs"] == 0
    assert len(told["drops"]) >= 8 and told["notices"]["syn_retransmitted"] and told["notices"]["resets_sent"]


@pytest.mark.parametrize("mode", ["plain Python", "bounds checked"])
def test_the_whole_loop_gives_the_same_frames_and_leaves_the_same_state(mode):
    expected, found = story("jitted"), story(mode)
    for number, (mine, theirs) in enumerate(zip(expected["frames"], found["frames"], strict=False)):
        assert mine == theirs, f"frame {number} differs"
    assert len(expected["frames"]) == len(found["frames"])
    differing = [name for name, digest in expected["state"].items() if found["state"][name] != digest]
    assert not differing and expected == found


@pytest.mark.parametrize("mode", ["plain Python", "bounds checked"])
def test_the_tests_of_kernels_pass_in_the_other_modes(mode):
    said = child(
        mode,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-W",
        "error::RuntimeWarning",
        *(str(HERE / f"test_{name}.py") for name in OF_KERNELS),
    )
    assert " passed" in said and int(said.rpartition("\n")[0].splitlines()[-1].split(" passed")[0].split()[-1]) > 250


def test_simple_mode_and_failing_targets_touch_nothing_out_of_range():
    """As plain Python an index out of range raises; a jitted loop would have written beyond an array."""
    modules = [str(HERE / f"test_tcp_{name}.py") for name in ("simple", "target_fails")]
    said = child("plain Python", "-m", "pytest", "-q", "-p", "no:cacheprovider", *modules)
    assert " passed" in said
