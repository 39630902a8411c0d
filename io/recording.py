"""Recordings of packets, our own format: written block by block, read through a memory map.

Version 1; all numbers are little-endian and unsigned unless said otherwise, offsets are octets from the file's start.

    file header, 64 octets (HEADER): magic "ppburst1"; version; where the first block begins; snap length; ports; workers;
        length of the description behind this header (JSON, UTF-8, padded with blanks); when the loop's clock was 0 (signed,
        nanoseconds since 1970); where the index is, 0 while the file is being written; blocks.
    blocks, each at a multiple of 8:
        block header, 64 octets (kernels.recorder.BLOCK): magic "burstblk"; worker; how many bursts, packets and octets follow;
            times of its first and last burst; packets and bursts dropped until then (for want of a buffer)
        bursts, 32 octets each (kernels.recorder.BURST): time, in microseconds of the loop's clock; number of the loop's
            pass; first packet in this block; how many; how many there were before filter and limit; port; kind; phase
        packets, 12 octets each (PACKET): where its octets begin, behind the packets; how many; how long the frame was
        octets of the packets, each from a multiple of 8 on; padding up to a multiple of 8
    index: magic "pbindex1"; blocks; offset of each block, 8 octets each.

A file that was cut short has no index: it is read block by block, up to the last one that is whole. Bursts of one worker are
in order. Their kinds are in kernels.recorder: packets received by a port, packets sent, and passes without new packets.

The description says what a replay needs to do the same again: `ports` (name and MAC address of each), `secrets` (of each
worker, see assemble.settle_chances), `targets` (MAC addresses that were looked up on the machine), what was recorded
(`filter`, `limit`), and by whom. Whoever has a recording knows the secret behind that run's initial sequence numbers.
"""
import json
import mmap
import os
import pathlib
import types
from typing import NamedTuple

import numpy as np

from pipeline.kernels.recorder import BLOCK, BURST, MAGIC, PACKET

HEADER = np.dtype([
    ("magic", "S8"), ("version", "<u4"), ("first_block", "<u4"), ("snap", "<u4"), ("ports", "<u4"), ("workers", "<u4"),
    ("description", "<u4"), ("started", "<i8"), ("index", "<u8"), ("blocks", "<u8"), ("reserved", "<u8"),
])
FILE_MAGIC, INDEX_MAGIC = b"ppburst1", b"pbindex1"
VERSION = 1
MOST_PACKETS_A_BLOCK = 16384
"""In blocks that are made in Python."""


class Block(NamedTuple):
    """Bursts and packets of one worker that lie together: `bursts` (BURST), `packets` (PACKET) and `octets` (uint8)."""

    worker: int
    bursts: np.ndarray
    packets: np.ndarray
    octets: np.ndarray
    dropped: int = 0
    dropped_bursts: int = 0

    def frame(self, number):
        """Returns the recorded octets (bytes) of a packet of this block."""
        packet = self.packets[number]
        start = int(packet["offset"])
        return self.octets[start:start + int(packet["captured"])].tobytes()

    def whole_frame(self, number):
        """Returns a packet of this block (bytes) as long as it was on the wire; octets that were not recorded are 0."""
        return self.frame(number).ljust(int(self.packets["length"][number]), b"\0")


class Description(NamedTuple):
    """What a recording says of itself: `started` (nanoseconds since 1970, when the loop's clock was 0), names of the ports
    and their MAC addresses (ints, None where not known), how many workers, the snap length and all else (dict)."""

    ports: tuple
    macs: tuple
    workers: int = 1
    snap: int = 65535
    started: int = 0
    more: dict = types.MappingProxyType({})

    @property
    def secrets(self):
        """The secret (pair of ints) of each worker's state, or none."""
        return [tuple(pair) for pair in self.more.get("secrets", ())]

    @property
    def has_passes(self):
        """Whether the passes of the loop without packets are there too."""
        return bool(self.more.get("passes"))


def padding(length):
    """Returns how many octets are missing to the next multiple of 8."""
    return -length % 8


def _header(description, index=0, blocks=0):
    text = json.dumps({"ports": [{"name": name, "mac": mac} for name, mac in zip(description.ports, description.macs, strict=True)],
                       **description.more}).encode()
    text += b" " * padding(len(text))
    header = np.zeros(1, HEADER)
    header[0] = (FILE_MAGIC, VERSION, HEADER.itemsize + len(text), description.snap, len(description.ports), description.workers,
                 len(text), description.started, index, blocks, 0)
    return header.tobytes(), text


class Frame(NamedTuple):
    """A packet: microseconds, number of the port, kind (kernels.recorder), octets that were recorded, and the frame's length."""

    time: int
    port: int
    kind: int
    octets: bytes
    length: int


class RecordingWriter:
    """Writes a recording into the file `path`, which it begins anew; a context manager. OSErrors are the caller's."""

    def __init__(self, path, description):
        self.path, self.description, self.places = pathlib.Path(path), description, []
        self.packets = 0
        self._file = open(path, "wb", buffering=0)
        self._place = 0
        self._write(*_header(description))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _write(self, *parts):
        """Appends parts: in one call, outside of the GIL, that is as fast as the page cache takes them."""
        parts = [memoryview(part).cast("B") for part in parts if len(part)]
        while parts:
            written = os.writev(self._file.fileno(), parts)
            self._place += written
            while parts and written >= len(parts[0]):
                written -= len(parts.pop(0))
            if parts:
                parts[0] = parts[0][written:]

    def write(self, block):
        """Appends a Block."""
        if not len(block.bursts):
            return
        header = np.zeros(1, BLOCK)
        header[0] = (MAGIC, block.worker, len(block.bursts), len(block.packets), len(block.octets), block.bursts["time"][0],
                     block.bursts["time"][-1], block.dropped, block.dropped_bursts, 0)
        self.places.append(self._place)
        self.packets += len(block.packets)
        parts = [np.ascontiguousarray(part).view(np.uint8) for part in (header, block.bursts, block.packets, block.octets)]
        self._write(*parts, bytes(padding(sum(map(len, parts)))))

    def close(self):
        """Writes the index and says in the header where it is."""
        if self._file.closed:
            return
        place = self._place
        index = np.array([len(self.places), *self.places], "<u8")
        self._write(INDEX_MAGIC, index.tobytes())
        os.pwrite(self._file.fileno(), _header(self.description, place, len(self.places))[0], 0)
        self._file.close()


class Recording:
    """A recording in the file `path`, memory-mapped. Raises ValueError, one sentence, where it is none.

    `blocks` are its blocks, in the order in which they were written; `whole`: whether it was finished.
    """

    def __init__(self, path):
        self.path = pathlib.Path(path)
        try:
            with open(path, "rb") as file:
                self.octets = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
        except OSError as error:
            raise ValueError(f"{path}: cannot be read ({error.strerror})") from error
        except ValueError as error:
            raise ValueError(f"{path}: the file is empty") from error
        self.header = self._read_header()
        self.description = self._read_description()
        self._places = self._read_index()
        self.whole = self._places is not None
        if not self.whole:
            self._places = list(self._walk())
        self.blocks = [self._block(place) for place in self._places]

    def _fault(self, words):
        return ValueError(f"{self.path}: the recording is damaged: {words}")

    def _at(self, place, kind, count):
        """Returns `count` records at an offset, as a view of the file."""
        stop = place + kind.itemsize * count
        if place < 0 or stop > len(self.octets):
            raise self._fault(f"it ends at {len(self.octets):,} octets, within what begins at {place:,}")
        return self.octets[place:stop].view(kind)

    def _read_header(self):
        if self.octets[:8].tobytes() != FILE_MAGIC:
            raise ValueError(f'{self.path}: is no recording of ours, which begins with "{FILE_MAGIC.decode()}"')
        header = self._at(0, HEADER, 1)[0]
        if header["version"] != VERSION:
            raise ValueError(f"{self.path}: is a recording of version {header['version']}; this program reads version {VERSION}")
        return header

    def _read_description(self):
        header = self.header
        try:
            more = json.loads(self._at(HEADER.itemsize, np.dtype("u1"), int(header["description"])).tobytes())
            ports = more.pop("ports")
            found = Description(tuple(port["name"] for port in ports), tuple(port["mac"] for port in ports),
                                int(header["workers"]), int(header["snap"]), int(header["started"]), more)
        except (ValueError, KeyError, TypeError) as error:
            raise self._fault(f"its description cannot be read ({error})") from error
        if len(found.ports) != header["ports"] or not found.workers:
            raise self._fault(f"{header['ports']} ports and {header['workers']} workers are said to be in it")
        return found

    def _read_index(self):
        """Returns the offsets of all blocks, or None where the file was not finished, or has lost its end."""
        place, count = int(self.header["index"]), int(self.header["blocks"])
        if place == 0 or place + 16 + 8 * count > len(self.octets):
            return None
        if self._at(place, np.dtype("S8"), 1)[0] != INDEX_MAGIC or self._at(place + 8, np.dtype("<u8"), 1)[0] != count:
            raise self._fault(f"there is no index of {count} blocks at {place:,}")
        return [int(offset) for offset in self._at(place + 16, np.dtype("<u8"), count)]

    def _walk(self):
        """Yields the offsets of the blocks that are whole, in a file that was not finished."""
        place = int(self.header["first_block"])
        while place + BLOCK.itemsize <= len(self.octets):
            header = self._at(place, BLOCK, 1)[0]
            if header["magic"] != MAGIC:
                return
            length = BLOCK.itemsize + int(header["bursts"]) * BURST.itemsize + int(header["packets"]) * PACKET.itemsize
            length += int(header["octets"])
            if place + length > len(self.octets):
                return
            yield place
            place += length + padding(length)

    def _block(self, place):
        header = self._at(place, BLOCK, 1)[0]
        if header["magic"] != MAGIC:
            raise self._fault(f"there is no block at {place:,}")
        bursts = self._at(place + BLOCK.itemsize, BURST, int(header["bursts"]))
        behind = place + BLOCK.itemsize + bursts.nbytes
        packets = self._at(behind, PACKET, int(header["packets"]))
        octets = self._at(behind + packets.nbytes, np.dtype("u1"), int(header["octets"]))
        ends = packets["offset"].astype(np.int64) + packets["captured"]
        if (ends.max(initial=0) > len(octets) or (packets["captured"] > packets["length"]).any()
                or (bursts["packet"].astype(np.int64) + bursts["count"]).max(initial=0) > len(packets)
                or (bursts["port"] >= len(self.description.ports)).any()):
            raise self._fault(f"the block at {place:,} is at odds with itself")
        return Block(int(header["worker"]), bursts, packets, octets, int(header["dropped"]), int(header["dropped_bursts"]))

    @property
    def packets(self):
        """How many packets are in it."""
        return sum(len(block.packets) for block in self.blocks)

    def of_worker(self, worker):
        """Returns the blocks of one worker."""
        return [block for block in self.blocks if block.worker == worker]

    @property
    def dropped(self):
        """How many packets were dropped for want of a buffer while it was recorded."""
        return sum(self.of_worker(worker)[-1].dropped for worker in {block.worker for block in self.blocks})


class BlockBuilder:
    """Makes blocks of frames that come one by one: `add`, then `blocks`."""

    def __init__(self, worker=0):
        self.worker = worker
        self._bursts, self._packets, self._octets, self._place = [], [], [], 0
        self._done = []

    def add(self, time, port, frames, kind, lengths=None, turn=0, phase=0):
        """Adds a burst of frames (bytes each); `lengths` where frames were longer than what there is of them."""
        if len(self._packets) + len(frames) > MOST_PACKETS_A_BLOCK:
            self._finish()
        self._bursts.append((time, turn, len(self._packets), len(frames), len(frames), port, kind, phase))
        for frame, length in zip(frames, lengths or map(len, frames), strict=False):
            self._packets.append((self._place, len(frame), length))
            self._octets.append(frame + bytes(padding(len(frame))))
            self._place += len(self._octets[-1])

    def _finish(self):
        if self._bursts:
            self._done.append(Block(self.worker, np.array(self._bursts, BURST), np.array(self._packets, PACKET),
                                    np.frombuffer(b"".join(self._octets), np.uint8)))
        self._bursts, self._packets, self._octets, self._place = [], [], [], 0

    def blocks(self):
        """Returns the blocks (list) of what was added since the last call."""
        self._finish()
        done, self._done = self._done, []
        return done


class HeldRecording:
    """A recording in memory: `description`, `blocks` and all that is asked of a `Recording`."""

    whole, path = True, None
    packets, of_worker, dropped = Recording.packets, Recording.of_worker, Recording.dropped

    def __init__(self, description, blocks, path=None):
        self.description, self.blocks, self.path = description, list(blocks), path


def _frames_of_blocks(blocks):
    for block in blocks:
        for burst in block.bursts:
            first = int(burst["packet"])
            for number in range(first, first + int(burst["count"])):
                yield Frame(int(burst["time"]), int(burst["port"]), int(burst["kind"]), block.frame(number),
                            int(block.packets["length"][number]))


def frames_of(recording):
    """Returns all packets of a recording (list of Frame) by their time; those of the same pass of the loop by port.

    Within a pass the order between ports means nothing: they are different wires, and a replay has another.
    """
    return sorted(_frames_of_blocks(recording.blocks), key=lambda frame: frame[:2])
