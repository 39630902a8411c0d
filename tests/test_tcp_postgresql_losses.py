"""PostgreSQL's requests and our answers in whole connections over networks that lose, double, delay and corrupt (SPLICE 1.2)."""
import os
import random

import pytest

from peers.payload_twins import TWINS
from tcp.proxied_services import POSTGRESQL, POSTGRESQL_PROXIED, POSTGRESQL_SHAPED, binary_header, services
from tcp.stack import Stack
from test_tcp_losses import travel
from test_tcp_postgresql import GSS, SSL, startup

REQUESTS = ([SSL], [GSS, SSL])
SOAK = os.environ.get("PIPELINE_SOAK") == "1"
ROUNDS, ODDS = (12, (0, 0.1, 0.3)) if SOAK else (1, (0.2,))


class Asking(Stack):
    """A client that waits for the answer to each of its requests, of 8 octets."""

    first, requests = 0, 0
    """Octets before the requests, and how many there are of them."""

    @property
    def allowed(self):
        heard = len(self.got)
        return 1 + self.first + 8 * (heard + 1) if heard < self.requests else super().allowed


@pytest.mark.parametrize("proxy", [{"services": services()}], indirect=True, ids=[""])
@pytest.mark.parametrize("odds", ODDS)
@pytest.mark.parametrize("waits", [True, False])
@pytest.mark.parametrize("service", [POSTGRESQL, POSTGRESQL_PROXIED, POSTGRESQL_SHAPED])
def test_both_streams_arrive_without_the_requests(proxy, service, waits, odds):
    for number in range(ROUNDS):
        dice = random.Random(f"{service} {waits} {odds} {number}")
        to_send, to_answer = startup() + dice.randbytes(dice.choice((0, 300, 3000))), dice.randbytes(dice.choice((1, 2000)))
        client, requests = proxy.client(service, isn=dice.choice((2**32 - 20, 10, dice.randrange(2**32)))), dice.choice(REQUESTS)
        before = binary_header(client, "192.0.2.77", 50077) if service == POSTGRESQL_PROXIED else b""
        opener = type("Asking", (Asking,), {"first": len(before), "requests": len(requests)}) if waits else Stack
        whole = before + b"".join(requests) + to_send
        ends = travel(proxy, client, whole, to_answer, dice, odds, opener)
        swell = TWINS["swell"] if service == POSTGRESQL_SHAPED else bytes
        assert ends[0].got == b"N" * len(requests) + swell(to_answer) and ends[1].got == before + swell(to_send)
        assert ends[0].done and ends[1].done and not ends[0].reset and not ends[1].reset
        proxy.wait(70, 1)
        proxy.received.clear()
        [record] = proxy.records()
        assert record["octets"] == {"client": len(whole), "target": len(to_answer)} and record["target"] == "a"
        assert proxy.states() == {} and proxy.state.connections.held.free_count[0] == len(proxy.state.connections.held.free)
