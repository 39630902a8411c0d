"""PostgreSQL: requests for encryption are answered N and taken, and the target knows nothing of them (SPLICE 1.2)."""
import struct

import pytest

from pipeline.kernels.open import SYN_RETRY
from tcp.proxied_services import (
    POSTGRESQL,
    POSTGRESQL_OR_B,
    POSTGRESQL_PROXIED,
    POSTGRESQL_SHAPED,
    binary_header,
    services,
)
from tcp.proxy import close, handshake

pytestmark = pytest.mark.parametrize("proxy", [{"services": services()}], indirect=True, ids=[""])
SSL, GSS = struct.pack("!II", 8, 80877103), struct.pack("!II", 8, 80877104)
EDGE = 2**32
"""The initial numbers of half of the tests lie just below it."""


def startup(database=b"shop"):
    """Returns a StartupMessage (bytes)."""
    body = b"user\0anna\0database\0" + database + b"\0\0"
    return struct.pack("!II", 8 + len(body), 0x30000) + body


def opened(proxy, service=POSTGRESQL, isn=1000, **fields):
    """Returns a client that has opened its connection; with `isn` below EDGE its numbers and ours wrap soon."""
    client = proxy.client(service, isn=isn)
    if isn > EDGE // 2:
        proxy.start_for_isn(client, EDGE - 2)
    handshake(client, **fields)
    return client


def asked(client, request):
    """The client asks for encryption and is told that there is none."""
    client.send("PA", request)
    client.expect("PA", seq=client.ack, ack=client.seq, data=b"N")


def bound(proxy, client, target="a", data=None, before=b"", **fields):
    """The client says where it wants to; returns the target, which has been sent that and has acknowledged it."""
    taken, data = client.seq - 1, startup() if data is None else data
    client.send("PA", data)
    server = proxy.accept(target)
    assert (server.other_isn - client.isn - taken) % EDGE == (-len(before)) % EDGE
    server.send("SA", mss=1460, **fields)
    server.expect("PA", seq=1, ack=1, data=before + data)
    server.send("A")
    client.expect("A", seq=client.ack, ack=client.seq)
    return server


def talk(client, server):
    """Both sides send, each in its own numbers, and close."""
    server.send("PA", b"R\0\0\0\x08\0\0\0\0")
    client.expect("PA", seq=client.ack, ack=client.seq, data=b"R\0\0\0\x08\0\0\0\0")
    client.send("PA", b"Q\0\0\0\x0dselect 1\0")
    server.expect("PA", seq=server.ack, ack=server.seq, data=b"Q\0\0\0\x0dselect 1\0")
    server.send("A")
    client.expect("A", seq=client.ack, ack=client.seq)
    close(client, server)


@pytest.mark.parametrize("isn", [1000, EDGE - 4])
@pytest.mark.parametrize("requests", [[], [SSL], [GSS], [GSS, SSL], [SSL, GSS]])
def test_requests_are_answered_and_the_target_sees_the_startup_message_first(proxy, requests, isn):
    client = opened(proxy, isn=isn)
    for request in requests:
        asked(client, request)
    talk(client, bound(proxy, client))
    assert proxy.count("requests_answered") == len(requests) and proxy.count("answers_repeated") == 0
    proxy.wait(2.1)
    [record] = proxy.records()
    assert record["target"] == "a"


def test_a_third_request_is_refused(proxy):
    client = opened(proxy)
    asked(client, GSS)
    asked(client, SSL)
    client.send("PA", SSL)
    client.expect("RA", seq=3, ack=client.seq)
    assert proxy.states() == {}


def test_the_client_acknowledges_the_answer_before_it_goes_on(proxy):
    client = opened(proxy)
    asked(client, SSL)
    client.send("A")
    proxy.silent()
    assert proxy.state_of(client) == "first_data"
    talk(client, bound(proxy, client))


def test_a_lost_answer_is_sent_again_by_us(proxy):
    client = opened(proxy)
    asked(client, SSL)
    for number in range(3):
        proxy.silent()
        proxy.wait((SYN_RETRY << number) / 100 + 0.02)
        client.expect("PA", seq=1, ack=9, data=b"N")
    assert proxy.count("answers_repeated") == 3
    talk(client, bound(proxy, client))


def test_a_request_that_is_repeated_is_answered_by_the_same_number(proxy):
    client = opened(proxy)
    asked(client, SSL)
    for _ in range(2):
        client.send("PA", SSL, seq=1, ack=1)
        client.expect("PA", seq=1, ack=9, data=b"N")
    client.send("PA", SSL, seq=1)  # it has been heard, but not that its request has come
    client.expect("A", seq=2, ack=9)
    assert proxy.count("requests_answered") == 1 and proxy.count("answers_repeated") == 2
    proxy.wait(5)
    proxy.silent()
    talk(client, bound(proxy, client))


def test_between_answers_the_second_one_may_be_lost(proxy):
    client = opened(proxy)
    asked(client, GSS)
    asked(client, SSL)
    client.send("PA", SSL, seq=9, ack=2)
    client.expect("PA", seq=2, ack=17, data=b"N")
    proxy.wait(1.02)
    client.expect("PA", seq=2, ack=17, data=b"N")
    talk(client, bound(proxy, client))


@pytest.mark.parametrize("place", [1, 4, 7])
def test_a_request_in_two_segments(proxy, place):
    client = opened(proxy)
    client.send("PA", SSL[:place])
    client.expect("A", seq=1, ack=1 + place)
    client.send("PA", SSL[place:])
    client.expect("PA", seq=1, ack=9, data=b"N")
    talk(client, bound(proxy, client))


def test_a_request_and_its_end_in_the_wrong_order(proxy):
    client = opened(proxy)
    client.send("PA", SSL[5:], seq=6)
    client.expect("A", seq=1, ack=1)
    client.send("PA", SSL[:5], seq=1)
    client.seq = 9
    client.expect("A", seq=1, ack=6)
    client.expect("PA", seq=1, ack=9, data=b"N")
    talk(client, bound(proxy, client))


@pytest.mark.parametrize("requests", [[SSL], [GSS, SSL]])
def test_who_does_not_wait_for_the_answer_is_given_a_target_once_it_is_heard(proxy, requests):
    client = opened(proxy)
    client.send("PA", b"".join(requests) + startup())
    for number in range(len(requests)):
        client.expect("PA", seq=1 + number, ack=9 + 8 * number, data=b"N")
        proxy.silent()
        client.send("A")
    server = proxy.accept("a")
    assert server.other_isn == client.isn + 8 * len(requests)
    server.send("SA", mss=1460)
    server.expect("PA", seq=1, ack=1, data=startup())
    server.send("A")
    client.expect("A", seq=1 + len(requests), ack=client.seq)
    talk(client, server)


def test_more_that_comes_before_the_answer_is_heard_is_held(proxy):
    client = opened(proxy)
    asked(client, SSL)
    client.send("PA", startup()[:10], ack=1)
    client.send("PA", startup()[10:], ack=1)
    proxy.silent()
    client.send("A")
    server = proxy.accept("a")
    server.send("SA", mss=1460)
    server.expect("PA", seq=1, ack=1, data=startup())
    server.send("A")
    client.expect("A", seq=2, ack=client.seq)
    talk(client, server)


def test_an_acknowledgement_of_what_was_not_sent_is_challenged(proxy):
    client = opened(proxy)
    asked(client, SSL)
    client.send("PA", startup(), seq=9, ack=3)
    client.expect("PA", seq=1, ack=9, data=b"N")
    client.send("PA", startup(), seq=9, ack=0)
    client.expect("PA", seq=1, ack=9, data=b"N")
    assert proxy.count("challenge_acks") == 2
    talk(client, bound(proxy, client))


def stamps(value, echo):
    """Returns `options` with timestamps."""
    return {"options": [("NOP", None), ("NOP", None), ("Timestamp", (value, echo))]}


def stamp_of(segment):
    """Returns TSval and TSecr of a Segment."""
    return next(option[1] for option in segment.options if option[0] == "Timestamp")


def test_timestamps_are_those_of_one_clock(proxy):
    client = proxy.client(POSTGRESQL)
    client.send("S", **stamps(5000, 0))
    ours, echoed = stamp_of(client.expect("SA", seq=0, ack=1))
    assert echoed == 5000
    client.send("A", **stamps(5001, ours))
    proxy.wait(0.1)
    client.send("PA", SSL, **stamps(5010, ours))
    answered, echoed = stamp_of(client.expect("PA", seq=1, ack=9, data=b"N"))
    assert echoed == 5010 and ours < answered
    proxy.wait(1.02)
    repeated, echoed = stamp_of(client.expect("PA", seq=1, ack=9, data=b"N"))
    assert echoed == 5010 and answered < repeated
    client.send("PA", startup(), **stamps(5020, repeated))
    server = proxy.accept("a")
    assert stamp_of(server.syn)[0] == 5000
    server.send("SA", mss=1460, **stamps(77, 5000))
    assert stamp_of(server.expect("PA", seq=1, ack=1, data=startup())) == (5020, 77)
    proxy.wait(0.1)
    server.send("PA", b"R", **stamps(177, 5020))
    shown, echoed = stamp_of(client.expect("PA", seq=2, ack=client.seq, data=b"R"))
    assert repeated < shown and echoed == 5020
    client.send("A", **stamps(5030, shown))
    assert stamp_of(server.expect("A", seq=server.ack, ack=2)) == (5030, 177)


def test_a_target_that_refuses_is_replaced_and_the_numbers_are_right_with_the_next(proxy):
    client = opened(proxy, POSTGRESQL_OR_B)
    asked(client, GSS)
    asked(client, SSL)
    client.send("PA", startup())
    proxy.accept("a").send("RA", seq=0, ack=1)
    server = proxy.accept("b", isn=EDGE - 1)
    assert server.other_isn == client.isn + 16
    server.send("SA", mss=1460)
    server.expect("PA", seq=1, ack=1, data=startup())
    server.send("A")
    client.expect("A", seq=3, ack=client.seq)
    talk(client, server)


def test_a_target_that_resets_at_once_is_replaced_too(proxy):
    client = opened(proxy, POSTGRESQL_OR_B)
    asked(client, SSL)
    client.send("PA", startup())
    first = proxy.accept("a")
    first.send("SA", mss=1460, window=0)
    first.expect("A", seq=1, ack=1)
    first.send("RA", seq=1)
    server = proxy.accept("b")
    server.send("SA", mss=1460)
    server.expect("PA", seq=1, ack=1, data=startup())
    server.send("A")
    client.expect("A", seq=2, ack=client.seq)
    talk(client, server)


def test_with_a_proxy_header_taken_and_one_sent(proxy):
    client = opened(proxy, POSTGRESQL_PROXIED)
    true = {"address": "192.0.2.77", "port": 50077}
    header = binary_header(client, **true)
    client.send("PA", header)
    client.expect("A", seq=1, ack=client.seq)
    asked(client, SSL)
    client.send("PA", SSL, seq=client.seq - 8, ack=1)
    client.expect("PA", seq=1, ack=client.seq, data=b"N")
    talk(client, bound(proxy, client, before=header))


def test_payload_kernels_see_nothing_of_it(proxy):
    client = opened(proxy, POSTGRESQL_SHAPED)
    asked(client, SSL)
    client.send("PA", startup())
    client.expect("A", seq=2, ack=client.seq)  # what was changed in length is ours
    server = proxy.accept("a")
    swollen = startup().replace(b"a", b"bcd")
    server.send("SA", mss=1460)
    server.expect("PA", seq=1, ack=1, data=swollen)
    server.send("A")
    client.expect("A", seq=2, ack=client.seq)
    server.send("PA", b"a")
    client.expect("PA", seq=2, ack=client.seq, data=b"bcd")
    client.send("PA", b"a")
    server.expect("PA", seq=1 + len(swollen), ack=2, data=b"bcd")
    server.send("A")
    client.expect("A", seq=5, ack=client.seq)


@pytest.mark.parametrize("heard", [True, False])
def test_who_insists_on_encryption_closes(proxy, heard):
    client = opened(proxy)
    asked(client, SSL)
    client.send("FA", ack=2 if heard else 1)
    if heard:
        client.expect("FA", seq=2, ack=10)
    else:
        client.expect("FPA", seq=1, ack=10, data=b"N")
        proxy.wait(0.32)
        client.expect("FPA", seq=1, ack=10, data=b"N")
        client.send("A", ack=2)  # the FIN has not come
        proxy.wait(2.02)
        client.expect("FA", seq=2, ack=10)
    client.send("A")
    assert proxy.states() == {}


def test_who_insists_on_encryption_resets(proxy):
    client = opened(proxy)
    asked(client, SSL)
    client.send("R")
    proxy.silent()
    assert proxy.states() == {}


def test_a_request_with_a_fin_gets_no_target(proxy):
    client = opened(proxy)
    client.send("FPA", SSL)
    client.expect("PA", seq=1, ack=9, data=b"N")
    client.send("A")
    client.expect("RA", seq=2)
    assert proxy.states() == {}


def test_who_says_nothing_after_the_answer_gets_the_fall_back_with_all_numbers(proxy):
    client = opened(proxy, POSTGRESQL_OR_B)
    asked(client, SSL)
    client.send("A")
    proxy.wait(3.1)
    server = proxy.accept("b")
    assert server.other_isn == client.isn + 8
    server.send("SA", mss=1460)
    server.expect("A", seq=1, ack=1)
    talk(client, server)


@pytest.mark.parametrize("service", [POSTGRESQL, POSTGRESQL_OR_B])
def test_who_never_hears_the_answer_is_reset(proxy, service):
    client = opened(proxy, service)
    asked(client, SSL)
    proxy.wait(30.1 if service == POSTGRESQL else 3.1)
    while proxy.received[client.own, client.other][0].data:
        client.expect("PA", seq=1, ack=9, data=b"N")
    client.expect("RA", seq=2, ack=9)
    assert proxy.states() == {}


def test_an_unknown_database_is_refused_behind_the_answers(proxy):
    client = opened(proxy)
    asked(client, SSL)
    client.send("PA", startup(b"nowhere"))
    client.expect("RA", seq=2, ack=client.seq)
    assert proxy.states() == {} and proxy.count("refused_by_select") == 1


def test_a_connection_does_not_inherit_the_answers_of_the_one_before(proxy):
    for _ in range(4):
        client = opened(proxy)
        asked(client, GSS)
        asked(client, SSL)
        client.send("R")
    client = opened(proxy)
    asked(client, SSL)
    talk(client, bound(proxy, client))


def test_ends_at_once_when_the_worker_stops(proxy):
    client = opened(proxy)
    asked(client, SSL)
    proxy.stop()
    client.expect("RA", seq=2, ack=9)
