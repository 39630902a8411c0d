"""Workers: each one thread, pinned to one core, inside one nogil njit loop until it is told to stop."""
import concurrent.futures
import contextlib
import os
import threading
import types

from pipeline.errors import RunError
from pipeline.isolation import cause
from pipeline.kernels import native
from pipeline.kernels.connection import TIME_WAIT
from pipeline.kernels.counters import TOTAL_OPEN
from pipeline.kernels.jit import loop
from pipeline.state import DRAIN, STOP


def _named(method, name):
    """Returns a bound method under another name: by that `faulthandler` says on stderr which worker it was that faulted."""
    plain = method.__func__
    code = plain.__code__.replace(co_name=name, co_qualname=name)
    return types.MethodType(types.FunctionType(code, plain.__globals__, name), method.__self__)


def on_core(core, function, *arguments):
    """Returns what a function returns that runs on `core`: Linux takes the memory that it touches first from that core's node."""
    def pinned():
        os.sched_setaffinity(0, {core})  # of this thread alone
        return function(*arguments)

    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        return thread.submit(pinned).result()


class Worker:
    """Runs `run(state, -1, -1)` on `core`; `surround` is a context manager that its thread runs within."""

    def __init__(self, run, state, core, surround=contextlib.nullcontext):
        self.run, self.state, self.core, self.surround = run, state, core, surround
        self.error = None
        self._perform = _named(self._perform, f"worker_on_core_{core}")
        self.thread = threading.Thread(target=self._work, name=f"worker on core {core}", daemon=True)

    def start(self):
        """Starts the thread."""
        self.thread.start()

    def _work(self):
        try:
            os.sched_setaffinity(0, {self.core})
            with self.surround():
                self._perform()
        except BaseException as error:  # whatever it was, the main thread has to hear of it
            self.error = error

    def _perform(self):
        self.run(self.state, -1, -1)

    def drain(self):
        """Has the worker refuse new connections and end with the last open one."""
        self.state.control[0] = DRAIN  # an aligned store of 8 bytes is seen whole

    def stop(self):
        """Has the worker reset all connections and end."""
        self.state.control[0] = STOP

    def ended(self, timeout):
        """Waits at most `timeout` seconds; returns whether the worker has ended."""
        self.thread.join(timeout)
        return not self.thread.is_alive()


class Workers:
    """All workers of an engine: `run` for each of `states` on the core of the same place in `cores`."""

    def __init__(self, run, states, cores, surround):
        self.members = [Worker(run, state, core, surround) for state, core in zip(states, cores, strict=True)]

    def start(self):
        """Starts the threads."""
        for worker in self.members:
            worker.start()

    def drain(self):
        """Has them refuse new connections. One alone ends with the last open one; of several, `stop` has to end all at once:
        who has none left still hands over what comes to it."""
        for worker in self.members:
            worker.drain()

    def stop(self):
        """Has them reset all connections and end."""
        for worker in self.members:
            worker.stop()

    @property
    def idle(self):
        """Whether no connection is left but in TIME_WAIT."""
        return all(worker.state.counters.totals[TOTAL_OPEN] == worker.state.counters.states[TIME_WAIT] for worker in self.members)

    @property
    def running(self):
        """Whether a worker runs."""
        return any(worker.thread.is_alive() for worker in self.members)

    def ended(self, timeout):
        """Waits at most `timeout` seconds for the first one to end; returns whether all have ended.

        Raises RunError where one has died.
        """
        self.members[0].ended(timeout)
        for worker in self.members:
            if worker.error is not None and not worker.thread.is_alive():
                raise RunError(f"the worker on core {worker.core} died: {cause(worker.error, worker.state)}") from worker.error
        return not self.running

    def lost(self):
        """Returns a worker that has ended, or None."""
        return next((worker for worker in self.members if not worker.thread.is_alive()), None)


@loop
def read_ticks():
    """Returns what the clock of the kernels shows now."""
    return native.ticks()
