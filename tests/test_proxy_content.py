"""Select kernels by content with the programs that speak their protocols: one engine for all, three servers behind it."""
import subprocess
import time

import pytest

from peers import laboratory as lab
from peers.requirements import needs_bed, needs_nginx, needs_program

pytestmark = [needs_bed, needs_nginx, needs_program("redis-server", "redis-server"), needs_program("openssl", "openssl")]
TLS, PROTOCOLS, CLEAR, AUTHORITIES, REDIS = 443, 444, 81, 82, 6379
SERVED = {TLS: 8443, PROTOCOLS: 8443, CLEAR: 8082, AUTHORITIES: 8082, REDIS: 6379}
SERVICES = {"tls_sni": (TLS, "s0.example.org", "*.s1.example.org", "s2.example.org"), "tls_alpn": (PROTOCOLS, "http/1.0", "http/1.1", "h2"),
            "http2_path": (CLEAR, "/s0", "/s1", "/s2"), "http2_authority": (AUTHORITIES, "s0.org", "*.s1.org", "s2.org"),
            "redis_user": (REDIS, "s0", "team-*", "default"),
            "ldap_dn": (389, "dc=s0", "dc=s1", "dc=s2"), "postgresql_database": (5432, "s0", "s1", "s2"),
            "postgresql_user": (5433, "s0", "s1", "s2"), "mqtt_client_id": (1883, "s0", "s1", "s2"), "octets": (9, "a", "b", "c")}
NGINX = """daemon off; pid {folder}/nginx.pid; error_log stderr; events {{}}
http {{ access_log off; client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder}; uwsgi_temp_path {folder};
scgi_temp_path {folder};
server {{ listen 8443 ssl http2; ssl_protocols TLSv1.2 TLSv1.3;
ssl_certificate {folder}/cert.pem; ssl_certificate_key {folder}/key.pem; location / {{ return 200 "{name}"; }} }}
server {{ listen 8082 http2; location / {{ return 200 "{name}"; }} }} }}
"""


def services_text(layout):
    """The services and targets in place of the laboratory's."""
    ports = sorted({SERVED.get(port, 8080) for port, *_ in SERVICES.values()})
    targets = [f'[[targets]]\nid = "{name}-{port}"\nip = "10.2.0.{11 + number}"\nport = {port}\n'
               for number, name in enumerate(lab.SERVERS) for port in ports]
    services = []
    for select, (port, *matches) in SERVICES.items():
        names = [f"{name}-{SERVED.get(port, 8080)}" for name in lab.SERVERS]
        rules = ", ".join(f'{{ match = "{match}", target = "{name}" }}' for match, name in zip(matches, names, strict=True))
        services.append(lab._service(select, port, names, f'select = "{select}"', f"rules = [{rules}]"))
    return targets, services


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """The laboratory, with nginx and Redis on each server."""
    patched, folder, running = pytest.MonkeyPatch(), tmp_path_factory.mktemp("content"), []
    targets, services = services_text(None)
    patched.setattr(lab, "_targets", lambda layout: "\n".join(targets))
    patched.setattr(lab, "_services", lambda layout: "\n".join(services))
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "9", "-subj",
                    "/CN=content", "-keyout", folder / "key.pem", "-out", folder / "cert.pem"], check=True, capture_output=True)
    with lab.open_laboratory(lab.Layout("two_port", "af_packet")) as laboratory:
        try:
            for name in lab.SERVERS:
                (own := folder / name).mkdir()
                for file in ("key.pem", "cert.pem"):
                    (own / file).write_bytes((folder / file).read_bytes())
                (own / "nginx.conf").write_text(NGINX.format(folder=own, name=name))
                running.append(laboratory.bed.run_in(name, ["nginx", "-c", str(own / "nginx.conf"), "-p", str(own)]))
                (own / "redis.conf").write_text(f"bind 0.0.0.0\nprotected-mode no\nsave \"\"\ndir {own}\nmaxclients 10{name[1]}\n"
                                                "user s0 on >secret ~* +@all\nuser team-1 on >secret ~* +@all\n")
                running.append(laboratory.bed.run_in(name, ["redis-server", str(own / "redis.conf")], stdout=subprocess.DEVNULL))
            time.sleep(2)
            yield laboratory
        finally:
            for process in running:
                process.kill()
                process.wait()
            patched.undo()


def said(laboratory, host, *words):
    """What a program on a host prints."""
    process = laboratory.bed.run_in(host, list(words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    out, errors = process.communicate(timeout=30)
    return out.strip() or errors.strip() * (process.returncode != 0)


def curl(laboratory, *words):
    """What curl prints."""
    return said(laboratory, "client", "curl", "-sSk", "--noproxy", "*", "--max-time", "20", *words)


@pytest.mark.parametrize(("host", "server"), [("s0.example.org", "s0"), ("a.S1.example.org", "s1"), ("s2.example.org", "s2"),
                                              ("s1.example.org", "reset by peer")])
@pytest.mark.parametrize("padding", [[], ["--curves", "X25519:P-256:P-384:P-521"]])
def test_https_goes_to_the_server_that_is_named(bench, host, server, padding):
    assert curl(bench, *padding, "--tlsv1.3", "--resolve", f"{host}:{TLS}:{lab.SERVICE}", f"https://{host}/").endswith(server)


@pytest.mark.parametrize(("version", "server"), [("--http1.1", "s1"), ("--http2", "s1"), ("--http1.0", "s0")])
def test_https_goes_where_its_protocol_is_spoken(bench, version, server):
    assert curl(bench, version, f"https://{lab.SERVICE}:{PROTOCOLS}/") == server


@pytest.mark.parametrize("server", lab.SERVERS)
def test_http2_goes_by_path_and_by_authority(bench, server):
    assert curl(bench, "--http2-prior-knowledge", f"http://{lab.SERVICE}:{CLEAR}/{server}/x") == server
    host = f"{'a.' * (server == 's1')}{server}.org"
    assert curl(bench, "--http2-prior-knowledge", "--resolve", f"{host}:{AUTHORITIES}:{lab.SERVICE}", f"http://{host}:{AUTHORITIES}/") == server


@pytest.mark.parametrize(("words", "server"), [(("--user", "s0", "--pass", "secret"), "s0"), (("--user", "team-1", "--pass", "secret"), "s1"),
                                               ((), "s2")])
def test_redis_goes_by_user(bench, words, server):
    assert said(bench, "client", "redis-cli", "-h", lab.SERVICE, "--no-auth-warning", *words, "config", "get", "maxclients").split()[-1:] == [f"10{server[1]}"]
