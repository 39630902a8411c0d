"""PROXY protocol with programs that people use: nginx and HAProxy read what we send, and we what HAProxy sends."""
import contextlib
import pathlib
import subprocess
import tempfile
import time

import pytest

from peers import laboratory as lab
from peers import shell
from peers.engine_process import EngineProcess
from peers.requirements import needs_bed, needs_nginx, needs_program
from pipeline import configuration
from pipeline.bed import Bed

pytestmark = [needs_bed, needs_nginx, needs_program("haproxy", "haproxy"), needs_program("ssh", "openssh-client"),
              needs_program("sshd", "openssh-server")]
WEB, SHELL, TAKEN, FRONT = 8101, 8102, 8103, 9000
"""Services: v1 to nginx; v2 to HAProxy before sshd, which speaks first; one that takes v2 of the HAProxy at FRONT and sends v1."""
NGINX = """worker_processes 1; pid {folder}/pid; error_log {folder}/error.log; daemon off;
events {{}}
http {{ access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{ listen {port} proxy_protocol; return 200 "$proxy_protocol_addr:$proxy_protocol_port at $proxy_protocol_server_port\\n"; }} }}
"""
HAPROXY = """global
  log stdout format raw local0
defaults
  mode tcp
  log global
  option tcplog
  timeout connect 5s
  timeout client 20s
  timeout server 20s
listen front
  bind {bind}
  log-format "%ci:%cp"
  server next {server}
"""


def text_of(layout, namespace):
    """Returns the configuration (TOML) of the engine and its bed."""
    head, services, bed = lab.configuration_text(layout, namespace, lab.TIMEOUTS).partition("[[services]]\n")
    bed = services + bed[bed.index("[bed]"):]
    targets = "".join(f'[[targets]]\nid = "t{port}"\nip = "10.2.0.11"\nport = {port}\n' for port in (WEB, SHELL))
    rows = [(WEB, WEB, 'proxy_protocol = "v1"'), (SHELL, SHELL, 'proxy_protocol = "v2"\nbinding = "immediate"'),
            (TAKEN, WEB, 'proxy_protocol = "v1"\naccept_proxy_protocol = ["10.1.0.0/24"]')]
    found = "".join(f'[[services]]\nname = "s{port}"\nlisten = "{lab.SERVICE}:{port}"\ntargets = ["t{to}"]\n{more}\n' for port, to, more in rows)
    return head + targets + found + bed.removeprefix("[[services]]\n")


class Line(lab.Laboratory):
    """A laboratory with services of its own."""

    def __init__(self, layout, folder):
        self.layout, self.timeouts, self.folder = layout, lab.TIMEOUTS, pathlib.Path(folder)
        self.namespace = f"pl-{pathlib.Path(folder).name[-6:]}"
        self.text = text_of(layout, self.namespace)
        settings = configuration.parse(self.text, "the line's configuration")
        self.bed = Bed(settings.bed, self.namespace, settings.ports, say=lambda words: None)
        self.engine = EngineProcess(self.text.split("[bed]")[0], folder)


@pytest.fixture(scope="module")
def line():
    """The line, with its engine and all programs running."""
    with tempfile.TemporaryDirectory(prefix="proxyline") as folder, contextlib.ExitStack() as stack:
        opened = Line(lab.Layout("two_port", "af_packet"), folder)
        stack.callback(opened.bed.remove)
        stack.callback(opened.engine.kill)
        opened.bed.prepare()
        opened.engine.start()
        opened.engine.wait_until_ready()
        opened.bed.attach()
        place = opened.folder
        (place / "nginx.conf").write_text(NGINX.format(folder=place, port=WEB))
        (place / "behind.cfg").write_text(HAPROXY.format(bind=f"10.2.0.11:{SHELL} accept-proxy", server="127.0.0.1:22"))
        (place / "before.cfg").write_text(HAPROXY.format(bind=f"10.1.0.2:{FRONT}", server=f"{lab.SERVICE}:{TAKEN} send-proxy-v2"))
        (place / "keys").mkdir()
        for host, words in (("s0", ["nginx", "-p", place, "-c", place / "nginx.conf"]), ("s0", ["haproxy", "-db", "-f", place / "behind.cfg"]),
                            ("client", ["haproxy", "-db", "-f", place / "before.cfg"]), ("s0", shell.server_words(place / "keys", 22))):
            log = open(place / f"log-{words[0].rpartition('/')[2]}-{host}", "wb")
            stack.callback(log.close)
            process = opened.bed.run_in(host, list(map(str, words)), stdout=log, stderr=subprocess.STDOUT)
            stack.callback(process.wait)
            stack.callback(process.kill)
        time.sleep(1)
        yield opened


def output_of(line, *words):
    """Returns what a program on the client prints (str); it has to end well."""
    process = line.bed.run_in("client", list(map(str, words)), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, errors = process.communicate(timeout=30)
    assert process.returncode == 0, (errors or out).decode()[-2000:]
    return out.decode()


def curl(line, port, address=lab.SERVICE):
    """Returns what nginx answers to curl and the port that curl has come from."""
    told, port = output_of(line, "curl", "-sS", "--max-time", 20, "-w", "%{local_port}", f"http://{address}:{port}/").splitlines()
    return told, int(port)


def test_nginx_sees_the_clients_own_address_by_version_1(line):
    told, port = curl(line, WEB)
    assert told == f"10.1.0.2:{port} at {WEB}"


def test_ssh_whose_server_speaks_first_passes_version_2_to_haproxy(line):
    words = shell.client_words(line.folder / "keys", SHELL, lab.SERVICE, "echo $SSH_CONNECTION; head -c 3000000 /dev/zero | wc -c")
    assert output_of(line, *words).splitlines()[1] == "3000000"
    deadline = time.monotonic() + 5
    while "10.1.0.2:" not in (log := (line.folder / "log-haproxy-s0").read_text()):
        assert time.monotonic() < deadline, log
        time.sleep(0.1)


def test_what_haproxy_tells_us_is_told_on_to_nginx(line):
    told, port = curl(line, FRONT, "10.1.0.2")
    assert told == f"10.1.0.2:{port} at {FRONT}"
    notices = line.engine.stats()["workers"][0]["notices"]
    assert notices["proxy_headers_taken"] == 1 and "proxy_headers_malformed" not in notices


def test_two_hundred_connections_each_tell_their_own_port(line):
    words = ["sh", "-c", f"for n in $(seq 200); do curl -sS --max-time 20 -w '%{{local_port}}\\n' http://{lab.SERVICE}:{WEB}/; done"]
    lines = output_of(line, *words).splitlines()
    assert [told.split(" ")[0] for told in lines[::2]] == [f"10.1.0.2:{port}" for port in lines[1::2]]
    assert len(lines) == 400


def test_a_client_that_is_trusted_and_sends_no_header_is_reset(line):
    process = line.bed.run_in("client", ["curl", "-sS", "--max-time", "20", f"http://{lab.SERVICE}:{TAKEN}/"], stderr=subprocess.PIPE)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 56, errors
