"""Per-core isolation: what workers share is refused, and with `isolation = "checked"` who touches another's is caught.

What needs a loop that is compiled with bounds checked runs in a child process, with the composition that all such tests share.
"""
import os
import pathlib
import subprocess
import sys

import numba
import numpy as np
import pytest
from hypothesis import given, settings as examples, strategies
from numba.core import config

from pipeline import assemble, configuration, isolation, owned_device
from pipeline.errors import ConfigurationError, IsolationError
from pipeline.io.memory_pool import ELEMENT, MemoryPool
from pipeline.io.nic_model import NicModel
from pipeline.kernels import memory, owner_tags
from pipeline.kernels.counters import NOTICE_HANDED_OVER, NOTICE_TAKEN_OVER, TOTAL_OPENED
from pipeline.kernels.owner_tags import NOBODY, OwnershipError
from pipeline.kernels.toeplitz import KEY
from pipeline.own_memory import fields, guarded_blocks
from pipeline.steering import Share
from tcp.proxy import NUMBER, SOURCE, STEERINGS, TARGETS, TURNS, close, configuration_text, handshake
from tcp.segments import build

HERE = pathlib.Path(__file__).resolve().parent
CHECKED = {"workers": 2, "steered": "software"}
COMPILED_WITHIN = 600
both = pytest.mark.parametrize("proxy", [CHECKED], indirect=True, ids=[""])
IS_CHILD = bool(config.BOUNDSCHECK) and not config.DISABLE_JIT


def in_child(test):
    """A test for the process that the last test of the others starts, with bounds checked; elsewhere it is none."""
    return test if IS_CHILD else None


def in_parent(test):
    """A test for all processes but that one."""
    return None if IS_CHILD else test


def two_states():
    """The states of two workers, as they are made."""
    settings = configuration.parse(configuration_text({}, {}, workers=2), "the tests' configuration")
    nic = NicModel(2, 2, 1024, 64)
    return [assemble.make_state(settings, device, nic.arena, [1, 2], 0, 1e9, Share(worker, 2, STEERINGS["software"], KEY, 1))[0]
            for worker, device in enumerate(nic.pool.devices)]


@in_parent
@pytest.mark.parametrize("checked", [False, True])
def test_workers_get_memory_of_their_own_with_the_same_in_it(checked):
    before = two_states()
    after = isolation.isolated(before, checked)
    if checked:
        after = [state._replace(device=state.device.ports) for state in after]
    for state, moved in zip(before, after, strict=True):
        for (path, old), (_, new) in zip(fields(state), fields(moved), strict=True):
            assert numba.typeof(old) == numba.typeof(new) and np.array_equal(old, new), path
        assert np.shares_memory(moved.records.wraps, moved.connections.wraps)
    isolation.refuse_shared(after)
    isolation.refuse_shared(after, memory.LINE)


@in_parent
def test_an_array_that_two_workers_share_is_refused_by_name():
    first, second = two_states()
    aliased = second._replace(wheel=second.wheel._replace(now=first.connections.timeouts[0, 3:5]))
    with pytest.raises(IsolationError, match="connections.timeouts of worker 0 and wheel.now of worker 1 are the same memory"):
        isolation.isolated([first, aliased])


@in_parent
def test_an_array_within_the_packets_is_refused_by_name():
    first, second = two_states()
    aliased = second._replace(fresh=first.packets.octets[4096:4096 + 512].view(np.int64))
    with pytest.raises(IsolationError, match="(packets|device).[a-z0-9]+, which all share, and fresh of worker 1 are the same memory"):
        isolation.isolated([first, aliased])


@in_parent
def test_arrays_on_one_cache_line_are_refused_by_name():
    first, second = isolation.isolated(two_states())
    line = memory.octets(2 * memory.LINE).view(np.int64)
    states = first._replace(idle=line[:9]), second._replace(burst=line[9:10])
    isolation.refuse_shared(states)
    with pytest.raises(IsolationError, match="idle of worker 0 and burst of worker 1 lie on one cache line of 64 bytes"):
        isolation.refuse_shared(states, memory.LINE)


@in_parent
@pytest.mark.parametrize("place, ends", [("block.size - 1", 0), ("block.size", -11), ("-1", -11), ("-4096", -11), ("block.size + 4000", -11)])
def test_a_write_beside_a_guarded_array_is_a_fault(place, ends):
    """The block is a page, between two others; whoever writes beside it by address does not reach them."""
    code = ("import ctypes, resource; from pipeline.own_memory import guarded_blocks\n"
            "resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); _, block, _ = blocks = guarded_blocks([4096] * 3)\n"
            f"ctypes.memset(block.ctypes.data + {place}, 1, 1)")
    done = subprocess.run([sys.executable, "-c", code], cwd=HERE.parent, env={**os.environ, "PYTHONPATH": str(HERE.parent)},
                          capture_output=True, text=True, timeout=60)
    assert done.returncode == ends, done.stderr


@in_parent
@given(strategies.lists(strategies.integers(1, 20_000), min_size=1, max_size=5))
@examples(max_examples=20, deadline=None)
def test_guarded_blocks_end_where_the_next_page_begins(sizes):
    blocks = guarded_blocks(sizes)
    assert [block.size for block in blocks] == sizes
    for block in blocks:
        block[:] = 255
        assert block.ctypes.data % 8 == 0 and 0 <= -(block.ctypes.data + block.size) % 4096 < 8


@in_parent
def test_without_bounds_being_checked_it_is_refused():
    with pytest.raises(ConfigurationError, match="NUMBA_BOUNDSCHECK"):
        isolation.refuse_unchecked()


class Owners:
    """Two workers' devices with owner tags, and who holds what in plain Python: `held` by tag."""

    def __init__(self):
        self.pool = MemoryPool(12, 1, 4, workers=2)
        tags = np.zeros((self.pool.arena.octets.size >> owner_tags.PLACE_BITS) + 1, np.uint8)
        self.devices = [owner_tags.Owned(device, self.pool.arena.native.mbuf, tags, np.array([worker + 1]), np.zeros(1, np.int64),
                                         np.zeros((owner_tags.KEPT, 3), np.int64)) for worker, device in enumerate(self.pool.devices)]
        self.held, self.handed, self.mbufs = [set(), set()], [[], []], np.zeros(8, np.int64)

    def get(self, worker, count):
        """A worker allocates."""
        got = owned_device.allocate(self.devices[worker], self.mbufs, count)
        self.held[worker] |= set(self.mbufs[:got].tolist())

    def take(self, worker, limit):
        """A worker takes over what the other one has handed on, in order."""
        got = owned_device.take_over(self.devices[worker], 2 - worker, self.mbufs, limit)
        assert self.mbufs[:got].tolist() == self.handed[worker][:limit]
        self.held[worker] |= set(self.handed[worker][:limit])
        del self.handed[worker][:limit]

    def give(self, worker, mbuf, how):
        """A worker gives one mbuf away, which may not be its own; returns whether it was caught."""
        self.mbufs[0] = mbuf
        device = self.devices[worker]
        try:
            if how == "free":
                owned_device.free(device, self.mbufs, 1)
            elif how == "hand_on":
                if owned_device.hand_on(device, 1 + worker, self.mbufs, 0, 1) == 0:
                    return False
                self.handed[1 - worker].append(mbuf)
            elif owned_device.transmit(device, 0, self.mbufs, 0, 1) == 0:
                return False
        except OwnershipError:
            return True
        self.held[worker].discard(mbuf)
        return False


steps = strategies.tuples(strategies.sampled_from(["get", "take", "free", "hand_on", "transmit"]), strategies.integers(0, 1),
                          strategies.integers(0, 11))


@in_parent
@given(strategies.lists(steps, max_size=40))
@examples(max_examples=60, deadline=None)
def test_tags_catch_whoever_gives_away_what_it_does_not_hold_and_nobody_else(walk):
    owners = Owners()
    for what, worker, number in walk:
        if what in ("get", "take"):
            getattr(owners, what)(worker, number % 4)
            continue
        mbuf, device = number * ELEMENT, owners.devices[worker]
        own, counted = mbuf in owners.held[worker], int(device.violations[0])
        assert owners.give(worker, mbuf, what) == (not own)
        if not own:
            found = next((other + 1 for other in (0, 1) if mbuf in owners.held[other]), NOBODY)
            assert device.noted[min(counted, owner_tags.KEPT - 1)].tolist() == [
                {"free": owner_tags.FREED, "hand_on": owner_tags.HANDED_OVER, "transmit": owner_tags.SENT}[what], mbuf, found]
        for tag, held in enumerate(owners.held, 1):
            assert set(np.flatnonzero(device.tags == tag) << owner_tags.PLACE_BITS) == {mbuf >> 7 << 7 for mbuf in held}


@in_parent
def test_whoever_gets_what_another_holds_is_caught_and_a_frame_of_several_segments_is_one():
    owners = Owners()
    records = owners.pool.arena.native.mbuf
    chain = owners.pool.allocate(2)
    records["segments"][chain[0]], records["next"][chain[0]] = 2, owners.pool.arena.base + chain[1]
    for worker in (0, 1):
        owners.pool.devices[worker].received.slots[0, :2] = chain[0]
        owners.pool.devices[worker].received.written[0, 0] = 1
    assert owned_device.receive(owners.devices[0], 0, owners.mbufs, 4) == 1
    assert owners.devices[0].tags[chain >> owner_tags.PLACE_BITS].tolist() == [1, 1]
    with pytest.raises(OwnershipError) as caught:
        owned_device.receive(owners.devices[1], 0, owners.mbufs, 4)

    class State:
        device = owners.devices[1]

    assert isolation.cause(caught.value, State) == f"as worker 1 it received the mbuf at {chain[0]:#x}, which worker 0 holds"
    owned_device.free(owners.devices[0], np.array([chain[0]]), 1)
    assert not owners.devices[0].tags.any()


@in_parent
def test_the_checked_loop_catches_what_it_is_for_and_finds_nothing_in_a_clean_run():
    """The tests of this module that are left out here, with bounds checked."""
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__], cwd=HERE.parent,
                          env={**os.environ, "NUMBA_BOUNDSCHECK": "1", "PYTHONPATH": str(HERE.parent)}, capture_output=True, text=True,
                          timeout=COMPILED_WITHIN)
    assert done.returncode == 0 and " passed" in done.stdout, done.stdout[-4000:] + done.stderr[-4000:]


def noted(proxy):
    """What was caught so far, by each worker."""
    return [int(state.device.violations[0]) for state in proxy.workers]


def exchange(proxy, number):
    """A whole connection whose first flight comes out of order, so that a part of it waits; spoken on both ways."""
    client = proxy.client(NUMBER, address=f"10.1.0.{2 + 3 * number}", port=2000 + 7 * number, known=False)
    handshake(client)
    client.send("PA", b"world", seq=8)
    client.expect("A", ack=1)
    client.send("PA", b"0 hello", seq=1)
    client.seq = 13
    target = proxy.accept("a")
    target.send("SA", mss=1460)
    target.expect("PA", seq=1, ack=1, data=b"0 helloworld")
    target.send("A")
    client.expect("A", seq=1, ack=13)
    target.send("PA", b"welcome")
    client.expect("PA", data=b"welcome")
    client.send("A")
    target.expect("A")
    close(client, target)


@in_child
@both
def test_a_clean_run_with_hand_over_finds_nothing(proxy):
    for number in range(40):
        exchange(proxy, number)
    for number in range(16):
        proxy.client(TURNS, port=3000 + number).send("A", seq=5, ack=7)
        proxy.burst(build(TARGETS["a"], (SOURCE, 10000 + number), proxy_mac(proxy), "A", 5, 7, b""), port=1)
    proxy.received.clear()
    assert all(int(state.counters.totals[TOTAL_OPENED]) > 8 for state in proxy.workers)
    given = sum(int(state.counters.notices[NOTICE_HANDED_OVER]) for state in proxy.workers)
    assert given == sum(int(state.counters.notices[NOTICE_TAKEN_OVER]) for state in proxy.workers) > 40
    assert noted(proxy) == [0, 0] and not proxy.workers[0].device.tags.any()


def proxy_mac(proxy):
    """The MAC address of the targets' port."""
    return f"02:00:00:00:00:{proxy.network.ports[1].number + 1:02x}"


@pytest.fixture
def proxy_broken():
    """A proxy that nothing is asked of after the test."""
    from tcp.proxy import Proxy

    return Proxy(**CHECKED)


def given_away(proxy, worker, mbuf, list_name):
    """Has a worker's loop send or free one mbuf; returns in words what came of it."""
    state = proxy.workers[worker]
    outbox = state.outbox
    if list_name == "mbuf":
        outbox.mbuf[0, 0], outbox.filled[0] = mbuf, 1
    else:
        outbox.released[0], outbox.to_release[0] = mbuf, 1
    with pytest.raises(OwnershipError) as caught:
        proxy._run(state, 1, proxy.now + 20_000)
    return isolation.cause(caught.value, state)


@in_child
@pytest.mark.parametrize("list_name, done", [("mbuf", "sent"), ("released", "freed")])
def test_a_loop_that_gives_away_an_mbuf_that_is_not_its_own_ends_with_both_named(proxy_broken, list_name, done):
    device, mbufs = proxy_broken.workers[1].device, np.zeros(1, np.int64)
    owned_device.allocate(device, mbufs, 1)
    said = given_away(proxy_broken, 0, mbufs[0], list_name)
    assert said == f"as worker 0 it {done} the mbuf at {mbufs[0]:#x}, which worker 1 holds"


@in_child
@pytest.mark.parametrize("list_name, done", [("mbuf", "sent"), ("released", "freed")])
def test_a_loop_that_gives_away_what_it_has_handed_over_or_freed_is_caught(proxy_broken, list_name, done):
    device, mbufs = proxy_broken.workers[0].device, np.zeros(1, np.int64)
    owned_device.allocate(device, mbufs, 1)
    if list_name == "mbuf":
        assert owned_device.hand_on(device, 2, mbufs, 0, 1) == 1
    else:
        owned_device.free(device, mbufs, 1)
    said = given_away(proxy_broken, 0, mbufs[0], list_name)
    assert said == f"as worker 0 it {done} the mbuf at {mbufs[0]:#x}, which nobody holds"
