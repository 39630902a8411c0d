"""`octets` against a reference over bytes: rules with masks and offsets, payloads cut anywhere."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_bed import generated
from select_bed import ask, ask_all_cuts, selection

from pipeline.configuration.content_rules import hexadecimal
from pipeline.kernels.select_octets import octets
from pipeline.kernels.services import NEED_MORE, NO_MATCH


def wanted(rules, payload):
    """What the kernel should answer for rules [(match, mask or None, offset)]."""
    for number, (match, mask, offset) in enumerate(rules):
        pattern = hexadecimal(match)
        bits = bytes.fromhex(mask[2:]) if mask else b"\xff" * len(pattern)
        seen = payload[offset : offset + len(pattern)]
        if any((found ^ ours) & counts for found, ours, counts in zip(seen, pattern, bits, strict=False)):
            continue
        return number % 3 if len(seen) == len(pattern) else NEED_MORE
    return NO_MATCH


@st.composite
def a_rule(draw):
    """A rule: match, mask, offset."""
    match = draw(st.sampled_from(["a", "ab", "0x00ff", "SSH-", "b"]) | st.binary(min_size=1, max_size=4).map(
        lambda octets: "0x" + octets.hex()))
    length = len(hexadecimal(match))
    mask = draw(st.none() | st.binary(min_size=length, max_size=length).map(lambda octets: "0x" + octets.hex()))
    return match, mask, draw(st.integers(0, 6))


@generated
@given(st.lists(a_rule(), min_size=1, max_size=4, unique_by=lambda rule: (hexadecimal(rule[0]), rule[2])),
       st.binary(max_size=12) | st.lists(st.sampled_from([b"a", b"b", b"ab", b"\0\xff", b"SSH-"]), max_size=5).map(b"".join))
def test_the_first_rule_that_fits_is_found(rules, payload):
    chosen = selection("octets", *({"match": match, "offset": offset, **({"mask": mask} if mask else {})}
                                   for match, mask, offset in rules))
    assert ask_all_cuts(octets, chosen, payload) == wanted(rules, payload)


@pytest.mark.parametrize(("payload", "answer"), [(b"SSH-2.0-x", 0), (b"SSH", NEED_MORE), (b"GET ", NO_MATCH), (b"", NEED_MORE),
                                                 (b"\x16\3\3\0", 1), (b"\x16\3\x0f", 1), (b"\x16\3\x10", NO_MATCH)])
def test_ssh_and_tls_on_one_port(payload, answer):
    rules = "SSH-", {"match": "0x160300", "mask": "0xfffff0"}
    assert ask(octets, selection("octets", *rules), payload) == answer
