"""How the rules of a service are compared with what the client has named: the part that select kernels by content share."""
from numpy import int64

from .jit import kernel
from .services import NO_MATCH

EXACT, PREFIX, SUFFIX = 0, 1, 2
"""`how` a rule is compared: the whole text, its beginning, or its end with something before it."""


@kernel
def lower(octet):
    """Returns an ASCII letter in lower case, anything else as it is."""
    return int64(octet) + 32 if 65 <= octet <= 90 else int64(octet)


@kernel
def fits(text, whole, rule, patterns, folded):
    """Says whether a rule fits the text (uint8 [n]), of which all but a PREFIX sees the first `whole` bytes.

    With `folded`, ASCII letters are the same in both cases.
    """
    length, start = int64(rule.length), 0
    if rule.how == PREFIX:
        if length > text.shape[0]:
            return False
    elif rule.how == SUFFIX:
        start = whole - length
        if start <= 0:
            return False
    elif length != whole:
        return False
    for at in range(length):
        wanted, found = int64(patterns[rule.pattern + at]), int64(text[start + at])
        if folded:
            wanted, found = lower(wanted), lower(found)
        if wanted != found:
            return False
    return True


@kernel
def find_rule(text, whole, folded, service, selection):
    """Returns where the first rule of a service that fits the text leads, or NO_MATCH (see `fits`)."""
    row = selection.services[service]
    for number in range(row.first_rule, row.first_rule + row.rules):
        rule = selection.rules[number]
        if fits(text, whole, rule, selection.patterns, folded):
            return int64(rule.member)
    return NO_MATCH
