"""The services that the fuzz runs the engine with, and which target a service has to choose."""
import re
from typing import NamedTuple

from .ends import ECN, SACK, SCALING, STAMPS

HELD = 1024
"""Octets that the proxy may hold for a connection."""
TIMEOUTS = {"syn_received": 3.0, "first_data": 2.5, "connecting": 3.5, "established": 3.0, "half_closed": 2.0, "fin_wait": 1.5,
            "time_wait": 0.6}
SERVICE_ADDRESS, PROXY_ADDRESS = 0x0A010001, 0x0A020001
MORE, REFUSE = "more", "refuse"
FEW = 20000, 20023
"""Source ports of a service that uses each of them again and again (SPLICE 3.2)."""


class Target(NamedTuple):
    """A target, what it agrees to, and its window scale."""

    name: str
    place: tuple
    accepts: int
    scale: int


class Service(NamedTuple):
    """A service: `rule` is "number", "path", "turns" or "first" (bound at once)."""

    name: str
    place: tuple
    rule: str
    targets: tuple
    default: Target | None
    drops_strays: bool
    source_ports: tuple = (10000, 59999)

    @property
    def scarce(self):
        """Whether source ports toward its targets run out."""
        return self.source_ports == FEW


RULES = (("/a", 0), ("/b", 1), ("/a/long", 1))
ORDER = ("turns", "first", "path", "number")
"""How the configuration lists services: their select kernels get the numbers of the loop that most tests share."""
REQUEST = re.compile(rb"[^ \n]* ([^ \n]*) ")


def make_services(dice):
    """Returns the services of one episode: all rules for four groups of targets that agree to different options."""
    services = []
    for group, accepts in enumerate((SACK | STAMPS | SCALING | ECN, SACK | SCALING, STAMPS | ECN, dice.randrange(16))):
        targets = tuple(Target(f"t{group}{number}", (0x0A02000B + 4 * group + number, 8080), accepts,
                               dice.choice((0, 2, 7, 10, 14)) if accepts & SCALING else 0) for number in range(3))
        for number, rule in enumerate(("number", "path", "strict", "turns", "first")):
            services.append(Service(f"{rule}{group}", (SERVICE_ADDRESS, 7000 + 10 * group + number),
                                    "path" if rule == "strict" else rule, targets, targets[2] if rule == "path" else None,
                                    rule == "strict"))
    few = Target("few", (0x0A020063, 8080), SACK | STAMPS | SCALING | ECN, 7)
    services.append(Service("few", (SERVICE_ADDRESS, 7099), "turns", (few,), None, False, FEW))
    return services


def _text(place):
    return ".".join(str(place >> shift & 0xFF) for shift in (24, 16, 8, 0))


def configuration_text(services, connections):
    """Returns the engine's configuration (TOML)."""
    lines = ["[engine]", 'idle = "spin"', "burst = 64", f"connections = {connections}", f"held_bytes = {HELD}",
             f"held_connections = {connections}", "reset_rate = 10000000", "[timeouts]"]
    lines += [f"{name} = {seconds}" for name, seconds in TIMEOUTS.items()]
    for name, address, number in (("clients", SERVICE_ADDRESS, 0), ("servers", PROXY_ADDRESS, 1)):
        lines += ["[[ports]]", f'name = "{name}"', f'device = "net_null{number}"', f'addresses = ["{_text(address)}/24"]']
    for target in {target: None for service in services for target in service.targets}:
        lines += ["[[targets]]", f'id = "{target.name}"', f'ip = "{_text(target.place[0])}"', f"port = {target.place[1]}",
                  'mac = "02:bb:00:00:00:01"']
    for service in sorted(services, key=lambda service: ORDER.index(service.rule)):
        names = ", ".join(f'"{target.name}"' for target in service.targets)
        lines += ["[[services]]", f'name = "{service.name}"', f'listen = "{_text(service.place[0])}:{service.place[1]}"',
                  f"targets = [{names}]", f"source_ports = {list(service.source_ports)}"]
        if service.rule == "first":
            lines.append('binding = "immediate"')
        if service.rule == "number":
            lines.append('select = "number_modulo"')
        if service.rule == "path":
            rules = ", ".join(f'{{ match = "{match}", target = "{service.targets[member].name}" }}' for match, member in RULES)
            lines += ['select = "http_path"', f"rules = [{rules}]"]
        if service.default:
            lines.append(f'default = "{service.default.name}"')
        if service.drops_strays:
            lines.append('stray = "drop"')
    return "\n".join(lines)


def choose(service, held, complete):
    """Returns the targets that a service may choose for the octets held so far, MORE or REFUSE.

    `complete` says that no more will come: they fill their room, or a FIN is behind them.
    """
    fallback = (service.default,) if service.default else REFUSE
    if service.rule in ("turns", "first"):
        return service.targets
    if service.rule == "number":
        digits = re.match(rb"[0-9]{0,18}", held).group()
        if not digits:
            return fallback if held or complete else MORE
        return (service.targets[int(digits) % len(service.targets)],)
    line = held.lstrip(b"\r\n")      # empty lines before it are passed over (RFC 9112, section 2.2)
    found = REQUEST.match(line)
    if found is None:
        return fallback if complete or b"\n" in line else MORE
    path = found.group(1).decode("latin-1")
    matching = [(len(match), member) for match, member in RULES if path.startswith(match)]
    return (service.targets[max(matching)[1]],) if matching else fallback


def request(service, dice):
    """Returns the octets with which a client's stream begins."""
    if service.rule == "number":
        return (b"%d " % dice.randrange(1000)) if dice.random() < 0.93 else b"x number"
    if service.rule == "path":
        path = dice.choice((b"/a", b"/b/1", b"/a/longer", b"/c", b"/a/lon")) + b"y" * (
            dice.choice((0, 0, 5, 60, 300)) if dice.random() < 0.95 else 1500)
        return b"\r\n" * (dice.random() < 0.1) + b"GET " + path + (b" HTTP/1.1\r\n" if dice.random() < 0.95 else b"\n")
    return b"any"
