"""Makes the table of prefixes by which kernels know whom the allow and deny lists of a configuration mean."""
import functools

import numpy as np

from pipeline.errors import RunError
from pipeline.kernels import access, memory
from pipeline.kernels.batch import BURST
from pipeline.kernels.prefix_table import ENTRY_BYTES, FIRST_BITS, LAST_BITS, PrefixTable

SPARE_BLOCKS, SPARE_CLASSES = 4096, 256
"""What a table has room for at least when its lists are taken anew."""


def _marks(lists):
    """Returns {(prefix length, address): {number of the list: denied?}} of all prefixes."""
    marks = {}
    for number, sides in enumerate(lists):
        for denied, networks in enumerate(sides):
            for network in networks:
                marks.setdefault((network.prefixlen, int(network.network_address)), {})[number] = denied
    return marks


def _blocks_of(marks):
    """Returns {prefix of 24 bits: number of its block} of all that is told apart by more bits."""
    longer = sorted({address >> LAST_BITS for length, address in marks if length > FIRST_BITS})
    return {prefix: block for block, prefix in enumerate(longer)}


def _paint(first, blocks, numbers, marks, lists):
    """Fills zeroed `first` and `blocks`; returns what each list makes of each class (list of tuples of 0 and 1).

    Prefixes are painted from the shortest on, so each finds the class of what encloses it where it is to lie.
    """
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
    return vectors


@functools.lru_cache(maxsize=2)
def make_table(lists):
    """Returns the `PrefixTable` of `lists`: a tuple of (allowed, denied), each a tuple of IPv4Network.

    The longest prefix of a list that an address matches decides; where none does, it is denied by a list that allows any.
    Workers share the table, which none of them writes. There is room for lists of twice the size, and of SPARE_BLOCKS at least.
    """
    marks = _marks(lists)
    numbers = _blocks_of(marks)
    room = max(2 * len(numbers), SPARE_BLOCKS) << LAST_BITS
    first = memory.octets(ENTRY_BYTES * 2 << FIRST_BITS).view(np.int32).reshape(2, -1)
    blocks = memory.octets(ENTRY_BYTES * 2 * room).view(np.int32).reshape(2, -1)
    vectors = _paint(first[0], blocks[0], numbers, marks, lists)
    denied = np.zeros((2, max(2 * len(vectors), SPARE_CLASSES), len(lists)), np.int64)
    denied[0, :len(vectors)] = vectors
    return PrefixTable(first, blocks, denied)


def refill(table, half, lists):
    """Makes a half of a table anew, which nobody reads, of other `lists`. Raises RunError where they do not fit."""
    marks = _marks(lists)
    numbers = _blocks_of(marks)
    if len(numbers) << LAST_BITS > table.blocks.shape[1]:
        raise RunError(f"the lists have prefixes longer than 24 bits in {len(numbers)} networks of 24 bits, and this engine has room for "
                       f"{table.blocks.shape[1] >> LAST_BITS}; it must be started anew with them")
    table.first[half], table.blocks[half] = 0, 0
    vectors = _paint(table.first[half], table.blocks[half], numbers, marks, lists)
    if len(vectors) > table.denied.shape[1]:
        raise RunError(f"the lists tell {len(vectors)} kinds of sources apart, and this engine has room for {table.denied.shape[1]}; it must "
                       "be started anew with them")
    table.denied[half, :len(vectors)] = vectors


def lists_of(configuration):
    """Returns the lists of the engine and of each service, as `make_table` takes them."""
    tables = [configuration.access, *configuration.services]
    return tuple(((), ()) if table is None else (table.allowed, table.denied_sources) for table in tables)


def make_access(configuration):
    """Returns the `Access` of a configuration, next to nothing where it has no lists."""
    lists, settings, columns = lists_of(configuration), np.zeros(3, np.int64), [np.zeros(BURST, np.int64) for _ in range(2)]
    if not any(networks for sides in lists for networks in sides):
        empty = PrefixTable(np.zeros((2, 1), np.int32), np.zeros((2, 1), np.int32), np.zeros((2, 1, len(lists)), np.int64))
        return access.Access(settings, empty, *columns)
    settings[access.LISTS] = 1
    settings[access.RESETS] = int(configuration.access is not None and configuration.access.denied == "reset")
    return access.Access(settings, make_table(lists), *columns)


def reload_lists(states, old, new, said):
    """Has running workers (`states`) take the lists of another Configuration, without a pause; returns what is told (dict).

    The half of each table that nobody reads is made anew, then one word turns each worker to it. Raises RunError where `new` has other
    services than `old`, the engine's, or there were no lists before. `said` waits until every worker has begun another pass.
    """
    names = [service.name for service in old.services]
    if [service.name for service in new.services] != names:
        raise RunError(f"only lists are taken anew: the services must be {', '.join(names)}, in this order, as when the engine was started")
    if not all(state.access.settings[access.LISTS] for state in states):
        raise RunError("this engine was started without allow and deny; it must be started anew with them")
    lists, half = lists_of(new), 1 - int(states[0].access.settings[access.HALF])
    for table in {state.access.table.first.ctypes.data: state.access.table for state in states}.values():
        refill(table, half, lists)
    for state in states:
        state.access.settings[access.HALF] = half
    said()
    return {"prefixes": sum(len(networks) for sides in lists for networks in sides)}
