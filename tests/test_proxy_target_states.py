"""Targets of real stacks that refuse, are silent, killed, drained and come back, under load; in the soak, for the loop it compiles."""
import asyncio
import collections
import contextlib
import subprocess
import sys
import time

import pytest

from peers.clients import connect
from peers.engine_bed import open_engine_bed
from peers.requirements import needs_bed, needs_program
from peers.servers import answer

pytestmark = [needs_bed]
TURNS, MAGLEV, SILENT, CHECKED, KILLED, WEB, STORE = range(7000, 7007)
PORT, QUIET, WELL, DOOMED, PAGES, REDIS = range(9000, 9006)
RETRY = 5.0
AT_ONCE = 200
SERVED = {"turns": (TURNS, ["s0", "s1", "s2"]), "maglev": (MAGLEV, ["s0", "s1", "s2"]), "silent": (SILENT, ["q0", "q1"]),
          "checked": (CHECKED, ["c0", "c1"]), "killed": (KILLED, ["k0", "k1"]), "web": (WEB, ["w0", "w1"]), "store": (STORE, ["r0", "r1"])}
"""Port and targets of each service. The kernel, which makes the checks at the same address, has source ports of its own."""
SERVICE = '[[services]]\nname = "{name}"\nlisten = "10.1.0.1:{port}"\ntargets = {targets}\nsource_ports = [1024, 32767]\n'
TIMES = f"[timeouts]\nconnecting = 2.0\n[health]\nfall = 3\nretry = {RETRY}\n"
HOSTS = [("client", "client", "p0", "10.1.0.2"), *((f"s{n}", "server", "p1", f"10.2.0.{11 + n}") for n in range(3))]
NAMES = [("s0", 11, PORT), ("s1", 12, PORT), ("s2", 13, PORT), ("q0", 11, QUIET), ("q1", 12, QUIET), ("k0", 11, DOOMED), ("k1", 12, DOOMED)]
TARGET = '[[targets]]\nid = "{id}"\nip = "10.2.0.{host}"\nport = {port}\n'
CHECKS = {"c": ('kind = "connect"', WELL), "w": ('kind = "http"\npath = "/health"', PAGES),
          "r": ('kind = "send"\nsend = "PING\\r\\n"\nexpect = "+PONG"', REDIS)}
"""By the first letter of targets on the first two servers: what is asked, and the port."""
CHECK = '[targets.check]\n{kind}\ninterval = 0.1\nrise = 1\nfall = 2\n'
ECHO = """
import asyncio, sys
async def echo(reader, writer):
    while octets := await reader.read(65536):
        writer.write(octets)
        await writer.drain()
async def serve():
    async with await asyncio.start_server(echo, "0.0.0.0", int(sys.argv[1]), backlog=4096) as server:
        await server.serve_forever()
asyncio.run(serve())
"""
"""A server in a process of its own, which can be killed."""


def configuration_text():
    """Returns targets, services and time-outs (TOML)."""
    targets = "".join(TARGET.format(id=name, host=host, port=port) for name, host, port in NAMES)
    targets += "".join(TARGET.format(id=f"{letter}{n}", host=11 + n, port=port) + CHECK.format(kind=kind)
                       for letter, (kind, port) in CHECKS.items() for n in range(2))
    served = "".join(SERVICE.format(name=name, port=port, targets=str(members).replace("'", '"'))
                     + 'select = "maglev"\n' * (name == "maglev") for name, (port, members) in SERVED.items())
    return TIMES + targets + served


@pytest.fixture(scope="module")
def balance():
    with open_engine_bed("balance", configuration_text(), HOSTS, ports=("", 'exception = { device = "net_tap7,iface=kx1" }')) as made:
        made.servers.listen("s0", PORT, answer)
        made.servers.listen("s2", PORT, answer)
        made.servers.listen("s0", QUIET, answer)
        made.servers.listen("s0", WELL, answer)
        made.servers.listen_silently("s1", QUIET)
        yield made


@pytest.mark.parametrize("service", [TURNS, MAGLEV])
def test_a_target_that_refuses_costs_not_one_connection_under_200_at_once(balance, service):
    answered = balance.exchange(service, 600)
    print(answered)
    assert set(answered) == {"s0", "s2"} and sum(answered.values()) == 600


def test_passive_health_holds_it_for_down(balance):
    balance.exchange(TURNS, 20)
    listed, refused = balance.command("target", "list"), balance.counted("s1", "refused")
    balance.exchange(TURNS, 200)
    assert balance.counted("s1", "refused") == refused and "s1                   down         connections failed" in listed


def test_it_is_used_again_once_it_listens_and_is_put_up(balance):
    balance.servers.listen("s1", PORT, answer)
    balance.command("target", "set", "s1", "up")
    answered = balance.exchange(TURNS, 300)
    assert answered == {"s0": 100, "s1": 100, "s2": 100}


def test_a_drained_target_gets_no_new_connection_and_loses_none(balance):
    kept = [connect(balance.bed, "client", ("10.1.0.1", TURNS)) for _ in range(30)]
    for connection in kept:
        connection.sendall(b"2 is even\n")
    told = [connection.recv(100).split(b" ")[0] for connection in kept]
    assert set(told) == {b"s0", b"s1", b"s2"}
    balance.command("target", "set", "s2", "drain")
    for service in (TURNS, MAGLEV):
        assert set(balance.exchange(service, 200)) == {"s0", "s1"}
    for connection in kept:
        connection.sendall(b"more\n")
        connection.close()
    deadline = time.monotonic() + 10
    while sum(served.received.endswith(b"more\n") for served in balance.servers.served) < 30:
        assert time.monotonic() < deadline, "a connection of a drained target has been lost"
        time.sleep(0.05)
    balance.command("target", "set", "s2", "up")
    assert set(balance.exchange(TURNS, 200)) == {"s0", "s1", "s2"}


def test_a_silent_target_delays_nobody_beyond_one_time_out_and_then_nobody_at_all(balance):
    """Each attempt that is silent is counted: nobody had more than one. Three in a row are what passive health needs."""
    assert balance.exchange(SILENT, AT_ONCE) == {"s0": AT_ONCE}
    timeouts = balance.counted("q1", "timeouts")
    assert 2 < timeouts <= AT_ONCE // 2 and "q1                   down" in balance.command("target", "list")
    assert balance.exchange(SILENT, AT_ONCE) == {"s0": AT_ONCE}
    assert balance.counted("q1", "timeouts") == timeouts


def test_a_silent_target_that_returns_is_used_again_after_the_time_of_retry(balance):
    balance.servers.stop_silence()
    balance.servers.listen("s1", QUIET, answer)
    deadline = time.monotonic() + 4 * RETRY
    while balance.exchange(SILENT, 20) != {"s0": 10, "s1": 10}:
        assert time.monotonic() < deadline, balance.command("target", "list")
        time.sleep(0.2)


@contextlib.contextmanager
def program(balance, host, *arguments):
    """A program on a host of the bed, killed in the end."""
    process = balance.bed.run_in(host, arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def talk(ends):
    """A client that asks again and again; notes in `ends` how its connection ends."""
    reader, writer = await asyncio.open_connection("10.1.0.1", KILLED)
    try:
        while True:
            writer.write(b"asked\n")
            await writer.drain()
            if not await reader.readline():
                ends["end of stream"] += 1  # what it asks now is refused with a RST
                await asyncio.sleep(0.05)
                continue
            await asyncio.sleep(0.02)
    except (ConnectionResetError, BrokenPipeError):
        ends["reset"] += 1
    finally:
        writer.close()


async def under_load(process, ends):
    """200 connections talk; the process of one target is killed; 200 more follow. Returns how many of the first live on."""
    talking = [asyncio.create_task(talk(ends)) for _ in range(AT_ONCE)]
    await asyncio.sleep(2)
    assert not ends and not any(task.done() for task in talking)
    process.kill()
    await asyncio.sleep(1)
    alive = sum(not task.done() for task in talking)
    following = [asyncio.create_task(talk(collections.Counter())) for _ in range(AT_ONCE)]
    await asyncio.sleep(1)
    refused = sum(task.done() for task in following)
    for task in talking + following:
        task.cancel()
    await asyncio.gather(*talking, *following, return_exceptions=True)
    return alive, refused


def until_it_listens(balance, host):
    """Waits until the echo server of a host takes connections."""
    deadline = time.monotonic() + 20
    while True:
        try:
            connect(balance.bed, host, ("127.0.0.1", DOOMED)).close()
            return
        except ConnectionRefusedError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_a_killed_target_resets_its_connections_and_no_new_one_fails(balance):
    ends = collections.Counter()
    with program(balance, "s0", sys.executable, "-c", ECHO, str(DOOMED)), program(balance, "s1", sys.executable, "-c", ECHO,
                                                                                  str(DOOMED)) as doomed:
        for host in ("s0", "s1"):
            until_it_listens(balance, host)
        with balance.bed.inside("client"):
            alive, refused = asyncio.run(under_load(doomed, ends))
    assert (alive, ends["reset"], refused) == (AT_ONCE // 2, AT_ONCE // 2, 0)


def until(balance, target, state):
    """Waits until `target list` says so."""
    deadline = time.monotonic() + 20
    while not any(line.split()[:2] == [target, state] for line in balance.command("target", "list").splitlines()):
        assert time.monotonic() < deadline, balance.command("target", "list")
        time.sleep(0.1)


def test_active_checks_find_a_target_down_before_any_client_and_up_again(balance):
    until(balance, "c1", "down")
    until(balance, "c0", "up")
    assert "check: connection refused" in balance.command("target", "list")
    assert balance.exchange(CHECKED, 100) == {"s0": 100}
    assert balance.counted("c1", "refused") == 0
    balance.servers.listen("s1", WELL, answer)
    until(balance, "c1", "up")
    assert balance.exchange(CHECKED, 100) == {"s0": 50, "s1": 50}


def test_the_status_of_a_page_decides(balance):
    status = {"s0": "200 OK", "s1": "200 OK"}

    async def page(host, reader, writer):
        asked = await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {status[host]}\r\nContent-Length: 0\r\nConnection: close\r\nX-Host: {host}\r\n\r\n".encode())
        await writer.drain()
        return asked

    for host in status:
        balance.servers.listen(host, PAGES, page)
    for target in ("w0", "w1"):
        until(balance, target, "up")
    status["s1"] = "503 Service Unavailable"
    until(balance, "w1", "down")
    listed = balance.command("target", "list")
    assert "503" in next(line for line in listed.splitlines() if line.startswith("w1 ")), listed
    status["s1"] = "200 OK"
    until(balance, "w1", "up")


@needs_program("redis-server", "redis-server")
def test_what_a_server_answers_to_what_is_sent_decides(balance):
    arguments = ("redis-server", "--port", str(REDIS), "--protected-mode", "no", "--save", "", "--bind", "0.0.0.0")
    with program(balance, "s0", *arguments), program(balance, "s1", *arguments) as stopped:
        for target in ("r0", "r1"):
            until(balance, target, "up")
        stopped.kill()
        until(balance, "r1", "down")
        with program(balance, "s1", *arguments):
            until(balance, "r1", "up")
