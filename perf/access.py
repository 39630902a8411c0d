"""Measures what the lists cost a new connection: `python perf/access.py [PREFIXES]`. Ticks of the TSC a look-up, medians of 21 turns."""
import ipaddress
import statistics
import sys

import numpy as np

from pipeline.access_lists import make_table
from pipeline.kernels.access import Access, reason_to_deny
from pipeline.kernels.jit import loop
from pipeline.kernels.native import ticks

ADDRESSES, TURNS = 1 << 18, 21


@loop
def ask(access, addresses):
    """Asks for each address; returns the ticks it took and how many were denied."""
    denied, began = 0, ticks()
    for number in range(addresses.shape[0]):
        denied += reason_to_deny(access, 0, addresses[number]) >= 0
    return ticks() - began, denied


def main():
    """Prints the ticks for addresses anywhere, and for such as are listed."""
    count, chance = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000, np.random.default_rng(7)
    lengths = chance.integers(16, 33, count)
    starts = chance.integers(1 << 24, 224 << 24, count) >> (32 - lengths) << (32 - lengths)
    networks = dict.fromkeys(ipaddress.IPv4Network((int(start), int(length))) for start, length in zip(starts, lengths, strict=True))
    access = Access(np.ones(2, np.int64), make_table((((), tuple(networks)), ((), ()))))
    print(f"{len(networks):,} prefixes of 16 to 32 bits, {access.table.blocks.shape[0] >> 8:,} blocks")
    for name, addresses in (("anywhere", chance.integers(1 << 24, 224 << 24, ADDRESSES)), ("listed", chance.choice(starts, ADDRESSES))):
        turns = [ask(access, addresses) for _ in range(TURNS + 1)][1:]
        print(f"{name}: {statistics.median(turn[0] for turn in turns) / ADDRESSES:.1f} ticks, {turns[0][1] / ADDRESSES:.0%} denied")


if __name__ == "__main__":
    main()
