"""How many TSC ticks the flow table takes for a key: look-up of keys that are there and that are not, insertion, deletion.

    python perf/flow_table.py                        1 k to 16 M keys, our table at loads of 50, 80 and 90 %
    python perf/flow_table.py --keys 400000 --json   one JSON document

Beside it DPDK's rte_hash with rte_hash_crc, with the same keys, of which each table is asked for others in each run, and on
pages of the same size: huge ones if root lets the script have them reserved for as long as it runs, else small ones. Keys
are IPv4 5-tuples, two a connection. Both tables look up in bulk, hash included; a burst's keys are copied before the
stop-watch is started, and it is read behind a fence on either side. Ours compares keys with the connections' own records,
which a packet needs next; rte_hash compares with its copies of them. Bursts during which others had the core are left out.
"""
import contextlib
import functools
import pathlib

import measurement

import click
import numpy as np

from pipeline.kernels import flow_table, linear_probing
from pipeline.kernels.batch import KIND_TCP, PENDING, allocate_batch
from pipeline.kernels.connection import HOT
from pipeline.kernels.linear_probing import SLOT, linear
from pipeline.kernels.lookup import bucketed
from pipeline.kernels.memory import allocate

TABLES = {"bucketed": (flow_table, bucketed, flow_table.BUCKET.itemsize / flow_table.SLOTS),
          "linear": (linear_probing, linear, SLOT.itemsize)}
"""Ours by name (`[kernels] lookup`): module, look-up kernel, octets for a key in a full one."""
COUNTS = "1000,16000,100000,400000,3000000,16000000"
LOADS = "50,80,90"
LOADS_OF_LINEAR = "25,50,75"
"""Linear probing refuses keys beyond that: the engine's table is filled by a half."""
SAMPLE = 1 << 16
"""Keys that are looked up, or taken out and put in again, a run."""
OPERATIONS = ("hit", "miss", "insert", "delete")
KEY = np.dtype([("remote", "u4"), ("local", "u4"), ("remote_port", "u2"), ("local_port", "u2")])
KEY_16 = np.dtype({"names": KEY.names, "formats": [KEY[name] for name in KEY.names], "offsets": [0, 4, 8, 10], "itemsize": 16})
CLIENTS, SERVICE = 0x0A000000, (0xC0A80001, 80)
TARGETS, OURS, TARGET_PORT = 0x0C000000, 0x0E000000, 8080
STRANGERS = 0x01000000
"""What is added to the remote addresses of keys that are not there."""
A_CLIENT, A_TARGET, LOWEST_PORT = 64, 60_000, 1024
"""Connections of one client, and ports of one of our addresses toward a target."""
INTERRUPTED = 10
NR_HUGEPAGES = pathlib.Path("/proc/sys/vm/nr_hugepages")
SPARE = 192
"""MiB that rte_hash and EAL need beside the table, at most."""


@functools.cache
def drivers(table, lookup):
    """Returns the loops that insert, remove and look up in bulk, for a table (module) and its look-up kernel.

    They are a module of their own each: Numba's cache does not know a loop again that has kernels from around it (a closure).
    """
    found = measurement.composed(pathlib.Path(__file__).with_name("flow_table_loops.py"), (
        f"from {table.__name__} import insert, remove\nfrom {lookup.py_func.__module__} import {lookup.py_func.__name__} as lookup\n"))
    return found.insert_all, found.remove_all, found.look_up


def bursts_of(count, burst):
    """Returns an array for the ticks of each burst of `count` keys."""
    return np.zeros(-(-count // burst), np.int64)


def undisturbed(taken, burst):
    """Returns the mean ticks a key of bursts, but for those with INTERRUPTED times the median: others ran there."""
    return float(taken[taken <= INTERRUPTED * np.median(taken)].mean() / burst)


def keys_of(entries, strangers=0):
    """Returns the keys (KEY[n]) of entries (connection * 2 + side), all different; `strangers` is added to remote addresses."""
    connection, side = entries >> 1, entries & 1
    keys = np.zeros(len(entries), KEY)
    own = connection // A_TARGET
    keys["remote"] = strangers + np.where(side == 0, CLIENTS + connection // A_CLIENT, TARGETS + own % 251)
    keys["local"] = np.where(side == 0, SERVICE[0], OURS + own // 251)
    keys["remote_port"] = np.where(side == 0, LOWEST_PORT + connection % A_CLIENT * 911, TARGET_PORT)
    keys["local_port"] = np.where(side == 0, SERVICE[1], LOWEST_PORT + connection % A_TARGET)
    return keys


def columns_of(keys):
    """Returns keys as the int64 columns of a batch, one row a field."""
    return np.array([keys[name] for name in KEY.names], np.int64)


class Ours:
    """Our table with `keys` keys at a load (0 .. 1); `hot` are the connections' records, shared by tables of all loads."""

    def __init__(self, keys, load, hot, huge, kind="bucketed"):
        table, lookup, self.octets = TABLES[kind]
        self.insert_all, self.remove_all, self.in_bursts = drivers(table, lookup)
        self.hot, self.batch = hot, allocate_batch(64)
        self.batch.kind[:], self.batch.verdict[:] = KIND_TCP, PENDING
        self.buckets = (flow_table.allocate_buckets(-(-keys // 2), load, huge) if kind == "bucketed"
                        else allocate(int(keys / load), SLOT, huge))
        self.load = keys * self.octets / self.buckets.nbytes
        for start in range(0, keys, SAMPLE):
            entries = np.arange(start, min(start + SAMPLE, keys))
            columns = columns_of(keys_of(entries))
            if self.insert_all(self.buckets, columns, entries, 64, bursts_of(len(entries), 64)) < len(entries):
                raise click.ClickException(f"our table refuses a key at a load of {load:.0%}")

    @property
    def octets_a_key(self):
        """Memory of the table, without the connections' records, for a key."""
        return self.octets / self.load

    def look_up(self, entries, keys, burst):
        """Returns ticks a key; all of `entries` have to be found, or none where it is None."""
        found, taken = np.zeros(2, np.int64), np.zeros(len(keys) // burst, np.int64)
        self.in_bursts(self.batch, self.buckets, self.hot, columns_of(keys), burst, taken, found)
        looked = len(taken) * burst
        expected = [0, -looked] if entries is None else [looked, int(entries[:looked].sum())]
        if found.tolist() != expected:
            raise click.ClickException(f"our table found {found.tolist()}, {expected} was expected")
        return undisturbed(taken, burst)

    def replace(self, entries, keys, burst):
        """Takes entries out and puts them in again; returns ticks a key for insertion and for deletion."""
        columns, taken = columns_of(keys), {name: bursts_of(len(keys), burst) for name in ("delete", "insert")}
        there = self.remove_all(self.buckets, columns, entries, burst, taken["delete"])
        if there + self.insert_all(self.buckets, columns, entries, burst, taken["insert"]) < 2 * len(keys):
            raise click.ClickException("our table lost a key")
        return {name: undisturbed(ticks, burst) for name, ticks in taken.items()}


class RteHash:
    """DPDK's table with `keys` keys of a length of 12 or 16 octets; it makes room for a power of two of them."""

    def __init__(self, shim, keys, length):
        self.shim, self.length, self.dtype = shim, length, KEY if length == KEY.itemsize else KEY_16
        size = 1 << (max(keys, 8) - 1).bit_length()
        self.load = keys / size
        self.octets_a_key = None
        self.table = shim.ask(f"rte_hash for {keys:,} keys cannot be made", shim.lib.yardstick_hash_create,
                              f"keys_of_{length}".encode(), keys, length)
        for start in range(0, keys, SAMPLE):
            entries = np.arange(start, min(start + SAMPLE, keys))
            self.timed("rte_hash refuses a key", shim.lib.yardstick_hash_insert, keys_of(entries), 64)

    def octets(self, keys):
        """Returns keys (KEY[n]) as rte_hash gets them."""
        given = np.zeros(len(keys), self.dtype)
        for name in KEY.names:
            given[name] = keys[name]
        return self.shim.ffi.from_buffer(given)

    def timed(self, what, function, keys, burst, *more):
        """Calls a function of the shim for all keys; returns ticks a key."""
        taken = bursts_of(len(keys), burst)
        self.shim.ask(what, function, self.table, self.octets(keys), self.length, len(keys), burst,
                      self.shim.ffi.from_buffer("int64_t[]", taken), *more)
        return undisturbed(taken, burst)

    def look_up(self, entries, keys, burst):
        """Returns ticks a key; all of `entries` have to be found, or none where it is None."""
        found = self.shim.ffi.new("int64_t *")
        taken = self.timed("rte_hash", self.shim.lib.yardstick_hash_look_up, keys[:len(keys) // burst * burst], burst, found)
        if found[0] != (0 if entries is None else len(keys) // burst * burst):
            raise click.ClickException(f"rte_hash found {found[0]} of {len(keys)}")
        return taken

    def replace(self, entries, keys, burst):
        """Takes entries out and puts them in again; returns ticks a key for insertion and for deletion."""
        lib = self.shim.lib
        return {"delete": self.timed("rte_hash lost a key", lib.yardstick_hash_delete, keys, burst),
                "insert": self.timed("rte_hash refuses a key", lib.yardstick_hash_insert, keys, burst)}

    def close(self):
        """Frees the table."""
        self.shim.lib.yardstick_hash_free(self.table)


def room_for(keys):
    """Returns how many MiB rte_hash needs for two tables of so many keys: slots of 32 octets, buckets, free slots."""
    size = 1 << (max(keys, 8) - 1).bit_length()
    return SPARE + 2 * (keys * 32 + size * 8 + 2 * size * 8 >> 20)


@contextlib.contextmanager
def reserved_hugepages(megabytes, say):
    """Has the system reserve huge pages for the length of a `with`, where that is allowed; gives them back."""
    before = None
    try:
        before = NR_HUGEPAGES.read_text()
        NR_HUGEPAGES.write_text(str(int(before) + megabytes // 2 + 1))
    except OSError as error:
        say(f"no huge pages are reserved ({error})")
    try:
        yield
    finally:
        if before is not None:
            with contextlib.suppress(OSError):
                NR_HUGEPAGES.write_text(before)


@contextlib.contextmanager
def peer(megabytes, pages, say):
    """Starts EAL; yields the shim (None where there is no DPDK) and whether both tables lie on huge pages."""
    try:
        from pipeline.io import shim
        from pipeline.io.environment import Environment, free_hugepages
    except ImportError as error:
        say(f"without rte_hash: {error}")
        yield None, pages == "huge"
        return
    with reserved_hugepages(megabytes, say) if pages == "huge" else contextlib.nullcontext():
        huge = pages == "huge" and free_hugepages() >= megabytes
        with contextlib.closing(Environment(memory=megabytes, hugepages=huge)):
            yield shim, huge


def sample(random, count):
    """Returns entries in random order, and as many as there are up to SAMPLE that all differ, for the two kinds of runs."""
    looked_up = random.integers(0, count, SAMPLE)
    replaced = random.permutation(count)[:SAMPLE] if count <= 16 * SAMPLE else np.unique(random.integers(0, count, SAMPLE))
    return looked_up, random.permutation(replaced)


def measure(count, loads, burst, shim, huge, runs, say, kind):
    """Returns the rows (list of dict) of one number of keys: each of our tables, then rte_hash with either length of keys."""
    say(f"{count:,} keys")
    random = np.random.default_rng(count)
    hot = allocate(-(-count // 2), HOT, huge)
    every = keys_of(np.arange(2 * len(hot)))
    for field, name in zip(("remote_address", "local_address", "remote_port", "local_port"), KEY.names, strict=True):
        hot[field] = every[name].reshape(-1, 2)
    tables = {f"ours, {load} %": Ours(count, load / 100, hot, huge, kind) for load in loads}
    if shim is not None:
        tables |= {f"rte_hash, keys of {length}": RteHash(shim, count, length) for length in (KEY.itemsize, 16)}

    def run(table, looked_up, replaced):
        taken = table.replace(replaced, keys_of(replaced), burst)
        return [table.look_up(looked_up, keys_of(looked_up), burst), table.look_up(None, keys_of(looked_up, STRANGERS), burst),
                taken["insert"], taken["delete"]]
    samples = {}

    def case(name):
        """Every table gets other keys, in every round: the connections' records, which ours share, would be cached already."""
        samples[name] = samples.get(name, 0) + 1
        return run(tables[name], *sample(np.random.default_rng([count, samples[name], list(tables).index(name)]), count))
    taken = measurement.in_turns({name: lambda name=name: case(name) for name in tables}, runs, lambda words: None)
    del random
    rows = [{"keys": count, "table": name, "load": round(table.load, 3), "octets_a_key": table.octets_a_key,
             **{operation: measurement.quartiles(taken[name][:, place]) for place, operation in enumerate(OPERATIONS)}}
            for name, table in tables.items()]
    if shim is not None:
        for row in rows[:-2]:
            for operation in OPERATIONS:
                best = np.minimum(*(taken[name][:, OPERATIONS.index(operation)] for name in list(tables)[-2:]))
                mine = taken[row["table"]][:, OPERATIONS.index(operation)]
                row[f"{operation}_ratio"] = round(float(np.median(best / mine)), 2)
        for table in list(tables.values())[-2:]:
            table.close()
    return rows


def show(console, result):
    """Prints the result as a table."""
    rows, before = [], None
    for row in result["rows"]:
        if before not in (None, row["keys"]):
            rows.append(None)
        before = row["keys"]
        rows.append([f"{row['keys']:,}", row["table"], f"{row['load']:.0%}",
                     *(measurement.spread(row[operation]) for operation in OPERATIONS),
                     *(f"{row[f'{operation}_ratio']:.2f}" if f"{operation}_ratio" in row else "" for operation in ("hit", "miss"))])
    columns = ["keys", "table", "load", *OPERATIONS, "hit x", "miss x"]
    console.print(measurement.table(f"{result['unit']}, bursts of {result['burst']}", columns, rows))
    console.print("Medians, in brackets the quartiles. x: how many times the speed of the faster rte_hash of the same runs. "
                  + f"Both on {'huge' if result['huge_pages'] else 'small'} pages.")


def draw(axes, result):
    """Draws look-ups by the number of keys."""
    counts = sorted({row["keys"] for row in result["rows"]})
    names = list(dict.fromkeys(row["table"] for row in result["rows"]))
    curves = {f"{name}, {operation}": [row[operation] for row in result["rows"] if row["table"] == name]
              for name in names for operation in ("hit", "miss")}
    measurement.curves(axes, counts, curves, "keys", result["unit"])


@measurement.script(__doc__, show, draw, runs=15)
@click.option("--keys", "counts", default=COUNTS, show_default=True, callback=measurement.numbers(2, 1 << 24, "numbers of keys"),
              help="How many keys are in the tables.")
@click.option("--table", "kind", default="bucketed", show_default=True, type=click.Choice(list(TABLES)), help="Which table of ours.")
@click.option("--loads", help=f"Loads of our table in per cent.  [default: {LOADS}; linear: {LOADS_OF_LINEAR}]")
@click.option("--burst", default=64, show_default=True, type=click.IntRange(1, 64), help="Keys looked up at once.")
@click.option("--pages", default="huge", show_default=True, type=click.Choice(["huge", "small"]),
              help="Pages that both tables lie on; root may have the system reserve huge ones.")
def main(runs, say, counts, kind, loads, burst, pages):
    """Measures and returns the result."""
    loads = measurement.numbers(1, 100, "percentages")(None, None, loads or (LOADS_OF_LINEAR if kind == "linear" else LOADS))
    with peer(room_for(max(counts)), pages, say) as (shim, huge):
        rows = [row for count in counts for row in measure(count, loads, burst, shim, huge, runs, say, kind)]
    return {"unit": "TSC ticks a key", "kind": kind, "burst": burst, "huge_pages": huge, "rows": rows}


if __name__ == "__main__":
    main()
