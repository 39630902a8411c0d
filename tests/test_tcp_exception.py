"""The exception port in the loop: ARP, ICMP, UDP and other TCP go to the kernel and back while connections run."""
import numpy as np
from kernel_bed import address
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Raw
from tcp.icmp import UNREACHABLE, error
from tcp.proxy import ALIKE, MACS, PATH, SERVICE, close, connect, settings
from tcp.segments import mac_of

from pipeline.kernels.kernel_neighbours import write_message
from pipeline.kernels.neighbours import INCOMPLETE, REACHABLE, find_neighbour

STRANGERS = {
    "echo": IP(src="10.1.0.2", dst=SERVICE) / ICMP() / Raw(b"x" * 56),
    "udp": IP(src="10.1.0.2", dst=SERVICE) / UDP(dport=53),
    "ssh": IP(src="10.1.0.2", dst=SERVICE) / TCP(sport=40000, dport=2222, flags="S"),
    "fragment": IP(src="10.1.0.2", dst=SERVICE, flags="MF") / UDP(dport=53) / Raw(b"x" * 64),
    "ipv6": IPv6(dst="fe80::1") / UDP(),
}


def frame_to(packet, mac=MACS[0]):
    return bytes(Ether(src="02:aa:00:00:00:02", dst=mac) / packet)


@settings(exception=True)
def test_strangers_go_to_the_kernel_and_back_while_a_connection_runs(proxy):
    client = proxy.client(PATH)
    server = connect(proxy, client, b"GET /a HTTP/1.1\r\n", "a")
    arp = bytes(Ether(src="02:aa:00:00:00:02", dst="ff:ff:ff:ff:ff:ff") / ARP(psrc="10.1.0.2", pdst=SERVICE))
    frames = [arp, *map(frame_to, STRANGERS.values())]
    client.send("PA", b"between them")
    server.expect("PA", data=b"between them")
    proxy.burst(*frames[:3], client.segment("PA", b" all"), *frames[3:])
    server.expect("PA", data=b" all")
    came = proxy.taken_others(2)
    assert sorted(came) == sorted(frames) and (ALIKE or came == frames) and proxy.count("to_kernel") == len(frames)
    answers = [bytes(Ether(src=MACS[0], dst=mac_of("10.1.0.2")) / IP(src=SERVICE, dst="10.1.0.2") / each)
               for each in (ICMP(type=0), TCP(sport=2222, dport=40000, flags="SA"), UDP())]
    proxy.burst(*answers, port=2)
    seen = proxy.taken_others(0)
    [segment] = proxy.received.pop((("10.1.0.2", 40000), (SERVICE, 2222)))
    assert seen == [answers[0], answers[2]] and segment.frame == answers[1] and proxy.count("from_kernel") == 3
    assert proxy.drops() == {} and proxy.count("echo_replies") == proxy.count("arp_replies") == proxy.count("resets_sent") == 0
    server.send("A")
    client.expect("A")
    close(client, server)
    proxy.wait(3)
    proxy.conserved()


@settings(exception=True)
def test_a_stray_to_a_service_is_still_answered_by_us(proxy):
    client = proxy.client(PATH)
    client.send("A", seq=5, ack=77)
    client.expect("R", seq=77)
    assert proxy.count("to_kernel") == 0


@settings(exception=True)
def test_an_icmp_error_about_a_connection_passes_the_splice_and_another_goes_to_the_kernel(proxy):
    client = proxy.client(PATH)
    server = connect(proxy, client, b"GET /a HTTP/1.1\r\n", "a")
    server.send("PA", b"answer")
    segment = client.expect("PA", data=b"answer")
    proxy.burst(error(segment.frame, UNREACHABLE, 1, "10.1.0.77"))
    assert len(proxy.taken_others(1)) == 1 and proxy.count("icmp_errors_passed") == 1 and proxy.count("to_kernel") == 0
    stranger = frame_to(IP(src="10.1.0.77", dst=SERVICE) / ICMP(type=3, code=3) / IP(src=SERVICE, dst="10.1.0.2") / UDP())
    proxy.burst(stranger)
    assert proxy.taken_others(2) == [stranger] and proxy.drops() == {}


def test_kernel_neighbours_are_read_by_the_loop(proxy_factory):
    proxy = proxy_factory(exception=True)
    proxy.know("10.1.0.50", 0)
    entry = proxy.state.network.neighbours[find_neighbour(proxy.state.network, address("10.1.0.50"))]
    entry.state = INCOMPLETE
    assert write_message(proxy.state.mailbox, address("10.1.0.50"), 0, 0x0200, 0x99, REACHABLE)
    proxy.wait(0.02)
    assert (entry.state, entry.mac_high, entry.mac_low) == (REACHABLE, 0x0200, 0x99)
    assert np.array_equal(proxy.state.mailbox.written, proxy.state.mailbox.read)
