"""python tests/oracle SEGMENTS SEED: the fuzz, in episodes of which each can be played alone (--episode)."""
import argparse
import pathlib
import sys
import time

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parents[1])]

from oracle.coverage import Coverage
from oracle.ends import Fault
from oracle.episode import Episode
from oracle.own_segments import KNOWN

AN_EPISODE = 50_000


def main():
    """Plays the episodes; prints the shares, the coverage and the faults that are known; returns the exit status."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("segments", type=int)
    asked.add_argument("seed", type=int)
    asked.add_argument("--episode", type=int, help="play this one alone")
    asked = asked.parse_args()
    coverage, made, began = Coverage(), 0, time.process_time()
    count = -(-asked.segments // AN_EPISODE)
    for number in range(count) if asked.episode is None else [asked.episode]:
        episode = Episode(asked.seed * 1_000_003 + number, min(AN_EPISODE, asked.segments), coverage)
        try:
            episode.play()
        except Fault as fault:
            print(f"\nFAULT in episode {number} of seed {asked.seed}: {fault}\n"
                  f"again: python tests/oracle {asked.segments} {asked.seed} --episode {number}", flush=True)
            return 1
        made += episode.made
    passed = time.process_time() - began
    print("\n".join(coverage.lines()))
    print(f"{made:,} segments in {passed:.1f} s of the processor's, {1e6 * passed / made:.1f} us each; seed {asked.seed}")
    print(dict(coverage.shares))
    print("known faults:", KNOWN)
    print("missing:", coverage.missing())
    return 0


if __name__ == "__main__":
    sys.exit(main())
