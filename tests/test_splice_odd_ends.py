"""What a sceptic found: numbers at their edges, segments that cross, and a client that knows nothing of its connection any more."""
import pathlib

import pytest

from peers import payload_kernels
from tcp.negotiated import STAMP, STAMPS, option, peek, scale, stamped
from tcp.payload_services import services
from tcp.proxy import HELD_BYTES, NUMBER, PATH, SERVICE, SIMPLE, handshake, settings

ROUND = 1 << 32
FILTER = f"{pathlib.Path(payload_kernels.__file__).resolve()}:everything"
FILTERED = {"name": '"filtered"', "listen": f'"{SERVICE}:7900"', "targets": '["a", "b"]', "select": '"http_path"',
            "rules": '[{ match = "/a", target = "a" }]', "default": '"b"', "payload_to_target": f'"{FILTER}"'}


@settings(services=(*services(), FILTERED))
def test_rule_5_1_a_first_data_time_out_shows_what_is_held_to_the_payload_kernel_too(proxy):
    client = proxy.client(7900)
    handshake(client)
    client.send("PA", b"GET /x1")
    client.expect("A", ack=8)
    proxy.wait(30.1, 0.1)
    client.expect("A", ack=8)
    server = proxy.accept("b")
    server.send("SA", mss=1460)
    server.expect("PA", seq=1, data=b"GET /y")


@pytest.mark.parametrize("isn", [ROUND - 3, ROUND - 2, ROUND - 1, 0])
def test_rfc_9293_a_fin_alone_is_no_octet_wherever_numbers_wrap(proxy, isn):
    client = proxy.client(isn=isn)
    handshake(client)
    client.send("FA")
    client.expect("FA", seq=1, ack=2)
    client.send("A")
    assert proxy.records()[0]["octets"] == {"client": 0, "target": 0}


@pytest.mark.parametrize("isn", [ROUND - 10, 5])
def test_mode_simple_data_with_the_syn_is_counted_wherever_numbers_wrap(proxy, isn):
    client = proxy.client(SIMPLE, isn=isn)
    client.send("S", b"x" * 20)
    server = proxy.accept("a", data=b"x" * 20)
    server.ack = client.seq = 21
    server.send("SA")
    client.expect("SA", seq=0, ack=21)
    client.send("RA")
    server.expect("RA", seq=21)
    assert proxy.records()[0]["octets"] == {"client": 20, "target": 0}


def test_rule_3_2_a_bare_ack_gets_a_rst_in_mode_simple_too_and_the_clients_syn_goes_again(proxy):
    client = proxy.client(SIMPLE)
    client.send("S")
    server = proxy.accept("a")
    server.send("A", seq=5000, ack=77_777)
    rst = server.expect("R")
    assert rst.seq == server.other_isn + 77_777
    server.other_isn = None
    client.send("S", seq=0)
    server.expect("S")
    server.send("SA", seq=0, ack=1)
    client.expect("SA", seq=0, ack=1)


@pytest.mark.parametrize("state", ["syn_received", "first_data", "held", "connecting"])
def test_rfc_5961_a_client_that_has_restarted_before_binding_resets_the_old_connection_by_our_challenge(proxy, state):
    old = proxy.client(PATH, port=41_000)
    old.send("S")
    old.expect("SA")
    if state != "syn_received":
        old.send("A")
    if state == "held":
        old.send("PA", b"GET /")
        old.expect("A", ack=6)
    if state == "connecting":
        old.send("PA", b"GET /a HTTP/1.0\r\n\r\n")
        server = proxy.accept("a")
    new = proxy.client(PATH, port=41_000, isn=900_000)
    new.other_isn = old.other_isn
    new.send("S")
    challenge = new.expect("A", seq=1)
    assert challenge.ack - old.isn == (6 if state == "held" else 1)
    new.send("R", seq=challenge.ack - new.isn)
    assert proxy.states() == {}
    if state == "connecting":
        server.expect("R", seq=1)
    new.other_isn = None
    new.send("S", seq=0)
    new.expect("SA", seq=0, ack=1)


@pytest.mark.parametrize("off", [1, 100, HELD_BYTES])
def test_rfc_5961_a_rst_in_the_window_before_binding_is_challenged_and_the_exact_one_ends_it(proxy, off):
    client = proxy.client(PATH)
    handshake(client)
    client.send("R", seq=1 + off)
    client.expect("A", seq=1, ack=1)
    client.send("R", seq=1)
    assert proxy.states() == {}


def test_rfc_5961_a_challenge_after_our_fin_has_the_numbers_behind_both(proxy):
    client = proxy.client(port=41_000)
    handshake(client)
    client.send("FA")
    client.expect("FA", seq=1, ack=2)
    new = proxy.client(port=41_000, isn=900_000)
    new.other_isn = client.other_isn
    new.send("S")
    challenge = new.expect("A", seq=2)
    assert challenge.ack == client.isn + 2
    new.send("R", seq=challenge.ack - new.isn)
    assert proxy.states() == {}


@settings(reset_rate=2)
def test_rfc_5961_challenges_before_binding_are_rate_limited(proxy):
    client = proxy.client(PATH)
    handshake(client)
    for _ in range(5):
        client.send("S", seq=77)
    assert [client.expect("A", seq=1, ack=1) for _ in range(2)] and proxy.drops() == {"unexpected_segment": 3}


def test_peers_a_rst_and_a_new_syn_in_one_burst_open_a_new_connection(proxy):
    old, new = proxy.client(port=41_000), proxy.client(port=41_000, isn=5_000_000)
    handshake(old)
    proxy.burst(old.segment("R"), new.segment("S"))
    new.expect("SA", seq=0, ack=1)
    assert proxy.count("opened") == 2 and proxy.drops() == {}


@settings(waiting_segments=0)
def test_peers_a_new_syn_that_finds_no_place_to_wait_is_left_to_its_retransmission(proxy):
    old, new = proxy.client(port=41_000), proxy.client(port=41_000, isn=5_000_000)
    handshake(old)
    proxy.burst(old.segment("R"), new.segment("S"))
    assert proxy.drops() == {"waiting_room_full": 1}
    new.send("S", seq=0)
    new.expect("SA", seq=0, ack=1)


@pytest.mark.parametrize("mss", [1, 11, 12, 13])
def test_rule_2_5_the_room_for_timestamps_never_takes_all_of_the_mss(proxy, mss):
    client = proxy.client(NUMBER)
    client.send("S", mss=mss, options=STAMPS)
    stamps = stamped(STAMP + 1, option(client.expect("SA"), "Timestamp")[0])
    client.send("PA", b"0", options=stamps)
    syn = peek(proxy)
    assert syn.mss == 1 and option(syn, "Timestamp")[0] == STAMP
    proxy.accept("a")


def test_rule_1_3_the_answer_to_a_keep_alive_offers_no_more_than_can_be_held(proxy):
    client = proxy.client(PATH)
    client.send("S", options=scale(7))
    client.expect("SA", window=HELD_BYTES)
    client.send("A")
    client.send("A", seq=0)
    client.expect("A", seq=1, ack=1, window=HELD_BYTES >> 10)


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("owned", [False, True])
def test_rfc_9293_gigabytes_pass_one_way_while_the_other_end_says_nothing_and_then_speaks(proxy, side, owned):
    client = proxy.client(PATH)
    client.send("S", options=scale(14))
    client.expect("SA")
    client.send("A", window=65_535)
    if owned:
        client.send("PA", b"GET /a")
        client.expect("A")
    client.send("PA", b" HTTP/1.0\r\n\r\n" if owned else b"GET /a HTTP/1.0\r\n\r\n", window=65_535)
    server = proxy.accept("a")
    server.send("SA", mss=1460, options=scale(14), window=65_535)
    proxy.received.pop((server.own, server.other))
    server.ack = client.seq
    server.send("A", window=65_535)
    client.expect("A", ack=client.seq)
    talks, hears = (client, server)[side], (client, server)[1 - side]
    for _ in range(14):  # more than twice 2**32, past 2**31 and 2**32 each time
        talks.seq += 700 << 20
        talks.send("PA", b"data", seq=talks.seq - 4, window=65_535)
        came = hears.expect("PA", ack=hears.seq, data=b"data")
        assert (came.seq - hears.other_isn - talks.seq + 4) % ROUND == 0
        hears.ack = talks.seq
        hears.send("A", window=65_535)
        assert (talks.expect("A", seq=hears.seq, window=65_535).ack - talks.isn - talks.seq) % ROUND == 0
    hears.send("PA", b"word", window=65_535)
    talks.expect("PA", data=b"word")
    hears.send("FA")
    talks.expect("FA")
    talks.send("A")
    hears.expect("A", ack=hears.seq)
    talks.send("FA")
    hears.expect("FA")
    hears.ack = talks.seq
    hears.send("A")
    talks.expect("A")
    assert proxy.states() == {"time_wait": 1}
    proxy.wait(2.1)
    assert proxy.records()[0]["octets"] == {"client": client.seq - 2, "target": server.seq - 2}
