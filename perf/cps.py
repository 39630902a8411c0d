"""Connections a second on one core, and the TSC ticks of a whole proxied connection, with many others open.

    python perf/cps.py                              a table: 1 k, 100 k, 1 M and 4 M connections open
    python perf/cps.py --open 1000,100000           fewer
    python perf/cps.py --json --plot cps.png        one JSON document, and a picture

Clients and servers speak through memory ports; seven packets a side, as ProxyEngine counts them: three to open, one payload,
three to close. `open` connections stay open all the time: in each run some of them, chosen at random, are closed and as many
are opened anew, so that a connection's state, its keys and its timer lie where those of any of them may lie, and were not
touched for as long as all the others took. A server that does not close at once acknowledges the payload by itself: an
eighth packet, which has a row of its own and is counted in (what it does, a FIN would have to do otherwise). The time that
TIME_WAIT's end takes is counted in as well. The first payload of each connection is compared with what its client sent.

Only the loop is timed, in passes that all have packets (or timers) to deal with: its ticks are busy ones.
"""
import click
import measurement
import numpy as np
from measured_engine import MeasuredEngine, configuration_for

from pipeline.io.frame_rows import HEADERS, write_rows
from pipeline.io.tcp_ends import Received, content, wrap
from pipeline.kernels.counters import TOTAL_OPEN
from pipeline.kernels.headers import ACK, FIN, PSH, SYN
from pipeline.state import TIMERS_A_PASS
from pipeline.steering import ALONE

OPEN = (1_000, 100_000, 1_000_000, 4_000_000)
STEPS = ("SYN", "ACK", "payload", "SYN-ACK", "ACK of payload", "FIN", "FIN-ACK", "last ACK", "TIME_WAIT ends")
"""What comes in, in order; SYN-ACK, ACK of payload and FIN-ACK from the server."""
MSS = bytes([2, 4, 5, 0xB4])
FIRST_PAYLOAD = 32
PATIENCE = 1000
TIME_WAIT = 0.05
"""Seconds; the connections that wait it out come on top of those that are open."""


def mbufs_for(together):
    """Returns how many mbufs each side needs for so many connections at the same step."""
    return 4 * together + 2048


def ring_for(together):
    """Returns how many frames a port then has to hold."""
    return 1 << (2 * together + 2048).bit_length()


class Rotation(MeasuredEngine):
    """`opened` open connections through an engine, of which `together` at a time are closed and opened anew.

    They are open once `fill` was called. `network` and `share` are as in MeasuredEngine; `opened` is for each worker.
    """

    def __init__(self, opened, together, burst, records, say, network=None, share=ALONE):
        self.opened, self.together, self.burst = opened, min(together, opened), burst
        clients = opened + 2 * self.together
        settings = configuration_for(clients, burst, share.workers * (clients + self.together), records, time_wait=TIME_WAIT,
                                     held=share.workers * 2 * self.together)
        super().__init__(settings, clients, mbufs_for(self.together), ring_for(self.together), say, network, share)
        self.is_open, self.toward_server = np.zeros(clients, bool), np.zeros(clients, np.int64)

    def fill(self):
        """Opens all connections; returns itself."""
        self.engine.step()
        self.ends.take(1), self.ends.take(0)
        for start in range(0, self.opened, self.together):
            self.open(np.arange(start, min(start + self.together, self.opened)))
            self.engine.now += 1000
        return self

    def said(self, side, frames):
        """Has frames of one side go through the loop in random order of theirs; returns the ticks that it took."""
        self.engine.feed(self.ends.ports[side], write_rows(self.pool, *frames))
        return self.timed(-(-len(frames[0]) // self.burst))

    def heard(self, side, wanted):
        """Takes what came for one side, which has to be `wanted` segments with right checksums; ARP is answered."""
        came = self.ends.take(side)
        got = Received(came.rows[~came.arp], came.lengths[~came.arp])
        if len(got) != wanted or not (got.plain & got.tcp_right & got.ipv4_right).all():
            raise click.ClickException(f"{wanted} segments were to come to side {side}, {len(got)} came, "
                                       f"{int((got.tcp_right & got.ipv4_right).sum())} of them right")
        return got

    def open(self, which):
        """Opens connections; returns the ticks of the first five steps."""
        ends = self.ends
        ends.client_first[which] = wrap(ends.client_first[which] + 64_000_000)
        ends.sent[:, which] = ends.received[:, which] = 0
        own, taken = wrap(ends.client_first[which] + 1), [0] * 5
        taken[0] = self.said(0, ends.frames(0, which, ends.client_first[which], 0, SYN, options=MSS))
        got = self.heard(0, len(which))
        ends.proxy_first[which] = got.seq
        if (got.destination_port != ends.port[which]).any() or (got.ack != own).any():
            raise click.ClickException("SYN-ACKs came in another order than their SYNs")
        taken[1] = self.said(0, ends.frames(0, which, own, wrap(got.seq + 1), ACK))
        first = content(which, 0, np.zeros(len(which), np.int64), FIRST_PAYLOAD)
        taken[2] = self.said(0, ends.frames(0, which, own, wrap(ends.proxy_first[which] + 1), ACK | PSH, first))
        got = self.heard(1, len(which))
        ends.target[which], ends.target_port[which] = got.destination, got.destination_port
        ends.proxy_address[which], ends.proxy_port[which] = got.source, got.source_port
        theirs = wrap(got.seq + 1)
        ends.server_first[which] = self.random.integers(0, 1 << 32, len(which))
        taken[3] = self.said(1, ends.frames(1, which, ends.server_first[which], theirs, SYN | ACK, options=MSS))
        got = self.heard(1, len(which))
        if (got.rows[:, HEADERS:HEADERS + FIRST_PAYLOAD] != first).any() or (got.seq != theirs).any():
            raise click.ClickException("a server got another payload than its client sent")
        own = wrap(ends.server_first[which] + 1)
        taken[4] = self.said(1, ends.frames(1, which, own, wrap(theirs + FIRST_PAYLOAD), ACK))
        self.heard(0, len(which))
        ends.sent[0, which] = ends.received[0, which] = FIRST_PAYLOAD
        # The proxy may have chosen another initial number toward the server: what the server acknowledges tells.
        self.toward_server[which] = wrap(theirs - 1)
        self.is_open[which] = True
        return taken

    def close(self, which):
        """Closes connections, the client first; returns the ticks of the last four steps."""
        ends, taken = self.ends, [0] * 4
        before = int(self.state.counters.totals[TOTAL_OPEN])
        seq, ack = ends.numbers(0, which)
        taken[0] = self.said(0, ends.frames(0, which, seq, ack, FIN | ACK))
        self.heard(1, len(which))
        own, theirs = self.numbers_of_servers(which)
        taken[1] = self.said(1, ends.frames(1, which, own, wrap(theirs + 1), FIN | ACK))
        self.heard(0, len(which))
        taken[2] = self.said(0, ends.frames(0, which, wrap(seq + 1), wrap(ack + 1), ACK))
        self.heard(1, len(which))
        taken[3] = self.wait_out(len(which), before - len(which))
        self.is_open[which] = False
        return taken

    def wait_out(self, count, left):
        """Lets the TIME_WAIT of `count` connections pass, until so many others are `left`; returns the ticks."""
        self.engine.now += round(TIME_WAIT * 1e6) + 20_000
        taken = self.timed(-(-count // TIMERS_A_PASS) + 1)
        for _ in range(PATIENCE):
            if int(self.state.counters.totals[TOTAL_OPEN]) <= left:
                return taken
            taken += self.timed(4)
        raise click.ClickException(f"connections do not end {TIME_WAIT + 0.02:g} s after their last ACK")

    def numbers_of_servers(self, which):
        """Returns seq and ack of the next segments of these connections' servers."""
        ends = self.ends
        return (wrap(ends.server_first[which] + 1 + ends.sent[1, which]),
                wrap(self.toward_server[which] + 1 + ends.sent[0, which]))

    def run(self):
        """Closes some connections and opens others; returns the ticks a connection of each step."""
        self.state.records.tail[0] = self.state.records.head[0]
        closing = self.random.permutation(np.flatnonzero(self.is_open))[:self.together]
        opening = self.random.permutation(np.flatnonzero(~self.is_open))[:self.together]
        last = self.close(closing)
        return np.array(self.open(opening) + last) / self.together


def measure(runs, say, opened, together, burst):
    """Returns the whole result (dict, JSON-able)."""
    rows = []
    for count in opened:
        engines = {}
        for name in ("off", "on"):
            engines[name] = Rotation(count, together, burst, name == "on", say)
            say(f"opening {count} connections, records {name}")
            engines[name].fill()
        taken = measurement.in_turns({name: engine.run for name, engine in engines.items()}, runs, say)
        row = {"open": count}
        for name in engines:
            whole = measurement.quartiles(taken[name].sum(1))
            row[f"records_{name}"] = {
                "ticks": whole, "connections_a_second": round(measurement.tsc_hertz() / whole["median"]),
                "steps": {step: measurement.quartiles(taken[name][:, place]) for place, step in enumerate(STEPS)}}
        row["records_cost"] = round(float(np.median(taken["on"].sum(1) / taken["off"].sum(1))) - 1, 3)
        rows.append(row)
    return {"unit": "TSC ticks a connection", "burst": burst, "together": together, "steps": STEPS, "rows": rows}


def show(console, result):
    """Prints the result as tables."""
    rows = [(f"{row['open']:,}", *(words for name in ("records_off", "records_on") for words in (
        measurement.spread(row[name]["ticks"], 0), f"{row[name]['connections_a_second']:,}")), f"{row['records_cost']:+.1%}")
        for row in result["rows"]]
    console.print(measurement.table("A whole proxied connection, seven packets a side and the target's ACK of the payload", (
        "open", "ticks", "connections/s", "with records", "connections/s", "records cost"), rows))
    names = [f"{row['open']:,}" for row in result["rows"]]
    steps = [(step, *(f"{row['records_off']['steps'][step]['median']:,.0f}" for row in result["rows"]))
             for step in result["steps"]]
    console.print(measurement.table("Ticks a connection of each step, records off", ("what comes in", *names), steps))
    console.print(f"Medians (and quartiles) of {result['runs']} runs of {result['together']:,} connections, in bursts of "
                  f"{result['burst']}. {measurement.TICKS}")


def draw(axes, result):
    """Draws the ticks of a connection by how many are open."""
    rows = {name.replace("_", " "): [row[name]["ticks"] for row in result["rows"]] for name in ("records_off", "records_on")}
    measurement.curves(axes, [row["open"] for row in result["rows"]], rows, "connections open", result["unit"])


def rotation_options(opened, most, together):
    """Returns a decorator that gives a command the options of a `Rotation`: `opened` (text) and `together` are the defaults."""
    def add(command):
        for option in (
            click.option("--burst", default=32, show_default=True, type=click.IntRange(1, 256), help="Most packets a burst."),
            click.option("--together", default=together, show_default=True, type=click.IntRange(1, 16384),
                         help="Connections that are at the same step at a time."),
            click.option("--open", "opened", default=opened, show_default=True, help="Connections open at once.",
                         callback=measurement.numbers(1, most, "numbers")),
        ):
            command = option(command)
        return command
    return add


@measurement.script(__doc__, show, draw, runs=20)
@rotation_options(",".join(map(str, OPEN)), 4_000_000, 2048)
def main(**options):
    """Measures and prints."""
    return measure(**options)


if __name__ == "__main__":
    main()
