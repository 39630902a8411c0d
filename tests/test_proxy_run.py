"""`python -m pipeline run` from start to end: how soon it answers, how it stops, and what it leaves behind."""
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from peers import laboratory as lab
from peers.clients import connect
from peers.engine_process import ROOT
from peers.requirements import needs_bed, needs_nginx
from peers.servers import Servers, echo
from pipeline import network_namespace

pytestmark = [needs_bed, needs_nginx]


def configuration_beside(tmp_path, name):
    """A ready configuration, its namespace and its socket being of this test alone; and the namespace's name."""
    text = (ROOT / "configs" / name).read_text()
    namespace = f"run{os.getpid()}"
    lines = [f'network_namespace = "{namespace}"' if line.startswith("network_namespace") else line
             for line in text.splitlines()]
    lines.insert(lines.index("[engine]") + 1, f'stats_socket = "{tmp_path}/stats.sock"')
    path = tmp_path / name
    path.write_text("\n".join(lines))
    tmp_path.chmod(0o700)
    return path, namespace


def run(*arguments, **options):
    """`python -m pipeline run` as a process."""
    return subprocess.Popen([sys.executable, "-m", "pipeline", "run", *map(str, arguments)], cwd=ROOT, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)


def left_of(namespace):
    """The namespaces of a bed that are there."""
    return [path.name for path in network_namespace.FOLDER.glob(f"{namespace}*")]


READY = ["demonstration.toml", "two_port.toml", "wire.toml"] + ["one_arm.toml"] * (os.environ.get("PIPELINE_SOAK") == "1")
"""The last one has a loop of its own to compile."""


@pytest.mark.parametrize("name", READY)
def test_a_ready_configuration_runs_as_it_is_and_leaves_nothing(tmp_path, name):
    path, namespace = configuration_beside(tmp_path, name)
    process = run(path, "--duration", "1", "--json")
    out, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    assert json.loads(out)["summary"]["duration"] >= 1
    assert left_of(namespace) == []
    assert not (tmp_path / "stats.sock").exists()


def test_the_demonstration_is_answered_by_the_servers_that_its_requests_name():
    process = run("--duration", "3", "--json")
    out, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    requests = json.loads(out)["summary"]["requests"]
    assert requests["right"] >= 8
    assert (requests["wrong"], requests["failed"]) == (0, 0), requests
    assert set(requests["answers"]) == {"a", "b", "c"}
    assert "ip netns exec proxy-demo-client curl http://10.1.0.1/a" in errors
    assert left_of("proxy-demo") == []


def test_ones_own_request_works_as_the_demonstration_says(tmp_path):
    path, namespace = configuration_beside(tmp_path, "demonstration.toml")
    process = run(path)
    try:
        wait_for_words(process, "is up after")
        answer = subprocess.run(["ip", "netns", "exec", f"{namespace}-client", "curl", "-sS", "--max-time", "5",
                                 "http://10.1.0.1/b"], capture_output=True, text=True)
        assert answer.stdout.splitlines()[:1] == ["b"], answer.stderr
        stats = subprocess.run([sys.executable, "-m", "pipeline", "stats", "--json", "--socket",
                                tmp_path / "stats.sock"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        assert [(target["id"], target["connections"]) for target in json.loads(stats)["targets"]] == [
            ("a", 0), ("b", 1), ("c", 0)]
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 0, errors
    finally:
        process.kill()
        process.communicate()
    assert left_of(namespace) == []


def wait_for_words(process, words):
    """Read what a process says on standard error until it has said `words`."""
    said = []
    for line in process.stderr:
        said.append(line)
        if words in line:
            return
    pytest.fail(f"the engine ended without saying {words!r}, but {''.join(said)}")


def test_a_run_after_one_that_was_killed_works_as_ever(tmp_path):
    path, namespace = configuration_beside(tmp_path, "demonstration.toml")
    killed = run(path)
    wait_for_words(killed, "is up after")
    killed.kill()
    killed.communicate()
    assert len(left_of(namespace)) == 5
    again = run(path, "--duration", "0.5", "--json")
    out, errors = again.communicate(timeout=60)
    assert again.returncode == 0, errors
    assert f"process {killed.pid} left behind" in errors
    assert json.loads(out)["summary"]["duration"] >= 0.5
    assert left_of(namespace) == []


def test_a_stop_while_starting_leaves_nothing(tmp_path):
    path, namespace = configuration_beside(tmp_path, "demonstration.toml")
    process = run(path)
    try:
        wait_for_words(process, f"bed {namespace}")
        process.send_signal(signal.SIGTERM)
        out, errors = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode in (0, 1), errors
    assert "Traceback" not in errors
    assert left_of(namespace) == []


def test_stopping_lets_an_open_connection_drain_and_then_resets_both_sides():
    with lab.open_laboratory(lab.LAYOUTS[0]) as laboratory, Servers(laboratory.bed) as servers:
        for server in lab.SERVERS:
            servers.listen(server, lab.ECHO, echo)
        ending, lasting = (connect(laboratory.bed, "client", (lab.SERVICE, lab.ECHO)) for _ in range(2))
        for connection in (ending, lasting):
            connection.sendall(b"hello")
            assert connection.recv(100) == b"hello"
        laboratory.engine.process.send_signal(signal.SIGINT)
        time.sleep(0.1)
        ending.sendall(b" again")
        assert ending.recv(100) == b" again", "what is open goes on while the engine drains"
        ending.close()
        with pytest.raises(ConnectionResetError):
            lasting.recv(100)
        lasting.close()
        assert laboratory.engine.process.wait(10) == 0, laboratory.engine.words()
        assert sorted(served.ended for served in servers.served) == ["ConnectionResetError", "closed"]
        causes = sorted(record["release"]["client"] for record in laboratory.engine.records())
        assert causes == ["PassiveClose", "Stopped"]


def test_time_from_start_to_the_first_syn_answered_is_reported(capsys):
    layout = lab.LAYOUTS[0]
    started, answered = first_answer(layout)
    with capsys.disabled():
        print(f"\n{layout}: {answered - started:.2f} s from the start of the engine to the first SYN answered")
    assert answered > started


def first_answer(layout):
    """When an engine was started, and when the handshake of a client that has been trying since was complete."""
    with lab.open_laboratory(layout, wait=False) as laboratory:
        # Otherwise the client's kernel asks for the engine's MAC only once a second, and that is all one would see.
        asking = laboratory.bed.run_in("client", ["sysctl", "-qw", "net.ipv4.neigh.eth0.retrans_time_ms=20"])
        assert asking.wait() == 0
        while True:
            try:
                connect(laboratory.bed, "client", (lab.SERVICE, lab.WEB), timeout=0.1).close()
                return laboratory.engine.started, time.monotonic()
            except OSError:
                assert laboratory.engine.process.poll() is None, laboratory.engine.words()
