"""Limits: how many connections a service and a source may have, and how many new ones a second.

Rates are kept by the generic cell rate algorithm (ITU-T I.371, annex A): one number, the time at which the next connection is due;
as many may come early as the burst says. Sources are found in buckets of a table of fixed size; one that has nothing open and is
not early makes room for another. Where all of a bucket are in use, a source goes without limits of its own, and that is counted.
"""
from typing import NamedTuple

import numpy as np
from numpy import int64

from .connection import CLIENT
from .counters import (
    DROP_SERVICE_FULL,
    DROP_SERVICE_RATE,
    DROP_SOURCE_FULL,
    DROP_SOURCE_RATE,
    NOTICE_SOURCES_EXHAUSTED,
    OF_SERVICE_OPEN,
)
from .jit import kernel
from .sequence import MASK
from .services import NO_LIMIT

MOST, INTERVAL, EARLY, MOST_OF_SOURCE, INTERVAL_OF_SOURCE, EARLY_OF_SOURCE, SOURCE_MASK, DUE = range(8)
"""Columns of `Limits.rules`: connections at once; nanoseconds a new one, 0 for any rate; nanoseconds it may come early; the same of a
source, and the bits of its address that count; when the service's next is due."""
LIMITED, RESETS = 0, 1
"""Cells of `Limits.settings`: whether there are limits, and whether who is beyond one gets a RST."""
KEY, OPEN, SOURCE_DUE = range(3)
"""Columns of `Limits.sources`; a KEY of 0 is free."""
WAYS = 8
"""Sources of a bucket."""
GOLDEN = 0x61C88647
NANOSECONDS = 1000
"""Of a microsecond."""


class Limits(NamedTuple):
    """What services and sources may have, and have."""

    settings: np.ndarray   # int64 [2] see LIMITED
    rules: np.ndarray      # int64 [services, 8] see MOST
    sources: np.ndarray    # int64 [n, 3] see KEY; a power of two of buckets


@kernel
def source_key(limits, number, address):
    """Returns what tells the source of a service's connection from others: the bits of its address that count, and the service."""
    return (address & limits.rules[number, SOURCE_MASK]) << 16 | (number + 1)


@kernel
def home_of_source(limits, key):
    """Returns the first row of the bucket that a source lies in."""
    buckets = limits.sources.shape[0] // WAYS
    return ((((key >> 16) * GOLDEN & MASK) >> 7) + (key & 0xFFFF) * 5) % buckets * WAYS


@kernel
def find_source(limits, key):
    """Returns the row of a source, or -1."""
    home = home_of_source(limits, key)
    for row in range(home, home + WAYS):
        if limits.sources[row, KEY] == key:
            return row
    return -1


@kernel
def take_source(limits, key, now):
    """Returns the row of a source, taken from one that needs it no longer where it is new; -1 where there is none."""
    row, home = find_source(limits, key), home_of_source(limits, key)
    if row >= 0:
        return row
    for other in range(home, home + WAYS):
        if limits.sources[other, OPEN] == 0 and limits.sources[other, SOURCE_DUE] <= now:
            limits.sources[other, KEY] = key
            return other
    return -1


@kernel
def why_service(limits, counters, number, now):
    """Returns why a service takes no connection at `now` (nanoseconds), or -1."""
    rules = limits.rules
    if counters.services[number, OF_SERVICE_OPEN] >= rules[number, MOST]:
        return DROP_SERVICE_FULL
    return DROP_SERVICE_RATE if rules[number, INTERVAL] > 0 and rules[number, DUE] > now + rules[number, EARLY] else -1


@kernel
def why_source(limits, row, number, now):
    """Returns why the source in a row gets no connection to a service, or -1."""
    rules, sources = limits.rules, limits.sources
    if sources[row, OPEN] >= rules[number, MOST_OF_SOURCE]:
        return DROP_SOURCE_FULL
    early = sources[row, SOURCE_DUE] > now + rules[number, EARLY_OF_SOURCE]
    return DROP_SOURCE_RATE if rules[number, INTERVAL_OF_SOURCE] > 0 and early else -1


@kernel
def count_in(limits, counters, number, address, now):
    """Counts a new connection of a source's to a service at `now` (microseconds); returns -1, or which limit it is beyond."""
    if limits.settings[LIMITED] == 0:
        return -1
    rules, sources, now = limits.rules, limits.sources, now * NANOSECONDS
    reason = why_service(limits, counters, number, now)
    if reason >= 0:
        return reason
    if rules[number, MOST_OF_SOURCE] < NO_LIMIT or rules[number, INTERVAL_OF_SOURCE] > 0:
        row = take_source(limits, source_key(limits, number, address), now)
        if row < 0:
            counters.notices[NOTICE_SOURCES_EXHAUSTED] += 1
        else:
            reason = why_source(limits, row, number, now)
            if reason >= 0:
                return reason
            sources[row, OPEN] += 1
            sources[row, SOURCE_DUE] = max(sources[row, SOURCE_DUE], now) + rules[number, INTERVAL_OF_SOURCE]
    rules[number, DUE] = max(rules[number, DUE], now) + rules[number, INTERVAL]
    return -1


@kernel
def count_out(limits, hot, number):
    """A connection to a service has ended: its source has one less, if it is known."""
    if limits.settings[LIMITED] == 0:
        return
    row = find_source(limits, source_key(limits, number, int64(hot.remote_address[CLIENT])))
    if row >= 0 and limits.sources[row, OPEN] > 0:
        limits.sources[row, OPEN] -= 1
