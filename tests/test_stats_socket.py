"""The statistics socket: one question, one answer, for the engine's owner alone."""
import json
import os
import pathlib
import socket
import stat
import subprocess
import sys
import tempfile
import textwrap

import pytest

from pipeline import stats_socket
from pipeline.errors import RunError
from pipeline.stats_socket import StatsServer, request

NOBODY = 65534


@pytest.fixture
def path(tmp_path):
    return tmp_path / "own" / "x.sock"


def raw(path, text):
    """Returns what the server answers to these bytes, parsed."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        connection.sendall(text)
        connection.shutdown(socket.SHUT_WR)
        return json.loads(connection.makefile().readline())


def test_answers_what_is_asked_each_time_anew(path):
    asked = iter(range(100))
    with StatsServer(path, {"snapshot": lambda: {"n": next(asked), "text": "ä\n" * 100_000}}):
        assert [request(path)["n"] for _ in range(3)] == [0, 1, 2]


def test_only_the_owner_can_reach_it_and_nothing_is_left_behind(path):
    with StatsServer(path, {}):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert not path.parent.exists()


@pytest.mark.parametrize("text", [b"", b"\n", b"nonsense\n", b"[]\n", b'{"request": "x"}\n', b'{"request": []}\n',
                                  b"[" * 60_000, b"\xff\n", b"a" * 100_000])
def test_what_is_no_request_is_answered_with_those_there_are(path, text):
    with StatsServer(path, {"snapshot": dict}):
        assert raw(path, text) == {"error": 'not a request; known here: {"request": "snapshot"}'}
        assert request(path) == {}


def test_an_answer_that_fails_is_told_and_the_server_goes_on(path):
    with StatsServer(path, {"snapshot": dict, "bad": lambda: 1 // 0}):
        with pytest.raises(RunError, match="could not answer: ZeroDivisionError"):
            request(path, "bad")
        assert request(path) == {}


def test_a_client_that_says_nothing_does_not_keep_the_others_for_long(path, monkeypatch):
    monkeypatch.setattr(stats_socket, "PATIENCE", 0.2)
    with StatsServer(path, {"snapshot": dict}), socket.socket(socket.AF_UNIX) as silent:
        silent.connect(str(path))
        assert request(path) == {}


def test_a_live_engine_keeps_its_socket(path):
    with StatsServer(path, {"snapshot": lambda: {"first": True}}):
        with pytest.raises(RunError, match=f"an engine already answers at {path}"), StatsServer(path, {}):
            pass
        assert request(path) == {"first": True}


def test_the_socket_of_a_dead_engine_is_replaced(path):
    path.parent.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with pytest.raises(RunError, match="no engine is running that answers at"):
        request(path)
    with StatsServer(path, {"snapshot": dict}):
        assert request(path) == {}


def test_a_file_in_the_place_of_the_socket_is_not_touched(path):
    path.parent.mkdir(mode=0o700)
    path.write_text("precious")
    with pytest.raises(RunError, match="is no socket"), StatsServer(path, {}):
        pass
    assert path.read_text() == "precious"


def test_a_folder_that_others_may_enter_is_refused(path):
    path.parent.mkdir(mode=0o755)
    with pytest.raises(RunError, match="must be yours alone"), StatsServer(path, {}):
        pass


def as_nobody(path):
    """Returns what a process of another user gets from the server, as it prints it."""
    program = textwrap.dedent(f"""
        import contextlib, os, socket
        os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect({str(path)!r})
                with contextlib.suppress(BrokenPipeError):  # It may have been refused already.
                    connection.sendall(b'{{"request": "snapshot"}}\\n')
                print(connection.recv(4096).decode())
        except OSError as error:
            print(type(error).__name__)
    """)
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=20)
    return result.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user takes root")
def test_another_user_is_refused_by_the_folder_and_even_without_it_by_the_server():
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "x.sock")
        with StatsServer(path, {"snapshot": lambda: {"secret": 1}}):
            assert as_nobody(path).strip() == "PermissionError"
            path.parent.chmod(0o755)
            assert as_nobody(path).strip() == "PermissionError"
            path.chmod(0o666)
            assert json.loads(as_nobody(path)) == {
                "error": f"only the owner of the engine (uid 0) may ask, not uid {NOBODY}"}
            path.parent.chmod(0o700)
            assert request(path) == {"secret": 1}


def test_a_folder_changed_meanwhile_is_cleared_all_the_same(path):
    with StatsServer(path, {}):
        path.parent.chmod(0o755)
    assert not path.parent.exists()
    with StatsServer(path, {}):
        path.unlink()
        path.parent.rmdir()
    assert not path.parent.exists()


def test_finding_the_only_engine_or_naming_one(tmp_path, monkeypatch):
    monkeypatch.setattr(stats_socket, "default_folder", lambda: tmp_path)
    with pytest.raises(RunError, match="no engine is running"):
        stats_socket.find()
    with StatsServer(stats_socket.default_path("a"), {"snapshot": dict}):
        assert stats_socket.find() == str(tmp_path / "a.sock")
        with StatsServer(stats_socket.default_path("b"), {"snapshot": dict}):
            with pytest.raises(RunError, match="--name must be one of a, b"):
                stats_socket.find()
            assert stats_socket.find("b") == str(tmp_path / "b.sock")


def test_the_default_folder_belongs_to_a_user(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert stats_socket.default_path("x") == "/run/proxy-pipeline-0/x.sock"
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    assert stats_socket.default_path("x") == "/run/user/1000/proxy-pipeline/x.sock"
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert stats_socket.default_path("x") == "/tmp/proxy-pipeline-1000/x.sock"
