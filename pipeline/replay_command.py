"""The command `replay`: a recording through an engine, what is said of it, and whether it is what was expected."""
import contextlib
import hashlib
import os

from pipeline import chosen_kernels, comparison, configuration, recording
from pipeline.capture_ports import assigned
from pipeline.errors import ConfigurationError
from pipeline.io.recording import frames_of
from pipeline.recorders import open_writer
from pipeline.replay import Replay


def digest(sent):
    """Returns the SHA-256 (hexadecimal) of all that was sent: of each packet its time, port and octets."""
    summed = hashlib.sha256()
    for frame in frames_of(sent):
        summed.update(f"{frame.time} {frame.port} {frame.length} ".encode() + frame.octets)
    return summed.hexdigest()


def refuse_to_overwrite(out, *read):
    """Raises ConfigurationError where what is sent would be written over one of the files (paths or None) that are read."""
    for path in read:
        if out is not None and path and os.path.exists(out) and os.path.exists(path) and os.path.samefile(out, path):
            raise ConfigurationError(f"--out {out}: is the file {path} that is read; it must be another one")


def cut_packets(found):
    """Returns how many packets of a recording are not there to their end (see `--record-snap`)."""
    return sum(int((block.packets["captured"] < block.packets["length"]).sum()) for block in found.blocks)


def write_out(path, sent):
    """Writes what was sent into a file."""
    try:
        with contextlib.closing(open_writer(path, sent.description)) as writer:
            for block in sent.blocks:
                writer.write(block)
    except OSError as error:
        raise ConfigurationError(f"--out {path}: cannot be written ({error.strerror}); it must be a file in a folder that exists") from error


def speed_of(text):
    """Returns how many times as fast as recorded a replay may be (float), None for "max"; raises ConfigurationError."""
    if text == "max":
        return None
    try:
        speed = float(text)
    except ValueError:
        speed = 0.0
    if not 0 < speed < float("inf"):
        raise ConfigurationError(f'--speed "{text}": must be a number above 0, such as 1 for as it was recorded, or "max"')
    return speed


def perform(path, config, out=None, expect=None, leave_out="", speed="max", chosen=(), port=None):
    """Replays the recording at `path` through the engine of the file `config`; returns what is to be said (dict, JSON-able).

    `expect`: a file of what is to be sent, compared but for the fields in `leave_out` (text); then "differences" is how many
    packets are others, and "first" says in words which is the first.
    """
    refuse_to_overwrite(out, path, expect)
    if leave_out and not expect:
        raise ConfigurationError("--except FIELDS: says what may differ from --expect FILE, which is missing")
    settings, pace, fields = chosen_kernels.override(configuration.load(config), chosen), speed_of(speed), comparison.fields_of(leave_out)
    given, expected = recording.open_recording(path), expect and recording.open_recording(expect)
    found, left_out = assigned(given, settings, port)
    result = Replay(settings).run(found, pace)
    if out is not None:
        write_out(out, result.sent)
    said = {"recording": str(path), "whole": given.whole, "dropped_in_recording": given.dropped, "left_out": left_out, "cut": cut_packets(found),
            "received": result.received, "sent": result.sent.packets, "seconds": round(result.seconds, 3),
            "digest": digest(result.sent), "out": out, "counters": result.counters}
    if expected is not None:
        count, first = comparison.compare(expected, result.sent, fields)
        said |= {"expected": str(expect), "except": sorted(fields), "differences": count, "first": first and comparison.told(first)}
    return said


def text(said):
    """Returns the result of a replay as text for people."""
    drops = ", ".join(f"{name} {count:,}" for name, count in said["counters"]["drops"].items())
    lines = [f"{said['received']:,} packets in, {said['sent']:,} out, in {said['seconds']:.1f} s"
             + (f"; the engine dropped: {drops}" if drops else "")]
    if said["left_out"]:
        lines.append(f"{said['left_out']:,} packets of the capture were left out: they are sent to none of our addresses")
    if said["cut"]:
        lines.append(f"{said['cut']:,} packets were recorded in part (--record-snap): zeros stand for the rest, and checksums do not fit")
    if not said["whole"]:
        lines.append("the recording was cut short; what is whole of it was replayed")
    if said["dropped_in_recording"]:
        lines.append(f"{said['dropped_in_recording']:,} packets were dropped while it was recorded, so what is sent may be other than it was then")
    lines.append(f"SHA-256 of what was sent: {said['digest']}")
    if said.get("differences"):
        lines += [f"{said['differences']:,} packets differ from {said['expected']}; the first:", said["first"]]
    elif "differences" in said:
        lines.append(f"all as in {said['expected']}" + (f", but for {', '.join(said['except'])}" if said["except"] else ""))
    return "\n".join(lines)
