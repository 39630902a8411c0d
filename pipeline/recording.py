"""Recordings for people who write Python: opened, looked at as arrays, taken through a kernel. See README, "From Python"."""
import json
from typing import NamedTuple

import numpy as np

from pipeline.errors import ConfigurationError
from pipeline.io.capture_file import read_capture
from pipeline.io.recording import FILE_MAGIC, Block, BlockBuilder, Description, HeldRecording, Recording
from pipeline.kernels import recorder
from pipeline.kernels.headers import PLAIN

START = 1_000_000
"""Microseconds on the loop's clock of the first packet of a capture."""


def open_recording(path):
    """Returns the recording in a file: of our own format (io.recording.Recording), or a capture, pcap or pcapng (HeldRecording).

    Each packet of a capture is a burst of its own; its ports are the capture's interfaces, one called "" where they have no
    names. Raises ConfigurationError, one sentence, where the file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            ours = file.read(8) == FILE_MAGIC
        return Recording(path) if ours else of_capture(read_capture(path), path)
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise ConfigurationError(str(error)) from error


def of_capture(capture, path=None):
    """Returns a Capture as a recording in memory: in the order of the times, from START on."""
    named = None not in capture.interfaces and len(set(capture.interfaces)) == len(capture.interfaces)
    packets = sorted(capture.packets, key=lambda packet: packet.moment)
    started = packets[0].moment - 1000 * START if packets else 0
    ports, macs, more = tuple(capture.interfaces) if named and capture.interfaces else ("",), None, {}
    if capture.described and ports != ("",):
        described = json.loads(capture.described)
        started, macs, more = described["started"], tuple(described["macs"]), described["more"]
    builder = BlockBuilder()
    for turn, packet in enumerate(packets):
        builder.add((packet.moment - started) // 1000, packet.interface if ports != ("",) else 0, [packet.frame], recorder.RECEIVED,
                    [packet.length], turn)
    return HeldRecording(Description(ports, macs or (None,) * len(ports), started=started, more=more), builder.blocks(), path)


class BurstView(NamedTuple):
    """A burst: `time` in microseconds, name of its `port`, and its packets in `block` from `first` on."""

    time: int
    port: str
    block: Block
    first: int
    count: int

    @property
    def packets(self):
        """Where the packets are in `block.octets`: kernels.recorder.PACKET [count]."""
        return self.block.packets[self.first:self.first + self.count]

    @property
    def frames(self):
        """The packets' octets (list of bytes)."""
        return [self.block.frame(number) for number in range(self.first, self.first + self.count)]

    def headers(self, kind=PLAIN):
        """Returns a header of each packet as structured records [count], of a dtype of kernels.headers, in network order.

        PLAIN, the default, has Ethernet, IPv4 and TCP as they nearly always are. What a short packet does not have is 0.
        """
        octets = np.zeros((self.count, kind.itemsize), np.uint8)
        for row, frame in enumerate(self.frames):
            part = np.frombuffer(frame[:kind.itemsize], np.uint8)
            octets[row, :len(part)] = part
        return octets.view(kind)[:, 0]


def bursts(recording, kinds=(recorder.RECEIVED, recorder.SENT)):
    """Yields the bursts of a recording that have packets (BurstView), in order."""
    names = recording.description.ports
    for block in recording.blocks:
        for burst in block.bursts:
            if burst["count"] and burst["kind"] in kinds:
                yield BurstView(int(burst["time"]), names[burst["port"]], block, int(burst["packet"]), int(burst["count"]))
