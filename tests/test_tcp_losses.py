"""Whole connections over a network that loses, doubles, delays and corrupts; dialogues cut into bursts in every way."""
import itertools
import random

import pytest

from tcp.proxy import NUMBER, End, handshake, one_worker
from tcp.stack import Stack

LENGTHS = ((1, 1), (40, 3000), (3000, 40), (5000, 5000), (900, 0), (1500, 1500))


class Journey:
    """A network between the two stacks and the proxy; `odds` (0 to 1) of every mishap."""

    def __init__(self, proxy, dice, odds):
        self.proxy, self.dice, self.odds, self.late = proxy, dice, odds, []

    def deliver(self, frames, port):
        """Hands frames to the proxy, one burst, after what happens to them on the way; ends in no order of sides."""
        out = []
        for frame in frames:
            fate = self.dice.random() / self.odds if self.odds else 9
            if fate < 0.5:
                continue
            if fate < 0.7:
                self.late.append((self.proxy.now + self.dice.randrange(1, 400_000), frame, port))
                continue
            if fate < 0.8:
                frame = frame[:-1] + bytes([frame[-1] ^ 1]) if len(frame) > 54 else frame
            out += [frame] * (2 if fate < 1 else 1)
        due = [entry for entry in self.late if entry[0] <= self.proxy.now and entry[2] == port]
        self.late = [entry for entry in self.late if entry not in due]
        self.proxy.burst(*out, *(frame for _, frame, _ in due), port=port)

    def lost(self):
        """Says whether a segment that the proxy has sent is lost."""
        return self.dice.random() < self.odds / 2


def travel(proxy, client, to_send, to_answer, dice, odds, opener=Stack):
    """Lets a client, an `opener`, and its target talk until both have closed; returns both Stacks."""
    journey = Journey(proxy, dice, odds)
    ends = [opener(client, to_send, True), None]
    for _ in range(6000):
        for port, stack in enumerate(ends):
            if stack is not None:
                journey.deliver(stack.frames(proxy.now), port)
        came = list(itertools.chain.from_iterable(proxy.received.values()))
        proxy.received.clear()
        for segment in came:
            if segment.port == 1 and ends[1] is None and segment.flags == "S":
                target = End(proxy, 1, segment.destination, segment.source, dice.randrange(2**32))
                ends[1] = Stack(target, to_answer, False)
            if ends[segment.port] is not None and segment.intact and not journey.lost():
                ends[segment.port].take(segment)
        if ends[1] is not None and ends[0].done and ends[1].done:
            break
        proxy.now += 10_000
        proxy.run()
    return ends


@pytest.mark.parametrize("odds", [0, 0.1, 0.3])
@pytest.mark.parametrize("seed", range(len(LENGTHS)))
def test_both_streams_arrive_whole(proxy, seed, odds):
    dice = random.Random(seed)
    lengths = LENGTHS[seed]
    to_send, to_answer = b"0" + dice.randbytes(lengths[0] - 1), dice.randbytes(lengths[1])
    client = proxy.client(NUMBER, isn=dice.choice((2**32 - 500, dice.randrange(2**32))))
    ends = travel(proxy, client, to_send, to_answer, dice, odds)
    assert ends[1].got == to_send and ends[0].got == to_answer
    assert ends[0].done and ends[1].done and not ends[0].reset and not ends[1].reset
    proxy.wait(70, 1)
    proxy.received.clear()
    [record] = proxy.records()
    assert record["octets"] == {"client": len(to_send), "target": len(to_answer)}
    assert proxy.states() == {}


def partitions(length):
    """Yields every way to cut `length` things into groups, as lists of slices."""
    for cuts in itertools.product((False, True), repeat=length - 1):
        edges = [0, *(place for place, cut in enumerate(cuts, 1) if cut), length]
        yield [slice(start, stop) for start, stop in itertools.pairwise(edges)]


DIALOGUES = {
    "client_closes": [("c", "PA", b", world", 8, 1), ("s", "SA", b"", 0, 1), ("s", "PA", b"answer", 1, 15),
                      ("c", "A", b"", 15, 7), ("c", "FA", b"", 15, 7), ("s", "FA", b"", 7, 16), ("c", "A", b"", 16, 8)],
    "target_closes": [("s", "SA", b"", 0, 1), ("s", "FPA", b"answer", 1, 8), ("c", "A", b"", 8, 8),
                      ("c", "PA", b"!", 8, 8), ("s", "A", b"", 8, 9), ("c", "FA", b"", 9, 8), ("s", "A", b"", 8, 10)],
    "fin_before_the_answer": [("c", "FA", b"", 8, 1), ("s", "SA", b"", 0, 1), ("s", "A", b"", 1, 9),
                              ("s", "PA", b"answer", 1, 9), ("c", "A", b"", 9, 7), ("s", "FA", b"", 7, 9),
                              ("c", "A", b"", 9, 8)],
}


@pytest.mark.parametrize("name", DIALOGUES)
@one_worker
def test_a_dialogue_ends_alike_however_it_is_cut_into_bursts(proxy, name):
    ended = set()
    for cut in partitions(len(DIALOGUES[name])):
        client = proxy.client(NUMBER)
        handshake(client)
        client.send("PA", b"0 hello")
        server = proxy.accept("a")
        server.port = 0
        ends = {"c": client, "s": server}
        frames = [ends[who].segment(flags, data, seq, ack, mss=1460 if "S" in flags else None)
                  for who, flags, data, seq, ack in DIALOGUES[name]]
        for part in cut:
            proxy.burst(*frames[part])
        streams = [stream(proxy, end) for end in (server, client)]
        assert proxy.state_of(client) == "time_wait", cut
        proxy.wait(2.1, 0.5)
        [record] = proxy.records()
        ended.add((*streams, str(record["release"]), str(record["octets"])))
    assert len(ended) == 1, ended


def stream(proxy, end):
    """Returns the payload that has come to an end, put in order by its numbers; and takes it."""
    came = {}
    for segment in proxy.received.pop((end.own, end.other)):
        came.update(((segment.seq + place) % 2**32, octet) for place, octet in enumerate(segment.data))
    return bytes(came[number] for number in sorted(came))


def test_many_journeys_at_once(proxy):
    dice = random.Random(7)
    for number in range(10):
        client = proxy.client(NUMBER)
        ends = travel(proxy, client, b"%d" % (3 * number) + dice.randbytes(700), b"answer %d" % number, dice, 0.15)
        assert ends[1].got[:1].isdigit() and ends[0].got == b"answer %d" % number
    proxy.wait(70, 1)
    proxy.received.clear()
    assert proxy.states() == {} and proxy.count("closed") == 10
