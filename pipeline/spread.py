"""How far measurements lie apart: quartiles of runs, and the interval of a ratio."""
import numpy as np

RESAMPLED = 4000


def quartiles(values):
    """Returns the median of runs and their quartiles (dict of `median`, `low` and `high`)."""
    low, median, high = np.percentile(values, (25, 50, 75))
    return {"median": round(float(median), 2), "low": round(float(low), 2), "high": round(float(high), 2)}


def ratio_interval(ratios, seed=1):
    """Returns the median of ratios (float64[n]) and the bounds of its bootstrapped interval of 95 % (Efron, 1979)."""
    drawn = np.random.default_rng(seed).integers(0, len(ratios), (RESAMPLED, len(ratios)))
    low, high = np.percentile(np.median(np.asarray(ratios)[drawn], axis=1), (2.5, 97.5))
    return float(np.median(ratios)), float(low), float(high)
