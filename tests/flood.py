"""An engine among malformed frames: open connections that transfer data meanwhile, and an account of every frame."""
import numpy as np
from configuration_text import two_networks
from malformed import ARP_ANSWERED, CORRUPT, ECHOED, EVERY_KIND, FORWARDED, IN_MEMORY, REFUSED, Valid

from memory_loop import CHECKED
from pipeline import configuration
from pipeline.io.frame_rows import write_rows
from pipeline.io.tcp_ends import TcpEnds
from pipeline.kernels import counters
from pipeline.memory_engine import SECOND

CONFIGURATION = two_networks({"idle": "spin", "burst": 64, "connections": 4096, "reset_rate": 10_000_000,
                              "isolation": "checked" if CHECKED else "off"}, gateway="10.1.0.99")
SETTINGS = configuration.parse(CONFIGURATION, "the flood's configuration")
CONNECTIONS = 16


class Flood:
    """An engine for SETTINGS with open connections; `round` feeds malformed frames among segments of theirs.

    `engine` is a pipeline.memory_engine.MemoryEngine or has the same attributes (see io.tcp_ends).
    """

    def __init__(self, engine, seed):
        self.random, self.engine = np.random.default_rng(seed), engine
        clients = 0x0A010002 + np.arange(CONNECTIONS), self.random.integers(1024, 65536, CONNECTIONS)
        self.ends = TcpEnds(self.engine, clients, (0x0A010001, 80), self.random)
        self.ends.open()
        self.valid = Valid(self.ends, self.random)
        self.fed, self.kinds = 0, {kind.__name__: 0 for kind in EVERY_KIND}
        for side in (0, 1):
            self.transfer()

    def counted(self):
        """Returns copies of what is counted: drops, notices, totals."""
        return [column.copy() for column in self.engine.state.counters[:2]] + [self.engine.state.counters.totals.copy()]

    def segments(self, side):
        """Returns mbufs with the next one to four segments of every connection."""
        made = []
        for _ in range(int(self.random.integers(1, 5))):
            rows, lengths = self.ends.segments(side, np.arange(CONNECTIONS), self.random.integers(1, 1461, CONNECTIONS))
            made.append(write_rows(self.engine.pool, rows, lengths))
        return np.concatenate(made)

    def of_kind(self, kind, side, count):
        """Returns mbufs and outcomes of malformed frames of one kind."""
        if kind in IN_MEMORY:
            mbufs, outcomes = kind(self.valid, side, count, self.engine.pool)
        else:
            made = kind(self.valid, side, count)
            mbufs, outcomes = write_rows(self.engine.pool, made.rows, made.lengths), made.outcomes
        self.kinds[kind.__name__] += len(mbufs)
        return mbufs, outcomes

    def feed(self, side, wrong, right):
        """Lets a port receive both, the right ones in their order and the others anywhere among them."""
        is_right = self.random.permutation(np.arange(len(wrong) + len(right)) < len(right))
        mbufs = np.empty(len(is_right), np.int64)
        mbufs[is_right], mbufs[~is_right] = right, self.random.permutation(wrong)
        self.engine.feed(side, mbufs)

    def transfer(self):
        """A round of valid segments alone."""
        return self.round({})

    def round(self, share):
        """Feeds `share` (kind to number of frames) on both sides and compares all that comes of it."""
        before, outcomes, right, sent = self.counted(), [np.empty(0, np.int64)], [0, 0], 0
        for side in (0, 1):
            made = [self.of_kind(kind, side, count) for kind, count in share.items() if count]
            outcomes += [results for _, results in made]
            segments = self.segments(side)
            right[side] = len(segments)
            self.feed(side, np.concatenate([np.empty(0, np.int64), *(mbufs for mbufs, _ in made)]), segments)
        outcomes = np.concatenate(outcomes)
        self.fed += len(outcomes)
        self.engine.step(1000)
        drops, notices, totals = (after - earlier for after, earlier in zip(self.counted(), before, strict=True))
        expected = np.bincount(outcomes[outcomes >= 0], minlength=len(drops))
        differing = {counters.DROP_REASONS[reason]: (int(drops[reason]), int(expected[reason]))
                     for reason in np.flatnonzero(drops != expected)}
        assert not differing, f"{[kind.__name__ for kind in share]}: drops counted and expected: {differing}"
        number = {outcome: int((outcomes == outcome).sum()) for outcome in range(-6, 0)}
        assert totals[counters.TOTAL_PACKETS] == len(outcomes) + sum(right)
        assert notices[counters.NOTICE_RESETS_SENT] == number[REFUSED]
        assert notices[counters.NOTICE_ECHO_REPLIES] == number[ECHOED]
        assert notices[counters.NOTICE_ARP_REPLIES] == number[ARP_ANSWERED]
        corrupt = 0
        for side in (0, 1):
            got = self.ends.take(side)
            sent += len(got)
            assert got.ipv4_right.all()
            corrupt += int((got.plain & ~got.tcp_right).sum())
            assert self.ends.accept(side, got)[0] == right[1 - side]
        assert corrupt == number[CORRUPT]
        answered = number[REFUSED] + number[ECHOED] + number[ARP_ANSWERED] + notices[counters.NOTICE_ARP_REQUESTS]
        assert totals[counters.TOTAL_TRANSMITTED] == sent == sum(right) + number[FORWARDED] + corrupt + answered
        assert (self.ends.sent == self.ends.received).all()

    def finish(self):
        """Closes all connections, in order; every one has to end so, and every mbuf has to come back."""
        totals, causes = self.engine.state.counters.totals, self.engine.state.counters.causes
        assert totals[counters.TOTAL_OPEN] == totals[counters.TOTAL_OPENED] == CONNECTIONS
        self.ends.close()
        for _ in range(5):
            self.engine.step(SECOND)
            self.ends.take(0), self.ends.take(1)
        assert totals[counters.TOTAL_OPEN] == 0
        assert causes[0].sum() == causes[0, 2] == CONNECTIONS, "each client closed first: PassiveClose"
        assert self.engine.pool.available == self.engine.pool.mbufs
