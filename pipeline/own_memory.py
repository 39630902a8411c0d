"""Memory of a worker's own: all its arrays moved to cache lines, or between guard pages, that nothing of another's lies on."""
import ctypes
import mmap
import os

import numpy as np
from numpy.lib.array_utils import byte_bounds

from pipeline.kernels.memory import LINE, octets

PAGE = mmap.PAGESIZE
PROT_NONE = 0
WORD = 8
"""Guarded arrays end at most so many bytes before the page behind them, less one: their words stay aligned."""
PIECE = 1 << 20
"""Bytes of a large array that are copied at a time, if one is other than 0: what nobody has written takes no memory."""


def fields(part, path=""):
    """Yields (path, array) for each array of a NamedTuple of them, however deep; a path is such as "connections.hot"."""
    for name, value in zip(part._fields, part, strict=True):
        if isinstance(value, tuple):
            yield from fields(value, f"{path}{name}.")
        else:
            yield path + name, value


def replaced(part, array_at, path=""):
    """Returns a NamedTuple with the arrays that `array_at` (dict by path) has instead of its own."""
    return type(part)(*(replaced(value, array_at, f"{path}{name}.") if isinstance(value, tuple) else array_at.get(path + name, value)
                        for name, value in zip(part._fields, part, strict=True)))


def regions(arrays):
    """Returns a list of (first address, address behind, paths) of the memory that `arrays` (dict by path) lie in.

    Arrays that overlap, a worker's views of its own, are in one region.
    """
    found = []
    for low, high, path in sorted((*byte_bounds(array), path) for path, array in arrays.items() if array.size):
        if found and low < found[-1][1]:
            found[-1][1] = max(found[-1][1], high)
            found[-1][2].append(path)
        else:
            found.append([low, high, [path]])
    return found


def line_blocks(sizes):
    """Returns memory (uint8[size]) for each of `sizes`, each from the start of a cache line on, all in one run of them."""
    starts = np.cumsum([0] + [-(-size // LINE) * LINE for size in sizes])
    whole = octets(int(starts[-1]))
    return [whole[start:start + size] for start, size in zip(starts[:-1].tolist(), sizes, strict=True)]


def guarded_blocks(sizes):
    """Returns memory (uint8[size]) for each of `sizes`, on pages of its own, with an inaccessible page before and behind it.

    Each block ends where the page behind it begins, but for what rounds it to words: who runs over its end faults
    (mprotect(2), PROT_NONE); whoever comes from before its start, within a page, may touch its own first page only.
    """
    spans = [-(-size // PAGE) * PAGE for size in sizes]
    pages = mmap.mmap(-1, sum(spans) + PAGE * (len(spans) + 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    whole = np.frombuffer(pages, np.uint8)
    blocks, place = [], 0
    for size, span in zip(sizes, spans, strict=True):
        _forbid(whole, place)
        place += PAGE + span
        start = place - -(-size // WORD) * WORD
        blocks.append(whole[start:start + size])
    _forbid(whole, place)
    return blocks


def _forbid(whole, place):
    library = ctypes.CDLL(None, use_errno=True)
    if library.mprotect(ctypes.c_void_p(whole.ctypes.data + place), ctypes.c_size_t(PAGE), PROT_NONE) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"mprotect: {os.strerror(error)}")


def _copy(address, block):
    source = np.ctypeslib.as_array(ctypes.cast(address, ctypes.POINTER(ctypes.c_uint8)), (len(block),))
    for start in range(0, len(block), PIECE):
        piece = source[start:start + PIECE]
        if piece.any():
            block[start:start + PIECE] = piece


def _moved(array, by, block):
    """Returns what `array` is in `block` (uint8[n]), to which its region was moved from address `by`."""
    same = np.ndarray(array.shape, array.dtype, block, array.ctypes.data - by, array.strides)
    return same.view(type(array))


def moved(state, stays, blocks, has_own):
    """Returns a worker's state with its arrays moved: those whose paths `stays` (function) does not keep where they are, and
    whose region is not its own already, as `has_own(low, high)` says. `blocks` is `line_blocks` or `guarded_blocks`.
    """
    arrays = {path: array for path, array in fields(state) if not stays(path)}
    found = [region for region in regions(arrays) if not has_own(*region[:2])]
    array_at = {}
    for (low, high, paths), block in zip(found, blocks([high - low for low, high, _ in found]), strict=True):
        _copy(low, block)
        array_at |= {path: _moved(arrays[path], low, block) for path in paths}
    return replaced(state, array_at)


def on_own_lines(low, high):
    """Says whether what lies from `low` to below `high` begins and ends with a cache line, so that it has them for itself."""
    return low % LINE == 0 and high % LINE == 0
