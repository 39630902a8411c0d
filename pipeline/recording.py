"""Recordings for people who write Python: opened, looked at as arrays, taken through a kernel. See README, "From Python"."""
from pipeline.errors import RunError
from pipeline.io.capture_file import read_capture
from pipeline.io.recording import FILE_MAGIC, Recording


def open_recording(path):
    """Returns the recording in a file of our own format; raises RunError, one sentence, where it cannot be read."""
    try:
        return Recording(path)
    except ValueError as error:
        raise RunError(str(error)) from error
