"""What a generator has found: its part of a snapshot and of a run's summary, as plain Python and as text."""
import numpy as np

from pipeline.kernels import connection, counters, generator_ends, histogram
from pipeline.snapshot import drops_and_notices

PERCENTILES = (50, 90, 99, 99.9)
LATENCIES = ("connect_us", "request_us")
SECOND = 1_000_000


def highest_in(bucket):
    """Returns the largest value that a bucket of a histogram counts."""
    doublings = max(bucket // histogram.SUB - 1, 0)
    return ((bucket - doublings * histogram.SUB + 1) << doublings) - 1


def percentiles(counted):
    """Returns how many values a histogram (int64 [BUCKETS]) has counted, their percentiles and the largest (dict).

    A percentile is the largest value of the bucket that it lies in, as HdrHistogram tells it: at most 1 / 128 too large.
    """
    total = int(counted.sum())
    if total == 0:
        return {"count": 0}
    sums = np.cumsum(counted)
    shown = {f"p{share:g}": highest_in(int(np.searchsorted(sums, np.ceil(total * share / 100)))) for share in PERCENTILES}
    return {"count": total, **shown, "max": highest_in(int(np.flatnonzero(counted)[-1]))}


def _named(names, values):
    return {name: int(value) for name, value in zip(names, values, strict=True)}


def of_worker(core, state):
    """Returns the counters of a generator's worker (dict), under the names of the proxy's (pipeline.snapshot)."""
    counted = state.counters
    totals = _named(counters.TOTALS, counted.totals)
    return {
        "core": core,
        "bursts": totals["bursts"], "packets": totals["packets"], "transmitted": totals["transmitted"],
        "passes": totals["loops"], "sleeps": totals["sleeps"], "expired_timers": totals["expired_timers"],
        "connections": {key: totals[key] for key in ("open", "opened", "closed")},
        "states": _named(generator_ends.STATES[1:], counted.states[1:]),
        **drops_and_notices(counted),
    }


def of_role(configuration, ends, role):
    """Returns what the clients, or the servers, of a generator have come to (dict)."""
    failures = _named(generator_ends.KINDS, ends.failures[role])
    return {**_named(generator_ends.COUNTS, ends.counts[role]),
            "failures": {kind: count for kind, count in failures.items() if count},
            "targets": {target.id: int(count) for target, count in zip(configuration.targets, ends.served[role], strict=True)}}


def of_generator(configuration, state):
    """Returns what there is to say of clients and servers (dict); may be called while the worker runs."""
    ends, traffic, shown = state.connections, configuration.generator, {}
    for role, name in enumerate(generator_ends.ROLES):
        if getattr(traffic, name):
            shown[name] = of_role(configuration, ends, role)
    if traffic.clients:
        elapsed = max(int(ends.pace[generator_ends.LATEST] - ends.pace[generator_ends.FIRST]), 1)
        done = shown["clients"]["completed"]
        shown["clients"] |= {"seconds": elapsed / SECOND, "per_second": round(done * SECOND / elapsed, 1),
                             **{name: percentiles(ends.latency[number]) for number, name in enumerate(LATENCIES)}}
    return shown


def is_complete(configuration, state):
    """Says whether all connections of a test of limited size have been opened and have ended."""
    clients = configuration.generator.clients
    if clients is None or clients.test_size == 0:
        return False
    opened, still_open = state.connections.counts[generator_ends.CLIENT, [generator_ends.OPENED, generator_ends.OPEN]]
    return bool(opened >= clients.test_size and still_open == 0)


def faults_of(shown):
    """Returns a sentence (list of str) for each role whose connections have failed, those apart that were only stopped."""
    found = []
    for name in generator_ends.ROLES:
        failures = {kind: count for kind, count in shown.get(name, {}).get("failures", {}).items() if kind != "stopped"}
        if failures:
            kinds = ", ".join(f"{kind} {count:,}" for kind, count in failures.items())
            found.append(f"of {shown[name]['opened']:,} connections of {name} {sum(failures.values()):,} failed: {kinds}")
    return found


def lines(shown):
    """Returns `of_generator` as lines of text (list of str)."""
    said = []
    for name in generator_ends.ROLES:
        role = shown.get(name)
        if role is None:
            continue
        rate = f", {role['per_second']:,.0f} a second over {role['seconds']:.3f} s" if "per_second" in role else ""
        said.append(f"{name}: {role['opened']:,} connections opened, {role['completed']:,} completed{rate}, "
                    f"{role['failed']:,} failed")
        again = ", ".join(f"{key.partition('_')[0]} {role[key]:,}" for key in
                          ("syn_retransmitted", "data_retransmitted", "fin_retransmitted") if role[key])
        failures = ", ".join(f"{kind} {count:,}" for kind, count in role["failures"].items())
        said += [f"  failures: {failures}"] if failures else []
        said += [f"  retransmitted: {again}"] if again else []
        said += [f"  by target: {', '.join(f'{target} {count:,}' for target, count in role['targets'].items())}"]
        for key in LATENCIES:
            if role.get(key, {}).get("count"):
                spans = ", ".join(f"{share} {value:,}" for share, value in role[key].items() if share != "count")
                said.append(f"  microseconds to {'connect' if key == LATENCIES[0] else 'be answered'}: {spans}")
    return said


assert connection.FREE == 0 and generator_ends.STATES[connection.TIME_WAIT] == "time_wait", "the loop counts by these numbers"
