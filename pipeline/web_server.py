"""A real web server, nginx, for one host of a bed: every answer says which server gave it."""
import pathlib
import shutil
import textwrap

from pipeline.errors import RunError

HEADER = "X-Server"
"""The response header that carries the host's name; the first line of the body carries it too."""

CONFIGURATION = """\
daemon off;
user nobody nogroup;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    default_type text/plain;
    sendfile on;
    client_max_body_size 0;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen {address}:{port} backlog=4096;
        add_header {header} {name} always;
        location / {{ return 200 "{name}\\n$request_method $request_uri of $http_host for $remote_addr\\n"; }}
        location /files/ {{ alias {folder}/files/; }}
    }}
}}
"""


class WebServerError(RunError):
    """The web server is not installed or did not start; the message says which."""


def program() -> str:
    """The path of nginx. Raises WebServerError if it is not installed."""
    found = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
    if found is None:
        raise WebServerError("nginx, the web server of the bed, is not installed (apt-get install nginx-light)")
    return found


def prepare(folder: pathlib.Path, name: str, address: str, port: int) -> list[str]:
    """Write the configuration of the server `name` at `address`:`port` into `folder`.

    Returns the arguments that start it in the foreground. Files put into `folder`/files are served as /files/NAME.
    Raises WebServerError if nginx is not installed.
    """
    files = folder / "files"
    files.mkdir(parents=True)
    for shared in (folder, files):
        shared.chmod(0o755)
    configuration = folder / "nginx.conf"
    configuration.write_text(CONFIGURATION.format(folder=folder, address=address, port=port, header=HEADER, name=name))
    return [program(), "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(configuration)]


def is_listening(folder: pathlib.Path) -> bool:
    """Whether the server of that folder takes connections: nginx writes its process number once its sockets listen."""
    return (folder / "nginx.pid").exists()


def complaint(folder: pathlib.Path) -> str:
    """What the server said against starting, in one line: its first complaint is the cause of those that follow."""
    log = folder / "error.log"
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return next((textwrap.shorten(line, 200) for line in lines if "[emerg]" in line), "it left no message")
