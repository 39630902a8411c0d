"""Session records into a file: one record a line, whole lines only, so that an interrupted file is still good."""
import csv
import io
import json
import pathlib

from pipeline.errors import ConfigurationError

FORMATS = ("json", "csv", "text")
"""JSON lines, comma-separated values with a header, and lines for people."""
_BY_SUFFIX = {".csv": "csv", ".txt": "text"}


class RecordWriter:
    """Writes records (dicts as `Engine.finished_records` gives them) to the file `path`, which it begins anew.

    `kind` is one of FORMATS; without it the file's suffix decides (.csv, .txt, else JSON lines). A context
    manager. A file that cannot be opened raises ConfigurationError. What cannot be written later (a full disk)
    never stops the engine: `trouble` then holds a sentence, and `lost` counts the records.
    """

    def __init__(self, path, kind=None):
        self.path = pathlib.Path(path)
        self.kind = kind or _BY_SUFFIX.get(self.path.suffix, "json")
        self.written = self.lost = 0
        self.trouble = None
        self._columns = None
        try:
            # Unbuffered: a batch of lines is one write, and what was written is in the file.
            self._file = open(self.path, "wb", buffering=0)
        except OSError as error:
            raise ConfigurationError(f"--records {path}: cannot be written ({error.strerror}); "
                                     "it must be a file in a folder that exists") from error

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()

    def write(self, records):
        """Appends `records` (list of dicts)."""
        if not records:
            return
        if self.trouble:
            self.lost += len(records)
            return
        text = {"json": self._as_json, "csv": self._as_csv, "text": self._as_text}[self.kind](records)
        try:
            rest = memoryview(text.encode())
            while rest:
                rest = rest[self._file.write(rest):]
        except OSError as error:
            self.trouble = f"{self.path}: no more records are written ({error.strerror})"
            self.lost += len(records)
        else:
            self.written += len(records)

    @staticmethod
    def _as_json(records):
        return "".join(json.dumps(record) + "\n" for record in records)

    def _as_csv(self, records):
        rows = [_flat(record) for record in records]
        text = io.StringIO()
        header = self._columns is None
        self._columns = self._columns or list(rows[0])
        writer = csv.DictWriter(text, self._columns, restval="", extrasaction="ignore", lineterminator="\n")
        if header:
            writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()

    @staticmethod
    def _as_text(records):
        return "".join(as_line(record) + "\n" for record in records)


def _flat(record, prefix=""):
    """Returns `record` with nested dicts under dotted names and the steps of a side as `State:microseconds ...`."""
    flat = {}
    for key, value in record.items():
        if isinstance(value, dict):
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = _steps(value) if isinstance(value, (list, tuple)) else value
    return flat


def _steps(steps):
    """Returns [(state, microseconds), ...] as `State:microseconds State:microseconds`."""
    return " ".join(":".join(map(str, step)) if isinstance(step, (list, tuple)) else str(step) for step in steps)


def as_line(record):
    """Returns a record as a line for people: from whom, to whom, how long, and what each side went through."""
    known = ("opened", "client", "service", "target", "proxy", "duration_us")
    opened, client, service, target, proxy, duration = (record.get(key) for key in known)
    line = f"{opened}  {client} -> {service} -> {target or 'no target'}"
    line += f" from {proxy}" if target and proxy else ""
    line += f"  {duration} us"
    rest = {key: value for key, value in _flat(record).items() if key not in known}
    return line + "".join(f"  {key}=[{value}]" if " " in str(value) else f"  {key}={value}"
                          for key, value in rest.items())
