"""TSC ticks that a SYN of a flood costs with SYN cookies, and whether clients are served meanwhile.

    python perf/syn_flood.py                       a table: SYNs with MSS alone, and with all options
    python perf/syn_flood.py --json --plot syn_flood.png

SYNs from random addresses and ports come as fast as the loop takes them, over memory ports, 16 k distinct mbufs a run. Each of them
is answered: a sample of the SYN-ACKs is verified frame by frame. The table of connections must not grow. Then clients open
connections in the midst of a flood, so many spoofed SYNs for each of their segments: all have to get through to a target.
"""
import click
import measurement
import numpy as np
from measured_engine import SERVICE, MeasuredEngine, configuration_for

from pipeline.io.frame_rows import fill_mbufs, load, read_rows, tcp_rows, write_rows
from pipeline.io.tcp_ends import HOST_MACS, WIDEST, Received, wrap
from pipeline.kernels.counters import NOTICE_COOKIES_ACCEPTED, NOTICE_COOKIES_SENT, TOTAL_OPEN
from pipeline.kernels.headers import ACK, SYN

MBUFS = 16384
SAMPLE = 256
OPTIONS = {"mss": bytes([2, 4, 5, 0xB4]),
           "all": bytes([2, 4, 5, 0xB4, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7])}
"""Options of the SYNs: what cookies alone can say, and those of a Linux client."""


class Flooded:
    """The engine as the clients of TcpEnds see it, whose port gets `spoofed` SYNs with everything that is fed to it."""

    def __init__(self, bench, spoofed):
        self.bench, self.engine, self.spoofed = bench, bench.engine, spoofed
        self.macs, self.pool, self.sent = bench.engine.macs, bench.engine.pool, 0

    def feed(self, port, mbufs):
        """Lets the engine receive mbufs, in the midst of a flood."""
        half = self.spoofed // 2
        for number in (0, 1):
            self.engine.feed(0, write_rows(self.pool, *self.bench.syns(half, "all")))
            self.sent += half
            if number == 0:
                self.engine.feed(port, mbufs)

    def step(self):
        """Makes the engine deal with all of it."""
        self.engine.step()

    def take(self, port, width):
        """Returns what came out of a port."""
        return self.engine.take(port, width)


class Bench(MeasuredEngine):
    """An engine that answers SYNs, with cookies or without, and clients that mean it."""

    def __init__(self, cookies, clients, spoofed, say):
        settings = configuration_for(max(clients, 1), 32, MBUFS, held=max(clients, 64))
        settings = settings.model_copy(update={"engine": settings.engine.model_copy(update={"syn_cookies": cookies})})
        super().__init__(settings, clients, MBUFS + 4096, 2 * MBUFS, say)
        self.mbufs = self.pool.allocate(MBUFS)
        self.flooded = Flooded(self, spoofed)

    def syns(self, count, options):
        """Returns rows and lengths of SYNs from anywhere."""
        addresses = self.random.integers(0x0B00_0000, 0x6400_0000, count)
        ports = self.random.integers(1024, 65536, count)
        self.numbers = self.random.integers(0, 1 << 32, count)
        return tcp_rows((self.engine.macs[0], HOST_MACS[0]), (addresses, SERVICE[0]), (ports, SERVICE[1]), (self.numbers, 0), SYN,
                        None, None, OPTIONS[options])

    def flood(self, options):
        """Feeds as many SYNs as there are mbufs; returns the ticks of each."""
        self.mbufs = self.random.permutation(self.mbufs)
        rows, lengths = self.syns(MBUFS, options)
        fill_mbufs(self.engine.arena, self.mbufs, rows, lengths)
        self.engine.feed(0, self.mbufs)
        before = int(self.state.counters.notices[NOTICE_COOKIES_SENT])
        taken = self.timed(-(-MBUFS // 32))
        came = self.sent(0)
        ours = np.isin(came, self.mbufs)  # the rest asks for hosts by ARP
        self.pool.release(came[~ours])
        self.verify(came[ours], rows, int(self.state.counters.notices[NOTICE_COOKIES_SENT]) - before)
        return taken / MBUFS

    def verify(self, mbufs, rows, counted):
        """Verifies a sample of the SYN-ACKs; raises ClickException for the first that is wrong."""
        if counted != MBUFS or len(mbufs) != MBUFS or int(self.state.counters.totals[TOTAL_OPEN]) != 0:
            raise click.ClickException(f"of {MBUFS} SYNs {counted} got a cookie, and {len(mbufs)} frames came out")
        sample = self.random.permutation(MBUFS)[:SAMPLE]
        got, asked = Received(*read_rows(self.engine.arena, mbufs[sample], WIDEST)), Received(rows[sample], None)
        right = {"checksum": got.tcp_right & got.ipv4_right, "control bits": got.control == SYN | ACK,
                 "acknowledgement": got.ack == wrap(asked.seq + 1), "address": got.destination == asked.source,
                 "port": got.destination_port == asked.source_port, "MAC address": load(got.rows, 0, 6) == HOST_MACS[0]}
        for what, fine in right.items():
            if not fine.all():
                raise click.ClickException(f"{int((~fine).sum())} of {SAMPLE} SYN-ACKs have a wrong {what}")

    def serve(self):
        """Has all clients open their connections in the midst of a flood; returns what was seen (dict)."""
        self.pool.release(self.mbufs)
        self.ends.engine = self.flooded
        self.ends.open(at_once=64)
        totals, notices = self.state.counters.totals, self.state.counters.notices
        return {"clients": len(self.ends.address), "served": int((self.ends.received[0] == 32).sum()),
                "spoofed_syns": self.flooded.sent, "open": int(totals[TOTAL_OPEN]),
                "cookies_accepted": int(notices[NOTICE_COOKIES_ACCEPTED])}


def measure(runs, say, clients, spoofed):
    """Returns the whole result (dict, JSON-able)."""
    bench = Bench("always", clients, spoofed, say)
    taken = measurement.in_turns({name: lambda name=name: bench.flood(name) for name in OPTIONS}, runs, say)
    rows = [{"options": name, "octets": 54 + len(OPTIONS[name]), "ticks": measurement.quartiles(taken[name]),
             "syns_a_second": round(measurement.tsc_hertz() / float(np.median(taken[name])))} for name in OPTIONS]
    say(f"{clients} clients in the midst of {spoofed} spoofed SYNs a step")
    return {"unit": "TSC ticks a SYN", "rows": rows, "clients": bench.serve()}


def show(console, result):
    """Prints the result as a table."""
    rows = [(row["options"], row["octets"], measurement.spread(row["ticks"]), f"{row['syns_a_second'] / 1e6:.1f}")
            for row in result["rows"]]
    console.print(measurement.table("Ticks of a SYN that is answered with a cookie", ("options", "octets", "ticks", "M/s"), rows))
    seen = result["clients"]
    console.print(f"In the midst of {seen['spoofed_syns']:,} spoofed SYNs {seen['served']:,} of {seen['clients']:,} clients reached their "
                  f"target; {seen['open']:,} connections were there in the end, no half-open one. Medians (and quartiles) of "
                  f"{result['runs']} runs of {MBUFS:,} SYNs, {SAMPLE} SYN-ACKs of each verified. {measurement.TICKS}")


def draw(axes, result):
    """Draws the ticks of a SYN by its options."""
    axes.bar([row["options"] for row in result["rows"]], [row["ticks"]["median"] for row in result["rows"]])
    axes.set_ylabel(result["unit"])


@measurement.script(__doc__, show, draw, runs=20)
@click.option("--clients", default=2048, show_default=True, type=click.IntRange(1, 16384), help="Connections opened meanwhile.")
@click.option("--spoofed", default=1024, show_default=True, type=click.IntRange(2, 4096), help="Spoofed SYNs with each of their steps.")
def main(**options):
    """Measures and prints."""
    return measure(**options)


if __name__ == "__main__":
    main()
