"""How fast two kernels' TCP is through the proxy, over long and lossy paths, against plain forwarding on the same path.

    python perf/path.py                       a table, in less than ten minutes (as root)
    python perf/path.py --full                100 MB each way in five runs, as issue 3 asks: twenty minutes
    python perf/path.py --case loss-1         one case alone
    python perf/path.py --json                one JSON document
    python perf/path.py --plot path.png       the tables and a picture

A client and a server, each a network namespace, exchange files through the engine's two ports (net_af_packet). Both
engines, the proxy and the plain wire (engine.mode = "forward"), run the same loop on the same core, with the same faults
at their ports; transfers take turns: plain, proxy, plain, proxy. Each transfer is a new connection with CUBIC, compared by
SHA-256 at its other end; its rate is that which the client sees, from before it connects until all has arrived.

A packet meets the faults of both ports, so each has half the rate and half the delay. In the case `delay` each packet is
50 ms under way, so a round trip takes 100 ms; the sender is Reno there, since CUBIC's HyStart takes a busy machine's
jitter for congestion and leaves slow start by chance; receivers' buffers of 16 MiB bound what is in flight.

Sizes: a transfer has to last for some seconds, so that neither slow start nor a lost SYN (1 s) decides, and the whole has
to end in ten minutes. At 5 % loss CUBIC mostly waits for time-outs (3 MB/s): 20 MB take as long as 100 MB at 1 %.
How many time-outs a run has is chance, so that at 1 and 5 % single runs differ by a factor of two: --full tells more.
"""
import contextlib
import os
import statistics
import sys
from typing import NamedTuple

import click
import measurement

sys.path.insert(0, str(measurement.ROOT / "tests"))  # the bed is that of the tests

from peers.path_bed import open_path, service
from peers.transfers import COUNTERS, Octets, TransferFailed, TransferServer, grown, kernel_counters
from pipeline.errors import RunError

PORT = 7000
MODES = ("forward", "proxy")
WAYS = ("up", "down")
FULL = 100
"""Megabytes each way in issue 3."""
IN_FLIGHT = 4_000_000
"""Octets that have to be in flight over the long path."""
QUEUE = 12288
"""Packets that may wait in a port's faults: more than the receivers' windows."""
RECEIVE_BUFFER = {"ipv4/tcp_rmem": "4096 131072 16777216"}


class Case(NamedTuple):
    """What the path does to packets: `faults` of each of the two ports; the size of a transfer; what is wanted of the ratio,
    or None where a transfer only has to arrive whole."""

    faults: dict
    megabytes: int
    wanted: float | None
    says: str
    congestion: str = "cubic"


def cases(delay):
    """Returns the cases by name; `delay` is in milliseconds."""
    return {
        "delay": Case({"delay": delay / 2000, "queue": QUEUE}, 200, 0.9, f"{delay:g} ms", "reno"),
        "loss-0.1": Case({"loss": 0.0005}, 100, 0.9, "0.1 % lost"),
        "loss-1": Case({"loss": 0.005}, 100, 0.9, "1 % lost"),
        "loss-5": Case({"loss": 0.025}, 20, 0.8, "5 % lost"),
        "duplicate": Case({"duplicate": 0.005}, 100, None, "1 % repeated"),
        "reorder": Case({"reorder": 0.005, "reorder_delay": 0.001}, 100, None, "1 % late by 1 ms"),
        "flip": Case({"flip": 0.005}, 50, None, "1 % with a bit flipped"),
    }


def measure(case, megabytes, runs, say):
    """Returns what the runs of a case came to (dict, JSON-able). Raises TransferFailed where octets are not right."""
    taken = {way: {mode: [] for mode in MODES} for way in WAYS}
    counted = {mode: dict.fromkeys(COUNTERS, 0) for mode in MODES}
    with contextlib.ExitStack() as around:
        servers, content = {}, None
        for mode in MODES:
            path = around.enter_context(open_path(mode, [service(PORT)], mode=mode, faults=case.faults,
                                                  timeouts={"established": 120.0}))
            for host in ("client", *path.hosts) if case.faults.get("delay") else ():
                path.set_kernel(host, RECEIVE_BUFFER)
            content = content or Octets(path.folder, megabytes * 1_000_000)
            servers[mode] = around.enter_context(TransferServer(path, PORT, content, congestion=case.congestion))
        for run in range(runs):
            for way in WAYS:
                for mode in MODES:
                    path = servers[mode].path
                    before = kernel_counters(path)
                    taken[way][mode].append(servers[mode].transfer(way, seconds=300))
                    for name, count in grown(before, kernel_counters(path)).items():
                        counted[mode][name] += count
            say(f"{case.says}, run {run + 1} of {runs}: " + ", ".join(
                f"{way} {taken[way]['forward'][-1]['rate'] / 1e6:.1f} and {taken[way]['proxy'][-1]['rate'] / 1e6:.1f} MB/s"
                for way in WAYS))
        overflowed = sum(line["overflowed"] for server in servers.values() for port in server.path.engine.stats()["ports"]
                         for line in port["faults"].values())
    return {"says": case.says, "megabytes": megabytes, "runs": runs, "faults_of_each_port": case.faults,
            "congestion": case.congestion, "wanted": case.wanted, "overflowed": overflowed, "counters": counted,
            "more": [name for name in COUNTERS if more_than(counted["forward"][name], counted["proxy"][name])],
            "ways": {way: compared(taken[way], case.wanted) for way in WAYS}}


def compared(taken, wanted):
    """What the proxy's transfers of one way are to the plain ones (dict)."""
    rates = {mode: [transfer["rate"] / 1e6 for transfer in taken[mode]] for mode in MODES}
    pairs = [proxy / plain for plain, proxy in zip(rates["forward"], rates["proxy"], strict=True)]
    ratio = statistics.median(rates["proxy"]) / statistics.median(rates["forward"])
    senders = [transfer["sender"] for transfer in taken["proxy"]]
    return {
        "rates": {mode: [round(rate, 2) for rate in rates[mode]] for mode in MODES},
        "median": {mode: round(statistics.median(rates[mode]), 2) for mode in MODES},
        "ratio": round(ratio, 3), "ratio_of_pairs": {"low": round(min(pairs), 3), "median": round(statistics.median(pairs), 3),
                                                     "high": round(max(pairs), 3)},
        "enough": wanted is None or ratio >= wanted,
        "in_flight": int(statistics.median(sender["in_flight"] for sender in senders)),
        "in_flight_most": max(sender["in_flight_most"] for sender in senders),
        "window": int(statistics.median(sender["window"] for sender in senders)),
        "round_trip_us": int(statistics.median(sender["round_trip_us"] for sender in senders)),
        "options": sorted({option for transfer in taken["proxy"] for end in ("sender", "receiver")
                           for option in transfer[end]["options"]}),
    }


def more_than(plain, proxy):
    """Whether the proxy's count is more than chance makes of the plain one: by three deviations of their difference."""
    return proxy > plain + 3 * (plain + proxy) ** 0.5


def show(console, result):
    """Prints the result as tables."""
    rates = []
    for case in result["cases"].values():
        for way, row in case["ways"].items():
            pairs = row["ratio_of_pairs"]
            rates.append((case["says"] if way == "up" else "", case["megabytes"] if way == "up" else "", way,
                          *(f"{row['median'][mode]:.1f}" for mode in MODES), f"{row['ratio']:.2f}",
                          f"{pairs['low']:.2f}-{pairs['high']:.2f}", case["wanted"] or "-", "ok" if row["enough"] else "LESS",
                          f"{row['in_flight'] / 1e6:.1f}", f"{row['round_trip_us'] / 1e3:.1f}"))
    console.print(measurement.table("Transfers through the proxy and plainly forwarded, MB/s", (
        "path", "MB", "way", "plain", "proxy", "ratio", "pairs", "wanted", "", "in flight", "rtt ms"), rates))
    console.print(f"MB/s: medians of {result['runs']} runs in turns; pairs: the least and the largest ratio of two runs that "
                  "followed one another. In flight: MB that the proxy's sender had unacknowledged, median of the later half.")
    counted = []
    for case in result["cases"].values():
        plain, proxy = (case["counters"][mode] for mode in MODES)
        counted.append((case["says"], *(f"{plain[name]:,} / {proxy[name]:,}" + (" MORE" if name in case["more"] else "")
                                        for name in COUNTERS)))
    console.print(measurement.table("What both kernels counted in all runs (nstat): plain / proxy", ("path", *COUNTERS), counted))
    console.print("MORE: by more than three standard deviations of two counts that differ by chance.")
    if any(case["overflowed"] for case in result["cases"].values()):
        console.print("Queues of the fault stage overflowed: what was lost there was lost to both.")
    if "delay" in result["cases"]:
        least = min(row["in_flight"] for row in result["cases"]["delay"]["ways"].values())
        console.print(f"Over the long path {least / 1e6:.1f} MB were in flight at least; {IN_FLIGHT / 1e6:.0f} MB are wanted.")
    console.print("Every transfer arrived whole (SHA-256).")


def draw(axes, result):
    """Draws the ratio of the proxy's rate to the plain one for each case and way, with the single pairs' range."""
    for place, (way, marker) in enumerate(zip(WAYS, "^v", strict=True)):
        rows = [case["ways"][way] for case in result["cases"].values()]
        at = [number + 0.15 * (place - 0.5) for number in range(len(rows))]
        ratios = [row["ratio"] for row in rows]
        least = [max(ratio - row["ratio_of_pairs"]["low"], 0) for ratio, row in zip(ratios, rows, strict=True)]
        most = [max(row["ratio_of_pairs"]["high"] - ratio, 0) for ratio, row in zip(ratios, rows, strict=True)]
        axes.errorbar(at, ratios, [least, most], fmt=marker, label=way, capsize=3)
    axes.set_xticks(range(len(result["cases"])), [case["says"] for case in result["cases"].values()])
    axes.axhline(0.9, linestyle=":", color="grey")
    axes.set_ylabel("rate through the proxy / plain")
    axes.set_ylim(bottom=0)
    axes.legend()


@measurement.script(__doc__, show, draw, runs=5, pinned=False)
@click.option("--size", default=None, type=click.IntRange(1, 2000), help="MB of a transfer.  [default: 20 to 200, by case]")
@click.option("--full", is_flag=True, help=f"Transfers of {FULL} MB at least, in every case.")
@click.option("--case", "chosen", multiple=True, type=click.Choice(tuple(cases(0))),
              help="A case; may be given again.  [default: all]")
@click.option("--delay", default=50.0, show_default=True, type=click.FloatRange(0.1, 1000),
              help="Milliseconds that a packet is under way in the case `delay`.")
def main(runs, say, size, full, chosen, delay):
    """Measures and prints."""
    if os.geteuid() != 0:
        raise click.ClickException("it makes network namespaces, which needs root")
    measured = {}
    for name, case in cases(delay).items():
        if chosen and name not in chosen:
            continue
        megabytes = size or (max(FULL, case.megabytes) if full else case.megabytes)
        try:
            measured[name] = measure(case, megabytes, runs, say)
        except (TransferFailed, RunError, AssertionError) as error:
            raise click.ClickException(f"{name}: {error}") from error
    return {"unit": "MB/s", "cases": measured}


if __name__ == "__main__":
    main()
