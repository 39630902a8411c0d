"""What perf/peers.py compares, each started on a lane of its bed: the engine, testpmd, HAProxy, nginx, nftables, nothing.

None is tuned, and each has one thread: HAProxy in mode tcp, nginx with its stream module, both without a log, the engine
without session records. testpmd forwards (io) what a device receives to the other as it is: what is left is the device's
own cost, and that of polling all the time. So the same is done by our engine, which rests when there is nothing ("wire").
testpmd runs only when nobody else on its core wants to (SCHED_IDLE): whom it polls for, it shall not keep from working.
"""
import pathlib
import shutil
import signal
import subprocess
import sys

from kernel_ends import KINDS
from peers_bed import run

from pipeline import network_namespace, stats_socket
from pipeline.errors import RunError

DEVICES = {"af_packet": "net_af_packet{n},iface={end},blocksz=65536,framesz=2048,framecnt=2048",
           "af_xdp": "net_af_xdp{n},iface={end}", "tap": "net_tap{n},iface={end}"}
MBUFS = 32768
WIRES = ("testpmd", "wire")
"""Kinds that hand a packet to the other side as it is: the client talks to the server itself."""
NGINX_STREAM = pathlib.Path("/usr/lib/nginx/modules/ngx_stream_module.so")
NEEDS = {"testpmd": ("dpdk-testpmd", "dpdk-dev"), "haproxy": ("haproxy", "haproxy"), "nginx": ("nginx", "libnginx-mod-stream"),
         "dnat": ("nft", "nftables")}
"""The program that a peer is, and Debian's package of it."""
CONNTRACK = {"ipv4/ip_forward": "1", "netfilter/nf_conntrack_tcp_timeout_time_wait": "1",
             "netfilter/nf_conntrack_tcp_timeout_close": "1", "netfilter/nf_conntrack_tcp_timeout_last_ack": "5"}
"""Entries of connections that have ended go before the table is full, as the engine's do."""


def missing(kind):
    """Returns a sentence that says which package a kind of peer needs, or None where it is there."""
    program, package = NEEDS.get(kind, (None, None))
    if program is None or (shutil.which(program) and (kind != "nginx" or NGINX_STREAM.exists())):
        return None
    return f"Debian's package {package} is not installed (apt-get install {package})"


class Peer:
    """A peer on its lane, being started; `wait` says when it is there. `device` is DPDK's, or None; `core` is its core.

    `kind`: direct, testpmd, wire (our engine in mode "forward"), engine, haproxy, nginx or dnat. `address` is where a client
    connects to, `program` what runs (None for the kernel), `number` its lane.
    """

    def __init__(self, bed, kind, device, core):
        self.bed, self.kind, self.device, self.core = bed, kind, device, core
        self.name = kind if device is None else f"{kind} {device}"
        self.lane, self.program, self.number = f"{kind}-{device}" if device else kind, None, 0
        self.ready = kind in ("direct", "dnat")
        if kind == "direct":
            self.address = "10.3.0.3"
            return
        self.number = bed.add_lane(self.lane, taps=device == "tap")
        self.address = f"10.2.{self.number}.2" if kind in WIRES else f"10.1.{self.number}.1"
        {"testpmd": self._testpmd, "engine": self._engine, "wire": self._wire, "haproxy": self._haproxy, "nginx": self._nginx,
         "dnat": self._dnat}[kind]()

    def wait(self):
        """Waits until it is ready and leaves it stopped; raises BedFailed if it does not get there."""
        if self.program is None:
            return
        self.program.wait_until(self._is_ready)
        if self.device == "tap":
            self.bed.take_taps(self.lane)
        self.program.pin(self.core)
        if self.kind == "testpmd":
            self.program.yield_to_others()
        self.program.signal(signal.SIGSTOP)
        self.ready = True

    @property
    def in_kernel_stack(self):
        """Whether its frames go through a kernel's stack all the way, which can cut and check them on behalf of the ends."""
        return self.device is None

    def _start(self, command, is_ready):
        self.program, self._is_ready = self.bed.program(self.lane, command, self.lane), is_ready

    def _file(self, suffix, text):
        path = self.bed.folder / f"{self.lane}.{suffix}"
        path.write_text(text)
        return path

    def _devices(self):
        ends = ("tc", "ts") if self.device == "tap" else ("pc", "ps")
        return [DEVICES[self.device].format(n=number, end=end) for number, end in enumerate(ends)]

    def _testpmd(self):
        command = ["stdbuf", "-oL", "dpdk-testpmd", "--no-huge", "-m", "256", "--no-shconf", "--no-pci", "--no-telemetry",
                   "--file-prefix", f"{self.bed.name}-{self.lane}", "--lcores", f"0@{self.core},1@{self.core}", "--log-level",
                   "error", *(word for device in self._devices() for word in ("--vdev", device)), "--", "--forward-mode=io",
                   "--nb-cores=1", "--no-mlockall", f"--total-num-mbufs={MBUFS}"]
        self._start(command, lambda: self.program.has_said("Press enter to exit"))

    def _wire(self):
        self._run('mode = "forward"', "")

    def _engine(self):
        text = "".join(f'[[targets]]\nid = "t{port}"\nip = "10.2.{self.number}.2"\nport = {port}\n'
                       f'[[services]]\nname = "s{port}"\nlisten = "10.1.{self.number}.1:{port}"\ntargets = ["t{port}"]\n'
                       for port in KINDS)
        self._run("connections = 131072\ndetailed_records = false", text + "[timeouts]\ntime_wait = 1\n")

    def _run(self, settings, more):
        """Starts our engine; what is not said here is its default: it sleeps when it has nothing to do (idle = "backoff")."""
        sockets = self.bed.folder / "sockets"
        sockets.mkdir(mode=0o700, exist_ok=True)
        self._socket = sockets / f"{self.lane}.sock"
        text = (f'[engine]\nname = "{self.lane}"\ncores = [{self.core}]\nmbufs = {MBUFS}\ndrain_timeout = 0\n'
                f'stats_socket = "{self._socket}"\n{settings}\n')
        for number, device in enumerate(self._devices()):
            text += f'[[ports]]\nname = "p{number}"\ndevice = "{device}"\n'
            if self.kind == "engine":
                text += f'addresses = ["10.{number + 1}.{self.number}.1/24"]\n'
        self._start([sys.executable, "-m", "pipeline", "run", self._file("toml", text + more), "--json"], self._runs)

    def _runs(self):
        try:
            return stats_socket.request(self._socket)["state"] == "running"
        except RunError:
            return False

    def _haproxy(self):
        self.bed.give_addresses(self.lane)
        text = ("global\n  nbthread 1\n  maxconn 4096\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 60s\n"
                "  timeout server 60s\n")
        text += "".join(f"listen l{port}\n  bind 10.1.{self.number}.1:{port}\n  server s 10.2.{self.number}.2:{port}\n"
                        for port in KINDS)
        self._start(["haproxy", "-db", "-f", self._file("cfg", text)], self._listens)

    def _nginx(self):
        self.bed.give_addresses(self.lane)
        text = (f"load_module {NGINX_STREAM};\ndaemon off;\nmaster_process off;\npid {self.bed.folder}/{self.lane}.pid;\n"
                "worker_rlimit_nofile 16384;\nerror_log stderr;\nevents { worker_connections 8192; }\nstream {\n")
        text += "".join(f"server {{ listen 10.1.{self.number}.1:{port}; proxy_pass 10.2.{self.number}.2:{port}; }}\n"
                        for port in KINDS)
        self._start(["nginx", "-e", "stderr", "-c", self._file("conf", text + "}\n")], self._listens)

    def _dnat(self):
        self.bed.give_addresses(self.lane)
        ports = ", ".join(map(str, KINDS))
        rules = self._file("nft", "table ip peers { chain arriving { type nat hook prerouting priority dstnat;\n"
                           f"ip daddr 10.1.{self.number}.1 tcp dport {{ {ports} }} dnat to 10.2.{self.number}.2\n}}\n}}\n")
        run("nsenter", f"--net={network_namespace.path(self.bed.namespace(self.lane))}", "nft", "-f", rules)
        self.bed.set_kernel(self.lane, CONNTRACK)

    def _listens(self):
        made = subprocess.run(["ss", "-ltnHN", self.bed.namespace(self.lane)], capture_output=True, text=True, check=False)
        return all(f":{port} " in made.stdout for port in KINDS)
