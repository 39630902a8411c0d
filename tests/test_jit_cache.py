"""The cache of compiled kernels: it notices every source, bounds checks have theirs, one process compiles for all."""

import json
import os
import pathlib
import subprocess
import sys
import textwrap
import time

import pytest
from numba.core import config

ROOT = pathlib.Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.skipif(bool(config.DISABLE_JIT), reason="without the jit there is no cache")

SOURCES = {
    "near": """
        from pipeline.kernels.jit import loop
        from middle import twice

        @loop
        def asked(values):
            return twice(values[0])
        """,
    "middle": """
        from pipeline.kernels.jit import kernel
        from far import FACTOR, add

        @kernel
        def twice(value):
            return add(value * FACTOR)
        """,
    "far": """
        from pipeline.kernels.jit import kernel
        FACTOR = 2

        @kernel
        def add(value):
            return value + 1
        """,
    "outside": """
        from pipeline.kernels.jit import kernel, loop

        @kernel
        def read(values, place):
            return values[place]

        @loop
        def asked(values):
            return read(values[:4], 4)

        @loop
        def written(values):
            values[:4][values.shape[0] - 2] = 1
            return 0
        """,
    "stranger": "NUMBER = 1\n",
}

RUNNER = """
import json, sys
import numpy as np
from numba.core import event
recorder = event.RecordingListener()
with event.install_listener("numba:compile", recorder):
    module = __import__(sys.argv[1])
    try:
        found = int(getattr(module, sys.argv[2])(np.array([5, 6, 7, 8, 99, 100], np.int64)))
    except IndexError:
        found = "IndexError"
compiled = [happened.data["dispatcher"].py_func.__name__ for _, happened in recorder.buffer if happened.is_start]
print(json.dumps([found, compiled]))
"""


@pytest.fixture
def folder(tmp_path):
    """A folder with the SOURCES; its compiled kernels go to a cache of its own."""
    for name, text in SOURCES.items():
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(text).lstrip())
    return tmp_path


def environment(folder, checked=False):
    variables = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_")}
    variables |= {"PYTHONPATH": str(ROOT), "PIPELINE_CACHE": str(folder / "cache"), "PYTHONDONTWRITEBYTECODE": "1"}
    return variables | ({"NUMBA_BOUNDSCHECK": "1"} if checked else {})


def asked(folder, module="near", function="asked", checked=False, runner=RUNNER):
    """Calls a function in a process of its own; returns its answer and the names of what was compiled for it."""
    done = subprocess.run(
        [sys.executable, "-c", runner, module, function],
        cwd=folder,
        env=environment(folder, checked),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def edit(folder, name, old, new):
    """Changes a source. Its time stamp and size may stay what they were: the digest has to tell."""
    path = folder / f"{name}.py"
    before = path.stat()
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_second_process_compiles_nothing(folder):
    answer, compiled = asked(folder)
    assert answer == 11 and {"asked", "twice", "add"} <= set(compiled)
    assert asked(folder) == [11, []]
    assert not list(folder.rglob("__pycache__/*.nb?")) and list((folder / "cache" / "kernels").rglob("*.nbi"))


def test_a_kernel_two_files_away_that_is_edited_is_noticed(folder):
    asked(folder)
    edit(folder, "far", "value + 1", "value + 3")
    assert asked(folder)[0] == 13
    assert asked(folder) == [13, []]


def test_a_constant_two_files_away_that_is_edited_is_noticed(folder):
    asked(folder)
    edit(folder, "far", "FACTOR = 2", "FACTOR = 4")
    assert asked(folder)[0] == 21


def test_an_edit_that_is_taken_back_gives_the_old_answer(folder):
    asked(folder)
    edit(folder, "far", "value + 1", "value + 3")
    asked(folder)
    edit(folder, "far", "value + 3", "value + 1")
    assert asked(folder)[0] == 11


def test_a_file_that_is_not_imported_does_not_count(folder):
    asked(folder)
    edit(folder, "stranger", "NUMBER = 1", "NUMBER = 2")
    assert asked(folder) == [11, []]


def test_a_type_that_has_moved_to_another_module_since_is_no_obstacle(folder):
    """Numba unpickles what it has kept before it asks whether that is stale."""
    (folder / "shapes.py").write_text("from typing import NamedTuple\n\nclass Pair(NamedTuple):\n    left: int\n    right: int\n")
    (folder / "pairs.py").write_text(textwrap.dedent("""
        from pipeline.kernels.jit import kernel, loop
        from shapes import Pair

        @kernel
        def total(pair):
            return pair.left + pair.right

        @loop
        def asked(values):
            return total(Pair(values[0], values[1]))
        """))
    assert asked(folder, "pairs")[0] == 11
    (folder / "figures.py").write_text((folder / "shapes.py").read_text())
    (folder / "shapes.py").write_text("")
    edit(folder, "pairs", "from shapes", "from figures")
    assert asked(folder, "pairs")[0] == 11


def test_a_module_of_a_package_imported_relatively_is_noticed(folder):
    package = folder / "mine"
    (package / "inner").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "inner" / "__init__.py").write_text("")
    (package / "numbers.py").write_text("NUMBER = 1\n")
    (package / "inner" / "more.py").write_text("MORE = 10\n")
    (package / "inner" / "kernel.py").write_text(
        textwrap.dedent("""\
        from pipeline.kernels.jit import loop
        from . import more
        from ..numbers import NUMBER

        @loop
        def asked(values):
            return NUMBER + more.MORE
        """)
    )
    (folder / "near.py").write_text("from mine.inner.kernel import asked\n")
    assert asked(folder)[0] == 11
    edit(folder, "mine/numbers", "1", "2")
    assert asked(folder)[0] == 12
    edit(folder, "mine/inner/more", "10", "20")
    assert asked(folder)[0] == 22


def test_options_of_the_jit_count(folder):
    asked(folder)
    other = RUNNER.replace(
        "recorder = ", "from pipeline.kernels import jit; jit.OPTIONS['fastmath'] = True\nrecorder = ", 1
    )
    assert asked(folder, runner=other)[1]
    assert asked(folder)[0] == 11


def test_a_kernel_called_from_python_and_from_a_loop_has_two_caches_that_do_not_mix(folder):
    (folder / "direct.py").write_text("from middle import twice\n\n\ndef asked(values):\n    return twice(values[0])\n")
    assert asked(folder, "direct")[0] == 11
    assert asked(folder)[0] == 11 and asked(folder) == [11, []] and asked(folder, "direct") == [11, []]


@pytest.mark.parametrize("function", ["asked", "written"])
def test_bounds_are_checked_after_a_normal_run_and_only_then(folder, function):
    """With `error_model="numpy"` and `nogil` a checked kernel raises IndexError all the same."""
    silent = 99 if function == "asked" else 0
    assert asked(folder, "outside", function)[0] == silent
    assert asked(folder, "outside", function, checked=True)[0] == "IndexError"
    assert asked(folder, "outside", function) == [silent, []]
    assert asked(folder, "outside", function, checked=True) == ["IndexError", []]


def test_of_two_cold_starts_at_once_one_compiles(folder):
    """The second says that it is there, and would be first to compile if the lock did not hold it."""
    program = RUNNER.replace(
        "recorder = ",
        """import pathlib, time
from pipeline import compose
print("here", flush=True)
if sys.argv[2] == "first":
    context = compose.compiling()
    context.__enter__()
    pathlib.Path("locked").touch()
    while not pathlib.Path("second").exists():
        time.sleep(0.01)
    time.sleep(1)
else:
    while not pathlib.Path("locked").exists():
        time.sleep(0.01)
    pathlib.Path("second").touch()
    context = compose.compiling()
    context.__enter__()
recorder = """,
        1,
    ).replace("sys.argv[2])(", "'asked')(")
    started = [
        subprocess.Popen(
            [sys.executable, "-c", program, "near", turn],
            cwd=folder,
            env=environment(folder),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for turn in ("first", "second")
    ]
    try:
        said = [process.communicate(timeout=120) for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0, 0], said
    first, second = (json.loads(out.splitlines()[-1]) for out, _ in said)
    assert first[0] == second[0] == 11 and "asked" in first[1] and second[1] == []


def test_of_two_that_save_at_once_neither_loses_its_entry_nor_gets_the_others(folder):
    """Both compile the same kernels for other types, and take a second over each index: between reading and writing it."""
    slow = """import time
from numba.core import caching
read = caching.IndexDataCacheFile._load_index
def read_slowly(self):
    found = read(self)
    time.sleep(0.5)
    return found
caching.IndexDataCacheFile._load_index = read_slowly
recorder = """
    programs = [RUNNER.replace("np.int64", kind) for kind in ("np.int64", "np.int32")]
    started = [
        subprocess.Popen(
            [sys.executable, "-c", program.replace("recorder = ", slow, 1), "near", "asked"],
            cwd=folder,
            env=environment(folder),
            stdout=subprocess.PIPE,
            text=True,
        )
        for program in programs
    ]
    assert [json.loads(process.communicate(timeout=120)[0])[0] for process in started] == [11, 11]
    assert [asked(folder, runner=program) for program in programs] == [[11, []], [11, []]]


def test_a_process_that_dies_with_the_lock_does_not_keep_it(folder):
    program = "import os\nfrom pipeline import compose\ncompose.compiling().__enter__()\n"
    program += "print('held', flush=True)\nos.abort()"
    dying = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, env=environment(folder), capture_output=True, text=True
    )
    assert dying.returncode != 0 and dying.stdout == "held\n"
    started = time.monotonic()
    free = "from pipeline import compose\nwith compose.compiling(): print('free')"
    done = subprocess.run(
        [sys.executable, "-c", free], cwd=folder, env=environment(folder), capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "free\n", f"after {time.monotonic() - started:.0f} s: {done.stderr}"
