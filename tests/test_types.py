"""What Numba infers for every kernel: no number ever becomes a float, none is reckoned with as uint64.

In Numba uint64 with a literal gives int64, uint64 with an int64 of another branch gives float64, and a subtraction of
two uint32 gives uint64: each is a wrong value in silence. So every integer of a kernel is an int64, and this file walks
the typed IR of all of them, from the loop down (pipeline/typed_ir.py).
"""

import importlib
import pkgutil

import numpy as np
import pytest
from numba import typeof, types
from numba.core import config
from numba.core.dispatcher import Dispatcher

from generator_bed import settings_for
from kernel_bed import KernelBed
from pipeline import assemble, compose, kernels, recorders, slots
from pipeline.io.nic_model import NicModel
from pipeline.kernels import jit, recorder, select_balancing, select_content
from pipeline.typed_ir import walk

pytestmark = pytest.mark.skipif(config.DISABLE_JIT, reason="plain Python has no typed IR")


OF_OTHER_LOOPS = ("capture_records", "dpdk_device", "twins", "nic_queue", "owner_tags")
NOT_IN_THE_LOOP = {
    "queue_of": "asks for the queue by toeplitz, for the model of a NIC",
    "longest_first": "fills the slot `schedule` where it is asked for",
    "waiting": "tells how many packets wait to be taken over",
    "before": "completes the arithmetic of sequence numbers; the loop asks for distances",
    "_portable_crc32c": "stands in for the CRC instruction where the processor lacks it",
    "next_hop": "called while a worker is set up",
    "write_message": "what the main program does with a mailbox",
    "none": "fills the slots `express` and `observe` where nothing is to be done there",
    "reset": "called `reset` by memory_device as well as by splice",
}


@pytest.fixture(scope="module")
def walked():
    """The faults of the loop that records and is profiled, with every select and payload kernel, of the generator's, and of one with our second
    kernels in its slots; and the functions looked at."""
    bed, clients = KernelBed(), settings_for("clients")
    ends = assemble.make_state(clients, bed.network.device, bed.network.arena, bed.macs[:1], 0, 1e9)[0]
    selects = list(slots.names("select"))
    others = {"lookup": "linear", "hash": "multiply", "timers": "single", "record": "failures", "observe": "sizes"}
    replaced = bed.configuration.model_copy(update={"kernels": others})
    second = assemble.make_state(replaced, bed.network.device, bed.network.arena, bed.macs, 0, 1e9)[0]
    with compose.compiling():
        run = compose.compose({}, selects, "memory", payloads=list(slots.names("payload")),
                              taps=recorders.taps(recorders.Recorded("received", "sent")), profiled=True)
        faults, seen = [], set()
        for loop, state in ((run, bed.state), (compose.compose({}, [], "memory", "generator"), ends),
                            (compose.compose(others, ["round_robin"], "memory"), second)):
            walk(loop, tuple(typeof(value) for value in (state, -1, -1)), faults, seen)
    return faults, seen


def test_no_kernel_of_the_loop_has_a_float_or_reckons_with_uint64(walked):
    faults, seen = walked
    assert len(seen) > 100, "far fewer functions than the loop has"
    assert not faults, "\n".join(faults)


def test_all_kernels_are_in_the_loop(walked):
    """Else the test above would say nothing of them."""
    reached = {function.__name__ for function, _ in walked[1]}
    all_of_them = set()
    for module in pkgutil.iter_modules(kernels.__path__):
        if module.name not in OF_OTHER_LOOPS:
            found = importlib.import_module(f"pipeline.kernels.{module.name}")
            all_of_them |= {
                name
                for name, value in vars(found).items()
                if isinstance(value, jit.Kernel) and value.py_func.__module__ == found.__name__
            }
    assert all_of_them - reached - NOT_IN_THE_LOOP.keys() == set()


def test_kernels_that_the_loop_does_not_need_are_clean_as_well():
    faults, bed = [], KernelBed()
    walk(importlib.import_module("pipeline.kernels.native")._portable_crc32c, (types.int64, types.int64), faults, set())
    walk(
        importlib.import_module("pipeline.kernels.kernel_neighbours").write_message,
        (typeof(bed.state.mailbox), *[types.int64] * 5),
        faults,
        set(),
    )
    walk(
        importlib.import_module("pipeline.kernels.neighbours").next_hop,
        (typeof(bed.state.network), types.int64),
        faults,
        set(),
    )
    spreading, words = NicModel().spreading, np.zeros(1, np.int64)
    arguments = bed.packets, words, words, 0, spreading, words, words
    parts = (np.zeros(1, kind).view(np.recarray) for kind in (recorder.BURST, recorder.PACKET))
    laid = (*map(typeof, parts), typeof(np.zeros(1, np.uint8)), types.int64, types.boolean, typeof(np.zeros(1, np.uint8)))
    walk(importlib.import_module("pipeline.kernels.capture_records").lay_block, laid, faults, set())
    walk(importlib.import_module("pipeline.kernels.nic_queue").choose_queues, tuple(map(typeof, arguments)), faults, set())
    assert not faults


@jit.kernel
def becomes_a_float(numbers):
    """A fault on purpose: uint64 on one branch, int64 on the other."""
    chosen = 0
    if numbers[0] > 1:
        chosen = numbers[1]
    return chosen


@jit.kernel
def reckons_with_uint64(numbers):
    """A fault on purpose: a difference of two uint32 is a uint64, which never is below 0."""
    return numbers[0] - numbers[1] < 0


@jit.kernel
def calls_a_fault(numbers):
    """A fault on purpose, a function away."""
    return reckons_with_uint64(numbers)


@pytest.mark.parametrize(
    ("kernel", "dtype", "words"),
    [
        (becomes_a_float, np.uint64, "float64"),
        (reckons_with_uint64, np.uint32, "uint64"),
        (calls_a_fault, np.uint32, "uint64"),
    ],
)
def test_a_fault_is_found(kernel, dtype, words):
    faults = []
    walk(kernel, (typeof(np.zeros(2, dtype)),), faults, set())
    assert faults and all(words in fault for fault in faults)


def dtypes_of(module):
    """Yields the structured dtypes that a module defines, those inside of them too."""
    waiting = [(name, value) for name, value in vars(module).items() if isinstance(value, np.dtype)]
    while waiting:
        name, kind = waiting.pop()
        if kind.names:
            yield name, kind
            waiting += [(f"{name}.{field}", kind[field].base) for field in kind.names]


def test_no_field_has_the_name_of_an_attribute_of_arrays():
    """A recarray's field of such a name cannot be read as an attribute: plain Python would see the array's own."""
    found = 0
    for module in pkgutil.iter_modules(kernels.__path__):
        for name, kind in dtypes_of(importlib.import_module(f"pipeline.kernels.{module.name}")):
            found += 1
            shadowed = [field for field in kind.names if hasattr(np.recarray, field) or hasattr(np.record, field)]
            assert not shadowed, f"{module.name}.{name} has fields {shadowed}"
    assert found > 10


def test_fields_of_one_cache_line_are_just_that():
    from pipeline.kernels import connection, flow_table, headers

    assert connection.HOT.itemsize == flow_table.BUCKET.itemsize == 64
    assert headers.MBUF.itemsize == 128 and headers.TCP.itemsize == headers.IPV4.itemsize == 20


def test_select_kernels_are_dispatchers():
    chosen = [
        select_balancing.round_robin,
        select_content.http_path,
        select_content.http_host,
        select_content.number_modulo,
    ]
    assert all(isinstance(kernel, Dispatcher) for kernel in chosen)
