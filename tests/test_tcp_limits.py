"""What is too small: the table, the held slots, the source ports, the mbufs, the rings, the lists, the records."""
import random

import pytest

from pipeline.kernels.free_list import COUNT
from tcp.proxy import FEW, HELD_BYTES, NUMBER, PATH, End, close, connect, handshake, one_worker, settings


def held_of(proxy):
    """Returns how many slots of held bytes are taken."""
    held = proxy.state.connections.held
    return len(held.length) - int(held.free_count[0])


@settings(connections=8, held_connections=8)
def test_a_full_table_leaves_the_open_ones_alone(proxy):
    pairs = [(client, connect(proxy, client, b"0")) for client in (proxy.client(NUMBER) for _ in range(8))]
    late = [proxy.client(NUMBER) for _ in range(20)]
    proxy.burst(*(client.segment("S") for client in late))
    assert proxy.drops() == {"connections_exhausted": 20} and proxy.count("opened") == 8
    for client, server in pairs:
        client.send("PA", b"go on")
        server.expect("PA", data=b"go on")
    close(*pairs[3])
    proxy.wait(2.1)
    late[0].send("S", seq=0)
    late[0].expect("SA", ack=1)


@settings(connections=1, held_connections=1)
def test_a_table_of_one(proxy):
    for _ in range(5):
        client = proxy.client(NUMBER)
        server = connect(proxy, client, b"0")
        proxy.client(NUMBER).send("S")
        close(client, server)
        proxy.wait(2.1)
    assert proxy.count("closed") == 5 and proxy.drops() == {"connections_exhausted": 5}


@settings(held_connections=3)
def test_held_slots_come_back_by_every_way(proxy):
    acknowledged = proxy.client(NUMBER)
    connect(proxy, acknowledged, b"0")
    assert held_of(proxy) == 0
    for ending in ("client_rst", "refused", "no_match", "time_out", "target_rst_after"):
        client = proxy.client(NUMBER)
        handshake(client)
        client.send("PA", b"x" if ending == "no_match" else b"0")
        if ending == "no_match":
            client.expect("RA")
        elif ending == "client_rst":
            assert held_of(proxy) == 1
            proxy.accept("a")
            client.send("R")
        elif ending == "refused":
            proxy.accept("a").send("RA", seq=0, ack=1)
        elif ending == "time_out":
            proxy.wait(11, 0.1)
        else:
            server = proxy.accept("a")
            server.send("SA")
            server.send("R")
        proxy.received.clear()
        assert held_of(proxy) == 0, ending
    assert proxy.states() == {"established": 1}


@settings(held_connections=1)
def test_a_client_without_a_slot_times_out_like_any_other(proxy):
    first, second = proxy.client(PATH), proxy.client(NUMBER)
    for client in (first, second):
        handshake(client)
    first.send("PA", b"GET /")
    second.send("PA", b"0")
    assert proxy.drops() == {"held_pool_empty": 1}
    proxy.wait(45, 0.1)
    assert proxy.states() == {} and held_of(proxy) == 0
    proxy.received.clear()


def test_source_ports_of_one_target_do_not_run_out_for_another(proxy):
    for _ in range(5):
        client = proxy.client(FEW)
        handshake(client)
        client.send("PA", b"x")
    proxy.received.clear()
    assert proxy.drops() == {"source_ports_exhausted": 2}
    connect(proxy, proxy.client(NUMBER), b"0")
    assert proxy.states() == {"connecting": 3, "established": 1}


def test_without_mbufs_our_own_segments_are_left_out_and_sent_again(proxy):
    client, other = proxy.client(NUMBER), proxy.client(NUMBER)
    server = connect(proxy, client, b"0")
    with proxy.starving(0):
        other.send("S")
        client.send("PA", b"this needs none")
        assert proxy.drops() == {"no_mbuf": 1} and proxy.state_of(other) == "syn_received"
    server.expect("PA", data=b"this needs none")
    other.nothing()
    proxy.wait(1.3)
    other.expect("SA", seq=0, ack=1)


def test_too_few_mbufs_for_a_payload_leave_it_to_the_retransmission(proxy):
    client = proxy.client(NUMBER)
    handshake(client)
    client.send("PA", b"0" * HELD_BYTES)
    server = proxy.accept("a")
    with proxy.starving(5):
        server.send("SA", mss=128)
        server.nothing()
    assert proxy.drops() == {"no_mbuf": 8} and proxy.state_of(client) == "established"
    proxy.wait(0.32)
    server.expect("A", seq=1, data=b"0" * 128)
    server.send("A", ack=129)
    client.expect("A", ack=129)
    server.expect("A", seq=129, data=b"0" * 128)
    server.expect("A", seq=257, data=b"0" * 128)


def test_without_mbufs_connections_end_all_the_same(proxy):
    pairs = [(client, connect(proxy, client, b"0")) for client in (proxy.client(NUMBER) for _ in range(10))]
    with proxy.starving(0):
        proxy.wait(601, 1)
        assert proxy.states() == {} and proxy.drops() == {"no_mbuf": 20}
    assert all(not proxy.received[end.own, end.other] for pair in pairs for end in pair)


@settings(ring_size=16, mbufs=512)
@one_worker
def test_a_full_transmit_ring_is_counted_and_loses_no_mbuf(proxy):
    clients = [proxy.client(NUMBER) for _ in range(40)]
    for client in clients:
        handshake(client)
    for client in clients[:16]:
        assert proxy.network.ports[0].feed([client.segment("PA", b"0")]) == 1
    proxy.run(passes=1)
    for part in range(3):
        for client in clients[16 + 8 * part:24 + 8 * part]:
            proxy.network.ports[0].feed([client.segment("PA", b"0")])
        proxy._run(proxy.state, 2, proxy.now)
    proxy._take()
    assert proxy.drops() == {"transmit_full": 8} and proxy.states() == {"connecting": 40}
    proxy.received.clear()
    proxy.now += 1_100_000
    proxy.run()
    proxy.received.clear()


@settings(held_bytes=16384, mbufs=8192, ring_size=4096)
@one_worker
def test_more_own_segments_than_a_pass_can_order_are_counted_and_sent_again(proxy):
    clients = [proxy.client(NUMBER) for _ in range(40)]
    data = b"0" * 1024
    servers = []
    for client in clients:
        handshake(client)
        for _ in range(16):
            client.send("A", data)
        server = proxy.accept("a")
        server.send("SA", mss=64, window=65535)
        for segment in range(22):
            server.send("A", ack=65 + 64 * segment, window=65535)
        servers.append(server)
    proxy.received.clear()
    proxy.burst(*(server.segment("A", ack=1 + 64 * 54, window=65535) for server in servers), port=1)
    sent = [sum(len(segment.data) for segment in proxy.received[server.own, server.other]) for server in servers]
    assert sent == [64 * 33] * 31 + [64] + [0] * 8 and proxy.drops() == {"segments_full": 9}
    proxy.received.clear()
    proxy.wait(0.32)
    assert all(proxy.received[server.own, server.other] for server in servers)
    proxy.received.clear()


@settings(records=8)
def test_a_full_ring_of_records_loses_the_newest_and_says_so(proxy):
    for _ in range(12):
        client = proxy.client(NUMBER)
        client.send("S")
        client.expect("SA")
        client.send("R", seq=1)
    assert len(proxy.records()) == 8 and proxy.count("records_lost") == 4
    client = proxy.client(NUMBER)
    client.send("S")
    client.expect("SA")
    client.send("R", seq=1)
    assert len(proxy.records()) == 1


def test_without_records_nothing_else_changes(proxy_factory):
    proxy = proxy_factory(detailed_records="false")
    client = proxy.client(NUMBER)
    close(client, connect(proxy, client, b"0"))
    proxy.wait(2.1)
    assert proxy.records() == [] and proxy.count("closed") == 1


@settings(held_bytes=64)
def test_the_least_held_bytes(proxy):
    client = proxy.client(NUMBER)
    client.send("S")
    client.expect("SA", window=64)
    client.send("A")
    client.send("PA", b"0" * 100)
    server = proxy.accept("a")
    server.send("SA")
    server.expect("PA", seq=1, data=b"0" * 64)


@settings(burst=1)
def test_a_burst_of_one(proxy):
    clients = [proxy.client(NUMBER) for _ in range(10)]
    proxy.burst(*(client.segment("S") for client in clients))
    for client in clients:
        client.expect("SA", ack=1)
        client.send("A")
        client.send("PA", b"0")
        server = proxy.accept("a")
        server.send("SA")
        server.expect("PA", data=b"0")


def test_a_flow_table_with_one_bucket_for_all_finds_everyone(proxy_factory):
    proxy = proxy_factory(connections=3, held_connections=3)
    assert len(proxy.state.connections.buckets) == 1
    for _ in range(20):
        pairs = [(client, connect(proxy, client, b"0")) for client in (proxy.client(NUMBER) for _ in range(3))]
        for client, server in pairs:
            client.send("PA", b"mine %d" % client.own[1])
            server.expect("PA", data=b"mine %d" % client.own[1])
            close(client, server)
        proxy.wait(2.1, 0.1)
    assert proxy.count("closed") == 60 and proxy.drops() == {}


@pytest.mark.parametrize("seed", range(4))
def test_random_segments_of_few_connections_lose_nothing(proxy_factory, seed):
    dice = random.Random(seed)
    proxy = proxy_factory(connections=12, held_connections=5, held_bytes=128, records=100_000)
    clients = [proxy.client(dice.choice((NUMBER, FEW, PATH)), port=40000 + number) for number in range(16)]
    for turn in range(200):
        proxy.burst(*(random_segment(dice, dice.choice(clients)) for _ in range(dice.randrange(1, 30))))
        came = [segment for segments in proxy.received.values() for segment in segments]
        answers = [random_answer(dice, proxy, segment) for segment in came if segment.port == 1 and dice.random() < 0.8]
        for segment in came:
            if segment.flags == "SA":
                client = next(client for client in clients if client.own == segment.destination)
                client.other_isn, client.ack = segment.seq, 1
        proxy.received.clear()
        proxy.burst(*answers, port=dice.choice((0, 1, 1)))
        proxy.received.clear()
        proxy.now += dice.choice((0, 10_000, 300_000, 1_000_000, 5_000_000))
        proxy.run()
        proxy.received.clear()
        if turn % 25 == 0:
            proxy.conserved()
    assert proxy.count("opened") > 50 and proxy.state.counters.targets[:, 1].sum() > 10


def random_segment(dice, client):
    """Returns a frame of a client: mostly what could come next, sometimes anything."""
    data = dice.choice((b"", b"0", b"1 more", b"GET /a HTTP/1.1\r\n\r\n", b"GET /", b"7" * HELD_BYTES))
    flags = dice.choices(("S", "A", "PA", "FA", "R", "RA", "SA", "F", ""), (4, 6, 8, 3, 1, 1, 0.2, 0.2, 0.2))[0]
    seq = dice.choice((0, 1, 1, 1, 1, 2, 7, 20, dice.randrange(300), dice.randrange(1 << 32)))
    if flags == "S":
        seq = dice.choice((0, 0, 0, 400, 1 << 20))
    ack = dice.choice((1, 1, 1, 1, 2, 6, dice.randrange(1 << 32)))
    return client.segment(flags, data if "P" in flags else b"", seq=seq, ack=ack, mss=dice.choice((None, 64, 1460)),
                          corrupt=dice.random() < 0.02)


def random_answer(dice, proxy, segment):
    """Returns a frame of a target in answer to what has come to it."""
    end = End(proxy, 1, segment.destination, segment.source, 5_000, segment.seq)
    if segment.flags == "S":
        flags = dice.choices(("SA", "RA", "A"), (8, 1, 1))[0]
        return end.segment(flags, seq=0, ack=1, mss=dice.choice((None, 64, 1460)))
    ack = len(segment.data) + ("F" in segment.flags)
    return end.segment(dice.choices(("A", "PA", "FA", "R"), (6, 4, 3, 0.5))[0], dice.choice((b"", b"answer")),
                       seq=dice.choice((1, 1, 1, 2, 7)), ack=ack)


@settings(opening_connections=3)
def test_as_many_as_may_be_opening_and_any_number_that_are_open(proxy):
    pairs = [(client, connect(proxy, client, b"0")) for client in (proxy.client(NUMBER) for _ in range(8))]
    opening, late = [proxy.client(NUMBER) for _ in range(3)], proxy.client(NUMBER)
    for client in opening:
        handshake(client)
    late.send("S")
    late.nothing()
    assert proxy.drops() == {"opening_exhausted": 1} and proxy.states() == {"established": 8, "first_data": 3}
    for client, server in pairs:
        client.send("PA", b"go on")
        server.expect("PA", data=b"go on")
    opening[1].send("R", seq=1)
    late.send("S", seq=0)
    late.expect("SA", seq=0, ack=1)
    assert proxy.states() == {"established": 8, "first_data": 2, "syn_received": 1}


def hear_more(proxy, client):
    """A client whose request comes in two segments, the first of which is ours to deliver (SPLICE 1.2)."""
    client.send("PA", b"GET /")
    client.expect("A", ack=6)
    client.send("PA", b"a HTTP/1.1\r\n\r\n")
    server = proxy.accept("a")
    server.send("SA", mss=1460)
    server.expect("PA", data=b"GET /a HTTP/1.1\r\n\r\n")
    server.send("A", ack=20)
    return server


@settings(opening_connections=1)
@pytest.mark.parametrize("ending", ["spliced", "need_more", "client_rst", "refused", "no_match", "silent", "closed"])
def test_an_opening_record_comes_back_by_every_way(proxy, ending):
    client = proxy.client({"need_more": PATH, "refused": FEW}.get(ending, NUMBER))
    handshake(client)
    assert proxy.state.connections.free_openings[COUNT] == 0
    if ending == "spliced":
        client.send("PA", b"0")
        server = proxy.accept("a")
        server.send("SA", mss=1460)
        server.send("A", ack=2)
    elif ending == "need_more":
        hear_more(proxy, client)
    elif ending == "client_rst":
        client.send("R")
    elif ending == "refused":
        client.send("PA", b"0")
        proxy.accept("few").send("RA", seq=0, ack=1)
    elif ending == "no_match":
        client.send("PA", b"x")
    elif ending == "silent":
        proxy.wait(31, 0.5)
    else:
        client.send("FA")
        client.send("A", seq=2, ack=2)
    proxy.received.clear()
    assert proxy.state.connections.free_openings[COUNT] == 1 and proxy.drops() == {}
    handshake(proxy.client(NUMBER))


@settings(opening_connections=1)
def test_rule_1_2_what_was_ours_is_not_taken_back_once_its_opening_record_is_another_s(proxy):
    client = proxy.client(PATH)
    handshake(client)
    server = hear_more(proxy, client)
    client.expect("A", ack=20)
    handshake(proxy.client(NUMBER), isn=77)
    server.send("PA", b"late", seq=1, ack=3)
    client.expect("PA", ack=20, data=b"late")
