"""What `perf stat` counts, of one thread: perf_event_open(2) by itself, for the program `perf` follows whole processes only.

Hardware counters count what is done in user space; many virtual machines have none. Those of Linux itself are always there.
"""
import contextlib
import ctypes
import errno
import os
import struct

HARDWARE, SOFTWARE = 0, 1
EVENTS = {"cycles": (HARDWARE, 0), "instructions": (HARDWARE, 1), "cache_misses": (HARDWARE, 3), "branch_misses": (HARDWARE, 5),
          "context_switches": (SOFTWARE, 3), "page_faults": (SOFTWARE, 2)}
"""Name: (type, config) of struct perf_event_attr (linux/perf_event.h)."""
PERF_EVENT_OPEN = 298
"""Number of the system call on x86-64."""
ATTRIBUTES = struct.Struct("=IIQQQQQ16x")
"""struct perf_event_attr in its first version, of 64 bytes: type, size, config, period, sample type, read format, flags."""
EXCLUDE_KERNEL, EXCLUDE_HYPERVISOR = 1 << 5, 1 << 6
TIMES = 3
"""read_format: how long the counter was wanted and how long it ran, which is less where there are fewer than are wanted."""
READING = struct.Struct("=QQQ")


def _opened(kind, number, thread):
    flags = EXCLUDE_KERNEL | EXCLUDE_HYPERVISOR if kind == HARDWARE else 0
    asked = ctypes.create_string_buffer(ATTRIBUTES.pack(kind, ATTRIBUTES.size, number, 0, 0, TIMES, flags))
    descriptor = ctypes.CDLL(None, use_errno=True).syscall(PERF_EVENT_OPEN, asked, thread, -1, -1, 0)
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return descriptor


class ProcessorCounters:
    """Counters of the thread with this number (`threading.get_native_id`; 0: the caller), from when they are made until `close`.

    `missing` (dict) says in a sentence why a counter is not there.
    """

    def __init__(self, thread=0):
        self.missing, self._descriptors = {}, {}
        for name, (kind, number) in EVENTS.items():
            try:
                self._descriptors[name] = _opened(kind, number, thread)
            except OSError as error:
                what = "this machine has none" if error.errno in (errno.ENOENT, errno.EOPNOTSUPP, errno.ENODEV) else "not to be had"
                self.missing[name] = f"{what} (perf_event_open: {error.strerror})"

    def read(self):
        """Returns what has been counted so far (dict of name to int); what ran only part of the time is scaled up."""
        found = {}
        for name, descriptor in self._descriptors.items():
            count, wanted, ran = READING.unpack(os.read(descriptor, READING.size))
            found[name] = round(count * wanted / ran) if ran else 0
        return found

    def close(self):
        """Ends the counting."""
        while self._descriptors:
            with contextlib.suppress(OSError):
                os.close(self._descriptors.popitem()[1])


def counted(counters):
    """Returns the sums of several ProcessorCounters with what is missing (dict, JSON-able)."""
    found = {}
    for each in counters:
        for name, count in each.read().items():
            found[name] = found.get(name, 0) + count
    missing = {name: why for each in counters for name, why in each.missing.items()}
    return {**found, **({"missing": missing} if missing else {})}


def line(found):
    """Returns what `counted` has found as a line of text."""
    words = [f"{name.replace('_', ' ')} {count:,}" for name, count in found.items() if name != "missing"]
    if found.get("cycles"):
        words.append(f"{found.get('instructions', 0) / found['cycles']:.2f} instructions a cycle")
    missing = found.get("missing", {})
    if missing:
        words.append(f"no {', '.join(missing).replace('_', ' ')}: {next(iter(missing.values()))}")
    return "; ".join(words)
