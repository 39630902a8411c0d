"""One direction through a payload kernel, its segments cut, repeated and reordered in every way (SPLICE 5.1, 5.2).

Each byte that reaches the receiver beyond its acknowledgement has to be the one that the kernel makes of the whole stream
there, though what is repeated has other bytes at times (SPLICE 1.4); each acknowledgement that reaches the sender has to be
of bytes of which the receiver has all that was made of them.
"""
import random

import pytest

from peers.payload_twins import TWINS
from tcp.payload_services import port_of, services
from tcp.proxy import handshake, signed
from test_payload_losses import text

LENGTH, MOST = 2500, 300
KERNELS = ("everything", "swell", "delete_digits", "announce", "swallow")
SACK = [("SAckOK", b"")]


class Direction:
    """A sender with `data`, a receiver, and what each of them knows. Places are bytes from the first of either stream."""

    def __init__(self, proxy, sender, receiver, data, twin, dice):
        self.proxy, self.sender, self.receiver, self.data, self.dice = proxy, sender, receiver, data, dice
        self.made = twin(data)
        self.place = [len(twin(data[:at])) for at in range(len(data) + 1)]
        self.sent = self.highest = self.told = self.acknowledged = 0
        self.came, self.given = set(), set()

    def send(self, start, stop, in_order=True, twisted=False):
        """Sends bytes start .. stop - 1 of the stream and looks at all that comes of it; `twisted`: others, as far as the proxy
        has seen the right ones before."""
        self.highest = max(self.highest, stop)
        self.given.update(range(start, stop))
        seen = min(self.sent, stop) if twisted else start
        self.sender.send("PA", self.dice.randbytes(max(seen - start, 0)) + self.data[max(seen, start):stop], seq=1 + start)
        self.sent = max(self.sent, stop) if in_order else self.sent
        self.look()

    def look(self):
        """Looks at what has come to both ends."""
        waiting = self.proxy.received[self.receiver.own, self.receiver.other]
        while waiting:
            segment = waiting.popleft()
            assert segment.intact and len(segment.data) <= 1460
            start = signed(segment.seq - self.receiver.other_isn) - 1
            for at, octet in enumerate(segment.data, start):
                if at >= self.acknowledged:
                    assert octet == self.made[at], f"byte {at} of what the kernel makes"
                    self.came.add(at)
        waiting = self.proxy.received[self.sender.own, self.sender.other]
        while waiting:
            self.told_of(waiting.popleft())

    def told_of(self, segment):
        """Looks at an acknowledgement that has reached the sender."""
        acknowledged = signed(segment.ack - self.sender.isn) - 1
        assert acknowledged <= self.highest
        if acknowledged > 0:
            assert self.place[acknowledged] <= self.acknowledged, "acknowledged before the receiver has it"
        self.told = max(self.told, acknowledged)
        edges = [signed(edge - self.sender.isn) - 1 for edge in dict(segment.options).get("SAck", ())]
        for left, right in zip(edges[::2], edges[1::2], strict=True):
            assert left < right <= self.highest
            for at in range(left, right):
                assert self.waits(at) or self.has_come(at), "a block that has not come"

    def waits(self, at):
        """Says whether a byte may wait in the proxy for what it follows."""
        return at in self.given and any(before not in self.given for before in range(at))

    def has_come(self, at):
        """Says whether all that was made of a byte has come to the receiver."""
        return all(made in self.came for made in range(self.place[at], self.place[at + 1]))

    def acknowledge(self):
        """The receiver acknowledges what it has without a gap, at times less; and selectively what lies behind a gap."""
        while self.acknowledged in self.came:
            self.acknowledged += 1
        beyond = sorted(at for at in self.came if at > self.acknowledged)
        runs = [at for at in beyond if at - 1 not in self.came]
        edges = []
        for start in self.dice.sample(runs, min(len(runs), 3)):
            stop = start
            while stop in self.came:
                stop += 1
            edges += [self.receiver.other_isn + 1 + start, self.receiver.other_isn + 1 + stop]
        options = [("SAck", tuple(edge % 2**32 for edge in edges))] if edges else []
        self.receiver.send("A", seq=self.receiver.seq, ack=1 + self.acknowledged, options=options)
        self.look()


def step(flow, dice):
    """One random act of the sender or the receiver."""
    act = dice.random()
    if act < 0.4 and flow.sent < len(flow.data):
        flow.send(flow.sent, min(flow.sent + dice.randrange(1, MOST), len(flow.data)))
    elif act < 0.5:
        start = min(flow.sent + dice.randrange(0, 200), len(flow.data) - 1)
        stop = min(start + dice.randrange(1, MOST), len(flow.data))
        flow.send(start, stop, False)
    elif act < 0.75 and flow.sent > 0:
        start = dice.randrange(max(min(flow.told - 50, flow.sent - 1), 0), flow.sent)
        flow.send(start, min(start + dice.randrange(1, MOST), flow.sent), twisted=dice.random() < 0.5)
    else:
        flow.acknowledge()


@pytest.mark.parametrize("proxy", [{"services": services(), "waiting_per_connection": 8}], indirect=True, ids=[""])
@pytest.mark.parametrize("upward", [True, False], ids=["to_target", "to_client"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_rule_5_1_any_cut_gives_what_the_kernel_makes_of_the_whole(proxy, kernel, upward):
    for seed in range(4):
        dice = random.Random(f"{kernel} {upward} {seed}")
        client = proxy.client(port_of((kernel, kernel) if (kernel, kernel) != ("swell", "swell") else
                                      ("swell", None) if upward else (None, "swell"), True), isn=dice.choice((5, 2**32 - 700)))
        handshake(client, options=SACK)
        server = proxy.accept("a", isn=dice.choice((9, 2**32 - 900)))
        server.send("SA", mss=1460, options=SACK)
        server.expect("A")
        ends = (client, server) if upward else (server, client)
        flow = Direction(proxy, *ends, text(dice, LENGTH), TWINS[kernel], dice)
        for _ in range(150):
            step(flow, dice)
        for _ in range(400):
            if flow.told == len(flow.data):
                break
            flow.send(flow.told, min(flow.told + MOST, len(flow.data)))
            flow.acknowledge()
        assert flow.told == len(flow.data) and flow.acknowledged == len(flow.made)
        proxy.wait(1.2, 0.1)
        last = 1 + (len(flow.data) if upward else 0)
        client.send("R", seq=last)
        proxy.run()
        proxy.received.clear()
        shaped = proxy.state.connections.shaped
        assert proxy.states() == {} and shaped.edits.used[0] == shaped.copies.used[0] == 0
    assert proxy.count("repeated_otherwise") > 0 or kernel == "swallow"
