"""Runs peers/transfer.py on the hosts of a PathBed: one transfer after the other, checked, with the kernels' counters."""
import hashlib
import json
import pathlib
import queue
import random
import subprocess
import sys
import threading

PROGRAM = pathlib.Path(__file__).with_name("transfer.py")
COUNTERS = {"PAWS drops": ("TcpExt", "PAWSEstab"), "challenge ACKs": ("TcpExt", "TCPChallengeACK"),
            "SYN challenges": ("TcpExt", "TCPSYNChallenge"), "checksum errors": ("Tcp", "InCsumErrors"),
            "time-outs": ("TcpExt", "TCPTimeouts"), "retransmitted": ("Tcp", "RetransSegs")}
"""What nstat shows of a host, by the name used here: group and counter of /proc/net/netstat and /proc/net/snmp."""


class Octets:
    """A file with so many octets that look random but are always the same, and its SHA-256."""

    def __init__(self, folder, octets):
        self.file = pathlib.Path(folder) / "octets"
        self.octets = octets
        digest = hashlib.sha256()
        source = random.Random(octets)
        with open(self.file, "wb") as file:
            for start in range(0, octets, 1 << 20):
                part = source.randbytes(min(1 << 20, octets - start))
                file.write(part)
                digest.update(part)
        self.sha256 = digest.hexdigest()


class TransferFailed(Exception):
    """A transfer did not end, or what arrived is not what was sent."""


class TransferServer:
    """The serving program on a host of a PathBed; a context manager."""

    def __init__(self, path, port, content, host="s0", congestion="cubic"):
        self.path, self.port, self.content, self.host, self.congestion = path, port, content, host, congestion
        self._reports = queue.Queue()

    def __enter__(self):
        self._process = self.path.bed.run_in(
            self.host, [sys.executable, PROGRAM, "--congestion", self.congestion, "serve", self.port, self.content.file],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        threading.Thread(target=self._read, daemon=True).start()
        self._report(10)
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.wait()

    def _read(self):
        with self._process.stdout as lines:
            for line in lines:
                self._reports.put(json.loads(line))

    def _report(self, seconds):
        try:
            return self._reports.get(timeout=seconds)
        except queue.Empty:
            raise TransferFailed(f"the server on {self.host} has said nothing for {seconds} seconds") from None

    def transfer(self, way, octets=None, seconds=180):
        """Moves octets "up" (to the server) or "down"; raises TransferFailed unless they arrive whole.

        Returns a dict: `rate` in octets a second as the client saw it, and what `sender` and `receiver` reported.
        """
        octets = octets or self.content.octets
        address, port = self.path.address_of(self.port, self.host)
        client = self.path.bed.run_in(
            "client", [sys.executable, PROGRAM, "--congestion", self.congestion, "ask", address, port, way, octets,
                       self.content.file], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            out, errors = client.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            client.kill()
            client.communicate()
            raise TransferFailed(f"{octets} octets {way} have not arrived within {seconds} seconds") from None
        if client.returncode != 0:
            raise TransferFailed(f"{octets} octets {way}: the client ended with {client.returncode}: {errors[-1000:]}")
        ours, other = json.loads(out), self._report(30)
        reports = {each["role"]: each for each in (ours, other)}
        if set(reports) != {"sender", "receiver"}:
            raise TransferFailed(f"{octets} octets {way}: {other}")
        receiver = reports["receiver"]
        whole = self.content.sha256 if octets == self.content.octets else _sha256_of_start(self.content.file, octets)
        if (receiver["octets"], receiver["sha256"]) != (octets, whole):
            raise TransferFailed(f"of {octets} octets {way}, {receiver['octets']} arrived"
                                 + (", and not the same" if receiver["octets"] == octets else ""))
        return {"rate": octets / ours["seconds"], "seconds": ours["seconds"], **reports}


def _sha256_of_start(file, octets):
    with open(file, "rb") as content:
        return hashlib.sha256(content.read(octets)).hexdigest()


def kernel_counters(path, hosts=None):
    """Returns what the kernels of the hosts (all, unless told) have counted so far, added up: a dict by COUNTERS."""
    total = dict.fromkeys(COUNTERS, 0)
    for host in hosts or ("client", *path.hosts):
        groups = {}
        with path.bed.inside(host):
            for file in ("netstat", "snmp"):
                lines = pathlib.Path("/proc/thread-self/net", file).read_text().splitlines()
                for names, values in zip(lines[::2], lines[1::2]):
                    groups[names.partition(":")[0]] = dict(zip(names.split()[1:], map(int, values.split()[1:])))
        for name, (group, counter) in COUNTERS.items():
            total[name] += groups[group][counter]
    return total


def grown(before, after):
    """By how much each counter has grown."""
    return {name: after[name] - before[name] for name in before}
