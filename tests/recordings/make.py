"""Makes the golden recordings anew: real programs over real kernel stacks, through the engine in a bed of namespaces.

    python tests/recordings/make.py                   all of them, as root
    python tests/recordings/make.py http ldap         some

For each session NAME there come NAME.recording, what the engine received (`run --record`), and NAME.expected, what it sent
(`run --pcap-out`): not what a replay of today's makes of it. A replay has to send the same, to the octet; that is checked here at
once. Needs curl, nginx-light, openssl, openssh-server and -client, iperf3, and for ldap slapd and ldap-utils (apt-get install;
with a policy-rc.d that says 101, so that no service starts: see the Makefile). The sessions:

    http     two GETs at once and one POST of 3000 octets, by curl, to two servers in turn (nginx)
    tls      a GET by curl over TLS 1.3, answered by openssl s_server with a certificate made for it
    ssh      ssh runs a command that writes and reads, sshd at the other end; immediate binding
    iperf3   a second of 100 KB by iperf3, 4 % of what comes in at either port lost
    ldap     ldapsearch binds, finds an entry and unbinds; slapd with a database made for it
"""
import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
NAMESPACE = "golden"
BED = """
[bed]
device = "af_packet"

[[bed.hosts]]
name = "client"
role = "client"
port = "clients"
address = "10.1.0.2/24"

[[bed.hosts]]
name = "a"
role = "server"
port = "servers"
address = "10.2.0.11/24"
web = true

[[bed.hosts]]
name = "b"
role = "server"
port = "servers"
address = "10.2.0.12/24"
web = true
"""
LOSS = "[ports.faults]\ndirection = \"receive\"\nloss = 0.04\nseed = {seed}\n"
MOST = 200_000
"""Octets that a file may have."""
SLAPD = """include /etc/ldap/schema/core.schema
modulepath /usr/lib/ldap
moduleload back_mdb
pidfile {folder}/slapd.pid
database mdb
suffix "dc=example,dc=org"
rootdn "cn=admin,dc=example,dc=org"
rootpw golden
directory {folder}/database
"""
ENTRIES = """dn: dc=example,dc=org
objectClass: dcObject
objectClass: organization
o: Example
dc: example

dn: cn=Ada,dc=example,dc=org
objectClass: person
cn: Ada
sn: Lovelace
"""


def at(host, *command, **options):
    """Starts a program on a host of the bed."""
    return subprocess.Popen(["ip", "netns", "exec", f"{NAMESPACE}-{host}", *map(str, command)], stdin=subprocess.DEVNULL, **options)


def done(host, *command):
    """Runs a program on a host of the bed to its end; it has to succeed within 20 s. Returns what it says."""
    process = at(host, *command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    said = process.communicate(timeout=20)[0]
    if process.returncode:
        raise SystemExit(f"{command}: exit status {process.returncode}\n{said}")
    return said


@contextlib.contextmanager
def served(host, port, *command):
    """A program that serves on a port of a host, from when it listens."""
    process = at(host, *command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(200):
            if f":{port} " in done(host, "ss", "-Htln"):
                break
            time.sleep(0.05)
        else:
            raise SystemExit(f"{command}: does not listen on {port}")
        yield
    finally:
        process.terminate()
        process.wait(10)


def http(folder):
    """Two GETs at once over a connection each, and a POST."""
    (folder / "form").write_bytes(bytes(range(32, 127)) * 32)
    gets = [at("client", "curl", "-sS", "http://10.1.0.1/one", stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [get.wait(10) for get in gets] == [0, 0]
    assert "POST /form" in done("client", "curl", "-sS", "--data-binary", f"@{folder}/form", "-H", "Expect:", "http://10.1.0.1/form")


def tls(folder):
    """A GET over TLS."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj",
                    "/CN=golden", "-keyout", key, "-out", certificate], check=True, capture_output=True)
    with served("a", 8443, "openssl", "s_server", "-accept", "8443", "-key", key, "-cert", certificate, "-www", "-quiet"):
        assert "TLSv1.3" in done("client", "curl", "-sSk", "https://10.1.0.1/")


def ssh(folder):
    """A command by ssh."""
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    pathlib.Path("/run/sshd").mkdir(exist_ok=True)
    settings = folder / "sshd_config"
    settings.write_text(f"Port 2222\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/user.pub\nStrictModes no\nUsePAM no\n"
                        f"PermitRootLogin yes\nPidFile {folder}/sshd.pid\nUseDNS no\n")
    with served("a", 2222, "/usr/sbin/sshd", "-D", "-e", "-f", settings):
        assert "5050" in done("client", "ssh", "-i", folder / "user", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
                              "-o", "LogLevel=ERROR", "root@10.1.0.1", "seq 100 | awk '{ sum += $1 } END { print sum }'")


def iperf3(folder):
    """100 KB a second over lossy ports."""
    with served("a", 5201, "iperf3", "-s", "-1"):
        report = json.loads(done("client", "iperf3", "-c", "10.1.0.1", "-t", "1", "-b", "800K", "-l", "4K", "-J"))
    assert report["end"]["sum_received"]["bytes"] >= 80_000 and report["end"]["sum_sent"]["retransmits"], report["end"]


def ldap(folder):
    """A search."""
    (folder / "database").mkdir()
    (folder / "slapd.conf").write_text(SLAPD.format(folder=folder))
    (folder / "entries.ldif").write_text(ENTRIES)
    subprocess.run(["/usr/sbin/slapadd", "-f", folder / "slapd.conf", "-l", folder / "entries.ldif"], check=True, capture_output=True)
    with served("a", 3890, "/usr/sbin/slapd", "-f", folder / "slapd.conf", "-h", "ldap://10.2.0.11:3890", "-d", "0"):
        assert "sn: Lovelace" in done("client", "ldapsearch", "-x", "-H", "ldap://10.1.0.1", "-D", "cn=admin,dc=example,dc=org", "-w", "golden",
                                      "-b", "dc=example,dc=org", "(cn=Ada)")


SESSIONS = {"http": http, "tls": tls, "ssh": ssh, "iperf3": iperf3, "ldap": ldap}


def configuration(name):
    """Returns the configuration (TOML) for a session: with the bed, and with losses for iperf3."""
    text = (HERE / "sessions.toml").read_text()
    if name == "iperf3":
        for seed, address in enumerate(("10.1.0.1", "10.2.0.1"), 1):
            line = f'addresses = ["{address}/24"]\n'
            text = text.replace(line, line + LOSS.format(seed=seed))
    return text + BED


def pipeline(*arguments, **options):
    """Starts the program of this checkout."""
    return subprocess.Popen([sys.executable, "-m", "pipeline", *map(str, arguments)], cwd=ROOT,
                            env={**os.environ, "PYTHONPATH": str(ROOT)}, **options)


def record(name, folder, recording, expected, *options):
    """Has the engine record a session in two files; returns the summary of its run (dict)."""
    (folder / "engine.toml").write_text(configuration(name))
    engine = pipeline("run", folder / "engine.toml", "--json", "--record", recording, "--pcap-out", expected, "--record-buffer", "8",
                      *options, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        for line in engine.stderr:
            if " is up after " in line:
                break
        else:
            raise SystemExit(f"{name}: the engine did not start")  # it has said why
        time.sleep(0.2)
        SESSIONS[name](folder)
        time.sleep(0.4)
        engine.send_signal(signal.SIGINT)
        return json.loads(engine.communicate(timeout=30)[0])["summary"]
    finally:
        if engine.poll() is None:
            engine.kill()
            engine.wait()


def make(name, folder):
    """Makes the golden recording of a session."""
    recording, expected = HERE / f"{name}.recording", HERE / f"{name}.expected"
    summary = record(name, folder, recording, expected)
    assert not sum(tap["dropped"] for tap in summary["recorded"].values()), summary
    assert max(file.stat().st_size for file in (recording, expected)) < MOST, "a file is too large"
    replayed = pipeline("replay", recording, HERE / "sessions.toml", "--expect", expected)
    if replayed.wait(300):
        raise SystemExit(f"{name}: a replay sends something else")


def main(names):
    """Makes the sessions of these names."""
    for name in names:
        print(name, flush=True)
        with tempfile.TemporaryDirectory(prefix=f"golden-{name}-") as folder:
            pathlib.Path(folder).chmod(0o755)
            make(name, pathlib.Path(folder))


if __name__ == "__main__":
    main(sys.argv[1:] or SESSIONS)
