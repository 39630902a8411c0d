"""A select kernel for any protocol: bytes at a place of the payload, under a mask. The slot `select`."""
from numpy import int64

from .jit import apart, kernel
from .services import NEED_MORE, NO_MATCH


@kernel
def compare_masked(payload, rule, patterns):
    """Says whether a rule's bytes are in the payload: 1, or 0 where one differs, or NEED_MORE where those that are there fit."""
    start, length = int64(rule.offset), int64(rule.length)
    for at in range(min(length, payload.shape[0] - start)):
        differs = int64(payload[start + at]) ^ int64(patterns[rule.pattern + at])
        if differs & int64(patterns[rule.mask + at]) != 0:
            return 0
    return 1 if start + length <= payload.shape[0] else NEED_MORE


@apart
def octets(payload, service, selection):
    """The first rule whose bytes are at their place in the payload; while an earlier one may still fit, more is needed."""
    row = selection.services[service]
    for number in range(row.first_rule, row.first_rule + row.rules):
        rule = selection.rules[number]
        found = compare_masked(payload, rule, selection.patterns)
        if found == 1:
            return int64(rule.member)
        if found == NEED_MORE:
            return NEED_MORE
    return NO_MATCH
