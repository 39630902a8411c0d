"""The bed: its hosts reach the engine's ports and nothing else, and it goes away whatever happens."""
import http.server
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from peers.requirements import needs_bed, needs_nginx
from pipeline import bed_register, configuration, network_namespace
from pipeline.bed import Bed, BedError
from pipeline.demonstration import Demonstration, requests_of

pytestmark = [needs_bed, needs_nginx]
ROOT = pathlib.Path(__file__).resolve().parents[1]


def settings_of(name, namespace):
    """A configuration of ours, with its bed under another name."""
    text = (ROOT / "configs" / name).read_text()
    own = configuration.parse(text, name).engine.network_namespace
    return configuration.parse(text.replace(f'network_namespace = "{own}"', f'network_namespace = "{namespace}"'), name)


def bed_of(settings, **options):
    """The Bed of a configuration, silent."""
    return Bed(settings.bed, settings.engine.network_namespace, settings.ports, say=lambda words: None, **options)


@pytest.fixture
def namespace():
    """A name for the engine's namespace that no other process has."""
    return f"bedtest{os.getpid()}"


@pytest.fixture
def demonstration_bed(namespace):
    """The settings of the demonstration and its bed, made and served."""
    settings = settings_of("demonstration.toml", namespace)
    bed = bed_of(settings)
    bed.prepare()
    try:
        bed.attach()
        bed.serve()
        yield settings, bed
    finally:
        bed.remove()


def left_of(namespace):
    """The namespaces whose names begin with that of a bed."""
    return sorted(path.name for path in network_namespace.FOLDER.glob(f"{namespace}*"))


def output_of(bed, host, *arguments):
    """What a program prints on a host of the bed."""
    process = bed.run_in(host, arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return process.communicate(timeout=20)[0]


def run_python(code, *arguments, **options):
    """A Python process of ours in the root of the checkout."""
    return subprocess.Popen([sys.executable, "-c", code, *arguments], cwd=ROOT, text=True, **options)


def test_each_web_server_says_who_it_is(demonstration_bed):
    _, bed = demonstration_bed
    for name, address in (("a", "10.2.0.11"), ("b", "10.2.0.12"), ("c", "10.2.0.13")):
        answer = output_of(bed, name, "curl", "-si", f"http://{address}:8080/some/path")
        head, _, body = answer.replace("\r", "").partition("\n\n")
        assert f"X-Server: {name}" in head.splitlines()
        assert body == f"{name}\nGET /some/path of {address}:8080 for {address}\n"


def test_web_servers_serve_files_put_beside_them(demonstration_bed):
    _, bed = demonstration_bed
    (bed.files_of("b") / "octets").write_bytes(bytes(range(256)) * 100)
    process = bed.run_in("b", ["curl", "-s", "http://10.2.0.12:8080/files/octets"], stdout=subprocess.PIPE)
    assert process.communicate()[0] == bytes(range(256)) * 100


def test_hosts_of_one_bridge_cannot_talk_past_the_engine(demonstration_bed):
    _, bed = demonstration_bed
    assert "000" == output_of(bed, "a", "curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "2",
                              "http://10.2.0.12:8080/")
    # The same question through the port that the engine has is answered, so it is the isolation that stops the other.
    with network_namespace.entered(bed.namespace):
        subprocess.run(["ip", "addr", "add", "10.2.0.1/24", "dev", "px1"], check=True)
    assert "200" == output_of(bed, bed.namespace, "curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--max-time",
                              "2", "http://10.2.0.12:8080/")


def test_no_frame_of_a_host_leaves_a_checksum_to_hardware(demonstration_bed):
    _, bed = demonstration_bed
    features = output_of(bed, "client", "ethtool", "-k", "eth0").splitlines()
    assert "\ttx-checksum-ip-generic: off" in features
    assert any(line.startswith("\ttx-tcp-segmentation: off") for line in features)


def test_the_machines_own_interfaces_stay_as_they_are(namespace):
    before = subprocess.run(["ip", "-json", "link"], capture_output=True, check=True).stdout
    bed = bed_of(settings_of("two_port.toml", namespace))
    bed.prepare()
    try:
        during = subprocess.run(["ip", "-json", "link"], capture_output=True, check=True).stdout
    finally:
        bed.remove()
    assert json.loads(during) == json.loads(before)


@pytest.mark.parametrize("queues", [1, 2])
def test_the_engines_interfaces_have_a_queue_for_each_worker(namespace, queues):
    bed = bed_of(settings_of("two_port.toml", namespace), queues=queues)
    bed.prepare()
    try:
        for interface in ("px0", "px1", "behind-bridge0", "behind-bridge1"):
            shown = output_of(bed, namespace, "ethtool", "-l", interface).partition("Current hardware settings:")[2].split()
            assert (shown[1], shown[3]) == (str(queues), str(queues)), interface
    finally:
        bed.remove()


def test_a_removed_bed_leaves_nothing(namespace):
    bed = bed_of(settings_of("one_arm.toml", namespace))
    bed.prepare()
    bed.attach()
    bed.serve()
    folder = bed.files_of("one")
    process = bed.run_in("client", ["sleep", "100"])
    assert left_of(namespace) == [namespace, f"{namespace}-client", f"{namespace}-one", f"{namespace}-zero"]
    bed.remove()
    assert left_of(namespace) == []
    assert process.poll() == -signal.SIGTERM
    assert not folder.exists() and not (bed_register.FOLDER / f"{namespace}.json").exists()
    bed.remove()


def test_a_failure_half_way_leaves_nothing(namespace):
    settings = settings_of("two_port.toml", namespace)
    network_namespace.create(f"{namespace}-green")
    try:
        with pytest.raises(BedError, match=f"'{namespace}-green' exists already and is not a bed's"):
            bed_of(settings).prepare()
        assert left_of(namespace) == [f"{namespace}-green"]
    finally:
        network_namespace.delete(f"{namespace}-green")
    bed = bed_of(settings)
    bed.interfaces["servers"] = bed.interfaces["clients"]
    with pytest.raises(BedError, match="could not be made"):
        bed.prepare()
    assert left_of(namespace) == []


def test_a_web_server_that_cannot_start_is_named(namespace):
    bed = bed_of(settings_of("one_arm.toml", namespace))
    bed.prepare()
    try:
        with bed.inside("one"), socket.create_server(("10.1.0.11", 8080)):
            with pytest.raises(BedError, match="web server of host 'one' did not start: .*Address already in use"):
                bed.serve()
    finally:
        bed.remove()


def test_a_tap_that_never_appears_is_named(namespace, monkeypatch):
    text = (ROOT / "configs" / "one_arm.toml").read_text().replace('device = "af_packet"', 'device = "tap"')
    text = text.replace("net_af_packet0,iface=px0,blocksz=65536,framesz=2048,framecnt=2048",
                        "net_tap0,iface=pt0")
    text = text.replace('network_namespace = "one-arm"', f'network_namespace = "{namespace}"')
    monkeypatch.setattr("pipeline.bed.READY_WITHIN", 0.1)
    bed = bed_of(configuration.parse(text, "one_arm.toml"))
    bed.prepare()
    try:
        with pytest.raises(BedError, match="TAP 'pt0' has not appeared"):
            bed.attach()
    finally:
        bed.remove()


def test_who_is_not_root_is_told_so(namespace):
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setuid(65534)
            bed_of(settings_of("one_arm.toml", namespace)).prepare()
        except BaseException as error:
            os.write(writing, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading) as words:
        assert words.read() == "BedError: a bed of network namespaces can only be made by root"
    os.waitpid(child, 0)
    assert left_of(namespace) == []


HOLD_A_BED = """
import sys, time
from pipeline import configuration
from pipeline.bed import Bed
text = open("configs/one_arm.toml").read()
text = text.replace('network_namespace = "one-arm"', f'network_namespace = "{sys.argv[1]}"')
settings = configuration.parse(text, "one_arm.toml")
bed = Bed(settings.bed, sys.argv[1], settings.ports, say=lambda words: None)
bed.prepare(); bed.serve()
print(bed.files_of("one"), flush=True)
if len(sys.argv) > 2:
    sys.exit(3)
time.sleep(60)
"""


def test_what_a_killed_run_left_is_removed_by_the_next(namespace):
    process = run_python(HOLD_A_BED, namespace, stdout=subprocess.PIPE)
    folder = pathlib.Path(process.stdout.readline().strip())
    worker = int((folder.parent / "nginx.pid").read_text())
    process.kill()
    process.communicate()
    assert len(left_of(namespace)) == 4 and folder.exists()
    deadline = time.monotonic() + 5
    while pathlib.Path(f"/proc/{worker}/root").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not has_a_listener(f"{namespace}-one", 8080), "the web server has outlived the process that started it"
    said = []
    bed_register.clear_leftovers(said.append)
    assert left_of(namespace) == [] and not folder.exists()
    assert any(f"process {process.pid} left behind" in words for words in said)


def has_a_listener(namespace, port):
    """Whether somebody listens on a port in a namespace."""
    with network_namespace.entered(namespace):
        lines = pathlib.Path("/proc/thread-self/net/tcp").read_text().splitlines()[1:]
    return any(line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "0A" for line in lines)


def test_a_bed_in_use_is_refused_and_left_alone(namespace):
    process = run_python(HOLD_A_BED, namespace, stdout=subprocess.PIPE)
    try:
        process.stdout.readline()
        with pytest.raises(BedError, match=f"in use by process {process.pid}"):
            bed_of(settings_of("one_arm.toml", namespace)).prepare()
        assert len(left_of(namespace)) == 4
    finally:
        process.kill()
        process.communicate()
        bed_register.clear_leftovers(lambda words: None)


def test_a_program_that_exits_without_removing_its_bed_leaves_nothing(namespace):
    process = run_python(HOLD_A_BED, namespace, "exit", stdout=subprocess.DEVNULL)
    assert process.wait(30) == 3
    assert left_of(namespace) == []


def test_what_the_demonstration_asks_follows_from_the_configuration():
    asked = {(request.url, request.host_header): set(request.servers)
             for name in ("demonstration.toml", "two_port.toml", "one_arm.toml")
             for request in requests_of(configuration.load(ROOT / "configs" / name))}
    assert asked[("http://10.1.0.1/b", None)] == {"b"}
    assert asked[("http://10.1.0.1/", "green.example.org")] == {"green"}
    assert asked[("http://10.1.0.100/zero", None)] == {"zero"}
    assert asked[("http://10.1.0.1/", None)] in ({"c"}, {"zero", "one"})
    assert all("2222" not in url for url, _ in asked), "nobody asks a shell for a web page"


class SaysA(http.server.BaseHTTPRequestHandler):
    """A server in the engine's place that gives every request to the same server, except one that it drops."""

    def do_GET(self):
        if self.path == "/c":
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.send_response(200)
        self.send_header("X-Server", "a")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        """Nothing is to be printed."""


def test_the_demonstration_tells_right_from_wrong_and_failed(demonstration_bed):
    settings, bed = demonstration_bed
    with network_namespace.entered(bed.namespace):
        subprocess.run(["ip", "addr", "add", "10.1.0.1/24", "dev", "px0"], check=True)
        server = http.server.ThreadingHTTPServer(("10.1.0.1", 80), SaysA)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with Demonstration(settings, bed, say=lambda words: None) as demonstration:
            deadline = time.monotonic() + 20
            while demonstration.summary()["requests"] < 8 and time.monotonic() < deadline:
                demonstration.tick()
                time.sleep(0.02)
            summary, hint = demonstration.summary(), demonstration.hint()
        rounds = summary["requests"] // 4
        assert rounds >= 2
        # /a is right; /b and the path that no rule names are answered by the wrong one; /c gets no answer.
        assert (summary["right"], summary["wrong"], summary["failed"]) == (rounds, 2 * rounds, rounds)
        assert summary["answers"] == {"a": 3 * rounds}
        assert 0 < summary["latency_ms"]["median"] <= summary["latency_ms"]["slowest"]
        answer = subprocess.run([*hint.split(), "-si"], capture_output=True, text=True, check=True).stdout
        assert "X-Server: a" in answer
    finally:
        server.shutdown()
        server.server_close()
