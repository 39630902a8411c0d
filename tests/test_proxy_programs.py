"""Programs that people use, through the engine: curl, nginx, iperf3, OpenSSH; and a load of HTTP requests."""
import hashlib
import json
import random
import subprocess

import pytest

from peers import laboratory as lab
from peers import shell
from peers.clients import exchange_all
from peers.requirements import needs_bed, needs_nginx, needs_program

pytestmark = [needs_bed, needs_nginx, pytest.mark.parametrize("laboratory", lab.LAYOUTS, indirect=True, ids=str)]
REQUESTS, AT_ONCE = 20_000, 64
DOWNLOAD = 200_000_000
KEPT_BY_DEVICE = {"af_xdp": 64}
"""So many mbufs, more or fewer, a driver may have in its rings from one moment to the next; the others keep none."""


def output_of(laboratory, host, *arguments, given=None, seconds=60):
    """What a program on a host prints; it has to end well."""
    process = laboratory.bed.run_in(host, arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                    stderr=subprocess.PIPE)
    out, errors = process.communicate(given, timeout=seconds)
    assert process.returncode == 0, f"{arguments[0]} ended with {process.returncode}: {(errors or out)[-2000:]}"
    return out


def curl(laboratory, *arguments, **options):
    """What curl on the client prints."""
    return output_of(laboratory, "client", "curl", "-sS", "--max-time", "50", *arguments, **options).decode()


@pytest.mark.parametrize("server", lab.SERVERS)
def test_curl_gets_its_answer_from_the_server_that_the_path_names(laboratory, server):
    answer = curl(laboratory, "-i", f"http://{lab.SERVICE}/{server}/index?x=1").replace("\r", "")
    assert f"\nX-Server: {server}\n" in answer
    assert f"{server}\nGET /{server}/index?x=1 of {lab.SERVICE} for " in answer


@pytest.mark.parametrize("host, server", [("s0.example.org", "s0"), ("s1.example.org", "s1"), ("elsewhere.org", "s2")])
def test_curl_gets_its_answer_from_the_server_that_the_host_header_names(laboratory, host, server):
    answer = curl(laboratory, "-H", f"Host: {host}", f"http://{lab.SERVICE}:{lab.WEB_HOSTS}/")
    assert answer.splitlines()[0] == server


def test_a_kept_alive_connection_goes_on_with_its_server(laboratory):
    before = laboratory.counters_at_rest()["workers"][0]["connections"]["opened"]
    url = f"http://{lab.SERVICE}/s1/"
    answer = curl(laboratory, *(url + str(number) for number in range(20)))
    assert answer.splitlines()[::2] == ["s1"] * 20
    assert laboratory.counters_soon()["workers"][0]["connections"]["opened"] - before == 1


def test_twenty_thousand_requests_each_on_its_own_connection(laboratory):
    before = laboratory.counters_at_rest()
    requests = [f"GET /{lab.SERVERS[number % 3]}/{number} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
                for number in range(REQUESTS)]
    exchanges = exchange_all(laboratory.bed, "client", (lab.SERVICE, lab.WEB), requests, at_once=AT_ONCE)
    faults = []
    for number, exchange in enumerate(exchanges):
        server = lab.SERVERS[number % 3].encode()
        head, _, body = exchange.received.partition(b"\r\n\r\n")
        if not (exchange.ended == "closed" and head.startswith(b"HTTP/1.1 200 ") and b"\r\nX-Server: " + server in head
                and body.startswith(server + b"\nGET /" + server + b"/%d of x" % number)):
            faults.append(exchange)
    assert faults == [], f"{len(faults)} of {REQUESTS} went wrong"
    after = laboratory.counters_at_rest()
    assert after["workers"][0]["connections"]["opened"] - before["workers"][0]["connections"]["opened"] == REQUESTS
    assert abs(lost_mbufs(before, after)) <= KEPT_BY_DEVICE.get(laboratory.layout.device, 0)


def lost_mbufs(before, after):
    """How many fewer mbufs the pool has than it had."""
    return before["pool"]["available"] - after["pool"]["available"]


def test_a_download_of_200_megabytes_is_the_same_octet_for_octet(laboratory):
    before = laboratory.counters_at_rest()
    octets = random.Random(2).randbytes(1_000_003)
    expected = hashlib.sha256()
    file = laboratory.bed.files_of("s1") / "large"
    with open(file, "wb") as large:
        for start in range(0, DOWNLOAD, len(octets)):
            part = octets[:DOWNLOAD - start]
            large.write(part)
            expected.update(part)
    try:
        process = laboratory.bed.run_in("client", ["curl", "-sS", "--fail", "-H", "Host: s1.example.org",
                                                   f"http://{lab.SERVICE}:{lab.WEB_HOSTS}/files/large"],
                                        stdout=subprocess.PIPE)
        received = hashlib.file_digest(process.stdout, "sha256")
        assert process.wait(5) == 0
    finally:
        file.unlink()
    assert received.hexdigest() == expected.hexdigest()
    assert abs(lost_mbufs(before, laboratory.counters_at_rest())) <= KEPT_BY_DEVICE.get(laboratory.layout.device, 0)


@needs_program("iperf3", "iperf3")
@pytest.mark.parametrize("direction", [[], ["--reverse"]], ids=["upload", "download"])
def test_iperf3_measures_through_the_engine(laboratory, direction):
    server = laboratory.bed.run_in("s0", ["iperf3", "--server", "--one-off", "--port", lab.BULK, "--forceflush"],
                                   stdout=subprocess.PIPE, text=True)
    try:
        while "Server listening" not in (line := server.stdout.readline()):
            assert line, "iperf3's server has ended"
        report = json.loads(output_of(laboratory, "client", "iperf3", "--client", lab.SERVICE, "--port", lab.BULK,
                                      "--time", "2", "--parallel", "2", "--json", *direction))
        assert server.wait(10) == 0
    finally:
        server.kill()
        server.communicate()
    received, sent = (report["end"][f"sum_{way}"]["bytes"] for way in ("received", "sent"))
    assert 1_000_000 < received <= sent


@pytest.fixture
def shell_server(laboratory, tmp_path):
    """sshd on s0 with keys and a configuration of its own; yields the folder with the client's key."""
    server = laboratory.bed.run_in("s0", shell.server_words(tmp_path, lab.SHELL), stderr=subprocess.PIPE, text=True)
    try:
        while shell.READY not in (line := server.stderr.readline()):
            assert line, "sshd has ended"
        yield tmp_path
    finally:
        server.kill()
        server.communicate()


@needs_program("sshd", "openssh-server")
@needs_program("ssh", "openssh-client")
def test_openssh_whose_server_speaks_first_works_with_immediate_binding(laboratory, shell_server):
    octets = random.Random(3).randbytes(3_000_000)
    words = shell.client_words(shell_server, lab.SHELL, lab.SERVICE, "sha256sum; ip -br -4 addr show eth0")
    answer = output_of(laboratory, "client", *words, given=octets).decode()
    digest, interface = answer.splitlines()
    assert digest.split()[0] == hashlib.sha256(octets).hexdigest()
    target = "10.1.0.11" if laboratory.layout.arms == "one_arm" else "10.2.0.11"
    assert target in interface, "the shell is on the target's host"
