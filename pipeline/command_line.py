"""The command line, whose contract is stable: exit status 0 success, 1 failed run, 2 bad input; `--json` prints
exactly one JSON document on stdout, everything else goes to stderr. What is heavy is imported where it is needed.
"""
import contextlib
import json
import math
import os
import sys
import time
import traceback

import click

import pipeline
from pipeline.errors import ConfigurationError, PipelineError, RunError

_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")


class _Sentences(click.Group):
    """A group of commands whose errors come out as sentences on stderr instead of tracebacks."""

    def invoke(self, context):
        """Runs the command and turns its errors into sentences and an exit status."""
        try:
            return super().invoke(context)
        except (click.exceptions.ClickException, click.exceptions.Exit, click.exceptions.Abort):
            raise
        except PipelineError as error:
            self._complain(str(error))
            context.exit(error.exit_status)
        except KeyboardInterrupt:
            self._complain("interrupted")
            context.exit(1)
        except OSError as error:
            if isinstance(error, BrokenPipeError):
                raise
            self._complain(f"{type(error).__name__}: {error}")
            context.exit(1)
        except Exception as error:
            self._complain(f"an error of the program itself, {type(error).__name__}: {error} "
                           "(PIPELINE_TRACEBACK=1 shows where)")
            context.exit(1)

    @staticmethod
    def _complain(text):
        if os.environ.get("PIPELINE_TRACEBACK") == "1":
            traceback.print_exc()
        click.echo(text, err=True)


@click.group(cls=_Sentences, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(pipeline.__version__, prog_name="proxy-pipeline")
def commands():
    """A TCP proxy with delayed binding: DPDK bursts through Numba kernels.

    Exit status: 0 success, 1 failed run, 2 bad input. PIPELINE_TRACEBACK=1 shows where an error comes from.
    """


def _print_json(document):
    click.echo(json.dumps(document, indent=2))


_KERNEL = click.option(
    "--kernel", "chosen", metavar="SLOT=KERNEL", multiple=True,
    help="Fill a slot (python -m pipeline kernels lists them) with another kernel than CONFIG says: one of ours by its name, "
         "file.py:function (from the current folder) or package.module:function. Repeatable. select= and payload= (or "
         "payload_to_target=, payload_to_client=) set that of every service.")


def _recording(command):
    """Adds the options of `run` that say what is recorded; they arrive as one argument, `recorded` (recorders.Recorded)."""
    import functools

    options = (
        click.option("--record", "received", metavar="FILE", type=click.Path(),
                     help="Record what comes in, burst by burst: .pcap, .pcapng, or else our own format, which `replay` takes exactly."),
        click.option("--pcap-out", "sent", metavar="FILE", type=click.Path(), help="Capture what leaves, in a format by the same rule."),
        click.option("--record-limit", "limit", metavar="PACKETS", type=click.IntRange(1, 2**63 - 1),
                     help="Most packets in either file."),
        click.option("--record-snap", "snap", metavar="OCTETS", type=click.IntRange(14, 16384), default=16384, show_default=True,
                     help="Octets that are kept of a packet."),
        click.option("--record-filter", "filter", metavar="EXPRESSION", default="",
                     help="Only packets that match, such as 'tcp port 80 and host 10.1.0.2' (see README)."),
        click.option("--record-buffer", "buffer", metavar="MIB", type=click.IntRange(1, 65536), default=64, show_default=True,
                     help="Memory of a worker for packets that are not in the file yet; what finds no room is dropped, counted."),
    )

    @functools.wraps(command)
    def with_recorded(received, sent, limit, snap, filter, buffer, **others):
        """Runs the command with a Recorded."""
        from pipeline.recorders import Recorded
        if received is None and sent is None and (limit or filter or (snap, buffer) != (16384, 64)):
            raise click.UsageError("--record-limit, --record-snap, --record-filter and --record-buffer say what --record FILE or "
                                   "--pcap-out FILE keeps, which is missing.")
        return command(recorded=Recorded(received, sent, snap, limit or -1, filter, buffer), **others)
    for option in reversed(options):
        with_recorded = option(with_recorded)
    return with_recorded


@commands.command()
@click.argument("config", required=False, type=click.Path())
@click.option("--duration", metavar="SECONDS", type=click.FloatRange(min=0, min_open=True),
              help="Stop by itself after that time, counted from when the engine is up.")
@_JSON
@click.option("--records", metavar="FILE", type=click.Path(), help="Write a record of each connection into FILE.")
@click.option("--record-format", type=click.Choice(["json", "csv", "text"]),
              help="JSON lines, CSV or text; by default as the suffix of FILE says (.csv, .txt, else JSON lines).")
@click.option("--profile", is_flag=True, help="Say at the end where the time went: by stage, by path and by size of burst.")
@click.option("--profile-every", metavar="N", type=click.IntRange(1, 1_000_000), help="Sample one burst in N.  [default: 32]")
@click.option("--profile-warm-up", metavar="SECONDS", type=click.FloatRange(min=0), help="What comes before is not counted.  [default: 1]")
@click.option("--profile-plot", metavar="FILE", type=click.Path(dir_okay=False), help="Draw it into FILE too (.png, .svg, .pdf).")
@_KERNEL
@_recording
def run(config, duration, as_json, records, record_format, profile, profile_every, profile_warm_up, profile_plot, recorded, chosen):
    """Run the engine that the file CONFIG describes, or the self-contained demonstration.

    The first Ctrl-C (or SIGTERM) lets open connections drain, the second ends it at once. In a terminal a live table
    is shown. At the end comes a summary; with --json the last snapshot of all counters, with the summary in it.
    """
    from pipeline import configuration, isolation, profile_report, running
    if duration is not None and not math.isfinite(duration):
        raise click.UsageError(f"--duration {duration}: a number of seconds is expected.")
    if record_format and not records:
        raise click.UsageError("--record-format says how to write what --records FILE asks for, which is missing.")
    wanted = running.wanted_profile(profile, profile_every, profile_warm_up, profile_plot)
    settings = _with_kernels(configuration.load(config or running.DEMONSTRATION), chosen)
    if settings.engine.isolation == "checked":
        isolation.start_anew_checked()
    writer = running.records_writer(records, record_format, settings)
    performance = running.Run(settings, duration, demonstrate=config is None, records=writer, profile=wanted,
                              recorders=running.recorders_for(recorded, settings),
                              live=not as_json and sys.stdout is not None and sys.stdout.isatty())
    with running.nothing_on_stdout() if as_json else contextlib.nullcontext():
        snapshot = performance.perform()
    if as_json:
        _print_json(snapshot)
    else:
        click.echo(running.summary_text(snapshot))
    if wanted and wanted.plot:
        profile_report.plot(snapshot["profile"], wanted.plot)
    faults = running.faults_of(snapshot["summary"]) + (performance.recorders.troubles if performance.recorders else [])
    if faults:
        raise RunError("\n".join(faults))


@commands.command()
@click.argument("config", type=click.Path())
@_JSON
@_KERNEL
def check(config, as_json, chosen):
    """Validate the file CONFIG and explain what `run` would set up. Nothing is touched."""
    from pipeline import configuration, explain
    try:
        settings = _with_kernels(configuration.load(config), chosen)
        _check_kernels(config, settings)
    except ConfigurationError as error:
        if as_json:
            _print_json({"valid": False, "faults": error.faults})
        raise
    if as_json:
        _print_json(explain.facts(settings))
    else:
        click.echo(explain.explanation(settings, config))


def _with_kernels(settings, chosen):
    if not chosen:
        return settings
    from pipeline import chosen_kernels
    return chosen_kernels.override(settings, chosen)


def _check_kernels(config, settings):
    """Refuses short names of kernels that their slot does not have, and kernels of the user's that do not fit theirs."""
    foreign = [("select", service.select) for service in settings.services if ":" in service.select]
    foreign += [("payload", name) for service in settings.services for names in service.payloads for name in names if ":" in name]
    foreign += [(slot, place) for slot, place in settings.kernels.items() if ":" in place]
    if foreign:
        from pipeline import kernel_places, replacement
        for slot, place in foreign:
            kernel_places.kernel_at(slot, place)
        replacement.package_for(settings.kernels)
    if not settings.kernels:
        return
    from pipeline.configuration.values import suggestion
    from pipeline.slots import names as names_of
    faults = []
    for slot, kernel in settings.kernels.items():
        names = names_of(slot)
        if ":" not in kernel and kernel not in names:
            faults.append(f'{config}: kernels.{slot} = "{kernel}" is none of our kernels for this slot'
                          + suggestion(kernel, names))
    if faults:
        raise ConfigurationError(*faults)


@commands.command()
@click.argument("recording", type=click.Path())
@click.argument("config", type=click.Path())
@click.option("--out", metavar="FILE", type=click.Path(), help="Write what is sent: .pcap, .pcapng, or else our own format.")
@click.option("--expect", metavar="FILE", type=click.Path(), help="Compare what is sent with FILE; exit status 1 where it differs.")
@click.option("--except", "leave_out", metavar="FIELDS", default="",
              help="Fields that may differ, such as tcp.seq,tcp.ack,ip.id,frame.time; checksums over them may as well.")
@click.option("--speed", metavar="N|max", default="max", show_default=True, help="N times as fast as it was recorded, or as fast as it goes.")
@_KERNEL
@click.option("--port", metavar="NAME", help="The port that all packets of a capture come in by.")
@_JSON
def replay(as_json, **options):
    """Replay RECORDING through the engine that CONFIG describes: offline, without DPDK, on recorded time.

    What is sent is the same each time, on any machine; of a recording by `run --record` it is what the engine sent then.
    RECORDING may be a pcap or pcapng file too: a packet comes in by the port that its interface is named after, or by the one
    that owns the address it is sent to. A capture that was not made at the engine has other sequence numbers than ours.
    """
    from pipeline import replay_command
    said = replay_command.perform(options.pop("recording"), options.pop("config"), **options)
    if as_json:
        _print_json(said)
    else:
        click.echo(replay_command.text(said))
    if said.get("differences"):
        raise RunError(f"{said['differences']:,} packets differ from {said['expected']}")


@commands.group(invoke_without_command=True)
@_JSON
@click.pass_context
def kernels(context, as_json):
    """List the slots of the loop: their signatures, and the kernels of ours that can fill them."""
    if context.invoked_subcommand is not None:
        return
    from pipeline import slots
    found = slots.described()
    if as_json:
        _print_json(found)
    else:
        click.echo(slots.text_of(found))


@kernels.command()
@click.argument("slot")
@click.argument("file", type=click.Path())
def new(slot, file):
    """Write a kernel for SLOT that runs as it is into the new file FILE, to begin with."""
    from pipeline import new_kernel
    place = new_kernel.write(slot, file)
    click.echo(f"{place}: try python -m pipeline kernels check {place}, and run --kernel {slot}={place}", err=True)


@kernels.command("check")
@click.argument("kernel", metavar="FILE:FUNCTION")
@click.option("--slot", metavar="SLOT", help="The slot that it is meant for; by default the one whose parameters it has.")
@click.option("--time-limit", metavar="SECONDS", type=click.FloatRange(min=1), show_default=True,
              default=180, help="How long all of it may take; a kernel that never returns fails then.")
@_JSON
def check_kernel(kernel, slot, time_limit, as_json):
    """Check a kernel: its signature, whether it compiles, and what it does beside the reference of its slot.

    Exit status 1 where it fails; 2 where there is none, or one with a wrong signature.
    """
    from pipeline import kernel_check
    with kernel_check.time_limit(kernel, time_limit):
        report = kernel_check.check(kernel, slot)
    if as_json:
        _print_json(report)
    else:
        click.echo(kernel_check.text_of(report))
    if not report["passed"]:
        raise RunError(f"{report['kernel']} is no kernel for the slot {report['slot']} as it stands")


def _of_which_engine(command):
    """Adds the options that choose the running engine to ask."""
    command = click.option("--socket", metavar="PATH", type=click.Path(),
                           help="The statistics socket of the engine (engine.stats_socket).")(command)
    return click.option("--name", metavar="NAME",
                        help="The name of the engine (engine.name), where several run.")(command)


def _socket_of(socket, name):
    from pipeline import stats_socket
    if socket and name:
        raise click.UsageError("--socket and --name exclude each other.")
    return socket or stats_socket.find(name)


@commands.command()
@_of_which_engine
@_JSON
def stats(socket, name, as_json):
    """Print the counters of a running engine once."""
    from pipeline import stats_socket
    snapshot = stats_socket.request(_socket_of(socket, name))
    if as_json:
        _print_json(snapshot)
        return
    from rich.console import Console

    from pipeline.live_table import render, totals
    events = [f"{side} {event}: {count:,}" for side in ("client", "target")
              for event, count in totals(snapshot, "sides", side).items() if count]
    Console().print(render(snapshot, footer=events))


@commands.command()
@_of_which_engine
@click.option("--interval", metavar="SECONDS", type=click.FloatRange(min=0.05), default=0.5, show_default=True,
              help="Time between two looks at the engine.")
def top(socket, name, interval):
    """Show a running engine live, until it ends or Ctrl-C. Where stdout is no terminal, show it once."""
    from rich.console import Console

    from pipeline import stats_socket
    from pipeline.live_table import LiveTable, render
    path = _socket_of(socket, name)
    console, snapshot = Console(), stats_socket.request(path)
    if not console.is_terminal:
        console.print(render(snapshot))
        return
    with contextlib.suppress(KeyboardInterrupt), LiveTable(console) as table:
        while True:
            table.update(snapshot, ["Ctrl-C ends this view; the engine goes on"])
            time.sleep(interval)
            try:
                snapshot = stats_socket.request(path)
            except RunError:
                console.print("the engine has ended")
                return


@commands.group()
def target():
    """Show the targets of a running engine, and change their states."""


def _engine_of_target(command):
    """Adds the options that choose the engine, by which NAME is left to the target."""
    command = click.option("--socket", metavar="PATH", type=click.Path(),
                           help="The statistics socket of the engine (engine.stats_socket).")(command)
    return click.option("--engine", metavar="NAME", help="The name of the engine (engine.name), where several run.")(command)


def _print_targets(found, as_json):
    if as_json:
        _print_json(found)
        return
    for row in found["targets"]:
        click.echo(f"{row['id']:<20} {row['state']:<12} {row['why']}".rstrip())


@commands.command()
@click.argument("config", type=click.Path())
@_engine_of_target
@_JSON
def reload(config, socket, engine, as_json):
    """Have a running engine take the allow and deny lists of CONFIG, and of the files that it names, without a pause."""
    from pipeline import configuration, stats_socket
    configuration.load(config)
    found = stats_socket.request(_socket_of(socket, engine), "reload", timeout=60, arguments=(os.path.abspath(config),))
    if as_json:
        _print_json(found)
    else:
        click.echo(f"{found['prefixes']:,} prefixes are in force")


@target.command("list")
@_engine_of_target
@_JSON
def list_targets(socket, engine, as_json):
    """Print each target's state, and who says so."""
    from pipeline import stats_socket
    _print_targets(stats_socket.request(_socket_of(socket, engine), "targets"), as_json)


@target.command("set")
@click.argument("target")
@click.argument("state", type=click.Choice(["up", "down", "drain", "maintenance"]))
@_engine_of_target
@_JSON
def set_target(target, state, socket, engine, as_json):
    """Put a target into a state: up; drain or down (no new connections, its own go on); maintenance (as health.release says)."""
    from pipeline import stats_socket
    _print_targets(stats_socket.request(_socket_of(socket, engine), "target set", arguments=(target, state)), as_json)


@commands.command()
@_of_which_engine
@click.option("--on/--off", "switch", default=None, help="Begin anew to sample one burst in 32, or end that.")
@_JSON
def profile(socket, name, switch, as_json):
    """Print where the time of a running engine goes, by stage, path and size of burst; switch that on and off."""
    from pipeline import profile_report, stats_socket
    question = {True: "profile on", False: "profile off", None: "profile"}[switch]
    found = stats_socket.request(_socket_of(socket, name), question)
    if as_json:
        _print_json(found)
    elif switch:
        click.echo("profile: on; without --on or --off the same command shows what it has found")
    else:
        click.echo(profile_report.text(found))


@commands.command()
@click.argument("recording", type=click.Path())
@click.argument("config", required=False, type=click.Path())
@click.option("--a", "a_kernels", metavar="SLOT=KERNEL", multiple=True, help="A kernel of composition A; may be repeated.")
@click.option("--b", "b_kernels", metavar="SLOT=KERNEL", multiple=True, help="A kernel of composition B; may be repeated.")
@click.option("--a-config", metavar="CONFIG", type=click.Path(), help="The configuration of A, instead of CONFIG.")
@click.option("--b-config", metavar="CONFIG", type=click.Path(), help="The configuration of B, instead of CONFIG.")
@click.option("--runs", default=20, show_default=True, type=click.IntRange(2), help="Rounds of each; fewer than 6 prove nothing.")
@click.option("--plot", metavar="FILE", type=click.Path(dir_okay=False), help="Draw the rounds into FILE (.png, .svg, .pdf).")
@_JSON
def race(recording, config, a_kernels, b_kernels, a_config, b_config, runs, plot, as_json):
    """Race two compositions on the same RECORDING: which is faster, by stage, whether that is real, and what differs in what they send.

    Exit status 0, whichever wins and whatever they send.
    """
    from pipeline import profile_report
    from pipeline import race as racing
    configs = [a_config or config, b_config or config]
    if None in configs:
        raise click.UsageError("CONFIG is missing: it may be left out where --a-config and --b-config are both given.")
    if plot is not None:
        profile_report.needs_matplotlib()
    said = racing.race(recording, configs, (a_kernels, b_kernels), runs, say=lambda words: click.echo(f"{words} ...", err=True))
    if as_json:
        _print_json(said)
    else:
        click.echo(profile_report.as_text(racing.tables(said)))
    if plot is not None:
        profile_report.plot(said, plot, racing.draw)


def main():
    """Runs the command line; does not return."""
    commands.main(prog_name="python -m pipeline")
