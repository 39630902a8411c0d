"""`kernels new` writes kernels that pass `kernels check`, and `kernels check` finds what is wrong with others."""

import json
import os

import pytest
from click.testing import CliRunner
from numba.core import config

from pipeline import kernel_check, kernel_places, new_kernel
from pipeline.command_line import commands
from pipeline.errors import ConfigurationError
from pipeline.slots import SLOTS

WITH_A_LOOP = ("express", "transition", "rewrite")
compiled = pytest.mark.skipif(bool(config.DISABLE_JIT), reason="says what does not compile")
SLOW_TO_COMPILE = pytest.mark.skipif(bool(config.DISABLE_JIT), reason="an engine in plain Python takes minutes")


def checked(tmp_path, text, slot=None):
    """Checks the function f of a file with this text; returns the report."""
    (tmp_path / "mine.py").write_text(text)
    return kernel_check.check(f"{tmp_path / 'mine.py'}:f", slot)


def said(report):
    """Returns all that a report complains of."""
    return "\n".join(finding["said"] for finding in report["findings"] if not finding["passed"])


@pytest.mark.parametrize("slot", [slot for slot in SLOTS if slot not in WITH_A_LOOP])
def test_what_new_writes_passes_the_check(tmp_path, slot):
    place = new_kernel.write(slot, tmp_path / "mine.py")
    report = kernel_check.check(place)
    assert report["slot"] == slot and report["passed"], said(report)


if os.environ.get("PIPELINE_SOAK") == "1":  # a loop to compile, twice
    @SLOW_TO_COMPILE
    def test_what_new_writes_for_connections_passes_the_check_and_what_goes_wrong_is_shown(tmp_path):
        """One of the three whose trial has a whole engine in it; all of them share its loop."""
        place = new_kernel.write("rewrite", tmp_path / "mine.py")
        report = kernel_check.check(place)
        assert report["passed"] and "of 64 open connections" in report["findings"][-1]["said"], said(report)
        text = (tmp_path / "mine.py").read_text().replace("MARK = -1", "MARK = 184")
        (tmp_path / "other.py").write_text(text)
        report = kernel_check.check(str(tmp_path / "other.py") + place[place.rindex(":"):])
        assert not report["passed"] and "packets.octets[" in said(report)


@pytest.mark.parametrize("slot", SLOTS)
def test_a_starting_point_says_what_its_slot_asks(tmp_path, slot):
    new_kernel.write(slot, tmp_path / "mine.py")
    text = (tmp_path / "mine.py").read_text()
    assert all(f"\n{name}: " in text for name in SLOTS[slot].parameters) and f"--kernel {slot}=" in text
    with pytest.raises(ConfigurationError, match="is there already"):
        new_kernel.write(slot, tmp_path / "mine.py")


@compiled
@pytest.mark.parametrize(("body", "words"), [
    ("    return np.zeros(2, np.int64)[0]", "mine.py:3: it allocates memory"),
    ("    found = [1]\n    found.append(2)\n    return found[0]", "it allocates memory"),
    ("    return payload.nothing", "mine.py:3: Unknown attribute 'nothing'"),
    ("    return unheard_of", "mine.py:3: NameError: name 'unheard_of'"),
    ("    return selection.services[service].members / 1", "float64"),
    ("    return selection.services[service].members", "it must be 0 to 2"),
    ("    if payload.shape[0] > 3:\n        raise ValueError\n    return 0", "a kernel must not raise")])
def test_a_select_kernel_that_will_not_do_is_told_why(tmp_path, body, words):
    report = checked(tmp_path, f"import numpy as np\ndef f(payload, service, selection):\n{body}\n")
    assert report["slot"] == "select" and not report["passed"] and words in said(report), said(report)


@pytest.mark.parametrize(("line", "words"), [
    ("raise ValueError", "below raises"), ("print(octets)", "below prints"), ("assert octets", "below asserts")])
def test_what_raises_or_prints_is_refused_before_it_is_compiled(tmp_path, line, words):
    path = tmp_path / "mine.py"
    path.write_text("from pipeline.kernels.jit import kernel\n\n\n@kernel\ndef below(octets):\n    if octets > 3:\n"
                    f"        {line}\n    return 0\n\n\ndef f(payload, service, selection):\n    return below(payload.shape[0])\n\n\n"
                    "def unused():\n    raise KeyError\n")
    with pytest.raises(ConfigurationError, match=f"mine.py:7: {words}"):
        kernel_places.kernel_at("select", f"{path}:f")
    report = checked(tmp_path, path.read_text())
    assert not report["passed"] and words in said(report)


@pytest.mark.parametrize(("text", "words"), [
    (("from pipeline.kernels.parse import parse\ndef f(packets, base, batch, count, port, network, counters):\n"
      "    parse(packets, base, batch, count, port, network, counters)\n    batch.window[count - 1] += 1\n"),
     "batch.window[63]: the reference has"),
    (("from pipeline.kernels.lookup import bucketed\ndef f(batch, count, buckets, hot):\n"
      "    bucketed(batch, count, buckets, hot)\n    batch.flow[0] = -1\n"), "batch.flow[0]: the reference has"),
    ("from pipeline.kernels.wheel import advance\ndef f(wheel, tick, expired):\n    return advance(wheel, tick - 1, expired)\n",
     "it has not come to tick"),
    ("def f(packets, base, batch, count, connections, observed, now):\n    batch.verdict[0] = 5\n", "batch.verdict[0]: "),
    ("def f(remote, local, remote_port, local_port):\n    return remote ^ remote_port\n", "it spreads badly"),
    ("def f(inputs):\n    return 1\n", "is left out for more than 256 passes"),
    ("def f(payload, length, position, tailroom, user):\n    return length + tailroom + 1\n", "it must be 0 to"),
    ("def f(records, counters, hot, cold, connection, causes, now):\n    records.head[0] += 2\n", "records.head moves by 2")])
def test_what_differs_is_shown(tmp_path, text, words):
    report = checked(tmp_path, text)
    assert not report["passed"] and words in said(report), said(report)


def invoke(*arguments):
    return CliRunner().invoke(commands, arguments)


def test_the_commands_say_it_in_text_in_json_and_by_their_exit_status(tmp_path):
    path = tmp_path / "mine.py"
    assert invoke("kernels", "new", "schedule", str(path)).exit_code == 0
    assert invoke("kernels", "new", "schedule", str(path)).exit_code == 2
    assert "did you mean" in invoke("kernels", "new", "schedul", str(tmp_path / "x.py")).stderr
    result = invoke("kernels", "check", f"{path}:order", "--json")
    assert result.exit_code == 0 and json.loads(result.stdout)["passed"]
    path.write_text("def order(inputs):\n    return -1\n")
    result = invoke("kernels", "check", f"{path}:order")
    assert result.exit_code == 1 and "FAILED does what the slot asks: it answers -1" in result.stdout


def test_no_kernel_and_wrong_signatures_are_bad_input(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("def probe(batch, count, buckets):\n    return 0\n")
    result = invoke("kernels", "check", f"{path}:probe", "--slot", "lookup")
    assert result.exit_code == 2 and "lookup(batch, count, buckets, hot)" in result.stderr and "probe(batch, count, buckets)" in result.stderr
    result = invoke("kernels", "check", f"{path}:probe")
    assert result.exit_code == 2 and "has the parameters of no slot" in result.stderr and "--slot" in result.stderr
    for arguments in ((f"{path}:gone",), ("nothing",), (f"{tmp_path / 'gone.py'}:f",), (f"{path}:probe", "--slot", "lookups")):
        assert invoke("kernels", "check", *arguments).exit_code == 2


@pytest.mark.parametrize(("content", "words"), [
    ("def probe(batch, count, buckets, hot)", "cannot be loaded: SyntaxError"),
    ("import sys\nsys.exit(0)", "cannot be loaded: SystemExit"),
    ("class probe:\n    pass", "there is no function probe there"),
])
def test_a_file_that_has_no_kernel_is_refused_without_words_of_a_slot(tmp_path, content, words):
    (tmp_path / "mine.py").write_text(content + "\n")
    result = invoke("kernels", "check", f"{tmp_path}/mine.py:probe")
    assert result.exit_code == 2 and words in result.output and result.output.startswith("kernel = ")
