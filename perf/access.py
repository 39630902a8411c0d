"""Measures what the lists cost a new connection: `python perf/access.py [PREFIXES]`. Ticks of the TSC a SYN, medians of 21 turns."""
import ipaddress
import statistics
import sys

import numpy as np
from numpy import int64

from pipeline.access_lists import make_table
from pipeline.kernels.access import Access, admit
from pipeline.kernels.batch import BURST, KIND_TCP, NO_FLOW, PENDING, allocate_batch
from pipeline.kernels.counters import allocate_counters
from pipeline.kernels.headers import SYN
from pipeline.kernels.jit import loop
from pipeline.kernels.native import ticks
from pipeline.kernels.services import ONE_ADDRESS, SERVICE

ADDRESSES, TURNS, A_BURST = 1 << 18, 21, 32
SERVED = 0x0A000001


@loop
def ask(access, batch, services, counted, addresses):
    """Has `admit` look at bursts of SYNs from these addresses; returns the ticks it took and how many were denied."""
    denied = taken = 0
    for start in range(0, addresses.shape[0], A_BURST):
        for row in range(A_BURST):
            batch.source[row], batch.verdict[row] = addresses[start + row], PENDING
        began = ticks()
        admit(batch, A_BURST, access, services, counted)
        taken += ticks() - began
        for row in range(A_BURST):
            denied += int64(batch.verdict[row] != PENDING)
    return taken, denied


def burst_of_syns():
    """Returns a Batch of SYNs to a service, and that service."""
    batch, rows = allocate_batch(BURST), np.zeros(1, SERVICE).view(np.recarray)
    batch.kind[:], batch.control[:], batch.flow[:] = KIND_TCP, SYN, NO_FLOW
    batch.destination[:], batch.destination_port[:] = SERVED, 80
    rows.address, rows.port, rows.last_port, rows.mask = SERVED, 80, 80, ONE_ADDRESS
    return batch, rows


def main():
    """Prints the ticks for addresses anywhere, and for such as are listed."""
    count, chance = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000, np.random.default_rng(7)
    lengths = chance.integers(16, 33, count)
    starts = chance.integers(1 << 24, 224 << 24, count) >> (32 - lengths) << (32 - lengths)
    networks = dict.fromkeys(ipaddress.IPv4Network((int(start), int(length))) for start, length in zip(starts, lengths, strict=True))
    columns, counted = [np.zeros(BURST, np.int64) for _ in range(2)], allocate_counters(1, 1, 1, 1)
    access = Access(np.array([1, 0, 0]), make_table((((), tuple(networks)), ((), ()))), *columns)
    batch, services = burst_of_syns()
    print(f"{len(networks):,} prefixes of 16 to 32 bits, bursts of {A_BURST}")
    for name, addresses in (("anywhere", chance.integers(1 << 24, 224 << 24, ADDRESSES)), ("listed", chance.choice(starts, ADDRESSES))):
        turns = [ask(access, batch, services, counted, addresses) for _ in range(TURNS + 1)][1:]
        print(f"{name}: {statistics.median(turn[0] for turn in turns) / ADDRESSES:.1f} ticks, {turns[0][1] / ADDRESSES:.0%} denied")


if __name__ == "__main__":
    main()
