"""A client and a server on the kernel's own TCP, so lean that the kernel is the limit: what scripts in perf/ load a path with.

    python perf/kernel_ends.py serve             serves for ever
    python perf/kernel_ends.py ask               says "ready", reads orders (JSON, a line each), answers each with a line

Both loops are compiled by Numba and call the C library's socket, epoll_wait, send, recv themselves: a connection costs five
system calls at the client and five at the server, and nothing of Python. Three services, each on a port of its own:

    ANSWER   32 octets come, 64 go back, and the server closes: so ports of clients and proxies are free again at once
    REQUEST  as often as the client wants
    DISCARD  whatever comes is thrown away
"""
import contextlib
import json
import os
import select
import socket
import sys

import measurement
import numba
import numpy as np
from numba import types
from numpy import int64

from pipeline.generator_report import percentiles
from pipeline.kernels.histogram import BUCKETS, count_value
from pipeline.kernels.jit import kernel, loop
from pipeline.kernels.native import address_of, ticks

ANSWER, REQUEST, DISCARD = 7000, 7001, 7002
KINDS = (ANSWER, REQUEST, DISCARD)
QUESTION, REPLY = 32, 64
"""Octets each way."""
EXPECTED = bytes(range(100, 100 + REPLY))
BLOCK = 1 << 18
"""Octets that are sent or received at once where there is much to send."""
DESCRIPTORS = 1 << 16
PATIENCE = 3000
"""Milliseconds without any event after which what is still open has failed."""
FRACTION = 20
"""Binary digits of the number of nanoseconds that a tick lasts."""
COMPLETED, FAILED, OCTETS, TICKS = range(4)
"""What a client counts; by the end of its time, and the ticks that this was."""
EPOLLIN, EPOLLOUT, EPOLLERR, EPOLLRDHUP, EPOLLET = 0x1, 0x4, 0x8, 0x2000, -0x80000000
AF_INET, STREAM_NONBLOCK, NONBLOCK, NOSIGNAL, ADD, WRITING = 2, 0o4001, 0o4000, 0x4000, 1, 1

_int, _long = types.int32, types.int64
c_socket = types.ExternalFunction("socket", _int(_int, _int, _int))
c_connect = types.ExternalFunction("connect", _int(_int, _long, _int))
c_accept = types.ExternalFunction("accept4", _int(_int, _long, _long, _int))
c_close = types.ExternalFunction("close", _int(_int))
c_shutdown = types.ExternalFunction("shutdown", _int(_int, _int))
c_send = types.ExternalFunction("send", _long(_int, _long, _long, _int))
c_receive = types.ExternalFunction("recv", _long(_int, _long, _long, _int))
c_poll_add = types.ExternalFunction("epoll_ctl", _int(_int, _int, _int, _long))
c_poll = types.ExternalFunction("epoll_wait", _int(_int, _long, _int, _int))


class Ends:
    """The arrays that a loop works on: `events` are epoll_event (packed: flags, and the descriptor in the next word)."""

    def __init__(self):
        self.events = np.zeros((512, 3), np.int32)
        self.wanted = np.zeros(3, np.int32)
        self.buffer = np.zeros(BLOCK, np.uint8)
        self.answer = np.frombuffer(EXPECTED, np.uint8).copy()
        self.kind = np.zeros(DESCRIPTORS, np.int64)
        self.have = np.zeros(DESCRIPTORS, np.int64)
        self.begun = np.zeros(DESCRIPTORS, np.int64)
        self.latency = np.zeros(BUCKETS, np.int64)
        self.counts = np.zeros(4, np.int64)


@kernel
def watch(poll, descriptor, flags, wanted):
    """Has epoll tell of a descriptor."""
    wanted[0], wanted[1] = flags, descriptor
    c_poll_add(poll, ADD, descriptor, address_of(wanted))


@kernel
def serve_one(descriptor, kind, buffer, answer, have):
    """Receives what is there, and answers or throws it away; closes at the end of the stream, or of a connection of ANSWER."""
    got = c_receive(descriptor, address_of(buffer), buffer.size if kind == DISCARD else REPLY, 0)
    over = got <= 0
    if got > 0 and kind != DISCARD:
        have[descriptor] += got
        if have[descriptor] >= QUESTION:
            have[descriptor] -= QUESTION
            c_send(descriptor, address_of(answer), REPLY, NOSIGNAL)
            over = kind == ANSWER
    if over:
        c_close(descriptor)


@loop
def serve(poll, events, wanted, buffer, answer, kind, have):
    """Serves for ever: `kind` has a service's number for a connection, and that below 0 for a socket that listens."""
    while True:
        count = c_poll(poll, address_of(events), events.shape[0], -1)
        for number in range(count):
            descriptor = int64(events[number, 1])
            if kind[descriptor] > 0:
                serve_one(descriptor, kind[descriptor], buffer, answer, have)
                continue
            for _ in range(64):
                accepted = int64(c_accept(descriptor, 0, 0, NONBLOCK))
                if accepted < 0:
                    break
                kind[accepted], have[accepted] = -kind[descriptor], 0
                watch(poll, accepted, EPOLLIN, wanted)


@kernel
def begin(poll, address, wanted, have, begun):
    """Opens a connection; returns whether that went well."""
    descriptor = int64(c_socket(AF_INET, STREAM_NONBLOCK, 0))
    if descriptor < 0:
        return False
    have[descriptor], begun[descriptor] = -1, ticks()
    c_connect(descriptor, address_of(address), address.size)
    watch(poll, descriptor, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, wanted)
    return True


@kernel
def open_until(poll, address, wanted, have, begun, still_open, at_once):
    """Opens connections until `at_once` of them are open, or the kernel has no more; returns how many are."""
    while still_open < at_once and begin(poll, address, wanted, have, begun):
        still_open += 1
    return still_open


@kernel
def awaited(poll, events, counts, still_open):
    """Waits for events and returns how many there are; none for PATIENCE means that all that is still open has failed."""
    count = c_poll(poll, address_of(events), events.shape[0], PATIENCE)
    if count > 0:
        return count
    counts[FAILED] += still_open
    return 0


@kernel
def is_answer(buffer, answer, have, got):
    """Says whether the octets that came are those that the server sends."""
    for place in range(got):
        if have + place >= REPLY or buffer[place] != answer[have + place]:
            return False
    return True


@kernel
def converse(descriptor, flags, buffer, answer, have):
    """Sends the question once the connection is open, and takes in the answer.

    Returns 1 when the server has answered in full, -1 for what failed, else 0.
    """
    if flags & EPOLLERR:
        return -1
    if have[descriptor] < 0:
        if c_send(descriptor, address_of(buffer), QUESTION, NOSIGNAL) != QUESTION:
            return -1
        have[descriptor] = 0
    if flags & (EPOLLIN | EPOLLRDHUP):
        got = c_receive(descriptor, address_of(buffer), BLOCK, 0)
        if got > 0:
            if not is_answer(buffer, answer, have[descriptor], got):
                return -1
            have[descriptor] += got
            return 1 if have[descriptor] == REPLY else 0
    return 0


@loop
def connections(poll, address, events, wanted, buffer, answer, have, begun, latency, counts, at_once, length, scale):
    """Opens connections, `at_once` of them at a time, for `length` ticks; each asks once and ends when the server closes.

    `latency` counts nanoseconds from connect to the whole answer, `scale` of them (a fixed-point number) to a tick.
    """
    start, still_open, now = ticks(), 0, 0
    counts[:] = 0
    while True:
        now = ticks() - start
        if now < length:
            still_open = open_until(poll, address, wanted, have, begun, still_open, at_once)
        if still_open == 0:
            break
        count = awaited(poll, events, counts, still_open)
        if count == 0:
            break
        for number in range(count):
            descriptor, flags = int64(events[number, 1]), int64(events[number, 0])
            said = converse(descriptor, flags, buffer, answer, have)
            if said > 0:
                count_value(latency, ((ticks() - begun[descriptor]) * scale) >> FRACTION)
            if flags & (EPOLLRDHUP | EPOLLERR) or said < 0:
                whole = have[descriptor] == REPLY and said >= 0
                counts[COMPLETED] += 1 if whole and now < length else 0
                counts[FAILED] += 0 if whole else 1
                c_close(descriptor)
                still_open -= 1
    counts[TICKS] = length


@loop
def requests(poll, address, events, wanted, buffer, answer, have, begun, latency, counts, at_once, length, scale):
    """Asks over and over on `at_once` connections, on each as soon as the answer has come, for `length` ticks."""
    counts[:] = 0
    still_open, start = open_until(poll, address, wanted, have, begun, 0, at_once), ticks()
    while still_open > 0:
        count = awaited(poll, events, counts, still_open)
        if count == 0:
            break
        for number in range(count):
            descriptor, flags = int64(events[number, 1]), int64(events[number, 0])
            if have[descriptor] < 0:
                begun[descriptor] = ticks()
            said = converse(descriptor, flags, buffer, answer, have)
            now = ticks()
            if said > 0:
                count_value(latency, ((now - begun[descriptor]) * scale) >> FRACTION)
                counts[COMPLETED] += 1 if now - start < length else 0
                have[descriptor], begun[descriptor] = 0, now
                if now - start < length:
                    c_send(descriptor, address_of(buffer), QUESTION, NOSIGNAL)
            if said < 0 or flags & EPOLLRDHUP or (said > 0 and now - start >= length):
                counts[FAILED] += 1 if said <= 0 else 0
                c_close(descriptor)
                still_open -= 1
    counts[TICKS] = length


@loop
def bulk(poll, address, events, wanted, buffer, answer, have, begun, latency, counts, at_once, length, scale):
    """Sends as much as it can on `at_once` connections for `length` ticks, and waits until all of it has arrived."""
    counts[:] = 0
    still_open, start = open_until(poll, address, wanted, have, begun, 0, at_once), ticks()
    while still_open > 0:
        count = awaited(poll, events, counts, still_open)
        if count == 0:
            break
        for number in range(count):
            descriptor, flags = int64(events[number, 1]), int64(events[number, 0])
            if flags & (EPOLLERR | EPOLLRDHUP):
                counts[FAILED if flags & EPOLLERR or have[descriptor] < 1 else COMPLETED] += 1
                c_close(descriptor)
                still_open -= 1
            elif flags & EPOLLOUT and have[descriptor] < 1:
                sent = 1
                while sent > 0 and ticks() - start < length:
                    sent = c_send(descriptor, address_of(buffer), BLOCK, NOSIGNAL)
                    counts[OCTETS] += max(sent, 0)
                if sent > 0:
                    have[descriptor] = 1
                    c_shutdown(descriptor, WRITING)
    counts[TICKS] = ticks() - start


ORDERS = {"connections": (connections, ANSWER), "requests": (requests, REQUEST), "bulk": (bulk, DISCARD)}


def arguments_of(ends, poll, address, at_once, length, scale):
    """Returns the arguments of any of the loops of ORDERS."""
    return (poll, address, ends.events, ends.wanted, ends.buffer, ends.answer, ends.have, ends.begun, ends.latency, ends.counts,
            at_once, length, scale)


def ask(order, ends):
    """Does what an order (dict: do, address, at_once, seconds) says; returns what it came to (dict)."""
    made, port = ORDERS[order["do"]]
    hertz = measurement.tsc_hertz()
    address = np.frombuffer(b"\x02\x00" + port.to_bytes(2, "big") + socket.inet_aton(order["address"]) + bytes(8), np.uint8).copy()
    ends.latency[:] = 0
    before = open_descriptors()
    with select.epoll() as poll:
        made(*arguments_of(ends, poll.fileno(), address, order["at_once"], int(order["seconds"] * hertz),
                           round((1 << FRACTION) * 1e9 / hertz)))
    for left in open_descriptors() - before:  # of connections that have failed by time
        with contextlib.suppress(OSError):
            os.close(left)
    seconds = ends.counts[TICKS] / hertz
    return {"completed": int(ends.counts[COMPLETED]), "failed": int(ends.counts[FAILED]), "seconds": seconds,
            "octets": int(ends.counts[OCTETS]), **percentiles(ends.latency)}


def open_descriptors():
    """Returns the descriptors (set of int) that this process has open."""
    return set(map(int, os.listdir("/proc/self/fd")))


def serve_for_ever():
    """Listens and serves; says "ready" when it does."""
    ends = Ends()
    with select.epoll() as poll:
        listening = [socket.create_server(("0.0.0.0", port), backlog=4096) for port in KINDS]
        for each, port in zip(listening, KINDS, strict=True):
            each.setblocking(False)
            ends.kind[each.fileno()] = -port
            poll.register(each, EPOLLIN)
        around = (poll.fileno(), ends.events, ends.wanted, ends.buffer, ends.answer, ends.kind, ends.have)
        serve.compile(tuple(map(numba.typeof, around)))
        print("ready", flush=True)
        serve(*around)


def main():
    """Reads the command line."""
    if sys.argv[1:] == ["serve"]:
        serve_for_ever()
    ends = Ends()
    for do in ORDERS:  # compiled before the first order that counts
        made, _ = ORDERS[do]
        made.compile(tuple(map(numba.typeof, arguments_of(ends, 0, np.zeros(16, np.uint8), 0, 0, 0))))
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(ask(json.loads(line), ends)), flush=True)


if __name__ == "__main__":
    main()
