"""One worker from its first pass to the end of its last connection on virtual time, told as JSON on stdout.

    python tests/whole_connection.py [SELECT [PAYLOAD]]

A child process of tests: the same story is told jitted, as plain Python, and with bounds checked, and each has to give
the same frames and leave the same state. SELECT names the select kernel (default: each target in turn).
"""

import hashlib
import json
import random
import sys

import numpy as np
from kernel_bed import CLIENT, CLIENT_MAC, GATEWAY, NOW, SERVICE, TARGET_MAC, TARGETS, KernelBed, mac_text
from scapy.layers.inet import ICMP, IP, TCP
from scapy.layers.l2 import ARP, Ether

from memory_loop import own, started

SECOND = 1_000_000


class Story:
    """`tell` feeds frames and runs one pass; `frames` is all that the engine has sent, [port, bytes]."""

    def __init__(self, select):
        self.bed = KernelBed("round_robin" if select is None else select)
        self.now, self.frames = NOW, []
        self.bed.work_on(*own([self.bed.state]))
        self.run = started(self.bed.state, tuple(self.bed.selects))

    def tell(self, *fed, port=0, after=1_000):
        """Feeds frames to `port`, runs the loop once `after` microseconds later; returns the TCP packets it sent."""
        self.now += after
        assert self.bed.network.ports[port].feed(list(fed)) == len(fed)
        assert self.run(self.bed.state, 1, self.now) == 1
        sent = [[number, frame] for number in range(2) for frame in self.bed.network.ports[number].taken()]
        self.frames += sent
        return [Ether(frame) for _, frame in sent if TCP in Ether(frame)]

    def client(self, seq, ack, flags="A", payload=b"", port=40000, **fields):
        """Returns a segment of the client."""
        return self.bed.segment(payload, seq=seq % 2**32, ack=ack % 2**32, flags=flags, sport=port, **fields)

    def target(self, syn, seq, ack, flags="A", payload=b"", **fields):
        """Returns a segment of the target to which the engine sent `syn`."""
        return self.bed.segment(
            payload,
            source=syn[IP].dst,
            destination=syn[IP].src,
            mac=TARGET_MAC,
            port=1,
            sport=syn[TCP].dport,
            dport=syn[TCP].sport,
            seq=seq % 2**32,
            ack=ack % 2**32,
            flags=flags,
            **fields,
        )


def neighbours(story):
    """The first pass asks for the targets' MAC addresses; they answer."""
    story.tell()
    replies = [
        bytes(
            Ether(src=mac_text(TARGET_MAC + number), dst=mac_text(story.bed.macs[1]))
            / ARP(op=2, hwsrc=mac_text(TARGET_MAC + number), psrc=text, pdst="10.2.0.1")
        )
        for number, text in enumerate((*TARGETS[:2], GATEWAY))
    ]
    story.tell(*replies, port=1)


def handshake(story, isn, payload, port=40000):
    """Client and engine shake hands, the client speaks; returns the engine's SYN-ACK and its SYN to the target."""
    (syn_ack,) = story.tell(story.client(isn, 0, "S", port=port, options=[("MSS", 1400)]))
    ours = syn_ack[TCP].seq + 1
    assert story.tell(story.client(isn + 1, ours, port=port)) == []
    (syn,) = story.tell(story.client(isn + 1, ours, "PA", payload, port=port))
    return syn_ack, syn


def spliced(story, isn, payload, target_isn, port=40000):
    """The target takes the connection too; returns SYN-ACK, SYN and the held payload as it got it."""
    syn_ack, syn = handshake(story, isn, payload, port)
    sent = story.tell(story.target(syn, target_isn, syn[TCP].seq + 1, "SA", options=[("MSS", 1460)]), port=1)
    assert sent[-1][TCP].payload.load == payload
    return syn_ack, syn, sent[-1]


def conversation(story, payload):
    """A whole connection whose numbers wrap: data both ways, both FINs, TIME_WAIT to its end."""
    isn, target_isn = 2**32 - 20, 2**32 - 30
    syn_ack, syn, _ = spliced(story, isn, payload, target_isn)
    client, ours, theirs = isn + 1 + len(payload), syn_ack[TCP].seq + 1, target_isn + 1
    mine = syn[TCP].seq + 1 + len(payload)
    answer = b"HTTP/1.1 200 OK\r\n\r\n" + bytes(range(200))
    story.tell(story.target(syn, theirs, mine), story.target(syn, theirs, mine, "PA", answer), port=1)
    story.tell(story.client(client, ours + len(answer)), story.client(client, ours + len(answer), "PA", b"more"))
    story.tell(story.target(syn, theirs + len(answer), mine + 4, "A", b"x" * 1460), port=1)
    done = ours + len(answer) + 1460
    story.tell(story.client(client + 4, done, "FA"))
    story.tell(story.target(syn, theirs + len(answer) + 1460, mine + 5, "FA"), port=1)
    story.tell(story.client(client + 5, done + 1))
    story.tell(after=story.bed.configuration.timeouts.time_wait * SECOND // 2)
    for _ in range(4):
        story.tell(after=story.bed.configuration.timeouts.time_wait * SECOND // 2)
    assert story.bed.counters.totals[5] == 0, "the connection is still in the table"
    return syn[IP].dst


def refused_and_lost(story):
    """A target that refuses, a RST from the client, SYNs without answers, a client that says nothing."""
    _, syn = handshake(story, 5_000, b"refuse me\n", 40001)
    story.tell(story.target(syn, 0, syn[TCP].seq + 1, "RA"), port=1)
    syn_ack, syn, _ = spliced(story, 9_000, b"reset me\n", 77, 40002)
    story.tell(story.target(syn, 78, syn[TCP].seq + 10), port=1)
    story.tell(story.client(9_010, syn_ack[TCP].seq + 1, "R", port=40002))
    handshake(story, 2**31 - 3, b"nobody answers\n", 40003)
    story.tell(story.client(1, 0, "S", port=40004))
    for _ in range(40):
        story.tell(after=SECOND // 2)
    for _ in range(40):
        story.tell(after=20 * SECOND)


def strays_and_noise(story):
    """Echo, ARP, strays, and frames of a seeded generator on both ports."""
    ether = Ether(src=mac_text(CLIENT_MAC), dst=mac_text(story.bed.macs[0]))
    story.tell(
        bytes(ether / IP(src=CLIENT, dst=SERVICE) / ICMP(id=7, seq=1) / b"ping"),
        story.client(1, 2, "PA", b"stray"),
        bytes(Ether(src=mac_text(CLIENT_MAC)) / ARP(psrc=CLIENT, pdst=SERVICE, hwsrc=mac_text(CLIENT_MAC))),
    )
    noise = random.Random(11)
    for number in range(60):
        frames = []
        for _ in range(noise.randrange(20)):
            frame = bytearray(
                story.client(
                    noise.randrange(2**32),
                    noise.randrange(2**32),
                    noise.choice(["S", "A", "PA", "FA", "R"]),
                    noise.randbytes(noise.randrange(40)),
                    noise.randrange(40000, 40010),
                )
            )
            for _ in range(noise.choice([0, 0, 0, 1, 4])):
                frame[noise.randrange(len(frame))] = noise.randrange(256)
            frames.append(bytes(frame[: noise.randrange(len(frame))] if noise.random() < 0.1 else frame))
        story.tell(*frames, port=number % 2 if noise.random() < 0.2 else 0, after=noise.choice([10, 1_000, 300_000]))
    for _ in range(40):
        story.tell(after=20 * SECOND)


def digests(value, name="state"):
    """Yields (name, digest) of every array of the state that holds no address of this process and no clock."""
    if isinstance(value, np.ndarray):
        yield name, hashlib.sha256(value.tobytes()).hexdigest()[:16]
    else:
        for field in value._fields:
            if field not in ("device", "packets", "base", "clock"):
                yield from digests(getattr(value, field), f"{name}.{field}")


def main(select=None, payload="GET /a HTTP/1.1\r\nHost: one.example\r\n\r\n"):
    """Tells the story; a payload stops it after one connection."""
    story = Story(select)
    free = story.bed.pool.available
    neighbours(story)
    target = conversation(story, payload.encode())
    if select is None:
        refused_and_lost(story)
        strays_and_noise(story)
    told = {
        "target": target,
        "frames": [[port, frame.hex()] for port, frame in story.frames],
        "state": dict(digests(story.bed.state)),
        "open": int(story.bed.counters.totals[5]),
        "drops": story.bed.drops,
        "notices": story.bed.notices,
        "lost_mbufs": free - story.bed.pool.available,
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
