"""PROXY headers sent and taken, in whole connections over networks that lose, double, delay and corrupt (SPLICE 6)."""
import os
import random

import pytest

from peers.payload_twins import TWINS
from tcp.proxied_services import (
    SENDS_BINARY,
    SENDS_FIRST,
    SENDS_SHAPED,
    SENDS_TEXT,
    TAKES,
    TAKES_AND_SENDS,
    TAKES_FIRST,
    TELLS,
    binary_header,
    services,
    text_header,
)
from test_tcp_losses import travel

WAYS = {SENDS_TEXT: (None, text_header), SENDS_BINARY: (None, binary_header), SENDS_FIRST: (None, binary_header),
        SENDS_SHAPED: (None, binary_header), TAKES: (text_header, None), TAKES_FIRST: (binary_header, text_header),
        TAKES_AND_SENDS: (text_header, binary_header), TELLS: (None, None)}
"""Service to what a client begins with, and what its target gets before the payload."""
TRUE = ("192.0.2.77", 50077)
SOAK = os.environ.get("PIPELINE_SOAK") == "1"
ROUNDS, ODDS = (10, (0, 0.1, 0.3)) if SOAK else (1, (0.2,))


@pytest.mark.parametrize("proxy", [{"services": services()}], indirect=True, ids=[""])
@pytest.mark.parametrize("odds", ODDS)
@pytest.mark.parametrize("service", WAYS)
def test_both_streams_arrive_behind_the_header_that_belongs_there(proxy, service, odds):
    takes, sends = WAYS[service]
    for number in range(ROUNDS):
        dice = random.Random(f"{service} {odds} {number}")
        to_send, to_answer = dice.randbytes(dice.choice((1, 300, 3000))), dice.randbytes(dice.choice((1, 2000)))
        client = proxy.client(service, isn=dice.choice((2**32 - 20, 10, dice.randrange(2**32))))
        header = takes(client, *TRUE) if takes else b""
        expected = sends(client, *(TRUE if takes else ())) if sends else b""
        ends = travel(proxy, client, header + to_send, to_answer, dice, odds)
        swell = TWINS["swell"] if service == SENDS_SHAPED else bytes
        assert ends[1].got == expected + swell(to_send) and ends[0].got == swell(to_answer)
        assert not ends[0].reset and not ends[1].reset
        proxy.wait(70, 1)
        proxy.received.clear()
        [record] = proxy.records()
        assert record["octets"] == {"client": len(header + to_send), "target": len(to_answer)}
        assert proxy.states() == {} and proxy.state.connections.held.free_count[0] == len(proxy.state.connections.held.free)
