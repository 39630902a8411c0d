"""Two compositions on the same recording, in turns: which takes fewer ticks, whether that is real, and whether they send the same.

Each round is a fresh engine whose memory has been touched; the recording goes through it in passes one behind the other, without
Python in between. Rounds come as A B, B A, A B ...: what else the machine does meets both alike. Ticks by stage are from rounds of
their own, with the profile on for every burst.
"""
import math
from typing import NamedTuple

import numpy as np

from pipeline import chosen_kernels, comparison, configuration, profile_marks, profiling, race_driver, recording
from pipeline.capture_ports import assigned
from pipeline.engine import measured_hertz
from pipeline.errors import ConfigurationError
from pipeline.kernels.profile import IDLE
from pipeline.own_memory import fields
from pipeline.replay import RING, Replay, passes_of
from pipeline.replay_command import digest
from pipeline.spread import quartiles, ratio_interval

A_CHUNK = RING // 4
"""Packets that lie ready at a time; what comes of them has to find room too."""
INTERRUPTED = 4
"""A pass that took so many times its median over all rounds was interrupted, and counts as that; a pass that seems to have taken so
small a part of it was not, but the empty call was that goes ahead of it and is taken off."""
SURE = 0.05
"""A difference is real where the interval of 95 % does not have 1 in it and the sign test gives less than this."""

EXPLANATION = ("Medians (and quartiles) of rounds; the ratio is the median of the ratios of neighbours, its interval bootstrapped; the sign test "
               "says how likely as one-sided rounds are by chance. Real: the interval is without 100 % and the test below 5 %, of stages 5 % "
               "divided by their number. Stages are from rounds of their own, with the profile on.")


class Chunk(NamedTuple):
    """Passes that are made without Python in between: `bursts` int64 [n, 4] pass, port, first packet and how many; `now` int64 [passes]."""

    bursts: np.ndarray
    now: np.ndarray
    packets: list


class Racer(Replay):
    """A Replay that times its passes: `race` goes through a recording once. `profiled`: by stages, of `overhead` ticks a mark."""

    def __init__(self, configuration, profiled, overhead):
        super().__init__(configuration)
        self.profiled, self.overhead, self.names = profiled, overhead, None

    def race(self, chunks, description):
        """Returns the ticks of each pass (int64[n]), or, `profiled`, of each stage in all of them."""
        self.begin(description)
        state = self.engine.state
        self.names = profile_marks.stage_names(self.loop)
        for _, array in fields(state):
            touch(array)
        if self.profiled:
            profiling.start([state], 1, 0, 1e9, self.overhead)
        taken = []
        for chunk in chunks:
            mbufs = np.concatenate([self.laid_ready(*each) for each in chunk.packets]) if chunk.packets else np.zeros(0, np.int64)
            ticks = np.zeros(len(chunk.now), np.int64)
            race_driver.timed_passes(self.entry, state, self.engine.network.device.received, chunk.bursts, mbufs, chunk.now, ticks,
                                     not description.has_passes)
            taken.append(ticks)
            for port in self.engine.ports:
                self.engine.network.pool.release(port.taken_mbufs())
        return state.profile.ticks[:IDLE].sum(0) if self.profiled else np.concatenate(taken)

    def laid_ready(self, port, block, first, count):
        """Returns fresh mbufs (int64[count]) with packets of a Block, for a port."""
        mbufs = self.loaded(block, first, count)
        self.engine.network.arena.native.mbuf["port"][mbufs] = port
        return mbufs


def touch(array):
    """Writes one octet of each page of an array as it is: so that no pass has to wait for memory."""
    if array.flags.writeable and array.flags.c_contiguous and array.size:
        octets = array.view(np.ndarray).reshape(-1).view(np.uint8)
        octets[::4096] |= 0  # an assignment to itself, NumPy leaves out


def chunks_of(found):
    """Returns a recording as Chunks; its last pass, which ends the worker, is left out."""
    made, bursts, now, packets, filled = [], [], [], [], 0
    for each in passes_of(found):
        if each.passes < 0:
            break
        count = sum(burst[3] for burst in each.bursts)
        if filled + count > A_CHUNK or len(now) >= A_CHUNK:
            made.append(Chunk(np.array(bursts, np.int64).reshape(-1, 4), np.array(now, np.int64), packets))
            bursts, now, packets, filled = [], [], [], 0
        for port, block, first, number in each.bursts:
            bursts.append((len(now), port, filled, number))
            packets.append((port, block, first, number))
            filled += number
        now.append(each.now)
    made.append(Chunk(np.array(bursts, np.int64).reshape(-1, 4), np.array(now, np.int64), packets))
    return made


def sign_test(ratios):
    """Returns how likely (two-sided) as many rounds fall on one side of 1 by chance alone; equal ones do not count."""
    above, below = int((ratios > 1).sum()), int((ratios < 1).sum())
    rounds = above + below
    tail = sum(math.comb(rounds, k) for k in range(min(above, below) + 1)) / 2 ** rounds if rounds else 1
    return min(2 * tail, 1.0)


def settled(rounds):
    """Returns the ticks of each round (float64[rounds]): the sum over its passes, where interrupted ones count as 4 medians or a fourth."""
    rounds = np.array(rounds, float)
    usual = np.median(rounds, axis=0)
    return np.clip(rounds, usual / INTERRUPTED, usual * INTERRUPTED).sum(1)


def compared(these, those, tests=1):
    """Says what B takes of what A takes, round by round (dict): the median of the ratios, their interval of 95 %, and if it is real.

    Of several `tests` together, one is by chance below 5 % soon: each has to be below 5 % divided by them (Bonferroni).
    """
    ratios = those / these
    median, low, high = ratio_interval(ratios)
    chance = sign_test(ratios)
    return {"ratio": round(median, 4), "interval": [round(low, 4), round(high, 4)], "sign_test": round(chance, 5),
            "real": bool(chance < SURE / tests and not low <= 1 <= high)}


def _stages(racers, taken, packets):
    names = list(dict.fromkeys(name for racer in racers for name in racer.names))
    found = []
    for name in names:
        ticks = [np.array(rounds)[:, racer.names.index(name)] / packets if name in racer.names else np.zeros(len(rounds))
                 for racer, rounds in zip(racers, taken, strict=True)]
        if any(values.any() for values in ticks):
            row = {"stage": name, "a": quartiles(ticks[0]), "b": quartiles(ticks[1])}
            if all((values > 0).all() for values in ticks):
                row |= compared(*ticks, tests=len(names))
            found.append(row)
    return found


def _outputs(racers, found):
    results = [racer.run(found) for racer in racers]
    count, first = comparison.compare(results[0].sent, results[1].sent)
    return {"digests": [digest(result.sent) for result in results], "sent": [result.sent.packets for result in results],
            "differences": count, "first": first and comparison.told(first)}


def race(path, configs, kernels, runs=20, say=lambda words: None, port=None):
    """Races two compositions on the recording at `path`; returns what is to be said (dict, JSON-able).

    `configs` are the files of the configurations of A and B, `kernels` what is put into their slots ("SLOT=KERNEL" texts each).
    """
    settings = [chosen_kernels.override(configuration.load(config), choices, option)
                for config, choices, option in zip(configs, kernels, ("--a", "--b"), strict=True)]
    given = recording.open_recording(path)
    found, left_out = assigned(given, settings[0], port)
    overhead, chunks = profiling.ticks_of_a_mark(), chunks_of(found)
    racers, staged_racers = ([Racer(each, profiled, overhead) for each in settings] for profiled in (False, True))
    packets = sum(each[3] for chunk in chunks for each in chunk.packets)
    if not packets:
        raise ConfigurationError(f"{path}: no packet in it comes in by a port of the configuration, so there is nothing to race on")
    say("compiling what is not cached, and comparing what is sent")
    outputs = _outputs(racers, found)
    whole, staged = ([], []), ([], [])
    for number in range(-1, runs):  # the first only warms up
        if number >= 0 and number % max(runs // 5, 1) == 0:
            say(f"round {number + 1} of {runs}")
        for side in (0, 1) if number % 2 else (1, 0):
            for kept, racer in ((whole, racers[side]), (staged, staged_racers[side])):
                ticks = racer.race(chunks, found.description)
                if number >= 0:
                    kept[side].append(ticks)
    ticks = [settled(rounds) / packets for rounds in whole]
    return {"recording": str(path), "a": list(kernels[0]), "b": list(kernels[1]), "configs": [str(config) for config in configs],
            "packets": packets, "passes": len(whole[0][0]), "left_out": left_out, "runs": runs, "unit": "TSC ticks a packet",
            "tsc_hertz": round(measured_hertz()), "ticks": {"a": quartiles(ticks[0]), "b": quartiles(ticks[1])},
            "rounds": [[round(float(value), 2) for value in side] for side in ticks], **compared(*ticks),
            "stages": _stages(staged_racers, staged, packets), "outputs": outputs}


def _words(said):
    from pipeline.profile_report import made_table
    rows = [("whole passes", *_cells(said["ticks"]["a"], said["ticks"]["b"], said))]
    rows += [(row["stage"], *_cells(row["a"], row["b"], row)) for row in said["stages"]]
    return made_table("TSC ticks a packet", ("", "A", "B", "B of A", "interval of 95 %", "sign test", "real"), rows)


def _cells(a, b, row):
    spread = [f"{side['median']:,.1f} ({side['low']:,.1f}-{side['high']:,.1f})" for side in (a, b)]
    if "ratio" not in row:
        return *spread, "-", "-", "-", "-"
    low, high = row["interval"]
    return *spread, f"{row['ratio']:.1%}", f"{low:.1%} to {high:.1%}", f"{row['sign_test']:.3g}", "yes" if row["real"] else "no"


def tables(said):
    """Returns what `race` has found as things for a rich Console to print."""
    names = [", ".join(pairs) or "as configured" for pairs in (said["a"], said["b"])]
    faster = "B" if said["ratio"] < 1 else "A"
    by = abs(1 - said["ratio"])
    verdict = (f"{faster} is faster: B takes {said['ratio']:.1%} of the ticks of A, {by:.1%} {'less' if faster == 'B' else 'more'}" if said["real"]
               else f"no real difference: B takes {said['ratio']:.1%} of the ticks of A")
    outputs = said["outputs"]
    sent = (f"both send the same {outputs['sent'][0]:,} packets" if not outputs["differences"] else
            f"what they send differs in {outputs['differences']:,} packets; the first:\n{outputs['first']}")
    heading = (f"A: {names[0]} ({said['configs'][0]})\nB: {names[1]} ({said['configs'][1]})\n{said['packets']:,} packets in "
               f"{said['passes']:,} passes, {said['runs']} rounds each, in turns")
    return [heading, _words(said), verdict, sent, EXPLANATION]


def draw(axes, said):
    """Draws the ticks of each round of A and B, and their medians, on a matplotlib Axes."""
    for place, (name, values) in enumerate(zip("AB", said["rounds"], strict=True)):
        axes.plot(range(1, len(values) + 1), values, marker="o", label=f"{name}: {', '.join(said[name.lower()]) or 'as configured'}")
        axes.axhline(np.median(values), color=f"C{place}", linestyle=":")
    axes.set_xlabel("round")
    axes.set_ylabel(said["unit"])
    axes.set_ylim(bottom=0)
    axes.legend()
    axes.grid(alpha=0.3)
