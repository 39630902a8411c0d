"""What tests of DPDK's devices share: a network namespace with its interfaces, and sockets of the kernel's in it."""
import contextlib
import os
import pathlib
import socket
import subprocess

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
