"""OpenSSH with keys and a configuration of its own: sshd for a host of a bed, and ssh for another one to log in with."""
import pathlib
import subprocess

CONFIGURATION = """
ListenAddress {address}:{port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/client_key.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
"""
READY = "Server listening"
"""What sshd says on standard error once it serves."""


def server_words(folder, port, address="0.0.0.0"):
    """Puts keys and a configuration into `folder`; returns the words (list) that start sshd with them."""
    for key in ("host_key", "client_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / key], check=True)
    (folder / "sshd_config").write_text(CONFIGURATION.format(folder=folder, address=address, port=port))
    # Debian's sshd insists on its folder for privilege separation, which only its service makes.
    pathlib.Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    return ["/usr/sbin/sshd", "-D", "-e", "-f", folder / "sshd_config"]


def client_words(folder, port, address, command):
    """Returns the words (list) by which the client whose key is in `folder` has a shell there run `command`."""
    return ["ssh", "-i", folder / "client_key", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o",
            f"UserKnownHostsFile={folder}/known_hosts", "-o", "LogLevel=ERROR", "-p", port, f"root@{address}", command]
