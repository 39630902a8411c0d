"""Rates against a token bucket, the table of sources against a dict, and what a configuration's limits become."""
import collections

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configuration_text import two_networks
from kernel_bed import generated
from pipeline import configuration
from pipeline.errors import ConfigurationError
from pipeline.kernels import counters, limits
from pipeline.kernels.services import NO_LIMIT
from pipeline.limits import SOURCES, make_limits, rate_of, share_of, target_limits

RULES = {"connections": 7, "connections_per_second": 50, "burst": 4, "connections_per_source": 2,
         "connections_per_second_per_source": 20, "burst_per_source": 3}


def parsed(target=None, **rules):
    text = two_networks({"name": "limits"}, targets={"a": "10.2.0.11"}, services=({"name": "s", "listen": "10.1.0.1:80", "targets": ["a"]},))
    lines = "".join(f"{key} = {value}\n" for key, value in rules.items())
    text = text.replace('[[targets]]\n', "[[targets]]\n" + "".join(f"{key} = {value}\n" for key, value in (target or {}).items()))
    return configuration.parse(text + f"\n[services.limits]\n{lines}", "limits.toml")


class Bucket:
    """The reference: tokens that come at a rate, so many at most."""

    def __init__(self, rate, most, now):
        self.rate, self.most, self.tokens, self.now = rate, most, most, now

    def has(self, now):
        self.tokens, self.now = min(self.most, self.tokens + (now - self.now) * self.rate / 1e6), now
        return self.tokens >= 1 - 1e-6


@generated
@given(st.lists(st.tuples(st.sampled_from([0, 1, 10, 1000, 20_000, 49_999, 50_000, 400_000]), st.integers(0, 3), st.booleans()), max_size=60))
def test_limits_are_those_of_token_buckets_and_counters(acts):
    made, counted = make_limits(parsed(**RULES), 1), counters.allocate_counters(1, 1, 1, 1)
    now, open_by = 1_000_000, collections.Counter()
    service, sources, hot = Bucket(50, 4, now), collections.defaultdict(lambda: Bucket(20, 3, now)), np.zeros(1, [("remote_address", "u4", 2)])
    for later, host, ends in acts:
        now += later
        address = 0x0A010000 + host
        if ends and open_by[host]:
            hot["remote_address"][0, 0] = address
            limits.count_out(made, hot.view(np.recarray)[0], 0)
            open_by[host] -= 1
            counted.services[0, counters.OF_SERVICE_OPEN] -= 1
            continue
        mine, all_of_them = sources[host].has(now), service.has(now)
        wanted = -1
        if sum(open_by.values()) >= 7:
            wanted = counters.DROP_SERVICE_FULL
        elif not all_of_them:
            wanted = counters.DROP_SERVICE_RATE
        elif open_by[host] >= 2:
            wanted = counters.DROP_SOURCE_FULL
        elif not mine:
            wanted = counters.DROP_SOURCE_RATE
        assert limits.count_in(made, counted, 0, address, now) == wanted
        if wanted < 0:
            service.tokens, sources[host].tokens = service.tokens - 1, sources[host].tokens - 1
            open_by[host] += 1
            counted.services[0, counters.OF_SERVICE_OPEN] += 1


def test_sources_that_have_nothing_open_make_room():
    made, counted = make_limits(parsed(connections_per_source=1), 1), counters.allocate_counters(1, 1, 1, 1)
    made = made._replace(sources=made.sources[:limits.WAYS].copy())
    for host in range(limits.WAYS):
        assert limits.count_in(made, counted, 0, host + 1, 0) == -1
    assert limits.count_in(made, counted, 0, 100, 0) == -1 and counted.notices[counters.NOTICE_SOURCES_EXHAUSTED] == 1
    made.sources[3, limits.OPEN] = 0
    assert limits.count_in(made, counted, 0, 100, 0) == -1 and limits.count_in(made, counted, 0, 100, 0) == counters.DROP_SOURCE_FULL


def test_several_workers_share_limits_rounded_up():
    assert share_of(7, 2) == 4 and share_of(None, 3) == NO_LIMIT
    assert rate_of(10, 5, 1) == (100_000_000, 400_000_000) and rate_of(10, 5, 2) == (200_000_000, 400_000_000)
    assert rate_of(None, 1, 2) == (0, 0)
    settings = parsed({"max_connections": 9, "max_connections_per_second": 100, "burst": 3}, **RULES)
    assert make_limits(settings, 2).rules[0, limits.MOST] == 4 and len(make_limits(settings, 2).sources) == SOURCES
    assert target_limits(settings, 2).tolist() == [[5, 20_000_000, 20_000_000, 0]]


def test_without_limits_there_is_next_to_nothing():
    made = make_limits(parsed(), 1)
    assert made.settings.tolist() == [0, 0] and made.sources.shape == (limits.WAYS, 3)
    assert target_limits(parsed(), 1).tolist() == [[NO_LIMIT, 0, 0, 0]]


@pytest.mark.parametrize(("key", "value"), [("connections", 0), ("burst", 0), ("source_prefix", 33), ("connections_per_second", '"fast"'),
                                            ("conections", 3)])
def test_what_is_wrong_is_told_in_a_sentence(key, value):
    with pytest.raises(ConfigurationError, match=rf"services\[0\]\.limits\.{key}"):
        parsed(**{key: value})
