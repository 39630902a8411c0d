"""Clients: many connections at once from one host, each sending one request and reading what comes back."""
import errno
import itertools
import select
import socket
import time
from dataclasses import dataclass, field


OWN_PORTS = range(10_000, 32_000)
"""Local ports of the clients, below those that the kernel gives to others."""


@dataclass
class Exchange:
    """One connection: what was sent and received, its local port, its end ("closed", "timed out" or an errno name)."""

    request: bytes
    received: bytes = b""
    local_port: int = 0
    ended: str = ""
    seconds: float = 0.0
    _socket: socket.socket = field(default=None, repr=False)
    _unsent: bytes = field(default=b"", repr=False)


class Exchanges:
    """Runs one Exchange for each request against `address`, `at_once` of them open at a time.

    `close_when(request, received)` says when the client itself closes; without it the client waits for the server's
    end. `half_close` sends FIN right behind the request. `rest` seconds without any answer end a connection as
    "timed out". Sockets belong to the namespace that the calling thread is in.
    """

    _ports = itertools.cycle(OWN_PORTS)

    def __init__(self, address, requests, at_once=64, close_when=None, half_close=False, rest=10.0):
        self.address = address
        self.exchanges = [Exchange(request, _unsent=request) for request in requests]
        self.at_once, self.close_when, self.half_close, self.rest = at_once, close_when, half_close, rest
        self._poll = select.epoll()
        self._open = {}

    def run(self):
        """Returns the list of Exchanges, all of them ended."""
        waiting = iter(self.exchanges)
        try:
            self._start(waiting, self.at_once)
            while self._open:
                for descriptor, events in self._poll.poll(0.5):
                    if descriptor in self._open:
                        self._serve(self._open[descriptor], events)
                now = time.monotonic()
                for late in [each for each in self._open.values() if now - each.seconds > self.rest]:
                    self._end(late, "timed out")
                self._start(waiting, self.at_once - len(self._open))
        finally:
            self._poll.close()
        return self.exchanges

    def _start(self, waiting, count):
        for _ in range(count):
            exchange = next(waiting, None)
            if exchange is None:
                return
            connection = socket.socket()
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._bind_to_a_port_of_its_own(connection)
            connection.connect_ex(self.address)
            exchange._socket, exchange.seconds = connection, time.monotonic()
            exchange.local_port = connection.getsockname()[1]
            self._open[connection.fileno()] = exchange
            self._poll.register(connection, select.EPOLLOUT)

    def _bind_to_a_port_of_its_own(self, connection):
        """Records are told apart by the client's port, and the kernel soon gives one again that the server closed first."""
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for port in itertools.islice(Exchanges._ports, len(OWN_PORTS)):
            try:
                return connection.bind(("", port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
        raise RuntimeError("no local port is free for one more client")

    def _serve(self, exchange, events):
        try:
            if exchange._unsent:
                exchange._unsent = exchange._unsent[exchange._socket.send(exchange._unsent):]
                if not exchange._unsent:
                    if self.half_close:
                        exchange._socket.shutdown(socket.SHUT_WR)
                    self._poll.modify(exchange._socket, select.EPOLLIN)
                return
            octets = exchange._socket.recv(65536)
        except BlockingIOError:
            return
        except OSError as error:
            self._end(exchange, errno.errorcode.get(error.errno, str(error)))
            return
        exchange.received += octets
        if not octets or (self.close_when and self.close_when(exchange.request, exchange.received)):
            self._end(exchange, "closed")

    def _end(self, exchange, how):
        del self._open[exchange._socket.fileno()]
        exchange._socket.close()
        exchange._socket = None
        exchange.ended, exchange.seconds = how, time.monotonic() - exchange.seconds


def exchange_all(bed, host, address, requests, **options):
    """Returns the Exchanges of `requests` (bytes each) from a host of the bed to `address` (host, port)."""
    with bed.inside(host):
        return Exchanges(address, requests, **options).run()


def connect(bed, host, address, timeout=5.0):
    """Returns a connected blocking socket of that host."""
    with bed.inside(host):
        return socket.create_connection(address, timeout=timeout)
