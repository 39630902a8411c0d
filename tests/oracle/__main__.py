"""python tests/oracle SEGMENTS SEED: the fuzz, in episodes of which each can be played again alone (--episode)."""
import argparse
import pathlib
import sys
import time
import traceback

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parents[1])]

from numba.core import config

from oracle.coverage import Coverage
from oracle.episode import Episode

AN_EPISODE = 50_000


def play(number, asked, coverage):
    """Plays one episode; returns how many segments it had, 0 where it found a fault, which is printed."""
    episode = Episode(asked.seed * 1_000_003 + number, min(AN_EPISODE, asked.segments), coverage)
    try:
        episode.play()
    except Exception as fault:  # the engine's own, such as an index out of bounds, as well as Fault
        if not isinstance(fault, AssertionError):
            traceback.print_exc(file=sys.stdout)
        print(f"\nFAULT in episode {number} of seed {asked.seed}: {fault}\n"
              f"again: python tests/oracle {asked.segments} {asked.seed} --episode {number}", flush=True)
        return 0
    return episode.made


def shares(coverage):
    """Prints what was sent, in shares of all segments; returns those that belong to live connections, and near edges."""
    counted = dict(coverage.shares)
    kinds = {name[5:]: counted.pop(name) for name in list(counted) if name.startswith("kind ")}
    total = sum(counted[name] for name in ("live", "corrupt", "stray", "late", "malformed"))
    live, edge = counted["live"] / total, counted["edge"] / counted["live"]
    print(f"of {total:,} segments {live:.1%} belong to live connections, {edge:.1%} of those are aimed at an edge")
    print("by origin:", ", ".join(f"{name} {count:,}" for name, count in sorted(counted.items())))
    print("by kind:", ", ".join(f"{name} {count:,}" for name, count in sorted(kinds.items())))
    return live, edge


def main():
    """Plays the episodes; prints the coverage, the shares and the faults that are known; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("segments", type=int)
    parser.add_argument("seed", type=int)
    parser.add_argument("--episode", type=int, help="play this one alone")
    asked = parser.parse_args()
    print(f"PIPELINE_SEED={asked.seed}, bounds {'checked' if config.BOUNDSCHECK else 'not checked'}", flush=True)
    coverage, made, began = Coverage(), 0, time.process_time()
    count = -(-asked.segments // AN_EPISODE)
    for number in range(count) if asked.episode is None else [asked.episode]:
        played = play(number, asked, coverage)
        if not played:
            return 1
        made += played
    passed = time.process_time() - began
    print("\n".join(coverage.lines()))
    live, edge = shares(coverage)
    print(f"{made:,} segments, seed {asked.seed}, {passed:.0f} s of the processor's, {1e6 * passed / made:.0f} us a segment")
    if asked.episode is not None or asked.segments < 500_000:
        return 0
    missing = coverage.missing()
    if missing or live < 0.8 or edge < 0.5:
        print(f"FAULT: transitions that were not seen: {missing}; live {live:.3f}, of those at an edge {edge:.3f}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
