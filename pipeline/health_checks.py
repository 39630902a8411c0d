"""Active checks: a thread a target asks it every so often over the kernel's network whether it is well.

`rise` answers in a row make a target up that was down, `fall` failures in a row make it down.
"""
import contextlib
import socket
import threading
import time

from pipeline.network_namespace import entered

LONGEST_ANSWER = 65536


def probe(address, port, check):
    """Asks a target once; returns None where it is well, else why not (str)."""
    deadline = time.monotonic() + check.timeout
    try:
        with socket.create_connection((str(address), port), check.timeout) as connection:
            if check.kind == "connect":
                return None
            connection.sendall(check.question(address, port))
            answer = _received(connection, check, deadline)
    except TimeoutError:
        return f"no answer within {check.timeout:g} s"
    except OSError as error:
        return f"{error.strerror or error}".lower()
    return None if check.is_answer(answer) else f"answered {answer[:40]!r}"


def _received(connection, check, deadline):
    """Returns what comes until it is the right answer, or cannot be any more."""
    answer = b""
    while not check.is_answer(answer) and len(answer) < LONGEST_ANSWER:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        connection.settimeout(left)
        part = connection.recv(4096)
        if not part:
            break
        answer += part
    return answer


class HealthChecks:
    """The checks of a configuration's targets, which tell `states` (TargetStates). A context manager."""

    def __init__(self, configuration, states):
        self.namespace, self.states = configuration.engine.network_namespace, states
        self.targets = [target for target in configuration.targets if target.check]
        self._ended, self._threads = threading.Event(), []

    def __enter__(self):
        for target in self.targets:
            self._threads.append(threading.Thread(target=self._follow, args=(target,), name=f"check {target.id}", daemon=True))
            self._threads[-1].start()
        return self

    def __exit__(self, *_):
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _follow(self, target):
        """Asks a target until the end."""
        check, row, up = target.check, 0, True
        with entered(self.namespace) if self.namespace else contextlib.nullcontext():
            while not self._ended.is_set():
                fault = probe(target.ip, target.port, check)
                row = row + 1 if (fault is None) != up else 0
                if row >= (check.fall if up else check.rise):
                    up, row = not up, 0
                    self.states.checked(target.id, fault)
                self._ended.wait(check.interval)
