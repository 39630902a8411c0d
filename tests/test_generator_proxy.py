"""The traffic generator on both sides of our proxy, all on memory ports and virtual time."""
import json

import pytest
from generator_bed import Joined

from pipeline import configuration, generator_report
from pipeline.kernels.counters import TOTAL_OPEN
from pipeline.memory_engine import MemoryEngine

GENERATOR = """
[engine]
mode = "generator"
connections = 512

[[ports]]
name = "clients"
device = "net_null0"
addresses = ["10.1.0.2/24"]

[[ports]]
name = "servers"
device = "net_null1"
addresses = ["10.2.0.2/24"]

TARGETS

[timeouts]
time_wait = 0.1

[generator]
TRAFFIC

[generator.clients]
connect = "10.1.0.1:SERVICE"
source_addresses = ["10.1.0.10-10.1.0.12"]
source_ports = [2000, 2099]
max_open = 50
test_size = 60
targets = NAMED

[generator.servers]
"""
PROXY = """
[[ports]]
name = "clients"
device = "net_null0"
addresses = ["10.1.0.1/24"]
FAULTS

[[ports]]
name = "servers"
device = "net_null1"
addresses = ["10.2.0.1/24"]

TARGETS

[timeouts]
time_wait = 0.1

[[services]]
name = "turns"
listen = "10.1.0.1:81"
targets = ["a", "b", "c"]

[[services]]
name = "path"
listen = "10.1.0.1:82"
targets = ["a", "b", "c"]
select = "http_path"
rules = [{ match = "/a", target = "a" }]

[[services]]
name = "number"
listen = "10.1.0.1:80"
targets = ["a", "b", "c"]
select = "number_modulo"
"""
"""With these kernels the proxy's loop is the one that tcp.proxy has compiled already."""
TARGETS = "".join(f'[[targets]]\nid = "{name}"\nip = "10.2.0.{11 + number}"\nport = 8080\n' for number, name in enumerate("abc"))


def run(port=80, traffic="", faults="", named=("a", "b", "c")):
    """Runs 60 connections through a proxy's service on `port`; returns what clients and servers have come to, and the proxy."""
    text = GENERATOR.replace("TARGETS", TARGETS).replace("TRAFFIC", traffic)
    text = text.replace("NAMED", json.dumps(named)).replace("SERVICE", str(port))
    settings = configuration.parse(text, "generator.toml")
    text = PROXY.replace("TARGETS", TARGETS).replace("FAULTS", faults)
    generator, proxy = MemoryEngine(settings), MemoryEngine(configuration.parse(text, "proxy.toml"))
    joined = Joined(((generator, 0), (proxy, 0)), ((generator, 1), (proxy, 1)))

    def over():
        return generator_report.is_complete(settings, generator.state) and not generator.state.counters.totals[TOTAL_OPEN]

    assert joined.run(60, over), generator_report.of_generator(settings, generator.state)
    shown = generator_report.of_generator(settings, generator.state)
    return shown["clients"], shown["servers"], proxy


@pytest.mark.parametrize("traffic", [
    "", 'closes_first = "server"\nresponse_packets = 0', "timestamps = true\nwindow_scale = 7\nsack = true",
    "request_packets = 4\nrequest_bytes = 1000\nresponse_packets = 30\nresponse_bytes = 1400"])
def test_every_request_reaches_the_target_that_it_names(traffic):
    clients, servers, proxy = run(traffic=traffic)
    for role in (clients, servers):
        assert (role["completed"], role["failed"]) == (60, 0)
        assert role["targets"] == {"a": 20, "b": 20, "c": 20}
        assert role["data_retransmitted"] == role["syn_retransmitted"] == 0
    proxy.step(1_000_000)
    assert proxy.state.counters.totals[TOTAL_OPEN] == 0, "the proxy has forgotten them all"


def test_a_proxy_that_chooses_otherwise_is_found_out():
    """Requests name b, a, c in turn, the proxy takes a, b, c: two of three are mismatches, seen by both sides."""
    clients, servers, _ = run(81, named=["b", "a", "c"])
    for role in (clients, servers):
        assert (role["completed"], role["failures"]) == (20, {"mismatch": 40})


def test_all_connections_come_through_a_proxy_on_a_lossy_network():
    faults = "[ports.faults]\nloss = 0.03\nduplicate = 0.03\nflip = 0.01\nreorder = 0.03\ndelay = 0.002"
    clients, servers, _ = run(traffic="response_packets = 8\nretransmit = 0.2\ntries = 12", faults=faults)
    assert clients["completed"] == 60, clients
    assert clients["data_retransmitted"] + clients["syn_retransmitted"] > 0
