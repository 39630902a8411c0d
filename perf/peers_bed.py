"""The bed of perf/peers.py: a client and a server, and between them a lane for each peer, all of them there at once.

    client c1 10.1.1.2 ── pc 10.1.1.1 [ peer in a namespace of its own ] ps 10.2.1.1 ── s1 10.2.1.2 server
    client c2 10.1.2.2 ── pc 10.1.2.1 [ the next one                   ] ps 10.2.2.1 ── s2 10.2.2.2 server

A lane is two veth pairs; where DPDK makes TAPs, these are moved to client and server instead. Lane 0 is direct: one veth
pair from client to server. Peers that run are stopped (SIGSTOP) unless it is their turn, so that they take nothing of it.
"""
import contextlib
import json
import os
import pathlib
import select
import shutil
import signal
import subprocess
import sys
import time

from pyroute2.ethtool.ioctl import IoctlEthtool

from pipeline import bed_register, network_namespace
from pipeline.errors import RunError

ENDS = pathlib.Path(__file__).with_name("kernel_ends.py")
ROOT = pathlib.Path(__file__).resolve().parents[1]
PATIENCE = 450
"""Seconds that a program may take to start: kernels may have to be compiled."""
KERNEL = {"ipv4/ip_local_port_range": "1024 65535", "ipv4/tcp_tw_reuse": "1", "ipv4/tcp_no_metrics_save": "1",
          "ipv6/conf/all/disable_ipv6": "1", "ipv6/conf/default/disable_ipv6": "1", "core/somaxconn": "4096",
          "ipv4/tcp_max_syn_backlog": "4096"}


class BedFailed(RunError):
    """The bed, or a program on it, does not do what it has to; the message says which and why."""


def run(*command):
    """Runs a command; raises BedFailed with what it said."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BedFailed(f"{' '.join(map(str, command))}: {done.stderr.strip()}")


class Program:
    """A program in a namespace; a context manager. It is over when this process is. `output` is where it writes."""

    def __init__(self, namespace, command, output, talks=False):
        self.output = output
        with open(output, "wb") as written:
            self.process = subprocess.Popen(
                ["nsenter", f"--net={network_namespace.path(namespace)}", "setpriv", "--pdeathsig", "KILL", "--",
                 *map(str, command)], stdin=subprocess.PIPE, stdout=subprocess.PIPE if talks else written,
                stderr=written if talks else subprocess.STDOUT, start_new_session=True, cwd=ROOT)

    def wait_until(self, is_ready):
        """Waits until `is_ready()`; raises BedFailed with the last words of a program that ends instead."""
        deadline = time.monotonic() + PATIENCE
        while not is_ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise BedFailed(f"it has {'ended' if self.process.poll() is not None else 'not become ready'}: {self.words()}")
            time.sleep(0.05)

    def has_said(self, words):
        """Says whether it has written that."""
        return words in self.output.read_text(errors="replace")

    def words(self):
        """Returns the last line that it has written."""
        lines = [line.strip() for line in self.output.read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1] if lines else "it said nothing"

    def ask(self, order, seconds):
        """Hands it an order (dict) and returns its answer (dict)."""
        self.process.stdin.write(json.dumps(order).encode() + b"\n")
        self.process.stdin.flush()
        return json.loads(self.next_line(seconds))

    def next_line(self, seconds):
        """Returns the next line (bytes) of one that `talks`; raises BedFailed if none comes within so many seconds."""
        readable, _, _ = select.select([self.process.stdout], [], [], seconds)
        line = self.process.stdout.readline() if readable else b""
        if not line:
            raise BedFailed(f"the client does not answer: {self.words()}")
        return line

    def signal(self, number):
        """Sends it a signal."""
        if self.process.poll() is not None:
            raise BedFailed(f"it ended with {self.process.returncode}: {self.words()}")
        self.process.send_signal(number)

    def threads(self):
        """Returns its threads (list of int)."""
        with contextlib.suppress(FileNotFoundError):
            return list(map(int, os.listdir(f"/proc/{self.process.pid}/task")))
        return []

    def pin(self, core):
        """Puts all its threads on a core."""
        for thread in self.threads():
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(thread, {core})

    def yield_to_others(self):
        """Has the kernel run it only when the core has nothing else to do (SCHED_IDLE)."""
        for thread in self.threads():
            os.sched_setscheduler(thread, os.SCHED_IDLE, os.sched_param(0))

    def cpu_seconds(self):
        """Returns the time that it has been on a core, softirqs in its time included, by the scheduler's clock."""
        return sum(ran(f"/proc/{self.process.pid}/task/{thread}/schedstat") for thread in self.threads())

    def close(self):
        """Ends it."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


def ran(schedstat):
    """Returns the seconds that a thread has run, of its schedstat; 0 if it has ended."""
    try:
        return int(pathlib.Path(schedstat).read_text().split()[0]) / 1e9
    except (FileNotFoundError, ProcessLookupError):
        return 0.0


def softirq_seconds(core):
    """Returns the time that the core's ksoftirqd has run, where packets go that came in while others did."""
    for entry in pathlib.Path("/proc").glob("[0-9]*/comm"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if entry.read_text().strip() == f"ksoftirqd/{core}":
                return ran(entry.with_name("schedstat"))
    return 0.0


class Bed:
    """The namespaces and the two ends; a context manager. `lanes` has the numbers of the lanes by their names.

    `folder` is for the files of all programs; it goes with the bed, if need be when the next bed is made.
    """

    def __init__(self):
        self.name, self.lanes = f"peers{os.getpid()}", {}
        self._around = contextlib.ExitStack()

    def __enter__(self):
        bed_register.clear_leftovers(lambda words: None)
        self._entry = bed_register.Entry(self.name)
        try:
            self._entry.folder = bed_register.temporary_folder()
            self._entry.write()
            self.folder = pathlib.Path(self._entry.folder)
            for place in ("client", "server"):
                self.add_namespace(place)
            self._veth("client", "c0", "10.3.0.2/24", "server", "s0", "10.3.0.3/24")
            self.server = self.program("server", [sys.executable, ENDS, "serve"], "server")
            self.server.wait_until(lambda: self.server.has_said("ready"))
            self.client = self.program("client", [sys.executable, ENDS, "ask"], "client", talks=True)
            self.client.next_line(PATIENCE)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self._around.close()
        for namespace in self._entry.namespaces:
            network_namespace.delete(namespace)
        if self._entry.folder:
            shutil.rmtree(self._entry.folder, ignore_errors=True)
        self._entry.close()

    def namespace(self, place):
        """Returns the namespace's name for `client`, `server` or a lane."""
        return f"{self.name}-{place}"

    def add_namespace(self, place):
        """Makes a namespace, with settings of its kernel that many connections need."""
        name = self.namespace(place)
        self._entry.namespaces.append(name)
        self._entry.write()
        network_namespace.create(name)
        self.set_kernel(place, KERNEL)
        run("ip", "-n", name, "link", "set", "lo", "up")

    def set_kernel(self, place, settings):
        """Writes settings ("ipv4/ip_forward": "1") of a namespace's kernel, those that it has."""
        with network_namespace.entered(self.namespace(place)):
            for setting, value in settings.items():
                file = pathlib.Path("/proc/sys/net") / setting
                if file.exists():
                    file.write_text(value)

    def add_lane(self, name, taps=False):
        """Makes the namespace and the veth pairs of a lane; for one with TAPs `take_taps` has to follow. Returns its number."""
        number = self.lanes[name] = len(self.lanes) + 1
        self.add_namespace(name)
        if not taps:
            self._veth("client", f"c{number}", f"10.1.{number}.2/24", name, "pc", None)
            self._veth("server", f"s{number}", f"10.2.{number}.2/24", name, "ps", None)
            self._see_through(number)
        return number

    def take_taps(self, name):
        """Moves the TAPs that a peer has made (tc, ts) to client and server."""
        number = self.lanes[name]
        for tap, place, end, address in (("tc", "client", f"c{number}", f"10.1.{number}.2/24"),
                                         ("ts", "server", f"s{number}", f"10.2.{number}.2/24")):
            run("ip", "-n", self.namespace(name), "link", "set", tap, "netns", self.namespace(place), "name", end)
            self._up(place, end, address)
        self._see_through(number)

    def _see_through(self, number):
        """What is on the other side is on the link where the peer is a wire, and routed by DNAT."""
        run("ip", "-n", self.namespace("client"), "route", "add", f"10.2.{number}.0/24", "dev", f"c{number}")
        run("ip", "-n", self.namespace("server"), "route", "add", f"10.1.{number}.0/24", "dev", f"s{number}")

    def give_addresses(self, name):
        """Gives the kernel of a lane the addresses of a proxy; the server reaches clients by it."""
        number = self.lanes[name]
        for end, network in (("pc", 1), ("ps", 2)):
            run("ip", "-n", self.namespace(name), "address", "add", f"10.{network}.{number}.1/24", "dev", end)
        run("ip", "-n", self.namespace("server"), "route", "replace", f"10.1.{number}.0/24", "via", f"10.2.{number}.1")

    def _veth(self, place, end, address, other_place, other_end, other_address):
        run("ip", "link", "add", end, "netns", self.namespace(place), "type", "veth", "peer", other_end, "netns",
            self.namespace(other_place))
        for where, name, given in ((place, end, address), (other_place, other_end, other_address)):
            self.set_offloads(where, name, False)
            self._up(where, name, given)

    def _up(self, place, end, address):
        if address is not None:
            run("ip", "-n", self.namespace(place), "address", "add", address, "dev", end)
        run("ip", "-n", self.namespace(place), "link", "set", end, "up")

    def set_offloads(self, place, end, on):
        """Has the kernel fill in checksums and cut segments itself, or leave both to the other end of a veth."""
        with network_namespace.entered(self.namespace(place)):
            ethtool = IoctlEthtool(end)
            features = ethtool.get_features()
            features["tx-checksum-ip-generic"] = on
            ethtool.set_features(features)

    def set_lane_offloads(self, number, on):
        """The same for the ends of a lane (0: direct)."""
        name = next((name for name, each in self.lanes.items() if each == number), None)
        inner = [] if name is None else [(name, "pc"), (name, "ps")]
        for place, end in [("client", f"c{number}"), ("server", f"s{number}"), *inner]:
            self.set_offloads(place, end, on)

    def program(self, place, command, name, talks=False):
        """Starts a program in a namespace; the bed ends it."""
        started = Program(self.namespace(place), command, self.folder / f"{name}.output", talks)
        self._around.callback(started.close)
        return started

    def ask(self, what, address, seconds, at_once):
        """Has the client load an address; returns what it found (dict)."""
        return self.client.ask({"do": what, "address": address, "seconds": seconds, "at_once": at_once}, seconds + 30)


@contextlib.contextmanager
def awake(program):
    """A stopped program goes on for the length of a `with`; None is a peer within the kernel."""
    if program is not None:
        program.signal(signal.SIGCONT)
    try:
        yield
    finally:
        if program is not None:
            program.signal(signal.SIGSTOP)

