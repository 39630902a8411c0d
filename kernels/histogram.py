"""A histogram of spans of time with a bounded relative error: HdrHistogram's log-linear buckets (Tene, hdrhistogram.org).

Values below 2 * SUB have a bucket each; above, every doubling of the value has SUB buckets, so that a bucket is never
wider than 1 / SUB of what lies in it.
"""
from .jit import kernel

BITS = 7
SUB = 1 << BITS
LARGEST = (1 << 36) - 1
"""Values above it count as it: 19 hours in microseconds."""
BUCKETS = (36 - BITS - 1) * SUB + 2 * SUB


@kernel
def bucket_of(value):
    """Returns the bucket of a value (not negative)."""
    rest, doublings = min(value, LARGEST), 0
    while rest >= 2 * SUB:
        rest >>= 1
        doublings += 1
    return doublings * SUB + rest


@kernel
def count_value(histogram, value):
    """Counts a value (int64, not negative) in a histogram (int64 [BUCKETS])."""
    histogram[bucket_of(value)] += 1
