"""Makes the table of prefixes by which kernels know whom the allow and deny lists of a configuration mean."""
import functools

import numpy as np

from pipeline.kernels import access, memory
from pipeline.kernels.prefix_table import FIRST_BITS, LAST_BITS, PrefixTable


def _marks(lists):
    """Returns {(prefix length, address): {number of the list: denied?}} of all prefixes."""
    marks = {}
    for number, sides in enumerate(lists):
        for denied, networks in enumerate(sides):
            for network in networks:
                marks.setdefault((network.prefixlen, int(network.network_address)), {})[number] = denied
    return marks


@functools.lru_cache(maxsize=2)
def make_table(lists):
    """Returns the `PrefixTable` of `lists`: a tuple of (allowed, denied), each a tuple of IPv4Network.

    The longest prefix of a list that an address matches decides; where none does, it is denied by a list that allows any.
    Prefixes are painted from the shortest on, so each finds the class of what encloses it where it is to lie. Workers share
    the table, which none of them writes.
    """
    marks = _marks(lists)
    first = memory.octets(4 << FIRST_BITS).view(np.int32)
    numbers = {address >> LAST_BITS: None for length, address in marks if length > FIRST_BITS}
    numbers = {prefix: block for block, prefix in enumerate(sorted(numbers))}
    blocks = np.zeros(max(len(numbers), 1) << LAST_BITS, np.int32)
    classes = {tuple(int(bool(allowed)) for allowed, _ in lists): 0}
    vectors = list(classes)
    for (length, address), marked in sorted(marks.items()):
        prefix, painted, start, stop = address >> LAST_BITS, first, 0, 0
        if length <= FIRST_BITS:
            start, stop = prefix, prefix + (1 << FIRST_BITS - length)
        else:
            block = numbers[prefix] << LAST_BITS
            if first[prefix] >= 0:
                blocks[block:block + (1 << LAST_BITS)] = first[prefix]
                first[prefix] = -1 - numbers[prefix]
            painted, start = blocks, block | (address & 0xFF)
            stop = start + (1 << 32 - length)
        vector = list(vectors[painted[start]])
        for number, denied in marked.items():
            vector[number] = denied
        known = classes.setdefault(tuple(vector), len(vectors))
        if known == len(vectors):
            vectors.append(tuple(vector))
        painted[start:stop] = known
    return PrefixTable(first, blocks, np.array(vectors, np.int64))


def lists_of(configuration):
    """Returns the lists of the engine and of each service, as `make_table` takes them."""
    tables = [configuration.access, *configuration.services]
    return tuple(((), ()) if table is None else (table.allowed, table.denied_sources) for table in tables)


def make_access(configuration):
    """Returns the `Access` of a configuration, next to nothing where it has no lists."""
    lists, settings = lists_of(configuration), np.zeros(2, np.int64)
    if not any(networks for sides in lists for networks in sides):
        empty = PrefixTable(np.zeros(1, np.int32), np.zeros(1, np.int32), np.zeros((1, len(lists)), np.int64))
        return access.Access(settings, empty)
    settings[access.LISTS] = 1
    settings[access.RESETS] = int(configuration.access is not None and configuration.access.denied == "reset")
    return access.Access(settings, make_table(lists))
