"""What kernels compile to is what they say: variables kept as values, whole tuples, code linked from the cache."""
from typing import NamedTuple

import numba
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.kernels import inlining
from pipeline.kernels.jit import kernel, loop


class Same(NamedTuple):
    """A tuple of one type."""

    first: np.ndarray
    second: np.ndarray


class Nested(NamedTuple):
    """A tuple of tuples, arrays and a number."""

    one: Same
    wide: np.ndarray
    scale: int
    two: Same


@kernel
def set_in_a_loop(numbers, limit):
    last, seen = -1, 0
    for number in numbers:
        if number > limit:
            twice = 2 * number
            if twice & 4:
                continue
            last = twice
        seen += 1
        if seen > 5:
            break
    return last * 1000 + seen


@kernel
def set_once_before_loops(numbers, limit):
    first = numbers[0] if limit & 1 else limit
    bound, total = first + limit, 0
    while total < bound:
        step = 1 + (total & 3)
        for number in range(step):
            inner = number + first
            total += inner & 7
        total += step
    return total + bound


@kernel
def set_on_one_way(numbers, limit):
    if limit < 3:
        chosen = numbers[limit]
    elif limit < 6:
        chosen = numbers[0] + 1
    else:
        return limit
    for _ in range(limit):
        chosen += limit
    return chosen


@kernel
def swapped(nested):
    return Nested(nested.two, nested.wide, nested.scale + 1, nested.one)


@kernel
def of_tuples(nested, numbers, limit):
    for turn in range(limit):
        other = swapped(nested)
        nested = other if numbers[turn & 3] & 1 else swapped(other)
        nested.wide[turn & 1] += nested.one.first[0] * nested.scale
    return nested.wide[0] * 31 + nested.wide[1] * 7 + nested.two.second[1] + nested.scale


@loop
def all_of(nested, numbers, limit, out):
    out[0] = set_in_a_loop(numbers, limit)
    out[1] = set_once_before_loops(numbers, limit)
    out[2] = set_on_one_way(numbers, limit)
    out[3] = of_tuples(nested, numbers, limit)


def a_tuple(numbers):
    """Returns a Nested of these numbers."""
    one, two = Same(np.array(numbers[:2]), np.array(numbers[2:4])), Same(np.array(numbers[1:3]), np.array(numbers[:2]))
    return Nested(one, np.zeros(2, np.int64), 3, two)


@settings(deadline=None)
@given(st.lists(st.integers(0, 100), min_size=4, max_size=12), st.integers(0, 9))
def test_values_and_tuples_are_those_of_plain_python(numbers, limit):
    array, out = np.array(numbers), np.zeros(4, np.int64)
    all_of(a_tuple(numbers), array, limit, out)
    tuples = type(of_tuples.py_func)(of_tuples.py_func.__code__, {**globals(), "swapped": swapped.py_func})
    assert list(out) == [set_in_a_loop.py_func(array, limit), set_once_before_loops.py_func(array, limit),
                         set_on_one_way.py_func(array, limit), tuples(a_tuple(numbers), array, limit)]


def test_a_kernel_has_bitcode_of_all_that_it_calls_and_no_machine_code():
    of_tuples.compile(tuple(map(numba.typeof, (a_tuple([1, 2, 3, 4]), np.arange(4), 2))))
    (compiled,) = of_tuples.overloads.values()
    assert isinstance(compiled.library, inlining.InlinedLibrary) and len(compiled.library.parts) >= 2
    assert compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name) == 0
