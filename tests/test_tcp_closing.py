"""HALF_CLOSED and FIN_WAIT: FINs of both ends, in every order, and what still comes meanwhile."""
import pytest

from tcp.proxy import NUMBER, close, connect, one_worker, settings


def bound(proxy, data=b"0 hello", **fields):
    """Returns both ends of an established connection to target a; nothing is held any more."""
    client = proxy.client(NUMBER)
    return client, connect(proxy, client, data, **fields)


def names(record, side):
    """Returns the TCP states of one side of a record, in order."""
    return [name for name, _ in record["states"][side]]


def test_the_client_closes_first(proxy):
    client, server = bound(proxy)
    client.send("FA")
    server.expect("FA", seq=8, ack=1)
    assert proxy.state_of(client) == "half_closed"
    server.send("A")
    client.expect("A", seq=1, ack=9)
    server.send("FA")
    client.expect("FA", seq=1, ack=9)
    assert proxy.state_of(client) == "fin_wait"
    client.send("A")
    server.expect("A", seq=9, ack=2)
    assert proxy.state_of(client) == "time_wait"
    proxy.wait(2.1)
    [record] = proxy.records()
    assert record["release"] == {"client": "PassiveClose", "target": "ActiveClose"}
    assert record["octets"] == {"client": 7, "target": 0} and record["target"] == "a"
    assert names(record, "client") == ["SynReceived", "Established", "CloseWait", "LastAck", "Closed"]
    assert names(record, "target") == ["SynSent", "Established", "FinWait1", "FinWait2", "TimeWait"]


def test_the_target_closes_first(proxy):
    client, server = bound(proxy)
    server.send("FA", b"bye")
    client.expect("FA", seq=1, ack=8, data=b"bye")
    assert proxy.state_of(client) == "half_closed"
    client.send("A")
    server.expect("A", ack=5)
    client.send("FA")
    server.expect("FA", seq=8, ack=5)
    server.send("A")
    client.expect("A", seq=5, ack=9)
    assert proxy.state_of(client) == "time_wait"
    proxy.wait(2.1)
    [record] = proxy.records()
    assert record["release"] == {"client": "ActiveClose", "target": "PassiveClose"}
    assert record["octets"] == {"client": 7, "target": 3}
    assert names(record, "target") == ["SynSent", "Established", "CloseWait", "LastAck", "Closed"]
    assert names(record, "client") == ["SynReceived", "Established", "FinWait1", "FinWait2", "TimeWait"]


def test_the_target_answers_the_fin_with_its_own(proxy):
    client, server = bound(proxy)
    client.send("FA")
    server.expect("FA", seq=8)
    server.send("FA")
    client.expect("FA", seq=1, ack=9)
    client.send("A")
    server.expect("A", seq=9, ack=2)
    assert proxy.state_of(client) == "time_wait"


def test_a_simultaneous_close(proxy):
    client, server = bound(proxy)
    client.send("FA")
    server.send("FA", ack=8)
    server.expect("FA", seq=8, ack=1)
    client.expect("FA", seq=1, ack=8)
    assert proxy.state_of(client) == "fin_wait"
    client.send("A")
    server.send("A")
    server.expect("A", seq=9, ack=2)
    client.expect("A", seq=2, ack=9)
    assert proxy.state_of(client) == "time_wait"
    proxy.wait(2.1)
    [record] = proxy.records()
    assert record["release"] == {"client": "PassiveClose", "target": "ActiveClose"}
    assert names(record, "target")[2:] == ["FinWait1", "Closing", "TimeWait"]


def test_the_close_is_counted_on_each_side(proxy):
    client, server = bound(proxy)
    close(client, server)
    assert [proxy.event("client", name) for name in ("received_fin_active", "sent_fin_passive")] == [1, 1]
    assert [proxy.event("target", name) for name in ("sent_fin_active", "received_fin_passive")] == [1, 1]
    assert [proxy.event(side, name) for side in ("client", "target")
            for name in ("received_ack_of_fin", "sent_ack_of_fin")] == [1, 1, 1, 1]


def test_the_target_goes_on_after_the_clients_fin(proxy):
    client, server = bound(proxy)
    client.send("FA")
    server.expect("FA")
    for number in range(5):
        server.send("PA", b"part %d" % number)
        client.expect("PA", seq=1 + 6 * number, ack=9, data=b"part %d" % number)
        client.send("A", seq=9)
        server.expect("A", seq=9, ack=7 + 6 * number)
    assert proxy.state_of(client) == "half_closed"
    server.send("FA")
    client.expect("FA", seq=31)
    client.send("A")
    server.expect("A", ack=32)
    proxy.wait(2.1)
    assert proxy.records()[0]["octets"] == {"client": 7, "target": 30}


def test_the_client_goes_on_after_the_targets_fin(proxy):
    client, server = bound(proxy)
    server.send("FA")
    client.expect("FA")
    client.send("PA", b"more")
    server.expect("PA", seq=8, ack=2, data=b"more")
    server.send("A")
    client.expect("A", seq=2, ack=12)
    assert proxy.state_of(client) == "half_closed"


@pytest.mark.parametrize("side", [0, 1])
def test_a_fin_sent_again_passes_and_counts_once(proxy, side):
    ends = bound(proxy)
    first, second = ends[side], ends[1 - side]
    seq = first.seq
    for _ in range(3):
        first.send("FA", seq=seq)
        second.expect("FA", seq=seq)
    assert proxy.state_of(ends[0]) == "half_closed"
    assert proxy.event(("client", "target")[side], "received_fin_active") == 1


def test_a_fin_ahead_of_lost_payload_is_not_acknowledged_by_an_older_number(proxy):
    client, server = bound(proxy)
    client.send("FPA", b"end", seq=20)
    server.expect("FPA", seq=20, data=b"end")
    server.send("A", ack=8)
    client.expect("A", ack=8)
    server.send("FA", ack=8)
    client.expect("FA", ack=8)
    client.send("A", seq=24)
    server.expect("A", seq=24, ack=2)
    assert proxy.state_of(client) == "fin_wait"
    client.send("PA", b"x" * 12, seq=8)
    server.expect("PA", seq=8, data=b"x" * 12)
    server.send("A", ack=24)
    client.expect("A", ack=24)
    assert proxy.state_of(client) == "time_wait"


def test_a_lost_last_acknowledgement_is_sent_again_by_the_client(proxy):
    client, server = bound(proxy)
    client.send("FA")
    server.expect("FA")
    server.send("FA")
    client.expect("FA")
    proxy.wait(1)
    server.send("FA", seq=1)
    client.expect("FA", seq=1)
    client.send("A")
    server.expect("A", ack=2)
    assert proxy.state_of(client) == "time_wait"


@pytest.mark.parametrize("first", [0, 1])
def test_a_rst_after_a_fin_ends_it(proxy, first):
    ends = bound(proxy)
    ends[first].send("FA")
    ends[1 - first].expect("FA")
    ends[1 - first].send("RA")
    ends[first].expect("RA")
    assert proxy.state_of(ends[0]) == "free"


def test_half_closed_has_a_time_out_of_its_own(proxy):
    client, server = bound(proxy)
    client.send("FA")
    server.expect("FA")
    proxy.wait(299, 1)
    assert proxy.state_of(client) == "half_closed"
    proxy.wait(2)
    client.expect("RA", seq=1)
    server.expect("RA", seq=8)
    assert proxy.records()[0]["release"] == {"client": "Timeout", "target": "Timeout"}


def test_fin_wait_has_a_time_out_of_its_own(proxy):
    client, server = bound(proxy)
    client.send("FA")
    server.send("FA", ack=8)
    server.expect("FA")
    client.expect("FA")
    proxy.wait(59.9, 0.1)
    assert proxy.state_of(client) == "fin_wait"
    proxy.wait(0.3)
    client.expect("RA")
    server.expect("RA")
    assert proxy.states() == {}


@pytest.mark.parametrize("order", ["CTct", "TCct", "CtTc", "TcCt", "CTtc"])
@one_worker
def test_all_in_one_burst(proxy, order):
    client, server = bound(proxy)
    server.port = 0
    frames = {"C": client.segment("FA"), "T": server.segment("FA"),
              "c": client.segment("A", seq=9, ack=2), "t": server.segment("A", seq=2, ack=9)}
    proxy.burst(*(frames[letter] for letter in order))
    for end, own, other in ((client, "T", "t"), (server, "C", "c")):
        for letter in order:
            if letter in own + other:
                end.expect("FA" if letter == own else "A")
    assert proxy.state_of(client) == "time_wait"


@pytest.mark.parametrize("how", ["fin", "client_rst", "target_rst"])
def test_hundreds_of_connections_close_in_a_burst(proxy, how):
    pairs = [bound(proxy, b"0") for _ in range(200)]
    if how == "fin":
        for flags, one, other in (("FA", 0, 1), ("FA", 1, 0), ("A", 0, 1)):
            proxy.burst(*(pair[one].segment(flags) for pair in pairs), port=one)
            for pair in pairs:
                pair[other].expect(flags)
        assert proxy.states() == {"time_wait": 200}
        proxy.wait(2.1)
    else:
        side = int(how == "target_rst")
        proxy.burst(*(pair[side].segment("RA") for pair in pairs), port=side)
        for pair in pairs:
            pair[1 - side].expect("RA")
    assert proxy.states() == {} and proxy.count("closed") == 200
    proxy.conserved()
    assert len(proxy.records()) == 200


@settings(mbufs=4096, connections=600, held_connections=600)
def test_hundreds_time_out_at_once(proxy):
    clients = [proxy.client(NUMBER) for _ in range(600)]
    for start in range(0, 600, 200):
        some = clients[start:start + 200]
        proxy.burst(*(client.segment("S") for client in some))
        for client in some:
            client.expect("SA")
        proxy.burst(*(client.segment("PA", b"0", seq=1) for client in some))
    assert proxy.states() == {"connecting": 600}
    proxy.received.clear()
    proxy.now += 1_500_000
    proxy.run(passes=12)
    assert sum(map(len, proxy.received.values())) == 600
    proxy.received.clear()
    proxy.now += 20_000_000
    proxy.run(passes=40)
    assert proxy.states() == {} and proxy.drops() == {}
    assert sum(map(len, proxy.received.values())) == 1200
    proxy.received.clear()


def test_rule_1_5_a_corrupt_acknowledgement_of_a_fin_changes_no_state(proxy):
    client, server = bound(proxy)
    client.send("FA")
    server.expect("FA", seq=8)
    server.send("FA", ack=8)
    client.expect("FA", seq=1, ack=8)
    server.send("A", ack=9, corrupt=True)
    client.nothing()
    client.send("A")
    server.expect("A")
    assert proxy.state_of(client) == "fin_wait" and proxy.drops() == {"tcp_checksum": 1}


def test_text_behind_a_fin_does_not_hide_its_acknowledgement(proxy):
    client = proxy.client(NUMBER)
    server = connect(proxy, client, b"0")
    client.send("FA")
    server.expect("FA", seq=2)
    client.send("PA", b"beyond the end")
    server.expect("PA", seq=3, data=b"beyond the end")
    server.send("FA", ack=3)
    client.expect("FA", ack=3)
    client.send("A", seq=3)
    server.expect("A")
    assert proxy.state_of(client) == "time_wait"
