"""pcap and pcapng files: read, and written from the blocks of a recording.

dpkt tells neither how long a packet was before it was cut, nor by which interface it came, and writes packet by packet;
formats: draft-ietf-opsawg-pcap and draft-ietf-opsawg-pcapng. Both are written with nanoseconds and little-endian.
"""
import json
import pathlib
import struct
from typing import NamedTuple

import numpy as np

from pipeline.kernels.capture_records import PCAPNG_RECORD, lay_block
from pipeline.kernels.recorder import BURST, PACKET

ETHERNET_LINK = 1
SECTION, INTERFACE, SIMPLE_PACKET, ENHANCED_PACKET = 0x0A0D0D0A, 1, 3, 6
OLD_PACKET = 2
BYTE_ORDER = 0x1A2B3C4D
COMMENT, IF_NAME, IF_TSRESOL = 1, 2, 9
DESCRIBED = b"proxy-pipeline "
"""Begins the comment of a pcapng file of ours; the description of the recording (JSON) follows."""
PCAP_MAGICS = {0xA1B2C3D4: 1000, 0xA1B23C4D: 1}
"""By the magic number: nanoseconds of a unit of a pcap's fractions of seconds."""
SUFFIXES = (".pcap", ".pcapng")


def described_in_json(description):
    """Returns what a replay needs of a recording's Description, but for what the packets of a pcapng file say."""
    return json.dumps({"macs": description.macs, "started": description.started, "more": {**description.more, "passes": False}})


class Captured(NamedTuple):
    """A packet: nanoseconds since 1970, number of its interface, octets (bytes) and the length that it had."""

    moment: int
    interface: int
    frame: bytes
    length: int


class Capture(NamedTuple):
    """A capture: names of its interfaces (None where they have none), its packets (list of Captured) in their order, and the
    description (str, JSON) of the recording that it was made of, "" where it is none of ours."""

    interfaces: list
    packets: list
    described: str = ""


def is_capture(path):
    """Says by its suffix whether a file is to be a pcap or pcapng file."""
    return pathlib.Path(path).suffix in SUFFIXES


def read_capture(path):
    """Returns the Capture in a pcap or pcapng file of Ethernet frames; raises ValueError, one sentence that names the file."""
    try:
        content = pathlib.Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from error
    if len(content) < 4:
        raise ValueError(f"{path}: no capture, it has {len(content)} octets")
    if struct.unpack("<I", content[:4])[0] == SECTION:
        return _PcapngReader(path, content).read()
    for order in "<>":
        unit = PCAP_MAGICS.get(struct.unpack(f"{order}I", content[:4])[0])
        if unit is not None:
            return _read_pcap(path, content, order, unit)
    raise ValueError(f"{path}: is neither a recording of ours nor a pcap or pcapng file")


def _refuse_link(path, link):
    if link != ETHERNET_LINK:
        raise ValueError(f"{path}: its link type is {link}, Ethernet (1) is expected")


def _read_pcap(path, content, order, unit):
    if len(content) < 24:
        raise ValueError(f"{path}: the capture is cut short, within its header")
    _refuse_link(path, struct.unpack(f"{order}I", content[20:24])[0] & 0x0FFFFFFF)
    record, packets, at = struct.Struct(f"{order}IIII"), [], 24
    while at + record.size <= len(content):
        seconds, fraction, captured, length = record.unpack_from(content, at)
        at += record.size
        if at + captured > len(content):
            break
        packets.append(Captured(seconds * 10**9 + fraction * unit, 0, content[at:at + captured], max(length, captured)))
        at += captured
    if at != len(content):
        raise ValueError(f"{path}: the capture is cut short, within its packet {len(packets) + 1}")
    return Capture([None], packets)


class _PcapngReader:
    """Reads a pcapng file (bytes): what follows its section's header, block by block; other blocks are passed over."""

    def __init__(self, path, content):
        self.path, self.content, self.order = path, content, "<"
        self.capture, self.units, self.first, self.described = Capture([], []), [], 0, ""

    def read(self):
        """Returns the Capture."""
        at = 0
        while at < len(self.content):
            if at + 12 > len(self.content):
                raise self._short(at)
            kind = struct.unpack_from("<I", self.content, at)[0]
            if kind == SECTION:
                self._begin_section(at)
            kind, length = struct.unpack_from(f"{self.order}II", self.content, at)
            if length < 12 or length % 4 or at + length > len(self.content):
                raise self._short(at)
            self._take(kind, self.content[at + 8:at + length - 4])
            at += length
        return self.capture._replace(described=self.described)

    def _short(self, at):
        return ValueError(f"{self.path}: the capture is cut short or damaged, at octet {at:,}")

    def _begin_section(self, at):
        """A section may have another byte order than the one before, and numbers its interfaces anew."""
        magic = self.content[at + 8:at + 12]
        self.order = next((order for order in "<>" if magic == struct.pack(f"{order}I", BYTE_ORDER)), None)
        if self.order is None:
            raise ValueError(f"{self.path}: the section at octet {at:,} has no byte order")
        self.first = len(self.capture.interfaces)

    def _take(self, kind, body):
        try:
            if kind == INTERFACE:
                self._take_interface(body)
            elif kind == SECTION:
                comment = dict(self._options(body[16:])).get(COMMENT, b"")
                self.described = comment.removeprefix(DESCRIBED).decode() if comment.startswith(DESCRIBED) else ""
            elif kind == ENHANCED_PACKET:
                self._take_packet(*struct.unpack_from(f"{self.order}IIIII", body), body[20:])
            elif kind in (SIMPLE_PACKET, OLD_PACKET):
                raise ValueError(f"{self.path}: has packets without time or of an old kind; editcap -F pcapng makes new ones of them")
        except (struct.error, IndexError) as error:
            raise ValueError(f"{self.path}: a block of the capture is damaged ({error})") from error

    def _options(self, body):
        """Yields (code, value) of a block's options."""
        at = 0
        while at + 4 <= len(body):
            code, length = struct.unpack_from(f"{self.order}HH", body, at)
            if code == 0:
                return
            yield code, body[at + 4:at + 4 + length]
            at += 4 + length + -length % 4

    def _take_interface(self, body):
        _refuse_link(self.path, struct.unpack_from(f"{self.order}H", body)[0])
        options = dict(self._options(body[8:]))
        name, resolution = options.get(IF_NAME), options.get(IF_TSRESOL, b"\x06")[0]
        self.capture.interfaces.append(None if name is None else name.decode(errors="replace"))
        self.units.append(2 ** (resolution & 0x7F) if resolution & 0x80 else 10 ** resolution)

    def _take_packet(self, interface, high, low, captured, length, data):
        number = self.first + interface
        if captured > len(data):
            raise IndexError(f"{captured} octets of a packet, {len(data)} are there")
        moment = (high << 32 | low) * 10**9 // self.units[number]
        self.capture.packets.append(Captured(moment, number, data[:captured], max(length, captured)))


def _option(code, value):
    return struct.pack("<HH", code, len(value)) + value + bytes(-len(value) % 4)


def _pcapng_block(kind, body):
    length = 12 + len(body)
    return struct.pack("<II", kind, length) + body + struct.pack("<I", length)


class CaptureWriter:
    """Writes blocks of a recording as packets into a pcap or pcapng file, by its suffix; a context manager.

    In pcapng each port of the `description` is an interface of that name, and each packet says whether it came in or went out.
    """

    def __init__(self, path, description):
        self.path, self.description, self.packets = pathlib.Path(path), description, 0
        self.is_pcapng = self.path.suffix == ".pcapng"
        self._file = open(path, "wb", buffering=0)
        self._out = np.empty(1 << 20, np.uint8)
        self._file.write(self._pcapng_start() if self.is_pcapng else
                         struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, max(description.snap, 1), ETHERNET_LINK))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _pcapng_start(self):
        described = _option(COMMENT, DESCRIBED + described_in_json(self.description).encode()) + _option(0, b"")
        start = _pcapng_block(SECTION, struct.pack("<IHHq", BYTE_ORDER, 1, 0, -1) + described)
        for name in self.description.ports:
            options = _option(IF_NAME, name.encode()) + _option(IF_TSRESOL, b"\x09") + _option(0, b"")
            start += _pcapng_block(INTERFACE, struct.pack("<HHI", ETHERNET_LINK, 0, self.description.snap) + options)
        return start

    def write(self, block):
        """Appends the packets of a Block."""
        needed = len(block.octets) + len(block.packets) * (PCAPNG_RECORD + 4)
        if needed > len(self._out):
            self._out = np.empty(needed, np.uint8)
        # Copies where they are read-only or not contiguous: one type of array, so compiled once.
        parts = (np.array(block.bursts, BURST).view(np.recarray), np.array(block.packets, PACKET).view(np.recarray),
                 np.array(block.octets, np.uint8))
        length = lay_block(*parts, self.description.started, self.is_pcapng, self._out)
        rest = memoryview(self._out[:length])
        while rest:
            rest = rest[self._file.write(rest):]
        self.packets += len(block.packets)

    def close(self):
        """Closes the file."""
        self._file.close()
