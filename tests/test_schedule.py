"""In which order a worker turns to its queues, against plain twins; and that none starves, whatever the others bring."""
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.kernels.schedule import STARVED, allocate_inputs, longest_first, ring_of, round_robin

lengths = st.lists(st.integers(0, 256), min_size=6, max_size=6)


def inputs_of(ports=4):
    """The inputs of worker 1 of 2: a ring for each port, then the ports."""
    return allocate_inputs(1, 2, ports)


def test_inputs_are_the_rings_from_every_other_worker_and_the_ports():
    inputs = allocate_inputs(1, 3, 2)
    assert inputs.port.tolist() == [0, 1, 0, 1, 0, 1]
    assert inputs.ring.tolist() == [ring_of(sender, 1, port, 3, 2) for sender in (0, 2) for port in (0, 1)] + [-1, -1]
    assert len({ring_of(sender, owner, port, 3, 2) for sender in range(3) for owner in range(3) for port in range(2)}) == 18


def test_round_robin_serves_every_input_in_every_pass():
    inputs = inputs_of()
    for _ in range(3):
        assert round_robin(inputs) == 8
        assert inputs.order.tolist() == list(range(8))


def plain_order(inputs):
    """What `longest_first` is to answer: hand-over in order, then the ports that are due, longest first."""
    passed = inputs.passed + 1
    ports = [number for number in range(len(passed)) if inputs.ring[number] < 0
             and (passed[number] >= STARVED or 2 * inputs.length[number] >= max(inputs.length))]
    return [number for number in range(len(passed)) if inputs.ring[number] >= 0] + sorted(ports, key=lambda each: -inputs.length[each])


@settings(deadline=None)
@given(st.lists(lengths, min_size=1, max_size=40))
def test_longest_first_is_what_it_says_and_leaves_none_out_for_long(passes):
    inputs, waited = inputs_of(3), np.zeros(6, int)
    for brought in passes:
        inputs.length[:] = brought
        wanted = plain_order(inputs)
        count = longest_first(inputs)
        assert inputs.order[:count].tolist() == wanted
        waited += 1
        waited[wanted] = 0
        assert (waited < STARVED).all()


@settings(deadline=None)
@given(st.lists(lengths, min_size=1, max_size=20))
def test_longest_first_is_its_plain_function(passes):
    compiled, plain = inputs_of(3), inputs_of(3)
    for brought in passes:
        compiled.length[:] = plain.length[:] = brought
        assert longest_first(compiled) == longest_first.py_func(plain)
        assert all((one == other).all() for one, other in zip(compiled, plain, strict=True))
