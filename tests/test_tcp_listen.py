"""Services that listen on ranges of ports and on prefixes, the most specific first; and their own time-outs."""
import dpkt
import pytest
from scapy.layers.l2 import ARP, Ether

from tcp.proxied_services import QUICK, RANGE, WITHIN, services
from tcp.proxy import MACS, SERVICE, TURNS, End, close, connect, handshake, one_worker

pytestmark = pytest.mark.parametrize("proxy", [{"services": services()}], indirect=True, ids=[""])


def client_of(proxy, address, port):
    """Returns the client's End of a connection to one of a service's addresses."""
    client = proxy.client(port)
    return End(proxy, 0, client.own, (address, port), 1000)


@pytest.mark.parametrize("address, port, target", [
    (SERVICE, RANGE, "a"), (SERVICE, WITHIN - 1, "a"), (SERVICE, WITHIN, "b"), (SERVICE, WITHIN + 9, "b"), (SERVICE, WITHIN + 10, "a"),
    (SERVICE, RANGE + 99, "a"), ("10.1.0.32", 80, "b"), ("10.1.0.47", 81, "b"), ("203.0.113.1", 80, "c"), ("203.0.113.64", 80, "a"),
    ("203.0.113.127", 80, "a"), ("203.0.113.255", 80, "c")])
def test_the_most_specific_service_is_connected_to_and_answers_from_the_address_asked(proxy, address, port, target):
    client = client_of(proxy, address, port)
    server = connect(proxy, client, target=target)
    server.send("A", b"welcome")
    client.expect("A", data=b"welcome")
    client.send("A")
    server.expect("A")
    close(client, server)
    proxy.wait(2.1)
    assert proxy.records()[0]["listen"] == f"{address}:{port}"


@pytest.mark.parametrize("address, port", [(SERVICE, RANGE - 1), (SERVICE, RANGE + 100), ("10.1.0.32", 82)])
def test_a_syn_beside_the_range_is_refused(proxy, address, port):
    client = client_of(proxy, address, port)
    client.send("S")
    client.expect("RA", ack=1)


@one_worker
@pytest.mark.parametrize("address, answered", [("10.1.0.32", True), ("10.1.0.47", True), ("10.1.0.48", False), ("10.1.0.31", False)])
def test_arp_is_answered_for_a_prefix_in_a_ports_network(proxy, address, answered):
    proxy.burst(bytes(Ether(src="02:aa:00:00:00:02", dst="ff:ff:ff:ff:ff:ff") / ARP(hwsrc="02:aa:00:00:00:02", psrc="10.1.0.2", pdst=address)))
    replies = [dpkt.ethernet.Ethernet(frame).data for frame in proxy.taken_others(0)]
    assert [(reply.op, reply.sha.hex(":")) for reply in replies] == [(dpkt.arp.ARP_OP_REPLY, MACS[0])] * answered


def test_a_services_own_time_outs_run_out_and_the_others_do_not(proxy):
    quick, usual = proxy.client(QUICK), proxy.client(TURNS)
    for client in (quick, usual):
        handshake(client)
    proxy.wait(1.1)
    quick.expect("RA", seq=1, ack=1)
    assert proxy.state_of(quick) == "free" and proxy.state_of(usual) == "first_data"


def test_a_quiet_connection_ends_by_its_services_time_out(proxy):
    client = proxy.client(QUICK)
    server = connect(proxy, client)
    proxy.wait(1.9)
    assert proxy.state_of(client) == "established"
    proxy.wait(0.2)
    client.expect("RA", ack=6)
    server.expect("RA")


def test_time_wait_is_its_services(proxy):
    client = proxy.client(QUICK)
    close(client, connect(proxy, client))
    proxy.wait(0.4)
    assert proxy.state_of(client) == "time_wait"
    proxy.wait(0.2)
    assert proxy.state_of(client) == "free"
