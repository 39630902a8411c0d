"""Hostile bytes for every payload kernel of ours, by the million: python tests/payload_fuzz.py PIECES SEED [KERNEL ...]

Streams are first messages of many protocols, damaged as in select_fuzz.py, one behind the other and cut anywhere; some pieces are
pushed, some come late. The room that a kernel has ends where a page begins that nobody may touch, and with NUMBA_BOUNDSCHECK=1 every
index is checked as well. A kernel must answer what it may answer, and leave alone what lies before its piece.
"""
import inspect
import sys

import numba
import numpy as np
from ldap_messages import bind, message, sasl, search
from select_fuzz import EVERYTHING, make
from test_payload_rules import HONEST, OURS, REQUESTS

from pipeline.kernel_places import kernel_at, place_of
from pipeline.kernels import octet_search, payload_rules
from pipeline.kernels.shaping import EDIT_BYTES, END_CONNECTION, SHOW_AGAIN
from pipeline.own_memory import guarded_blocks
from pipeline.slots import names

MOST, BEFORE, PIECES = 2048, 64, 20_000
"""Octets of a piece at most, octets before it that are looked at, and pieces between two looks at what is counted."""
SEARCHED = [(b"dc=a,dc=org", b"q" * 11, 0), (b"a", b"", 0), (b"dc=", b"z" * 255, 100), (b"\0", b"\0\0", 0), (b"GET /", b"", 7), (b"aab", b"X-A: b\r\n", 0)]
"""What kernels look for, what they put there, and in how many octets."""
TEXTS = [*EVERYTHING, *REQUESTS, message(1, HONEST), message(2, search(OURS)), message(1, bind(b"", b"")), message(1, sasl(b"ANONYMOUS")), b"aabaabaac" * 40]


def rules_for(searched, replacement, first, strict):
    """Returns the PayloadRules of one rule."""
    octets = searched + bytes(octet_search.failures(searched)) + replacement
    made = payload_rules.allocate_payload_rules(1, 1, len(octets))
    made.octets[:len(octets)] = np.frombuffer(octets, np.uint8)
    made.rows[0] = (0, 0, 8, 0, len(searched), 2 * len(searched), len(replacement), first, 100_000, 5_000, strict)
    return made


def driver(kernel):
    """Returns a function that shows so many pieces: how many were passed, shown again, and ended their connection, and what was wrong."""
    if "given" in inspect.signature(getattr(kernel, "py_func", kernel)).parameters:
        @numba.njit(cache=False)
        def show(payload, length, position, user, rules, pushed, now):
            told = payload_rules.Given(rules.rows, rules.octets, rules.hits, 0, pushed, now)
            return kernel(payload, length, position, payload.shape[0] - length, user, told)
    else:
        @numba.njit(cache=False)
        def show(payload, length, position, user, rules, pushed, now):
            return kernel(payload, length, position, payload.shape[0] - length, user)

    @numba.njit(cache=False)
    def drive(block, texts, starts, user, rules, pieces, seed):
        np.random.seed(seed)
        octets, counted, position, filled, taken, now = np.zeros(8192, np.uint8), np.zeros(5, np.int64), 0, 0, 0, 0
        for _ in range(pieces):
            if taken >= filled or np.random.randint(0, 50) == 0:
                filled, taken = make(octets, texts, starts), 0
            if np.random.randint(0, 12) == 0:
                user[:], position = 0, 0
            room = EDIT_BYTES if np.random.randint(0, 3) else 700
            length = min(np.random.randint(1, MOST), min(filled - taken, room))
            payload = block[block.shape[0] - room:]
            block[block.shape[0] - room - BEFORE:block.shape[0] - room] = 0xA5
            payload[:length] = octets[taken:taken + length]
            now += np.random.randint(0, 30_000)
            answer = show(payload, length, position, user, rules, np.random.randint(0, 2), now)
            if not (answer == END_CONNECTION or answer == SHOW_AGAIN or 0 <= answer <= room):
                counted[3], counted[4] = 1, answer
                break
            if not (block[block.shape[0] - room - BEFORE:block.shape[0] - room] == 0xA5).all():
                counted[3] = 2
                break
            counted[0 if answer >= 0 else 1 if answer == SHOW_AGAIN else 2] += 1
            taken += length if answer != SHOW_AGAIN or np.random.randint(0, 4) == 0 else 0
            position += length if answer != SHOW_AGAIN else 0
            if answer == END_CONNECTION:
                user[:], position, taken = 0, 0, filled
        return counted
    return drive


def fuzz(name, pieces, seed):
    """Shows one kernel so many pieces; returns a line about what it answered. Raises AssertionError."""
    run, [block] = driver(kernel_at("payload", place_of("payload", name))), guarded_blocks([EDIT_BYTES + MOST])
    texts, starts = np.frombuffer(b"".join(TEXTS), np.uint8), np.cumsum([0, *map(len, TEXTS)])
    user, total = np.zeros(payload_rules.CELLS.get(name, 8), np.int64), np.zeros(3, np.int64)
    rules = [rules_for(*row, strict) for row in SEARCHED for strict in (0, 1)]
    for number in range(0, pieces, PIECES):
        user[:] = 0
        counted = run(block, texts, starts, user, rules[number // PIECES % len(rules)], min(PIECES, pieces - number), seed + number)
        wrong = ["", f"answers {counted[4]}, which it may not", "touches what lies before its piece"][counted[3]]
        assert not wrong, f"{name} {wrong} (seed {seed + number})"
        total += counted[:3]
    assert total.sum() == pieces and total[0] > 0
    return f"{name:<22}{pieces:>12,} pieces: passed {total[0]:,}, shown again {total[1]:,}, connections ended {total[2]:,}"


if __name__ == "__main__":
    print("bounds checked" if numba.config.BOUNDSCHECK else "bounds are not checked")
    for each in sys.argv[3:] or names("payload"):
        print(fuzz(each, int(sys.argv[1]), int(sys.argv[2])), flush=True)
