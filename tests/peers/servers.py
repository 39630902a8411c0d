"""Servers of ours for what no ready program does: each says who it is, and logs how every connection went."""
import asyncio
import socket
import threading
from typing import NamedTuple


class Served(NamedTuple):
    """A connection that a server had: on which host, from where, what it received and how it ended."""

    host: str
    peer: tuple
    received: bytes
    ended: str


async def answer(host, reader, writer):
    """Answers a line with its own name and the line, and closes at once if the line's number is odd."""
    line = await reader.readline()
    writer.write(host.encode() + b" " + line)
    await writer.drain()
    if not _is_odd(line):
        line += await reader.read()
    return line


async def answer_late(host, reader, writer):
    """Answers with its own name and what it got, but only some time after the client has sent its FIN."""
    received = await reader.read()
    await asyncio.sleep(0.1)
    writer.write(host.encode() + b" " + received)
    await writer.drain()
    return received


async def echo(host, reader, writer):
    """Sends everything back until the client's FIN."""
    received = b""
    while octets := await reader.read(65536):
        received += octets
        writer.write(octets)
        await writer.drain()
    return received


def _is_odd(line):
    number = line.split(b" ", 1)[0]
    return number.isdigit() and int(number) % 2 == 1


class Servers:
    """One thread that runs servers on hosts of a bed; a context manager. `served` is the log, in order of ending."""

    def __init__(self, bed):
        self.bed = bed
        self.served: list[Served] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._sockets, self._silent = [], []

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exception):
        asyncio.run_coroutine_threadsafe(self._cancel(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()
        for listening in self._sockets:
            listening.close()

    def listen(self, host, port, behave):
        """Serve `behave(host, reader, writer)`, which returns what it received, on that host's port."""
        with self.bed.inside(host):
            listening = socket.create_server(("0.0.0.0", port), backlog=4096)
        self._sockets.append(listening)

        async def converse(reader, writer):
            peer, received, ended = writer.get_extra_info("peername"), b"", "closed"
            try:
                received = await behave(host, reader, writer)
                writer.close()
                await writer.wait_closed()
            except OSError as error:
                ended = type(error).__name__
            except asyncio.CancelledError:
                ended = "cancelled"
            finally:
                writer.close()
            self.served.append(Served(host, peer, received, ended))

        starting = asyncio.start_server(converse, sock=listening, limit=1 << 20)
        asyncio.run_coroutine_threadsafe(starting, self._loop).result(5)

    def listen_silently(self, host, port):
        """Never answer a SYN there: Linux drops SYNs to a listening socket whose queue is full."""
        with self.bed.inside(host):
            listening = socket.create_server(("0.0.0.0", port), backlog=0)
            waiting = socket.create_connection(("127.0.0.1", port), timeout=2)
        self._sockets += [listening, waiting]
        self._silent += [listening, waiting]

    def stop_silence(self):
        """Nobody listens there any more."""
        for silent in self._silent:
            silent.close()

    async def _cancel(self):
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # The sockets are closed in the loop's next round.
        await asyncio.sleep(0.01)
