"""The acceptance tests' network: a client and three servers round an engine, in two layouts on three devices.

    two_port   client ── 10.1.0.0/24 ── engine ── 10.2.0.0/24 ── s0, s1, s2
    one_arm    client, s0, s1, s2 ── 10.1.0.0/24 ── engine
"""
import contextlib
import os
import pathlib
import shutil
import tempfile
import time
from typing import NamedTuple

from pipeline import configuration
from pipeline.bed import Bed
from peers import content_servers
from peers.engine_process import EngineProcess, cores

SERVERS = ("s0", "s1", "s2")
SERVICE = "10.1.0.1"
"""The address at which all services listen."""
ANSWERS, LATE, ECHO, WEB, WEB_HOSTS, BULK, SHELL, SHUT, MISSING, SILENT, QUIET, FAULTY, TLS, LDAP, POSTGRESQL = (
    7000, 7001, 7002, 80, 81, 5201, 22, 7003, 7004, 7005, 7006, 7007, 443, 389, 5432)
"""Ports of the services; a target listens on the same one, except for the web's, on 8080.

ANSWERS and LATE choose by number, ECHO and QUIET by turns (QUIET drops strays), SHELL binds at the SYN; SHUT's target
refuses connections, MISSING's does not exist, SILENT's never answers a SYN. Who wants SILENT or the others served
starts the servers. TLS, LDAP and POSTGRESQL choose by content, and lead to the ports of `content_servers`."""

BY_CONTENT = {TLS: content_servers.TLS, LDAP: content_servers.LDAP, POSTGRESQL: content_servers.POSTGRESQL}
FAULTY_KERNEL = f"{pathlib.Path(__file__).parent / 'select_faulty.py'}:select"
DEVICES = {"af_packet": "net_af_packet{n},iface=px{n},blocksz=65536,framesz=2048,framecnt=2048",
           "tap": "net_tap{n},iface=pt{n}",
           "af_xdp": "net_af_xdp{n},iface=px{n}"}
TIMEOUTS = {"syn_received": 2.0, "first_data": 3.0, "connecting": 2.0, "established": 4.0, "half_closed": 4.0,
            "fin_wait": 2.0, "time_wait": 0.5}


class Layout(NamedTuple):
    """Where the tests run: "two_port" or "one_arm", on "af_packet", "tap" or "af_xdp", with so many workers.

    With `isolation` "checked" there is a further service, FAULTY, whose select kernel goes astray when it is asked to.
    """

    arms: str
    device: str
    workers: int = 1
    isolation: str = "off"

    def __str__(self):
        return f"{self.arms}-{self.device}-{self.workers}"


CHOSEN = [(device, int(workers)) for device in os.environ.get("BED_DEVICES", "af_packet tap").split()
          for workers in os.environ.get("BED_WORKERS", "1 2").split()]
USUAL = [Layout(arms, device) for device in ("af_packet", "tap") for arms in ("two_port", "one_arm")]
LAYOUTS = USUAL if not {"BED_DEVICES", "BED_WORKERS"} & set(os.environ) else [
    Layout(arms, device, workers) for device, workers in CHOSEN for arms in ("two_port", "one_arm")]
"""Every test runs in each of them. BED_DEVICES="af_packet tap af_xdp" and BED_WORKERS="1 2" name others: each with each.

`make test` has one worker there: with two, the engine, its ends and other tests want more than two cores give within the
seconds of TIMEOUTS (seen: two of 200 ended by a time-out). `test_workers` has several on memory ports."""


class Laboratory:
    """A bed, an engine on it and their files; `open_laboratory` makes it and takes it away."""

    def __init__(self, layout, folder, timeouts, exceptions=False, served=None):
        self.layout = layout
        self.timeouts = timeouts
        self.namespace = f"pt{os.getpid()}-{layout.arms.replace('_', '')}-{layout.device.replace('_', '')}{layout.workers}"
        self.text = configuration_text(layout, self.namespace, timeouts, exceptions, served)
        settings = configuration.parse(self.text, "the laboratory's configuration")
        self.bed = Bed(settings.bed, self.namespace, settings.ports, say=lambda words: None, queues=layout.workers)
        self.engine = EngineProcess(self.text.split("[bed]")[0], folder)
        self.folder = pathlib.Path(folder)

    def counters_at_rest(self):
        """The engine's counters once no connection is left in its table; fails if one outlives its time-outs."""
        deadline = time.monotonic() + sum(self.timeouts.values())
        while (stats := self.engine.stats())["workers"][0]["connections"]["open"]:
            assert time.monotonic() < deadline, f"connections are left in the table: {stats['workers'][0]}"
            time.sleep(0.05)
        connections = stats["workers"][0]["connections"]
        assert (connections["table"], connections["held"]) == (0, 0), f"entries are left without a connection: {connections}"
        return stats

    def counters_soon(self):
        """The engine's counters a moment from now, what is on its way having arrived."""
        time.sleep(0.2)
        return self.engine.stats()


@contextlib.contextmanager
def open_laboratory(layout, wait=True, exceptions=False, served=None, **timeouts):
    """A Laboratory with its engine running, or without `wait` starting, removed in the end whatever happens.

    With `exceptions` each port has an exception port, whose interface is called kx0, kx1. `served`: the targets and services (TOML)
    in place of the usual ones.
    """
    folder = tempfile.mkdtemp(prefix="laboratory-")
    laboratory = Laboratory(layout, folder, {**TIMEOUTS, **timeouts}, exceptions, served)
    try:
        laboratory.bed.prepare()
        laboratory.engine.start()
        if wait:
            laboratory.engine.wait_until_ready()
            laboratory.bed.attach()
            laboratory.bed.serve()
        yield laboratory
    finally:
        laboratory.engine.kill()
        laboratory.bed.remove()
        shutil.rmtree(folder)


def configuration_text(layout, namespace, timeouts, exceptions=False, served=None):
    """The configuration (TOML) of the engine and its bed."""
    targets, services = served or (_targets(layout), _services(layout))
    if exceptions:  # the kernel takes ports for connections of its own above these
        services = services.replace("[[services]]\n", "[[services]]\nsource_ports = [1024, 32767]\n")
    return "\n".join([f'[engine]\nname = "laboratory"\nnetwork_namespace = "{namespace}"\ndrain_timeout = 0.5\n'
                      f'isolation = "{layout.isolation}"\n',
                      *(f"{key} = {value}".lower() for key, value in cores(layout.workers).items()),
                      'huge_pages = "never"' * exceptions,  # another process of tests may want them
                      _ports(layout, exceptions), "[timeouts]", *(f"{key} = {value}" for key, value in timeouts.items()),
                      targets, services, _bed(layout)])


def _ports(layout, exceptions):
    addresses = ["10.1.0.1/24"] if layout.arms == "one_arm" else ["10.1.0.1/24", "10.2.0.1/24"]
    return "\n".join(f'[[ports]]\nname = "p{n}"\ndevice = "{DEVICES[layout.device].format(n=n)}"\n'
                     f'addresses = ["{address}"]\n'
                     + f'exception = {{ device = "net_tap{7 + n},iface=kx{n}" }}\n' * exceptions
                     for n, address in enumerate(addresses))


def _targets(layout):
    network = "10.1.0" if layout.arms == "one_arm" else "10.2.0"
    rows = [(f"{name}-{port}", f"{network}.{11 + index}", port) for index, name in enumerate(SERVERS)
            for port in (ANSWERS, LATE, ECHO, 8080, *BY_CONTENT.values())]
    rows += [(f"s0-{port}", f"{network}.11", port) for port in (BULK, SHELL, SHUT, SILENT)]
    rows += [(f"nobody-{MISSING}", f"{network}.99", MISSING)]
    return "\n".join(f'[[targets]]\nid = "{name}"\nip = "{ip}"\nport = {port}\n' for name, ip, port in rows)


def _services(layout):
    def everywhere(port):
        return [f"{name}-{port}" for name in SERVERS]

    def rules(pattern, port=8080):
        return "rules = [" + ", ".join(f'{{ match = "{pattern.format(name)}", target = "{name}-{port}" }}'
                                       for name in SERVERS) + "]"

    def by_content(name, port, select, pattern):
        return service_text(name, port, everywhere(BY_CONTENT[port]), f'select = "{select}"', rules(pattern, BY_CONTENT[port]))

    return "\n".join([
        service_text("answers", ANSWERS, everywhere(ANSWERS), 'select = "number_modulo"'),
        service_text("late", LATE, everywhere(LATE), 'select = "number_modulo"'),
        service_text("echo", ECHO, everywhere(ECHO)),
        service_text("quiet", QUIET, everywhere(ECHO), 'stray = "drop"'),
        service_text("web", WEB, everywhere(8080), 'select = "http_path"', rules("/{}")),
        service_text("web-hosts", WEB_HOSTS, everywhere(8080), 'select = "http_host"', rules("{}.example.org"),
                 'default = "s2-8080"'),
        service_text("bulk", BULK, [f"s0-{BULK}"]),
        service_text("shell", SHELL, [f"s0-{SHELL}"], 'binding = "immediate"'),
        service_text("shut", SHUT, [f"s0-{SHUT}"]),
        service_text("missing", MISSING, [f"nobody-{MISSING}"]),
        service_text("silent", SILENT, [f"s0-{SILENT}"]),
        by_content("tls", TLS, "tls_sni", "*.{}.example.org"),
        by_content("ldap", LDAP, "ldap_dn", "dc={}"),
        by_content("postgresql", POSTGRESQL, "postgresql_database", "{}"),
        *([service_text("faulty", FAULTY, everywhere(ECHO), f'select = "{FAULTY_KERNEL}"')] if layout.isolation == "checked" else []),
    ])


def service_text(name, port, targets, *more):
    """Returns a service (TOML); `more` are further lines of it."""
    listed = ", ".join(f'"{target}"' for target in targets)
    return "\n".join(["[[services]]", f'name = "{name}"', f'listen = "{SERVICE}:{port}"', f"targets = [{listed}]",
                      *more]) + "\n"


def _bed(layout):
    servers_port, network = ("p0", "10.1.0") if layout.arms == "one_arm" else ("p1", "10.2.0")
    hosts = [("client", "client", "p0", "10.1.0.2/24", "false")]
    hosts += [(name, "server", servers_port, f"{network}.{11 + index}/24", "true")
              for index, name in enumerate(SERVERS)]
    return f'[bed]\ndevice = "{layout.device}"\n' + "\n".join(
        f'[[bed.hosts]]\nname = "{name}"\nrole = "{role}"\nport = "{port}"\naddress = "{address}"\nweb = {web}\n'
        for name, role, port, address, web in hosts)
