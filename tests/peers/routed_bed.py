"""A client and a server that are not on the engine's own networks: a router stands before each, all kernel stacks.

    client ── west ── p0 engine p1 ── east ── server
    10.8.0.2          10.1.0.1  10.2.0.1      10.9.0.2

The link behind each router can be given a smaller MTU; the hosts on it still tell each other an MSS of 1460, as hosts do
that do not know: only ICMP says what fits.
"""
import contextlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile

from peers.engine_process import EngineProcess, cores
from peers.path_bed import LAST_OF_60_KIB, SERVICE
from pipeline import configuration
from pipeline.bed import Bed

ROUTERS = {"west": ("client", "10.1.0.254", "10.1.0.1", "10.8.0"), "east": ("server", "10.2.0.254", "10.2.0.1", "10.9.0")}
"""Each router: the host behind it, its address toward the engine, the engine's, and the network behind it."""
CLIENT, SERVER, NOBODY = "10.8.0.2", "10.9.0.2", "10.9.0.77"
"""The hosts' addresses, and one behind `east` that no host has."""
BULK, ABSENT = 7000, 7001
"""Services: the server, and NOBODY."""
PATIENCE = 20.0
"""Seconds that any step of a socket may take."""

CONFIGURATION = f"""[engine]
name = "routed"
network_namespace = "NAMESPACE"
drain_timeout = 0.5
held_bytes = 65472
held_connections = 64
[[ports]]
name = "p0"
device = "net_af_packet0,iface=px0,blocksz=65536,framesz=2048,framecnt=2048"
addresses = ["10.1.0.1/24"]
[[ports]]
name = "p1"
device = "net_af_packet1,iface=px1,blocksz=65536,framesz=2048,framecnt=2048"
addresses = ["10.2.0.1/24"]
[[routes]]
network = "10.8.0.0/24"
gateway = "10.1.0.254"
[[routes]]
network = "10.9.0.0/24"
gateway = "10.2.0.254"
[[targets]]
id = "server"
ip = "{SERVER}"
port = {BULK}
[[targets]]
id = "nobody"
ip = "{NOBODY}"
port = {ABSENT}
[[services]]
name = "bulk"
listen = "{SERVICE}:{BULK}"
targets = ["server"]
select = "SELECT"
[[services]]
name = "beside"
listen = "{SERVICE}:9"
targets = ["server"]
select = "{LAST_OF_60_KIB}"
[[services]]
name = "absent"
listen = "{SERVICE}:{ABSENT}"
targets = ["nobody"]
[bed]
device = "af_packet"
[[bed.hosts]]
name = "west"
role = "client"
port = "p0"
address = "10.1.0.254/24"
[[bed.hosts]]
name = "east"
role = "server"
port = "p1"
address = "10.2.0.254/24"
[[bed.hosts]]
name = "client"
role = "client"
port = "p0"
address = "10.1.0.3/24"
[[bed.hosts]]
name = "server"
role = "server"
port = "p1"
address = "10.2.0.3/24"
"""


class RoutedBed:
    """The bed, the engine's process and their files. `open_routed` makes one and takes it away."""

    def __init__(self, folder, select):
        namespace = f"pt{os.getpid()}-routed"
        said = "".join(f"{key} = {value}\n".lower() for key, value in cores().items())
        text = CONFIGURATION.replace("[engine]\n", f"[engine]\n{said}").replace("NAMESPACE", namespace).replace("SELECT", select)
        settings = configuration.parse(text, "the configuration of the routed bed")
        self.bed = Bed(settings.bed, namespace, settings.ports, say=lambda words: None, queues=len(settings.engine.cores))
        self.engine = EngineProcess(text.split("[bed]")[0], folder)

    def run(self, host, command):
        """Runs a command line in a host's namespace; returns what it printed."""
        process = self.bed.run_in(host, command.split(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        said, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, f"{host}: {command}: {said}"
        return said

    def prepare(self):
        """Makes hosts and routers; the hosts' own links to the engine are taken down, those to their routers made."""
        self.bed.prepare()
        for router, (host, _, engine, network) in ROUTERS.items():
            self.run(host, "ip link set eth0 down")
            self.run(router, f"ip link add far type veth peer name far netns {self.bed.namespace_of(host)}")
            for end, number in ((router, 1), (host, 2)):
                self.run(end, f"ip address add {network}.{number}/24 dev far")
                self.run(end, "ip link set far up")
            self.run(router, f"ip route add default via {engine}")
            self.run(host, f"ip route add default via {network}.1 advmss 1460")
            self.set_kernel(router, {"ip_forward": 1, "neigh/far/mcast_solicit": 1, "neigh/far/retrans_time_ms": 200})
            self.set_kernel(host, {"tcp_no_metrics_save": 1})

    def set_kernel(self, host, settings):
        """Writes settings ("ip_forward": 1) below net/ipv4 of a host's kernel."""
        with self.bed.inside(host):
            for setting, value in settings.items():
                (pathlib.Path("/proc/sys/net/ipv4") / setting).write_text(str(value))

    def set_mtu(self, router, mtu):
        """Gives the link behind a router an MTU, at both its ends; all paths are forgotten."""
        for host in (router, ROUTERS[router][0]):
            self.run(host, f"ip link set far mtu {mtu}")
        for host in ("client", "server"):
            self.run(host, "ip route flush cache")

    def path_mtu(self, host, peer):
        """What a host's kernel believes of the path to an address, by its sockets (list) and by its routes (or None)."""
        sockets = re.findall(r"pmtu:(\d+)", self.run(host, f"ss -tinH state established dst {peer}"))
        [route] = json.loads(self.run(host, f"ip -j route get {peer}"))
        learnt = next((metric["mtu"] for metric in route.get("metrics", []) if "mtu" in metric), None)
        return [int(each) for each in sockets], learnt

    def counter(self, host, name):
        """A counter of a host's kernel by its name in nstat."""
        return int(re.search(rf"^{name}\s+(\d+)", self.run(host, "nstat -asz"), re.MULTILINE)[1])

    def notices(self):
        """The engine's drops and notices that are not 0 (dict)."""
        [worker] = self.engine.stats()["workers"]
        return {name: count for table in ("drops", "notices") for name, count in worker[table].items() if count}


@contextlib.contextmanager
def open_routed(select="round_robin"):
    """A RoutedBed with its engine running, removed in the end whatever happens."""
    folder = tempfile.mkdtemp(prefix="routed-")
    routed = RoutedBed(folder, select)
    try:
        routed.prepare()
        routed.engine.start()
        routed.engine.wait_until_ready()
        yield routed
    finally:
        routed.engine.kill()
        routed.bed.remove()
        shutil.rmtree(folder)
