"""`isolation = "checked"` on real ports with two workers: nothing is found in a clean run, and a kernel that goes astray is.

In `make soak`, for the loop that checks all this takes minutes to compile; test_isolation.py has it on memory ports.
"""
import os
import re

import pytest

from peers import laboratory as lab
from peers.clients import connect, exchange_all
from peers.requirements import needs_bed, needs_nginx
from peers.servers import Servers, echo

pytestmark = [needs_bed, needs_nginx]
LAYOUT = lab.Layout("two_port", "af_packet", 2, "checked")
REQUESTS = 300


def kept_to_their_own(clean):
    """Has real clients and servers talk through both workers, and the engine end well."""
    requests = [f"GET /{lab.SERVERS[number % 3]}/{number} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
                for number in range(REQUESTS)]
    exchanges = exchange_all(clean.bed, "client", (lab.SERVICE, lab.WEB), requests, at_once=16)
    assert [exchange.ended for exchange in exchanges if b"200 OK" not in exchange.received] == []
    sent = b"0123456789abcdef" * 65536
    with Servers(clean.bed) as servers:
        for server in lab.SERVERS:
            servers.listen(server, lab.ECHO, echo)
        came, = exchange_all(clean.bed, "client", (lab.SERVICE, lab.FAULTY), [sent], half_close=True)
    assert came.received == sent
    after = clean.counters_at_rest()
    assert all(worker["connections"]["opened"] > REQUESTS // 5 for worker in after["each"])
    assert after["workers"][0]["notices"]["handed_over"] > REQUESTS
    ended = clean.engine.stop()
    assert ended["summary"] and "violation" not in clean.engine.words()


if os.environ.get("PIPELINE_SOAK") == "1":
    def test_two_workers_that_hand_over_are_found_to_keep_to_their_own():
        with lab.open_laboratory(LAYOUT) as clean:
            kept_to_their_own(clean)

    @pytest.mark.parametrize("request_, status, told", [
        (b"outside", 1, r"the worker on core \d died: IndexError\('index is out of bounds'\)"),
        (b"beyond", -11, r"Segmentation fault(.|\n)*Current thread (.|\n)*in worker_on_core_\d"),
    ], ids=["an index outside its array", "an address behind its array"])
    def test_a_kernel_of_the_users_that_goes_astray_ends_the_engine(request_, status, told):
        with lab.open_laboratory(LAYOUT) as opened:
            with connect(opened.bed, "client", (lab.SERVICE, lab.FAULTY)) as client:
                client.sendall(request_)
                assert opened.engine.process.wait(20) == status
            assert re.search(told, opened.engine.words()), opened.engine.words()
