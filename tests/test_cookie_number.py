"""SYN cookies as numbers: what goes in comes out, under its key alone, and hashes made in one loop are HalfSipHash's."""
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kernel_bed import generated
from pipeline.kernels.cookie_number import FORGED, GENUINE, SIZES, STAMP_BITS, agreed_by, cookie_number, judge, size_of, stamp_with
from pipeline.kernels.connection import PROMISED_ECN, PROMISED_SACK, PROMISED_SCALING, PROMISED_TIMESTAMPS
from pipeline.kernels.initial_number import half_siphash
from pipeline.kernels.syn_cookies import allocate_cookies, hash_syns, turn_keys

number = st.integers(0, 2**32 - 1)
TABLE = np.array(SIZES, np.int64)


@generated
@given(number, number, st.integers(0, 65535), st.integers(0, 1000))
def test_a_cookie_says_its_mss_and_which_key_it_was(hashed, client_isn, mss, epoch):
    cookie = cookie_number(hashed, client_isn, mss, epoch)
    assert 0 <= cookie < 2**32 and cookie & 1 == epoch & 1 and judge(hashed, cookie, client_isn) == GENUINE
    assert size_of(TABLE, hashed, cookie) == max([size for size in SIZES if size <= mss], default=SIZES[0])


@generated
@given(number, number, st.integers(1, 2000), st.sampled_from([1, 536, 1360, 1400, 1448, 1460]))
def test_a_segment_beyond_the_first_is_not_taken_for_it(hashed, client_isn, segments, size):
    cookie = cookie_number(hashed, client_isn, 1460, 0)
    assert judge(hashed, cookie, (client_isn + segments * size) % 2**32) != GENUINE


@generated
@given(number, number, st.sampled_from(SIZES), st.integers(0, 1), st.integers(1, 40))
def test_an_acknowledgement_of_some_octets_more_is_no_cookie(hashed, client_isn, mss, epoch, more):
    cookie = (cookie_number(hashed, client_isn, mss, epoch) + more) % 2**32
    assert cookie & 1 != epoch or judge(hashed, cookie, client_isn) != GENUINE


@generated
@given(number, number, number)
def test_under_another_hash_it_is_forged(hashed, other, client_isn):
    cookie = cookie_number(hashed, client_isn, 1460, 0)
    if hashed >> 22 != other >> 22:
        assert judge(other, cookie, client_isn) == FORGED


@generated
@given(number, st.booleans(), st.booleans(), st.sampled_from([None, *range(15)]), st.integers(0, 14))
def test_a_tsval_says_what_was_agreed_and_is_not_ahead_of_the_clock(stamp, sack, ecn, scale, own):
    agreed = (PROMISED_TIMESTAMPS | (PROMISED_SACK if sack else 0) | (PROMISED_ECN if ecn else 0) | (PROMISED_SCALING if scale is not None else 0))
    made = stamp_with(stamp, agreed, -1 if scale is None else scale, own)
    assert agreed_by(made) == agreed and made >> 4 & 15 == own and (scale is None or made & 15 == scale)
    assert (stamp - made) % 2**32 < 2 << STAMP_BITS


@generated
@given(st.lists(st.tuples(number, number, number), min_size=1, max_size=40), number, number, st.integers(0, 2**60))
def test_hashes_of_a_burst_are_those_of_each(tuples, key, other, now):
    cookies, secret = allocate_cookies(0), np.array([key, other], np.int64)
    epoch = turn_keys(cookies, secret, now)
    before = cookies.keys.copy()
    for place, row in enumerate(tuples):
        cookies.remote[place], cookies.local[place], cookies.ports[place] = row
    hash_syns(cookies, secret, len(tuples))
    for place, row in enumerate(tuples):
        assert cookies.hashed[place] == half_siphash(int(before[0]), int(before[1]), *row)
        assert cookies.clock[place] == half_siphash(other, key, *row)
    turn_keys(cookies, secret, (epoch + 1) << 26)
    assert cookies.keys[2:].tolist() == before[:2].tolist() and cookies.keys[:2].tolist() != before[:2].tolist()
