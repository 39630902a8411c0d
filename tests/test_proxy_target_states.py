"""Targets of real stacks that refuse, are silent, are drained and come back, under load; in the soak, for the loop it compiles."""
import collections
import os
import shutil
import subprocess
import sys
import tempfile
import time

import pytest

from peers.clients import connect, exchange_all
from peers.engine_process import ROOT, EngineProcess
from peers.laboratory import cores
from peers.requirements import needs_bed
from peers.servers import Servers, answer
from pipeline import configuration
from pipeline.bed import Bed

pytestmark = [needs_bed]
TURNS, MAGLEV, SILENT, CHECKED, PORT, QUIET, WELL = 7000, 7001, 7002, 7003, 9000, 9001, 9002
CONFIGURATION = """
[engine]
name = "balance"
network_namespace = "{namespace}"
drain_timeout = 0.5
{cores}
[timeouts]
connecting = 1.0
[health]
fall = 3
retry = 600.0
[[ports]]
name = "p0"
device = "net_af_packet0,iface=px0,blocksz=65536,framesz=2048,framecnt=2048"
addresses = ["10.1.0.1/24"]
[[ports]]
name = "p1"
device = "net_af_packet1,iface=px1,blocksz=65536,framesz=2048,framecnt=2048"
addresses = ["10.2.0.1/24"]
{targets}
[[services]]
name = "turns"
listen = "10.1.0.1:7000"
targets = ["s0", "s1", "s2"]
[[services]]
name = "maglev"
listen = "10.1.0.1:7001"
select = "maglev"
targets = ["s0", "s1", "s2"]
[[services]]
name = "silent"
listen = "10.1.0.1:7002"
targets = ["q0", "q1"]
[[services]]
name = "checked"
listen = "10.1.0.1:7003"
targets = ["c0", "c1"]
[bed]
device = "af_packet"
{hosts}
"""
TARGET = '[[targets]]\nid = "{id}"\nip = "10.2.0.{host}"\nport = {port}\n'
HOST = '[[bed.hosts]]\nname = "{name}"\nrole = "{role}"\nport = "{port}"\naddress = "{address}/24"\n'
CHECK = '[targets.check]\nkind = "connect"\ninterval = 0.1\nrise = 1\nfall = 2\n'


class Balance:
    """An engine between a client and three servers."""

    def __init__(self, folder):
        namespace = f"bal{os.getpid()}"
        names = [("s0", 11, PORT), ("s1", 12, PORT), ("s2", 13, PORT), ("q0", 11, QUIET), ("q1", 12, QUIET)]
        hosts = [("client", "client", "p0", "10.1.0.2"), *((f"s{n}", "server", "p1", f"10.2.0.{11 + n}") for n in range(3))]
        text = CONFIGURATION.format(
            namespace=namespace, cores="\n".join(f"{key} = {value}".lower() for key, value in cores(1).items()),
            targets="".join(TARGET.format(id=name, host=host, port=port) for name, host, port in names)
            + "".join(TARGET.format(id=f"c{n}", host=11 + n, port=WELL) + CHECK for n in range(2)),
            hosts="".join(HOST.format(name=name, role=role, port=port, address=address) for name, role, port, address in hosts))
        settings = configuration.parse(text, "balance")
        self.bed = Bed(settings.bed, namespace, settings.ports, say=lambda words: None, queues=1)
        self.engine = EngineProcess(text.split("[bed]")[0], folder)

    def target(self, *words):
        """`python -m pipeline target ...`; returns what it prints."""
        return subprocess.run([sys.executable, "-m", "pipeline", "target", *words, "--socket", str(self.engine.stats_path)], cwd=ROOT,
                              check=True, text=True, capture_output=True).stdout

    def exchange(self, service, count, at_once=200):
        """So many connections; returns how many each server answered, "" for those that got no answer."""
        made = exchange_all(self.bed, "client", ("10.1.0.1", service), [f"{2 * n + 1}\n".encode() for n in range(count)], at_once=at_once)
        return collections.Counter(exchange.received.split(b" ")[0].decode() for exchange in made)


@pytest.fixture(scope="module")
def balance():
    folder = tempfile.mkdtemp(prefix="balance-")
    made = Balance(folder)
    try:
        made.bed.prepare()
        made.engine.start()
        made.engine.wait_until_ready()
        made.bed.attach()
        with Servers(made.bed) as servers:
            made.servers = servers
            servers.listen("s0", PORT, answer)
            servers.listen("s2", PORT, answer)
            servers.listen("s0", QUIET, answer)
            servers.listen("s0", WELL, answer)
            servers.listen_silently("s1", QUIET)
            yield made
    finally:
        made.engine.kill()
        made.bed.remove()
        shutil.rmtree(folder)


@pytest.mark.parametrize("service", [TURNS, MAGLEV])
def test_a_target_that_refuses_costs_not_one_connection_under_200_at_once(balance, service):
    answered = balance.exchange(service, 600)
    print(answered)
    assert set(answered) == {"s0", "s2"} and sum(answered.values()) == 600


def test_passive_health_holds_it_for_down(balance):
    assert "s1" in balance.target("list") and "connections failed" in balance.target("list")
    refused = {target["id"]: target["refused"] for target in balance.engine.stats()["targets"]}["s1"]
    balance.exchange(TURNS, 200)
    assert {target["id"]: target["refused"] for target in balance.engine.stats()["targets"]}["s1"] == refused


def test_it_is_used_again_once_it_listens_and_is_put_up(balance):
    balance.servers.listen("s1", PORT, answer)
    balance.target("set", "s1", "up")
    answered = balance.exchange(TURNS, 300)
    assert answered == {"s0": 100, "s1": 100, "s2": 100}


def test_a_drained_target_gets_no_new_connection_and_loses_none(balance):
    kept = [connect(balance.bed, "client", ("10.1.0.1", TURNS)) for _ in range(30)]
    for connection in kept:
        connection.sendall(b"2 is even\n")
    told = [connection.recv(100).split(b" ")[0] for connection in kept]
    assert set(told) == {b"s0", b"s1", b"s2"}
    balance.target("set", "s2", "drain")
    for service in (TURNS, MAGLEV):
        assert set(balance.exchange(service, 200)) == {"s0", "s1"}
    for connection in kept:
        connection.sendall(b"more\n")
        connection.close()
    deadline = time.monotonic() + 10
    while sum(served.received.endswith(b"more\n") for served in balance.servers.served) < 30:
        assert time.monotonic() < deadline, "a connection of a drained target has been lost"
        time.sleep(0.05)
    balance.target("set", "s2", "up")
    assert set(balance.exchange(TURNS, 200)) == {"s0", "s1", "s2"}


def test_a_silent_target_delays_nobody_beyond_one_time_out_and_then_nobody_at_all(balance):
    """1 s is the time-out of a connecting attempt; three silent ones in a row are what passive health needs."""
    answered = balance.exchange(SILENT, 200)
    assert answered == {"s0": 200}
    timeouts = {target["id"]: target["timeouts"] for target in balance.engine.stats()["targets"]}["q1"]
    assert timeouts > 2 and "q1" in balance.target("list")
    start = time.monotonic()
    assert balance.exchange(SILENT, 200) == {"s0": 200}
    print("200 connections in", time.monotonic() - start)
    assert {target["id"]: target["timeouts"] for target in balance.engine.stats()["targets"]}["q1"] == timeouts


def until(balance, state):
    """Waits until `target list` says so of c1."""
    deadline = time.monotonic() + 20
    while not any(line.split()[:2] == ["c1", state] for line in balance.target("list").splitlines()):
        assert time.monotonic() < deadline, balance.target("list")
        time.sleep(0.1)


def test_active_checks_find_a_target_down_before_any_client_and_up_again(balance):
    until(balance, "down")
    assert "check: connection refused" in balance.target("list")
    assert balance.exchange(CHECKED, 100) == {"s0": 100}
    assert {target["id"]: target["refused"] for target in balance.engine.stats()["targets"]}["c1"] == 0
    balance.servers.listen("s1", WELL, answer)
    until(balance, "up")
    assert balance.exchange(CHECKED, 100) == {"s0": 50, "s1": 50}
