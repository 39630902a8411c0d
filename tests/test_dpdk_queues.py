"""Ports of two queues: real devices between DPDK and the kernel's own TCP, which every queue has to receive from and send to."""
import contextlib
import errno
import os
import select
import socket
import subprocess
import threading
import time
from types import SimpleNamespace

import numpy as np
import pyroute2
import pytest
from dpdk_bed import MBUFS, ip, is_root, kernel_socket, veth
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether

from pipeline.bed import Bed
from pipeline.io.burst import Burst
from pipeline.io.devargs import split_by_queue
from pipeline.io.frames import write_frames
from pipeline.kernels import dpdk_device, native
from pipeline.kernels.jit import loop
from pipeline.network_namespace import entered

dpdk = pytest.importorskip("pipeline.io.dpdk", reason="DPDK is not installed", exc_type=ImportError)
shim = pytest.importorskip("pipeline.io.shim", reason="DPDK is not installed", exc_type=ImportError)
needs_root = pytest.mark.skipif(not is_root(), reason="needs root: network namespaces and their devices")

CLIENTS = 64
"""Connections that are tried: that all of them fall to one of two queues happens once in 2^63 times."""
KEY = bytes.fromhex("6d5a" * 20)
"""The key by which both directions of a connection have the same hash."""
DEVICES = {"net_af_packet": "net_af_packet0,iface=inner", "net_af_xdp": "net_af_xdp0,iface=inner",
           "net_tap": "net_tap0,iface=outer"}


@pytest.fixture(params=[[0], [0, -1]], ids=["one pool", "a pool each"])
def pools(request, environment):
    """MBUFS mbufs for two workers: on one NUMA node, or as if each had one of its own."""
    with contextlib.closing(dpdk.NodePools("mbufs", MBUFS, request.param)) as made:
        yield made


@contextlib.contextmanager
def two_queues(driver, namespace, pool):
    """A port of two queues, at whose other end the kernel has 10.0.0.1 on `outer` and sends to 10.0.0.2."""
    if driver != "net_tap":
        veth(queues=2)
    with entered(namespace):
        opened = dpdk.Port(DEVICES[driver], "two", pool, queues=2)
    with contextlib.closing(opened) as port:
        ip("link", "set", "outer", "up")
        ip("address", "add", "10.0.0.1/24", "dev", "outer")
        ip("neighbour", "add", "10.0.0.2", "lladdr", "02:00:00:00:00:02", "dev", "outer")
        yield port


@contextlib.contextmanager
def connecting(namespace, count):
    """Sockets of the kernel's that have begun to connect to 10.0.0.2."""
    with contextlib.ExitStack() as stack:
        with entered(namespace):
            sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.setblocking(False)
            assert each.connect_ex(("10.0.0.2", 80)) == errno.EINPROGRESS
        yield sockets


def refusal(frame):
    """The RST that answers a SYN, with its checksums."""
    syn = Ether(frame)
    return bytes(Ether(src=syn.dst, dst=syn.src) / IP(src=syn[IP].dst, dst=syn[IP].src)
                 / TCP(sport=80, dport=syn[TCP].sport, flags="RA", ack=syn[TCP].seq + 1))


def refuse(port, pool, queue):
    """Answers what has come on a queue on that queue; returns the client ports of the SYNs."""
    burst = port.rx(queue=queue)
    assert all(pool.arena.native.mbuf[mbuf].pool == pool.of_worker(queue).address for mbuf in burst.mbufs)
    answered = [bytes(frame) for frame in burst[burst.tcp.present]]
    burst.release()
    assert port.tx(Burst(write_frames(pool, [refusal(frame) for frame in answered]), pool), queue=queue) == len(answered)
    return {Ether(frame)[TCP].sport for frame in answered}


def check_connections(port, pool, namespace):
    """Has a host try to connect, by every one of two queues, and answers on the queue that each try came by."""
    with connecting(namespace, CLIENTS) as sockets:
        seen, deadline = [set(), set()], time.monotonic() + 20
        while len(seen[0] | seen[1]) < CLIENTS:
            assert time.monotonic() < deadline, f"of {CLIENTS} SYNs queue 0 had {len(seen[0])}, queue 1 {len(seen[1])}"
            for queue in (0, 1):
                seen[queue] |= refuse(port, pool, queue)
        assert seen[0] and seen[1]
        for each in sockets:
            select.select([], [each], [], 5)
            assert each.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED
        counted = port.statistics()
        assert counted["received_packets"] >= CLIENTS and counted["sent_packets"] >= CLIENTS
        assert counted["send_errors"] == counted["no_mbuf"] == 0


def has_xdp_program(interface):
    """Returns whether an interface of the calling thread's namespace has an XDP program."""
    with pyroute2.IPRoute() as route:
        (link,) = route.get_links(socket.if_nametoindex(interface))
        return bool(dict(link.get_attr("IFLA_XDP")["attrs"]).get("IFLA_XDP_PROG_ID"))


@needs_root
@pytest.mark.parametrize("driver", DEVICES)
def test_both_queues_receive_and_send(pools, namespace, driver):
    with two_queues(driver, namespace, pools) as port:
        assert port.driver == driver and len({port.queue_of(worker) for worker in (0, 1)}) == 2
        assert not port.rss and port.rss_table is None
        check_connections(port, pools, namespace)
    with entered(namespace), contextlib.suppress(OSError):
        assert not has_xdp_program("inner")


@needs_root
@pytest.mark.parametrize("driver", DEVICES)
def test_each_queue_sends_on_its_own_and_statistics_add_up(pool, namespace, driver):
    with two_queues(driver, namespace, pool) as port, contextlib.closing(kernel_socket("outer")) as kernel:
        for queue in (0, 1):
            frame = bytes(Ether(src="02:00:00:00:00:02", dst="02:00:00:00:00:01") / IP(dst="10.9.9.9") / TCP(sport=1000 + queue))
            assert port.tx(Burst(write_frames(pool, [frame] * 3), pool), queue=queue) == 3
            got = [kernel.recv(2048) for _ in range(3)]
            assert got == [frame] * 3
        assert port.statistics()["sent_packets"] == 6
        with pytest.raises(dpdk.DpdkError, match="worker 2 has no queue, queues = 2"):
            port.rx(queue=2)


@loop
def echo(device, mbufs, stop):
    """Sends back what comes, on the same queue, until told to stop; returns how many."""
    moved = 0
    while native.load_acquire(native.address_of(stop)) == 0:
        count = dpdk_device.receive(device, 0, mbufs, 32)
        sent = dpdk_device.transmit(device, 0, mbufs, 0, count)
        dpdk_device.release(device, mbufs[sent:], count - sent)
        moved += sent
        if count == 0:
            dpdk_device.pause(device, 50)
    return moved


def work(device, stop, moved):
    """A worker's thread."""
    with dpdk.registered_thread():
        moved.append(echo(device, np.zeros(32, np.int64), stop))


@needs_root
@pytest.mark.parametrize("driver", DEVICES)
def test_two_workers_share_a_port_and_lose_no_mbuf(pools, namespace, driver):
    stop, moved = np.ones(1, np.int64), []
    with two_queues(driver, namespace, pools) as port, contextlib.closing(kernel_socket("outer")) as kernel:
        held = MBUFS - pools.available
        devices = [dpdk.device(pools, [port], worker) for worker in (0, 1)]
        assert [echo(device, np.zeros(32, np.int64), stop) for device in devices] == [0, 0]
        stop[0] = 0
        threads = [threading.Thread(target=work, args=(device, stop, moved)) for device in devices]
        for thread in threads:
            thread.start()
        try:
            for number in range(2000):
                frame = bytes(Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
                              / IP(src="10.9.0.1", dst="10.9.0.2") / TCP(sport=1024 + number, dport=80))
                kernel.send(frame)
                assert kernel.recv(2048) == frame
        finally:
            stop[0] = 1
            for thread in threads:
                thread.join()
        assert sum(moved) >= 2000 and min(moved) > 0
        assert port.statistics()["sent_packets"] == sum(moved)
        assert MBUFS - pools.available <= held + 64  # what was sent last may still be with the kernel
    if driver != "net_af_xdp":
        assert pools.available == MBUFS


@needs_root
@pytest.mark.parametrize("device, devargs", [("af_packet", "net_af_packet0,iface=px0"), ("af_xdp", "net_af_xdp0,iface=px0"),
                                             ("tap", "net_tap0,iface=px0")])
def test_hosts_of_a_bed_reach_both_queues_and_are_reached_from_both(pool, device, devargs):
    host = SimpleNamespace(name="host", port="one", address="10.0.0.1/24", gateway=None, web=False)
    bed = Bed(SimpleNamespace(device=device, hosts=[host]), f"queues{os.getpid()}",
              [SimpleNamespace(name="one", interface="px0")], say=lambda words: None, queues=2)
    bed.prepare()
    try:
        with entered(bed.namespace):
            opened = dpdk.Port(devargs, "one", pool, queues=2)
        with contextlib.closing(opened) as port:
            bed.attach()
            with bed.inside("host"):
                subprocess.run(["ip", "neighbour", "add", "10.0.0.2", "lladdr", "02:00:00:00:00:02", "dev", "eth0"],
                               check=True, timeout=10)
            check_connections(port, pool, bed.namespace_of("host"))
    finally:
        bed.remove()


@needs_root
def test_af_xdp_is_refused_where_the_interface_has_too_few_queues(pool, namespace):
    veth()
    with entered(namespace), pytest.raises(dpdk.DpdkError, match=(
            r"port 'x' \(net_af_xdp0,iface=inner\): queues = 2, interface 'inner' receives on 1; ethtool -L inner rx 2 tx 2")):
        dpdk.Port("net_af_xdp0,iface=inner", "x", pool, queues=2)
    assert pool.available == MBUFS


@needs_root
def test_a_queue_that_cannot_be_opened_leaves_nothing_of_the_others(pool, namespace):
    veth(queues=2)
    with entered(namespace):
        dpdk.Port("net_af_xdp0,iface=inner,start_queue=1", "one", pool).close()
        with pytest.raises(dpdk.DpdkError, match="refuses its queues.*; a process can open a queue of an interface only once"):
            dpdk.Port("net_af_xdp0,iface=inner", "two", pool, queues=2)
        assert not has_xdp_program("inner")
    for name in ("net_af_xdp0", "net_af_xdp0_1"):
        assert shim.lib.shim_port_find(name.encode()) < 0


def test_devargs_for_one_queue_and_for_several():
    assert split_by_queue("net_af_xdp0,iface=px0", 1) == ["net_af_xdp0,iface=px0"]
    assert split_by_queue("net_af_xdp0,iface=px0,busy_budget=0", 2) == [
        "net_af_xdp0,iface=px0,busy_budget=0,start_queue=0,queue_count=1",
        "net_af_xdp0_1,iface=px0,busy_budget=0,start_queue=1,queue_count=1"]
    assert [words.partition("start_queue=")[2] for words in split_by_queue("net_af_xdp3,start_queue=4,iface=px0", 2)] == [
        "4,queue_count=1", "5,queue_count=1"]
    assert split_by_queue("net_af_xdp0,iface=px0,queue_count=2", 2) == ["net_af_xdp0,iface=px0,queue_count=2"]
    assert split_by_queue("net_af_packet0,iface=px0", 3) == ["net_af_packet0,iface=px0,qpairs=3"]
    assert split_by_queue("net_af_packet0,iface=px0,qpairs=2", 3) == ["net_af_packet0,iface=px0,qpairs=2"]
    for device in ("net_tap0,iface=dt0", "net_null0", "0000:01:00.0"):
        assert split_by_queue(device, 2) == [device]


@needs_root
def test_what_the_user_has_said_of_queues_is_not_changed(pool, namespace):
    veth(queues=2)
    with entered(namespace), pytest.raises(dpdk.DpdkError, match="queues = 3, this device has 2; qpairs=3 in its arguments"):
        dpdk.Port("net_af_packet0,iface=inner,qpairs=2", "x", pool, queues=3)


@pytest.mark.parametrize("key", [None, KEY, KEY[:16], KEY + bytes(12)])
def test_a_device_with_rss_takes_key_and_table(pool, key):
    with contextlib.closing(dpdk.Port("net_null0", "null", pool, queues=3, rss_key=key)) as port:
        assert port.rss and (port.rss_table == np.arange(len(port.rss_table)) % 3).all() and len(port.rss_table) == 128
        assert len(port.rss_key) == 40 and (key is None or port.rss_key == (key + bytes(40))[:40])


def test_one_queue_needs_no_rss(pool):
    with contextlib.closing(dpdk.Port("net_null0", "null", pool, rss_key=KEY)) as port:
        assert not port.rss and port.rss_table is None


@pytest.mark.parametrize("key", [b"short", "6d5a" * 20, bytes(256)])
def test_a_key_that_cannot_be_is_refused(pool, key):
    with pytest.raises(dpdk.DpdkError, match="port 'null': rss_key = .*, bytes are expected, 16 at least"):
        dpdk.Port("net_null0", "null", pool, queues=2, rss_key=key)
