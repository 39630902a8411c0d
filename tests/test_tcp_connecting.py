"""CONNECTING: the target has had our SYN; what is held waits for its answer."""
import pytest
from scapy.layers.l2 import ARP, Ether

from pipeline.kernels.neighbours import INCOMPLETE
from tcp.proxy import FEW, FIRST, HELD_BYTES, NUMBER, TARGETS, close, connect, handshake, one_worker, settings
from tcp.segments import mac_of


def connecting(proxy, data=b"hello", service=NUMBER, **fields):
    """Returns a client that waits for target a, and that End, `data` held."""
    client = proxy.client(service)
    handshake(client, **fields)
    client.send("PA", data)
    return client, proxy.accept("a")


@one_worker
def test_the_syn_carries_the_clients_own_number_and_window(proxy):
    client, server = connecting(proxy, b"0", window=3000)
    assert server.other_isn == client.isn and server.other[0] == "10.2.0.1"
    assert proxy.state_of(client) == "connecting"


@pytest.mark.parametrize("offered, sent", [(536, 536), (1460, 1460), (9000, 1460), (None, 536)])
def test_the_syn_offers_no_larger_mss_than_the_client_has(proxy, offered, sent):
    client = proxy.client()
    handshake(client, mss=offered)
    client.send("PA", b"hello")
    proxy.accept("a", mss=sent)


def test_the_syn_is_sent_again_after_1_2_and_4_seconds(proxy):
    client, server = connecting(proxy, b"0")
    for before, after in ((0.98, 0.04), (1.94, 0.06), (3.94, 0.06)):
        proxy.wait(before)
        proxy.silent()
        proxy.wait(after)
        server.expect("S", seq=0)
    assert proxy.count("syn_retransmitted") == 3


def test_a_syn_ack_after_a_retransmission_binds(proxy):
    client, server = connecting(proxy, b"0")
    proxy.wait(1.1)
    server.expect("S", seq=0)
    server.send("SA")
    server.expect("PA", seq=1, ack=1, data=b"0")
    assert proxy.state_of(client) == "established"


def test_the_syn_ack_is_acknowledged_with_the_payload(proxy):
    client, server = connecting(proxy, b"0 hello", window=3000)
    server.send("SA", window=65535)
    server.expect("PA", seq=1, ack=1, data=b"0 hello", window=8192, ttl=64)
    client.nothing()
    assert proxy.event("target", "received_syn_ack") == 1 and proxy.event("target", "sent_ack_of_syn_ack") == 1
    assert proxy.event("target", "sent_payload") == 1


def test_a_target_that_refuses_resets_the_client(proxy):
    client, server = connecting(proxy, b"0")
    server.send("RA", seq=0, ack=1)
    client.expect("RA", seq=1, ack=2)
    assert proxy.state_of(client) == "free"
    assert proxy.records()[0]["release"] == {"client": "ActiveRst", "target": "TargetRefused"}
    assert proxy.state.counters.targets[0].tolist() == [0, 1, 1, 0, 0]


@pytest.mark.parametrize("flags, ack", [("RA", 2), ("RA", 0), ("R", None), ("RA", -70_000)])
def test_a_rst_that_does_not_acknowledge_our_syn_is_dropped(proxy, flags, ack):
    client, server = connecting(proxy, b"0")
    server.send(flags, seq=0, ack=ack)
    assert proxy.state_of(client) == "connecting" and proxy.event("target", "unexpected") == 1


@pytest.mark.parametrize("flags, ack", [("S", None), ("A", 1), ("FA", 1)])
def test_anything_but_a_right_syn_ack_is_dropped(proxy, flags, ack):
    client, server = connecting(proxy, b"0")
    server.send(flags, seq=0, ack=ack)
    assert proxy.state_of(client) == "connecting" and proxy.drops() == {"unexpected_segment": 1}


@pytest.mark.parametrize("ack", [0, 2, 70_000])
def test_rule_3_2_a_syn_ack_for_another_syn_gets_a_rst(proxy, ack):
    client, server = connecting(proxy, b"0")
    server.send("SA", seq=0, ack=ack)
    server.expect("R", seq=ack)
    assert proxy.state_of(client) == "connecting" and proxy.count("old_connections_reset") == 1


@pytest.mark.parametrize("ack", [0, 2, -70_000])
def test_rule_3_2_a_bare_ack_of_an_old_connection_gets_a_rst_and_the_syn_again(proxy, ack):
    client, server = connecting(proxy, b"0")
    server.send("A", seq=500, ack=ack)
    server.expect("R", seq=ack)
    server.expect("S", seq=0)
    server.send("SA")
    server.expect("PA", seq=1, ack=1, data=b"0")
    assert proxy.state_of(client) == "established"


def test_rule_3_2_bare_acks_do_not_draw_syns_for_ever(proxy):
    client, server = connecting(proxy, b"0")
    for _ in range(10):
        server.send("A", seq=500, ack=77)
    came = [segment.flags for segment in proxy.received[server.own, server.other]]
    assert came.count("S") == 3 and came.count("R") == 10
    proxy.received.clear()


@pytest.mark.parametrize("flags", ["SA", "RA"])
def test_rule_1_5_a_corrupt_answer_is_dropped(proxy, flags):
    client, server = connecting(proxy, b"0")
    server.send(flags, seq=0, ack=1, corrupt=True)
    assert proxy.state_of(client) == "connecting" and proxy.drops() == {"tcp_checksum": 1}


def test_more_payload_meanwhile_is_held_and_sent(proxy):
    client, server = connecting(proxy, b"0 hello")
    client.send("A", b", world")
    client.send("PA", b"!")
    proxy.silent()
    server.send("SA")
    server.expect("PA", seq=1, ack=1, data=b"0 hello, world!")


def test_held_payload_is_cut_to_the_targets_mss(proxy):
    data = b"0" + bytes(range(250))
    client, server = connecting(proxy, data)
    server.send("SA", mss=100)
    server.expect("A", seq=1, ack=1, data=data[:100])
    server.expect("A", seq=101, ack=1, data=data[100:200])
    server.expect("PA", seq=201, ack=1, data=data[200:])


def test_a_target_that_names_no_mss_gets_536_octets_at_a_time(proxy):
    data = b"0" * 600
    client, server = connecting(proxy, data)
    server.send("SA")
    server.expect("A", seq=1, data=data[:536])
    server.expect("PA", seq=537, data=data[536:])


@settings(held_bytes=8192)
def test_held_payload_is_never_larger_than_the_mtu(proxy):
    client, server = connecting(proxy, b"0" * 1400)
    client.send("PA", b"1" * 1400)
    server.send("SA", mss=8960)
    assert len(server.expect("A", seq=1, data=b"0" * 1400 + b"1" * 60).frame) == 1514
    server.expect("PA", seq=1461, data=b"1" * 1340)


def test_a_tiny_mss_does_not_overflow_anything(proxy):
    data = b"0" * HELD_BYTES
    client, server = connecting(proxy, data)
    server.send("SA", mss=1)
    for at in range(0, HELD_BYTES, 64):
        if at == 640:
            server.send("A", ack=1 + at)
        server.expect("PA" if at == HELD_BYTES - 64 else "A", seq=1 + at, data=data[at:at + 64])
    client.expect("A", ack=641)


def test_a_fin_meanwhile_is_held_and_goes_out_behind_the_payload(proxy):
    client, server = connecting(proxy, b"0 hello")
    client.send("FA")
    assert proxy.state_of(client) == "connecting"
    server.send("SA")
    server.expect("FPA", seq=1, ack=1, data=b"0 hello")
    assert proxy.state_of(client) == "half_closed"
    server.send("A")
    client.expect("A", seq=1, ack=9)
    server.send("FA")
    client.expect("FA", seq=1, ack=9)
    client.send("A")
    server.expect("A", seq=9, ack=2)
    assert proxy.state_of(client) == "time_wait"


def test_a_held_fin_goes_out_behind_the_last_of_several_segments(proxy):
    client = proxy.client(NUMBER)
    handshake(client)
    client.send("FPA", b"0" * 150)
    server = proxy.accept("a")
    server.send("SA", mss=100)
    server.expect("A", seq=1, data=b"0" * 100)
    server.expect("FPA", seq=101, data=b"0" * 50)


def test_payload_behind_a_held_fin_is_dropped(proxy):
    client, server = connecting(proxy, b"0")
    client.send("FA")
    client.send("PA", b"more")
    assert proxy.drops() == {"held_already": 1}
    server.send("SA")
    server.expect("FPA", seq=1, data=b"0")


def test_payload_sent_again_meanwhile_is_not_held_twice(proxy):
    client, server = connecting(proxy, b"0 hello")
    client.send("PA", b"0 HELLO", seq=1)
    client.send("PA", b"0 HELLO and more", seq=1)
    assert proxy.drops() == {"held_already": 1}
    server.send("SA")
    server.expect("PA", seq=1, ack=1, data=b"0 hello and more")


def test_the_clients_rst_ends_it_on_both_sides(proxy):
    client, server = connecting(proxy, b"0")
    client.send("R")
    server.expect("R", seq=1)
    assert proxy.state_of(client) == "free"
    assert proxy.records()[0]["release"] == {"client": "PassiveRst", "target": "ActiveRst"}


def test_a_late_syn_ack_of_a_target_given_up_gets_a_rst(proxy):
    client, server = connecting(proxy, b"0")
    client.send("RA")
    server.expect("R", seq=1)
    server.send("SA")
    server.expect("R", seq=1)
    assert proxy.count("resets_sent") == 1


def test_the_clients_syn_again_is_challenged(proxy):
    client, server = connecting(proxy, b"0")
    client.send("S", seq=0)
    client.expect("A", seq=1, ack=1)
    assert proxy.state_of(client) == "connecting"


def test_two_syn_acks_in_one_burst(proxy):
    client, server = connecting(proxy, b"0")
    proxy.burst(server.segment("SA"), server.segment("SA", seq=0), port=1)
    server.expect("PA", seq=1, ack=1, data=b"0")
    server.expect("A", ack=1)
    assert proxy.state_of(client) == "established"


def test_syn_ack_and_rst_in_one_burst(proxy):
    client, server = connecting(proxy, b"0")
    proxy.burst(server.segment("SA"), server.segment("RA"), port=1)
    server.expect("PA", seq=1, ack=1, data=b"0")
    client.expect("RA", seq=1)
    assert proxy.state_of(client) == "free"


def test_syn_ack_and_payload_in_one_burst(proxy):
    client, server = connecting(proxy, b"0")
    proxy.burst(server.segment("SA"), server.segment("PA", b"welcome"), port=1)
    server.expect("PA", seq=1, ack=1, data=b"0")
    client.expect("PA", seq=1, ack=1, data=b"welcome")


def test_syn_ack_payload_and_fin_in_one_burst(proxy):
    client, server = connecting(proxy, b"0")
    proxy.burst(server.segment("SA"), server.segment("PA", b"gone", ack=2), server.segment("FA", ack=2), port=1)
    server.expect("PA", seq=1, ack=1, data=b"0")
    client.expect("PA", seq=1, ack=2, data=b"gone")
    client.expect("FA", seq=5, ack=2)
    assert proxy.state_of(client) == "half_closed"


def one_arm(end):
    """Returns a target's End whose frames come in by the client's port, as they do in a bed of one arm."""
    end.port = 0
    return end


@one_worker
def test_payload_and_the_syn_ack_in_one_burst(proxy):
    client, server = connecting(proxy, b"0 hello")
    one_arm(server)
    proxy.burst(client.segment("PA", b", world"), server.segment("SA", mss=1460))
    server.expect("PA", seq=1, ack=1, data=b"0 hello, world")
    assert proxy.state_of(client) == "established"


@one_worker
def test_the_syn_ack_and_payload_behind_it_in_one_burst(proxy):
    client, server = connecting(proxy, b"0 hello")
    one_arm(server)
    proxy.burst(server.segment("SA", mss=1460), client.segment("PA", b", world"))
    server.expect("PA", seq=1, ack=1, data=b"0 hello")
    server.expect("PA", seq=8, ack=1, data=b", world")


def test_rule_1_4_other_octets_and_the_syn_ack_in_one_burst(proxy):
    client, server = connecting(proxy, b"0 hello")
    one_arm(server)
    proxy.burst(client.segment("PA", b"0 HELLO", seq=1), server.segment("SA", mss=1460),
                client.segment("PA", b"0 HELLO", seq=1))
    server.expect("PA", seq=1, ack=1, data=b"0 hello")
    assert proxy.drops() == {"held_already": 2}


@one_worker
def test_a_fin_and_the_syn_ack_in_one_burst(proxy):
    client, server = connecting(proxy, b"0 hello")
    one_arm(server)
    proxy.burst(client.segment("FPA", b"!"), server.segment("SA", mss=1460))
    server.expect("FPA", seq=1, ack=1, data=b"0 hello!")
    assert proxy.state_of(client) == "half_closed"


@one_worker
def test_a_rst_and_the_syn_ack_in_one_burst(proxy):
    client, server = connecting(proxy, b"0 hello")
    one_arm(server)
    proxy.burst(client.segment("R"), server.segment("SA"))
    server.expect("R", seq=1)
    server.expect("R", seq=1)
    assert proxy.state_of(client) == "free"


def test_refusal_and_the_syn_in_one_burst_of_many(proxy):
    pairs = [connecting(proxy, b"0") for _ in range(40)]
    proxy.burst(*(server.segment("RA", seq=0, ack=1) for _, server in pairs), port=1)
    for client, _ in pairs:
        client.expect("RA", seq=1, ack=2)
    assert proxy.states() == {} and proxy.state.counters.targets[0].tolist() == [0, 40, 40, 0, 0]


@one_worker
def test_many_connect_in_one_burst_and_each_payload_goes_to_its_own_target(proxy):
    clients = [proxy.client(NUMBER) for _ in range(60)]
    for client in clients:
        handshake(client)
    proxy.burst(*(client.segment("PA", b"%d" % number) for number, client in enumerate(clients)))
    servers = [proxy.accept("abc"[number % 3]) for number in range(60)]
    proxy.burst(*(server.segment("SA") for server in servers), port=1)
    for number, server in enumerate(servers):
        server.expect("PA", seq=1, ack=1, data=b"%d" % number)
    assert proxy.states() == {"established": 60}


def test_a_target_that_has_to_be_asked_for_gets_the_syn_soon_after_it_answers(proxy):
    entry = proxy.state.network.neighbours[proxy.state.targets.rows["neighbour"][0]]
    entry.state = INCOMPLETE
    client = proxy.client(NUMBER)
    handshake(client)
    client.send("PA", b"0")
    proxy.wait(0.1)
    [(port, frame)] = proxy.others
    asked = Ether(frame)
    assert (port, asked.dst, asked[ARP].op, asked[ARP].pdst) == (1, "ff:ff:ff:ff:ff:ff", 1, TARGETS["a"][0])
    mac = mac_of(TARGETS["a"][0])
    proxy.burst(bytes(Ether(src=mac, dst=asked.src) / ARP(op=2, hwsrc=mac, psrc=asked[ARP].pdst, hwdst=asked.src,
                                                          pdst=asked[ARP].psrc)), port=1)
    proxy.wait(0.05)
    proxy.others.clear()
    proxy.accept("a").send("SA")
    assert proxy.state_of(client) == "established"
    proxy.received.clear()


@one_worker
def test_source_ports_run_out_and_come_back(proxy):
    bound = []
    for _ in range(3):
        client = proxy.client(FEW)
        bound.append((client, connect(proxy, client, target="few")))
    assert {server.other[1] for _, server in bound} == {20000, 20001, 20002}
    late = proxy.client(FEW)
    handshake(late)
    late.send("PA", b"hello")
    late.expect("RA", seq=1, ack=6)
    assert proxy.drops() == {"source_ports_exhausted": 1}
    assert proxy.records()[0]["release"] == {"client": "Exhausted", "target": "ActiveRst"}
    bound[1][0].send("PA", b"go on")
    bound[1][1].expect("PA", seq=6, data=b"go on")
    close(*bound[0])
    proxy.wait(2.1)
    again = proxy.client(FEW)
    assert connect(proxy, again, target="few").other[1] == bound[0][1].other[1]


def test_rule_3_2_source_ports_are_used_oldest_first(proxy):
    used = []
    for _ in range(7):
        client = proxy.client(FEW)
        server = connect(proxy, client, target="few")
        used.append(server.other[1])
        close(client, server)
        proxy.wait(2.1)
    assert used[:3] == used[3:6] and used[6] == used[0] and len(set(used)) == 3


def test_first_data_of_an_immediate_service_is_held_while_connecting(proxy):
    client = proxy.client(FIRST)
    handshake(client)
    server = proxy.accept("a")
    client.send("PA", b"later", seq=10)
    client.send("PA", b"early", seq=1)
    server.send("SA")
    server.expect("PA", seq=1, ack=1, data=b"early")
    server.expect("PA", seq=10, ack=1, data=b"later")


def test_a_silent_target_is_a_time_out_on_both_sides(proxy):
    client, server = connecting(proxy, b"0")
    proxy.wait(10.1)
    for _ in range(3):
        server.expect("S", seq=0)
    client.expect("RA", seq=1, ack=2)
    server.expect("R", seq=1)
    [record] = proxy.records()
    assert record["release"] == {"client": "Timeout", "target": "Timeout"} and record["target"] == "a"
    assert record["octets"] == {"client": 1, "target": 0}
    assert proxy.state.counters.targets[0].tolist() == [0, 1, 0, 1, 0]


def test_a_held_fin_stands_in_the_record(proxy):
    client, server = connecting(proxy, b"0 hello")
    client.send("FA")
    server.send("SA")
    server.expect("FPA", seq=1, ack=1, data=b"0 hello")
    server.send("FA", b"bye")
    client.expect("FA", seq=1, ack=9, data=b"bye")
    client.send("A")
    server.expect("A")
    proxy.wait(2.1)
    [record] = proxy.records()
    states = {side: [name for name, _ in steps] for side, steps in record["states"].items()}
    assert states["client"] == ["SynReceived", "Established", "CloseWait", "LastAck", "Closed"]
    assert states["target"] == ["SynSent", "Established", "FinWait1", "FinWait2", "TimeWait"]
    assert record["octets"] == {"client": 7, "target": 3}
    assert proxy.event("client", "received_fin_active") == 1 and proxy.event("target", "sent_fin_active") == 1


def test_a_held_slot_without_an_octet_is_not_sent_for_ever(proxy):
    client = proxy.client(FIRST)
    handshake(client)
    server = proxy.accept("a")
    client.send("PA", b"later", seq=10)
    server.send("SA")
    server.expect("A", seq=1, ack=1)
    server.expect("PA", seq=10, ack=1, data=b"later")
    proxy.wait(5)
    proxy.silent()
