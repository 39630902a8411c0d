"""What every script in perf/ shares: its command line, the machine it ran on, runs in turns, the table, JSON and the plot.

A script imports this first (it makes a checkout that is not installed importable) and is made of three functions:

    import measurement

    def show(console, result): ...           prints the result, mostly as `measurement.table(...)`
    def draw(axes, result): ...              draws it, mostly as `measurement.curves(axes, ...)`

    @measurement.script(__doc__, show, draw, runs=20)
    @click.option("--keys", ...)             options of the script's own
    def main(runs, say, keys):
        cases = {"hit": lambda: ticks_of_a_hit(), "miss": lambda: ticks_of_a_miss()}
        taken = measurement.in_turns(cases, runs, say)
        return {"unit": "TSC ticks a look-up", "rows": {name: measurement.quartiles(taken[name]) for name in cases}}

    if __name__ == "__main__":
        main()

`main` returns a dict that JSON can hold; `script` adds "script", "runs", "seconds" and "machine" and prints it: as the table
of `show`, or, with --json, as exactly one document on standard output. What a script says while it works goes through
`say`, to standard error. A cycle in the figures is a tick of the time-stamp counter, read with
`pipeline.kernels.native.ticks()` inside a function decorated with `pipeline.kernels.jit.loop`: whatever is measured runs long
enough between two readings (microseconds at least), and what Python does lies outside of them.
"""
import functools
import hashlib
import importlib.util
import json
import os
import pathlib
import platform
import signal
import subprocess
import sys
import time

import click
import numba
import numpy as np
import rich.console

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from pipeline.engine import measured_hertz
from pipeline.kernels import jit
from pipeline.kernels.native import ticks
from pipeline.profile_report import made_table
from pipeline.spread import quartiles as quartiles
from pipeline.worker import read_ticks

WIDTH = 160
"""Columns of a table that goes to no terminal."""
table = made_table
CHAIN, TRIES = 20_000, 99
CYCLES_OF_A_LINK = 4
"""A multiplication (3 cycles) and an addition (1) that need the one before: so it is on every x86-64 since 2012."""


@jit.loop
def chain(links, seed):
    """Returns the ticks that `links` dependent multiply-and-add steps take, and their result, so that they are made."""
    start, value = ticks(), seed
    for _ in range(links):
        value = value * 6364136223846793005 + seed
    return ticks() - start, value


@functools.cache
def tsc_hertz():
    """Returns how many ticks the time-stamp counter makes in a second."""
    return measured_hertz()


def core_hertz():
    """Returns the frequency (Hz) that the core runs at just now, measured by a chain of instructions of known latency.

    The best of many short tries: others on the machine can only make it look slower.
    """
    return CYCLES_OF_A_LINK * CHAIN * tsc_hertz() / min(int(chain(CHAIN, 12345)[0]) for _ in range(TRIES))


def _words_of(*command):
    """Returns what a command prints (str, stripped), or None where it is not there or fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def machine():
    """Returns what was measured on (dict, JSON-able): frequencies in Hz, `core` is None where the script is not pinned."""
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
    allowed = sorted(os.sched_getaffinity(0))
    return {"processor": model, "cores": os.cpu_count(), "core": allowed[0] if len(allowed) == 1 else None,
            "tsc_hertz": round(tsc_hertz()), "core_hertz": round(core_hertz()), "kernel": platform.release(),
            "python": platform.python_version(), "numba": numba.__version__, "numpy": np.__version__,
            "dpdk": _words_of("pkg-config", "--modversion", "libdpdk"), "load": round(os.getloadavg()[0], 2)}


def described(host):
    """Returns what `machine` found as a line of text."""
    where = "" if host["core"] is None else f" (on core {host['core']})"
    return (f"{host['processor']}, {host['cores']} cores{where}, TSC {host['tsc_hertz'] / 1e6:,.0f} MHz, "
            f"core {host['core_hertz'] / 1e6:,.0f} MHz, Linux {host['kernel']}, DPDK {host['dpdk'] or 'none'}, "
            f"numba {host['numba']}, load {host['load']}")


def pin(core):
    """Pins this process to one core, by default the last that it may use; raises BadParameter for one that it may not."""
    cores = sorted(os.sched_getaffinity(0))
    if core is not None and core not in cores:
        raise click.BadParameter(f"{core}: this process may use cores {', '.join(map(str, cores))}", param_hint="--core")
    os.sched_setaffinity(0, {cores[-1] if core is None else core})


_asked_to_end = []
"""The exit status for a SIGTERM that has come."""


def end_on_sigterm():
    """Has SIGTERM end the script as an exception does, so that it cleans up.

    Python loses an exception that comes up in a destructor or a callback of its own (seen once, in importlib's): `in_turns` looks
    again before each measurement.
    """
    def end(number, frame):
        _asked_to_end.append(128 + number)
        sys.exit(128 + number)
    signal.signal(signal.SIGTERM, end)


def in_turns(cases, runs, say=lambda words: None, warm_up=1):
    """Runs every case of a dict (name: function without parameters), in turns, `runs` times after `warm_up` rounds.

    Returns a dict of what they returned: arrays of one row a run. Whatever else the machine does meets all cases alike,
    so their ratios are worth more than their values.
    """
    taken = {name: [] for name in cases}
    for run in range(-warm_up, runs):
        if run >= 0 and run % max(runs // 5, 1) == 0:
            say(f"run {run + 1} of {runs}")
        for name, case in cases.items():
            if _asked_to_end:
                sys.exit(_asked_to_end[0])
            found = case()
            if run >= 0:
                taken[name].append(found)
    return {name: np.array(rows) for name, rows in taken.items()}


LAYOUTS = 5
"""How often engines are made anew where two are compared: by where its memory happens to lie, one takes 5 to 15 % more or fewer ticks."""


def joined(layouts):
    """Returns one dict of arrays of what `in_turns` has returned for each of several layouts, run behind run."""
    return {name: np.concatenate([taken[name] for taken in layouts]) for name in layouts[0]}


def quartiles_of_ratios(these, those):
    """Returns the same of the ratios of two arrays, run by run: of turns that met the same neighbours on the machine."""
    low, median, high = np.percentile(these / those, (25, 50, 75))
    return {"median": round(float(median), 4), "low": round(float(low), 4), "high": round(float(high), 4)}


def spread(cell, digits=1):
    """Returns a cell of a table for what `quartiles` returned: the median, and the quartiles in brackets."""
    return f"{cell['median']:,.{digits}f} [dim]({cell['low']:,.{digits}f}-{cell['high']:,.{digits}f})[/dim]"


def curves(axes, places, rows, label, unit, logarithmic=True):
    """Draws curves with bands from quartile to quartile; `rows` (dict) names them: lists of what `quartiles` returned.

    `places` (numbers) are where their points stand on the x axis, which `label` names.
    """
    for name, cells in rows.items():
        line, = axes.plot(places, [cell["median"] for cell in cells], marker="o", label=name)
        axes.fill_between(places, [cell["low"] for cell in cells], [cell["high"] for cell in cells], alpha=0.2,
                          color=line.get_color())
    if logarithmic:
        axes.set_xscale("log", base=2)
        axes.set_xticks(places, [f"{place:,}" for place in places])
        axes.minorticks_off()
    axes.set_xlabel(label)
    axes.set_ylabel(unit)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")


def module_of(text, name):
    """Returns the module with this source, kept beside the composed loops so that Numba's cache knows it again.

    For drivers that are composed at run time; those that are not stand in the script itself, decorated with `jit.loop`.
    """
    folder = jit.cache_folder() / "measurements"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}_{hashlib.sha256(f'{ROOT}{text}'.encode()).hexdigest()[:16]}.py"
    draft = path.with_suffix(f".{os.getpid()}")
    draft.write_text(text)
    os.replace(draft, path)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def composed(path, imports):
    """Returns a copy of the module in the file `path` (pathlib.Path) with these imports between its marks ("# the .. from here",
    "# the .. to here"), kept as that of `module_of` is."""
    head, _, rest = path.read_text().partition(" from here\n")
    return module_of(f"{head} from here\n{imports}# {rest.partition('# ')[2]}", path.stem)


def numbers(least, most, words):
    """Returns a click callback for an option of whole numbers with commas between, which becomes a sorted list."""
    def read(context, parameter, value):
        try:
            found = sorted({int(word.replace("_", "")) for word in value.split(",")})
        except ValueError:
            found = [least - 1]
        if found[0] < least or found[-1] > most:
            raise click.BadParameter(f"{value!r}: {words} from {least:,} to {most:,} with commas between are expected")
        return found
    return read


def _plotting():
    """Returns matplotlib's class for a figure that goes to a file."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise click.ClickException("--plot needs matplotlib: pip install 'proxy-pipeline[perf]'") from error
    return Figure


def _plot(draw, result, path):
    figure = _plotting()(figsize=(9, 6), layout="constrained")
    axes = figure.add_subplot()
    draw(axes, result)
    figure.text(0.01, 0.002, described(result["machine"]), fontsize=6)
    try:
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        raise click.ClickException(f"--plot {path}: {error}") from error


def script(words, show, draw, runs, pinned=True):
    """Makes a command of a function `measure(runs, say, **own options)` that returns the result (dict).

    `words` is the script's docstring, `runs` the default of --runs. `show(console, result)` prints a table, `draw(axes, result)`
    draws on a matplotlib Axes. Not `pinned`: what is measured are other processes, there is no --core.
    """
    def decorate(measure):
        @functools.wraps(measure)
        def command(runs, as_json, plot, core=None, **options):
            if plot is not None:
                _plotting()
            if pinned:
                pin(core)
            begun, host = time.monotonic(), machine()
            result = {"script": pathlib.Path(sys.argv[0]).name, "runs": runs, "machine": host,
                      **measure(runs=runs, say=lambda said: click.echo(f"{said} ...", err=True), **options)}
            result["seconds"] = round(time.monotonic() - begun, 1)
            if plot is not None:
                _plot(draw, result, plot)
            if as_json:
                click.echo(json.dumps(result))
                return
            console = rich.console.Console(width=None if sys.stdout.isatty() else WIDTH)
            show(console, result)
            console.print(f"[dim]{described(host)}. It took {result['seconds']:.0f} s.", highlight=False)

        named = [click.option("--runs", default=runs, show_default=True, type=click.IntRange(1), help="Runs of each measurement."),
                 click.option("--json", "as_json", is_flag=True, help="Print one JSON document."),
                 click.option("--plot", type=click.Path(dir_okay=False), metavar="FILE",
                              help="Draw it into a file too (.png, .svg, .pdf); needs matplotlib.")]
        if pinned:
            named.append(click.option("--core", default=None, type=int, help="Core to run on.  [default: the last one]"))
        for option in reversed(named):
            command = option(command)
        return click.command(help=words.partition("\n\n")[0], context_settings={"help_option_names": ["-h", "--help"]})(command)
    return decorate


TICKS = "A tick is the time-stamp counter's, which runs at one rate whatever the core does: see both frequencies below."


def read_clock():
    """Returns the time-stamp counter, for what is measured from Python: milliseconds at least, and no jit of its own."""
    return int(read_ticks())
