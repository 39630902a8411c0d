"""TIME_WAIT: both ends have closed; the connection stays for late segments, or until the client opens anew."""
import pytest

from tcp.proxy import FEW, NUMBER, close, connect, handshake, one_worker


def closed(proxy, service=NUMBER, target="a", data=b"0 hello"):
    """Returns both ends of a connection that the client has closed, in TIME_WAIT."""
    client = proxy.client(service)
    server = connect(proxy, client, data, target)
    close(client, server)
    assert proxy.state_of(client) == "time_wait"
    return client, server


def test_it_ends_after_its_time_in_silence(proxy):
    client, server = closed(proxy)
    proxy.wait(1.9)
    assert proxy.state_of(client) == "time_wait"
    proxy.wait(0.2)
    assert proxy.state_of(client) == "free"
    assert proxy.records()[0]["release"] == {"client": "PassiveClose", "target": "ActiveClose"}


def test_the_targets_fin_again_passes_and_makes_it_last(proxy):
    client, server = closed(proxy)
    proxy.wait(1.5)
    server.send("FA", seq=1)
    client.expect("FA", seq=1, ack=9)
    client.send("A")
    server.expect("A", seq=9, ack=2)
    proxy.wait(1.5)
    assert proxy.state_of(client) == "time_wait"
    proxy.wait(0.6)
    assert proxy.state_of(client) == "free"


@pytest.mark.parametrize("beyond", [1, 1000, 1 << 30])
def test_rule_4_4_a_syn_beyond_the_old_numbers_opens_anew(proxy, beyond):
    client, server = closed(proxy)
    again = proxy.client(NUMBER, port=client.own[1], isn=client.isn + 9 + beyond)
    handshake(again)
    assert proxy.count("closed") == 1 and proxy.states() == {"first_data": 1}
    assert proxy.records()[0]["release"] == {"client": "PassiveClose", "target": "ActiveClose"}
    again.send("PA", b"0 again")
    new = proxy.accept("a")
    new.send("SA")
    new.expect("PA", data=b"0 again")


def test_rule_4_4_our_new_number_lies_above_the_old_ones_last(proxy):
    client = proxy.client(NUMBER)
    server = connect(proxy, client, b"0")
    old = client.other_isn
    for turn in range(40):
        server.send("A", b"x" * 60000 if turn < 0 else b"x" * 1400)
        client.expect("A", data=b"x" * 1400)
    client.send("A")
    server.expect("A")
    close(client, server)
    again = proxy.client(NUMBER, port=client.own[1], isn=client.isn + 5000)
    handshake(again)
    assert 56_002 < (again.other_isn - old) % 2**32 < 2**31


@pytest.mark.parametrize("off", [0, -1, -1000, -(1 << 30)])
def test_rule_4_4_a_syn_not_beyond_the_old_numbers_is_refused(proxy, off):
    client, server = closed(proxy)
    client.send("S", seq=9 + off)
    client.expect("A", seq=2, ack=9)
    assert proxy.state_of(client) == "time_wait" and proxy.count("opened") == 1


def test_a_syn_while_draining_opens_nothing(proxy):
    client, server = closed(proxy)
    other = proxy.client(NUMBER)
    connect(proxy, other, b"0")
    proxy.drain()
    client.send("S", seq=5000)
    assert proxy.drops() == {"draining": 1} and proxy.count("opened") == 2


def test_rule_4_4_the_last_acknowledgement_and_a_new_syn_in_one_burst_open_a_new_connection(proxy):
    client = proxy.client(NUMBER)
    server = connect(proxy, client, b"0")
    client.send("FA")
    server.expect("FA")
    server.send("FA")
    client.expect("FA")
    again = proxy.client(NUMBER, port=client.own[1], isn=client.isn + 5000)
    proxy.burst(client.segment("A"), again.segment("S"))
    server.expect("A", ack=2)
    again.expect("SA", seq=0, ack=1)
    assert proxy.count("opened") == 2 and proxy.state_of(again) == "syn_received"


def test_a_new_syn_twice_in_one_burst_opens_one(proxy):
    client, server = closed(proxy)
    again = proxy.client(NUMBER, port=client.own[1], isn=client.isn + 5000)
    proxy.burst(again.segment("S"), again.segment("S", seq=0))
    assert again.expect("SA", ack=1).frame == again.expect("SA", ack=1).frame
    assert proxy.count("opened") == 2 and proxy.count("open") == 1


@one_worker
def test_a_new_syn_and_a_late_segment_of_the_target_in_one_burst(proxy):
    client, server = closed(proxy)
    server.port = 0
    again = proxy.client(NUMBER, port=client.own[1], isn=client.isn + 5000)
    proxy.burst(again.segment("S"), server.segment("FA", seq=1))
    again.expect("SA", ack=1)
    server.expect("R", seq=9)
    assert proxy.states() == {"syn_received": 1}


def test_late_payload_passes_and_the_end_point_answers(proxy):
    client, server = closed(proxy)
    client.send("PA", b"late", seq=4)
    server.expect("PA", seq=4, data=b"late")
    assert proxy.state_of(client) == "time_wait"


def test_after_it_a_late_segment_is_a_stray(proxy):
    client, server = closed(proxy)
    proxy.wait(2.1)
    server.send("FA", seq=1)
    server.expect("R", seq=9)
    client.send("A")
    client.expect("R", seq=2)


def test_rule_3_2_the_source_port_is_lent_meanwhile_as_the_last_of_all(proxy):
    client, server = closed(proxy, FEW, "few")
    assert proxy.state.sources.free[3] == 3 and proxy.state_of(client) == "time_wait"
    used = [connect(proxy, proxy.client(FEW), b"x", "few").other[1] for _ in range(2)]
    assert server.other[1] not in used and proxy.state_of(client) == "time_wait"


def test_rule_3_2_a_port_that_is_needed_ends_what_waits_on_it(proxy):
    ends = [closed(proxy, FEW, "few") for _ in range(3)]
    client = proxy.client(FEW)
    server = connect(proxy, client, b"again", "few")
    assert server.other == ends[0][1].other and proxy.state_of(ends[0][0]) == "free"
    assert proxy.states() == {"time_wait": 2, "established": 1}
    assert proxy.records()[0]["release"] == {"client": "PassiveClose", "target": "ActiveClose"}
    client.send("PA", b"more")
    server.expect("PA", seq=6, data=b"more")


def test_rule_3_2_targets_that_close_first_do_not_use_the_ports_up(proxy):
    for turn in range(40):
        client = proxy.client(FEW, isn=1000 * (40 - turn))
        server = connect(proxy, client, b"x", "few")
        close(server, client)
        proxy.wait(0.01)
    assert proxy.count("source_ports_exhausted") == 0


@pytest.mark.parametrize("isn", [5, 999, 1000, 1007, 0x80000000, 0xFFFFFFFF])
def test_rule_3_2_a_port_used_lately_starts_above_its_last_number(proxy, isn):
    for _ in range(3):
        client, server = closed(proxy, FEW, "few", b"x" * 7)
    last = server.other_isn + 9
    for _ in range(3):
        client = proxy.client(FEW, isn=isn)
        handshake(client)
        client.send("PA", b"again")
        server = proxy.accept("few")
        assert 0 < (server.other_isn - last) % 2**32 < 2**31
        server.send("SA")
        server.expect("PA", seq=1, ack=1, data=b"again")
        server.send("PA", b"answer")
        client.expect("PA", seq=1, ack=6, data=b"answer")
        client.send("A")
        server.expect("A", seq=6, ack=7)
        close(client, server)


def test_rule_3_2_after_two_lifetimes_the_clients_own_number_goes_through(proxy):
    for _ in range(3):
        closed(proxy, FEW, "few")
    proxy.wait(121, 1)
    client = proxy.client(FEW, isn=5)
    handshake(client)
    client.send("PA", b"again")
    assert proxy.accept("few").other_isn == 5


@pytest.mark.parametrize("ahead", [2**31 - 1, 2**31 + 20_000, 2**31 - 2**27])
def test_rule_3_2_what_lies_half_the_circle_ahead_is_old_to_the_target(proxy, ahead):
    """We leave a margin above what was sent last; to a target that knows but that, a number beyond 2**31 from there is an old one."""
    value, isn = 5_000_000, 1_000_000
    for turn in range(4):
        client = proxy.client(FEW, isn=isn if turn < 3 else (isn + ahead) % 2**32)
        stamp = value if turn < 3 else (value + ahead) % 2**32
        handshake(client, options=[("Timestamp", (stamp, 0))])
        client.send("PA", b"hello", options=[("NOP", None), ("NOP", None), ("Timestamp", (stamp, 1))])
        server = proxy.accept("few")
        sent = dict(server.syn.options)["Timestamp"][0]
        server.send("SA", mss=1460, options=[("Timestamp", (900, sent))])
        server.expect("PA", seq=1, data=b"hello")
        close(client, server)
    assert 0 < (sent - value) % 2**32 < 2**31 - 2**27
    assert 0 < (server.other_isn - isn) % 2**32 < 2**31 - 2**27


def test_rule_3_2_timestamps_begin_above_the_last_ones_too(proxy):
    for value in (5_000_000, 3_000_000):
        for _ in range(3):
            client = proxy.client(FEW)
            handshake(client, options=[("Timestamp", (value, 0))])
            client.send("PA", b"hello", options=[("NOP", None), ("NOP", None), ("Timestamp", (value + 5, 1))])
            server = proxy.accept("few")
            sent = dict(server.syn.options)["Timestamp"][0]
            server.send("SA", mss=1460, options=[("Timestamp", (900, sent))])
            assert dict(server.expect("PA", seq=1, data=b"hello").options)["Timestamp"] == (sent + 5, 900)
            client.send("A", options=[("NOP", None), ("NOP", None), ("Timestamp", (value + 70, 1))])
            assert dict(server.expect("A").options)["Timestamp"][0] == sent + 70
            server.send("A", options=[("NOP", None), ("NOP", None), ("Timestamp", (950, sent + 70))])
            assert dict(client.expect("A").options)["Timestamp"][1] == value + 70
            close(client, server)
            if value == 3_000_000:
                assert 0 < (sent - 5_000_070) % 2**32 < 2**31


def test_a_target_that_closes_first_is_kept_apart_from_the_next_on_that_port(proxy):
    for turn in range(8):
        client = proxy.client(FEW)
        server = connect(proxy, client, b"x", "few")
        close(server, client)
        proxy.wait(2.1)
        record = proxy.records()[0]
        assert record["release"] == {"client": "ActiveClose", "target": "PassiveClose"}, turn
    assert proxy.count("source_ports_exhausted") == 0


@pytest.mark.parametrize("side", [0, 1])
def test_an_exact_rst_ends_it_at_once(proxy, side):
    ends = closed(proxy)
    ends[side].send("R")
    ends[1 - side].expect("R")
    assert proxy.state_of(ends[0]) == "free"
    assert proxy.records()[0]["release"] == {"client": "PassiveClose", "target": "ActiveClose"}, "both had closed before"


def test_an_inexact_rst_does_not_make_it_last(proxy):
    client, server = closed(proxy)
    proxy.wait(1)
    client.send("R", seq=100)
    server.expect("R", seq=100)
    proxy.wait(2.1)
    assert proxy.state_of(client) == "free"
    proxy.received.clear()


def test_the_record_of_a_connection_opened_anew_says_who_closed_first(proxy):
    client = proxy.client(NUMBER)
    server = connect(proxy, client, b"0 hello")
    close(server, client)
    again = proxy.client(NUMBER, port=client.own[1], isn=client.isn + 500)
    handshake(again)
    assert proxy.records()[0]["release"] == {"client": "ActiveClose", "target": "PassiveClose"}


def test_rule_1_5_a_corrupt_syn_does_not_end_it(proxy):
    client, server = closed(proxy)
    client.send("S", seq=5000, corrupt=True)
    assert proxy.state_of(client) == "time_wait" and proxy.drops() == {"tcp_checksum": 1}


@pytest.mark.parametrize("off", [-1, -1000, -(1 << 30)])
def test_rule_4_4_a_syn_below_the_old_numbers_with_a_later_timestamp_opens_anew(proxy, off):
    stamped = lambda value, echo: {"options": [("NOP", None), ("NOP", None), ("Timestamp", (value, echo))]}
    client = proxy.client(NUMBER)
    client.send("S", **stamped(500, 0))
    client.expect("SA")
    client.send("A", **stamped(501, 1))
    client.send("PA", b"0 hello", **stamped(502, 1))
    server = proxy.accept("a")
    server.send("SA", **stamped(77, 500))
    server.expect("PA", data=b"0 hello")
    server.send("FA", **stamped(78, 502))
    client.expect("FA")
    client.send("FA", **stamped(600, 2))
    server.expect("FA")
    server.send("A", **stamped(79, 600))
    client.expect("A")
    assert proxy.state_of(client) == "time_wait"
    again = proxy.client(NUMBER, port=client.own[1], isn=client.isn + 9 + off)
    again.send("S", **stamped(600, 0))              # not later than its FIN
    proxy.received.clear()
    assert proxy.state_of(again) == "time_wait"
    again.send("S", seq=0, **stamped(601, 0))
    again.expect("SA", seq=0, ack=1)
    assert proxy.state_of(again) == "syn_received" and 0 < (again.other_isn - client.other_isn) % 2**32 < 2**31


@pytest.mark.parametrize("rate", [1, 1000, 1_000_000], ids=lambda rate: f"{rate} a second")
def test_rule_3_2_our_timestamps_lie_above_the_old_ones_whatever_the_clients_clock(proxy, rate):
    def stamped(echo=0):
        return {"options": [("NOP", None), ("NOP", None), ("Timestamp", (proxy.now * rate // 1_000_000 % 2**32, echo))]}
    shown = {}
    for turn in range(7):
        client = proxy.client(FEW)
        client.send("S", **stamped())
        client.expect("SA")
        client.send("PA", b"hello", seq=1, **stamped(1))
        client.seq = 6
        server = proxy.accept("few")
        stamps = shown.setdefault(server.other, [])
        stamps.append(dict(server.syn.options)["Timestamp"][0])
        server.send("SA", mss=1460, **stamped(stamps[-1]))
        server.expect("PA", data=b"hello")
        server.send("A", **stamped(1))
        client.expect("A")
        proxy.wait(50, 1)
        server.send("FA", **stamped(1))
        client.expect("FA")
        client.send("FA", **stamped(1))
        stamps.append(dict(server.expect("FA").options)["Timestamp"][0])
        server.send("A", **stamped(1))
        client.expect("A")
    for stamps in shown.values():
        assert all(0 < (later - earlier) % 2**32 < 2**31 for earlier, later in zip(stamps, stamps[1:], strict=False)), stamps
