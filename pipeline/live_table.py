"""What a snapshot of an engine looks like on a terminal: tables of connections, packets and targets."""
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pipeline import generator_report

REFRESHES_PER_SECOND = 4
"""How often the live table is drawn anew at most."""


class LiveTable:
    """The tables of an engine on the Console `console`, redrawn in place. A context manager.

    `update` takes the latest snapshot (`Engine.snapshot`); rates are those since the one before.
    """

    def __init__(self, console):
        self._live = Live(console=console, auto_refresh=False, transient=False)
        self._rates = Rates()

    def __enter__(self):
        self._live.__enter__()
        return self

    def __exit__(self, *exception):
        self._live.__exit__(*exception)

    def update(self, snapshot, footer=()):
        """Draws `snapshot`, and below it the lines (strs) of `footer`."""
        self._live.update(render(snapshot, self._rates.of(snapshot), footer), refresh=True)


class Rates:
    """Numbers a second, from one snapshot to the next."""

    def __init__(self):
        self._before = None
        self._rates = {}

    def of(self, snapshot):
        """Returns a dict of name -> rate (float) since the snapshot given before; empty the first time."""
        now, numbers = snapshot.get("uptime", 0.0), _counted(snapshot)
        if self._before and now > self._before[0]:
            elapsed = now - self._before[0]
            self._rates = {name: (number - self._before[1].get(name, number)) / elapsed
                           for name, number in numbers.items()}
        self._before = (now, numbers)
        return self._rates


def _counted(snapshot):
    """Returns the numbers that rates are made of, by name."""
    numbers = {"packets": total(snapshot, "packets"), "opened": total(snapshot, "connections", "opened")}
    for port in snapshot.get("ports", ()):
        for key in ("received", "transmitted"):
            numbers[f"{port.get('name')} {key}"] = port.get(key, 0)
    for target in snapshot.get("targets", ()):
        numbers[f"target {target.get('id')}"] = target.get("connections", 0)
    return numbers


def total(snapshot, *keys):
    """Returns the sum over all workers of the number at `keys`; 0 where a worker has none."""
    found = 0
    for worker in snapshot.get("workers", ()):
        for key in keys:
            worker = worker.get(key, {})
        found += worker or 0
    return found


def totals(snapshot, *keys):
    """Returns a dict of name -> number that adds up the workers' dicts at `keys`."""
    added = {}
    for worker in snapshot.get("workers", ()):
        for key in keys:
            worker = worker.get(key, {})
        for name, number in worker.items():
            added[name] = added.get(name, 0) + number
    return added


def _number(value):
    return "–" if value is None else f"{value:,.0f}"


def _rate(rates, name):
    return f"{rates[name]:,.0f}" if name in rates else "–"


def span(seconds):
    """Returns a span of time (float, seconds) as people read it, such as `1:02:03` or `12.3 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def render(snapshot, rates=None, footer=()):
    """Returns the renderable of a snapshot; `rates` is what `Rates.of` gives."""
    rates = rates or {}
    parts = [_title(snapshot), _connections(snapshot, rates), _ports(snapshot, rates), _targets(snapshot, rates),
             _services(snapshot)]
    for title, numbers in [("dropped", totals(snapshot, "drops")), *_causes(snapshot)]:
        words = ", ".join(f"{name} {number:,}" for name, number in numbers.items() if number)
        if words:
            parts.append(Text(f"{title}: {words}"))
    parts += map(Text, fault_lines(snapshot))
    parts += map(Text, generator_report.lines(snapshot.get("generator", {})))
    unresolved = [neighbour for neighbour in snapshot.get("neighbours", ()) if not neighbour.get("mac")]
    if unresolved:
        parts.append(Text("no MAC yet for " + ", ".join(str(each.get("address")) for each in unresolved), "yellow"))
    return Group(*(part for part in parts if part is not None), *(Text(str(line)) for line in footer))


def fault_lines(snapshot):
    """Returns a line (str) for each port and direction that has faults: what they have done."""
    return [f"faults at port {port.get('name')}, {direction}: "
            + ", ".join(f"{name.replace('_', ' ')} {number:,}" for name, number in counted.items() if number or name == "packets")
            for port in snapshot.get("ports", ()) for direction, counted in port.get("faults", {}).items()]


def _causes(snapshot):
    """Returns (title, dict of cause -> number) for each side, or once where a snapshot does not tell them apart."""
    sides = [side for side in ("client", "target")
             if any(side in worker.get("release_causes", {}) for worker in snapshot.get("workers", ()))]
    if sides:
        return [(f"released, {side} side", totals(snapshot, "release_causes", side)) for side in sides]
    return [("released", totals(snapshot, "release_causes"))]


def _title(snapshot):
    pool = snapshot.get("pool", {})
    words = f"{snapshot.get('name', '?')}  {snapshot.get('state', '?')}  {span(snapshot.get('uptime', 0.0))}"
    if pool:
        words += f"  {_number(pool.get('available'))} of {_number(pool.get('mbufs'))} mbufs free"
    return Text(words, "bold")


def _table(*columns):
    """Returns an empty Table; columns after the first are right-aligned numbers."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left", no_wrap=True)
    return table


def _connections(snapshot, rates):
    table = _table("connections", "open", "opened", "closed", "opened/s", "packets", "packets/s")
    counts = [total(snapshot, "connections", key) for key in ("open", "opened", "closed")]
    table.add_row("", *map(_number, counts), _rate(rates, "opened"), _number(total(snapshot, "packets")),
                  _rate(rates, "packets"))
    states = {state: count for state, count in totals(snapshot, "states").items() if count}
    if states:
        return Group(table, Text("by state: " + ", ".join(f"{state} {count:,}" for state, count in states.items())))
    return table


def _ports(snapshot, rates):
    table = _table("port", "received", "/s", "transmitted", "/s", "missed", "errors", "unsent")
    for port in snapshot.get("ports", ()):
        name = str(port.get("name"))
        table.add_row(name, _number(port.get("received")), _rate(rates, f"{name} received"),
                      _number(port.get("transmitted")), _rate(rates, f"{name} transmitted"),
                      *(_number(port.get(key)) for key in ("missed", "errors", "unsent")))
    return table if table.row_count else None


def _targets(snapshot, rates):
    table = _table("target", "state", "address", "open", "connections", "/s", "refused", "timeouts")
    for target in snapshot.get("targets", ()):
        name = str(target.get("id"))
        table.add_row(name, str(target.get("state", "")), f"{target.get('ip')}:{target.get('port')}", _number(target.get("open")),
                      _number(target.get("connections")), _rate(rates, f"target {name}"),
                      _number(target.get("refused")), _number(target.get("timeouts")))
    return table if table.row_count else None


def _services(snapshot):
    table = _table("service", "listens on", "open", "connections")
    for service in snapshot.get("services", ()):
        table.add_row(str(service.get("name")), str(service.get("listen")), _number(service.get("open")),
                      _number(service.get("connections")))
    return table if table.row_count else None
