"""Clients that negotiate with PostgreSQL as nobody should: any part of their stream at any time, beside any acknowledgement.

Whatever they do: each answer is `N`, in its own number, and the next one not before the last was acknowledged; no target is asked for
before all of them are; what it gets is the stream behind the requests; what it says comes to the client behind the answers.
"""
import os
import random

import pytest

from tcp.proxied_services import POSTGRESQL, POSTGRESQL_OR_B, services
from tcp.proxy import End, handshake, signed
from test_tcp_postgresql import GSS, SSL, startup

SOAK = os.environ.get("PIPELINE_SOAK") == "1"
EPISODES, STEPS = (3000 if SOAK else 40), 40
SEED = int(os.environ.get("PIPELINE_SEED") or (random.SystemRandom().randrange(1 << 31) if SOAK else 5432))
SPOKEN = b"what the target says, in several parts" * 3


class Episode:
    """One client, what it has sent and heard, and the targets that were asked for it."""

    def __init__(self, proxy, dice):
        self.proxy, self.dice = proxy, dice
        self.requests = dice.choice(([], [SSL], [GSS], [SSL, GSS], [GSS, SSL], [SSL, SSL]))
        database = dice.choice((b"shop", b"shop", b"other", b"nowhere"))
        self.stream = b"".join(self.requests) + startup(database) + dice.randbytes(dice.choice((0, 5, 700)))
        self.taken = len(b"".join(self.requests))
        self.client = proxy.client(dice.choice((POSTGRESQL, POSTGRESQL_OR_B)), isn=dice.choice((2**32 - 9, 2**32 - 30, dice.randrange(2**32))))
        handshake(self.client)
        self.sent, self.parts, self.answered, self.heard, self.target, self.spoken, self.closed = 0, [], 0, 0, None, 0, False

    def client_sends(self):
        """A part of the stream, often the next one, with an acknowledgement that may be wrong."""
        dice, whole = self.dice, len(self.stream)
        first = dice.choice((self.sent, self.sent, self.sent, max(self.sent - 8, 0), dice.randrange(whole + 1), 0))
        last = min(first + dice.choice((0, 1, 8, 8, 8, 16, whole, whole)), whole)
        number = dice.choice((self.heard, self.answered, self.answered, self.answered, self.answered + 1, -1, self.answered - 1))
        closes = dice.random() < 0.03 and last == whole
        if number <= self.answered and self.target is None:
            self.heard = max(self.heard, number)
        self.parts = sorted([*self.parts, (first, last)])
        for start, stop in self.parts:    # the engine keeps what comes before its turn
            self.sent = max(self.sent, stop if start <= self.sent else 0)
        if self.target is not None:
            number += self.spoken
        self.client.send("FPA" if closes else "PA" if last > first else "A", self.stream[first:last], seq=1 + first, ack=1 + number)

    def target_acts(self):
        """The target answers our SYN, refuses, acknowledges, or says something."""
        if self.target is None or self.closed:
            return
        kind = self.dice.choice(("SA", "SA", "RA", "", "A", "A")) if self.target.seq == 0 else self.dice.choice(("A", "PA", "FA", "A"))
        if kind == "SA":
            self.target.send("SA", mss=1460)
        elif kind == "RA" and self.target.seq == 0:
            self.target.send("RA", seq=0, ack=1)
            self.target = None
        elif kind == "PA":
            part = SPOKEN[self.spoken:self.spoken + self.dice.randrange(1, 20)]
            self.target.send("PA", part)
            self.spoken += len(part)
        elif kind and self.target.seq > 0:
            self.closed |= kind == "FA"
            self.target.send(kind)

    def check(self):
        """Looks at all that has been sent since."""
        for segments in self.proxy.received.values():
            for segment in segments:
                assert segment.intact
                if segment.port == 0:
                    self.to_client(segment)
                else:
                    self.to_target(segment)
        self.proxy.received.clear()

    def to_client(self, segment):
        """Answers, one after the other, and what the target says behind them."""
        position = signed(segment.seq - self.client.other_isn) - 1
        count = len(self.requests) if self.target is None else self.answered    # the fall-back need not wait for all requests
        assert signed(segment.ack - self.client.isn) <= self.sent + 2 or "R" in segment.flags
        if segment.data and position < count:
            assert segment.data == b"N" and position <= self.heard and "P" in segment.flags
            self.answered = max(self.answered, position + 1)
        elif segment.data:
            assert self.target is not None and self.heard == count and segment.data == SPOKEN[position - count:position - count + len(segment.data)]

    def to_target(self, segment):
        """A SYN in the number behind the requests, once all answers were heard, and the stream from there on."""
        if segment.flags == "R":
            return
        assert self.heard == self.answered == len(self.requests) or self.client.other[1] == POSTGRESQL_OR_B
        if "S" in segment.flags:
            if self.target is None or self.target.own != segment.destination:
                self.target = End(self.proxy, 1, segment.destination, segment.source, self.dice.randrange(2**32), segment.seq)
            self.target.ack = 1
            assert self.heard == self.answered and signed(segment.seq - self.client.isn) == 8 * self.answered
            return
        if self.target is None or (segment.destination, segment.source) != (self.target.own, self.target.other):
            return
        position = signed(segment.seq - self.target.other_isn) - 1
        data = segment.data[max(-position, 0):]    # what a client repeats of before its numbers began, is old to any target
        position = max(position, 0)
        assert data == self.stream[8 * self.answered:][position:position + len(data)], (position, data)
        if data and position + 1 == self.target.ack:
            self.target.ack += len(data)


@pytest.mark.parametrize("proxy", [{"services": services()}], indirect=True, ids=[""])
def test_whatever_a_client_does_the_numbers_stay_right(proxy):
    found = {"answered": 0, "bound": 0, "spoken": 0}
    for number in range(EPISODES):
        dice = random.Random(f"{SEED} {number}")
        try:
            episode = Episode(proxy, dice)
            for _ in range(STEPS):
                dice.choice((episode.client_sends, episode.client_sends, episode.target_acts,
                             lambda dice=dice: proxy.wait(dice.choice((0.01, 0.01, 0.3, 1.1)), 0.05)))()
                episode.check()
            episode.client.send("R", seq=1 + episode.sent)
            found["answered"] += episode.answered
            found["bound"] += episode.target is not None
            found["spoken"] += episode.spoken > 0
            proxy.wait(700, 5)
            proxy.received.clear()
            assert proxy.states() == {}
            proxy.conserved()
        except AssertionError as error:
            raise AssertionError(f"PIPELINE_SEED={SEED}, episode {number}: {error}") from error
    assert min(found.values()) > EPISODES // 12, found
