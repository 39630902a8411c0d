"""Says how far the compilation of a loop has come: a cold start takes a while, and nobody should wonder why."""
import contextlib
import time

from numba.core import event

EVERY = 2.0
"""Seconds between two lines."""


class _Counting(event.Listener):
    def __init__(self, say):
        self.say = say
        self.started = self.spoken = time.monotonic()
        self.kernels = 0
        self.said = False

    def on_start(self, event):
        """Says how many kernels there were so far, now and then."""
        now = time.monotonic()
        if not self.said:
            self.said = True
            self.say("compiling the kernels; this is done once, later starts take them from the cache")
        elif now - self.spoken >= EVERY:
            self.say(f"compiling the kernels: {self.kernels} done after {now - self.started:.0f} s")
            self.spoken = now

    def on_end(self, event):
        """Counts a kernel that is done."""
        self.kernels += 1


@contextlib.contextmanager
def compiling_aloud(say):
    """Has Numba's compilations within this context reported with `say` (callable(str))."""
    listener = _Counting(say)
    with event.install_listener("numba:compile", listener):
        yield
    if listener.kernels:
        say(f"compiled {listener.kernels} kernels in {time.monotonic() - listener.started:.0f} s")
