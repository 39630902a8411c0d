"""Bulk transfers of kernel stacks through the engine over bad and long paths: they arrive whole, and no kernel is puzzled."""
import subprocess

import pytest

from peers.listener import Listener, client_of, receive
from peers.path_bed import open_path, service
from peers.requirements import needs_bed
from peers.transfers import Octets, TransferServer, grown, kernel_counters

pytestmark = needs_bed
PORT = 7000
FAULTS = {
    "loss of 1 %": ({"loss": 0.005}, 8, "lost"),
    "loss of 5 %": ({"loss": 0.025}, 4, "lost"),
    "duplication": ({"duplicate": 0.01}, 8, "duplicated"),
    "reordering": ({"reorder": 0.01, "reorder_delay": 0.001}, 8, "reordered"),
    "bit flips": ({"flip": 0.005}, 8, "flipped"),
}
"""Rates at each of the two ports in both directions, megabytes each way, and what the fault stage counts of them."""
OPTIONS = ["sack", "timestamps", "wscale"]


@pytest.mark.parametrize("fault", FAULTS)
def test_transfers_each_way_arrive_whole(fault):
    faults, megabytes, counted = FAULTS[fault]
    name = counted + str(megabytes)
    with open_path(name, [service(PORT)], faults=faults) as path:
        content = Octets(path.folder, megabytes * 1_000_000)
        with TransferServer(path, PORT, content) as server:
            before = kernel_counters(path)
            transfers = [server.transfer(way, seconds=60) for way in ("up", "down")]
            kernels = grown(before, kernel_counters(path))
        stats = path.counters_at_rest(within=20)
    for each in transfers:
        assert each["sender"]["options"] == each["receiver"]["options"] == OPTIONS
    assert all(line[counted] > 0 for port in stats["ports"] for line in port["faults"].values())
    # What the plain wire shows as well: a segment that comes late may have an old time stamp, and a repeated SYN-ACK is
    # challenged (RFC 5961, section 4.2). The proxy adds nothing to it.
    assert kernels["PAWS drops"] == 0 or fault == "reordering"
    assert max(kernels["challenge ACKs"], kernels["SYN challenges"]) <= len(transfers)
    assert (kernels["checksum errors"] > 0) == (fault == "bit flips")


@pytest.fixture(scope="module")
def long_path():
    """A path on which each packet takes 50 ms, to receivers with 16 MiB of buffer."""
    with open_path("long", [service(PORT)], faults={"delay": 0.025, "queue": 12288}) as path:
        for host in ("client", "s0"):
            path.set_kernel(host, {"ipv4/tcp_rmem": "4096 131072 16777216"})
        yield path


@pytest.mark.parametrize("way", ["up", "down"])
def test_four_megabytes_are_in_flight_over_a_long_path(long_path, way):
    content = Octets(long_path.folder, 60_000_000)
    with TransferServer(long_path, PORT, content, congestion="reno") as server:
        before = kernel_counters(long_path)
        transfer = server.transfer(way, seconds=60)
        kernels = grown(before, kernel_counters(long_path))
    assert transfer["sender"]["round_trip_us"] >= 100_000
    assert transfer["sender"]["in_flight_most"] >= 4_000_000
    assert (kernels["PAWS drops"], kernels["challenge ACKs"], kernels["checksum errors"]) == (0, 0, 0)


def shown_by_ss(path, host):
    """The words of `ss -tio` (without -o it leaves options out) on the one connection that a host has."""
    listing = path.bed.run_in(host, ["ss", "-Htino", "state", "established"], stdout=subprocess.PIPE, text=True)
    return listing.communicate(timeout=10)[0].split()


def test_ss_shows_window_scaling_sack_and_timestamps_at_both_ends(long_path):
    with Listener(long_path, "s0", PORT) as listener, client_of(long_path, PORT) as client:
        client.sendall(b"hello")
        with listener.accept() as server:
            assert receive(server, 5) == b"hello"
            shown = {host: shown_by_ss(long_path, host) for host in ("client", "s0")}
    for host, words in shown.items():
        assert {"ts", "sack"} <= set(words), f"{host}: {words}"
        scale, = (word.partition(":")[2].split(",") for word in words if word.startswith("wscale:"))
        assert all(int(each) > 0 for each in scale), f"{host}: {words}"
