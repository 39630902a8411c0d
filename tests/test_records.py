"""Session records: what a connection's record says of its steps, against a list of them."""
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from kernel_bed import generated

from pipeline.kernels import records
from pipeline.kernels.records import COARSE, STEPS, TCP_STATES

STEP = st.tuples(st.integers(0, 1), st.integers(0, len(TCP_STATES) - 1),
                 st.one_of(st.integers(0, 10_000_000), st.sampled_from([0, 1, COARSE - 1, COARSE, COARSE + 999, COARSE * 500])))


@generated
@given(st.sampled_from([0, 5, 2**40]), st.lists(STEP, max_size=STEPS + 3))
def test_steps_are_kept_by_side_and_the_last_one_always(opened, taken):
    kept = records.allocate_records(True, 3, 2)
    kept.work.states[:] = 0xFF  # what an earlier connection has left
    records.begin(kept, 1, 0xFFFFFFFF, opened)
    expected, now = [], opened
    for side, state, passed in taken:
        now += passed
        records.step(kept, 1, side, state, now)
        expected = [*expected[:STEPS - 1], (side, TCP_STATES[state], now - opened)]
    for side in range(2):
        steps = records.steps_of(kept.work[1], side)[1 - side:]
        assert [name for name, _ in steps] == [name for of, name, _ in expected if of == side]
        for (_, shown), after in zip(steps, (after for of, _, after in expected if of == side), strict=True):
            assert shown == after if after < COARSE else 0 <= min(after, COARSE * 1000 - 1000) - shown < 1000
    assert not np.any(kept.work.sides[[0, 2]])


def test_nothing_is_kept_where_records_are_not_asked_for():
    kept = records.allocate_records(False, 1000, 1000)
    records.begin(kept, 999, 7, 5)
    records.step(kept, 999, 1, 4, 6)
    assert kept.work.size == kept.ring.size == 1 and not kept.work.sides.any()
