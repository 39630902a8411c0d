"""Clients with their own programs, whose first bytes say where they want to: HTTPS by name, LDAP by bind DN, PostgreSQL by database."""
import pytest

from peers import laboratory as lab
from peers.content_clients import handshake_sizes, name_of, said, where, with_mtu
from peers.content_servers import ContentServers
from peers.requirements import needs_bed, needs_nginx, needs_program

pytestmark = [needs_bed, needs_nginx, *(needs_program(*names) for names in (
    ("openssl", "openssl"), ("slapd", "slapd"), ("ldapsearch", "ldap-utils"), ("psql", "postgresql-client"), ("pg_ctlcluster", "postgresql")))]
SERVERS = lab.SERVERS[:2]


@pytest.fixture(scope="module")
def bed(laboratory):
    """The bed of the laboratory, with nginx, OpenLDAP and PostgreSQL on two hosts."""
    with ContentServers(laboratory.bed) as servers:
        for name in SERVERS:
            servers.serve_web(name)
            servers.serve_directory(name)
            servers.serve_database(name)
        yield laboratory.bed


@pytest.mark.parametrize("laboratory", lab.LAYOUTS[:1], indirect=True, ids=str)
class TestClients:
    """All with one laboratory."""

    def test_https_over_an_mtu_of_576_goes_where_several_segments_say(self, bed):
        with with_mtu(bed, 576):
            for name in SERVERS:
                answer, sizes = handshake_sizes(bed, name_of(name), lab.TLS)
                assert answer == f"{name} TLSv1.3" and len(sizes) > 1 and max(sizes) <= 536, sizes

    def test_ldapsearch_goes_where_its_name_lives(self, bed):
        for name in SERVERS:
            words = ["ldapsearch", "-x", "-LLL", "-H", f"ldap://{lab.SERVICE}:{lab.LDAP}", "-D", f"cn=me, DC={name}", "-w", "secret", "-b", f"dc={name}", "o"]
            assert f"o: {name}" in said(bed, "client", *words).splitlines()

    def test_psql_goes_to_the_server_of_its_database(self, bed, laboratory):
        for number, name in enumerate(SERVERS):
            assert where(bed, name) == f"10.2.0.{11 + number} {name} postgres"
        assert laboratory.engine.stats()["workers"][0]["notices"]["requests_answered"] == 2

    def test_psql_is_refused_a_database_that_nobody_has(self, bed):
        assert "server closed the connection" in where(bed, "nowhere")
