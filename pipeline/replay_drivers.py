"""What a replay does that is too slow in Python: packets into mbufs and out of them, and passes of the loop without packets."""
from numpy import int64

from pipeline.compiled_loop import call
from pipeline.kernels.checksum import data_start
from pipeline.kernels.jit import kernel, loop
from pipeline.kernels.native import copy_octets, record_at
from pipeline.kernels.recorder import MOST_A_BURST, OCTETS, PACKETS, SENT, begin_burst, end_burst, keep
from pipeline.kernels.wheel import TICK_MICROSECONDS

PASSES_A_TICK = 1024
MOST_AGAIN = 64
"""Passes that are made at most until nothing is left of what was fed."""


@loop
def load(packets, base, mbufs, wanted, octets):
    """Writes packets (PACKET) whose octets lie in `octets` into fresh mbufs, one each; what was not recorded of one is 0."""
    for number in range(mbufs.shape[0]):
        packet, record = wanted[number], record_at(packets.mbuf, mbufs[number])
        start, captured, length = data_start(packets, base, mbufs[number]), int64(packet.captured), int64(packet.length)
        copy_octets(packets.octets, start, octets, int64(packet.offset), captured)
        for place in range(start + captured, start + length):
            packets.octets[place] = 0
        record.data_length = length
        record.packet_length = length


@loop
def capture(recorder, packets, base, mbufs, port, now):
    """Records packets that a port has sent; returns how many found room: those behind them have not been looked at."""
    first, count = 0, mbufs.shape[0]
    while first < count:
        stop = min(first + MOST_A_BURST, count)
        if not begin_burst(recorder, stop - first, now):
            return first
        number, octets = recorder.filled[PACKETS], recorder.filled[OCTETS]
        for row in range(first, stop):
            octets = keep(recorder, packets, base, mbufs[row], number, octets)
            number += 1
        end_burst(recorder, number, octets, stop - first, port, SENT, 0, 0, now)
        first = stop
    return first


@kernel
def following_tick(at):
    """Returns the time (microseconds) of the first tick after `at`."""
    return at - at % TICK_MICROSECONDS + TICK_MICROSECONDS


@kernel
def make_tick(entry, state, at):
    """Makes a pass of the loop at `at` (microseconds), without packets, and more until its timers have caught up."""
    for _ in range(PASSES_A_TICK):
        call(entry, state, 1, at)
        if state.wheel.now[0] >= at // TICK_MICROSECONDS and state.wheel.now[1] == 0:
            break


@loop
def idle(entry, state, written, start, stop):
    """Makes a pass of the loop at each tick after `start` and before `stop` (microseconds), and more where timers need them.

    `written` int64[ports, n]: how much each port has sent, in column 0. Returns at which time it stopped: as soon as something
    was sent, else at `stop`.
    """
    at, before = following_tick(start), 0
    for port in range(written.shape[0]):
        before += written[port, 0]
    while at < stop:
        make_tick(entry, state, at)
        sent = 0
        for port in range(written.shape[0]):
            sent += written[port, 0]
        if sent != before:
            return at
        at += TICK_MICROSECONDS
    return stop
