"""The held sender's arithmetic against plain references of RFC 5681, RFC 6582 and RFC 9293, section 3.8.6."""
from types import SimpleNamespace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kernel_bed import generated
from pipeline.kernels import held_sender
from pipeline.kernels.connection import DELIVERY
from pipeline.kernels.held_sender import FRESH, PROBE, RESEND
from pipeline.kernels.jit import kernel

octets = st.integers(0, 65535)


@st.composite
def deliveries(draw):
    """One DELIVERY record (a dict of ints) of a sender that can have come so far."""
    acked = draw(octets)
    sent = acked + draw(octets)
    return {"sent": sent, "acked": acked, "edge": acked + draw(octets), "widest": draw(st.integers(0, 1 << 30)),
            "congestion": draw(st.integers(1, 1 << 17)), "threshold": draw(st.integers(2, 1 << 16)),
            "recover": draw(st.sampled_from((0, acked, sent))), "duplicates": draw(st.integers(0, 5)), "doublings": 0,
            "timeout": 30}


def record(values):
    """A DELIVERY array of one record with these values."""
    made = np.zeros(1, DELIVERY).view(np.recarray)
    for name, value in values.items():
        made[0][name] = value
    return made


@kernel
def call_next_part(made, length, at, most, what):
    """The kernel on the only record, as the engine calls it."""
    return held_sender.next_part(made[0], length, at, most, what)


@kernel
def call_grow(made, gain, most):
    """The kernel on the only record, as the engine calls it."""
    return held_sender.grow(made[0], gain, most)


@kernel
def call_count_duplicate(made, most):
    """The kernel on the only record, as the engine calls it."""
    return held_sender.count_duplicate(made[0], most)


@kernel
def call_segment_size(made, mss):
    """The kernel on the only record, as the engine calls it."""
    return held_sender.segment_size(made[0], mss)


@generated
@given(deliveries(), octets, st.integers(1, 1460), st.sampled_from((FRESH, RESEND, PROBE)), st.integers(0, 1 << 17))
def test_no_part_ends_beyond_the_window_or_what_the_path_takes(values, length, most, what, ahead):
    at = values["acked"] if what != FRESH else min(values["acked"] + ahead, values["sent"])
    length = max(length, at)
    part = call_next_part(record(values), length, at, most, what)
    left = min(length - at, most)
    assert 0 <= part <= left
    if what == PROBE:
        assert part == min(left, 1)
        return
    limit = values["edge"] if what == RESEND else min(values["edge"], values["acked"] + values["congestion"])
    if what == RESEND:
        assert part == min(left, max(limit - at, 1))
    elif left <= limit - at:
        assert part == left
    else:
        assert part == (limit - at if at == values["acked"] else 0)


@generated
@given(deliveries(), st.integers(1, 65535), st.integers(64, 1460))
def test_the_congestion_window_grows_as_rfc_5681_and_6582_say(values, gain, most):
    made, now = record(values), SimpleNamespace(**values)
    what = call_grow(made, gain, most)
    if now.recover > now.acked:
        assert (what, made[0].congestion) == (RESEND, max(now.congestion - gain, 0) + most)
    elif now.recover > 0:
        assert (what, made[0].congestion, made[0].recover) == (FRESH, now.threshold, 0)
    else:
        added = min(gain, most) if now.congestion < now.threshold else max(most * most // now.congestion, 1)
        assert (what, made[0].congestion) == (FRESH, now.congestion + added)


@generated
@given(deliveries(), st.integers(64, 1460))
def test_the_third_duplicate_halves_the_window_and_resends(values, most):
    made, now = record(values), SimpleNamespace(**values)
    what = call_count_duplicate(made, most)
    assert made[0].duplicates == now.duplicates + 1
    if now.recover > 0:
        assert (what, made[0].congestion) == (FRESH, now.congestion + most)
    elif now.duplicates == 2:
        half = max((now.sent - now.acked) // 2, 2 * most)
        assert (what, made[0].threshold, made[0].congestion, made[0].recover) == (RESEND, half, half + 3 * most, now.sent)
    else:
        assert (what, made[0].congestion) == (FRESH, now.congestion)


@generated
@given(deliveries(), st.integers(0, 1460))
def test_a_segment_takes_half_of_a_wide_window_at_most(values, mss):
    widest = values["widest"]
    wanted = max(min(mss, widest // 2) if widest > 536 else mss, 64)
    assert call_segment_size(record(values), mss) == wanted
