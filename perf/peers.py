"""What a connection through the engine costs on real kernel stacks, beside HAProxy, nginx, nftables and testpmd.

    python perf/peers.py                      a table, in some minutes (as root)
    python perf/peers.py --devices af_packet --runs 3 --seconds 0.5
    python perf/peers.py --json               one JSON document

All peers stand on one bed at once (perf/peers_bed.py) and take turns; whose turn it is not, is stopped. Client and server
are kernel sockets driven by compiled loops (perf/kernel_ends.py), so that the kernel's TCP is the limit and no program is.

One core: client, server and peer share a core, which is never idle then, and 1 / (connections a second) is what the machine
spends on one; less the same without a peer (direct), it is what the peer costs. Beside it, what the scheduler's clock
charged all of them and ksoftirqd: that holds on a machine too that others use, as long as the peer does not poll for
nothing while it is kept waiting. testpmd does, always; so the device's cost is shown by the engine as a plain wire too.

Two cores: the peer has a core, client and server share the other.

What this bed can show is what a connection costs and how long a request takes. It cannot show what the engine can do: the
kernel's end points are the limit, at 10 to 17 thousand connections a second (perf/cps.py and perf/forward.py have no kernel
in them). No difference under 30 % between single runs means anything; ratios of medians of runs in turns do.
"""
import contextlib
import functools
import os

import click
import measurement
import numpy as np
from peers_bed import Bed, BedFailed, awake, softirq_seconds
from peers_started import DEVICES, Peer, missing

from pipeline.errors import RunError

DIRECT = "direct"
KERNEL_PEERS = ("dnat", "haproxy", "nginx")
DPDK_PEERS = ("testpmd", "wire", "engine")
TOGETHER, BUSY, STREAMS = 64, 16, 4
"""Connections at once: while they are counted; for requests of many; for octets."""
ABOVE_DEVICE, OF_PROXIES = 10.0, 0.5
"""What issue 4 asks of the engine: microseconds above testpmd at most, and the share of HAProxy's and nginx's at most."""
SAID = {"direct": "no peer", "dnat": "nftables DNAT", "haproxy": "HAProxy, mode tcp", "nginx": "nginx stream",
        "testpmd": "testpmd io", "wire": "engine, a plain wire", "engine": "engine"}


def label(name):
    """Returns a peer's name for people."""
    kind, _, device = name.partition(" ")
    return f"{SAID[kind]}{', ' if ',' in SAID[kind] and device else ' ' if device else ''}{device}"


class Turns:
    """The peers that are there, and what a turn of one comes to. `failed` counts connections that did not end well."""

    def __init__(self, bed, peers, seconds):
        self.bed, self.peers, self.seconds = bed, peers, seconds
        self.failed = dict.fromkeys(peers, 0)
        self.core = next(iter(peers.values())).core

    def pin_ends(self, core):
        """Puts client and server on a core."""
        self.bed.client.pin(core)
        self.bed.server.pin(core)

    def ask(self, peer, what, at_once, seconds=None):
        """Returns what the client found (dict); raises BedFailed if nothing came through."""
        found = self.bed.ask(what, peer.address, seconds or self.seconds, at_once)
        self.failed[peer.name] += found["failed"]
        if found["completed"] == 0:
            raise BedFailed(f"{peer.name}: nothing came through ({what})")
        return found

    def one_core(self, peer):
        """Returns connections a second and the microseconds of CPU time that the scheduler charged for one."""
        programs = [program for program in (self.bed.client, self.bed.server, peer.program) if program is not None]
        with awake(peer.program):
            before = sum(program.cpu_seconds() for program in programs) + softirq_seconds(self.core)
            found = self.ask(peer, "connections", TOGETHER)
            charged = sum(program.cpu_seconds() for program in programs) + softirq_seconds(self.core) - before
        return found["completed"] / found["seconds"], charged * 1e6 / found["completed"]

    def two_cores(self, peer):
        """Returns connections a second, microseconds (p50 and p99: to an answer from connect, to one by one and many at once),
        and gigabits a second without and with offloads (NaN where frames go through DPDK)."""
        with awake(peer.program):
            opened = self.ask(peer, "connections", TOGETHER)
            spans = [opened["p50"] / 1e3, opened["p99"] / 1e3, *self.asked_and_answered(peer)]
            rates = [self.gigabits(peer), float("nan")]
            if peer.in_kernel_stack:
                self.bed.set_lane_offloads(peer.number, True)
                try:
                    rates[1] = self.gigabits(peer)
                finally:
                    self.bed.set_lane_offloads(peer.number, False)
        return opened["completed"] / opened["seconds"], *spans, *rates

    def round_trips(self, peer):
        """Returns the microseconds of a request (p50, p99), one at a time and BUSY at once."""
        with awake(peer.program):
            return self.asked_and_answered(peer)

    def asked_and_answered(self, peer):
        """The same of a peer that is awake."""
        found = [self.ask(peer, "requests", at_once) for at_once in (1, BUSY)]
        return [each[share] / 1e3 for each in found for share in ("p50", "p99")]

    def gigabits(self, peer):
        """Returns how many gigabits a second of payload reach the server."""
        found = self.ask(peer, "bulk", STREAMS)
        return found["octets"] * 8e-9 / found["seconds"]


TWO_CORES = ("connections", "answered_p50", "answered_p99", "alone_p50", "alone_p99", "busy_p50", "busy_p99", "gigabits",
             "gigabits_offloaded")
"""What `two_cores` returns, in order."""


def stand(bed, kinds, devices, core, say):
    """Returns the peers that stand (dict by name) and sentences about those that do not (dict by name)."""
    peers, absent, known = {DIRECT: Peer(bed, DIRECT, None, core)}, {}, set()
    wanted = [(kind, None) for kind in KERNEL_PEERS] + [(kind, device) for device in devices for kind in DPDK_PEERS]
    for kind, device in wanted:
        if kinds and kind not in kinds:
            continue
        if reason := missing(kind):
            absent[kind] = reason
            continue
        say(f"starting {kind} {device or ''}".rstrip())
        with absence(absent, kind if device is None else f"{kind} {device}"):
            peer = Peer(bed, kind, device, core)
            if kind not in known:  # the first of a kind compiles its loop, the others find it compiled
                peer.wait()
            known.add(kind)
            peers[peer.name] = peer
    waiting = [peer for peer in peers.values() if peer.program is not None and not peer.ready]
    for peer in waiting:
        with absence(absent, peer.name):
            peer.wait()
        if not peer.ready:
            del peers[peer.name]
    return peers, absent


@contextlib.contextmanager
def absence(absent, name):
    """Notes why a peer cannot be started, and goes on without it."""
    try:
        yield
    except RunError as error:
        absent[name] = f"it does not start: {error}"


def compared(alone, together, turns):
    """Returns the rows of the result (dict by peer) of what `in_turns` returned for one core and for two."""
    rows, direct = {}, alone[DIRECT]
    for name, peer in turns.peers.items():
        taken, wide = alone[name], together[name]
        rows[name] = {
            "kind": peer.kind, "device": peer.device, "failed": turns.failed[name],
            "one_core": {"connections": measurement.quartiles(taken[:, 0]),
                         "microseconds": measurement.quartiles(1e6 / taken[:, 0] - 1e6 / direct[:, 0]),
                         "charged": measurement.quartiles(taken[:, 1] - direct[:, 1])},
            "two_cores": {key: measurement.quartiles(wide[:, place]) for place, key in enumerate(TWO_CORES)
                          if not np.isnan(wide[:, place]).any()}}
    return rows


def goals(rows):
    """Returns what issue 4 asks, for the best device (list of dict: what, value, most, reached); without `most` it is only told."""
    cost = {name: row["one_core"]["microseconds"]["median"] for name, row in rows.items()}
    engines = [name for name, row in rows.items() if row["kind"] == "engine"]
    if not engines:
        return []
    best = min(engines, key=cost.get)
    device, found = rows[best]["device"], []

    def ask(what, value, most):
        found.append({"what": what, "value": round(value, 2), "most": most and round(most, 2),
                      "reached": None if most is None else bool(value <= most)})

    for name, most in ((f"testpmd {device}", ABOVE_DEVICE), (f"wire {device}", None)):
        if name in rows:
            ask(f"{best}: µs a connection above {label(name)}", cost[best] - cost[name], most)
    for name, most in (("haproxy", OF_PROXIES), ("nginx", OF_PROXIES), ("dnat", None)):
        if name in rows:
            ask(f"{best}: µs a connection, as a share of {label(name)}'s", cost[best] / cost[name], most)
    if "haproxy" in rows:
        for key, words in (("alone_p99", "one request at a time"), ("busy_p99", f"{BUSY} at once")):
            least = min(engines, key=lambda name: rows[name]["two_cores"][key]["median"])
            ask(f"{least}: p99 of a request in µs, {words}, below HAProxy's", rows[least]["two_cores"][key]["median"],
                rows["haproxy"]["two_cores"][key]["median"])
    return found


def show(console, result):
    """Prints the result as tables."""
    rows = result["peers"]
    console.print(measurement.table(
        "All on one core: connect, 32 octets, 64 back, close; µs of CPU time a connection, less direct",
        ("", "connections/s", "µs by their rate", "µs by the scheduler"),
        [(label(name), measurement.spread(row["one_core"]["connections"], 0), measurement.spread(row["one_core"]["microseconds"]),
          measurement.spread(row["one_core"]["charged"])) for name, row in rows.items()]))

    def pair(row, key):
        return " / ".join(f"{row['two_cores'][f'{key}_{share}']['median']:,.0f}" for share in ("p50", "p99"))

    def rate(row, key):
        cell = row["two_cores"].get(key)
        return "-" if cell is None else f"{cell['median']:.1f}"

    console.print(measurement.table(
        "The peer on a core of its own: µs p50 / p99; Gbit/s of payload, offloads (checksums, TSO) off and on",
        ("", "connections/s", "connect to answer", "request alone", f"{BUSY} at once", "off", "on"),
        [(label(name), measurement.spread(row["two_cores"]["connections"], 0), pair(row, "answered"), pair(row, "alone"),
          pair(row, "busy"), rate(row, "gigabits"), rate(row, "gigabits_offloaded")) for name, row in rows.items()]))
    for goal in result["goals"]:
        verdict = "" if goal["most"] is None else f" (at most {goal['most']:,g}: {'reached' if goal['reached'] else 'MISSED'})"
        console.print(f"{goal['what']}: {goal['value']:,g}{verdict}", highlight=False)
    for name, reason in result["missing"].items():
        console.print(f"{label(name)} is missing: {reason}", highlight=False)
    if any(row["failed"] for row in rows.values()):
        console.print("Connections that failed: " + ", ".join(f"{label(name)} {row['failed']}" for name, row in rows.items()
                                                             if row["failed"]), highlight=False)
    console.print(f"Medians of {result['runs']} runs of {result['run_seconds']:g} s in turns (quartiles), {TOGETHER} connections "
                  f"at a time. {result['says']}", highlight=False)


SAYS = ("Kernel end points are the limit here: this shows what a connection costs and how long a request takes, never what the "
        "engine can do. testpmd polls without rest, which the cost by rate includes; DPDK has ordinary pages, no huge ones. "
        "Frames of DPDK's devices have no offloads; the other peers' have none either unless the column says on.")


def draw(axes, result):
    """Draws what a connection costs at each peer."""
    rows = {name: row["one_core"]["microseconds"] for name, row in result["peers"].items() if name != DIRECT}
    middle = [cell["median"] for cell in rows.values()]
    axes.barh([label(name) for name in rows], middle,
              xerr=([max(cell["median"] - cell["low"], 0) for cell in rows.values()],
                    [max(cell["high"] - cell["median"], 0) for cell in rows.values()]), alpha=0.7)
    axes.invert_yaxis()
    axes.set_xlabel("µs of CPU time a connection, above direct")
    axes.grid(alpha=0.3, axis="x")


def listed(names):
    """Returns a click callback for an option of names with commas between (list of str)."""
    def read(context, parameter, value):
        found = [name for name in value.split(",") if name]
        if wrong := set(found) - set(names):
            raise click.BadParameter(f"{', '.join(sorted(wrong))}: {', '.join(names)} are known")
        return found
    return read


@measurement.script(__doc__, show, draw, runs=7, pinned=False)
@click.option("--devices", default="af_packet,af_xdp,tap", show_default=True, callback=listed(tuple(DEVICES)),
              help="DPDK's devices.")
@click.option("--peers", default="", callback=listed((*KERNEL_PEERS, *DPDK_PEERS)), help="Only these peers.  [default: all]")
@click.option("--seconds", default=1.0, show_default=True, type=click.FloatRange(0.05, 60), help="How long a run lasts.")
def main(runs, say, devices, peers, seconds):
    """Measures."""
    if os.geteuid() != 0:
        raise click.ClickException("it makes network namespaces, which needs root")
    os.environ["PATH"] = f"{os.environ.get('PATH', '/usr/bin')}:/usr/sbin:/sbin"
    measurement.end_on_sigterm()
    cores = sorted(os.sched_getaffinity(0))
    try:
        with Bed() as bed:
            standing, absent = stand(bed, peers, devices, cores[-1], say)
            turns = Turns(bed, standing, seconds)
            turns.pin_ends(cores[-1])
            say("one core")
            alone = measurement.in_turns({name: functools.partial(turns.one_core, peer) for name, peer in standing.items()},
                                         runs, say)
            turns.pin_ends(cores[0])
            say("two cores")
            together = measurement.in_turns({name: functools.partial(turns.two_cores, peer) for name, peer in standing.items()},
                                            runs, say)
    except RunError as error:
        raise click.ClickException(str(error)) from error
    rows = compared(alone, together, turns)
    return {"run_seconds": seconds, "cores": cores[-2:], "load": {"at_once": TOGETHER, "busy": BUSY, "streams": STREAMS},
            "says": SAYS, "peers": rows, "missing": absent, "goals": goals(rows)}


if __name__ == "__main__":
    main()
