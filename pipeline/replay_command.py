"""The command `replay`: a recording through an engine, and what is said of it."""
import contextlib
import hashlib

from pipeline import configuration, recording
from pipeline.errors import ConfigurationError
from pipeline.io.recording import frames_of
from pipeline.recorders import open_writer
from pipeline.replay import Replay


def digest(sent):
    """Returns the SHA-256 (hexadecimal) of all that was sent: of each packet its time, port and octets."""
    summed = hashlib.sha256()
    for time, port, _, frame, length in frames_of(sent):
        summed.update(f"{time} {port} {length} ".encode() + frame)
    return summed.hexdigest()


def write_out(path, sent):
    """Writes what was sent into a file."""
    try:
        with contextlib.closing(open_writer(path, sent.description)) as writer:
            for block in sent.blocks:
                writer.write(block)
    except OSError as error:
        raise ConfigurationError(f"--out {path}: cannot be written ({error.strerror})") from error


def perform(path, config, out=None, speed=None):
    """Replays the recording at `path` through the engine of the file `config`; returns what is to be said (dict, JSON-able)."""
    settings, found = configuration.load(config), recording.open_recording(path)
    result = Replay(settings).run(found, speed)
    if out is not None:
        write_out(out, result.sent)
    return {"recording": str(path), "received": result.received, "sent": result.sent.packets, "dropped_in_recording": found.dropped,
            "whole": found.whole, "seconds": round(result.seconds, 3), "digest": digest(result.sent), "out": out,
            "counters": result.counters}


def text(found):
    """Returns the result of a replay as text for people."""
    drops = ", ".join(f"{name} {count:,}" for name, count in found["counters"]["drops"].items())
    lines = [f"{found['received']:,} packets in, {found['sent']:,} out, in {found['seconds']:.1f} s" + (f"; dropped: {drops}" if drops else ""),
             f"SHA-256 of what was sent: {found['digest']}"]
    return "\n".join(lines)
