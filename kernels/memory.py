"""Memory for records that kernels go to at random: on cache lines, and on huge pages where the system gives them."""
import contextlib
import mmap

import numpy as np

LINE = 64
"""An array of NumPy's own starts 16 bytes behind such a boundary: every record of 64 bytes would be in two cache lines."""
HUGE_PAGE = 2 << 20
WORTH_A_PAGE = HUGE_PAGE // 16
"""Bytes from which on records get huge pages of their own."""


def allocate(count, dtype, huge=True):
    """Returns `count` zeroed records of a structured dtype (recarray) that start on a cache line.

    What fills huge pages is asked for on such (madvise(2), MADV_HUGEPAGE): what the heap gives is on them only in part.
    """
    return octets(count * dtype.itemsize, huge).view(dtype).view(np.recarray)


def octets(size, huge=True):
    """Returns `size` zeroed bytes (uint8) from the start of a cache line on, where nothing else lies on their last one."""
    if size < WORTH_A_PAGE:
        whole = np.zeros(size + 2 * LINE, np.uint8)
        first = -whole.ctypes.data % LINE
    else:
        pages = mmap.mmap(-1, -(-size // HUGE_PAGE) * HUGE_PAGE + HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if huge:
            with contextlib.suppress(OSError):  # a kernel without: small pages serve too
                pages.madvise(mmap.MADV_HUGEPAGE)
        whole = np.frombuffer(pages, np.uint8)
        first = -whole.ctypes.data % HUGE_PAGE
    return whole[first:first + size]


def on_lines(array):
    """Returns a copy of an array (C-contiguous) on cache lines of its own: for what one thread writes beside others."""
    copy = octets(array.nbytes).view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy
