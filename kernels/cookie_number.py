"""SYN cookies as numbers: what our initial sequence number and our TSval say of a SYN of which nothing is kept (SPLICE 7).

An initial number, from the highest bit down: 10 bits of a keyed hash of the 4-tuple; 18 bits of the hash plus a digest of the
client's initial number and of the bits that follow; 3 bits of the client's MSS; one bit that tells which of two keys it was. A segment with the tag of its
4-tuple whose number does not fit is one that has overtaken the first payload, or outlived it; one without is a stray segment.

The low bits of our TSval, where the client has timestamps: its window scale, ours, SACK, ECN (RFC 7323, section 5.4 lets them be
anything that grows; Linux keeps its options there as well). Without timestamps only the MSS survives.
"""
from numpy import int64

from .connection import PROMISED_ECN, PROMISED_SACK, PROMISED_SCALING, PROMISED_TIMESTAMPS
from .initial_number import half_siphash
from .jit import kernel
from .sequence import MASK, wrap
from .split import LEAST_PART

SIZES = (LEAST_PART, 536, 1220, 1360, 1400, 1440, 1460, 8960)
"""The MSS that a cookie can say: a client's is rounded down to one of these."""
TAG_SHIFT, PLACE_SHIFT, SIZE_SHIFT = 22, 4, 1
PLACE_MASK, SIZE_MASK = 0x3FFFF, 7
GOLDEN = 0x61C88647
"""2**32 over the square of the golden ratio (Knuth, TAOCP 3, 6.4), with which no product is beyond 63 bits: numbers that are near each other get digests that are far apart."""
OF_SIZE = 0x15555
"""What the bits for the MSS add to those beside them: an acknowledgement of some octets more is no cookie of another MSS."""
EPOCH_BITS = 26
"""Microseconds of an epoch are 2 to this: a key is used for 67 seconds, and cookies are taken for as long once more."""
STAMP_BITS = 10
NO_SCALE = 15
GENUINE, OUT_OF_ORDER, FORGED = range(3)


@kernel
def epoch_key(secret, epoch, word):
    """Returns one of the words (0 or 1) of an epoch's key."""
    return half_siphash(secret[0], secret[1], epoch & MASK, 0x636F6F6B, word)


@kernel
def size_number(mss):
    """Returns the place in SIZES of the largest that is no more than `mss`."""
    number = 0
    for place in range(1, len(SIZES)):
        number += int64(mss >= SIZES[place])
    return number


@kernel
def _placed(hashed, client_isn, size):
    """Returns the 18 bits that bind a cookie to the client's initial number and to the bits for the MSS."""
    return (hashed + ((client_isn * GOLDEN & MASK) >> (32 - 18)) + size * OF_SIZE) & PLACE_MASK


@kernel
def cookie_number(hashed, client_isn, mss, epoch):
    """Returns our initial number for a SYN; `hashed` is the hash of its 4-tuple under the key of `epoch`."""
    size = (size_number(mss) + (hashed >> 18)) & SIZE_MASK
    return (hashed >> TAG_SHIFT << TAG_SHIFT) | (_placed(hashed, client_isn, size) << PLACE_SHIFT) | (size << SIZE_SHIFT) | (epoch & 1)


@kernel
def judge(hashed, number, client_isn):
    """Says whether `number` is a cookie for a client's initial number: GENUINE, OUT_OF_ORDER or FORGED."""
    if number >> TAG_SHIFT != hashed >> TAG_SHIFT:
        return FORGED
    place = _placed(hashed, client_isn, (number >> SIZE_SHIFT) & SIZE_MASK)
    return GENUINE if (number >> PLACE_SHIFT) & PLACE_MASK == place else OUT_OF_ORDER


@kernel
def size_of(sizes, hashed, number):
    """Returns the MSS that a cookie says; `sizes` is SIZES as int64[8]."""
    return sizes[((number >> SIZE_SHIFT) - (hashed >> 18)) & SIZE_MASK]


@kernel
def stamp_with(stamp, agreed, scale, own_scale):
    """Returns the TSval, at most `stamp`, that says what is `agreed` (PROMISED_*) and both window scales."""
    theirs = scale if agreed & PROMISED_SCALING else NO_SCALE
    low = theirs | own_scale << 4 | int64(agreed & PROMISED_SACK != 0) << 8 | int64(agreed & PROMISED_ECN != 0) << 9
    back = 1 << STAMP_BITS if low > stamp & ((1 << STAMP_BITS) - 1) else 0
    return wrap((stamp >> STAMP_BITS << STAMP_BITS) - back + low)


@kernel
def agreed_by(stamp):
    """Returns what a TSval that is echoed says was agreed (PROMISED_*)."""
    scaling = PROMISED_SCALING if stamp & 15 != NO_SCALE else 0
    return (PROMISED_TIMESTAMPS | scaling | (PROMISED_SACK if stamp & 1 << 8 else 0) | (PROMISED_ECN if stamp & 1 << 9 else 0))
