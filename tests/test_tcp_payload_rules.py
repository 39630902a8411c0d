"""Payload rules of the configuration segment by segment: what they change, refuse and drop (SPLICE 5.1)."""
import pytest

from ldap_messages import bind, message, search
from pipeline import snapshot
from tcp.payload_services import rules_port, services
from tcp.proxy import handshake, settings

pytestmark = settings(services=services())


def bound(proxy, name, first):
    """Returns both Ends of a connection whose `first` payload the target has got as `made`, acknowledged; then that too."""
    client = proxy.client(rules_port(name), isn=1000)
    handshake(client)
    client.send("PA", first)
    if proxy.received[client.own, client.other]:
        client.expect("A", seq=1, ack=1 + len(first))
    server = proxy.accept("a", 700_000)
    server.send("SA", mss=1460)
    segment = proxy.received[server.own, server.other].popleft()
    server.ack = 1 + len(segment.data)
    client.seq += 0
    server.send("A", seq=1, ack=server.ack)
    proxy.received[client.own, client.other].clear()
    return client, server, segment.data


def hits(proxy, name):
    """Returns what the rules of a service have counted, in their order."""
    shown = {each["name"]: each for each in snapshot.of_services(proxy.configuration, [proxy.state])}
    return [rule["hits"] for rule in shown[f"rules-{name}"]["payload_rules"]]


def data_to(proxy, end):
    """Takes all that has come to an end; returns its payload in order of numbers, and the flags of the last segment."""
    waiting = proxy.received[end.own, end.other]
    segments = sorted(waiting, key=lambda segment: segment.seq)
    waiting.clear()
    return b"".join(segment.data for segment in segments), segments[-1].flags if segments else ""


def test_a_match_across_segments_is_replaced_in_both_directions(proxy):
    client, server, made = bound(proxy, "replace", b"a secret, ")
    assert made == b"a ***, "
    client.send("A", b"one sec", seq=11)
    client.send("PA", b"ret more", seq=18)
    assert data_to(proxy, server)[0] == b"one *** more"
    server.send("A", b"xa", seq=1)
    server.send("PA", b"b a", seq=3)
    assert data_to(proxy, client)[0] == b"xlengthened a"
    client.send("PA", b"one secret more", seq=11)
    assert data_to(proxy, server)[0] == b"one *** more", "a repetition, cut otherwise"
    assert hits(proxy, "replace") == [2, 1]


def test_a_pattern_in_the_first_payload_is_refused_before_any_target_hears_of_it(proxy):
    client = proxy.client(rules_port("refuse"), isn=1000)
    handshake(client)
    client.send("PA", b"GET /etc/passwd HTTP/1.0")
    assert "R" in data_to(proxy, client)[1]
    proxy.silent()
    assert proxy.count("payload_refused") == 1 and proxy.states() == {} and hits(proxy, "refuse") == [1, 0]
    [record] = proxy.records()
    assert record["release"]["client"] == "Refused" and record["target"] is None


@pytest.mark.parametrize("upward", [True, False], ids=["to_target", "to_client"])
def test_a_pattern_across_segments_ends_the_connection_on_both_sides(proxy, upward):
    client, server, _ = bound(proxy, "refuse", b"GET ")
    sender, receiver, words = (client, server, (b"/etc/pa", b"sswd")) if upward else (server, client, (b"a vir", b"us"))
    start = 5 if upward else 1
    sender.send("PA", words[0], seq=start)
    assert data_to(proxy, receiver)[0] == words[0]
    sender.send("PA", words[1], seq=start + len(words[0]))
    passed = [data_to(proxy, end) for end in (client, server)]
    assert [data for data, _ in passed] == [b"", b""] and all("R" in flags for _, flags in passed)
    assert proxy.states() == {} and proxy.count("payload_refused") == 1
    [record] = proxy.records()
    assert record["release"] == {"client": "Refused", "target": "Refused"}


def test_what_is_too_fast_is_dropped_and_passes_once_it_is_repeated_later(proxy):
    client, server, made = bound(proxy, "limit", b"a" * 20)
    assert made == b"xyz" * 20
    client.send("PA", b"a b", seq=21)
    client.send("PA", b"c d", seq=24)
    client.send("FA", seq=27)
    assert data_to(proxy, server)[0] == b"" and proxy.count("payload_shown_again") == 3 and hits(proxy, "limit")[0] == 1
    proxy.wait(1)
    proxy.received.clear()
    client.send("PA", b"c d", seq=24)
    client.send("FA", seq=27)
    assert data_to(proxy, server) == (b"", ""), "what follows has no number yet"
    client.send("PA", b"a b", seq=21)
    client.send("PA", b"c d", seq=24)
    client.send("FA", seq=27)
    segments = list(proxy.received[server.own, server.other])
    assert data_to(proxy, server) == (b"xyz bc d", "FA")
    assert [(segment.seq - server.other_isn) % 2**32 for segment in segments] == [61, 66, 69]


def test_rules_of_a_direction_are_asked_in_turn_and_count_in_the_snapshot(proxy):
    client, server, made = bound(proxy, "header", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert made == b"GET / HTTP/1.1\r\nX-Via: proxy\r\nHost: a\r\n\r\n"
    server.send("A", b"HTTP/1.1 20", seq=1)
    server.send("PA", b"0 OK", seq=12)
    assert data_to(proxy, client)[0] == b"HTTP/1.1 200 OK" and hits(proxy, "header") == [1, 1, 1]


def test_ldap_bases_are_rewritten_in_the_splice_and_anonymous_clients_refused(proxy):
    honest = message(1, bind(b"cn=me,dc=a,dc=org", b"secret"))
    client, server, made = bound(proxy, "ldap", honest)
    assert made == honest
    asked = message(2, search(b"ou=x,dc=a,dc=org"))
    client.send("PA", asked[:15], seq=1 + len(honest))
    assert data_to(proxy, server)[0] == b""
    client.send("PA", asked[15:], seq=1 + len(honest) + 15)
    assert b"ou=x,ou=people,dc=example,dc=com" in data_to(proxy, server)[0]
    client.send("PA", message(3, bind(b"", b"")), seq=1 + len(honest) + len(asked))
    assert "R" in data_to(proxy, client)[1] and "R" in data_to(proxy, server)[1]
