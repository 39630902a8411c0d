"""Compares what a replay has sent with what is expected: octet by octet, or but for some fields; differences in tshark's words."""
import difflib
import pathlib
import shutil
import struct
import subprocess
import tempfile
from typing import NamedTuple

import dpkt

from pipeline.errors import ConfigurationError
from pipeline.io.places import network_of
from pipeline.io.recording import frames_of
from pipeline.kernels.headers import ETHERTYPE_IPV4, IPV4_LENGTH, PROTOCOL_TCP

FIELDS = {
    "eth.dst": ("eth", 0, 6), "eth.src": ("eth", 6, 12),
    "ip.dsfield": ("ip", 1, 2), "ip.id": ("ip", 4, 6), "ip.ttl": ("ip", 8, 9), "ip.checksum": ("ip", 10, 12),
    "ip.src": ("ip", 12, 16), "ip.dst": ("ip", 16, 20),
    "tcp.srcport": ("tcp", 0, 2), "tcp.dstport": ("tcp", 2, 4), "tcp.seq": ("tcp", 4, 8), "tcp.ack": ("tcp", 8, 12),
    "tcp.flags": ("tcp", 13, 14), "tcp.window_size": ("tcp", 14, 16), "tcp.checksum": ("tcp", 16, 18),
}
"""Fields at a fixed place of a header, by tshark's names: header, first octet and the one behind the last."""
OPTIONS = {"tcp.options.timestamp.tsval": (8, 2, 6), "tcp.options.timestamp.tsecr": (8, 6, 10), "tcp.options.sack": (5, 2, 34)}
"""Fields of TCP options: the option's kind, and octets of it."""
TIME, PAYLOAD = "frame.time", "tcp.payload"
KNOWN = (TIME, *FIELDS, *OPTIONS, PAYLOAD)
NEVER_THE_SAME = ("Arrival Time", "Epoch", "Time shift", "[Time", "[Coloring")
"""Beginnings of lines of tshark's that say nothing of the octets."""
CONTEXT = 2


class Difference(NamedTuple):
    """The first packet that is another one: its place among those of a port (from 1), the port's name, the frames (None where
    there is none) and their times in microseconds."""

    place: int
    port: str
    expected: bytes | None
    sent: bytes | None
    expected_time: int | None
    sent_time: int | None


def fields_of(text):
    """Returns the fields (frozenset of str) that a list with commas names, with the checksums over them; raises ConfigurationError."""
    named = {word.strip() for word in text.split(",") if word.strip()}
    for name in sorted(named - set(KNOWN)):
        close = difflib.get_close_matches(name, KNOWN, 1)
        raise ConfigurationError(f'--except "{name}": is no field that can be left out' + (f", did you mean {close[0]}?" if close else
                                                                                        "") + f"; known are {', '.join(KNOWN)}")
    if any(name.startswith("ip.") for name in named):
        named.add("ip.checksum")
    if any(name.startswith("tcp.") or name in ("ip.src", "ip.dst") for name in named):
        named.add("tcp.checksum")
    return frozenset(named)


def headers(frame):
    """Returns where the headers of a frame begin (dict of "eth", "ip", "tcp", "options" and "payload"), as far as it has them."""
    kind, ip = network_of(frame)
    found = {"eth": 0}
    if kind != ETHERTYPE_IPV4 or len(frame) < ip + IPV4_LENGTH:
        return found
    found["ip"] = ip
    tcp = ip + 4 * (frame[ip] & 15)
    if frame[ip + 9] == PROTOCOL_TCP and len(frame) >= tcp + 20:
        found |= {"tcp": tcp, "options": tcp + 20, "payload": tcp + 4 * (frame[tcp + 12] >> 4),
                  "end": ip + struct.unpack_from(">H", frame, ip + 2)[0]}
    return found


def _options(frame, found):
    """Yields (kind, first octet, octet behind) of the TCP options."""
    at, stop = found["options"], min(found["payload"], len(frame))
    while at < stop and frame[at] != 0:
        length = 1 if frame[at] == 1 else max(frame[at + 1], 2) if at + 1 < stop else 1
        yield frame[at], at, min(at + length, stop)
        at += length


def masked(frame, fields):
    """Returns a frame with the octets of these fields 0."""
    octets, found = bytearray(frame), headers(frame)
    spans = [(found[header] + first, found[header] + stop) for name in fields & FIELDS.keys()
             for header, first, stop in [FIELDS[name]] if header in found]
    if "tcp" in found:
        wanted = [OPTIONS[name] for name in fields & OPTIONS.keys()]
        spans += [(at + first, min(at + stop, end)) for kind, at, end in _options(frame, found)
                  for option, first, stop in wanted if kind == option]
        if PAYLOAD in fields:
            spans.append((found["payload"], found["end"]))
    for first, stop in spans:
        stop = min(stop, len(octets))
        octets[first:stop] = bytes(max(stop - first, 0))
    return bytes(octets)


def by_port(recording, ports=None):
    """Returns the packets (list of (time, frame, length)) of each port of a recording, by the port's name.

    Without names of ports, as in a pcap file, all are of one, named "".
    """
    names, found = ports or recording.description.ports, {}
    for frame in frames_of(recording):
        found.setdefault(names[frame.port] if recording.description.ports != ("",) else "", []).append(
            (frame.time + recording.description.started // 1000, frame.octets, frame.length))
    return found


def _equal(expected, sent, fields):
    if expected is None or sent is None:
        return False
    if TIME not in fields and expected[0] != sent[0]:
        return False
    return expected[2] == sent[2] and (expected[1] == sent[1] or bool(fields) and masked(expected[1], fields) == masked(sent[1], fields))


def compare(expected, sent, fields=frozenset()):
    """Compares two recordings port by port, but for some fields; returns how many packets differ and the first Difference or None.

    The first is the earliest by the time of what is expected, else of what was sent.
    """
    there, here = by_port(expected), by_port(sent)
    if "" in there or "" in here:  # a file without ports: all of them together
        there, here = ({"": sorted((frame for frames in side.values() for frame in frames), key=lambda frame: frame[0])}
                       for side in (there, here))
    count, first = 0, None
    for port in sorted(there.keys() | here.keys()):
        theirs, ours = there.get(port, []), here.get(port, [])
        for place in range(max(len(theirs), len(ours))):
            pair = [frames[place] if place < len(frames) else None for frames in (theirs, ours)]
            if _equal(*pair, fields):
                continue
            count += 1
            moment = (pair[0] or pair[1])[0]
            if first is None or moment < first[0]:
                times, octets = [each and each[0] for each in pair], [each and each[1] for each in pair]
                first = moment, Difference(place + 1, port, *octets, *times)
    return count, first and first[1]


def dissected(frame):
    """Returns what tshark says of a frame (list of lines), or None where there is no tshark."""
    tshark = shutil.which("tshark")
    if tshark is None:
        return None
    with tempfile.TemporaryDirectory(prefix="packet-") as folder:
        path = pathlib.Path(folder) / "packet.pcap"
        with path.open("wb") as file:
            dpkt.pcap.Writer(file, snaplen=len(frame)).writepkt(frame, 0)
        done = subprocess.run([tshark, "-n", "-V", "-r", str(path)], capture_output=True, text=True, check=False)
    return [line.rstrip() for line in done.stdout.splitlines() if not line.strip().startswith(NEVER_THE_SAME)] or None


def told(difference):
    """Returns a Difference in words (str): tshark's, or octets where there is no tshark."""
    where = f"packet {difference.place}" + (f" of port {difference.port}" if difference.port else "")
    if difference.expected is None or difference.sent is None:
        extra = difference.expected is None
        only = dissected(difference.sent if extra else difference.expected) or [(difference.sent or difference.expected).hex(" ")]
        return "\n".join([f"{where} {'was sent and is not expected' if extra else 'is expected and was not sent'}:", *only])
    lines = [f"{where} differs: - is expected, + was sent"]
    if difference.expected_time != difference.sent_time:
        lines += [f"-Time: {difference.expected_time} us", f"+Time: {difference.sent_time} us"]
    words = [dissected(frame) for frame in (difference.expected, difference.sent)]
    if None in words:
        return "\n".join([*lines, "(tshark, which would say what that means, is not installed: apt-get install tshark)",
                          f"-{difference.expected.hex(' ')}", f"+{difference.sent.hex(' ')}"])
    return "\n".join([*lines, *list(difflib.unified_diff(*words, n=CONTEXT, lineterm=""))[2:]])
