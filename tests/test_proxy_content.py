"""Select kernels by content with the programs that speak their protocols: one engine for all of them, three servers behind it."""
import re
import socket

import pytest
from ldap_messages import element, message
from test_select_postgresql import startup
from test_tcp_postgresql import GSS, SSL

from peers import laboratory as lab
from peers.capture import Capture
from peers.content_clients import curl, first_sizes, handshake_sizes, name_of, said, where, with_losses, with_mtu
from peers.content_servers import CLEAR, LDAP, MQTT, PLAIN, POSTGRESQL, REDIS, TLS, ContentServers
from peers.requirements import needs_bed, needs_nginx, needs_program

pytestmark = [needs_bed, needs_nginx, *(needs_program(*names) for names in (
    ("redis-server", "redis-server"), ("openssl", "openssl"), ("slapd", "slapd"), ("ldapsearch", "ldap-utils"), ("psql", "postgresql-client"), ("pg_ctlcluster", "postgresql"),
    ("mosquitto", "mosquitto"), ("mosquitto_pub", "mosquitto-clients"), ("nghttp", "nghttp2-client"), ("redis-benchmark", "redis-tools"), ("nft", "nftables")))]
NAMES, PROTOCOLS, PATHS_2, AUTHORITIES, PATHS, HOSTS, USERS = 443, 444, 81, 82, 80, 83, 5433
SERVICES = [
    ("tls_sni", NAMES, TLS, "s0.example.org", "*.s1.example.org", "s2.example.org"), ("tls_alpn", PROTOCOLS, TLS, "http/1.0", "http/1.1", "h2"),
    ("http2_path", PATHS_2, CLEAR, "/s0", "/s1", "/s2"), ("http2_authority", AUTHORITIES, CLEAR, "s0.org", "*.s1.org", "s2.org"),
    ("http_path", PATHS, PLAIN, "/", "/s1", ("/s1/exact", "exact = true")), ("http_host", HOSTS, PLAIN, "s0.org", "*.s1.org", "*.a.s1.org"),
    ("redis_user", REDIS, REDIS, "s0", "team-*", "default"), ("ldap_dn", LDAP, LDAP, "dc=s0", "dc=s1", "dc=s2"),
    ("postgresql_database", POSTGRESQL, POSTGRESQL, "s0", "app_*", "s2"), ("postgresql_user", USERS, POSTGRESQL, "s0", "app_*", "s2"),
    ("mqtt_client_id", MQTT, MQTT, "s0", "meter-*", "s2"), ("octets", 9, PLAIN, "a", "b", "c")]
"""Select kernel, the service's port, its targets' port, and a rule for each of the three servers."""


def served():
    """Returns targets and services (TOML)."""
    ports = sorted({port for _, _, port, *_ in SERVICES})
    targets = [f'[[targets]]\nid = "{name}-{port}"\nip = "10.2.0.{11 + number}"\nport = {port}\n'
               for number, name in enumerate(lab.SERVERS) for port in ports]
    services = []
    for select, port, served_at, *rules in SERVICES:
        names = [f"{name}-{served_at}" for name in lab.SERVERS]
        lines = [rule if isinstance(rule, tuple) else (rule,) for rule in rules]
        listed = ", ".join("{ " + ", ".join([f'match = "{match}"', f'target = "{name}"', *more]) + " }"
                           for (match, *more), name in zip(lines, names, strict=True))
        services.append(lab.service_text(select, port, names, f'select = "{select}"', f"rules = [{listed}]"))
    return "\n".join(targets), "\n".join(services)


@pytest.fixture(scope="module")
def laboratory():
    """The laboratory with these services; established connections may be silent for long."""
    with lab.open_laboratory(lab.Layout("two_port", "af_packet"), served=served(), established=60.0, connecting=20.0, first_data=30.0, syn_received=20.0) as opened:
        yield opened


@pytest.fixture(scope="module")
def bed(laboratory):
    """Its bed, with all servers on each of the three hosts."""
    with ContentServers(laboratory.bed) as servers:
        for name in lab.SERVERS:
            for serve in (servers.serve_web, servers.serve_redis, servers.serve_directory, servers.serve_database, servers.serve_broker):
                serve(name)
        yield laboratory.bed


@pytest.fixture(params=[1500, 576])
def mtu(bed, request):
    """The MTU of the client's interface."""
    with with_mtu(bed, request.param):
        yield request.param


@pytest.mark.parametrize(("host", "server"), [("s0.example.org", "s0"), ("a.S1.example.org", "s1"), ("s2.example.org", "s2")])
@pytest.mark.parametrize("version", ["--tlsv1.2", "--tlsv1.3"])
def test_https_goes_to_the_server_that_is_named(bed, mtu, host, server, version):
    words = [version, *(["--tls-max", "1.2"] if version == "--tlsv1.2" else [])]
    assert curl(bed, *words, "--resolve", f"{host}:{NAMES}:{lab.SERVICE}", f"https://{host}/") == f"{server} TLSv{version[-3:]}"


def test_https_to_a_name_that_nobody_has_is_refused(bed, mtu):
    assert "reset by peer" in curl(bed, "--resolve", f"s1.example.org:{NAMES}:{lab.SERVICE}", "https://s1.example.org/")


def test_a_client_hello_over_several_segments_is_read_to_its_name(bed):
    with with_mtu(bed, 576):
        answer, sizes = handshake_sizes(bed, name_of("s1"), NAMES)
        assert answer == "s1 TLSv1.3" and len(sizes) > 1 and max(sizes) <= 536, sizes


@pytest.mark.parametrize(("size", "least"), [(1500, 2), (576, 4)])
def test_a_client_hello_that_is_longer_than_a_segment_at_any_mtu(bed, size, least):
    protocols = ",".join(["http/1.1", *(f"{number:03}" + "x" * 240 for number in range(7))])
    with with_mtu(bed, size), Capture(bed, "client") as capture:
        process = bed.run_in("client", ["openssl", "s_client", "-quiet", "-tls1_3", "-connect", f"{lab.SERVICE}:{NAMES}", "-servername", "s2.example.org",
                                        "-alpn", protocols], stdin=-1, stdout=-1, stderr=-3)
        out, _ = process.communicate(b"GET / HTTP/1.0\r\n\r\n", timeout=30)
        sizes = first_sizes(capture.segments(), NAMES)
    assert out.endswith(b"s2 TLSv1.3") and len(sizes) >= least and max(sizes) <= size - 40, (out, sizes)


@pytest.mark.parametrize(("version", "server"), [("--http1.1", "s1"), ("--http2", "s1"), ("--http1.0", "s0")])
def test_https_goes_where_its_protocol_is_spoken(bed, version, server):
    assert curl(bed, version, f"https://{lab.SERVICE}:{PROTOCOLS}/") == f"{server} TLSv1.3"


@pytest.mark.parametrize(("path", "server"), [("/", "s0"), ("/s", "s0"), ("/s1", "s1"), ("/s1/x?/s1/exact", "s1"), ("/s1/exact", "s2"),
                                              ("/s1/exact?a=b", "s2"), ("/s1/exactly", "s1"), ("/" + "x" * 3000, "s0")])
def test_http_goes_by_path(bed, mtu, path, server):
    assert curl(bed, f"http://{lab.SERVICE}:{PATHS}{path}") == server


@pytest.mark.parametrize(("host", "server"), [("s0.org", "s0"), ("S0.ORG:83", "s0"), ("x.s1.org", "s1"), ("x.y.s1.org", "s1"), ("x.a.s1.org", "s2")])
def test_http_goes_by_host(bed, mtu, host, server):
    assert curl(bed, "-H", f"User-Agent: {'x' * 2000}", "-H", f"Host: {host}", f"http://{lab.SERVICE}:{HOSTS}/") == server


def test_http_of_a_host_that_nobody_has_is_refused(bed):
    assert "reset by peer" in curl(bed, "-H", "Host: s1.org", f"http://{lab.SERVICE}:{HOSTS}/")


@pytest.mark.parametrize("server", lab.SERVERS)
def test_http2_goes_by_path_and_by_authority(bed, mtu, server):
    assert curl(bed, "--http2-prior-knowledge", f"http://{lab.SERVICE}:{PATHS_2}/{server}/x") == server
    assert said(bed, "client", "nghttp", f"http://{lab.SERVICE}:{PATHS_2}/{server}/x") == server
    host = f"{'a.' * (server == 's1')}{server}.org"
    assert curl(bed, "--http2-prior-knowledge", "--resolve", f"{host}:{AUTHORITIES}:{lab.SERVICE}", f"http://{host}:{AUTHORITIES}/") == server
    assert said(bed, "client", "nghttp", "-H", f":authority: {host}", f"http://{lab.SERVICE}:{AUTHORITIES}/") == server


def test_http2_with_long_fields_goes_by_its_path_all_the_same(bed, mtu):
    fields = [word for number in range(4) for word in ("-H", f"x-{number}: {'y' * 1500}")]
    assert curl(bed, "--http2-prior-knowledge", *fields, f"http://{lab.SERVICE}:{PATHS_2}/s2") == "s2"
    assert said(bed, "client", "nghttp", *fields, f"http://{lab.SERVICE}:{PATHS_2}/s1") == "s1"


@pytest.mark.parametrize("server", lab.SERVERS)
def test_ldapsearch_goes_by_its_bind_dn(bed, mtu, server):
    words = ["ldapsearch", "-x", "-LLL", "-H", f"ldap://{lab.SERVICE}:{LDAP}", "-b", f"dc={server}", "-w", "secret", "-D"]
    for name in (f"cn=me,dc={server}", f"CN=me, DC={server.upper()}"):
        assert f"o: {server}" in said(bed, "client", *words, name, "o").splitlines()


@pytest.mark.parametrize("server", lab.SERVERS)
def test_a_search_without_a_bind_goes_by_its_base(bed, server):
    search = message(1, element(0x63, element(4, f"dc={server}".encode()) + element(10, b"\0") * 2 + element(2, b"\0") * 2 + element(1, b"\0")
                                + element(0x87, b"objectClass") + element(0x30, element(4, b"o"))))
    with bed.inside("client"):
        asking = socket.create_connection((lab.SERVICE, LDAP), 20)
    with asking:
        asking.sendall(search)
        came = b""
        while f"\1o1\4\4\2{server}".encode() not in came:
            more = asking.recv(4096)
            assert more, came
            came += more


@pytest.mark.parametrize(("database", "server"), [("s0", 0), ("app_1", 1), ("s2", 2)])
def test_psql_goes_by_database_and_by_user_with_its_own_settings(bed, mtu, database, server):
    assert where(bed, database) == f"10.2.0.{11 + server} {database} postgres"
    assert where(bed, "postgres", database, USERS) == f"10.2.0.{11 + server} postgres {database}"
    assert where(bed, None, database) == f"10.2.0.{11 + server} {database} {database}"


@pytest.mark.parametrize("mode", ["disable", "allow", "prefer"])
def test_psql_of_any_mode_that_does_without_encryption(bed, mode):
    assert where(bed, "s2", PGSSLMODE=mode) == "10.2.0.13 s2 postgres"


def test_psql_that_insists_on_encryption_is_told_that_there_is_none(bed, laboratory):
    assert "server does not support SSL, but SSL was required" in where(bed, "s0", PGSSLMODE="require")
    laboratory.counters_at_rest()


def test_psql_over_a_path_that_loses_a_sixth_comes_to_its_servers(bed, laboratory):
    asks = "psql -X -At -h {} -U postgres -d {} -c 'select host(inet_server_addr())'"
    text = " ".join(f"{asks.format(lab.SERVICE, name)} &" for name in ("s0", "app_1", "s2") * 14)
    before = laboratory.engine.stats()["workers"][0]["notices"]
    with with_losses(bed, POSTGRESQL, 16):
        lines = said(bed, "client", "bash", "-c", f"{text} wait", timeout=180).splitlines()
    assert {line: lines.count(line) for line in set(lines)} == {"10.2.0.11": 14, "10.2.0.12": 14, "10.2.0.13": 14}
    after = laboratory.engine.stats()["workers"][0]["notices"]
    assert after["requests_answered"] - before.get("requests_answered", 0) == 42
    assert after["answers_repeated"] > before.get("answers_repeated", 0)


@pytest.mark.parametrize("requests", [(GSS, SSL), (SSL, GSS), (GSS,)])
def test_who_asks_for_gssapi_too_is_told_no_twice_and_logs_in(bed, mtu, requests):
    with bed.inside("client"):
        asking = socket.create_connection((lab.SERVICE, POSTGRESQL), 20)
    with asking:
        for request in requests:
            asking.sendall(request)
            assert asking.recv(100) == b"N"
        asking.sendall(startup({b"user": b"postgres", b"database": b"app_1"}))
        assert asking.recv(9) == b"R\0\0\0\x08\0\0\0\0"    # AuthenticationOk
        asking.sendall(b"X\0\0\0\4")
        while asking.recv(4096):
            pass


def test_pgbench_with_many_connections_stays_with_its_server(bed, laboratory):
    before = laboratory.engine.stats()["workers"][0]["notices"].get("requests_answered", 0)
    words = ["pgbench", "-h", lab.SERVICE, "-U", "postgres", "-n", "-C", "-c", "4", "-t", "50", "-f", "/dev/stdin", "s0"]
    text = said(bed, "client", "sh", "-c", f"echo 'select 1;' | {' '.join(words)}")
    assert "number of transactions actually processed: 200/200" in text, text
    assert laboratory.engine.stats()["workers"][0]["notices"]["requests_answered"] - before >= 200


@pytest.mark.parametrize(("words", "server"), [(("--user", "s0", "--pass", "secret"), "s0"), (("--user", "team-1", "--pass", "secret"), "s1"),
                                               ((), "s2"), (("-3", "--user", "s0", "--pass", "secret"), "s0")])
def test_redis_goes_by_user(bed, words, server):
    told = said(bed, "client", "redis-cli", "-h", lab.SERVICE, "--no-auth-warning", *words, "config", "get", "maxclients")
    assert re.findall(r"10\d", told) == [f"10{server[1]}"], told


@pytest.mark.parametrize(("words", "server"), [(("--user", "team-1", "-a", "secret"), "s1"), ((), "s2")])
def test_redis_benchmark_runs_with_its_server(bed, words, server):
    told = said(bed, "client", "redis-benchmark", "-h", lab.SERVICE, *words, "-n", "20000", "-c", "50", "-P", "4", "-t", "set,get", "--csv")
    assert re.findall(r'"(SET|GET)","\d+', told) == ["SET", "GET"], told
    calls = said(bed, server, "redis-cli", "info", "commandstats")
    assert all(int(re.search(rf"cmdstat_{name}:calls=(\d+)", calls)[1]) >= 20_000 for name in ("set", "get")), calls


@pytest.mark.parametrize(("identity", "server"), [("s0", "s0"), ("meter-77", "s1"), ("s2", "s2")])
@pytest.mark.parametrize("version", ["mqttv31", "mqttv311", "mqttv5"])
def test_mosquitto_goes_by_client_id(bed, identity, server, version):
    reads = ["mosquitto_sub", "-h", lab.SERVICE, "-V", version, "-i", identity, "-C", "1", "-W", "20", "-t"]
    assert said(bed, "client", *reads, "host") == server
    assert said(bed, "client", "mosquitto_pub", "-h", lab.SERVICE, "-V", version, "-i", identity, "-r", "-t", f"left/{version}", "-m", identity) == ""
    assert said(bed, server, "mosquitto_sub", "-h", "127.0.0.1", "-C", "1", "-W", "20", "-t", f"left/{version}") == identity


def test_a_client_whose_id_nobody_serves_is_refused(bed):
    assert said(bed, "client", "mosquitto_pub", "-h", lab.SERVICE, "-i", "other", "-t", "a", "-m", "b") != ""
