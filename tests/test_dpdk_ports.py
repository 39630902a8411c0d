"""Every DPDK device that this machine can have, opened, used and closed for real, in network namespaces of our own.

EAL starts once a process: all tests share one, and those that need another run it in a process of their own.
PIPELINE_TEST_HUGEPAGES=1 runs a module on hugepages; one test does that with this one, and in `make soak` with all test_dpdk_*.
"""
import contextlib
import os
import pathlib
import re
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from dpdk_bed import HUGEPAGES, MBUFS, check_traffic, frames_of, ip, kernel_socket, received, veth
from scapy.layers.inet import TCP
from scapy.layers.l2 import Ether
from scapy.utils import rdpcap, wrpcap

from pipeline.io.burst import Burst
from pipeline.io.frames import write_frames
from pipeline.kernels import dpdk_device
from pipeline.kernels.headers import MBUF_ALIGNMENT
from pipeline.kernels.jit import loop
from pipeline.network_namespace import entered

dpdk = pytest.importorskip("pipeline.io.dpdk", reason="DPDK is not installed", exc_type=ImportError)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: network namespaces and their devices")

NR_HUGEPAGES = pathlib.Path("/proc/sys/vm/nr_hugepages")


@needs_root
@pytest.mark.parametrize("arguments", ["", ",blocksz=65536,framesz=2048,framecnt=2048"])
def test_af_packet(pool, namespace, arguments):
    veth()
    with entered(namespace):
        port = dpdk.Port(f"net_af_packet0,iface=inner{arguments}", "inner", pool)
    with contextlib.closing(port), contextlib.closing(kernel_socket("outer")) as kernel:
        assert port.driver == "net_af_packet" and port.link[0] and port.mtu == 1500
        address = subprocess.run(["ip", "netns", "exec", namespace, "cat", "/sys/class/net/inner/address"],
                                 capture_output=True, text=True, check=True).stdout
        assert f"{port.mac:012x}" == address.strip().replace(":", "")
        check_traffic(port, kernel)
        assert pool.available == MBUFS
    assert pool.available == MBUFS


@needs_root
def test_tap(pool, namespace):
    with entered(namespace):
        port = dpdk.Port("net_tap0,iface=tapped,mac=02:00:00:00:00:07", "tap", pool, mtu=1400)
    with contextlib.closing(port):
        assert (port.mac, port.mtu) == (0x020000000007, 1400)
        with entered(namespace):
            assert socket.if_nametoindex("tapped")
        port.close()
        assert pool.available == MBUFS
        with entered(namespace), pytest.raises(OSError, match="No such device|no interface"):
            socket.if_nametoindex("tapped")
    with entered(namespace):
        port = dpdk.Port("net_tap1,iface=again", "tap", pool, queues=2)
    with contextlib.closing(port):
        ip("link", "set", "again", "up")
        held = MBUFS - pool.available
        with contextlib.closing(kernel_socket("again")) as kernel:
            kernel.send(next(frames_of(1)))
            deadline = time.monotonic() + 5
            while not (len(burst := port.rx(queue=0)) or len(burst := port.rx(queue=1))):
                assert time.monotonic() < deadline
            burst.release()
        assert MBUFS - pool.available == held
    assert pool.available == MBUFS


@needs_root
def test_tap_carries_traffic(pool, namespace):
    with entered(namespace):
        port = dpdk.Port("net_tap0,iface=tapped", "tap", pool)
    with contextlib.closing(port):
        ip("link", "set", "tapped", "up")
        with contextlib.closing(kernel_socket("tapped")) as kernel:
            check_traffic(port, kernel)
    assert pool.available == MBUFS


@needs_root
def test_af_xdp(pool, namespace):
    veth()
    with entered(namespace):
        port = dpdk.Port("net_af_xdp0,iface=inner", "inner", pool)
    with contextlib.closing(port), contextlib.closing(kernel_socket("outer")) as kernel:
        held = MBUFS - pool.available
        # Five times round the pool: every mbuf is inside the memory that the driver registered.
        for _ in range(5):
            check_traffic(port, kernel, count=200)
            everything = pool.allocate(pool.available)
            pool.release(everything[::-1])
        # The kernel may still hold the last frames sent; they come back with the next ones.
        assert held <= MBUFS - pool.available <= held + 32
    shown = subprocess.run(["ip", "-n", namespace, "link", "show", "inner"], capture_output=True, text=True, check=True)
    assert "xdp" not in shown.stdout


def test_pcap(pool, tmp_path):
    frames = list(frames_of(100))
    source, sink = tmp_path / "in.pcap", tmp_path / "out.pcap"
    wrpcap(str(source), [Ether(frame) for frame in frames])
    with contextlib.closing(dpdk.Port(f"net_pcap0,rx_pcap={source},tx_pcap={sink}", "recording", pool)) as port:
        bursts = received(port, 100)
        assert [bytes(frame) for burst in bursts for frame in burst] == frames
        for burst in bursts:
            burst.tcp["seq"] += 5
            assert port.tx(burst) == len(burst)
    assert [packet[TCP].seq for packet in rdpcap(str(sink))] == [number + 5 for number in range(100)]
    assert pool.available == MBUFS


def test_null(pool):
    opened = dpdk.Port("net_null0,size=128", "null", pool, queues=2, mtu=1200, mac=0x02AB00000001)
    with contextlib.closing(opened) as port:
        assert (port.mac, port.mtu, port.driver, port.queues) == (0x02AB00000001, 1200, "net_null", 2)
        burst = port.rx(20, queue=1)
        assert len(burst) == 20 and (burst.mbuf["packet_length"] == 128).all() and pool.available == MBUFS - 20
        assert (burst.mbufs % MBUF_ALIGNMENT == 0).all()
        assert port.tx(burst, queue=1) == 20
    assert pool.available == MBUFS


def test_ring(pool):
    with contextlib.closing(dpdk.Port("net_ring0", "ring", pool)) as port:
        sent = Burst(write_frames(pool, list(frames_of(10))), pool)
        assert port.tx(sent) == 10
        back = port.rx()
        assert (back.mbufs == sent.mbufs).all()
        back.release()
    assert pool.available == MBUFS


def test_a_cable_joins_two_ports(pool):
    with contextlib.closing(dpdk.Cable("cable", pool, size=64)) as cable:
        left, right = cable.ports
        sent = Burst(write_frames(pool, list(frames_of(80))), pool)
        assert left.tx(sent) == 63
        sent[63:].release()
        assert list(right.rx(10).tcp["seq"]) == list(range(10)) and len(left.rx()) == 0
        assert right.tx(sent[:10]) == 10
        assert list(left.rx(10).tcp["seq"]) == list(range(10))
        sent[:10].release()
    assert pool.available == MBUFS


def test_memif(pool, tmp_path):
    where = f"id=0,socket={tmp_path}/memif.sock,socket-abstract=no"
    with contextlib.closing(dpdk.Port(f"net_memif0,role=server,{where}", "server", pool)) as server, \
            contextlib.closing(dpdk.Port(f"net_memif1,role=client,{where}", "client", pool)) as client:
        deadline = time.monotonic() + 10
        while not (server.link[0] and client.link[0]):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        frames = list(frames_of(20))
        for sender, receiver in ((server, client), (client, server)):
            receiver.rx()  # who receives provides the other's buffers, and does so when it polls
            assert sender.tx(Burst(write_frames(pool, frames), pool)) == 20
            assert [bytes(frame) for burst in received(receiver, 20) for frame in burst] == frames
        assert MBUFS - pool.available == 40  # what was received, and nothing of what was sent
        client.stop()
        server.stop()


@loop
def forward(device, mbufs, rounds):
    moved = 0
    for _ in range(rounds):
        count = dpdk_device.receive(device, 0, mbufs, 32)
        sent = dpdk_device.transmit(device, 1, mbufs, 0, count)
        dpdk_device.release(device, mbufs[sent:], count - sent)
        moved += sent
    count = dpdk_device.allocate(device, mbufs, 100)
    dpdk_device.release(device, mbufs, count)
    dpdk_device.pause(device, 10)
    return moved


def test_the_kernels_move_mbufs_and_lose_none(pool):
    with contextlib.closing(dpdk.Cable("cable", pool)) as cable, \
            contextlib.closing(dpdk.Port("net_null0", "sink", pool)) as sink, dpdk.registered_thread() as lcore:
        assert lcore >= 0
        device = dpdk.device(pool, [cable.ports[1], sink])
        mbufs = np.zeros(128, np.int64)
        for _ in range(20):
            assert cable.ports[0].tx(Burst(write_frames(pool, list(frames_of(50))), pool)) == 50
            assert forward(device, mbufs, 4) == 50
        assert sink.statistics()["sent_packets"] == 1000
        assert forward(device, mbufs, 1) == 0
    assert pool.available == MBUFS


def test_allocation_ends_where_the_pool_does(pool):
    everything = pool.allocate(MBUFS)
    assert len(set(everything.tolist())) == MBUFS and (everything % MBUF_ALIGNMENT == 0).all()
    assert 0 <= everything.min() and everything.max() + 2304 <= len(pool.arena.octets)
    with pytest.raises(MemoryError, match="'mbufs' has 0 free mbufs, 1 are needed"):
        pool.allocate(1)
    pool.release(everything)
    assert pool.available == MBUFS


def test_starting_dpdk_leaves_the_thread_where_it_may_run(environment):
    assert len(os.sched_getaffinity(0)) == os.cpu_count() and environment.hertz > 10**8


@pytest.mark.parametrize("device, settings, fault", [
    ("tap0", {}, "device = 'tap0', a PCI address .* or a virtual device"),
    ("net_nosuch0", {}, r"\(net_nosuch0\) cannot be opened: No such device"),
    ("0000:01:00.0", {}, "0000:01:00.0 was not among the PCI addresses"),
    ("net_af_packet0,iface=nowhere", {}, "no interface 'nowhere' in this network namespace"),
    ("net_af_packet0", {}, "lacks iface="),
    ("net_pcap0,rx_pcap=/nowhere.pcap", {}, "cannot be opened .*No such file"),
    ("net_null0", {"queues": 0}, "queues = 0, a whole number from 1 to 64"),
    ("net_null0", {"rxd": 70000}, "rxd = 70000, a whole number from 1 to 65535"),
    ("net_null0", {"mtu": "1500"}, "mtu = '1500', a whole number"),
    ("net_null0", {"mac": 1 << 48}, "mac = 281474976710656"),
    ("net_pcap0,tx_iface=lo", {"queues": 2}, "queues = 2, this device has 1"),
])
def test_a_port_that_cannot_be_is_refused_in_a_sentence(pool, device, settings, fault):
    with pytest.raises(dpdk.DpdkError, match=f"^port 'x'.*{fault}") as refused:
        dpdk.Port(device, "x", pool, **settings)
    assert "\n" not in str(refused.value)
    assert pool.available == MBUFS


def test_a_device_is_opened_once(pool):
    with contextlib.closing(dpdk.Port("net_null0", "one", pool)):
        with pytest.raises(dpdk.DpdkError, match="net_null0 is open already"):
            dpdk.Port("net_null0,size=100", "two", pool)
    dpdk.Port("net_null0", "two", pool).close()


def test_what_dpdk_has_no_room_for_is_refused(environment):
    with pytest.raises(dpdk.DpdkError, match="pool 'large' of 4000000 mbufs.* memory is 256 MiB"):
        dpdk.Pool("large", 4_000_000)
    with pytest.raises(dpdk.DpdkError, match="starts only once"):
        dpdk.Environment()


ORDINARY_USER = """
import os, numpy, numba, hypothesis, pipeline.io.dpdk as dpdk
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
environment = dpdk.Environment(memory=128)
pool = dpdk.Pool("mbufs", 1024)
port = dpdk.Port("net_null0", "null", pool)
burst = port.rx()
print(len(burst), port.tx(burst))
for device in ("net_tap0,iface=x0", "net_af_packet0,iface=lo", "net_af_xdp0,iface=lo"):
    try:
        dpdk.Port(device, "no", pool)
    except dpdk.DpdkError as refusal:
        print("needs root" in str(refusal))
cable = dpdk.Cable("cable", pool)
print(pool.available)
environment.close()
cable.close()
print(os.path.exists(environment.runtime_folder))
"""


def run_python(program, **settings):
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False,
                          **settings)


def test_an_ordinary_user_has_memory_ports_and_hears_what_needs_root():
    run = run_python(ORDINARY_USER)
    assert run.stdout.split() == ["32", "32", "True", "True", "True", "1024", "False"], run.stderr
    assert run.stderr == ""


def test_what_a_killed_engine_left_is_swept_by_the_next():
    program = "import os, pipeline.io.dpdk as d; e = d.Environment(memory=64); print(e.runtime_folder, flush=True); {}"
    killed = run_python(program.format("os.kill(os.getpid(), 9)"))
    assert killed.returncode == -9
    folder = pathlib.Path(killed.stdout.strip())
    next_one = run_python(program.format("e.close()"))
    assert not folder.exists() and not pathlib.Path(next_one.stdout.strip()).exists(), next_one.stderr


def test_dpdk_is_silent_unless_asked():
    program = "import pipeline.io.dpdk as d; d.Environment(memory=64, log_level='{}').close()"
    quiet, loud = run_python(program.format("error")), run_python(program.format("info"))
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", "")
    assert loud.stdout == "" and "EAL: " in loud.stderr


@pytest.mark.parametrize("settings, fault", [
    ("memory=1", "memory = 1: DPDK needs a whole number of MiB"),
    ("log_level='loud'", "log_level = 'loud': one of critical"),
    ("pci=['eth0']", "pci = 'eth0': a PCI address such as"), ("lcores='x'", "lcores = 'x': "),
    ("lcores='0@99'", "lcores = '0@99': CPU 99 "), ("file_prefix='a/b'", "file_prefix = 'a/b'"),
    ("hugepages=True, memory=10**6", "hugepages = true: .*/nr_hugepages")])
def test_an_environment_that_cannot_be_is_refused_in_a_sentence(settings, fault):
    run = run_python(f"import pipeline.io.dpdk as d\ntry: d.Environment({settings})\nexcept d.DpdkError as e: print(e)")
    assert len(run.stdout.splitlines()) == 1, run.stderr
    assert re.search(fault, run.stdout)


@needs_root
@pytest.mark.skipif(HUGEPAGES, reason="runs the module on hugepages, where it runs already")
def test_all_devices_on_hugepages():
    before = NR_HUGEPAGES.read_text()
    wanted = int(before) + 160
    NR_HUGEPAGES.write_text(str(wanted))
    try:
        if int(NR_HUGEPAGES.read_text()) < wanted:
            pytest.skip("the machine has no 320 MiB of contiguous memory for hugepages")
        modules = pathlib.Path(__file__).parent.glob("test_dpdk_*.py") if os.environ.get("PIPELINE_SOAK") == "1" else [__file__]
        run = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *sorted(map(str, modules))],
                             env={**os.environ, "PIPELINE_TEST_HUGEPAGES": "1"}, timeout=300, capture_output=True,
                             text=True, check=False)
    finally:
        NR_HUGEPAGES.write_text(before)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
