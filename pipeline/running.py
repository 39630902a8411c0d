"""The command `run`: the bed, the engine, the statistics socket and the records around one another, and the end."""
import contextlib
import os
import pathlib
import signal
import sys
import threading
import time

from rich.console import Console

from pipeline import generator_report, profile_report
from pipeline.errors import ConfigurationError, RunError
from pipeline.live_table import REFRESHES_PER_SECOND, LiveTable, fault_lines, span, total, totals
from pipeline.profiling import EVERY, WARM_UP, Asked
from pipeline.record_writer import RecordWriter
from pipeline.stats_socket import StatsServer

DEMONSTRATION = pathlib.Path(__file__).parent / "configs" / "demonstration.toml"
"""The configuration of `run` without one."""
LINE_EVERY = 10.0
"""Seconds between the lines about a run that has no terminal to draw tables on."""


class Voice:
    """Says things to the user on stderr; while tables are drawn on the terminal, above them."""

    def __init__(self):
        self.console = None

    def __call__(self, text):
        if self.console is not None:
            self.console.print(str(text), markup=False, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)


class Signals:
    """The signals that end a run: SIGINT, SIGTERM and SIGHUP. A context manager.

    Until `hand_over` a signal raises KeyboardInterrupt; then it calls `engine.request_stop`; after `done` it is
    only answered with a word, so that cleaning up is not interrupted.
    """

    def __init__(self, say):
        self.say = say
        self.engine = None
        self.ending = False
        self.received = 0
        self._before = {}

    def __enter__(self):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # nohup has SIGHUP ignored, and that is to stay so.
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def hand_over(self, engine):
        """From now on a signal stops `engine`: the first lets it drain, the second is at once."""
        self.engine = engine

    def done(self):
        """From now on nothing is to be stopped any more."""
        self.ending = True

    def _receive(self, number, frame):
        self.received += 1
        if self.ending:
            self.say("cleaning up, one moment")
        elif self.engine is None:
            raise KeyboardInterrupt
        else:
            self.engine.request_stop()


@contextlib.contextmanager
def nothing_on_stdout():
    """Leads what anybody (DPDK and other C code as well) writes to stdout to stderr meanwhile."""
    sys.stdout.flush()
    saved = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(saved, 1)
        os.close(saved)


class Run:
    """One run of an engine, from making what is around it to the summary.

    `duration` is in seconds from the moment the engine is up, or None; `demonstrate` has a client of the bed ask
    all the time; `live` draws tables on stdout; `records` is a RecordWriter or None, `recorders` recorders.Recorders or None,
    `profile` a profiling.Asked or None.
    """

    def __init__(self, configuration, duration=None, demonstrate=False, live=False, records=None, recorders=None, profile=None):
        self.configuration = configuration
        self.duration = duration
        self.demonstrate = demonstrate
        self.live = live
        self.records = records
        self.recorders = recorders
        self.profile = profile
        self.say = Voice()
        self.engine = self.bed = self.demonstration = None
        self._asking = threading.Lock()
        self._state = "starting"

    def perform(self):
        """Runs until the duration is over, a signal comes or the engine dies.

        Returns the last snapshot with a `summary`; raises RunError or ConfigurationError. What was made is
        removed in any case.
        """
        started = time.monotonic()
        with Signals(self.say) as signals, contextlib.ExitStack() as around:
            try:
                self._set_up(around)
            except KeyboardInterrupt as error:
                signals.done()
                raise RunError("stopped while starting; nothing is left behind") from error
            except BaseException:
                signals.done()
                raise
            signals.hand_over(self.engine)
            self.say(f"{self.configuration.engine.name} is up after {time.monotonic() - started:.1f} s")
            try:
                snapshot = self._follow(signals)
            finally:
                signals.done()
        return snapshot

    def _set_up(self, around):
        """Makes everything there is and starts the engine; `around` (ExitStack) gets what takes it away again."""
        from pipeline.engine import Engine
        configuration = self.configuration
        if self.records:
            around.enter_context(self.records)
        if self.recorders:
            around.enter_context(self.recorders)
        around.enter_context(StatsServer(configuration.engine.stats_socket_path, self._answers()))
        if configuration.bed:
            from pipeline.bed import Bed
            self.bed = Bed(configuration.bed, configuration.engine.network_namespace, configuration.ports, self.say,
                           queues=len(configuration.engine.cores))
            around.callback(self.bed.remove)
            self.bed.prepare()
        engine = Engine(configuration, say=self.say, recorders=self.recorders, profiled=self.profile is not None)
        around.callback(engine.close)
        engine.start()
        self.engine = engine
        around.callback(self._retire)
        if self.bed:
            self.bed.attach()
            self.bed.serve()
            from pipeline.demonstration import Demonstration
            self.demonstration = around.enter_context(Demonstration(configuration, self.bed, self.say))
        if self.profile:
            engine.start_profile(self.profile.every, self.profile.warm_up)
        engine.begin()

    def _answers(self):
        """Returns what the statistics socket answers, by question."""
        return {"snapshot": self._snapshot, "profile": lambda: self._of_engine("profile"),
                "targets": lambda: self._of_engine("targets"),
                "target set": lambda identifier, state: self._of_engine("set_target", identifier, state),
                "reload": lambda path: self._of_engine("reload", path),
                "profile on": lambda: self._switch_profile("start_profile", EVERY, 0.0),
                "profile off": lambda: self._switch_profile("stop_profile")}

    def _switch_profile(self, method, *arguments):
        """Starts or stops the profile; returns what it has found."""
        self._of_engine(method, *arguments)
        return self._of_engine("profile")

    def _of_engine(self, method, *arguments):
        """Returns what a method of the engine does, while there is one."""
        with self._asking:
            if self.engine is None:
                raise RunError(f"{self.configuration.engine.name} is {self._state}")
            return getattr(self.engine, method)(*arguments)

    def _snapshot(self):
        """Returns the engine's snapshot, or what there is to say before it has started and after its end."""
        with self._asking:
            if self.engine is None:
                return {"name": self.configuration.engine.name, "state": self._state, "uptime": 0.0}
            return self.engine.snapshot()

    def _retire(self):
        """From now on nobody asks the engine, which is about to be closed."""
        with self._asking:
            self.engine, self._state = None, "stopped"

    def _follow(self, signals):
        """Shows what goes on until the worker has ended; returns the last snapshot with the summary."""
        begun, next_line = time.monotonic(), time.monotonic() + LINE_EVERY
        over = False
        with self._table() as table:
            if self.demonstration and self.demonstration.hint():
                self.say(f"send a request of your own: {self.demonstration.hint()}")
            while not self.engine.wait(1 / REFRESHES_PER_SECOND):
                now = time.monotonic()
                if self.profile and signals.received:
                    self.engine.stop_profile()
                if not over and (self.engine.complete or self.duration is not None and now - begun >= self.duration):
                    over = True
                    if self.profile:
                        self.engine.stop_profile()
                    # A second request would cut short the drain that a signal has begun.
                    if not signals.received:
                        self.engine.request_stop()
                snapshot = self.engine.snapshot()
                if self.demonstrate and snapshot.get("state") == "running":
                    self.demonstration.tick()
                self._write_records()
                if table:
                    table.update(snapshot, self._footer())
                elif now >= next_line:
                    next_line = now + LINE_EVERY
                    self.say(line_of(snapshot))
            self._write_records()
            snapshot = self.engine.snapshot()
            if table:
                table.update(snapshot, self._footer())
        if self.profile:
            self.engine.stop_profile()
            snapshot["profile"] = self.engine.profile()
        snapshot["summary"] = self._summary(snapshot, time.monotonic() - begun)
        return snapshot

    @contextlib.contextmanager
    def _table(self):
        """Yields the LiveTable on stdout, or None where none is wanted."""
        if not self.live:
            yield None
            return
        console = Console()
        with LiveTable(console) as table:
            self.say.console = console
            try:
                yield table
            finally:
                self.say.console = None

    def _footer(self):
        """Returns the lines below the tables."""
        lines = []
        if self.demonstrate:
            lines.append(requests_line(self.demonstration.summary()))
        if self.demonstration and self.demonstration.hint():
            lines.append(f"your own request: {self.demonstration.hint()}")
        return [*lines, "Ctrl-C ends it"]

    def _write_records(self):
        finished = self.engine.finished_records()
        if self.records is None:
            return
        healthy = not self.records.trouble
        self.records.write(finished)
        if healthy and self.records.trouble:
            self.say(self.records.trouble)

    def _summary(self, snapshot, elapsed):
        """Returns what the whole run came to (dict)."""
        summary = {"duration": round(elapsed, 3),
                   "connections": {key: total(snapshot, "connections", key) for key in ("opened", "closed", "open")},
                   "packets": total(snapshot, "packets"),
                   "dropped": sum(totals(snapshot, "drops").values())}
        faults = {port["name"]: port["faults"] for port in snapshot.get("ports", ()) if "faults" in port}
        if faults:
            summary["faults"] = faults
        if self.records:
            summary["records"] = {"file": str(self.records.path), "written": self.records.written,
                                  "lost": self.records.lost}
        if self.recorders:
            summary["recorded"] = self.recorders.summary()
        if self.demonstrate:
            summary["requests"] = self.demonstration.summary()
        if "generator" in snapshot:
            summary["generator"] = snapshot["generator"]
        return summary


def faults_of(summary):
    """Returns sentences (list of str) about what in a run's summary makes it a failed run."""
    found = generator_report.faults_of(summary["generator"]) if "generator" in summary else []
    records, requests = summary.get("records", {}), summary.get("requests", {})
    if records.get("lost"):
        found.append(f"{records['file']}: {records['lost']} session records could not be written")
    if requests.get("wrong") or requests.get("failed"):
        found.append(f"of {requests['requests']} requests {requests['wrong']} were answered by the wrong server and "
                     f"{requests['failed']} not at all; the last: {requests['latest_fault']}")
    return found


def requests_line(requests):
    """Returns the demonstration's summary in a line."""
    line = f"requests: {requests['right']:,} of {requests['requests']:,} answered by the server that they name"
    answers = ", ".join(f"{name} {count:,}" for name, count in requests.get("answers", {}).items())
    median = requests.get("latency_ms", {}).get("median")
    return line + (f" ({answers})" if answers else "") + (f", median {median:g} ms" if median is not None else "")


def line_of(snapshot):
    """Returns a snapshot in a line."""
    opened, now_open = (total(snapshot, "connections", key) for key in ("opened", "open"))
    return (f"{span(snapshot.get('uptime', 0.0))}: {opened:,} connections opened, {now_open:,} open, "
            f"{total(snapshot, 'packets'):,} packets, {sum(totals(snapshot, 'drops').values()):,} dropped")


def summary_text(snapshot):
    """Returns the summary of a run as text for people."""
    summary = snapshot["summary"]
    connections = summary["connections"]
    lines = [f"ran for {span(summary['duration'])}: {connections['opened']:,} connections opened, "
             f"{connections['closed']:,} closed, {connections['open']:,} left open; "
             f"{summary['packets']:,} packets, {summary['dropped']:,} dropped"]
    lines += [f"target {target.get('id')}: {target.get('connections', 0):,} connections"
              for target in snapshot.get("targets", ())]
    lines += fault_lines(snapshot)
    lines += generator_report.lines(summary.get("generator", {}))
    if "requests" in summary:
        lines.append(requests_line(summary["requests"]))
    if "records" in summary:
        lines.append(f"{summary['records']['written']:,} session records in {summary['records']['file']}")
    lines += [f"{what}: {tap['packets']:,} packets in {tap['file']}, {tap['dropped']:,} dropped for want of a buffer"
              for what, tap in summary.get("recorded", {}).items()]
    if "profile" in snapshot:
        lines.append(profile_report.text(snapshot["profile"]))
    return "\n".join(lines)


def recorders_for(recorded, configuration):
    """Returns the Recorders for a recorders.Recorded, or None where it names no file."""
    from pipeline.recorders import Recorders
    if recorded.received is None and recorded.sent is None:
        return None
    if recorded.received is not None and recorded.sent is not None and pathlib.Path(recorded.received).resolve() == pathlib.Path(
            recorded.sent).resolve():
        raise ConfigurationError(f"--record, --pcap-out {recorded.sent}: is one file for both; they must be two")
    if configuration.engine.mode == "generator":
        raise ConfigurationError('--record, --pcap-out: a generator (engine.mode = "generator") records nothing; '
                                 "record what the proxy at its other end gets")
    return Recorders(recorded, configuration.engine.cores)


def wanted_profile(profile, every, warm_up, plot):
    """Returns the profiling.Asked for the options of `run`, or None; any of them asks for a profile. Defaults stand for None."""
    if not profile and every is None and warm_up is None and plot is None:
        return None
    if plot is not None:
        profile_report.needs_matplotlib()
    return Asked(EVERY if every is None else every, WARM_UP if warm_up is None else warm_up, plot)


def records_writer(path, kind, configuration):
    """Returns the RecordWriter for the file `path`, or None; refuses one for an engine that keeps no records."""
    if path is None:
        return None
    if not configuration.engine.detailed_records:
        raise ConfigurationError(f"--records {path}: engine.detailed_records = false keeps none; it must be true")
    return RecordWriter(path, kind)
