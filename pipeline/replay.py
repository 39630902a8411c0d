"""Replays a recording through an engine on memory ports, on recorded time: without DPDK, and with the same bytes out each time.

A recording made by `run --record` says at which time, in which pass of the loop and with which secret everything happened, so
that what comes out is what the engine sent then, to the octet. Of any other capture each packet is a burst of its own, and the
loop's timers run every tick in between.
"""
import itertools
import time
from typing import NamedTuple

import numpy as np

from pipeline import assemble, compiled_loop, replay_drivers, snapshot
from pipeline.errors import ConfigurationError
from pipeline.io.frames import write_frames
from pipeline.io.memory_port import MemoryNetwork
from pipeline.io.recording import HeldRecording
from pipeline.kernels import recorder
from pipeline.kernels.headers import BUFFER
from pipeline.memory_engine import MemoryEngine
from pipeline.recorders import last_block, taken_blocks
from pipeline.state import STOP

SECRET = 0x70726F78, 0x79706970
"""Where a recording names none: so the initial numbers of a replay are the same each time."""
MBUFS, RING = 32768, 8192
BUFFER_OCTETS, SNAP = 32 << 20, 16384
"""Of the recorder of what is sent."""


class Pass(NamedTuple):
    """One pass of the loop: its time (microseconds), `phase` (state.RUN ..), and what comes in before it: (port, block, first
    packet, how many) each. `passes` is how many of the loop are to be made (-1: until it ends)."""

    now: int
    phase: int
    bursts: tuple
    passes: int = 1


class Result(NamedTuple):
    """What a replay came to: `sent` (a recording in memory), how many packets came in, the counters (dict) and seconds."""

    sent: HeldRecording
    received: int
    counters: dict
    seconds: float


def passes_of(recording, worker=0):
    """Yields the `Pass`es of one worker's blocks: bursts of the same pass of its loop come in together."""
    def rows():
        for block in recording.of_worker(worker):
            for burst in block.bursts:
                yield block, burst

    for _, together in itertools.groupby(rows(), lambda row: int(row[1]["turn"])):
        together = list(together)
        first = together[0][1]
        bursts = tuple((int(burst["port"]), block, int(burst["packet"]), int(burst["count"])) for block, burst in together
                       if burst["kind"] == recorder.RECEIVED and burst["count"])
        yield Pass(int(first["time"]), int(first["phase"]), bursts, -1 if first["phase"] == STOP else 1)
        if first["phase"] == STOP:
            return


LONGEST_SILENCE = 86_400_000_000
"""Microseconds between two packets of a capture."""


class Replay:
    """An engine for a Configuration through which recordings are replayed, one after the other, each from the start.

    `run` is a loop composed for the configuration, where the caller has one. Faults of its ports are left out: a recording
    has what they have left. `perform` makes a Pass: whoever measures may take its place. `profiled`: its loop has marks.
    """

    profiled = False

    def __init__(self, configuration, run=None):
        if configuration.engine.mode == "generator":
            raise ConfigurationError('a replay needs a proxy: engine.mode = "generator" makes traffic of its own')
        ports = [port.model_copy(update={"faults": None}) for port in configuration.ports]
        self.configuration = configuration.model_copy(update={"ports": ports})
        self.loop = run
        self.engine = self.entry = self.blocks = None

    def begin(self, description):
        """Makes a fresh engine, as it was when what the `description` is of was recorded."""
        settings = self._settings(description)
        network = MemoryNetwork(settings.port_count, MBUFS, RING)
        for port, mac in zip(network.ports, description.macs, strict=False):
            if mac is not None:
                port.mac = mac
        self.engine = MemoryEngine(settings, network=network, run=self.loop, profiled=self.profiled)
        self.loop = self.engine.run
        assemble.settle_chances(self.engine.state, (description.secrets or [SECRET])[0])
        self.entry = compiled_loop.entry(self.loop, self.engine.state)
        self.blocks, self.sent = recorder.allocate_recorder(BUFFER_OCTETS, SNAP), []
        self.description = description._replace(snap=SNAP, workers=1)

    def _settings(self, description):
        """Returns the configuration with the MAC addresses that only the machine knew on which it was recorded."""
        settings = self.configuration
        if len(description.ports) != settings.port_count:
            raise ConfigurationError(f"the recording has {len(description.ports)} ports ({', '.join(description.ports)}), the "
                                     f"configuration {settings.port_count}; they must be as many, in the same order")
        if description.workers != 1:
            raise ConfigurationError(f"the recording was made by {description.workers} workers, which hand packets over to each other "
                                     "at times that are not recorded; only that of one worker (engine.cores = [1]) can be replayed")
        known = description.more.get("targets", {})
        targets = [target.model_copy(update={"linux_if": None, "mac": snapshot.mac_text(known[target.id] >> 32, known[target.id] & 0xFFFFFFFF)})
                   if target.mac is None and target.id in known else target for target in settings.targets]
        return settings.model_copy(update={"targets": targets})

    def loaded(self, block, first, count):
        """Returns fresh mbufs (int64[count]) with packets of a Block; octets that were not recorded are 0."""
        network, packets = self.engine.network, block.packets[first:first + count]
        if int(packets["length"].max()) <= BUFFER:
            mbufs = network.pool.allocate(count)
            arrays = np.array(packets, recorder.PACKET).view(np.recarray), np.frombuffer(block.octets, np.uint8)
            replay_drivers.load(network.arena.native, network.arena.base, mbufs, *arrays)
            return mbufs
        return write_frames(network.pool, [block.whole_frame(number) for number in range(first, first + count)])

    def feed(self, port, block, first, count):
        """Lets a port receive packets of a Block."""
        self.engine.feed(port, self.loaded(block, first, count))

    def perform(self, each):
        """Makes a Pass, whose packets have been fed."""
        state = self.engine.state
        state.control[0] = each.phase
        self.engine.run(state, each.passes, each.now)
        for _ in range(replay_drivers.MOST_AGAIN):
            if each.passes < 0 or not any(port.waiting for port in self.engine.ports):
                return
            self.engine.run(state, 1, each.now)

    def collect(self, now):
        """Takes what was sent by all ports."""
        network = self.engine.network
        for port in self.engine.ports:
            mbufs = port.taken_mbufs()
            if len(mbufs):
                replay_drivers.capture(self.blocks, network.arena.native, network.arena.base, mbufs, port.number, now)
                network.pool.release(mbufs)
            self.sent += [copied(block) for block in taken_blocks(self.blocks, 0)]

    def idle(self, start, stop):
        """Lets the time from `start` to `stop` (microseconds) pass, a tick at a time."""
        while start < stop:
            start = int(replay_drivers.idle(self.entry, self.engine.state, self.engine.state.device.sent.written, start, stop))
            self.collect(start)

    def run(self, recording, speed=None):
        """Replays a recording; returns a Result. With a `speed` not faster than that many times as it was recorded."""
        self.begin(recording.description)
        begun, first, last, received = time.perf_counter(), None, None, 0
        for each in passes_of(recording):
            if first is None:
                first, last = each.now, each.now if recording.description.has_passes else 0
            if speed is not None:
                time.sleep(max((each.now - first) / speed / 1e6 - (time.perf_counter() - begun), 0))
            if not recording.description.has_passes:
                if each.now - last > LONGEST_SILENCE:
                    raise ConfigurationError(f"in the capture {(each.now - last) / 3600e6:,.0f} hours pass without a packet, after "
                                             f"{received:,} packets; timers run every 10 ms meanwhile, so a day is the most that is replayed")
                self.idle(last, each.now)
            for burst in each.bursts:
                self.feed(*burst)
                received += burst[3]
            self.perform(each)
            self.collect(each.now)
            last = each.now
        self.sent.append(copied(last_block(self.blocks, 0)))
        counters = snapshot.of_worker(0, self.engine.state)
        return Result(HeldRecording(self.description, [block for block in self.sent if len(block.bursts)]), received, counters,
                      time.perf_counter() - begun)


def copied(block):
    """Returns a copy of a Block, whose memory is used again."""
    return block._replace(bursts=block.bursts.copy(), packets=block.packets.copy(), octets=block.octets.copy())


def replay(recording, configuration, speed=None):
    """Replays a recording through an engine for a Configuration; returns a `Result`."""
    return Replay(configuration).run(recording, speed)
