"""Times passes of the loop over packets that lie ready: see race.py."""
from pipeline.compiled_loop import call
from pipeline.kernels.counters import TOTAL_PACKETS
from pipeline.kernels.jit import loop
from pipeline.kernels.memory_device import enqueue
from pipeline.kernels.native import ticks
from pipeline.kernels.wheel import TICK_MICROSECONDS
from pipeline.replay_drivers import MOST_AGAIN, following_tick, make_tick


@loop
def timed_passes(entry, state, received, bursts, mbufs, now, taken, idles):
    """Makes a pass of the loop at each time of `now`, and more until all that was fed is received; `taken` gets the ticks.

    A call of the loop hands over hundreds of arrays, which takes longer than a short pass: one of no passes goes ahead of each and
    is taken off.

    `bursts` int64 [n, 4]: what comes in before a pass: pass, port, first of `mbufs`, how many. `received` is the feeder's end of the
    ports' rings. `idles`: between two passes of different ticks timers run, not timed, as in a replay of a capture.
    """
    burst = 0
    for number in range(now.shape[0]):
        if idles and number > 0:
            at = following_tick(now[number - 1])
            while at < now[number]:
                make_tick(entry, state, at)
                at += TICK_MICROSECONDS
        fed = 0
        while burst < bursts.shape[0] and bursts[burst, 0] == number:
            fed += enqueue(received, bursts[burst, 1], mbufs, bursts[burst, 2], bursts[burst, 3])
            burst += 1
        before = state.connections.counters.totals[TOTAL_PACKETS]
        called = ticks()
        call(entry, state, 0, now[number])
        start = ticks()
        call(entry, state, 1, now[number])
        for _ in range(MOST_AGAIN):
            if state.connections.counters.totals[TOTAL_PACKETS] - before >= fed:
                break
            call(entry, state, 1, now[number])
        taken[number] = ticks() - start - (start - called)
