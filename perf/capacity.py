"""As many connections as an engine has room for: all opened, used, and closed again, and what of memory they take.

    python perf/capacity.py                         4 million connections
    python perf/capacity.py --open 100000           fewer

Clients and servers speak through memory ports, as in `cps.py`. Each connection is opened by a first payload; when all are
open, each says something more and gets an answer, in random order, and every octet of both is compared; then all are closed,
in another order. In the end nothing may be left: no connection, no key, no timer, no OPENING record, no mbuf.

Ticks are those of the loop alone; seconds are those of the whole script, most of which builds and checks frames in Python.
"""
import pathlib
import time

import click
import measurement
import numpy as np
from cps import FIRST_PAYLOAD, Rotation, rotation_options

from pipeline.footprint import of_connections
from pipeline.io.frame_rows import HEADERS
from pipeline.io.tcp_ends import content
from pipeline.kernels.counters import TOTAL_OPEN
from pipeline.kernels.free_list import COUNT
from pipeline.kernels.headers import ACK, PSH
from pipeline.kernels.wheel import NONE

WORDS = 64
"""Octets that each side says once a connection is open."""


class Capacity(Rotation):
    """`count` connections, all of them open once this is made; the ticks that it took are in `opening`."""

    def __init__(self, count, together, burst, say):
        self.opening = 0
        super().__init__(count, together, burst, False, say)
        self.count = count
        say(f"opening {count} connections, records off")
        self.fill()

    def open(self, which):
        """Opens connections; keeps the ticks that it took."""
        taken = super().open(which)
        self.opening += sum(taken)
        return taken

    def parts(self):
        """Yields all connections, some at a time, in random order."""
        order = self.random.permutation(self.count)
        for start in range(0, self.count, self.together):
            yield order[start:start + self.together]

    def speak(self, side, which, seq, ack):
        """Has one side of connections say something, which has to reach the other side; returns the ticks."""
        ends = self.ends
        words = content(which, side, ends.sent[side, which], WORDS)
        taken = self.said(side, ends.frames(side, which, seq, ack, ACK | PSH, words))
        if (self.heard(1 - side, len(which)).rows[:, HEADERS:HEADERS + WORDS] != words).any():
            raise click.ClickException("one side got other octets than the other had sent")
        ends.sent[side, which] += WORDS
        ends.received[side, which] += WORDS
        return taken

    def use(self):
        """Has both sides of all connections say something; returns the ticks."""
        taken = 0
        for which in self.parts():
            taken += self.speak(0, which, *self.ends.numbers(0, which))
            taken += self.speak(1, which, *self.numbers_of_servers(which))
        return taken

    def close_all(self):
        """Closes all connections; returns the ticks."""
        return sum(sum(self.close(which)) for which in self.parts())

    def left(self):
        """Returns what is left when all are closed (dict of ints), which has to be nothing."""
        state, kept = self.state, self.state.connections
        return {"connections": int(state.counters.totals[TOTAL_OPEN]),
                "taken connections": len(kept.hot) - int(kept.free[COUNT]),
                "taken opening records": len(kept.openings) - int(kept.free_openings[COUNT]),
                "keys": int(np.count_nonzero(kept.buckets.tag)), "went on": int(np.count_nonzero(kept.buckets.passed)),
                "timers": int(np.count_nonzero(state.wheel.timers["place"] != NONE)),
                "dropped": int(state.counters.drops.sum())}


def huge_pages():
    """Returns how much of this process' memory lies on huge pages (bytes)."""
    rollup = pathlib.Path("/proc/self/smaps_rollup").read_text()
    return 1024 * sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("AnonHugePages"))


def measure(runs, say, opened, together, burst):
    """Returns the whole result (dict, JSON-able)."""
    rows = []
    for count in opened:
        begun, steps = time.monotonic(), {}
        engine = Capacity(count, together, burst, say)
        at_once = int(engine.state.counters.totals[TOTAL_OPEN])
        steps["open"] = engine.opening / count
        say("using them")
        steps["use, a packet each way"] = engine.use() / count
        still = int(engine.state.counters.totals[TOTAL_OPEN])
        on_huge = huge_pages()
        say("closing them")
        steps["close"] = engine.close_all() / count
        left = engine.left()
        if at_once != count or still != count or any(left.values()):
            raise click.ClickException(f"{at_once} of {count} were open at once, {still} after use; left in the end: {left}")
        capacity, taken = len(engine.state.connections.hot), of_connections(engine.engine.configuration)
        rows.append({"open": at_once, "ticks": steps, "capacity": capacity, "octets": taken, "left": left,
                     "octets_a_connection": sum(taken.values()) / capacity, "on_huge_pages": on_huge,
                     "seconds": round(time.monotonic() - begun, 1)})
    return {"unit": "TSC ticks a connection", "first_payload": FIRST_PAYLOAD, "words": WORDS, "rows": rows}


def show(console, result):
    """Prints the result as tables."""
    rows = result["rows"]
    names = [f"{row['open']:,} open" for row in rows]
    lines = [(step, *(f"{row['ticks'][step]:,.0f}" for row in rows)) for step in rows[0]["ticks"]]
    console.print(measurement.table("Ticks a connection, all of them open at once", ("", *names), lines))
    lines = [(part, *(f"{row['octets'][part] / row['capacity']:.2f}" for row in rows)) for part in rows[0]["octets"]]
    lines += [("in all", *(f"{row['octets_a_connection']:.2f}" for row in rows)),
              ("MiB", *(f"{sum(row['octets'].values()) / 2**20:,.0f}" for row in rows)),
              ("MiB of the process on huge pages", *(f"{row['on_huge_pages'] / 2**20:,.0f}" for row in rows))]
    console.print(measurement.table("Octets a connection", ("", *names), lines))
    console.print(f"All were opened, used and closed; nothing was left, nothing dropped, every octet compared. {measurement.TICKS}")


def draw(axes, result):
    """Draws the ticks of each step by how many are open."""
    steps = {step: [{"median": row["ticks"][step], "low": row["ticks"][step], "high": row["ticks"][step]} for row in result["rows"]]
             for step in result["rows"][0]["ticks"]}
    measurement.curves(axes, [row["open"] for row in result["rows"]], steps, "connections open", result["unit"])


@measurement.script(__doc__, show, draw, runs=1)
@rotation_options("4000000", 16_000_000, 4096)
def main(**options):
    """Measures and prints."""
    return measure(**options)


if __name__ == "__main__":
    main()
