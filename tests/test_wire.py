"""Plain forwarding between kernel stacks: configs/wire.toml as it is, and a path on which everything goes wrong."""
import hashlib
import os
import re
import socket
import threading
import time

import pytest

from peers.clients import connect
from peers.engine_process import ROOT, EngineProcess
from peers.requirements import needs_bed, needs_nginx, needs_program
from peers.servers import Servers, echo
from pipeline import configuration
from pipeline.bed import Bed

pytestmark = [needs_bed, needs_nginx]

SERVER = "10.1.0.11"
SENT = os.urandom(1 << 20) * 4


@pytest.fixture
def wire(request, tmp_path):
    """The bed of configs/wire.toml with its engine running; the parameter replaces its delay by other faults."""
    text = (ROOT / "configs" / "wire.toml").read_text()
    namespace = f"wire{os.getpid()}"
    text = re.sub(r'^network_namespace = .*$', f'network_namespace = "{namespace}"', text, flags=re.MULTILINE)
    text = re.sub(r"^delay = .*$", getattr(request, "param", r"\g<0>"), text, flags=re.MULTILINE)
    settings = configuration.parse(text, "wire.toml")
    bed = Bed(settings.bed, namespace, settings.ports, say=lambda words: None)
    engine = EngineProcess(text.partition("[bed]")[0], tmp_path)
    try:
        bed.prepare()
        engine.start()
        engine.wait_until_ready()
        bed.attach()
        bed.serve()
        yield bed, engine
    finally:
        engine.kill()
        bed.remove()


@needs_program("ping", "iputils-ping")
def test_25_ms_each_way_are_a_round_trip_of_50_by_ping_and_by_tcp(wire):
    bed, engine = wire
    ping = bed.run_in("client", ["ping", "-c", "10", "-i", "0.1", "-W", "2", SERVER], stdout=-1, text=True)
    said, _ = ping.communicate(timeout=30)
    assert " 0% packet loss" in said, said
    least = float(re.search(r"= ([0-9.]+)/", said)[1])
    assert 50 <= least < 55, said
    took = []
    for _ in range(5):
        begun = time.monotonic()
        connect(bed, "client", (SERVER, 8080)).close()
        took.append(1000 * (time.monotonic() - begun))
    assert 50 <= min(took) < 55, took
    ended = engine.stop()
    (left, right), (worker,) = ended["ports"], ended["workers"]
    assert "faults" not in right and ended["summary"]["faults"]["left"] == left["faults"]
    for counted in left["faults"].values():
        assert counted["delayed"] == counted["packets"] >= 10 and counted["lost"] == counted["waiting"] == 0
    assert worker["transmitted"] == worker["packets"] and not worker["drops"]


@pytest.mark.parametrize("wire", ["delay = 0.002\njitter = 0.001\nloss = 0.01\nduplicate = 0.01\nreorder = 0.01\nflip = 0.01"],
                         indirect=True, ids=["everything"])
def test_tcp_comes_whole_through_all_faults_at_once(wire):
    bed, engine = wire
    with Servers(bed) as servers:
        servers.listen("server", 7000, echo)
        with connect(bed, "client", (SERVER, 7000), timeout=60) as client:
            sending = threading.Thread(target=lambda: (client.sendall(SENT), client.shutdown(socket.SHUT_WR)))
            sending.start()
            received = b"".join(iter(lambda: client.recv(1 << 20), b""))
            sending.join()
    assert hashlib.sha256(received).digest() == hashlib.sha256(SENT).digest()
    for counted in engine.stop()["ports"][0]["faults"].values():
        assert all(counted[name] for name in ("lost", "duplicated", "flipped", "reordered", "delayed")), counted
