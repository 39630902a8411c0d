"""The Internet checksum against scapy's: in one piece, through mbufs, incrementally (RFC 1071, RFC 1624)."""

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st
from kernel_bed import KernelBed, as_array, generated
from scapy.layers.inet import IP, TCP, in4_chksum
from scapy.utils import checksum as scapy_checksum

from pipeline.kernels.checksum import (
    data_start,
    difference,
    fold,
    pseudo_header,
    sum_chain,
    sum_octets,
    update,
)
from pipeline.kernels.headers import overlays
from pipeline.kernels.native import swap16, swap32

OCTETS = st.binary(min_size=0, max_size=80)
WORD16, WORD32 = st.integers(0, 2**16 - 1), st.integers(0, 2**32 - 1)
BED = KernelBed()


def packets_of(octets):
    """Returns the overlays of an arena that holds just these bytes: there is nothing behind the last one."""
    return overlays(as_array(octets), native=True)


@generated
@given(st.integers(0, 2**48))
@example(0)
@example(2**48)
@example(0xFFFF)
@example(0xFFFFFFFFFFFF)
def test_fold_keeps_the_sum_modulo_65535_and_gives_0_for_0_alone(total):
    folded = fold(total)
    assert 0 <= folded <= 0xFFFF and folded % 0xFFFF == total % 0xFFFF
    assert (folded == 0) == (total == 0)


@generated
@given(OCTETS, st.integers(0, 9))
def test_the_sum_of_octets_anywhere_is_scapys_checksum(octets, start):
    packets = packets_of(bytes([0xA5] * start) + octets)
    assert swap16(0xFFFF - fold(sum_octets(packets, start, len(octets)))) == scapy_checksum(octets)


@generated
@given(st.binary(min_size=1, max_size=300), st.integers(1, 64), st.integers(0, 40))
def test_the_sum_through_chained_mbufs_is_that_of_the_joined_octets(octets, segment_length, skip):
    skip = min(skip, len(octets), segment_length - 1)
    count = BED.write([octets], min(segment_length, max(len(octets) // 60, segment_length)))
    mbuf = int(BED.batch.mbuf[0])
    start = data_start(BED.packets, BED.base, mbuf) + skip
    total = sum_chain(BED.packets, BED.base, mbuf, start, len(octets) - skip)
    BED.free(count)
    assert swap16(0xFFFF - fold(total)) == scapy_checksum(octets[skip:])


def test_a_chain_that_ends_too_early_is_summed_as_far_as_it_goes():
    count = BED.write([b"\x01\x02\x03\x04\x05"], 2)
    mbuf = int(BED.batch.mbuf[0])
    total = sum_chain(BED.packets, BED.base, mbuf, data_start(BED.packets, BED.base, mbuf), 500)
    BED.free(count)
    assert swap16(0xFFFF - fold(total)) == scapy_checksum(b"\x01\x02\x03\x04\x05")


@generated
@given(WORD32, WORD32, st.integers(20, 1480))
def test_the_pseudo_header_is_scapys(source, destination, length):
    ip = IP(src=".".join(map(str, source.to_bytes(4, "big"))), dst=".".join(map(str, destination.to_bytes(4, "big"))))
    packets = packets_of(bytes(ip / TCP()))
    expected = in4_chksum(6, ip, bytes(length))
    assert swap16(0xFFFF - fold(pseudo_header(packets, 0, length))) == expected


@generated
@given(st.binary(min_size=20, max_size=60), st.lists(st.tuples(st.integers(0, 8), WORD32), max_size=4))
@example(bytes(20), [(0, 0)])
@example(b"\xff" * 20, [(0, 0), (1, 0)])
def test_an_incremental_update_gives_what_a_new_sum_would(octets, changes):
    """As erratum 4782 of RFC 1624 warns, nothing but zeros under the sum has two forms of one checksum."""
    old = bytearray(octets[: len(octets) & ~1])
    new, differences = bytearray(old), 0
    for place, value in changes:
        place = 4 * min(place, len(old) // 4 - 1)
        before = int.from_bytes(new[place : place + 4], "big")
        differences += difference(swap32(before), swap32(value))
        new[place : place + 4] = value.to_bytes(4, "big")
    found = swap16(update(swap16(scapy_checksum(bytes(old))), differences))
    assert found % 0xFFFF == scapy_checksum(bytes(new)) % 0xFFFF
    if any(new) and any(old):
        assert found == scapy_checksum(bytes(new))


@generated
@given(WORD16, WORD16, WORD32, st.integers(1, 0xFFFE))
def test_a_wrong_checksum_stays_wrong_by_as_much(right, old, new, wrong_by):
    """SPLICE 1.5: what came in corrupt is not made good on its way."""
    wrong = (right + wrong_by) % 0xFFFF
    change = difference(old, new)
    assert (update(wrong, change) - update(right, change) - wrong_by) % 0xFFFF == 0


def test_difference_takes_words_of_16_bits_as_well():
    assert np.int64(update(0x1234, difference(0x4006, 0x3F06))) == 0x1234 + 0x0100
