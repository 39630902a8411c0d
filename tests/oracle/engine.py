"""The engine under test: a worker's loop over memory ports on virtual time, fed with rows and emptied of them."""
import numpy as np
from tcp.conservation import conserved, free_sources

from memory_loop import own, started
from pipeline import assemble, configuration
from pipeline.io.frame_rows import fill_mbufs, read_rows
from pipeline.io.memory_port import MemoryNetwork
from pipeline.kernels import counters, memory_device, neighbours
from pipeline.kernels.arp import ANNOUNCEMENTS

from .translation import HOST_MACS, PROXY_MACS
from .wire import WIDEST


class Engine:
    """A worker for a configuration (TOML). All that it draws at random comes from `dice`; hosts are known at once."""

    def __init__(self, text, clients, dice):
        settings = configuration.parse(text, "the fuzz's configuration")
        self.network = MemoryNetwork(2, 1 << 14, 1 << 12)
        macs = [int.from_bytes(mac) for mac in PROXY_MACS]
        state, selects = assemble.make_state(settings, self.network.device, self.network.arena, macs, 0, 1e9)
        self.state, = own([state])
        self.state.connections.secret[:] = dice.randrange(1 << 32), dice.randrange(1 << 32)
        self.state.network.announced[0] = ANNOUNCEMENTS
        for ring, free in zip(self.state.sources.ring, self.state.sources.free, strict=True):
            ring[:free].sort()
        for address in clients:
            entry = self.state.network.neighbours[neighbours.add_neighbour(self.state.network, address, 0)]
            entry.mac_high, entry.mac_low = assemble.split_mac(int.from_bytes(HOST_MACS[0]))
            entry.state = neighbours.STATIC
        self.sources_at_start = free_sources(self.state)
        self._run = started(self.state, tuple(selects))
        self.fed = self.taken = 0
        self.remember_drops()
        self._scratch = np.empty(1 << 12, np.int64)

    def feed(self, port, rows, lengths):
        """Lets a port receive frames, in order."""
        mbufs = self.network.pool.allocate(len(rows))
        fill_mbufs(self.network.arena, mbufs, rows, lengths)
        assert self.network.ports[port].feed_mbufs(mbufs) == len(rows)
        self.fed += len(rows)

    def run(self, now, passes):
        """Runs the loop at a time in microseconds, until it has received all that it was fed."""
        self._run(self.state, passes, now)
        for _ in range(100):
            more = any(port.waiting for port in self.network.ports)
            self._run(self.state, 4, now)    # what has waited for what came comes again in a later pass
            if not more:
                return
        raise AssertionError("the worker does not receive what it is fed")

    def take(self, port):
        """Returns what a port has sent: rows (uint8[n, even width], zero behind each frame) and lengths."""
        pool = self.network.pool
        count = memory_device.dequeue(pool.device.sent, port, self._scratch, 0, len(self._scratch))
        mbufs = self._scratch[:count]
        longest = int(self.network.arena.native.mbuf["packet_length"][mbufs].max(initial=60))
        rows, lengths = read_rows(self.network.arena, mbufs, min(longest + 1 & ~1, WIDEST))
        pool.release(mbufs)
        self.taken += count
        return rows, lengths

    def states(self, rows, keys):
        """Returns the state (int64[n]) of the connections at `rows` whose clients have the key address << 16 | port."""
        hot = self.state.connections.hot
        own = hot["remote_address"][rows, 0].astype(np.int64) << 16 | hot["remote_port"][rows, 0]
        return np.where((own == keys) & (rows >= 0), hot["state"][rows].astype(np.int64), 0)

    def rows(self):
        """Returns key -> row of all connections that are not free."""
        hot = self.state.connections.hot
        found = np.flatnonzero(hot["state"])
        keys = hot["remote_address"][found, 0].astype(np.int64) << 16 | hot["remote_port"][found, 0]
        return dict(zip(keys.tolist(), found.tolist(), strict=True))

    def client_of(self, local, target):
        """Returns the client's (address, port) of the connection from `local` to `target`, None without one.

        One that has ended since it sent what is looked at counts only where there is no other.
        """
        hot = self.state.connections.hot
        found = np.flatnonzero((hot["local_port"][:, 1] == local[1]) & (hot["local_address"][:, 1] == local[0])
                               & (hot["remote_address"][:, 1] == target[0]) & (hot["remote_port"][:, 1] == target[1]))
        living = found[hot["state"][found] != 0]
        found = living if len(living) else found
        if len(found) == 0:
            return None
        return int(hot["remote_address"][found[0], 0]), int(hot["remote_port"][found[0], 0])

    def remember_drops(self):
        """Remembers what was dropped so far, for `drops`."""
        self._before = self.state.counters.drops.copy()

    def drops(self):
        """Returns reasons and numbers of what was dropped since `remember_drops` (dict), to explain a fault."""
        dropped = self.state.counters.drops - self._before
        return {counters.DROP_REASONS[reason]: int(dropped[reason]) for reason in np.flatnonzero(dropped)}

    def conserved(self):
        """Asserts that all is given back, and that what was counted agrees with what went in and came out."""
        conserved(self.state, self.network.pool, int(self.state.connections.waiting.used[0]), self.sources_at_start)
        totals = self.state.counters.totals
        assert (int(totals[1]), int(totals[2])) == (self.fed, self.taken), (totals, self.fed, self.taken)
