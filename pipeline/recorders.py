"""Records what a running engine receives and sends: the workers' recorders, and the thread that writes their blocks to files."""
import contextlib
import os
import pathlib
import threading
import time
from typing import NamedTuple

import numpy as np

from pipeline import packet_filter
from pipeline.errors import ConfigurationError
from pipeline.io.capture_file import CaptureWriter, is_capture
from pipeline.io.recording import Block, Description, RecordingWriter
from pipeline.kernels import recorder

INTERVAL = 0.002
"""Seconds between two looks for blocks that are full."""
MIB = 1 << 20


class Recorded(NamedTuple):
    """What `run` is to record: files for what comes in and for what is sent (paths or None), octets of a packet, packets at most
    (-1: all), the filter's text, and the MiB of memory for packets that are not written yet."""

    received: str | None = None
    sent: str | None = None
    snap: int = 16384
    limit: int = -1
    filter: str = ""
    buffer: int = 64


def open_writer(path, description):
    """Returns a writer of blocks for the file `path`: of pcap or pcapng by its suffix, else of our own format."""
    return (CaptureWriter if is_capture(path) else RecordingWriter)(path, description)


def taps(recorded):
    """Returns the source by which a loop records (see `compose.source`), of a Recorded."""
    constants = f"\nRECORDING, CAPTURING = {int(recorded.received is not None)}, {int(recorded.sent is not None)}\n"
    return packet_filter.source(recorded.filter) + constants


def block_of(blocks, number, worker, counts):
    """Returns a view of the block with this number of a Recorder as a Block; `counts` are bursts, packets and octets in it, then what was
    dropped until then."""
    place, shape = int(blocks.order[number % len(blocks.order)]), blocks.shape
    first = [place * int(shape[most]) for most in (recorder.MOST_BURSTS, recorder.MOST_PACKETS, recorder.MOST_OCTETS)]
    return Block(worker, *(part[start:start + int(count)] for part, start, count in zip(blocks[:3], first, counts, strict=False)),
                 *map(int, counts[3:]))


def taken_blocks(blocks, worker):
    """Yields the blocks that a worker has handed over, and gives each back once the caller is done with it."""
    while blocks.tail[0] < blocks.head[0]:
        number = int(blocks.tail[0])
        header = blocks.blocks[number % int(blocks.shape[recorder.BLOCKS])]
        yield block_of(blocks, number, worker, [header[name] for name in ("bursts", "packets", "octets", "dropped", "dropped_bursts")])
        blocks.tail[0] = number + 1


def last_block(blocks, worker):
    """Returns the block that a worker, which has ended, was filling."""
    filled = [blocks.filled[place] for place in (recorder.BURSTS, recorder.PACKETS, recorder.OCTETS)]
    return block_of(blocks, int(blocks.head[0]), worker,
                    [*filled, blocks.counted[recorder.DROPPED], blocks.counted[recorder.DROPPED_BURSTS]])


class Tap:
    """One file, and the recorders of all workers whose blocks go into it. `trouble` is a sentence once writing has failed."""

    def __init__(self, path):
        self.path, self.recorders, self.writer, self.trouble = pathlib.Path(path), [], None, None
        self.unwritten = 0
        try:
            open(path, "wb").close()
        except OSError as error:
            raise ConfigurationError(f"{path}: cannot be written ({error.strerror}); it must be a file in a folder that exists") from error

    def begin(self, description, recorders):
        """Opens the file for what these recorders, one a worker, will have."""
        self.recorders = recorders
        self.writer = open_writer(self.path, description)

    def _write(self, block):
        if self.trouble:
            self.unwritten += len(block.packets)
            return
        try:
            self.writer.write(block)
        except OSError as error:
            self.trouble = f"{self.path}: no more packets are written ({error.strerror})"
            self.unwritten += len(block.packets)

    def drain(self):
        """Writes all blocks that are full."""
        for worker, blocks in enumerate(self.recorders):
            for block in taken_blocks(blocks, worker):
                self._write(block)

    def finish(self):
        """Writes what is left, once the workers have ended, and closes the file."""
        if self.writer is None:
            return
        self.drain()
        for worker, blocks in enumerate(self.recorders):
            self._write(last_block(blocks, worker))
        try:
            self.writer.close()
        except OSError as error:
            self.trouble = self.trouble or f"{self.path}: could not be finished ({error.strerror})"

    def summary(self):
        """Returns how many packets were written and how many dropped (dict)."""
        counted = np.sum([blocks.counted for blocks in self.recorders] or [np.zeros(4, np.int64)], 0)
        return {"file": str(self.path), "packets": int(counted[recorder.RECORDED]) - self.unwritten, "seen": int(counted[recorder.SEEN]),
                "dropped": int(counted[recorder.DROPPED]) + self.unwritten}


class Recorders:
    """All that a run records, as a Recorded says; a context manager, around the engine.

    `equip` the states before they run, then `begin`; leaving it, when the workers have ended, finishes the files. What writes
    them stays off the workers' `cores`, where there are others.
    """

    def __init__(self, recorded, cores=()):
        self.recorded, self.cores = recorded, set(cores)
        self.taps = {name: Tap(path) for name, path in (("recorder", recorded.received), ("capture", recorded.sent)) if path}
        self.source = taps(recorded)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._write, name="recording", daemon=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()
        for tap in self.taps.values():
            tap.finish()

    def equip(self, state):
        """Returns a worker's state with recorders for what is to be recorded."""
        chosen = self.recorded
        return state._replace(**{name: recorder.allocate_recorder(chosen.buffer * MIB, chosen.snap, chosen.limit)
                                 for name in self.taps})

    def begin(self, configuration, macs, states, started, targets=None):
        """Begins the files of workers that are about to run: `macs` are those of all ports (ints), `started` nanoseconds since
        1970 of their clocks' 0, `targets` the MAC addresses of targets that this machine alone knows."""
        chosen = self.recorded
        more = {"engine": configuration.engine.name, "filter": chosen.filter, "limit": chosen.limit, "targets": targets or {},
                "secrets": [[int(word) for word in state.connections.secret] for state in states], "passes": True}
        for name, tap in self.taps.items():
            tap.begin(Description(configuration.port_names, tuple(map(int, macs)), len(states), chosen.snap, started, more),
                      [getattr(state, name) for state in states])
        self._thread.start()

    def _write(self):
        with contextlib.suppress(OSError):  # there is no other core
            os.sched_setaffinity(0, set(range(os.cpu_count())) - self.cores)
        while not self._over.is_set():
            for tap in self.taps.values():
                tap.drain()
            time.sleep(INTERVAL)

    @property
    def troubles(self):
        """Sentences (list of str) about files that could not be written to their end."""
        return [tap.trouble for tap in self.taps.values() if tap.trouble]

    def summary(self):
        """Returns what was recorded (dict of `received` and `sent`)."""
        return {{"recorder": "received", "capture": "sent"}[name]: tap.summary() for name, tap in self.taps.items()}
