"""What tests of DPDK's devices share: a network namespace with its interfaces, sockets of the kernel's in it, and frames."""
import contextlib
import os
import pathlib
import socket
import subprocess
import time

from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Dot1Q, Ether

from pipeline.network_namespace import create, delete, entered

HUGEPAGES = os.environ.get("PIPELINE_TEST_HUGEPAGES") == "1"
MBUFS = 8192
NAMESPACE = f"ports-{os.getpid()}"


@contextlib.contextmanager
def made_namespace():
    """The namespace for the length of a `with`; IPv6 would speak without being asked."""
    create(NAMESPACE)
    try:
        with entered(NAMESPACE):
            pathlib.Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1")
        yield NAMESPACE
    finally:
        delete(NAMESPACE)


def ip(*words):
    """Runs ip(8) in the namespace."""
    subprocess.run(["ip", "-n", NAMESPACE, *words], check=True, timeout=10)


def is_root():
    """Whether this process may make namespaces and devices."""
    return os.geteuid() == 0


def veth(queues=1):
    """Makes a pair of interfaces with that many queues, `inner` for DPDK and `outer` for the kernel."""
    each = ("numtxqueues", str(queues), "numrxqueues", str(queues)) if queues > 1 else ()
    ip("link", "add", "outer", *each, "type", "veth", "peer", "name", "inner", *each)
    for end in ("outer", "inner"):
        ip("link", "set", end, "up")


def kernel_socket(interface):
    """Returns a packet socket of the kernel's on an interface of the namespace: it sends and receives whole frames."""
    with entered(NAMESPACE):
        opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        opened.bind((interface, 0))
        opened.settimeout(5)
        return opened


def frames_of(count):
    """Frames of 64 to 1,514 octets, every third one tagged."""
    for number in range(count):
        frame = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
        if number % 3 == 2:
            frame /= Dot1Q(vlan=1 + number % 4000)
        frame /= IP(src="10.0.0.1", dst="10.0.0.2") / TCP(sport=1000, dport=80, seq=number)
        yield bytes(frame / (b"x" * min(number * 7 % 1461, 1514 - len(frame))))


def received(port, count=1, seconds=5):
    """Bursts of `port` until `count` TCP frames have come, as a list of Bursts of TCP frames alone."""
    bursts, deadline = [], time.monotonic() + seconds
    while sum(map(len, bursts)) < count:
        assert time.monotonic() < deadline, f"{sum(map(len, bursts))} of {count} frames came, {port.statistics()}"
        burst = port.rx()
        wanted = burst.tcp.present
        burst[~wanted].release()
        bursts.append(burst[wanted])
    return bursts


def untagged(frame):
    """A frame as a packet socket hands it over: the kernel keeps the VLAN tag beside it."""
    return frame[:12] + frame[16:] if frame[12:14] == b"\x81\0" else frame


def check_traffic(port, kernel, count=300):
    """Each frame of the kernel's goes through the port, changed on its way, and comes back to the kernel."""
    for number, frame in enumerate(frames_of(count)):
        kernel.send(frame)
        (burst,) = [burst for burst in received(port) if len(burst)]
        assert bytes(burst[0]) == frame
        burst.tcp["seq"] += 0x01000000
        changed = bytes(burst[0])
        assert changed != frame
        assert port.tx(burst) == 1
        assert kernel.recv(4096) == untagged(changed), f"frame {number}"
    statistics = port.statistics()
    assert statistics["received_packets"] >= count and statistics["sent_packets"] >= count
    assert statistics["send_errors"] == statistics["no_mbuf"] == 0
