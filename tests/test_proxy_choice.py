"""ProxyEngine's own tests, with kernel clients and servers: who is chosen, and whether everybody tells the same story.

One engine for each layout goes through all the conversations and is then stopped; the tests look at what clients,
servers, counters and records have to say about it.
"""
import collections
from dataclasses import dataclass, field

import pytest

from peers import laboratory as lab
from peers.clients import exchange_all
from peers.requirements import needs_bed, needs_nginx
from peers.servers import Servers, answer, answer_late

pytestmark = [needs_bed, needs_nginx]
NUMBERED, EARLY_FINS, MISSING, SILENT, REFUSED, SHUT = 1000, 100, 40, 40, 20, 20


@dataclass
class Story:
    """What clients (`exchanges` by service), servers, counters and records say about the same conversations."""

    layout: lab.Layout
    exchanges: dict = field(default_factory=dict)
    served: list = field(default_factory=list)
    summary: dict = None
    records: list = None

    def records_of(self, service):
        """The records of a service by the client's port."""
        return {client_port(record): record for record in self.records if record["service"] == service}


def client_port(record):
    """The port of the client, which ends its address in a record."""
    return int(record["client"].rpartition(":")[2])


@pytest.fixture(scope="module", params=lab.LAYOUTS, ids=str)
def story(request):
    """The Story of one engine, from its start to its end."""
    told = Story(request.param)
    with lab.open_laboratory(request.param) as laboratory, Servers(laboratory.bed) as servers:
        for server in lab.SERVERS:
            servers.listen(server, lab.ANSWERS, answer)
            servers.listen(server, lab.LATE, answer_late)
        servers.listen_silently("s0", lab.SILENT)

        def talk(service, port, requests, **options):
            told.exchanges[service] = exchange_all(laboratory.bed, "client", (lab.SERVICE, port), requests, **options)

        talk("answers", lab.ANSWERS, [f"{number} is my number\n".encode() for number in range(NUMBERED)],
             close_when=even_is_answered)
        talk("late", lab.LATE, [f"{number} and a FIN".encode() for number in range(EARLY_FINS)], half_close=True)
        talk("missing", lab.MISSING, [f"{number}\n".encode() for number in range(MISSING)])
        talk("silent", lab.SILENT, [f"{number}\n".encode() for number in range(SILENT)])
        talk("web", lab.WEB, [b"GET /nobody HTTP/1.1\r\nHost: x\r\n\r\n"] * REFUSED)
        talk("shut", lab.SHUT, [b"hello?\n"] * SHUT)
        laboratory.counters_at_rest()
        told.summary = laboratory.engine.stop()
        told.records = laboratory.engine.records()
        told.served = list(servers.served)
    return told


def even_is_answered(request, received):
    """Even numbers: the client closes when it has its answer; odd ones: the server closes, so the client waits."""
    return int(request.split(b" ")[0]) % 2 == 0 and received.endswith(b"\n")


def named(exchange):
    """The server that a payload's number names: the number modulo the number of targets."""
    return lab.SERVERS[int(exchange.request.split(b" ")[0]) % len(lab.SERVERS)]


def test_each_connection_is_answered_by_the_server_its_payload_names(story):
    exchanges = story.exchanges["answers"]
    assert len(exchanges) == NUMBERED
    for exchange in exchanges:
        assert exchange.received == named(exchange).encode() + b" " + exchange.request, exchange
        assert exchange.ended == "closed"


def test_servers_received_each_request_once_and_unchanged(story):
    received = collections.Counter((served.host, served.received) for served in story.served
                                   if b"is my number" in served.received)
    assert received == {(named(exchange), exchange.request): 1 for exchange in story.exchanges["answers"]}
    assert all(served.ended == "closed" for served in story.served), "no server has seen a reset"


def test_records_tell_of_each_connection_what_its_client_saw(story):
    records = story.records_of("answers")
    assert len(records) == len([record for record in story.records if record["service"] == "answers"]) == NUMBERED
    for exchange in story.exchanges["answers"]:
        record = records[exchange.local_port]
        assert record["target"] == f"{named(exchange)}-{lab.ANSWERS}", record
        server_closed_first = int(exchange.request.split(b" ")[0]) % 2 == 1
        expected = ("ActiveClose", "PassiveClose") if server_closed_first else ("PassiveClose", "ActiveClose")
        assert causes_of(record) == expected, (exchange, record)
        assert octets_of(record) == (len(exchange.request), len(exchange.received)), (exchange, record)


def causes_of(record):
    """The release causes of the client's side and of the target's."""
    return record["release"]["client"], record["release"]["target"]


def octets_of(record):
    """How many octets of payload the client and the target have sent."""
    return record["octets"]["client"], record["octets"]["target"]


def test_a_client_that_closes_before_the_server_answers_still_gets_its_answer(story):
    exchanges = story.exchanges["late"]
    assert len(exchanges) == EARLY_FINS
    for exchange in exchanges:
        assert exchange.received == named(exchange).encode() + b" " + exchange.request, exchange
        assert exchange.ended == "closed"
    assert {causes_of(record) for record in story.records_of("late").values()} == {("PassiveClose", "ActiveClose")}


@pytest.mark.parametrize("service, count", [("missing", MISSING), ("silent", SILENT)])
def test_a_target_that_never_answers_ends_in_a_time_out_and_a_reset(story, service, count):
    exchanges = story.exchanges[service]
    assert [exchange.ended for exchange in exchanges] == ["ECONNRESET"] * count
    records = story.records_of(service)
    assert set(records) == {exchange.local_port for exchange in exchanges}
    assert {causes_of(record) for record in records.values()} == {("Timeout", "Timeout")}


def test_a_payload_without_a_target_is_refused_with_a_reset(story):
    exchanges = story.exchanges["web"]
    assert [(exchange.ended, exchange.received) for exchange in exchanges] == [("ECONNRESET", b"")] * REFUSED
    records = story.records_of("web")
    assert set(records) == {exchange.local_port for exchange in exchanges}
    assert {record["target"] for record in records.values()} == {None}
    assert {causes_of(record)[0] for record in records.values()} == {"Refused"}


def test_a_target_that_refuses_ends_in_a_reset(story):
    assert [exchange.ended for exchange in story.exchanges["shut"]] == ["ECONNRESET"] * SHUT
    assert {causes_of(record) for record in story.records_of("shut").values()} == {("ActiveRst", "TargetRefused")}


def test_counters_and_records_agree(story):
    total = sum(len(exchanges) for exchanges in story.exchanges.values())
    assert len(story.records) == total
    worker, = story.summary["workers"]
    assert (worker["connections"]["opened"], worker["connections"]["closed"]) == (total, total)
    assert worker["connections"]["open"] == 0
    assert story.summary["summary"]["records"]["written"] == total
    for side, position in (("client", 0), ("target", 1)):
        recorded = collections.Counter(causes_of(record)[position] for record in story.records)
        counted = {cause: count for cause, count in worker["release_causes"][side].items() if count}
        assert counted == recorded, side
    by_target = collections.Counter(record["target"] for record in story.records if record["target"])
    counted = {target["id"]: target["connections"] for target in story.summary["targets"] if target["connections"]}
    assert counted == by_target
    by_service = collections.Counter(record["service"] for record in story.records)
    assert {service["name"]: service["connections"] for service in story.summary["services"]
            if service["connections"]} == by_service


def test_counters_of_segments_agree_with_what_clients_did(story):
    worker, = story.summary["workers"]
    client, target = worker["sides"]["client"], worker["sides"]["target"]
    total = sum(len(exchanges) for exchanges in story.exchanges.values())
    answered = NUMBERED + EARLY_FINS
    assert client["received_syn"] == total
    assert client["sent_syn_ack"] >= total
    assert target["received_syn_ack"] == answered
    assert target["sent_syn"] >= total - REFUSED - MISSING
    resets = sum(exchange.ended == "ECONNRESET" for exchanges in story.exchanges.values() for exchange in exchanges)
    assert resets == MISSING + SILENT + REFUSED + SHUT
    # On a busy host a FIN is repeated, and a server whose socket is gone by then resets what answers it: that passes.
    assert resets <= client["sent_rst"] <= resets + target["received_rst"]
    assert client["received_rst"] == 0
    for side in (client, target):
        assert side["received_fin_active"] + side["received_fin_passive"] == answered
