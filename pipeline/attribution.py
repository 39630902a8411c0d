"""What a packet of each kind takes, where bursts of mixed kinds were timed: least squares without negative answers.

The active set method of Lawson and Hanson (Solving Least Squares Problems, 1974, chapter 23), on normal equations, so that
the bursts themselves need not be kept.
"""
import numpy as np

SMALL = 1e-9


def solved(products, sums):
    """Returns the numbers x >= 0 (float64 [n]) for which A x is nearest to b.

    `products` is the transpose of A times A (n, n), `sums` the transpose of A times b (n). What no row of A speaks of is 0.
    """
    scale = np.sqrt(np.maximum(np.diag(products).astype(float), 0))
    known = scale > 0
    scale[~known] = 1
    products, sums = products / np.outer(scale, scale), sums / scale
    least = SMALL * max(np.abs(sums).max(initial=0), SMALL)
    found, free = np.zeros(len(sums)), np.zeros(len(sums), bool)
    for _ in range(3 * len(sums)):
        gain = np.where(known & ~free, sums - products @ found, 0)
        if gain.max(initial=0) <= least:
            break
        free[np.argmax(gain)] = True
        while free.any():
            tried = np.zeros(len(sums))
            tried[free] = np.linalg.lstsq(products[np.ix_(free, free)], sums[free], rcond=1e-10)[0]
            if (tried[free] > 0).all():
                break
            low = free & (tried <= 0)
            step = np.min(found[low] / np.maximum(found[low] - tried[low], SMALL))
            found = found + step * (tried - found)
            free &= found > SMALL
        else:
            tried = np.zeros(len(sums))
        found = tried
    return found / scale
