"""The traffic generator as its users run it: against kernels' TCP each way, and on both sides of our proxy over DPDK ports."""
import contextlib
import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

from peers.clients import exchange_all
from peers.engine_process import COMPILED_WITHIN, ROOT, EngineProcess
from peers.requirements import needs_bed, needs_nginx
from peers.servers import Servers, echo
from pipeline import configuration, generator_state
from pipeline.bed import Bed

CONFIGS = ROOT / "configs"
OPTIONS = "timestamps = true\nsack = true\nwindow_scale = 7\nretransmit = 0.2\ntries = 10\n"
GENERATOR = """
[engine]
name = "test-generator"
mode = "generator"
network_namespace = "NAMESPACE"
connections = 4096

[[ports]]
name = "p0"
device = "net_af_packet0,iface=px0,blocksz=65536,framesz=2048,framecnt=4096"
addresses = ["10.1.0.1/24"]
FAULTS

[[targets]]
id = "kernel"
ip = "10.1.0.11"
port = SERVER_PORT

[[targets]]
id = "ours"
ip = "10.1.0.30"
port = 9000

[timeouts]
time_wait = 0.1

[generator]
TRAFFIC
"""
CLIENTS = """
[generator.clients]
connect = "10.1.0.11:SERVER_PORT"
source_addresses = ["10.1.0.1", "10.1.0.20-10.1.0.22"]
source_ports = [20000, 20999]
targets = ["kernel"]
max_open = 40
test_size = SIZE
"""
SERVERS = """
[generator.servers]
targets = ["ours"]
"""
BED = """
[bed]
device = "af_packet"

[[bed.hosts]]
name = "host"
role = "server"
port = "p0"
address = "10.1.0.11/24"
web = true
"""


def text_of(namespace, parts, **chosen):
    """Returns a configuration (TOML) with the words in capitals replaced."""
    text = GENERATOR + parts
    for word, value in {"NAMESPACE": namespace, "FAULTS": "", "SERVER_PORT": 7000, **chosen}.items():
        text = text.replace(word, str(value))
    return text


def run(path, *options):
    """Runs the command line on a configuration until it ends by itself; returns what it prints (dict)."""
    ended = subprocess.run([sys.executable, "-m", "pipeline", "run", str(path), "--json", *options], cwd=ROOT, text=True,
                           capture_output=True, timeout=COMPILED_WITHIN)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


@contextlib.contextmanager
def bed_for(text, namespace):
    """A bed of one host round the engine of a configuration."""
    settings = configuration.parse(text + BED.replace("true", "false"), "generator.toml")
    bed = Bed(settings.bed, namespace, settings.ports, say=lambda words: None)
    try:
        bed.prepare()
        yield bed
    finally:
        bed.remove()


def checksum_errors(bed):
    """Returns how many TCP segments the host's kernel has found broken."""
    with bed.inside("host"):
        header, values = [line.split()[1:] for line in pathlib.Path("/proc/net/snmp").read_text().splitlines()
                          if line.startswith("Tcp:")]
    return int(dict(zip(header, values, strict=True))["InCsumErrors"])


if os.environ.get("PIPELINE_SOAK") == "1":  # a minute of time-outs
    @needs_bed
    def test_clients_are_answered_by_a_kernels_echo_server_also_where_packets_are_lost(tmp_path):
        """What an echo server answers is what a server of the generator would, if both texts are the same: all is verified."""
        namespace = f"pg{os.getpid()}"
        traffic = OPTIONS + "".join(f'{role} = "{{number}} {{target}}\\n"\n{role}_packets = 20\n{role}_bytes = 1000\n'
                                    for role in ("request", "response"))
        text = text_of(namespace, CLIENTS, TRAFFIC=traffic, SIZE=60, FAULTS="[ports.faults]\nloss = 0.01\nduplicate = 0.01")
        (tmp_path / "generator.toml").write_text(text)
        with bed_for(text, namespace) as bed, Servers(bed) as servers:
            servers.listen("host", 7000, echo)
            shown = run(tmp_path / "generator.toml")
            assert checksum_errors(bed) == 0
            lengths = [len(served.received) for served in servers.served if served.ended == "closed"]
        clients = shown["summary"]["generator"]["clients"]
        assert (clients["completed"], clients["failed"]) == (60, 0)
        assert clients["octets_received"] == 60 * 20_000 and lengths.count(20_000) == 60
        assert clients["data_retransmitted"] > 0 and clients["request_us"]["count"] == 60


@needs_bed
@needs_nginx
def test_clients_fetch_pages_from_nginx(tmp_path):
    traffic = OPTIONS + ('request = "GET / HTTP/1.0\\r\\n\\r\\n"\nrequest_bytes = 0\nresponse_packets = 0\n'
                         'closes_first = "server"\nverify = false\n')
    text = text_of(f"pg{os.getpid()}", CLIENTS + BED, TRAFFIC=traffic, SIZE=300, SERVER_PORT=8080)
    (tmp_path / "generator.toml").write_text(text)
    clients = run(tmp_path / "generator.toml")["summary"]["generator"]["clients"]
    assert (clients["completed"], clients["failed"]) == (300, 0)
    assert clients["octets_received"] >= 300 * 100 and clients["octets_received"] % 300 == 0


@needs_bed
def test_a_kernels_clients_are_answered_by_our_servers(tmp_path):
    namespace = f"pg{os.getpid()}"
    text = text_of(namespace, SERVERS, TRAFFIC=OPTIONS + "request_bytes = 700\nresponse_packets = 20\nresponse_bytes = 1000\n")
    contents = generator_state.make_contents(configuration.parse(text, "generator.toml"))
    request, answer = (bytes(contents.octets[row * 4096:][:700 if row == 1 else 1000]) for row in (1, 3))
    requests = [request[:8] + number.to_bytes(4, "little") + request[12:] for number in range(300)]
    engine = EngineProcess(text, tmp_path)
    with bed_for(text, namespace) as bed:
        try:
            engine.start()
            engine.wait_until_ready()
            exchanges = exchange_all(bed, "host", ("10.1.0.30", 9000), requests, at_once=32,
                                     close_when=lambda sent, got: len(got) >= 20_000)
            assert checksum_errors(bed) == 0
            servers = engine.stop()["summary"]["generator"]["servers"]
        finally:
            engine.kill()
    assert {each.ended for each in exchanges} == {"closed"}
    place = answer.index(b"\0\0\0\0")
    for number, each in enumerate(exchanges):
        assert each.received[:1000] == answer[:place] + number.to_bytes(4, "little") + answer[place + 4:]
        assert len(each.received) == 20_000
    assert (servers["completed"], servers["failed"]) == (300, 0)
    assert servers["targets"] == {"kernel": 0, "ours": 300}


SERVICES = "".join(f'[[services]]\nname = "s{number}"\nlisten = "10.1.0.1:{81 + number}"\ntargets = ["a"]\nselect = "{select}"\n'
                   + ('rules = [{ match = "/", target = "a" }]\n' if select == "http_path" else "")
                   + ('rules = [{ match = "a", target = "a" }]\n' if select == "http_host" else "")
                   for number, select in enumerate(("round_robin", "http_path", "http_host")))
"""Services beside the one under test: with them the proxy's loop is one that other tests have compiled already."""


def two_files(folder, devices=None):
    """Writes configs/generator.toml and its proxy into a folder, for 3,000 connections; returns their paths.

    `devices`: for the generator's and the proxy's ports, instead of the cables between them.
    """
    paths = []
    for number, name in enumerate(("generator", "generator_proxy")):
        text = (CONFIGS / f"{name}.toml").read_text()
        text = re.sub(r'^name = "(generator.*)"', rf'name = "\g<1>-{os.getpid()}"', text, flags=re.MULTILINE)
        text = text.replace("# test_size = 100000", "test_size = 3000").replace("max_open = 1000", "max_open = 200")
        if devices:
            text = text.replace('proxy = "generator_proxy.toml"', "")
            for place, port in enumerate(("clients", "servers")):
                text = text.replace(f'"ring:{port}"', f'"{devices[number][place]}"')
        paths.append(folder / f"{name}.toml")
        paths[-1].write_text(text + (SERVICES if number else ""))
    return paths


def is_right(shown):
    """Checks that all connections of a run have reached the targets that they named."""
    for role in ("clients", "servers"):
        found = shown["summary"]["generator"][role]
        assert (found["completed"], found["failures"], found["targets"]) == (3000, {}, {"a": 1000, "b": 1000, "c": 1000})


def test_clients_and_servers_with_our_proxy_between_them_in_one_process(tmp_path):
    shown = run(two_files(tmp_path)[0])
    is_right(shown)
    proxy, = shown["proxy"]["workers"]
    assert proxy["connections"]["opened"] == 3000
    assert [target["connections"] for target in shown["proxy"]["targets"]] == [1000] * 3
    assert shown["generator"]["clients"]["connect_us"]["count"] == 3000


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: net_memif's ports of two processes, one of which ends first")
def test_over_memif_the_proxy_is_another_process(tmp_path):
    sides = [[f"net_memif{number},role={role},id={number},socket={tmp_path}/memif.sock,socket-abstract=no" for number in (0, 1)]
             for role in ("client", "server")]
    generator, proxy = two_files(tmp_path, sides)
    (tmp_path / "proxy").mkdir()
    engine = EngineProcess(proxy.read_text().replace("detailed_records = false", ""), tmp_path / "proxy")
    try:
        engine.start()
        engine.wait_until_ready()
        is_right(run(generator))
        worker, = engine.stop()["workers"]
    finally:
        engine.kill()
    assert worker["connections"]["opened"] == 3000
