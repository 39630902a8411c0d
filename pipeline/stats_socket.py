"""The statistics socket: a running engine answers questions about itself, to its owner alone.

A Unix stream socket of mode 0600 in a folder of mode 0700. One JSON object on a line goes in, such as
`{"request": "snapshot"}`, one JSON object on a line comes back, and the connection ends. An answer that is not
what was asked for is `{"error": sentence}`. The peer's uid is checked as well (SO_PEERCRED, unix(7)).
"""
import contextlib
import errno
import fcntl
import json
import os
import pathlib
import select
import socket
import stat
import struct
import threading

from pipeline.errors import RunError

LONGEST_REQUEST = 65536
"""Bytes of a request line at most."""
PATIENCE = 2.0
"""Seconds that the server gives a client to ask, and again to take the answer."""
_CREDENTIALS = struct.Struct("3i")


def default_folder():
    """Returns the folder (Path) of this user's statistics sockets.

    root's is in /run; anybody else's in $XDG_RUNTIME_DIR, or in /tmp where that is not set.
    """
    if os.geteuid() == 0:
        return pathlib.Path("/run/proxy-pipeline-0")
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return pathlib.Path(runtime, "proxy-pipeline") if runtime else pathlib.Path(f"/tmp/proxy-pipeline-{os.geteuid()}")


def default_path(name):
    """Returns the path (str) of the statistics socket of the engine called `name`."""
    return str(default_folder() / f"{name}.sock")


def find(name=None):
    """Returns the path (str) of the socket of the engine `name`, or of the only one that runs.

    Raises RunError where none or several run.
    """
    if name:
        return default_path(name)
    running = [path for path in sorted(default_folder().glob("*.sock")) if _answers(path)]
    if not running:
        raise RunError(f"no engine is running (none has a socket in {default_folder()}); "
                       "--socket names one that is elsewhere")
    if len(running) > 1:
        raise RunError("several engines are running; --name must be one of "
                       + ", ".join(path.stem for path in running))
    return str(running[0])


def request(path, question="snapshot", timeout=5.0, arguments=()):
    """Asks with `arguments` (strs). Returns the answer (dict) of the engine whose socket is at `path`; raises RunError."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(timeout)
            connection.connect(str(path))
            if _peer_uid(connection) not in (os.geteuid(), 0):
                raise RunError(f"{path} is answered by another user (uid {_peer_uid(connection)}), who is not trusted")
            with contextlib.suppress(BrokenPipeError):  # A server that refuses does so before it reads.
                connection.sendall(json.dumps({"request": question, **({"arguments": list(arguments)} if arguments else {})}).encode() + b"\n")
            text = _read_line(connection)
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError) as error:
        raise RunError(f"no engine is running that answers at {path}") from error
    except TimeoutError as error:
        raise RunError(f"the engine at {path} gave no answer within {timeout:g} seconds") from error
    except OSError as error:
        raise RunError(f"{path}: {error.strerror or error}") from error
    try:
        answer = json.loads(text)
    except ValueError as error:
        raise RunError(f"the engine at {path} ended in the middle of its answer") from error
    if not isinstance(answer, dict) or "error" in answer:
        raise RunError(f"{path}: {answer['error'] if isinstance(answer, dict) else 'the answer is no object'}")
    return answer


class StatsServer:
    """Serves `answers` (dict of question -> function, without arguments or of strs, that returns a JSON-able dict).

    A context manager. Starting raises RunError where a live engine has the socket or the folder is not ours
    alone; the socket of a dead engine is replaced.
    """

    def __init__(self, path, answers):
        self.path = pathlib.Path(path)
        self.answers = answers
        self._made_folder = False
        self._listener = self._thread = self._stop = None

    def __enter__(self):
        try:
            with self._locked_folder():
                self._listener = self._bound()
        except OSError as error:
            raise RunError(f"the statistics socket {self.path} cannot be made: {error.strerror or error}") from error
        self._stop = os.eventfd(0)
        self._thread = threading.Thread(target=self._serve, name="statistics", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_):
        os.eventfd_write(self._stop, 1)
        self._thread.join()
        os.close(self._stop)
        # Without the folder there is nothing to remove.
        with contextlib.suppress(FileNotFoundError), _locked(self.path.parent):
            self.path.unlink()
        self._listener.close()
        if self._made_folder:
            # Another engine may have a socket in it by now.
            with contextlib.suppress(OSError):
                self.path.parent.rmdir()

    @contextlib.contextmanager
    def _locked_folder(self):
        """Holds a lock on the socket's folder, made if need be; raises RunError where it is not ours alone."""
        folder = self.path.parent
        while True:
            with contextlib.suppress(FileExistsError):
                folder.mkdir(mode=0o700)
                self._made_folder = True
            with _locked(folder) as facts:
                if facts.st_uid != os.geteuid() or stat.S_IMODE(facts.st_mode) & 0o077:
                    raise RunError(f"the folder {folder} of the statistics socket must be yours alone "
                                   f"(chmod 700 {folder}), or engine.stats_socket must be elsewhere")
                if _is_at(facts, folder):
                    yield
                    return

    def _bound(self):
        """Returns the listening socket; removes what a dead engine has left at the path."""
        if _answers(self.path):
            raise RunError(f"an engine already answers at {self.path}; engine.name or engine.stats_socket must be "
                           "another one")
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISSOCK(self.path.lstat().st_mode):
                raise RunError(f"{self.path} is no socket; engine.stats_socket must be a path where nothing else is")
            self.path.unlink()
        listener = socket.socket(socket.AF_UNIX)
        try:
            listener.bind(str(self.path))
            os.chmod(self.path, 0o600)
            listener.listen(16)
        except BaseException:
            listener.close()
            raise
        return listener

    def _serve(self):
        while self._stop not in select.select([self._listener, self._stop], [], [])[0]:
            connection, _ = self._listener.accept()
            # A client that goes away or dawdles harms itself alone.
            with connection, contextlib.suppress(OSError):
                connection.settimeout(PATIENCE)
                connection.sendall(json.dumps(self._answer(connection)).encode() + b"\n")

    def _answer(self, connection):
        """Returns the answer (dict) to the one request that comes over `connection`."""
        uid = _peer_uid(connection)
        if uid != os.geteuid():
            return {"error": f"only the owner of the engine (uid {os.geteuid()}) may ask, not uid {uid}"}
        line = _read_line(connection, LONGEST_REQUEST)
        try:
            asked = json.loads(line)
            answer, arguments = self.answers[asked["request"]], [str(word) for word in (asked["arguments"] if "arguments" in asked else ())]
        except (ValueError, TypeError, KeyError, RecursionError):
            known = ", ".join(f'{{"request": "{question}"}}' for question in self.answers)
            return {"error": f"not a request; known here: {known}"}
        try:
            return answer(*arguments)
        except RunError as error:
            return {"error": str(error)}
        except Exception as error:
            # The engine goes on; whoever asked is told.
            return {"error": f"the engine could not answer: {type(error).__name__}: {error}"}


@contextlib.contextmanager
def _locked(folder):
    """Holds a lock on `folder`, so that of two engines one is first; yields its facts (os.stat_result)."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield os.fstat(descriptor)
    finally:
        os.close(descriptor)


def _is_at(facts, folder):
    """Returns whether the folder with these facts (os.stat_result) is still the one at that path."""
    try:
        now = os.lstat(folder)
    except FileNotFoundError:
        return False
    return (now.st_dev, now.st_ino) == (facts.st_dev, facts.st_ino)


def _answers(path):
    """Returns whether somebody listens at `path`."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        # EAGAIN: there is a listener, with its queue full.
        return probe.connect_ex(str(path)) in (0, errno.EAGAIN)


def _peer_uid(connection):
    return _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))[1]


def _read_line(connection, longest=None):
    """Returns what comes up to the end of the line, or of the stream, or of `longest` bytes."""
    parts, length = [], 0
    while longest is None or length < longest:
        part = connection.recv(65536)
        parts.append(part)
        length += len(part)
        if not part or part.endswith(b"\n"):
            break
    return b"".join(parts)
