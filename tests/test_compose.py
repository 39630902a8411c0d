"""Composing a loop: which kernels fill the slots, what is refused, and that an edit to a user's kernel is picked up."""

import importlib
import inspect
import json
import os
import pathlib
import subprocess
import sys
import textwrap

import pytest
from kernel_bed import TARGETS
from numba.core import config

from pipeline import compose, loop, slots
from pipeline.errors import ConfigurationError
from pipeline.kernels import jit
from pipeline.slots import SLOTS

ROOT = pathlib.Path(__file__).resolve().parent.parent
STORY = ROOT / "tests" / "whole_connection.py"

BY_TENANT = """
    from numpy import int64
    from tenants import TENANT_OF

    def by_tenant(payload, service, selection):
        '''The target of the tenant whose digit begins the payload.'''
        if payload.shape[0] == 0:
            return -2
        return int64(payload[0] - 48) * TENANT_OF
    """


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache of this test's own."""
    monkeypatch.setenv("PIPELINE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def user(tmp_path):
    """A folder of a user's with a select kernel in by_tenant.py, which imports tenants.py."""
    folder = tmp_path / "user"
    folder.mkdir()
    (folder / "by_tenant.py").write_text(textwrap.dedent(BY_TENANT).lstrip())
    (folder / "tenants.py").write_text("TENANT_OF = 1\n")
    return folder


def refused(slot, place):
    """The sentence with which a kernel is refused."""
    with pytest.raises(ConfigurationError) as caught:
        compose.kernel_at(slot, compose.place_of(slot, place))
    return str(caught.value)


def target_chosen(user, payload, **variables):
    """Runs a whole connection through a loop with the user's kernel, in a process of its own; returns the target."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | variables
    done = subprocess.run(
        [sys.executable, str(STORY), f"{user / 'by_tenant.py'}:by_tenant", payload],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)["target"]


def test_every_slot_has_its_signature_and_kernels_that_fit_it():
    for slot, described in SLOTS.items():
        for short, place, said in described.choices:
            assert compose.place_of(slot, short) == place and said.endswith(".")
            module, _, function = place.rpartition(":")
            found = compose.kernel_at(slot, place)
            assert found is getattr(importlib.import_module(module), function)
            assert tuple(inspect.signature(getattr(found, "py_func", found)).parameters) in (
                tuple(described.parameters), tuple(described.parameters)[:len(described.parameters) - described.spared])


def test_the_loop_as_it_stands_is_the_composition_of_the_defaults():
    made, own = compose.source({}, ["round_robin"], "memory"), pathlib.Path(loop.__file__).read_text()
    head, _, rest = own.partition(compose.BEGIN)
    imports, _, tail = rest.partition(compose.END)
    assert made.startswith(head) and made.endswith(tail) and tail.strip()
    for line in (line for line in imports.splitlines() if line.startswith("from ")):
        assert line in made, line


def test_every_select_kernel_is_imported_under_its_number():
    made = compose.source({}, ["http_host", "round_robin", "http_path"], "dpdk")
    for number, name in enumerate(("http_host", "round_robin", "http_path")):
        assert (
            f"import {name} as select_{number}\n" in made
            and f"return whole_number(select_{number}(payload, service, selection))" in made
        )
    assert "dpdk_device" in made and "memory_device" not in made


def test_every_payload_kernel_is_imported_under_its_number():
    made = compose.source({}, ["round_robin"], "memory", payloads=("mask_digits", "unchanged"))
    assert "PAYLOAD_KERNELS = 2\n" in made
    for number, name in enumerate(("mask_digits", "unchanged")):
        assert (
            f"import {name} as payload_{number}\n" in made
            and f"return whole_number(payload_{number}(payload, length, position, tailroom, user))" in made
        )
    assert "PAYLOAD_KERNELS = 0\n" in compose.source({}, ["round_robin"], "memory")


@pytest.mark.parametrize(
    ("slot", "name", "words"),
    [
        (
            "select",
            "round_robbin",
            ['services: select = "round_robbin"', "round_robin, http_path, http_host, number_modulo"],
        ),
        (
            "payload",
            "mask",
            ['services: payload_to_target or payload_to_client = "mask"', "unchanged, mask_digits, replace"],
        ),
        ("lookup", "linaer", ['kernels.lookup = "linaer"', "bucketed"]),
        ("select", "no.such.module:f", ["no.such.module:f", "cannot be loaded", "No module named 'no'"]),
        ("select", "/no/such/file.py:f", ["/no/such/file.py:f", "cannot be loaded", "No such file"]),
        ("select", "pipeline.kernels.select_content:nothing", ["there is no function nothing there"]),
        ("select", "pipeline.kernels.select_content:SPACE", ["there is no function SPACE there"]),
    ],
)
def test_what_is_not_there_is_refused_by_one_sentence(slot, name, words):
    said = refused(slot, name)
    assert all(word in said for word in words), said
    assert "\n" not in said


def test_a_wrong_signature_is_refused_with_both_side_by_side(user):
    (user / "wrong.py").write_text("def mine(payload, service):\n    return 0\n")
    said = refused("select", f"{user / 'wrong.py'}:mine")
    assert (
        "select(payload, service, selection)" in said and "mine(payload, service)" in said and "wrong signature" in said
    )
    said = refused("payload", f"{user / 'wrong.py'}:mine")
    assert "payload(payload, length, position, tailroom, user, given)" in said and "mine(payload, service)" in said
    assert "lookup(batch, count, buckets, hot)" in refused("lookup", "pipeline.kernels.rewrite:rewrite")


def test_a_file_with_a_syntax_error_is_refused_by_its_name(user):
    (user / "broken.py").write_text("def mine(payload, service, selection)\n    return 0\n")
    said = refused("select", f"{user / 'broken.py'}:mine")
    assert "broken.py:mine" in said and "cannot be loaded" in said


def test_a_plain_function_of_the_users_is_compiled_and_a_compiled_one_taken_as_it_is(user):
    (user / "compiled.py").write_text(
        "from pipeline.kernels.jit import kernel\n\n\n@kernel\ndef mine(payload, service, selection):\n    return 1\n"
    )
    plain = compose.kernel_at("select", f"{user / 'by_tenant.py'}:by_tenant")
    compiled = compose.kernel_at("select", f"{user / 'compiled.py'}:mine")
    if not config.DISABLE_JIT:
        assert isinstance(plain, jit.Kernel) and isinstance(compiled, jit.Kernel)


def test_two_files_of_the_same_name_are_two_kernels(user, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    for folder, answer in ((user, 1), (other, 2)):
        (folder / "same.py").write_text(f"def mine(payload, service, selection):\n    return {answer}\n")
    found = [compose.kernel_at("select", f"{folder / 'same.py'}:mine") for folder in (user, other)]
    assert [getattr(kernel, "py_func", kernel)(None, 0, None) for kernel in found] == [1, 2]


@pytest.mark.parametrize("edited", ["by_tenant", "tenants"])
def test_an_edit_to_a_users_kernel_or_to_what_it_imports_makes_another_composition(user, cache, edited):
    place = f"{user / 'by_tenant.py'}:by_tenant"
    program = f"from pipeline import compose; print(compose.source({{}}, [{place!r}], 'memory'))"

    def made():
        return subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    before = made()
    assert made() == before
    path = user / f"{edited}.py"
    path.write_text(path.read_text() + "UNUSED = 1\n")
    assert made() != before


def test_a_users_kernel_chooses_and_its_edits_are_picked_up(user):
    plain = {"NUMBA_DISABLE_JIT": "1"}
    assert target_chosen(user, "1\n", **plain) == TARGETS[1]
    (user / "tenants.py").write_text("TENANT_OF = 2\n")
    assert target_chosen(user, "1\n", **plain) == TARGETS[2]
    (user / "by_tenant.py").write_text((user / "by_tenant.py").read_text().replace("* TENANT_OF", "* 0"))
    assert target_chosen(user, "1\n", **plain) == TARGETS[0]


if os.environ.get("PIPELINE_SOAK") == "1":  # three loops to compile; the stamp that decides it is looked at in test_jit_cache.py
    @pytest.mark.skipif(bool(config.DISABLE_JIT), reason="compares compiled loops")
    def test_compiled_as_well_an_edit_is_picked_up_and_nothing_stale_is_loaded(user):
        """The user's file lies where the last run of this test put it: both compositions are in the cache by now."""
        folder = jit.cache_folder() / "test_compose"
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("by_tenant", "tenants"):
            (folder / f"{name}.py").write_text((user / f"{name}.py").read_text())
        assert target_chosen(folder, "1\n") == TARGETS[1]
        (folder / "tenants.py").write_text("TENANT_OF = 2\n")
        assert target_chosen(folder, "1\n") == TARGETS[2]


def composition(selects):
    with compose.compiling():
        return compose.compose({}, selects, "memory")


def test_the_newest_20_compositions_are_kept(cache):
    names = slots.names("select")
    orders = [[first, second, third] for first in names for second in names for third in names][:24]
    runs = []
    for age, order in enumerate(orders):
        runs.append(composition(order))
        newest = (
            cache / "compositions" / (pathlib.Path(inspect.getfile(getattr(runs[-1], "py_func", runs[-1]))).name)
        )
        os.utime(newest, (1_000_000 + age, 1_000_000 + age))
        if age == 10:
            first_again = composition(orders[0])
            os.utime(
                cache
                / "compositions"
                / pathlib.Path(inspect.getfile(getattr(first_again, "py_func", first_again))).name,
                (2_000_000, 2_000_000),
            )
    kept = {path.name for path in (cache / "compositions").iterdir()}
    made = [pathlib.Path(inspect.getfile(getattr(run, "py_func", run))).name for run in runs]
    assert compose.KEPT == 20 and len(set(made)) == 24 and len(kept) == 20
    assert kept == {made[0], *made[5:]}, "the least recently used are the ones to go"
    for order in orders:
        composition(order)
    assert len(list((cache / "compositions").iterdir())) == 24, "but none that was used on this day"


def test_the_same_composition_is_the_same_file(cache):
    assert composition(["http_path"]) is not None
    first = {path.name: path.read_text() for path in (cache / "compositions").iterdir()}
    composition(["http_path"])
    assert {path.name: path.read_text() for path in (cache / "compositions").iterdir()} == first and len(first) == 1


if os.environ.get("PIPELINE_SOAK") == "1":  # a minute; test_jit_cache.py sees that a second process compiles nothing
    @pytest.mark.skipif(bool(config.DISABLE_JIT), reason="without the jit nothing is compiled")
    def test_a_second_process_loads_the_whole_loop_from_the_cache():
        program = textwrap.dedent("""
            import sys
            sys.path.insert(0, "tests")
            from numba.core import event
            recorder = event.RecordingListener()
            with event.install_listener("numba:compile", recorder):
                import whole_connection
                whole_connection.main()
            print(sum(happened.is_start for _, happened in recorder.buffer), file=sys.stderr)
            """)
        compiled = [
            int(
                subprocess.run(
                    [sys.executable, "-c", program],
                    env=os.environ | {"PYTHONPATH": str(ROOT)},
                    cwd=ROOT,
                    capture_output=True,
                    text=True,
                    check=True,
                    timeout=600,
                ).stderr.splitlines()[-1]
            )
            for _ in range(2)
        ]
        assert compiled[1] == 0
