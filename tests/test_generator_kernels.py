"""Kernels of the traffic generator against plain references: the histogram, and what clients and servers say."""
import math
from typing import NamedTuple

import numpy as np
import pytest
from generator_bed import settings_for
from hypothesis import given
from hypothesis import strategies as st
from kernel_bed import generated

from pipeline import generator_report, generator_state
from pipeline.kernels import generator_ends, generator_payload, headers, histogram
from pipeline.kernels.jit import loop

VALUES = st.integers(0, 1 << 40) | st.integers(0, 1000)


@loop
def count_all(counted, values):
    for value in values:
        histogram.count_value(counted, value)


def plain_bucket(value):
    """The bucket of a value by its definition: below 256 one each, then 128 for each doubling."""
    value = min(value, histogram.LARGEST)
    if value < 256:
        return value
    doublings = int(math.floor(math.log2(value))) - 7
    return 128 * doublings + value // 2 ** doublings


@generated
@given(st.lists(VALUES, min_size=1, max_size=50))
def test_values_are_counted_in_log_linear_buckets(values):
    counted = np.zeros(histogram.BUCKETS, np.int64)
    count_all(counted, np.array(values, np.int64))
    expected = np.bincount([plain_bucket(value) for value in values], minlength=histogram.BUCKETS)
    assert (counted == expected).all()


@generated
@given(st.lists(st.integers(0, histogram.LARGEST), min_size=1, max_size=200))
def test_percentiles_are_those_of_the_values_within_a_128th(values):
    counted = np.zeros(histogram.BUCKETS, np.int64)
    count_all(counted, np.array(values, np.int64))
    shown, ranked = generator_report.percentiles(counted), sorted(values)
    assert shown["count"] == len(values)
    for share in generator_report.PERCENTILES:
        true = ranked[math.ceil(len(values) * share / 100) - 1]
        assert true <= shown[f"p{share:g}"] <= true + true / 128
    assert ranked[-1] <= shown["max"] <= ranked[-1] * (1 + 1 / 128)


def test_nothing_counted_has_no_percentiles():
    assert generator_report.percentiles(np.zeros(histogram.BUCKETS, np.int64)) == {"count": 0}


class Streams(NamedTuple):
    """What a configuration has clients and servers say, and room for a packet."""

    contents: generator_ends.Contents
    packets: headers.Packets
    ends: np.ndarray


@pytest.fixture(scope="module")
def streams():
    traffic = {"request": "{number} says {target}\n", "request_packets": 100, "request_bytes": 1400, "response_packets": 100,
               "response_bytes": 999}
    contents = generator_state.make_contents(settings_for("clients", traffic))
    octets = np.zeros(8192, np.uint8)
    return Streams(contents, headers.overlays(octets, True), np.zeros(1, generator_ends.END).view(np.recarray))


@loop
def write(packets, at, contents, role, target, serial, position, length):
    return generator_payload.write_payload(packets, at, contents, role, target, serial, position, length)


@loop
def verify(packets, at, contents, ends, role, position, length):
    return generator_payload.verify_payload(packets, at, contents, ends[0], role, position, length)


def plain_stream(contents, role, target, serial, length=70_000):
    """A stream from its beginning (bytes), by its definition."""
    rows = contents.total.size
    filling = contents.octets[rows * generator_payload.ROW:][:generator_payload.FILLING]
    stream = np.resize(filling, length)
    text = [b"0 says a\n   ", b"1 says b\n   "] if role == 0 else [b"a answers\n  ", b"b answers\n  "]
    begin = text[target] + serial.to_bytes(4, "little")
    stream[:len(begin)] = np.frombuffer(begin, np.uint8)
    return stream


ROLE, TARGET = st.integers(0, 1), st.integers(0, 1)
SERIAL = st.integers(0, (1 << 32) - 1)
POSITION = st.integers(0, 40) | st.integers(0, 66_000)
LENGTH = st.integers(1, 40) | st.integers(1, 1986)


@generated
@given(ROLE, TARGET, SERIAL, POSITION, LENGTH, st.integers(0, 3))
def test_any_part_of_a_stream_is_written_with_its_sum(streams, role, target, serial, position, length, at):
    at = 128 + 2 * at
    streams.packets.octets[:] = 0xEE
    total = write(streams.packets, at, streams.contents, role, target, serial, position, length)
    said = plain_stream(streams.contents, role, target, serial)[position:position + length]
    assert bytes(streams.packets.octets[at:at + length]) == bytes(said)
    assert (streams.packets.octets[:at] == 0xEE).all() and (streams.packets.octets[at + length:] == 0xEE).all()
    words = np.frombuffer(bytes(said) + b"\0" * (length & 1), "<u2").astype(np.int64)
    assert total % 0xFFFF == int(words.sum()) % 0xFFFF


@generated
@given(ROLE, TARGET, SERIAL, POSITION, LENGTH, st.data())
def test_what_is_heard_is_right_only_as_it_was_said(streams, role, target, serial, position, length, data):
    """`role` speaks, the other end hears: nothing is wrong; one byte changed is."""
    contents, end = streams.contents, streams.ends[0]
    position = min(position, int(contents.total[role, target]) - length)
    end.target, end.serial = target, serial
    write(streams.packets, 128, contents, role, target, serial, position, length)
    assert verify(streams.packets, 128, contents, streams.ends, 1 - role, position, length) == 0
    assert end.serial == serial
    where = data.draw(st.integers(0, length - 1))
    streams.packets.octets[128 + where] ^= data.draw(st.integers(1, 255))
    found = verify(streams.packets, 128, contents, streams.ends, 1 - role, position, length)
    in_serial = 0 <= position + where - int(contents.serial_at[role, target]) < 4
    if not in_serial:
        assert found in (generator_ends.CORRUPTED, generator_ends.MISMATCHED)
    elif role == generator_ends.CLIENT:
        assert found == 0 and end.serial != serial, "a server takes what it is told"
    else:
        assert found == generator_ends.CROSSED


@generated
@given(ROLE, SERIAL, st.integers(16, 1400))
def test_what_is_meant_for_another_target_is_a_mismatch(streams, role, serial, length):
    end = streams.ends[0]
    end.target, end.serial = 0, serial
    write(streams.packets, 128, streams.contents, role, 1, serial, 0, length)
    assert verify(streams.packets, 128, streams.contents, streams.ends, 1 - role, 0, length) == generator_ends.MISMATCHED


def test_more_than_is_to_be_said_is_wrong(streams):
    end = streams.ends[0]
    end.target, end.serial = 0, 7
    stop = int(streams.contents.total[0, 0])
    write(streams.packets, 128, streams.contents, 0, 0, 7, stop - 10, 11)
    assert verify(streams.packets, 128, streams.contents, streams.ends, 1, stop - 10, 10) == 0
    assert verify(streams.packets, 128, streams.contents, streams.ends, 1, stop - 10, 11) == generator_ends.CORRUPTED
