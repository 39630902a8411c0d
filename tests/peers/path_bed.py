"""One client, one or more servers and the engine on the path between them, as a proxy or as a plain wire.

    client 10.1.0.2 ── [ faults ] p0 engine p1 [ faults ] ── s0 10.2.0.11, s1 10.2.0.12, ...

Everything that a test or a measurement may want otherwise is an argument. The kernels of the hosts get buffers for paths
that are long and fast, and forget what they have measured: a transfer starts as if the path were new to it.
"""
import contextlib
import os
import pathlib
import shutil
import tempfile
import time

from configuration_text import table
from pipeline import configuration
from pipeline.bed import Bed
from peers.engine_process import WORKERS, EngineProcess, cores

SERVICE = "10.1.0.1"
"""Where the proxy listens; a plain wire leads to the servers' own addresses."""
FRAMES = 8192
"""Frames in each ring of a port: what arrives in 100 ms at a gigabit, should the engine be kept from its core."""
MBUFS = 65536 * WORKERS
"""Packets that all rings, and both ports' faults with a `queue` of up to 12,288 in each direction, can have at once."""
LONG_FAT = {"ipv4/tcp_rmem": "4096 131072 67108864", "ipv4/tcp_wmem": "4096 65536 67108864",
            "ipv4/tcp_no_metrics_save": "1"}
"""Settings of the hosts' kernels: 64 MiB for a connection either way, nothing remembered of earlier ones."""
TIMEOUTS = {"syn_received": 10.0, "first_data": 10.0, "connecting": 10.0, "established": 60.0, "half_closed": 60.0,
            "fin_wait": 10.0, "time_wait": 0.5}


class PathBed:
    """The bed, the engine's process and their files. `open_path` makes one and takes it away."""

    def __init__(self, name, folder, services, servers=1, mode="proxy", faults=None, engine=None, timeouts=None):
        self.mode = mode
        self.hosts = tuple(f"s{number}" for number in range(servers))
        self.timeouts = {**TIMEOUTS, **(timeouts or {})}
        self.folder = pathlib.Path(folder)
        namespace = f"pt{os.getpid()}-{name}"
        text = configuration_text(namespace, services, servers, mode, faults or {}, engine or {}, self.timeouts)
        settings = configuration.parse(text, f"the configuration of {name}")
        self.bed = Bed(settings.bed, namespace, settings.ports, say=lambda words: None, queues=len(settings.engine.cores))
        self.engine = EngineProcess(text.split("[bed]")[0], folder)

    def address_of(self, port, host="s0"):
        """Where a client connects to for a service: the proxy's address, or the server's own if the path is plain."""
        return (SERVICE if self.mode == "proxy" else server_address(self.hosts.index(host)), port)

    def set_kernel(self, host, settings):
        """Writes settings ("ipv4/tcp_sack": "0") of a host's kernel."""
        with self.bed.inside(host):
            for setting, value in settings.items():
                (pathlib.Path("/proc/sys/net") / setting).write_text(value)

    def prepare(self):
        """Makes the hosts; each has the other network on its own link, as a plain wire has it."""
        self.bed.prepare()
        for host in ("client", *self.hosts):
            self.set_kernel(host, LONG_FAT)
            other = "10.2.0.0/24" if host == "client" else "10.1.0.0/24"
            assert self.bed.run_in(host, ["ip", "route", "add", other, "dev", "eth0"]).wait(10) == 0

    def start(self):
        """Starts the engine and waits until it forwards."""
        self.engine.start()
        return self.engine.wait_until_ready()

    def counters_at_rest(self, within=None):
        """The engine's counters once no connection is left in its table; fails if one outlives its time-outs."""
        deadline = time.monotonic() + (sum(self.timeouts.values()) if within is None else within)
        while (stats := self.engine.stats())["workers"][0]["connections"]["open"]:
            assert time.monotonic() < deadline, f"connections are left in the table: {stats['workers'][0]}"
            time.sleep(0.05)
        connections = stats["workers"][0]["connections"]
        assert (connections["table"], connections["held"]) == (0, 0), f"entries are left without a connection: {connections}"
        return stats


@contextlib.contextmanager
def open_path(name, services, wait=True, **chosen):
    """A PathBed with its engine running (without `wait`: not yet started), removed in the end whatever happens."""
    folder = tempfile.mkdtemp(prefix="path-")
    path = PathBed(name, folder, services, **chosen)
    try:
        path.prepare()
        if wait:
            path.start()
        yield path
    finally:
        path.engine.kill()
        path.bed.remove()
        shutil.rmtree(folder)


def service(port, hosts=("s0",), target_port=None, **more):
    """A service for `open_path`: where it listens, its targets' hosts, and what else its table says."""
    return {"port": port, "hosts": hosts, "target_port": target_port or port, "more": more}


SELECTS = pathlib.Path(__file__).with_name("select_whole_message.py")
AFTER_LINE, LAST_OF_60_KIB = f"{SELECTS}:after_line", f"{SELECTS}:last_of_60_kib"
BESIDE = service(9, select=AFTER_LINE), service(10, select=LAST_OF_60_KIB)
"""Services that nobody uses, first of all in each configuration with either kernel: all of these share a loop, compiled once."""


def server_address(number):
    """The address of server `number`."""
    return f"10.2.0.{11 + number}"


def configuration_text(namespace, services, servers, mode, faults, engine, timeouts):
    """The configuration (TOML) of the engine and its bed. `faults` is for both ports, or one for each.

    A plain wire has no addresses.
    """
    settings = {"name": "path", "network_namespace": namespace, "drain_timeout": 0.5, "mbufs": MBUFS, **cores(), **engine}
    each = (faults, faults) if isinstance(faults, dict) else faults
    ports = [_port(number, mode, each[number]) for number in (0, 1)]
    if mode == "forward":
        return "\n".join([table("[engine]", {**settings, "mode": mode}), *ports, _bed(servers)])
    targets = {(host, each["target_port"]) for each in services for host in each["hosts"]}
    return "\n".join([
        table("[engine]", settings), *ports, table("[timeouts]", timeouts),
        *(table("[[targets]]", {"id": f"{host}-{port}", "ip": server_address(int(host[1:])), "port": port})
          for host, port in sorted(targets)),
        *map(_service, services),
        _bed(servers)])


def _port(number, mode, faults):
    device = f"net_af_packet{number},iface=px{number},blocksz=65536,framesz=2048,framecnt={FRAMES}"
    content = {"name": f"p{number}", "device": device}
    if mode == "proxy":
        content["addresses"] = [f"10.{number + 1}.0.1/24"]
    own = {**faults, "seed": faults.get("seed", 1) + number}
    return table("[[ports]]", content) + (table("[ports.faults]", own) if faults else "")


def _service(each):
    return table("[[services]]", {"name": f"service-{each['port']}", "listen": f"{SERVICE}:{each['port']}",
                                   "targets": [f"{host}-{each['target_port']}" for host in each["hosts"]], **each["more"]})


def _bed(servers):
    hosts = [("client", "client", "p0", "10.1.0.2/24")]
    hosts += [(f"s{number}", "server", "p1", f"{server_address(number)}/24") for number in range(servers)]
    return '[bed]\ndevice = "af_packet"\n' + "".join(
        table("[[bed.hosts]]", dict(zip(("name", "role", "port", "address"), host))) for host in hosts)
