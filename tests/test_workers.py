"""Several workers, nothing shared: each connection is one worker's, whatever brings its packets there (issue 4)."""
import contextlib
import os
import time

import numpy as np
import pytest
from scapy.layers.l2 import ARP, Ether

from pipeline.errors import RunError
from pipeline.kernels.counters import NOTICE_HANDED_OVER, NOTICE_TAKEN_OVER, TOTAL_OPENED
from pipeline.kernels.neighbours import REACHABLE, add_neighbour, find_neighbour
from pipeline.state import STOP
from pipeline.worker import Workers, on_core
from tcp.icmp import UNREACHABLE, error
from tcp.proxy import MACS, NUMBER, SERVICE, STEERINGS, TARGETS, TURNS, close, connect
from tcp.segments import build

steered = pytest.mark.parametrize("proxy", [pytest.param({"workers": workers, "steered": how, "connections": 32768, "opening_connections": 32768, "mbufs": 4096},
                                                         id=f"{workers}-{how}") for how in STEERINGS for workers in (2, 3)
                                            if (workers, how) != (3, "address")], indirect=True)
two = {"workers": 2, "steered": "software"}


def opened(proxy):
    """How many connections each worker has opened (int64[workers])."""
    return np.array([int(worker.counters.totals[TOTAL_OPENED]) for worker in proxy.workers])


def handed(proxy):
    """How many packets workers have given and taken."""
    return proxy.count("handed_over"), proxy.count("taken_over")


def exchange(proxy, number):
    """A whole connection of a client of its own: opened, bound, spoken on both ways, closed by the client."""
    client = proxy.client(NUMBER, address=f"10.1.0.{2 + 3 * number}", port=2000 + 7 * number, known=False)
    target = connect(proxy, client, b"0 hello")
    target.send("PA", b"welcome")
    client.expect("PA", data=b"welcome")
    client.send("A")
    target.expect("A")
    close(client, target)


@steered
def test_each_connection_is_that_of_one_worker_from_its_syn_to_its_end(proxy):
    for number in range(60):
        exchange(proxy, number)
    assert opened(proxy).sum() == 60 and (opened(proxy) > 8).all()
    assert proxy.drops() == {}
    gave, took = handed(proxy)
    assert gave == took
    assert (gave > 0) == any(worker.steering.by[0] == STEERINGS["software"][0] for worker in proxy.workers)


@steered
def test_ten_thousand_connections_are_spread_evenly(proxy):
    random = np.random.default_rng(1)
    for _ in range(100):
        frames = [build((f"10.1.0.{random.integers(2, 250)}", int(random.integers(1024, 65535))), (SERVICE, TURNS), MACS[0], "S",
                        int(random.integers(1 << 32)), 0, b"") for _ in range(100)]
        proxy.burst(*frames)
    share = opened(proxy) / opened(proxy).sum()
    assert opened(proxy).sum() > 9900
    fair = 1 / len(share)
    assert ((0.8 * fair < share) & (share < 1.2 * fair)).all(), share
    proxy.received.clear()


@pytest.mark.parametrize("proxy", [two], indirect=True)
def test_each_worker_hears_the_arp_reply_that_one_of_them_gets(proxy):
    proxy.know("10.1.0.2", 0)
    reply = Ether(src="02:00:00:00:00:77", dst=MACS[1]) / ARP(op=2, hwsrc="02:00:00:00:00:77", psrc="10.2.0.99", hwdst=MACS[1],
                                                               pdst="10.2.0.1")
    for worker in proxy.workers:
        add_neighbour(worker.network, 0x0A020063, 1)
    proxy.burst(bytes(reply), port=1)
    entries = [worker.network.neighbours[find_neighbour(worker.network, 0x0A020063)] for worker in proxy.workers]
    assert [(entry["state"], entry["mac_low"]) for entry in entries] == [(REACHABLE, 0x77)] * 2
    assert handed(proxy) == (1, 1)


@pytest.mark.parametrize("proxy", [two], indirect=True)
def test_an_arp_request_is_answered_once(proxy):
    request = Ether(src="02:00:00:00:00:77", dst="ff:ff:ff:ff:ff:ff") / ARP(op=1, hwsrc="02:00:00:00:00:77", psrc="10.1.0.9",
                                                                            pdst=SERVICE)
    proxy.burst(bytes(request))
    answer, = proxy.taken_others(0)
    assert Ether(answer)[ARP].op == 2 and Ether(answer)[ARP].hwsrc == MACS[0]


@pytest.mark.parametrize("proxy", [two], indirect=True)
def test_an_icmp_error_finds_the_worker_whose_packet_it_quotes(proxy):
    for number in range(12):
        client = proxy.client(NUMBER)
        target = connect(proxy, client, b"0 hello")
        client.send("PA", b"x" * 600)
        segment = proxy.received[target.own, target.other].popleft()
        proxy.burst(error(segment.frame, UNREACHABLE, 4, f"10.9.9.{number + 1}", mtu=1000), port=1)
        assert len(proxy.taken_others(0)) == 1
    assert proxy.count("icmp_errors_passed") == 12 and proxy.drops() == {}


@pytest.mark.parametrize("proxy", [two], indirect=True)
def test_strays_are_answered_once_by_whoever_would_own_them(proxy):
    for number in range(16):
        client = proxy.client(TURNS, port=3000 + number)
        client.send("A", seq=5, ack=7)
        client.expect("R")
        target_side = build(TARGETS["a"], ("10.2.0.1", 10000 + number), MACS[1], "A", 5, 7, b"")
        proxy.burst(target_side, port=1)
        assert len(proxy.received[TARGETS["a"], ("10.2.0.1", 10000 + number)]) == 1
    proxy.received.clear()
    assert proxy.count("resets_sent") == 32


@pytest.mark.parametrize("proxy", [{**two, "ring_size": 64, "mbufs": 4096}], indirect=True)
def test_what_a_slow_worker_does_not_take_is_counted_and_freed(proxy):
    client = [proxy.client(TURNS, port=5000 + number) for number in range(500)]
    first, other = proxy.workers
    for one in client:
        proxy.network.ports[0].feed([one.segment("S")])
        proxy._run(first, 2, proxy.now)
    gave = int(first.counters.notices[NOTICE_HANDED_OVER])
    assert gave == 64 and proxy.drops()["hand_over_full"] > 0
    proxy.run()
    assert int(other.counters.notices[NOTICE_TAKEN_OVER]) == gave
    proxy.received.clear()
    proxy.others.clear()


def ends_when_told(state, passes, given):
    """A worker's loop that does nothing until it is told to stop."""
    while state.control[0] != STOP:
        time.sleep(0.001)


def dies(state, passes, given):
    """A worker's loop that fails."""
    raise ZeroDivisionError("a fault")


class Controlled:
    """The state of a worker with nothing in it; its loop is `run`."""

    def __init__(self, run):
        self.control, self.run = np.zeros(8, np.int64), run


def test_a_workers_state_is_made_on_its_core():
    here, last = os.sched_getaffinity(0), max(os.sched_getaffinity(0))
    assert on_core(last, lambda word: (os.sched_getaffinity(0), word), "said") == ({last}, "said")
    assert os.sched_getaffinity(0) == here


def test_a_worker_that_dies_is_missed_by_name():
    states = [Controlled(ends_when_told), Controlled(dies)]
    workers = Workers(lambda state, passes, given: state.run(state, passes, given), states, [0, 0],
                      contextlib.nullcontext)
    workers.start()
    try:
        with pytest.raises(RunError, match="worker on core 0 died: ZeroDivisionError"):
            for _ in range(100):
                workers.ended(0.01)
    finally:
        workers.stop()
        for worker in workers.members:
            worker.thread.join(5)
    assert not workers.running


def test_a_worker_that_ends_by_itself_is_missed():
    states = [Controlled(ends_when_told), Controlled(lambda *_: None)]
    workers = Workers(lambda state, passes, given: state.run(state, passes, given), states, [0, 0],
                      contextlib.nullcontext)
    workers.start()
    workers.members[1].thread.join(5)
    assert not workers.ended(0) and workers.lost() is workers.members[1]
    workers.stop()
    workers.members[0].thread.join(5)
    assert workers.ended(0)
