"""A memory port that receives what a capture file holds (pcap or pcapng), by the times in the file."""
import decimal
import struct
from typing import NamedTuple

import dpkt
import numpy as np

from .memory_port import MemoryPort

ETHERNET_LINK = 1
"""LINKTYPE_ETHERNET (https://www.tcpdump.org/linktypes.html)."""


class Recording(NamedTuple):
    """Frames (list of bytes) and when each was captured (int64[n], nanoseconds since 1970)."""

    frames: list
    times: np.ndarray


def _nanoseconds(seconds):
    """Converts dpkt's time: a Decimal is exact, a float holds microseconds."""
    if isinstance(seconds, decimal.Decimal):
        return int(seconds * 10**9)
    return round(seconds * 10**6) * 1000


def read_recording(path):
    """Reads a pcap or pcapng file of Ethernet frames whole into memory.

    Raises ValueError, one sentence that names the file, when it is not one or is damaged.
    """
    try:
        with open(path, "rb") as file:
            reader = dpkt.pcap.UniversalReader(file)
            if reader.datalink() != ETHERNET_LINK:
                raise ValueError(f"{path}: its link type is {reader.datalink()}, Ethernet (1) is expected")
            packets = list(reader)
    except (dpkt.Error, struct.error, EOFError) as error:
        raise ValueError(f"{path}: the capture is damaged ({error})") from error
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        if str(path) in str(error):
            raise
        raise ValueError(f"{path}: not a pcap or pcapng file ({error})") from error
    return Recording([bytes(frame) for _, frame in packets],
                     np.array([_nanoseconds(seconds) for seconds, _ in packets], np.int64))


class PcapPort(MemoryPort):
    """Port `number` of a memory pool that receives the frames of `recording` (a Recording or a path).

    `play(until)` lets the worker receive what had been captured by then; what it sends is `taken` as ever.
    """

    def __init__(self, pool, number, recording):
        super().__init__(pool, number)
        self.recording = recording if isinstance(recording, Recording) else read_recording(recording)
        self._next = 0

    @property
    def remaining(self):
        """How many frames have not been played."""
        return len(self.recording.frames) - self._next

    @property
    def next_time(self):
        """When the next frame was captured (nanoseconds since 1970); None at the end."""
        return int(self.recording.times[self._next]) if self.remaining else None

    def play(self, until=None, segment_length=None):
        """Feeds the frames up to the time `until` (nanoseconds since 1970; None: all), in the file's order.

        Stops early where the ring is full; returns how many were fed. The rest follows with the next call.
        """
        later = self.recording.times[self._next:] > until if until is not None else np.zeros(self.remaining, bool)
        due = int(np.argmax(later)) if later.any() else self.remaining
        fed = self.feed(self.recording.frames[self._next:self._next + due], segment_length)
        self._next += fed
        return fed
