"""Who may connect, with real stacks: a flood of spoofed SYNs, limits, and lists that are taken anew; in the soak, for the time it takes."""
import contextlib
import pathlib
import socket
import threading

import pytest
from scapy.layers.inet import IP, TCP

from peers.engine_bed import open_engine_bed
from peers.requirements import needs_bed
from peers.servers import answer

pytestmark = [needs_bed]
OPEN, LISTED, FEW, SLOW, PORT = 7000, 7001, 7002, 7003, 9000
HOSTS = [("client", "client", "p0", "10.1.0.2"), ("other", "client", "p0", "10.1.0.66"), ("s0", "server", "p1", "10.2.0.11"),
         ("s1", "server", "p1", "10.2.0.12")]
TARGET = '[[targets]]\nid = "s{n}"\nip = "10.2.0.{host}"\nport = 9000\n{more}\n'
SERVICE = '[[services]]\nname = "{name}"\nlisten = "10.1.0.1:{port}"\ntargets = ["s0", "s1"]\n{more}\n'
SPOOFED = 1024
"""Different SYNs of the flood, which are sent again and again."""


def configuration_text(deny):
    """Returns targets, services and lists (TOML)."""
    return ("".join(TARGET.format(n=n, host=11 + n, more="max_connections = 20" * (n == 1)) for n in range(2))
            + SERVICE.format(name="open", port=OPEN, more="")
            + SERVICE.format(name="listed", port=LISTED, more=f'deny = ["{deny}"]')
            + SERVICE.format(name="few", port=FEW, more="limits = { connections_per_source = 5 }")
            + SERVICE.format(name="slow", port=SLOW, more="limits = { connections_per_second = 10, burst = 5 }"))


@pytest.fixture(scope="module")
def guarded():
    with open_engine_bed("guarded", configuration_text("10.1.0.64/26"), HOSTS,
                         engine='syn_cookies = "always"\nhuge_pages = "never"\nconnections = 4096\n') as made:
        for server in ("s0", "s1"):
            made.servers.listen(server, PORT, answer)
        yield made


@contextlib.contextmanager
def flood(made, service):
    """Within this, a host sends spoofed SYNs as fast as it can; gives a list that gets how many in the end."""
    frames = [bytes(IP(src=f"198.18.{n >> 8}.{n & 255}", dst="10.1.0.1") / TCP(sport=1024 + n * 7 % 60000, dport=service, flags="S", seq=n * 77777,
                                                                              options=[("MSS", 1460)])) for n in range(SPOOFED)]
    over, sent = threading.Event(), [0]

    def send():
        with made.bed.inside("other"), socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
            while not over.is_set():
                for frame in frames:
                    with contextlib.suppress(BlockingIOError, OSError):
                        raw.sendto(frame, ("10.1.0.1", 0))
                sent[0] += len(frames)

    sender = threading.Thread(target=send)
    sender.start()
    try:
        yield sent
    finally:
        over.set()
        sender.join()


def worker(made):
    """The statistics of the worker (dict)."""
    return made.engine.stats()["workers"][0]


def test_clients_are_served_in_the_midst_of_a_flood_and_the_table_does_not_grow(guarded):
    with flood(guarded, OPEN) as sent:
        answered = guarded.exchange(OPEN, 1000, at_once=20)
        seen = worker(guarded)
    assert sum(answered.values()) == 1000 and set(answered) == {"s0", "s1"}
    print(sent[0], "spoofed SYNs,", seen["notices"]["cookies_sent"], "cookies")
    assert seen["notices"]["cookies_sent"] > 5000 and seen["connections"]["opened"] <= 1000 + 20
    assert seen["states"]["syn_received"] == 0


def test_a_denied_source_gets_no_answer_until_the_lists_are_taken_anew(guarded):
    assert guarded.exchange(LISTED, 4, host="other", rest=1.5) == {"": 4}
    assert sum(guarded.exchange(LISTED, 4).values()) == 4
    again = pathlib.Path(guarded.engine.stats_path).with_name("again.toml")
    again.write_text(guarded.text.replace("10.1.0.64/26", "10.1.0.2/32"))
    assert "1 prefixes" in guarded.command("reload", again)
    assert sum(guarded.exchange(LISTED, 4, host="other").values()) == 4
    assert guarded.exchange(LISTED, 4, rest=1.5) == {"": 4}
    again.write_text(guarded.text.replace("10.1.0.64/26", "10.1.0.2/33"))
    assert "services[1].deny" in guarded.command("reload", again, status=2)
    assert sum(guarded.exchange(LISTED, 4, host="other").values()) == 4
    again.unlink()


def test_a_source_has_so_many_connections_and_the_next_ones_wait_for_room(guarded):
    """Clients send their SYNs again, so all are served in the end, some a second later."""
    assert sum(guarded.exchange(FEW, 20, at_once=20, rest=30).values()) == 20
    assert worker(guarded)["drops"]["source_full"] > 0


def test_a_service_has_so_many_new_connections_a_second(guarded):
    assert sum(guarded.exchange(SLOW, 20, at_once=20, rest=30).values()) == 20
    assert worker(guarded)["drops"]["service_rate"] > 0


def test_a_full_target_is_passed_over(guarded):
    answered = guarded.exchange(OPEN, 200, at_once=100)
    assert answered["s0"] > answered["s1"] > 0 and answered["s0"] + answered["s1"] == 200
