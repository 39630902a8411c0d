"""Many random clients at once over a network that loses, repeats, reorders and corrupts: every octet, end and record is right.

PIPELINE_SOAK=1 has 2,000 of them for 60 seconds, as issue 3 asks; without it there are fewer, for a shorter time. The seed
stands in the output of a test that fails.
"""
import collections
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field

import pytest

from peers import chaos
from peers.chaos import Plan
from peers.path_bed import AFTER_LINE, BESIDE, open_path, service
from peers.requirements import needs_bed

pytestmark = needs_bed
AT_ONCE, SECONDS = (2000, 60) if os.environ.get("PIPELINE_SOAK") else (300, 6)
SEED = int(os.environ.get("CHAOS_SEED", "3"))
SERVICES = [service(7000), service(7001, ("s1",)), service(7002, ("s2",), select=AFTER_LINE),
            service(7003, ("s3",), binding="immediate"), service(7004, ("s1",), binding="simple")]
"""One way of choosing each; the last three hosts decline an option each, `simple` alone leaves that to the ends."""
DECLINES = {"s1": "ipv4/tcp_timestamps", "s2": "ipv4/tcp_sack", "s3": "ipv4/tcp_window_scaling"}
DELAYED = (7000, 7001, 7002)
BEYOND = {"loss": 0.005, "duplicate": 0.005, "reorder": 0.005, "delay": 0.001, "jitter": 0.0005, "seed": SEED}
"""At the servers' port, in both directions."""
FAULTS = (BEYOND | {"flip": 0.004}, BEYOND)
"""At each port: a packet through the engine meets all twice, but flips once. Of two flips in one packet, 1 pair in 32 leaves the
checksum as it was, which no end can find (seen once in 41,426 connections with 0.002 at both ports)."""
TIMEOUTS = {"syn_received": 10.0, "first_data": 10.0, "connecting": 8.0, "established": 12.0, "half_closed": 12.0,
            "fin_wait": 8.0, "time_wait": 0.5}
SETTLED = 30
"""Seconds that the kernels may take to give up a connection whose peer is gone."""


@dataclass
class Aftermath:
    """What both programs, the kernels, the counters and the records say when all is over."""

    clients: list = field(default_factory=list)
    servers: list = field(default_factory=list)
    sockets: list = field(default_factory=list)
    before: dict = None
    after: dict = None
    records: list = None


@pytest.fixture(scope="module")
def aftermath():
    """One run of it all."""
    told = Aftermath()
    engine = {"connections": 16384, "held_connections": 4096, "records": 1 << 17}
    with open_path("chaos", [*BESIDE, *SERVICES], servers=4, faults=FAULTS, engine=engine, timeouts=TIMEOUTS) as path:
        for host, setting in DECLINES.items():
            path.set_kernel(host, {setting: "0"})
        told.before = path.engine.stats()
        servers = [run(path, each["hosts"][0], "serve", SEED, each["port"]) for each in SERVICES]
        for each, server in zip(SERVICES, servers):
            assert json.loads(server.stdout.readline()) == {"serves": each["port"]}
        ports = [each["port"] for each in SERVICES]
        client = run(path, "client", "ask", SEED, AT_ONCE, SECONDS, path.address_of(ports[0])[0], *ports)
        told.clients = outcomes_of(client)
        for server in servers:
            server.terminate()
        told.servers = [outcome for server in servers for outcome in outcomes_of(server)]
        told.sockets = sockets_left(path)
        told.after = path.counters_at_rest()
        path.engine.stop()
        told.records = path.engine.records()
    return told


def run(path, host, *arguments):
    """Starts peers/chaos.py on a host."""
    return path.bed.run_in(host, [sys.executable, chaos.__file__, *arguments], stdin=subprocess.DEVNULL,
                           stdout=subprocess.PIPE, text=True)


def outcomes_of(process):
    """The Outcomes (dicts) that a program prints in the end."""
    out, _ = process.communicate(timeout=SECONDS + chaos.PATIENCE + 30)
    assert process.returncode == 0
    return json.loads(out)


def sockets_left(path):
    """What `ss` still shows in all namespaces, but for listeners and TIME-WAIT, once the kernels have had their time."""
    deadline = time.monotonic() + SETTLED
    while True:
        left = []
        for host in ("client", *path.hosts):
            out, _ = path.bed.run_in(host, ["ss", "-Htan", "state", "connected", "exclude", "time-wait"],
                                     stdout=subprocess.PIPE, text=True).communicate(timeout=10)
            left += [f"{host}: {line}" for line in out.splitlines()]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.2)


def test_every_octet_is_right_and_orderly_ends_are_orderly(aftermath):
    for side in (aftermath.clients, aftermath.servers):
        wrong = [each for each in side if each["wrong"]]
        kinds = collections.Counter((each["ending"], each["saw"], each["wrong"]) for each in wrong)
        assert wrong == [], f"seed {SEED}: {len(wrong)} of {len(side)}: {kinds.most_common(8)}"
    orderly = {each["number"] for each in aftermath.clients if each["ending"] in chaos.ORDERLY}
    assert len(orderly) > AT_ONCE / 2
    assert orderly <= {each["number"] for each in aftermath.servers}
    for each in (*aftermath.clients, *aftermath.servers):
        if each["ending"] in chaos.ORDERLY:
            plan = Plan(SEED, each["number"])
            assert sorted((each["sent"], each["received"])) == sorted(plan.sizes), each


def test_no_server_hears_of_a_client_that_says_nothing_unless_it_is_chosen_at_the_syn(aftermath):
    assert {each["ending"] for each in aftermath.clients} == set(chaos.ENDINGS)
    heard = {each["service"] for each in aftermath.servers if each["ending"] == "mute"}
    assert heard and not heard & set(DELAYED)
    waited = collections.Counter(each["saw"] for each in aftermath.clients if each["ending"] == "stays mute")
    assert set(waited) == {"reset"}, waited


def test_every_connection_ends_on_both_sides(aftermath):
    assert aftermath.sockets == []
    assert not any(each["saw"] == "nothing" for each in (*aftermath.clients, *aftermath.servers))


def test_the_table_and_the_pool_are_empty_at_the_end(aftermath):
    assert aftermath.after["pool"]["available"] == aftermath.after["pool"]["mbufs"]
    worker, = aftermath.after["workers"]
    assert (worker["connections"]["open"], worker["connections"]["table"], worker["connections"]["held"]) == (0, 0, 0)
    assert worker["connections"]["opened"] == worker["connections"]["closed"]


def client_port(record):
    """The port of the client, which ends its address in a record."""
    return int(record["client"].rpartition(":")[2])


def test_records_account_for_every_connection(aftermath):
    """A repeated SYN that comes after its connection has ended opens one that nobody talks on: it stands there alone."""
    worker, = aftermath.after["workers"]
    assert len(aftermath.records) == worker["connections"]["opened"]
    connected = collections.Counter(each["port"] for each in aftermath.clients if each["port"])
    assert sum(connected.values()) >= AT_ONCE
    recorded = collections.Counter(map(client_port, aftermath.records))
    assert connected - recorded == collections.Counter(), f"seed {SEED}: connections without a record"
    spoken = collections.Counter(client_port(record) for record in aftermath.records
                                 if record["target"] or record["octets"]["client"])
    assert spoken - connected == collections.Counter(), f"seed {SEED}: records of connections that nobody made"


def test_records_count_the_octets_of_orderly_connections(aftermath):
    recorded = collections.Counter((client_port(record), record["octets"]["client"], record["octets"]["target"])
                                   for record in aftermath.records)
    orderly = [each for each in aftermath.clients if each["ending"] in chaos.ORDERLY]
    expected = collections.Counter((each["port"], each["sent"] + len(Plan(SEED, each["number"]).header), each["received"])
                                   for each in orderly)
    assert expected - recorded == collections.Counter(), f"seed {SEED}"


def test_the_network_was_as_bad_as_meant(aftermath):
    for port, flips in zip(aftermath.after["ports"], (True, False), strict=True):
        for direction in ("receive", "transmit"):
            struck = port["faults"][direction]
            assert struck["overflowed"] == 0 and (struck["flipped"] > 0) == flips, struck
            assert min(struck[what] for what in ("lost", "duplicated", "reordered", "delayed")) > 0, struck
