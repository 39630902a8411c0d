"""Clients of many protocols on the client of a laboratory, and where they have come to."""
import contextlib
import os
import subprocess

from peers.capture import Capture
from peers.content_servers import POSTGRESQL
from peers.laboratory import SERVICE


def said(bed, host, *words, timeout=60, **environment):
    """Returns what a program on a host prints (str): its errors too, where it fails."""
    process = bed.run_in(host, [str(word) for word in words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                         env={**os.environ, **environment})
    out, errors = process.communicate(timeout=timeout)
    return (out.strip() + "\n" + errors.strip() * (process.returncode != 0)).strip()


def curl(bed, *words):
    """Returns what curl on the client prints."""
    return said(bed, "client", "curl", "-sSk", "--noproxy", "*", "--max-time", "20", *words)


def where(bed, database, user="postgres", port=POSTGRESQL, **environment):
    """Returns which server psql is led to that asks for a database: its address, or psql's complaint. All settings are psql's own."""
    return said(bed, "client", "psql", "-X", "-At", "-h", SERVICE, "-p", port, "-U", user, *(["-d", database] if database else []), "-c",
                "select host(inet_server_addr()) || ' ' || current_database() || ' ' || current_user", PGCONNECT_TIMEOUT="20", **environment)


def name_of(server, length=250):
    """Returns a host name of so many octets below `server`.example.org."""
    end = f".{server}.example.org"
    return ("x" * 62 + ".") * ((length - len(end)) // 63) + "y" * ((length - len(end)) % 63) + end


@contextlib.contextmanager
def with_mtu(bed, mtu):
    """Within this the client's interface has another MTU, and tells its peers so (RFC 6691)."""
    words = ["ip", "link", "set", "eth0", "mtu"]
    assert bed.run_in("client", [*words, str(mtu)]).wait(20) == 0
    try:
        yield
    finally:
        assert bed.run_in("client", [*words, "1500"]).wait(20) == 0


@contextlib.contextmanager
def with_losses(bed, port, percent):
    """Within this so many of a hundred segments to and from a port are lost at the client (nft)."""
    rules = "".join(f"chain {hook} {{ type filter hook {hook} priority 0; tcp {end} {port} numgen random mod 100 < {percent} counter drop; }}\n"
                    for hook, end in (("input", "sport"), ("output", "dport")))
    assert said(bed, "client", "nft", f"table ip losing {{ {rules} }}") == ""
    try:
        yield
    finally:
        said(bed, "client", "nft", "delete table ip losing")


def first_sizes(segments, port):
    """Returns how many octets of payload each segment to `port` of a capture on the client had, until something was answered."""
    sizes = []
    for segment in segments:
        octets = segment.ip.len - 4 * segment.ip.hl - 4 * segment.tcp.off
        if not segment.sent and segment.tcp.sport == port and octets > 0:
            break
        if segment.sent and segment.tcp.dport == port and octets > 0:
            sizes.append(octets)
    return sizes


def handshake_sizes(bed, host, port, *words):
    """Returns what a server tells curl that asks for a host over TLS 1.3, and the sizes of the segments that its ClientHello took.

    It offers whatever it has, so that it is long.
    """
    with Capture(bed, "client") as capture:
        answer = curl(bed, *words, "--ciphers", "ALL:@SECLEVEL=0", "--resolve", f"{host}:{port}:{SERVICE}", f"https://{host}:{port}/")
        return answer, first_sizes(capture.segments(), port)
