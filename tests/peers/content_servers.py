"""Servers of many protocols on the hosts of a laboratory, each of which says on which host it is."""
import contextlib
import pathlib
import shutil
import socket
import subprocess
import tempfile
import time

TLS, CLEAR, REDIS, LDAP, POSTGRESQL, MQTT = 8443, 8082, 6379, 389, 5432, 1883
"""Ports that they listen on."""
NGINX = """daemon off; pid {folder}/nginx.pid; error_log stderr; events {{}}
http {{ access_log off; client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder}; uwsgi_temp_path {folder};
scgi_temp_path {folder}; large_client_header_buffers 8 64k; http2_max_field_size 64k; http2_max_header_size 128k;
server {{ listen 8443 ssl http2; ssl_protocols TLSv1.2 TLSv1.3;
ssl_certificate {folder}/cert.pem; ssl_certificate_key {folder}/key.pem; location / {{ return 200 "{name} $ssl_protocol"; }} }}
server {{ listen 8082 http2; location / {{ return 200 "{name}"; }} }}
server {{ listen 8083; location / {{ return 200 "{name}"; }} }} }}
"""
PLAIN = 8083
SLAPD = """include /etc/ldap/schema/core.schema
modulepath /usr/lib/ldap
moduleload back_mdb
pidfile {folder}/slapd.pid
database mdb
maxsize 1048576
suffix "dc={name}"
rootdn "cn=me,dc={name}"
rootpw secret
directory {folder}
"""
ENTRY = """dn: dc={name}
objectClass: organization
objectClass: dcObject
dc: {name}
o: {name}
"""
REDIS_TEXT = """bind 0.0.0.0
protected-mode no
save ""
dir {folder}
maxclients 10{number}
user s0 on >secret ~* +@all
user team-1 on >secret ~* +@all
"""
DATABASES = [f"{verb} {name}" for name in ("s0", "s1", "s2", "app_1") for verb in ("create database", "create role")]


class ContentServers:
    """Servers on the hosts of a bed; a context manager. Each host has its folder `folder / name`, which every user can enter."""

    def __init__(self, bed):
        self.bed, self._stack = bed, contextlib.ExitStack()

    def __enter__(self):
        self.folder = pathlib.Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="content-")))
        self.folder.chmod(0o755)
        self._made = set()
        return self

    def __exit__(self, *exception):
        self._stack.close()

    def _own(self, name):
        own = self.folder / name
        own.mkdir(exist_ok=True)
        own.chmod(0o755)
        return own

    def run(self, host, *words, stop=None, **more):
        """Runs a server on a host until the end; `stop`: the signal that ends it, else SIGKILL."""
        process = self.bed.run_in(host, [str(word) for word in words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **more)
        self._stack.callback(process.wait)
        self._stack.callback(process.kill if stop is None else lambda: process.send_signal(stop))
        return process

    def serve_web(self, name):
        """nginx on a host: TLS 1.2 and 1.3 with HTTP/1.1 and 2, HTTP/2 in the clear, and HTTP/1.1."""
        own = self._own(name)
        if "key" not in self._made:
            self._made.add("key")
            subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "9", "-subj",
                            "/CN=content", "-keyout", self.folder / "key.pem", "-out", self.folder / "cert.pem"], check=True, capture_output=True)
        for file in ("key.pem", "cert.pem"):
            shutil.copy(self.folder / file, own)
        (own / "nginx.conf").write_text(NGINX.format(folder=own, name=name))
        self.run(name, "nginx", "-c", own / "nginx.conf", "-p", own)
        return self._wait(name, TLS)

    def serve_redis(self, name):
        """Redis on a host, whose `maxclients` is its number behind 10."""
        own = self._own(name)
        (own / "redis.conf").write_text(REDIS_TEXT.format(folder=own, number=name[1:]))
        self.run(name, "redis-server", own / "redis.conf")
        return self._wait(name, REDIS)

    def serve_directory(self, name):
        """OpenLDAP on a host, for all below dc=`name`."""
        (own := self._own(name) / "ldap").mkdir()
        (own / "slapd.conf").write_text(SLAPD.format(folder=own, name=name))
        (own / "entry").write_text(ENTRY.format(name=name))
        subprocess.run(["slapadd", "-f", own / "slapd.conf", "-l", own / "entry"], check=True, capture_output=True)
        self.run(name, "slapd", "-d", "0", "-f", own / "slapd.conf", "-h", f"ldap://0.0.0.0:{LDAP}")
        return self._wait(name, LDAP)

    def serve_broker(self, name):
        """Mosquitto on a host, with a message "host" that is retained: its name."""
        own = self._own(name)
        (own / "mosquitto.conf").write_text(f"listener {MQTT} 0.0.0.0\nallow_anonymous true\n")
        self.run(name, "mosquitto", "-c", own / "mosquitto.conf")
        self._wait(name, MQTT)
        words = ["mosquitto_pub", "-h", "127.0.0.1", "-i", "maker", "-t", "host", "-r", "-q", "1", "-m", name]
        assert self.bed.run_in(name, words).wait(20) == 0

    def serve_database(self, name):
        """PostgreSQL on a host, with the databases and roles s0, s1, s2 and app_1; who connects is believed."""
        programs = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin"))[-1]
        own, first = self._own(name) / "postgresql", self.folder / "postgresql"
        as_user = ["setpriv", "--reuid", "postgres", "--regid", "postgres", "--clear-groups"]
        if "database" not in self._made:
            self._made.add("database")
            first.mkdir()
            shutil.chown(first, "postgres", "postgres")
            subprocess.run([*as_user, programs / "initdb", "-D", first, "-A", "trust", "-U", "postgres", "--no-sync", "--no-locale", "-E", "UTF8"],
                           check=True, capture_output=True, cwd="/")
            with open(first / "pg_hba.conf", "a") as access:
                access.write("host all all all trust\n")
            subprocess.run([*as_user, programs / "postgres", "--single", "-F", "-D", first, "postgres"], check=True, capture_output=True, cwd="/",
                           input="".join(f"{line}{' login' * ('role' in line)}\n" for line in DATABASES).encode())
        subprocess.run(["cp", "-a", first, own], check=True)
        self.run(name, *as_user, programs / "postgres", "-F", "-D", own, "-h", "0.0.0.0", "-p", POSTGRESQL, "-k", own, "-c", "shared_buffers=1MB",
                 "-c", "max_connections=60", stop=3, cwd="/")
        return self._wait(name, POSTGRESQL)

    def _wait(self, name, port):
        deadline = time.monotonic() + 20
        while True:
            with self.bed.inside(name), socket.socket() as asking:
                if asking.connect_ex(("127.0.0.1", port)) == 0:
                    return self
            assert time.monotonic() < deadline, f"nobody listens at port {port} of {name}"
            time.sleep(0.05)
