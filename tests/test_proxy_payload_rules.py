"""Payload rules with programs that people use: curl and nginx, ldapsearch and OpenLDAP."""
import shutil
import subprocess
import time

import pytest

from peers.path_bed import open_path, service
from peers.requirements import needs_bed, needs_nginx, needs_program

pytestmark = [needs_bed, needs_nginx]
WEB, SLOW, DIRECTORY = 8080, 8081, 389
LENGTH, RATE, BURST = 600_000, 1_000_000, 50_000
NGINX = """daemon off; user root; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{ access_log off; default_type text/plain; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{ listen 10.2.0.11:8080; root {folder}; location = /via {{ return 200 "via $http_x_via of $uri\\n"; }} }} }}
"""
SLAPD = """include /etc/ldap/schema/core.schema
modulepath /usr/lib/ldap
moduleload back_mdb
pidfile {folder}/slapd.pid
database mdb
maxsize 1048576
suffix "dc=example,dc=com"
rootdn "cn=me,dc=example,dc=com"
rootpw secret
directory {folder}
"""
ENTRIES = """dn: dc=example,dc=com
objectClass: organization
objectClass: dcObject
dc: example
o: example

dn: ou=people,dc=example,dc=com
objectClass: organizationalUnit
ou: people
"""


def rule(kernel, direction="to_target", **told):
    return {"direction": direction, "kernel": kernel, **told}


SERVICES = [
    service(WEB, payload_rules=[
        rule("refuse_pattern", search="/etc/passwd"), rule("insert_header", header="X-Via: the-proxy"),
        rule("replace", search="/long-forgotten", replace="/via", first=1000),
        rule("replace", "to_client", search="0123456789", replace="ten"), rule("count_pattern", "to_client", search="ten")]),
    service(SLOW, target_port=WEB, payload_rules=[rule("rate_limit", "to_client", rate=RATE, burst=BURST)]),
    service(DIRECTORY, payload_rules=[rule("ldap_guard", search="dc=a,dc=org", replace="dc=example,dc=com")])]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("servers")
    with open_path("prules", SERVICES) as path:
        serve_web(path, folder)
        yield path


def serve_web(path, folder):
    """Starts nginx on s0, which answers what X-Via it got, and files."""
    (folder / "digits").write_bytes(b"0123456789" * 20_000)
    (folder / "large").write_bytes(bytes(number * 7 % 251 for number in range(LENGTH)))
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder))
    path.bed.run_in("s0", ["nginx", "-p", folder, "-e", folder / "error.log", "-c", folder / "nginx.conf"])
    wait_for(path, 8080)


def wait_for(path, port):
    """Waits until something listens on a port of s0."""
    for _ in range(200):
        shown = path.bed.run_in("s0", ["ss", "-Hltn", f"sport = :{port}"], stdout=subprocess.PIPE).communicate()[0]
        if shown:
            return
        time.sleep(0.05)
    raise AssertionError(f"nobody listens on port {port}")


def run(path, *arguments):
    """Returns what a program on the client prints, and its exit status."""
    process = path.bed.run_in("client", arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return process.communicate(timeout=50)[0], process.returncode


def hits(path, port):
    shown = {each["name"]: each for each in path.engine.stats()["services"]}
    return [each["hits"] for each in shown[f"service-{port}"]["payload_rules"]]


def test_curl_has_a_header_inserted_and_its_path_replaced(path):
    before = hits(path, WEB)
    answer, status = run(path, "curl", "-sS", "http://10.1.0.1:8080/long-forgotten", "http://10.1.0.1:8080/via")
    assert status == 0 and answer.splitlines() == [b"via the-proxy of /via", b"via  of /via"], "the first request of a connection alone"
    assert [now - then for now, then in zip(hits(path, WEB), before, strict=True)] == [0, 1, 1, 0, 4]


def test_what_nginx_sends_is_replaced_across_all_its_segments(path):
    before = hits(path, WEB)
    answer, status = run(path, "curl", "-sS", "--ignore-content-length", "--max-time", "20", "-H", "Connection: close", "http://10.1.0.1:8080/digits")
    replaced, counted = (now - then for now, then in zip(hits(path, WEB)[3:], before[3:], strict=True))
    assert status == 0 and answer.count(b"ten") == replaced == counted - 2 and replaced >= 19_900, "Content- stands twice in the head"
    assert answer.replace(b"ten", b"0123456789") == b"0123456789" * 20_000


def test_a_refused_pattern_resets_curl(path):
    answer, status = run(path, "curl", "-sS", "http://10.1.0.1:8080/../etc/passwd", "--path-as-is")
    assert status == 56 and b"reset by peer" in answer


def test_a_limited_download_is_whole_and_had_segments_dropped(path):
    answer, status = run(path, "curl", "-sS", "--max-time", "45", "http://10.1.0.1:8081/large")
    assert status == 0 and answer == bytes(number * 7 % 251 for number in range(LENGTH))
    assert hits(path, SLOW)[0] > 0


@needs_program("slapd", "slapd")
@needs_program("ldapsearch", "ldap-utils")
def test_ldapsearch_is_refused_without_a_name_and_led_to_another_base_with_one(path, tmp_path):
    (tmp_path / "slapd.conf").write_text(SLAPD.format(folder=tmp_path))
    (tmp_path / "entries").write_text(ENTRIES)
    subprocess.run([shutil.which("slapadd"), "-f", tmp_path / "slapd.conf", "-l", tmp_path / "entries"], check=True, capture_output=True)
    path.bed.run_in("s0", ["slapd", "-d", "0", "-f", tmp_path / "slapd.conf", "-h", "ldap://10.2.0.11:389"])
    wait_for(path, DIRECTORY)
    asked = ["ldapsearch", "-x", "-LLL", "-H", "ldap://10.1.0.1:389", "-b", "dc=a, DC=org", "(ou=people)", "dn"]
    answer, status = run(path, *asked)
    assert status != 0 and b"Can't contact LDAP server" in answer
    answer, status = run(path, *asked[:1], "-D", "cn=me,dc=example,dc=com", "-w", "secret", *asked[1:])
    assert status == 0 and answer.strip() == b"dn: ou=people,dc=example,dc=com", answer
    assert hits(path, DIRECTORY) == [2]
