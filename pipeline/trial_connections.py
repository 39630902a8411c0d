"""Tries express, transition and rewrite on bursts of connections that are open: beside the reference, on the same state."""
import numpy as np

from pipeline.io.tcp_ends import TcpEnds
from pipeline.kernels.batch import BURST, FORWARD, SENT
from pipeline.kernels.headers import ACK, FIN, PSH, RST
from pipeline.memory_engine import MemoryEngine
from pipeline.trial_engine import SERVICE, WIDTH, Bench, differing, outcome, settings
from pipeline.trial_stages import TO_EXPRESS, TO_REWRITE, TO_TRANSITION, stages_until

CLIENTS = 64
STAGE = {"express": TO_EXPRESS, "transition": TO_TRANSITION, "rewrite": TO_REWRITE}
BURSTS = (1, 2, 7, 32, 64, 150, 150)


class Opened(Bench):
    """A bench whose state is that of an engine with CLIENTS open connections."""

    def __init__(self):
        self.engine = MemoryEngine(settings(), mbufs=2048)
        self.network, self.macs, self.state = self.engine.network, self.engine.macs, self.engine.state
        self.random = np.random.default_rng(7)
        numbers = np.arange(CLIENTS)
        self.ends = TcpEnds(self.engine, (0x0A010002 + numbers % 5, 20_000 + numbers), SERVICE, self.random)
        self.ends.open()
        self.mbufs = self.network.pool.allocate(BURST)

    def burst(self, side, count):
        """Returns rows and lengths of what a side sends: data, old and new, acknowledgements, ends, strangers; some of it spoilt."""
        rows, lengths = self.frames(count)
        if side == 1:
            rows[:, 0:12] = np.frombuffer(b"".join(mac.to_bytes(6, "big") for mac in self.ends.macs[1]), np.uint8)
        ends, kinds = self.ends, self.random.integers(0, 8, count)
        for row in np.flatnonzero(kinds < 7).tolist():
            which = self.random.integers(0, CLIENTS, 1)
            if kinds[row] < 4:
                made, length = ends.segments(side, which, int(self.random.integers(1, 100)))
            elif kinds[row] == 4:
                made, length = ends.segments(side, which, 8, back=8 if ends.sent[side, which[0]] >= 8 else 0)
            else:
                control = int(self.random.choice([ACK, ACK, ACK | PSH, FIN | ACK, RST]))
                made, length = ends.frames(side, which, *ends.numbers(side, which), control)
            rows[row] = 0
            rows[row, :made.shape[1]], lengths[row] = made[0, :WIDTH], length[0]
        return rows, lengths


def arguments_of(slot, state, count, now):
    """Returns the arguments of a kernel of a slot, as `stages` in pipeline/loop.py hands them over."""
    connections, network = state.connections, state.network
    before = (state.packets, state.base[0], state.batch, count, connections)
    if slot == "express":
        return state.packets, state.batch, count, connections, network, state.outbox, now
    if slot == "rewrite":
        return *before, network, now
    return *before, state.selection.services, state.targets, network, state.records, now


def compared(slot, count, wanted, found):
    """Returns the sentences on where outcomes differ. `express` may leave more rows than ours, but what it sends must be right."""
    (mine, before), (theirs, after) = wanted, found
    sent = [set(np.flatnonzero(one["state.batch.verdict"][:count] == SENT)) for one in (before, after)]
    faults = []
    if slot == "express":
        if int(theirs) != count - len(sent[1]):
            faults.append(f"it answers that {theirs} of {count} rows are left, and has sent {len(sent[1])}")
        if sent[1] < sent[0]:
            return faults
        if mine != theirs:
            faults.append(f"{theirs} rows are left, by the reference {mine}; row {min(sent[1] ^ sent[0], default=0)} is not alike")
    sentences = (differing(name, before[name], after[name]) for name in before if name != "state.batch.above")
    return faults + [sentence for sentence in sentences if sentence]


def try_beside(slot, reference, kernel):
    """Returns what was tried and the faults (list of str) of a kernel beside the reference of its slot."""
    bench, faults, tried, passed = Opened(), [], 0, 0
    now = bench.engine.now
    for number, count in enumerate(BURSTS * 2):
        side = number % 2
        for column in bench.state.batch:
            column[:] = 0
        bench.receive(*bench.burst(side, count))
        watched = bench.watched()
        before = {name: array.copy() for name, array in watched.items()}
        stages_until(bench.state, side, count, now, STAGE[slot])
        arguments = arguments_of(slot, bench.state, count, now)
        wanted, found = outcome(reference, arguments, watched), outcome(kernel, arguments, watched)
        faults += [f"burst of {count}: {sentence}" for sentence in compared(slot, count, wanted, found)]
        tried += count
        passed += int(np.isin(wanted[1]["state.batch.verdict"][:count], (FORWARD, SENT)).sum())
        for name, array in watched.items():
            array[...] = before[name]
    return f"{tried} packets in {len(BURSTS) * 2} bursts of {CLIENTS} open connections, of which {passed} pass", faults
