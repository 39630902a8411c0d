"""A program of many connections at once that do all that TCP allows, each octet checked; needs nothing but Python.

    chaos.py serve SEED PORT                             until SIGTERM, then until its connections have ended
    chaos.py ask SEED AT_ONCE SECONDS ADDRESS PORT ...   starts new connections for so long, to each port in turn

What a connection does follows from the seed and its number, which is the first line that a client sends: both ends know
it. Each octet is a function of number, direction and position. Both programs print a JSON document in the end: a list of
what each connection came to, as `Outcome` has it.
"""
import argparse
import asyncio
import errno
import json
import random
import resource
import signal
import socket
import struct
import sys
import time
from dataclasses import asdict, dataclass

BLOCK = 1 << 18
OCTETS = memoryview(random.Random(0).randbytes(BLOCK) * 2)
LINGER_RESET = struct.pack("ii", 1, 0)
CLIENT, SERVER = 0, 1
LONGEST_PAUSE = 4.0
"""Seconds; the engine's time-outs have to be longer."""
KEEP_ALIVE = (20, 1, 3)
"""Seconds of silence, seconds between probes, probes: only a peer whose RST got lost, and the engine's after it, needs them."""
PATIENCE = 45
"""Seconds that connections may take to end once no new ones are started."""
ENDINGS = {"client closes": 20, "server closes": 20, "client closes half": 12, "server closes half": 12, "both close": 10,
           "client aborts": 8, "server aborts": 8, "closes mute": 4, "aborts mute": 3, "stays mute": 3}
"""How connections end, and how often of a hundred. The mute ones never say anything."""
ORDERLY = tuple(ENDINGS)[:5]
"""Endings after which both sides have all that the other has sent."""
ABORTING = {"client aborts": CLIENT, "server aborts": SERVER}
LATE_HALF = {"client closes half": SERVER, "server closes half": CLIENT}
"""Who sends the second half of its octets only when the other side has closed."""


class Plan:
    """What a connection is going to do: `sizes` in octets, by side, `rests` in seconds before a side ends, and how it ends."""

    def __init__(self, seed, number):
        self.number = number
        drawn = random.Random(seed << 32 | number)
        self.ending = drawn.choices(tuple(ENDINGS), ENDINGS.values())[0]
        self.sizes = tuple(int(drawn.choices((2_000, 50_000, 400_000), (60, 33, 7))[0] * drawn.random()) for _ in range(2))
        self.header = b"%d\n" % number
        aborter = ABORTING.get(self.ending)
        self.cut = None if aborter is None else drawn.randrange(self.sizes[aborter] + 1)
        self.rests = tuple(drawn.uniform(0, LONGEST_PAUSE) for _ in range(2))
        split = drawn.randrange(2 * len(self.header))
        self.pieces = [piece for piece in (self.header[:split], self.header[split:]) if piece]
        self._seed = drawn.getrandbits(32)

    @property
    def is_mute(self):
        """Whether the client says nothing at all."""
        return self.ending.endswith("mute")

    def parts(self, side):
        """Yields (pause in seconds before it, octets) for each write of a side."""
        drawn = random.Random(self._seed + side)
        left = self.sizes[side]
        while left:
            pause = min(drawn.expovariate(2), LONGEST_PAUSE) if drawn.random() < 0.3 else 0
            part = min(left, int(drawn.choices((100, 3_000, 60_000), (20, 40, 40))[0] * drawn.random()) + 1)
            yield pause, part
            left -= part

    def octets(self, side, start, length):
        """What a side says from position `start` on (memoryview, at most BLOCK octets)."""
        first = ((self.number * 2 + side) * 7919 + start) & (BLOCK - 1)
        return OCTETS[first:first + length]


@dataclass
class Outcome:
    """A connection as one end saw it: octets sent and received, "closed", "reset" or what else, and what was wrong.

    `port` is the client's own where the client tells, `service` the one that it connected to.
    """

    number: int
    ending: str
    port: int
    service: int
    sent: int = 0
    received: int = 0
    saw: str = "nothing"
    wrong: str = ""


class Aborted(Exception):
    """This end has aborted as planned."""


class End:
    """One end of a connection. `talk` does what the plan has for this side."""

    def __init__(self, connection, plan, side, outcome):
        self.connection, self.plan, self.side, self.outcome = connection, plan, side, outcome
        self.other_closed = asyncio.Event()
        self.all_came = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        if self.due == 0:
            self.all_came.set()

    @property
    def due(self):
        """How many octets the other side is going to send."""
        return self.plan.sizes[1 - self.side]

    async def talk(self):
        """Sends and receives until both are done, and closes."""
        plan, outcome = self.plan, self.outcome
        receiving = asyncio.create_task(self._receive())
        sending = asyncio.create_task(self._send())
        try:
            await asyncio.gather(sending, receiving)
            outcome.saw = "closed"
        except Aborted:
            outcome.saw = "aborted"
        except OSError as error:
            outcome.saw = {errno.ECONNRESET: "reset", errno.EPIPE: "reset"}.get(error.errno, str(error))
        finally:
            for task in (sending, receiving):
                task.cancel()
            await asyncio.gather(sending, receiving, return_exceptions=True)
        if outcome.saw == "aborted":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_RESET)
        elif plan.ending in ORDERLY and outcome.saw != "closed":
            outcome.wrong = outcome.wrong or f"{outcome.saw} in the middle"
        elif outcome.saw == "closed" and plan.ending in ABORTING:
            outcome.wrong = "an abort arrived as a close"

    async def _send(self):
        plan, side = self.plan, self.side
        half = plan.sizes[side] // 2 if LATE_HALF.get(plan.ending) == side else None
        for pause, part in plan.parts(side):
            if half is not None and self.outcome.sent >= half:
                await self.other_closed.wait()
            if pause:
                await asyncio.sleep(pause)
            if ABORTING.get(plan.ending) == side and self.outcome.sent + part > plan.cut:
                raise Aborted
            await self._loop.sock_sendall(self.connection, plan.octets(side, self.outcome.sent, part))
            self.outcome.sent += part
        await self._finish_sending()

    async def _finish_sending(self):
        plan, side = self.plan, self.side
        await asyncio.sleep(plan.rests[side])
        if ABORTING.get(plan.ending) == side:
            raise Aborted
        # Who does not close first waits for the other's FIN; who does, waits for all that is due.
        first = {"client closes": CLIENT, "server closes": SERVER}.get(plan.ending)
        if first == side:
            await self.all_came.wait()
        elif first is not None or ABORTING.get(plan.ending) is not None:
            await self.other_closed.wait()
        elif LATE_HALF.get(plan.ending) == side:
            await self.other_closed.wait()
        self.connection.shutdown(socket.SHUT_WR)

    async def _receive(self):
        plan, other, outcome = self.plan, 1 - self.side, self.outcome
        while octets := await self._loop.sock_recv(self.connection, 65536):
            if plan.octets(other, outcome.received, len(octets)) != octets:
                outcome.wrong = outcome.wrong or f"other octets than sent at {outcome.received}"
            outcome.received += len(octets)
            if outcome.received >= self.due:
                self.all_came.set()
        self.other_closed.set()
        if plan.ending in ORDERLY and outcome.received != self.due:
            outcome.wrong = outcome.wrong or f"{outcome.received} octets of {self.due}, and then the end"


async def ask_once(address, seed, number, outcomes):
    """One connection of the client's. Its first line may come in two pieces."""
    plan, loop = Plan(seed, number), asyncio.get_running_loop()
    outcome = Outcome(number, plan.ending, 0, address[1])
    outcomes.append(outcome)
    with socket.socket() as connection:
        connection.setblocking(False)
        keep_alive(connection)
        try:
            await loop.sock_connect(connection, address)
            outcome.port = connection.getsockname()[1]
            if plan.is_mute:
                outcome.saw = await be_mute(connection, plan)
                return
            for piece in plan.pieces:
                await loop.sock_sendall(connection, piece)
        except OSError as error:
            outcome.saw = str(error)
            outcome.wrong = f"no connection, or no first word: {error}" if plan.ending in ORDERLY else ""
            return
        await End(connection, plan, CLIENT, outcome).talk()


async def be_mute(connection, plan):
    """Says nothing: leaves at once, one way or the other, or waits until it is thrown out."""
    if plan.ending == "aborts mute":
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_RESET)
        return "aborted"
    if plan.ending == "closes mute":
        connection.shutdown(socket.SHUT_WR)
    try:
        await asyncio.get_running_loop().sock_recv(connection, 1)
    except ConnectionResetError:
        return "reset"
    return "closed"


async def ask(address, ports, seed, at_once, seconds):
    """Keeps so many connections open until the time is over, then waits for the rest; returns their Outcomes."""
    outcomes, running, number = [], set(), 0
    stop = time.monotonic() + seconds
    while time.monotonic() < stop:
        # A tenth more at most in each round, so that the first SYNs do not come all at once.
        for _ in range(min(at_once - len(running), max(at_once // 10, 1))):
            running.add(asyncio.create_task(ask_once((address, ports[number % len(ports)]), seed, number, outcomes)))
            number += 1
        _, running = await asyncio.wait(running, timeout=0.05, return_when=asyncio.FIRST_COMPLETED)
    await wait_for(running, outcomes)
    return outcomes


async def wait_for(running, outcomes):
    """Waits until all connections have ended; those that do not are marked."""
    if running:
        await asyncio.wait(running, timeout=PATIENCE)
    for outcome in outcomes:
        if outcome.saw == "nothing":
            outcome.wrong = outcome.wrong or f"still open after {PATIENCE} seconds"


def keep_alive(connection):
    """Has the kernel ask whether the other side is still there."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in zip((socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT), KEEP_ALIVE):
        connection.setsockopt(socket.IPPROTO_TCP, name, value)


async def answer(connection, peer, seed, outcomes):
    """One connection of the server's."""
    loop = asyncio.get_running_loop()
    connection.setblocking(False)
    keep_alive(connection)
    outcome = Outcome(-1, "", peer[1], connection.getsockname()[1])
    outcomes.append(outcome)
    with connection:
        header = b""
        try:
            while not header.endswith(b"\n"):
                octet = await loop.sock_recv(connection, 1)
                if not octet:
                    outcome.saw, outcome.ending = "closed", "mute"
                    outcome.wrong = f"a connection that ends within its first line: {header}" if header else ""
                    return
                header += octet
        except OSError as error:
            outcome.saw, outcome.ending = str(error), "cut"
            return
        plan = Plan(seed, int(header))
        outcome.number, outcome.ending = plan.number, plan.ending
        await End(connection, plan, SERVER, outcome).talk()


async def serve(port, seed):
    """Serves until SIGTERM, then as long as there are connections; returns their Outcomes."""
    outcomes, running = [], set()
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    with socket.create_server(("0.0.0.0", port), backlog=4096) as listening:
        listening.setblocking(False)

        async def accept():
            while True:
                task = asyncio.create_task(answer(*await loop.sock_accept(listening), seed, outcomes))
                running.add(task)
                task.add_done_callback(running.discard)

        accepting = asyncio.create_task(accept())
        print(json.dumps({"serves": port}), flush=True)
        await stop.wait()
        await wait_for(running, outcomes)
        accepting.cancel()
    return outcomes


def main():
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    server, client = commands.add_parser("serve"), commands.add_parser("ask")
    server.add_argument("seed", type=int)
    server.add_argument("port", type=int)
    for name, kind in (("seed", int), ("at_once", int), ("seconds", float), ("address", str)):
        client.add_argument(name, type=kind)
    client.add_argument("ports", type=int, nargs="+")
    chosen = parser.parse_args()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if chosen.command == "serve":
        outcomes = asyncio.run(serve(chosen.port, chosen.seed))
    else:
        outcomes = asyncio.run(ask(chosen.address, chosen.ports, chosen.seed, chosen.at_once, chosen.seconds))
    json.dump([asdict(outcome) for outcome in outcomes], sys.stdout)
    print()


if __name__ == "__main__":
    main()
