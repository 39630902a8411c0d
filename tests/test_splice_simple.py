"""Mode `simple` (ProxyEngine's): the target is chosen at the SYN, and but for addresses, ports and TTL nothing changes."""
import pytest
from scapy.layers.inet import TCP

from tcp.negotiated import SACK, STAMP, STAMPS, option, peek, scale, stamped
from tcp.proxy import SIMPLE, close


def simple(proxy, options=(), agreed=(), **fields):
    """Returns both ends of an established connection in mode `simple`."""
    client = proxy.client(SIMPLE)
    client.send("S", options=list(options), **fields)
    server = proxy.accept("a")
    server.send("SA", options=list(agreed))
    client.other_isn = None
    client.expect("SA", seq=0, ack=1)
    client.send("A")
    server.expect("A", seq=1, ack=1)
    return client, server


EVERYTHING = [("MSS", 1400), ("SAckOK", b""), ("Timestamp", (7, 0)), ("NOP", None), ("WScale", 3), (34, b"cookie12"), (30, b"\0\1")]


def test_mode_simple_chooses_at_the_syn_and_passes_all_options_end_to_end(proxy):
    client = proxy.client(SIMPLE)
    client.send("S", options=EVERYTHING, window=1234)
    syn = peek(proxy)
    assert syn.options[:len(EVERYTHING)] == read_again(EVERYTHING) and (syn.seq, syn.window) == (client.isn, 1234)
    server = proxy.accept("a")
    server.send("SA", options=EVERYTHING, window=4321)
    answer = client.expect("SA", seq=0, ack=1, window=4321)
    assert answer.options[:len(EVERYTHING)] == read_again(EVERYTHING) and answer.seq == server.isn


def read_again(options):
    """Returns options as scapy reads them back."""
    return TCP(bytes(TCP(options=options))).options[:len(options)]


def test_mode_simple_changes_neither_numbers_nor_windows_nor_options(proxy):
    client, server = simple(proxy, SACK + STAMPS + scale(7), SACK + [("Timestamp", (9, STAMP))] + scale(2))
    for sender, receiver in ((client, server), (server, client)):
        options = [*stamped(1234, 5678), ("SAck", (17, 99))]
        sender.send("PA", b"payload", window=777, options=options)
        came = receiver.expect("PA", seq=1, data=b"payload", window=777)
        assert came.seq == sender.isn + 1 and option(came, "Timestamp") == (1234, 5678) and option(came, "SAck") == (17, 99)


@pytest.mark.parametrize("first", [0, 1])
def test_mode_simple_closes_like_any_other(proxy, first):
    ends = simple(proxy)
    close(ends[first], ends[1 - first])
    assert proxy.states() == {"time_wait": 1}
    proxy.wait(2.1)
    assert proxy.states() == {}


def test_mode_simple_a_refusal_reaches_the_client(proxy):
    client = proxy.client(SIMPLE)
    client.send("S")
    proxy.accept("a").send("RA", seq=0, ack=1)
    client.expect("RA", ack=1)
    assert proxy.states() == {}
