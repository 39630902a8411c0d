"""Arithmetic of sequence numbers against integers that do not wrap (RFC 9293, section 3.4)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_bed import generated

from pipeline.kernels.sequence import before, distance, wrap

NUMBERS = st.one_of(st.integers(0, 2**32 - 1), st.sampled_from([0, 1, 2**31 - 1, 2**31, 2**31 + 1, 2**32 - 1]))
STEPS = st.one_of(st.integers(-(2**31), 2**31 - 1), st.sampled_from([-(2**31), -(2**31) + 1, -1, 0, 1, 2**31 - 1]))


@generated
@given(st.integers(-(2**40), 2**40))
def test_wrap_is_modulo_two_to_the_32(number):
    assert wrap(number) == number % 2**32


@generated
@given(NUMBERS, STEPS)
def test_a_number_and_a_step_give_the_distance_back(earlier, step):
    later = (earlier + step) % 2**32
    assert distance(later, earlier) == step
    assert before(earlier, later) == (step > 0 or step == -(2**31))
    assert before(later, earlier) == (step < 0)


@generated
@given(NUMBERS, NUMBERS)
def test_of_two_numbers_one_is_before_the_other_unless_half_the_space_apart(first, second):
    if (first - second) % 2**32 != 2**31:
        assert bool(before(first, second)) + bool(before(second, first)) == (first != second)


@pytest.mark.parametrize(
    ("later", "earlier", "expected"),
    [
        (0, 0xFFFFFFFF, 1),
        (0xFFFFFFFF, 0, -1),
        (5, 0xFFFFFFF0, 21),
        (0x80000000, 0, -(2**31)),
        (0x7FFFFFFF, 0, 2**31 - 1),
    ],
)
def test_distance_across_the_wrap(later, earlier, expected):
    assert distance(later, earlier) == expected
