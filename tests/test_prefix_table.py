"""The table of prefixes against Python's ipaddress: the longest match of each list, and what is listed nowhere."""
import ipaddress

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kernel_bed import generated
from pipeline.access_lists import make_table
from pipeline.kernels.jit import loop
from pipeline.kernels.prefix_table import class_of


@loop
def classes_of(table, half, addresses, found):
    """Writes the class of each address."""
    for number in range(addresses.shape[0]):
        found[number] = class_of(table, half, addresses[number])
    return 0


def network(address, length):
    return ipaddress.IPv4Network((address >> 32 - length << 32 - length if length else 0, length))


def is_denied(address, allowed, denied):
    """The reference: the longest of the prefixes that hold the address."""
    matches = [(one.prefixlen, side) for side, networks in ((0, allowed), (1, denied)) for one in networks
               if ipaddress.IPv4Address(address) in one]
    return max(matches)[1] if matches else int(bool(allowed))


near = st.one_of(st.integers(0, 2**32 - 1), st.integers(0x0A010000, 0x0A0103FF))
networks = st.lists(st.builds(network, near, st.integers(0, 32)), max_size=8, unique=True)


@st.composite
def lists(draw):
    mixed = draw(networks)
    cut = draw(st.integers(0, len(mixed)))
    return tuple(mixed[:cut]), tuple(mixed[cut:])


@generated
@given(st.lists(lists(), min_size=1, max_size=3), st.lists(near, max_size=20))
def test_every_list_decides_by_its_longest_match(given_lists, addresses):
    ends = [int(end) for sides in given_lists for side in sides for one in side for end in (one[0], one[-1])]
    addresses += [number for end in ends for number in (end - 1, end, end + 1) if 0 <= number < 2**32]
    table = make_table.__wrapped__(tuple(given_lists))
    found = np.full(len(addresses), -1, np.int64)
    classes_of(table, 0, np.array(addresses, np.int64), found)
    for address, number in zip(addresses, found, strict=True):
        assert table.denied[0, number].tolist() == [is_denied(address, *sides) for sides in given_lists]
