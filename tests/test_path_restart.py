"""kill -9 of the engine under load, and a restart: clients that retry get through, on the old ports, and nothing hangs."""
import socket
import subprocess
import threading
import time
from dataclasses import dataclass, field

import pytest

from peers.engine_process import WORKERS
from peers.path_bed import open_path, service
from peers.requirements import needs_bed
from peers.servers import Servers

pytestmark = needs_bed
PORT, PORTS, CLIENTS = 7000, 48 * WORKERS, 24
PATIENCE = 3.0
"""Seconds that a client waits for an answer before it tries again."""
TALK = 0.15
"""Seconds between two lines of a client: what is killed is in the middle of a conversation."""


async def converse(host, reader, writer):
    """Answers every line with the same line until the client closes."""
    lines = b""
    while line := await reader.readline():
        lines += line
        writer.write(line)
        await writer.drain()
    return lines


@dataclass
class Client:
    """Has short conversations, one after the other, each tried again until it has gone well; times are monotonic."""

    number: int
    succeeded: list = field(default_factory=list)
    failed: list = field(default_factory=list)

    def run(self, path, stop):
        """Talks until `stop` (Event) is set and the conversation of that moment is through."""
        turn = 0
        while not stop.is_set():
            turn += 1
            while not self._talk(path, turn):
                time.sleep(0.05)

    def _talk(self, path, turn):
        begun = time.monotonic()
        try:
            with path.bed.inside("client"):
                connection = socket.socket()
            with connection:
                connection.settimeout(PATIENCE)
                connection.connect(path.address_of(PORT))
                lines = connection.makefile("rb")
                for part in range(3):
                    words = b"%d %d %d\n" % (self.number, turn, part)
                    connection.sendall(words)
                    assert lines.readline() == words
                    time.sleep(TALK)
        except (OSError, AssertionError) as error:
            self.failed.append((begun, time.monotonic(), repr(error)))
            return False
        self.succeeded.append((begun, time.monotonic()))
        return True


@pytest.fixture(scope="module")
def path():
    """An engine with few ports toward its target: after the restart each is needed again."""
    with open_path("restart", [service(PORT, source_ports=[20000, 20000 + PORTS - 1])]) as opened:
        yield opened


def established(path, host):
    """What `ss` shows of connections on a host that have not ended there, TIME-WAIT left out."""
    listing = path.bed.run_in(host, ["ss", "-Htan", "state", "connected", "exclude", "time-wait"],
                              stdout=subprocess.PIPE, text=True)
    return listing.communicate(timeout=10)[0].splitlines()


def test_rules_3_2_and_4_6_kill_9_and_a_restart_under_load(path):
    clients, stop = [Client(number) for number in range(CLIENTS)], threading.Event()
    with Servers(path.bed) as servers:
        servers.listen("s0", PORT, converse)
        threads = [threading.Thread(target=client.run, args=(path, stop), daemon=True) for client in clients]
        for thread in threads:
            thread.start()
        time.sleep(2)
        path.engine.kill()
        killed = time.monotonic()
        before = len(established(path, "s0"))
        path.start()
        ready = time.monotonic()
        time.sleep(5)
        stop.set()
        for thread in threads:
            thread.join(2 * PATIENCE + 2)
        assert [client.number for client, thread in zip(clients, threads) if thread.is_alive()] == [], "nothing hangs"
        left = wait_until_none_is_left(path)
        stats = path.counters_at_rest()
    assert before > CLIENTS / 2, "the target had connections that the engine has forgotten"
    for client in clients:
        assert any(end < killed for _, end in client.succeeded), f"client {client.number} had talked before"
        assert any(begun > ready for begun, _ in client.succeeded), f"client {client.number} gets through again: {client.failed}"
        late = [failure for failure in client.failed if failure[0] > ready]
        assert late == [], f"client {client.number}: only what was begun before the restart fails"
    worker, = stats["workers"]
    assert worker["notices"]["old_connections_reset"] > 0, "the target still had connections on ports that came again"
    assert left == []


def wait_until_none_is_left(path):
    """The connections that neither the client's nor the target's kernel has ended after some time."""
    deadline = time.monotonic() + 10
    while (left := established(path, "client") + established(path, "s0")) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left
