"""Targets that close first keep the proxy's ports in TIME_WAIT: a hundred ports carry a thousand connections a second."""
import collections
import subprocess
import time

import pytest

from peers.clients import exchange_all
from peers.path_bed import open_path, service
from peers.requirements import needs_bed
from peers.servers import Servers

pytestmark = needs_bed
PORT, PORTS = 7000, 100
A_SECOND, SECONDS, TURNS = 1000, 4, 10


async def close_first(host, reader, writer):
    """Answers a line with the same line, and closes without waiting for anything more."""
    line = await reader.readline()
    writer.write(line)
    return line


@pytest.fixture(scope="module")
def path():
    """An engine with a hundred ports toward its one target."""
    services = [service(PORT, source_ports=[20000, 20000 + PORTS - 1])]
    with open_path("ports", services, timeouts={"time_wait": 0.5}) as opened:
        yield opened


def in_time_wait(path):
    """The proxy's ports that the target's kernel has in TIME-WAIT (a set)."""
    listing = path.bed.run_in("s0", ["ss", "-Htan", "state", "time-wait"], stdout=subprocess.PIPE, text=True)
    return {int(line.split()[-1].rpartition(":")[2]) for line in listing.communicate(timeout=10)[0].splitlines()}


def test_rule_3_2_a_hundred_ports_carry_a_thousand_connections_a_second_that_targets_close(path):
    """Every port is used some forty times while Linux would keep it for 60 seconds; no connection fails or waits for one."""
    exchanges, begun = [], time.monotonic()
    with Servers(path.bed) as servers:
        servers.listen("s0", PORT, close_first)
        for turn in range(SECONDS * TURNS):
            requests = [b"%d\n" % number for number in range(turn * A_SECOND // TURNS, (turn + 1) * A_SECOND // TURNS)]
            exchanges += exchange_all(path.bed, "client", path.address_of(PORT), requests, at_once=PORTS // 2)
            time.sleep(max(0.0, begun + (turn + 1) / TURNS - time.monotonic()))
        while len(servers.served) < len(exchanges) and time.monotonic() < begun + 60:
            time.sleep(0.02)
        peers = collections.Counter(served.peer[1] for served in servers.served)
    assert collections.Counter(each.ended for each in exchanges) == {"closed": SECONDS * A_SECOND}
    assert [each for each in exchanges if each.received != each.request] == []
    assert len(peers) == PORTS and sum(peers.values()) == SECONDS * A_SECOND
    assert in_time_wait(path) == set(peers), "the target's kernel has kept all ports, and yet taken every SYN"
    after, = path.counters_at_rest()["workers"]
    assert "source_ports_exhausted" not in after["drops"]
    assert "old_connections_reset" not in after["notices"], "no SYN lay below what its port had sent before"
    assert after["release_causes"]["target"] == {"PassiveClose": SECONDS * A_SECOND}
