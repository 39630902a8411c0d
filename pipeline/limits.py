"""Makes what kernels need of the limits of a configuration: of services, their sources, and targets."""
import numpy as np

from pipeline.kernels import limits
from pipeline.kernels.services import NO_LIMIT

SECOND = 1_000_000_000
"""Nanoseconds."""
SOURCES = 65536
"""Sources that can be told apart at once, where any service has limits for them."""


def share_of(most, workers):
    """Returns a worker's share of a limit (int or None), rounded up; none is no limit."""
    return NO_LIMIT if most is None else -(-most // workers)


def rate_of(rate, burst, workers):
    """Returns nanoseconds a connection, and how many of them one may come early, for a worker's share of a `rate` a second."""
    interval = 0 if rate is None else SECOND * workers // rate
    return interval, (max(-(-(burst or 1) // workers), 1) - 1) * interval


def make_limits(configuration, workers):
    """Returns the `Limits` of one of so many workers."""
    rules = np.zeros((len(configuration.services), 8), np.int64)
    tables = [service.limits for service in configuration.services]
    for row, table in zip(rules, tables, strict=True):
        row[:] = (share_of(table.connections, workers), *rate_of(table.connections_per_second, table.burst, workers),
                  share_of(table.connections_per_source, workers),
                  *rate_of(table.connections_per_second_per_source, table.burst_per_source, workers),
                  0xFFFFFFFF << 32 - table.source_prefix & 0xFFFFFFFF, 0)
    limited = any(table.limited for table in tables)
    by_source = any(table.by_source for table in tables)
    resets = configuration.access is not None and configuration.access.denied == "reset"
    return limits.Limits(np.array([limited, resets], np.int64), rules, np.zeros((SOURCES if by_source else limits.WAYS, 3), np.int64))


def target_limits(configuration, workers):
    """Returns the rows (int64[targets, 4]) of `Selection.limits` for one of so many workers."""
    rows = [(share_of(target.max_connections, workers), *rate_of(target.max_connections_per_second, target.burst, workers), 0)
            for target in configuration.targets]
    return np.array(rows, np.int64).reshape(-1, 4)
