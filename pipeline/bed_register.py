"""What a bed has made, on disk, so that the next one can clear away what a killed run left behind.

One file a bed under /run, locked (flock(2)) for as long as its owner lives: the kernel drops the lock when
the owner dies, however it dies, so a file that can be locked belongs to nobody any more.
"""
import fcntl
import json
import os
import pathlib
import shutil
import tempfile

from pipeline import network_namespace
from pipeline.errors import RunError

FOLDER = pathlib.Path("/run/proxy-pipeline/beds")
TEMPORARY_PREFIX = "proxy-pipeline-bed-"


class BedTaken(RunError):
    """Another living process has a bed of that name; the message names the process."""


class Entry:
    """A bed's file: `namespaces` (names) and `folder` (its temporary folder), written before each is made."""

    def __init__(self, name: str):
        """Claim the name. Raises BedTaken if a living process holds it."""
        FOLDER.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.path = FOLDER / f"{name}.json"
        self._file = _locked(self.path, create=True)
        if self._file is None:
            raise BedTaken(f"a bed named {name!r} is in use by process {_read(self.path).get('process', 'unknown')}")
        self.namespaces: list[str] = []
        self.folder: str | None = None
        self.owner = os.getpid()

    def write(self) -> None:
        """Put what is claimed so far on disk."""
        self._file.seek(0)
        self._file.truncate()
        json.dump({"process": self.owner, "namespaces": self.namespaces, "folder": self.folder}, self._file)
        self._file.flush()

    def close(self) -> None:
        """Give the name up: everything it lists has been removed."""
        if not self._file.closed:
            self.path.unlink(missing_ok=True)
            self._file.close()


def clear_leftovers(say) -> None:
    """Remove the namespaces and the temporary folder of every bed whose owner is dead. `say(text)` hears of each."""
    for path in sorted(FOLDER.glob("*.json")):
        file = _locked(path, create=False)
        if file is None:
            continue
        with file:
            left = _read(path)
            for namespace in left.get("namespaces", []):
                network_namespace.delete(namespace)
            folder = left.get("folder")
            if folder and pathlib.Path(folder).name.startswith(TEMPORARY_PREFIX):
                shutil.rmtree(folder, ignore_errors=True)
            if left:
                say(f"removed what process {left.get('process')} left behind: {', '.join(left['namespaces'])}")
            path.unlink(missing_ok=True)


def temporary_folder() -> str:
    """Make a folder that every user may pass through (web servers drop root), named so that it is known as ours."""
    folder = tempfile.mkdtemp(prefix=TEMPORARY_PREFIX)
    os.chmod(folder, 0o755)
    return folder


def _locked(path, create):
    """The open file under an exclusive lock, or None if it is locked elsewhere or not there."""
    while True:
        try:
            file = open(path, "a+" if create else "r+", encoding="utf-8")
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        if _is_still(file, path):
            return file
        file.close()


def _is_still(file, path):
    """Whether the path still names the open file: another bed may have removed it before the lock was ours."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def _read(path):
    """What the file says; nothing if its owner died before it had written."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
