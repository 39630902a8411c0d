"""A server within a test: it accepts connections one by one, when the test says so."""
import contextlib
import socket

PATIENCE = 10.0
"""Seconds that any step may take."""


class Listener:
    """Listens on a host's port; a context manager. `options` are (level, name, value) set before it listens."""

    def __init__(self, path, host, port, options=()):
        with path.bed.inside(host):
            self._socket = socket.socket()
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            for option in options:
                self._socket.setsockopt(*option)
            self._socket.bind(("0.0.0.0", port))
            self._socket.listen(1024)
        self._socket.settimeout(PATIENCE)

    def accept(self):
        """The next connection (socket)."""
        connection, _ = self._socket.accept()
        connection.settimeout(PATIENCE)
        return connection

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._socket.close()


@contextlib.contextmanager
def client_of(path, port, host="s0", options=()):
    """A connected socket of the client's for a service (or, on a plain path, for the host itself)."""
    with path.bed.inside("client"):
        connection = socket.socket()
    with connection:
        for option in options:
            connection.setsockopt(*option)
        connection.settimeout(PATIENCE)
        connection.connect(path.address_of(port, host))
        yield connection


def receive(connection, octets):
    """So many octets, or fewer if the connection ends before."""
    received = bytearray()
    while len(received) < octets and (part := connection.recv(octets - len(received))):
        received += part
    return bytes(received)


def receive_all(connection):
    """What comes until the other side closes."""
    received = bytearray()
    while part := connection.recv(1 << 20):
        received += part
    return bytes(received)
