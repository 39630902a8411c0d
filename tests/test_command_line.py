"""The contract of the command line: exit statuses, sentences on stderr, one JSON document on stdout."""
import json
import os
import pathlib
import subprocess
import sys

import pytest
from click.testing import CliRunner

import pipeline
from pipeline import configuration, running, stats_socket
from pipeline.command_line import commands
from pipeline.live_table import Rates, render, span, totals
from pipeline.stats_socket import StatsServer

ROOT = pathlib.Path(__file__).parent.parent
TWO_PORT = str(ROOT / "configs" / "two_port.toml")
SNAPSHOT = {
    "name": "x", "uptime": 61.0, "state": "running",
    "workers": [{"core": 1, "packets": 700, "connections": {"open": 3, "opened": 100, "closed": 97},
                 "states": {"Established": 3}, "sides": {"client": {"received_syn": 100}, "target": {"sent_syn": 99}},
                 "release_causes": {"client": {"PassiveClose": 97}, "target": {"ActiveClose": 97}},
                 "drops": {"fragment": 2, "runt_frame": 0}}],
    "ports": [{"name": "p", "received": 400, "transmitted": 300}], "pool": {"mbufs": 16384, "available": 16000},
    "targets": [{"id": "a", "ip": "10.2.0.11", "port": 80, "open": 3, "connections": 99}],
    "neighbours": [{"address": "10.2.0.11", "mac": None}],
}


def invoke(*arguments):
    return CliRunner().invoke(commands, arguments)


def as_process(*arguments, **environment):
    return subprocess.run([sys.executable, "-m", "pipeline", *arguments], cwd=ROOT, capture_output=True, text=True,
                          timeout=60, env=os.environ | environment)


@pytest.fixture
def broken(tmp_path):
    path = tmp_path / "broken.toml"
    path.write_text(pathlib.Path(TWO_PORT).read_text().replace("10.1.0.1:2222", "10.1.0.1:0"))
    return str(path)


@pytest.fixture
def engine(tmp_path):
    """The path of a socket that answers as a running engine does."""
    path = tmp_path / "x.sock"
    with StatsServer(path, {"snapshot": lambda: SNAPSHOT}):
        yield str(path)


@pytest.mark.parametrize("command", [[], ["run"], ["check"], ["stats"], ["kernels"], ["top"]])
def test_every_command_has_help(command):
    result = invoke(*command, "--help")
    assert result.exit_code == 0 and result.output.startswith("Usage:")


def test_the_commands_run_as_a_module_and_tell_their_version():
    result = as_process("--version")
    assert (result.returncode, result.stderr) == (0, "") and pipeline.__version__ in result.stdout


def test_help_and_check_do_without_numba_and_dpdk():
    program = ("import sys; from pipeline.command_line import commands\n"
               f"commands(['check', {TWO_PORT!r}], standalone_mode=False)\n"
               "sys.exit(any(name.partition('.')[0] in ('numba', 'numpy', 'llvmlite') for name in sys.modules))")
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.DEVNULL, timeout=60)
    assert result.returncode == 0


def test_bad_input_is_exit_status_2_with_one_sentence_and_no_traceback(broken):
    sentence = f'{broken}: services[1].listen = "10.1.0.1:0" has a port number that is not from 1 to 65535\n'
    for command in ("check", "run"):
        result = as_process(command, broken)
        assert (result.returncode, result.stdout, result.stderr) == (2, "", sentence)
    assert "Traceback" in as_process("check", broken, PIPELINE_TRACEBACK="1").stderr


@pytest.mark.parametrize("arguments", [["run", "--duration", "0"], ["run", "--duration", "x"], ["check"], ["nothing"],
                                       ["run", TWO_PORT, "--record-format", "csv"], ["run", "a", "b"],
                                       ["run", "/nowhere.toml"], ["check", "/nowhere.toml"],
                                       ["run", TWO_PORT, "--records", "/nowhere/records"],
                                       ["run", TWO_PORT, "--record", "/tmp/never", "--record-limit", str(2**63)],
                                       ["stats", "--name", "x", "--socket", "y"], ["top", "--interval", "0"]])
def test_what_cannot_be_meant_is_exit_status_2(arguments):
    result = invoke(*arguments)
    assert (result.exit_code, result.stdout) == (2, "") and result.stderr


def test_records_of_an_engine_that_keeps_none_are_refused(tmp_path):
    path = tmp_path / "x.toml"
    path.write_text(pathlib.Path(TWO_PORT).read_text().replace("[engine]", "[engine]\ndetailed_records = false"))
    result = invoke("run", str(path), "--records", str(tmp_path / "r"))
    assert result.exit_code == 2 and "engine.detailed_records = false keeps none" in result.stderr
    assert not (tmp_path / "r").exists()


def test_check_explains_what_would_be_set_up():
    result = invoke("check", TWO_PORT)
    assert result.exit_code == 0 and result.stderr == ""
    for line in ("target ssh-red: 10.2.0.11:22 on port servers", "  red.example.org goes to red",
                 "  connects from 10.2.0.1, ports 1024 to 65535", "  addresses 10.1.0.1/24"):
        assert line in result.stdout.splitlines()


def test_check_says_which_source_ports_are_left_out_and_which_addresses_are_answered_for(tmp_path):
    path = tmp_path / "x.toml"
    path.write_text((ROOT / "configs" / "one_arm.toml").read_text().replace('"10.1.0.1:80"', '"10.1.0.1:20000"'))
    lines = invoke("check", str(path)).stdout.splitlines()
    assert "  except on 10.1.0.1 port 20000, where services listen" in lines
    assert "  answers ARP for 10.1.0.100 as well" in lines


def test_check_shows_warnings(tmp_path):
    path = tmp_path / "x.toml"
    path.write_text(pathlib.Path(TWO_PORT).read_text().replace('["ssh-red", "ssh-green"]', '["ssh-red"]'))
    assert 'warning: targets[3] ("ssh-green") is used by no service' in invoke("check", str(path)).stdout.splitlines()


def test_check_json_is_one_document_for_good_and_for_bad_input(broken):
    facts = json.loads(invoke("check", TWO_PORT, "--json").stdout)
    assert facts["valid"] and facts["configuration"]["engine"]["mbufs"] == 16384
    assert facts["targets"][0] | {"through": "servers", "gateway": None} == facts["targets"][0]
    result = invoke("check", broken, "--json")
    faults = json.loads(result.stdout)["faults"]
    assert result.exit_code == 2 and "\n".join(faults) + "\n" == result.stderr


def test_kernels_lists_every_slot_that_a_configuration_can_name():
    slots = json.loads(invoke("kernels", "--json").stdout)
    assert set(slots) == {*configuration.SLOTS, "select", "payload"}
    assert [kernel["name"] for kernel in slots["select"]["kernels"]] == list(configuration.SELECTS)
    text = invoke("kernels").stdout
    for slot in slots.values():
        assert slot["signature"] in text and all(f"{kernel['file']}:{kernel['line']}" in text for kernel in slot["kernels"])


def test_check_knows_the_names_of_the_kernels(tmp_path):
    path = tmp_path / "x.toml"
    text = pathlib.Path(TWO_PORT).read_text()
    path.write_text(text + '\n[kernels]\nlookup = "bucketted"\n')
    result = invoke("check", str(path))
    assert (result.exit_code, result.stderr) == (2, f'{path}: kernels.lookup = "bucketted" is none of our kernels for '
                                                    'this slot; did you mean "bucketed"?\n')


def test_stats_without_an_engine_is_exit_status_1(tmp_path, monkeypatch):
    monkeypatch.setattr(stats_socket, "default_folder", lambda: tmp_path)
    for arguments in (["stats"], ["stats", "--name", "x"], ["top", "--socket", str(tmp_path / "x")]):
        result = invoke(*arguments)
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.startswith("no engine is running")


def test_stats_prints_the_counters_of_a_running_engine(engine):
    assert json.loads(invoke("stats", "--socket", engine, "--json").stdout) == SNAPSHOT
    text = invoke("stats", "--socket", engine).stdout
    for words in ("x  running  1:01  16,000 of 16,384 mbufs free", "by state: Established 3", "dropped: fragment 2",
                  "released, client side: PassiveClose 97", "target sent_syn: 99", "no MAC yet for 10.2.0.11"):
        assert words in text
    assert "runt_frame" not in text


def test_top_shows_the_engine_once_where_there_is_no_terminal(engine):
    assert "10.2.0.11:80" in invoke("top", "--socket", engine).stdout


def test_a_snapshot_without_anything_can_be_drawn(engine):
    assert render({}) is not None
    assert totals({"workers": [{}]}, "sides", "client") == {}


def test_rates_are_those_since_the_snapshot_before():
    rates = Rates()
    assert rates.of(SNAPSHOT) == {}
    later = SNAPSHOT | {"uptime": 63.0, "ports": [{"name": "p", "received": 600, "transmitted": 300}]}
    assert rates.of(later)["p received"] == 100 and rates.of(later)["p transmitted"] == 0


def test_spans_of_time():
    assert [span(seconds) for seconds in (0, 59.94, 60, 3661)] == ["0.0 s", "59.9 s", "1:00", "1:01:01"]


def test_lost_records_and_wrong_answers_make_a_failed_run():
    assert running.faults_of({"requests": {"requests": 3, "right": 3, "wrong": 0, "failed": 0}}) == []
    assert running.faults_of({"records": {"file": "r", "lost": 2}}) == ["r: 2 session records could not be written"]
    requests = {"requests": 3, "right": 1, "wrong": 1, "failed": 1, "latest_fault": "u"}
    assert running.faults_of({"requests": requests}) == [
        "of 3 requests 1 were answered by the wrong server and 1 not at all; the last: u"]


def test_nothing_but_the_document_is_on_stdout():
    program = ("import os, sys; from pipeline.running import nothing_on_stdout\n"
               "with nothing_on_stdout():\n    print('python'); os.write(1, b'C\\n')\nprint('document')")
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert result.stdout == "document\n" and sorted(result.stderr.split()) == ["C", "python"]
