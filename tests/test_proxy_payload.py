"""Kernel stacks talk through payload kernels that lengthen, shorten and delete: both streams are what the kernels make of them."""
import hashlib
import os
import pathlib
import random
import threading

import pytest

from peers.listener import Listener, client_of, receive_all
from peers.payload_twins import TWINS
from peers.path_bed import open_path, service
from peers.requirements import needs_bed

pytestmark = needs_bed
PORT = 7000
KERNELS = pathlib.Path(__file__).with_name("peers") / "payload_kernels.py"
WORDS = [b"a", b"banana ", b"2026-11-23 ", b"xylophone\n", b"the quick brown fox ", b"0" * 40, b"a" * 40, bytes(range(128, 256))]
FAULTS = {"reordering": ({"reorder": 0.01, "reorder_delay": 0.001}, 300_000)}
"""Faults of both ports, and how many bytes each side sends; what is lost has to wait for time-outs, which takes a minute."""
if os.environ.get("PIPELINE_SOAK") == "1":
    FAULTS |= {"clean": ({}, 3_000_000), "lossy": ({"loss": 0.005}, 300_000)}


def text(seed, length):
    """Returns `length` bytes of words of which the kernels change many."""
    dice = random.Random(seed)
    return b"".join(dice.choices(WORDS, k=length // 4))[:length]


def exchange(path, to_send, to_answer):
    """The client sends and closes while the server does the same; returns what the server and the client got."""
    with Listener(path, "s0", PORT) as listener, client_of(path, PORT) as client:
        client.settimeout(60)
        sender = threading.Thread(target=lambda: (client.sendall(to_send), client.shutdown(1)))
        sender.start()
        with listener.accept() as server:
            server.settimeout(60)
            answering = threading.Thread(target=lambda: (server.sendall(to_answer), server.shutdown(1)))
            answering.start()
            got = []
            receiving = threading.Thread(target=lambda: got.append(receive_all(client)))
            receiving.start()
            server_got = receive_all(server)
            for thread in (sender, answering, receiving):
                thread.join(60)
        return server_got, got[0]


@pytest.mark.parametrize("name", FAULTS)
def test_rule_5_1_kernel_stacks_exchange_what_the_kernels_make_of_both_streams(name):
    faults, length = FAULTS[name]
    shaped = service(PORT, payload_to_target=f"{KERNELS}:everything", payload_to_client=f"{KERNELS}:everything")
    to_send, to_answer = text(1, length), text(2, length)
    with open_path(f"pk{name[:3]}", [shaped], faults=faults) as path:
        for _ in range(2):
            got = exchange(path, to_send, to_answer)
            for came, sent in zip(got, (to_send, to_answer), strict=True):
                made = TWINS["everything"](sent)
                assert len(came) == len(made) and hashlib.sha256(came).digest() == hashlib.sha256(made).digest()
        path.counters_at_rest(within=20)
        path.engine.stop()
        records = path.engine.records()
    assert [record["octets"] for record in records] == 2 * [{"client": length, "target": length}]
    assert {record["release"]["client"] for record in records} <= {"PassiveClose", "ActiveClose"}
