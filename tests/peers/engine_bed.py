"""An engine of a configuration of its own between real hosts, on af_packet, and what a test asks of it."""
import collections
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile

from peers.clients import exchange_all
from peers.engine_process import ROOT, EngineProcess
from peers.laboratory import cores
from peers.servers import Servers
from pipeline import configuration
from pipeline.bed import Bed

HOST = '[[bed.hosts]]\nname = "{}"\nrole = "{}"\nport = "{}"\naddress = "{}/24"\n'
ENGINE = '[engine]\nname = "{name}"\nnetwork_namespace = "{namespace}"\ndrain_timeout = 0.5\n{cores}\n{engine}\n'
PORT = ('[[ports]]\nname = "p{number}"\ndevice = "net_af_packet{number},iface=px{number},blocksz=65536,framesz=2048,framecnt=2048"\n'
        'addresses = ["10.{address}.0.1/24"]\n{more}\n')


class EngineBed:
    """An engine between hosts: (name, role, port, address) each. `engine` is more of its table, `ports` more of each port's."""

    def __init__(self, name, text, hosts, folder, engine="", ports=("", "")):
        namespace = f"{name[:6]}{os.getpid()}"
        head = ENGINE.format(name=name, namespace=namespace, engine=engine,
                             cores="\n".join(f"{key} = {value}".lower() for key, value in cores(1).items()))
        head += "".join(PORT.format(number=number, address=number + 1, more=more) for number, more in enumerate(ports))
        whole = head + text + '[bed]\ndevice = "af_packet"\n' + "".join(HOST.format(*host) for host in hosts)
        settings = configuration.parse(whole, str(folder) + "/engine.toml")
        self.bed = Bed(settings.bed, namespace, settings.ports, say=lambda words: None, queues=1)
        self.text = whole.split("[bed]")[0]
        self.engine = EngineProcess(self.text, folder)
        self.servers = None

    def command(self, *words, status=0):
        """`python -m pipeline ...` of this engine; returns what it prints. It has to end with `status`."""
        done = subprocess.run([sys.executable, "-m", "pipeline", *map(str, words), "--socket", str(self.engine.stats_path)], cwd=ROOT,
                              check=False, text=True, capture_output=True)
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr

    def counted(self, target, what):
        """What the engine has counted of a target (int): "refused", "timeouts", ..."""
        return {each["id"]: each[what] for each in self.engine.stats()["targets"]}[target]

    def exchange(self, service, count, at_once=200, host="client", **options):
        """So many connections; returns how many each server answered, "" for those that got no answer."""
        requests = [f"{2 * number + 1} is odd\n".encode() for number in range(count)]
        made = exchange_all(self.bed, host, ("10.1.0.1", service), requests, at_once=at_once, **options)
        print(host, service, collections.Counter(exchange.ended for exchange in made))
        return collections.Counter(exchange.received.split(b" ")[0].decode() for exchange in made)


@contextlib.contextmanager
def open_engine_bed(name, text, hosts, **options):
    """An EngineBed that runs, with its Servers, removed in the end whatever happens."""
    folder = tempfile.mkdtemp(prefix=f"{name}-")
    made = EngineBed(name, text, hosts, folder, **options)
    try:
        made.bed.prepare()
        made.engine.start()
        made.engine.wait_until_ready()
        made.bed.attach()
        with Servers(made.bed) as made.servers:
            yield made
    finally:
        made.engine.kill()
        made.bed.remove()
        shutil.rmtree(folder)
