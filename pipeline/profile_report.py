"""What the profile of an engine comes to: as a dict that JSON can hold, as tables, and as a picture."""
import numpy as np

from pipeline import processor_counters
from pipeline.attribution import solved
from pipeline.errors import RunError
from pipeline.generator_report import percentiles
from pipeline.kernels import profile
from pipeline.kernels.profile import COUNTED, IDLE, MOST_STAGES, PATHS, SIZES
from pipeline.profiling import total

SHOWN = 14
"""Stages with a colour of their own in a picture."""
ENOUGH = 100
"""Passes of each kind from which on the sum of all stages is compared with whole passes."""


def _share(part, whole):
    return round(float(part) / float(whole), 4) if whole else None


def _each(ticks, number):
    return round(float(ticks) / float(number), 2) if number else None


def comparison(counted):
    """Sets the sums of stages, of sampled passes, beside the ticks of passes that were not sampled, of the same sizes (dict).

    `ratio` is None where there were too few.
    """
    rest, sampled = counted.passes[:COUNTED + 1, :IDLE]
    both = (rest[:, 0] > 0) & (sampled[:, 0] > 0)
    whole = float((sampled[both, 0] * rest[both, 1] / np.maximum(rest[both, 0], 1)).sum())
    summed = float(counted.ticks[:IDLE].sum())
    enough = rest[both, 0].sum() >= ENOUGH and sampled[both, 0].sum() >= ENOUGH and both[sampled[:, 0] > 0].all()
    passes = int(sampled[:, 0].sum())
    return {"stages": _each(summed, passes), "passes": _each(whole, passes) if enough else None,
            "ratio": round(summed / whole, 4) if enough else None}


def _of_stages(counted, names):
    """Returns a dict for each stage that took time; ticks of a packet are those of all packets, whether it met them or not."""
    busy = counted.ticks[:IDLE].sum(0)
    packets, whole, found = int(counted.bursts[:IDLE, 1].sum()), int(busy.sum()), []
    for number, name in enumerate(names):
        if counted.histograms[number].any():
            found.append({"stage": name, "ticks_a_packet": _each(busy[number], packets), "share": _share(busy[number], whole),
                          "ticks_a_burst": percentiles(counted.histograms[number])})
    return found


def _of_paths(counted, names):
    """Returns a dict for each path that was met: by least squares over all bursts, and of bursts of this path alone."""
    taken = np.array([solved(counted.products, counted.sums[:, stage]) for stage in range(len(names))])
    packets = counted.packets
    whole, found = float(counted.ticks[:IDLE].sum()), []
    for number in np.flatnonzero(packets):
        ticks = taken[:, number]
        found.append({"path": PATHS[number], "packets": int(packets[number]), "ticks_a_packet": round(float(ticks.sum()), 2),
                      "share": _share(ticks.sum() * packets[number], whole),
                      "alone": percentiles(counted.histograms[MOST_STAGES + number]),
                      "stages": {name: round(float(value), 2) for name, value in zip(names, ticks, strict=True) if value > 0.005}})
    return found


def _of_sizes(counted, names):
    """Returns a dict for each size of bursts; `none` is what is done besides and behind bursts."""
    found = []
    for number, name in enumerate(SIZES[:IDLE]):
        bursts, packets = (int(value) for value in counted.bursts[number])
        if bursts:
            of_each = packets or bursts
            found.append({"size": name, "bursts": bursts, "packets": packets,
                          "ticks_a_packet": _each(counted.ticks[number].sum(), of_each),
                          "percentiles": percentiles(counted.histograms[MOST_STAGES + len(PATHS) + number]),
                          "stages": {stage: _each(counted.ticks[number, place], of_each) for place, stage in enumerate(names)
                                     if counted.ticks[number, place] > 0}})
    return found


def report(states, names, hertz):
    """Returns the profile of the workers with these `states` (dict, JSON-able); `names` are those of their stages.

    Ticks are those of the time-stamp counter, of which there are `hertz` in a second. Stages, paths and sizes are of sampled
    passes without what was interrupted; what the profile itself takes is left out.
    """
    counted = total(states)
    everything, sampled = counted.passes.sum(0), counted.passes[COUNTED]
    return {
        "unit": "TSC ticks", "tsc_hertz": round(hertz), "every": max(int(counted.control[profile.EVERY]), 0) or None,
        "ticks_of_a_mark": int(counted.control[profile.OVERHEAD]), "marks": int(counted.control[profile.MARKS]),
        "passes": {"busy": int(everything[:IDLE, 0].sum()), "idle": int(everything[IDLE, 0]),
                   "sampled": int(sampled[:IDLE, 0].sum()), "idle_sampled": int(sampled[IDLE, 0]),
                   "interrupted": int(counted.interrupted[:3, 0].sum())},
        "bursts": int(counted.bursts[1:IDLE, 0].sum()), "packets": int(counted.bursts[:IDLE, 1].sum()),
        "busy_ticks": int(everything[:IDLE, 1].sum()), "idle_ticks": int(everything[IDLE, 1]),
        "resting_ticks": sum(int(state.profile.control[profile.RESTED]) for state in states),
        "interrupted_ticks": int(counted.interrupted[:3, 1].sum()),
        "sum_of_stages": comparison(counted),
        "stages": _of_stages(counted, names), "paths": _of_paths(counted, names), "sizes": _of_sizes(counted, names),
        "idle_pass": {name: _each(counted.ticks[IDLE, place], counted.bursts[IDLE, 0]) for place, name in enumerate(names)
                      if counted.ticks[IDLE, place] > 0},
    }


FEW = 200
"""Sampled passes below which percentiles and shares are of single passes."""


def _number(value, form=",.1f"):
    return "-" if value is None else format(value, form)


def made_table(title, columns, rows):
    """Returns a rich table: the first column is to the left, the others to the right; a row of None draws a line."""
    from rich.table import Table
    made = Table(title=title)
    for place, column in enumerate(columns):
        made.add_column(column, justify="right" if place else "left", no_wrap=True)
    for row in rows:
        if row is None:
            made.add_section()
        else:
            made.add_row(*map(str, row))
    return made


def _spread(found):
    return [_number(found.get(share), ",d") for share in ("p50", "p90", "p99", "max")]


def tables(found):
    """Returns what `report` has found as things for a rich Console to print: three tables and lines about them."""
    passes, compared = found["passes"], found["sum_of_stages"]
    sampled = (f"{passes['sampled']:,} of {passes['busy']:,} busy passes sampled, with {found['packets']:,} packets in "
               f"{found['bursts']:,} bursts; {passes['idle']:,} passes had nothing to do, {passes['interrupted']:,} were interrupted")
    lines = [sampled,
             f"a tick is {1e9 / found['tsc_hertz']:.3f} ns; a mark takes {found['ticks_of_a_mark']} ticks, which are left out"]
    if compared["ratio"] is not None:
        lines.append(f"all stages of a sampled pass take {compared['stages']:,.0f} ticks, whole passes that are not sampled "
                     f"{compared['passes']:,.0f}: {compared['ratio']:.1%}")
    if passes["busy"] and passes["sampled"] < FEW:
        lines.append(f"{passes['sampled']:,} sampled passes are few: do not rely on what they say; --profile-every 1 samples every pass")
    if found.get("counters"):
        lines.append(f"workers' threads, since the profile began: {processor_counters.line(found['counters'])}")
    if not found["packets"]:
        return ["profile: no packet came in a sampled pass", *lines]
    stages = [(row["stage"], _number(row["ticks_a_packet"]), _number(row["share"], ".1%"), *_spread(row["ticks_a_burst"]))
              for row in found["stages"]]
    paths = [(row["path"], f"{row['packets']:,}", _number(row["ticks_a_packet"]), _number(row["share"], ".1%"),
              f"{row['alone']['count']:,}", *_spread(row["alone"])) for row in found["paths"]]
    sizes = [(row["size"], f"{row['bursts']:,}", f"{row['packets']:,}", _number(row["ticks_a_packet"]), *_spread(row["percentiles"]))
             for row in found["sizes"]]
    return [made_table("Ticks by stage", ("stage", "a packet", "share", "a burst: p50", "p90", "p99", "max"), stages),
            made_table("Ticks by path", ("path", "packets", "each", "share", "in bursts alone", "p50", "p90", "p99", "max"), paths),
            made_table("Ticks a packet by size of burst", ("burst", "bursts", "packets", "mean", "p50", "p90", "p99", "max"), sizes),
            *lines]


def as_text(parts, width=160):
    """Returns things for a rich Console as text (str)."""
    from rich.console import Console
    console = Console(width=width, highlight=False)
    with console.capture() as captured:
        for part in parts:
            console.print(part, markup=False)
    return captured.get().rstrip("\n")


def text(found):
    """Returns what `report` has found as text (str)."""
    return as_text(tables(found))


def draw(axes, found):
    """Draws the ticks of a packet on a matplotlib Axes: a bar for each size of burst, stages stacked."""
    from matplotlib import colormaps
    sizes = [row for row in found["sizes"] if row["packets"]]
    dearest = sorted({stage for row in sizes for stage in row["stages"]},
                     key=lambda stage: -max(row["stages"].get(stage) or 0 for row in sizes))
    parts = {stage: [row["stages"].get(stage, 0) for row in sizes] for stage in dearest[:SHOWN]}
    if dearest[SHOWN:]:
        parts[f"{len(dearest) - SHOWN} others"] = [sum(row["stages"].get(stage, 0) for stage in dearest[SHOWN:]) for row in sizes]
    axes.set_prop_cycle(color=colormaps["tab20"].colors)
    bottom, places = np.zeros(len(sizes)), np.arange(len(sizes))
    for name, heights in parts.items():
        axes.bar(places, heights, bottom=bottom, label=name)
        bottom += heights
    axes.set_xticks(places, [row["size"] for row in sizes])
    axes.set_xlabel("packets a burst")
    axes.set_ylabel("TSC ticks a packet")
    axes.legend(fontsize="small", ncols=2)
    axes.grid(axis="y", alpha=0.3)


def needs_matplotlib():
    """Returns matplotlib's class for a figure that goes to a file; raises RunError where it is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise RunError("a plot needs matplotlib: pip install 'proxy-pipeline[perf]'") from error
    return Figure


def plot(found, path, draw=draw):
    """Writes the picture that `draw` makes of `found` into the file `path`; raises RunError where that cannot be."""
    figure = needs_matplotlib()(figsize=(9, 6), layout="constrained")
    draw(figure.add_subplot(), found)
    try:
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: cannot be drawn ({error})") from error
