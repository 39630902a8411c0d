"""A worker: one thread, pinned to one core, inside one nogil njit loop until it is told to stop."""
import contextlib
import os
import threading

from pipeline.kernels import native
from pipeline.kernels.jit import loop
from pipeline.state import DRAIN, STOP


class Worker:
    """Runs `run(state, -1, -1)` on `core`; `surround` is a context manager that its thread runs within."""

    def __init__(self, run, state, core, surround=contextlib.nullcontext):
        self.run, self.state, self.core, self.surround = run, state, core, surround
        self.error = None
        self.thread = threading.Thread(target=self._work, name=f"worker on core {core}", daemon=True)

    def start(self):
        """Starts the thread."""
        self.thread.start()

    def _work(self):
        try:
            os.sched_setaffinity(0, {self.core})
            with self.surround():
                self.run(self.state, -1, -1)
        except BaseException as error:  # whatever it was, the main thread has to hear of it
            self.error = error

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


@loop
def read_ticks():
    """Returns what the clock of the kernels shows now."""
    return native.ticks()
