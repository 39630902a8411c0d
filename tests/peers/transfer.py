"""A program that moves bulk data over one connection at a time, and says how it went; needs nothing but Python.

    transfer.py serve PORT FILE                      serves for ever
    transfer.py ask ADDRESS PORT up|down OCTETS FILE moves so many octets of FILE, to the server or from it

Each connection begins with a line that the client sends: which way, and how many octets. Both programs print a JSON
document a line and connection. The sender's has what the kernel said about its connection (TCP_INFO, sampled), the
receiver's has the SHA-256 of what it got; the client's has the seconds from before it connected until all had arrived.
"""
import argparse
import hashlib
import json
import socket
import statistics
import struct
import threading
import time

TCP_CONGESTION = 13
SAMPLE_EVERY = 0.01
"""Seconds between two looks at what is in flight."""
PATIENCE = 120.0
"""Seconds without any progress after which a connection is given up."""
OPTIONS = {1: "timestamps", 2: "sack", 4: "wscale"}
"""Bits of tcpi_options (linux/tcp.h)."""
TCP_INFO_WORDS = struct.Struct("=8B24I")


def tcp_info(connection):
    """What the kernel says of a connection (tcp(7), struct tcp_info in linux/tcp.h), as a dict."""
    octets = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_WORDS.size)
    small, words = TCP_INFO_WORDS.unpack(octets)[:8], TCP_INFO_WORDS.unpack(octets)[8:]
    return {"options": sorted(name for bit, name in OPTIONS.items() if small[5] & bit),
            "scale_of_peer": small[6] & 0x0F, "scale": small[6] >> 4,
            "segment": words[2], "unacknowledged": words[4], "window": words[18], "round_trip_us": words[15],
            "retransmitted": words[23]}


class InFlight:
    """Samples what a connection has in flight, from a thread of its own, until `end`."""

    def __init__(self, connection):
        self._connection = connection
        self._samples = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def _sample(self):
        while not self._ended.wait(SAMPLE_EVERY):
            try:
                info = tcp_info(self._connection)
            except OSError:
                return
            self._samples.append((info["unacknowledged"] * info["segment"], info["window"] * info["segment"],
                                  info["round_trip_us"]))

    def end(self):
        """What was seen: the median of the later half of all samples, and the most (octets, microseconds)."""
        self._ended.set()
        self._thread.join()
        later = self._samples[len(self._samples) // 2:] or [(0, 0, 0)]
        in_flight, window, round_trip = (int(statistics.median(column)) for column in zip(*later))
        most = max((sample[0] for sample in self._samples), default=0)
        return {"in_flight": in_flight, "in_flight_most": most, "window": window, "round_trip_us": round_trip}


def send(connection, file, octets):
    """Sends so many octets of `file` and the FIN behind them; returns the sender's report."""
    flight = InFlight(connection)
    begun = time.monotonic()
    with open(file, "rb") as content:
        sent = connection.sendfile(content, 0, octets)
    info = tcp_info(connection)
    report = {"role": "sender", "octets": sent, "seconds_to_send": time.monotonic() - begun, **info, **flight.end()}
    connection.shutdown(socket.SHUT_WR)
    return report


def receive(connection, octets, already=b""):
    """Receives up to so many octets, or to the end; returns (a bytearray, how many are in it)."""
    buffer = bytearray(octets + 1)
    view, have = memoryview(buffer), len(already)
    view[:have] = already
    while have <= octets:
        count = connection.recv_into(view[have:])
        if count == 0:
            break
        have += count
    return view, have


def received_report(connection, view, have):
    """The receiver's report."""
    return {"role": "receiver", "octets": have, "sha256": hashlib.sha256(view[:have]).hexdigest(), **tcp_info(connection)}


def say(report):
    """Prints a report."""
    print(json.dumps(report), flush=True)


def serve_one(connection, file):
    """Does what the first line of a connection asks for."""
    line = b""
    while not line.endswith(b"\n"):
        octet = connection.recv(1)
        if not octet:
            return
        line += octet
    way, octets = line.decode().split()
    if way == "down":
        report = send(connection, file, int(octets))
        while connection.recv(4096):
            pass
    else:
        view, have = receive(connection, int(octets))
        connection.sendall(b"got %d\n" % have)
        report = received_report(connection, view, have)
    say(report)


def serve(port, file, congestion):
    """Serves one connection after the other."""
    listening = socket.create_server(("0.0.0.0", port))
    listening.setsockopt(socket.IPPROTO_TCP, TCP_CONGESTION, congestion.encode())
    say({"role": "server", "port": port})
    while True:
        connection, _ = listening.accept()
        connection.settimeout(PATIENCE)
        with connection:
            try:
                serve_one(connection, file)
            except OSError as error:
                say({"role": "failed", "why": str(error)})


def ask(address, way, octets, file, congestion):
    """Moves `octets` one way over a connection of its own."""
    with socket.socket() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, TCP_CONGESTION, congestion.encode())
        connection.settimeout(PATIENCE)
        begun = time.monotonic()
        connection.connect(address)
        connection.sendall(f"{way} {octets}\n".encode())
        if way == "down":
            view, have = receive(connection, octets)
            seconds = time.monotonic() - begun
            report = received_report(connection, view, have)
        else:
            report = send(connection, file, octets)
            answer = connection.makefile("rb").readline()
            seconds = time.monotonic() - begun
            report["answer"] = answer.decode().strip()
        say({**report, "seconds": seconds})


def main():
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--congestion", default="cubic")
    commands = parser.add_subparsers(dest="command", required=True)
    server, client = commands.add_parser("serve"), commands.add_parser("ask")
    server.add_argument("port", type=int)
    server.add_argument("file")
    client.add_argument("address")
    client.add_argument("port", type=int)
    client.add_argument("way", choices=("up", "down"))
    client.add_argument("octets", type=int)
    client.add_argument("file")
    chosen = parser.parse_args()
    if chosen.command == "serve":
        serve(chosen.port, chosen.file, chosen.congestion)
    else:
        ask((chosen.address, chosen.port), chosen.way, chosen.octets, chosen.file, chosen.congestion)


if __name__ == "__main__":
    main()
