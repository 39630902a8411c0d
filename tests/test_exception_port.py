"""The exception port with the real kernel: it answers pings and ARP, its own servers and clients have the engine's address, and
its neighbour table says where targets are, while proxied connections run."""
import contextlib
import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import threading
import time

import pytest
from peers import laboratory as lab
from peers import shell
from peers.clients import exchange_all
from peers.engine_process import ROOT, WORKERS
from peers.requirements import needs_bed, needs_nginx, needs_program

from pipeline import exception_interface, network_namespace
from pipeline.errors import RunError

LAYOUTS = [lab.Layout("two_port", "af_packet", WORKERS), lab.Layout("one_arm", "tap", WORKERS)]
pytestmark = [needs_bed, needs_nginx]
LONG = {"tap": 5000, "af_packet": 1400}
"""Bytes that take fragments; not on af_packet, which has the kernel put them together again: that net_tap does not take."""
KERNELS = 8081
"""The port on which a web server of the kernel's listens at the engine's address."""
SHELL = "22022"
"""The same of its sshd."""
FIRST = ("10.2.0.11", "10.1.0.11")
"""The address of the first server, in either layout."""
REQUESTS = 2_000
PATIENCE = 10.0


@pytest.fixture(scope="module", params=LAYOUTS, ids=str)
def laboratory(request):
    with lab.open_laboratory(request.param, exceptions=True) as opened:
        deadline = time.monotonic() + PATIENCE
        while any(state != "reachable" for _, state in neighbours(opened).values()):
            assert time.monotonic() < deadline, opened.engine.stats()["neighbours"]
            time.sleep(0.05)
        yield opened


def neighbours(laboratory, of=FIRST):
    """What the engine knows of the first server: address to (MAC, state)."""
    return {each["address"]: (each["mac"], each["state"]) for each in laboratory.engine.stats()["neighbours"] if each["address"] in of}


def said_by(laboratory, host, *arguments, seconds=30, **options):
    """What a program prints on a host, or in the engine's namespace; it has to end well."""
    process = laboratory.bed.run_in(host, arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)
    words, _ = process.communicate(timeout=seconds)
    assert process.returncode == 0, words
    return words


@contextlib.contextmanager
def running(laboratory, *arguments, ready=None, **options):
    """A program in the engine's namespace, a user of the kernel's TCP; `ready` is what it says once it serves."""
    process = laboratory.bed.run_in(laboratory.namespace, arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                                    **options)
    try:
        while ready is not None and ready not in (line := process.stderr.readline()):
            assert line, f"{arguments[0]} has ended"
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def web_server(laboratory, tmp_path):
    """A web server of the kernel's at the engine's address."""
    (tmp_path / "who").write_text("the kernel\n")
    with running(laboratory, sys.executable, "-m", "http.server", KERNELS, "--bind", lab.SERVICE, "--directory", tmp_path):
        with laboratory.bed.inside(laboratory.namespace):
            deadline = time.monotonic() + PATIENCE
            while socket.socket().connect_ex((lab.SERVICE, KERNELS)) != 0:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        yield f"http://{lab.SERVICE}:{KERNELS}/who"


def proxied(laboratory, requests=REQUESTS):
    """Has so many requests answered through the proxy; returns those that were not, or by the wrong server."""
    texts = [f"GET /{lab.SERVERS[number % 3]}/{number} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
             for number in range(requests)]
    exchanges = exchange_all(laboratory.bed, "client", (lab.SERVICE, lab.WEB), texts)
    return [each for number, each in enumerate(exchanges)
            if each.ended != "closed" or b"\r\nX-Server: " + lab.SERVERS[number % 3].encode() not in each.received]


@contextlib.contextmanager
def while_proxied_connections_run(laboratory):
    """Within this, requests are answered through the proxy, all of them rightly."""
    wrong = []
    thread = threading.Thread(target=lambda: wrong.append(proxied(laboratory)))
    thread.start()
    try:
        yield
    finally:
        thread.join()
    assert wrong == [[]]


def test_ping_and_arp_are_answered_by_the_kernel(laboratory):
    before = laboratory.engine.stats()["workers"][0]["notices"]
    said_by(laboratory, "client", "ip", "neigh", "flush", "dev", "eth0")
    with while_proxied_connections_run(laboratory):
        words = said_by(laboratory, "client", "ping", "-c", "20", "-i", "0.05", lab.SERVICE)
        words += said_by(laboratory, "client", "ping", "-c", "3", "-i", "0.05", "-s", LONG[laboratory.layout.device], lab.SERVICE)
    assert words.count(" 0% packet loss") == 2, words
    mac = laboratory.engine.stats()["ports"][0]["mac"]
    assert f"{lab.SERVICE} lladdr {mac}" in said_by(laboratory, "client", "ip", "neigh", "show", "dev", "eth0")
    assert f"link/ether {mac}" in said_by(laboratory, laboratory.namespace, "ip", "link", "show", "kx0")
    after = laboratory.engine.stats()["workers"][0]["notices"]
    assert after["to_kernel"] - before["to_kernel"] >= 23
    assert not {"echo_replies", "arp_replies", "arp_requests"} & after.keys()


def test_a_web_server_of_the_kernel_answers_on_another_port_of_the_same_address(laboratory, web_server):
    with while_proxied_connections_run(laboratory):
        for _ in range(20):
            assert said_by(laboratory, "client", "curl", "-sS", "--max-time", "5", web_server) == "the kernel\n"
    assert laboratory.engine.stats()["workers"][0]["connections"]["open"] <= REQUESTS


def test_the_kernels_own_client_reaches_a_target_from_the_address_that_the_proxy_has(laboratory):
    server = "10.1.0.11" if laboratory.layout.arms == "one_arm" else "10.2.0.11"
    with while_proxied_connections_run(laboratory):
        for number in range(20):
            answer = said_by(laboratory, laboratory.namespace, "curl", "-sS", "--max-time", "5", f"http://{server}:8080/{number}")
            assert answer.startswith(f"s0\nGET /{number} of {server}:8080 for 10."), answer


def test_udp_reaches_a_socket_of_the_kernel(laboratory):
    with laboratory.bed.inside(laboratory.namespace):
        listening = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with laboratory.bed.inside("client"):
        asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with listening, asking:
        listening.bind((lab.SERVICE, 5353))
        for each in (listening, asking):
            each.settimeout(PATIENCE)
        words = bytes(LONG[laboratory.layout.device])
        asking.sendto(words, (lab.SERVICE, 5353))
        question, origin = listening.recvfrom(1 << 16)
        listening.sendto(question, origin)
        assert asking.recv(1 << 16) == words, "in fragments each way, on a TAP"


def test_a_port_on_which_nobody_listens_is_refused_by_the_kernel(laboratory):
    resets = laboratory.engine.stats()["workers"][0]["notices"].get("resets_sent", 0)
    with laboratory.bed.inside("client"), socket.socket() as client:
        client.settimeout(PATIENCE)
        with pytest.raises(ConnectionRefusedError):
            client.connect((lab.SERVICE, 9))
    assert laboratory.engine.stats()["workers"][0]["notices"].get("resets_sent", 0) == resets


@needs_program("sshd", "openssh-server")
def test_sshd_of_the_kernel_lets_one_in_at_the_engines_address(laboratory, tmp_path):
    with running(laboratory, *shell.server_words(tmp_path, SHELL, lab.SERVICE), ready=shell.READY):
        words = said_by(laboratory, "client", *shell.client_words(tmp_path, SHELL, lab.SERVICE, "ip -br -4 addr show kx0"))
    assert words.split()[:1] == ["kx0"] and lab.SERVICE in words


def until(laboratory, wanted, *of):
    """Waits until the engine's entry of the first server, or of others, is one that `wanted(mac, state)` says yes to."""
    deadline = time.monotonic() + PATIENCE
    while not all(wanted(*entry) for entry in neighbours(laboratory, of or FIRST).values()):
        assert time.monotonic() < deadline, (neighbours(laboratory), said_by(laboratory, laboratory.namespace, "ip", "neigh"))
        time.sleep(0.05)


def test_a_target_whose_mac_address_changes_is_followed(laboratory):
    """The server announces its new address, as arp_notify has it, or the kernel's administrator says so."""
    [(server, (mac, _))] = neighbours(laboratory).items()
    interface = "kx0" if laboratory.layout.arms == "one_arm" else "kx1"
    said_by(laboratory, "s0", "sysctl", "-qw", "net.ipv4.conf.eth0.arp_notify=1")
    moved = laboratory.engine.stats()["workers"][0]["notices"].get("neighbour_moved", 0)
    for new in ("02:00:00:00:77:01", mac):
        said_by(laboratory, "s0", "ip", "link", "set", "eth0", "address", new)
        until(laboratory, lambda mac, state, new=new: mac == new)
        assert proxied(laboratory, 60) == []
    said_by(laboratory, laboratory.namespace, "ip", "neigh", "replace", server, "lladdr", "02:00:00:00:77:02", "dev", interface)
    until(laboratory, lambda mac, state: (mac, state) == ("02:00:00:00:77:02", "reachable"))
    said_by(laboratory, laboratory.namespace, "ip", "neigh", "del", server, "dev", interface)
    until(laboratory, lambda now, state: (now, state) == (mac, "reachable"))
    assert proxied(laboratory, 60) == []
    assert laboratory.engine.stats()["workers"][0]["notices"]["neighbour_moved"] - moved >= 3


def test_a_new_client_is_answered_at_once_and_targets_that_are_not_there_stay_incomplete(laboratory):
    states = {each["address"]: each["state"] for each in laboratory.engine.stats()["neighbours"]}
    assert states["10.1.0.99" if laboratory.layout.arms == "one_arm" else "10.2.0.99"] == "incomplete"
    said_by(laboratory, "client", "ip", "addr", "add", "10.1.0.77/24", "dev", "eth0")
    try:
        page = said_by(laboratory, "client", "curl", "-sS", "--interface", "10.1.0.77", "--max-time", "1",
                       f"http://{lab.SERVICE}/s1/")
        until(laboratory, lambda mac, state: state == "reachable", "10.1.0.77")
        assert "10.1.0.77 " in said_by(laboratory, laboratory.namespace, "ip", "neigh", "show", "dev", "kx0"), "the kernel was asked"
    finally:
        said_by(laboratory, "client", "ip", "addr", "del", "10.1.0.77/24", "dev", "eth0")
    assert page.startswith("s1\n")


def test_nothing_of_the_kernels_was_dropped_or_kept(laboratory):
    """The last of this layout: what went either way is counted, and no mbuf is missing for it."""
    stats = laboratory.counters_at_rest()
    exception, notices = stats["ports"][0]["exception"], stats["workers"][0]["notices"]
    assert exception["interface"] == "kx0" and exception["to_kernel"] > 0 and exception["from_kernel"] > 0
    shown = [port["exception"] for port in stats["ports"]]
    assert notices["from_kernel"] == sum(each["from_kernel"] for each in shown)
    assert notices["to_kernel"] == sum(each["to_kernel"] + each["unsent"] for each in shown)


# ---- what is set, and what is refused -------------------------------------------------------------------------


def test_an_interface_is_deaf_only_as_long_as_the_engine_runs():
    namespace = f"deaf{os.getpid()}"
    network_namespace.create(namespace)
    settings = [f"/proc/sys/net/ipv4/conf/lo/{name}" for name in ("rp_filter", "arp_ignore")]
    try:
        with network_namespace.entered(namespace):
            before = [pathlib.Path(setting).read_text() for setting in settings]
            with exception_interface.deaf("lo"):
                assert [pathlib.Path(setting).read_text() for setting in settings] == ["1\n", "8\n"] != before
            assert [pathlib.Path(setting).read_text() for setting in settings] == before
            pathlib.Path("/proc/sys/net/ipv4/conf/all/rp_filter").write_text("2")
            with pytest.raises(RunError, match="all.rp_filter = 2 .* must be 0 or 1"), exception_interface.deaf("lo"):
                pass
    finally:
        network_namespace.delete(namespace)


EXCEPTION = (ROOT / "configs" / "exception.toml").read_text()


def refused(tmp_path, text):
    """What `run` says about a configuration that it refuses: one line, and its exit status."""
    path = tmp_path / "x.toml"
    path.write_text(re.sub(r'(name|network_namespace) = "exception"', f'\\1 = "refused{tmp_path.stat().st_ino}"', text))
    done = subprocess.run([sys.executable, "-m", "pipeline", "run", str(path), "--duration", "1"], cwd=ROOT, capture_output=True,
                          text=True, timeout=120, check=False)
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()[-1], done.returncode


def test_a_range_of_source_ports_that_the_kernel_uses_too_is_refused(tmp_path):
    words, status = refused(tmp_path, EXCEPTION.replace("source_ports = [1024, 32767]", "source_ports = [1024, 40000]"))
    assert status == 2
    assert words.endswith("services[0].source_ports = [1024, 40000] on 10.2.0.1, which the kernel has as well by the exception port, "
                          "overlaps the ports that it takes for connections of its own, 32768 to 60999; the two must be apart, "
                          "such as [1024, 32767] here, or sysctl net.ipv4.ip_local_port_range must be another"), words


def test_an_interface_that_another_has_already_is_refused(tmp_path):
    words, status = refused(tmp_path, EXCEPTION.replace("iface=kx0", "iface=bridge0"))
    assert status == 1 and "'clients-exception' (net_tap7,iface=bridge0) cannot be opened" in words, words


def test_the_ready_configuration_runs_and_says_what_goes_where(tmp_path):
    path = tmp_path / "exception.toml"
    path.write_text(re.sub(r'(name|network_namespace) = "exception"', f'\\1 = "ready{tmp_path.stat().st_ino}"', EXCEPTION))
    checked = subprocess.run([sys.executable, "-m", "pipeline", "check", str(path), "--json"], cwd=ROOT, capture_output=True, text=True,
                             check=True)
    assert [port["exception"]["addresses"] for port in json.loads(checked.stdout)["ports"]] == [["10.1.0.1/24"], ["10.2.0.1/24"]]
    assert all(port["answers_arp_for"] == [] for port in json.loads(checked.stdout)["ports"])
    done = subprocess.run([sys.executable, "-m", "pipeline", "run", str(path), "--duration", "1", "--json"], cwd=ROOT,
                          capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert "all that is not ours goes to the kernel, at kx1" in done.stderr
