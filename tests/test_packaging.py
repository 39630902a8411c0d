"""The package as a wheel, as an editable install and as a checkout: all import alike and find the shim.

Each is built from a copy of this checkout, so that nothing here changes, and installed into a virtual environment
that borrows this one's libraries.
"""
import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
HAS_DPDK = shutil.which("pkg-config") is not None and subprocess.run(
    ["pkg-config", "--exists", "libdpdk"], check=False).returncode == 0
needs_dpdk = pytest.mark.skipif(not HAS_DPDK, reason="libdpdk-dev is not installed")
NOT_COPIED = shutil.ignore_patterns(".git", ".venv", "build", "dist", "*.egg-info", "__pycache__", "*.so", ".*_cache",
                                    ".hypothesis", "_dpdk.c")

PROGRAM = """
import sys
import pipeline, pipeline.io, pipeline.kernels
from importlib import resources
from pipeline.io.memory_port import MemoryNetwork
from pipeline.kernels import native
assert native.swap16(0x1234) == 0x3412
network = MemoryNetwork(ports=1, mbufs=64)
assert network.pool.available == 64
print(pipeline.__file__)
print(sorted(file.name for file in resources.files("pipeline.configs").iterdir() if file.name.endswith(".toml")))
try:
    import pipeline.io.dpdk as dpdk
except ImportError as missing:
    print(missing)
else:
    environment = dpdk.Environment(memory=64)
    print(dpdk.PATH, len(dpdk.Port("net_null0", "null", dpdk.Pool("mbufs", 256)).rx()))
    environment.close()
"""


def run(*command, **settings):
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=120, check=False,
                          **settings)


def checked(*command, **settings):
    done = run(*command, **settings)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def copy_of_checkout(folder):
    return pathlib.Path(shutil.copytree(ROOT, folder, symlinks=True, ignore=NOT_COPIED))


def environment_in(folder):
    """A virtual environment without pip that sees this one's libraries, but no package that is installed editable."""
    checked(sys.executable, "-m", "venv", "--without-pip", folder)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin" / "python"


def pip(python, *words, **settings):
    return run(sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check", *words, **settings)


def install(python, *what):
    done = pip(python, "install", "--no-deps", "--no-build-isolation", *what)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def wheel_of(source, folder, **settings):
    return run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", folder, source,
               **settings)


def say(python, folder):
    """Runs PROGRAM in `folder`; returns what it printed, and nothing came on standard error."""
    done = run(python, "-c", PROGRAM, cwd=folder, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})
    assert done.returncode == 0 and done.stderr == "", done.stdout + done.stderr
    return done.stdout.splitlines()


def configurations():
    return str(sorted(path.name for path in (ROOT / "configs").glob("*.toml")))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel built from the source distribution, as a package index would hand it out."""
    work = tmp_path_factory.mktemp("wheel")
    source = copy_of_checkout(work / "source")
    checked(sys.executable, "-c", "from setuptools import build_meta; build_meta.build_sdist('..')", cwd=source)
    (archive,) = work.glob("proxy_pipeline-*.tar.gz")
    with tarfile.open(archive) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    shutil.unpack_archive(archive, work / "unpacked")
    assert {"csrc/dpdk_shim.c", "csrc/build_dpdk.py", "configs/demonstration.toml", "tests/test_packaging.py",
            "Makefile", "io/arena.py", "kernels/headers.py"} <= names
    (unpacked,) = (work / "unpacked").iterdir()
    done = wheel_of(unpacked, work / "built")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (built,) = (work / "built").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    python = environment_in(tmp_path_factory.mktemp("installed") / "venv")
    install(python, wheel)
    return python


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
    assert {"pipeline/__init__.py", "pipeline/io/burst.py", "pipeline/kernels/memory_device.py",
            "pipeline/configs/demonstration.toml"} <= names
    assert {name.split("/")[0].partition("-")[0] for name in names} == {"pipeline", "proxy_pipeline"}
    assert any(name.startswith("pipeline/_dpdk") and name.endswith(".so") for name in names) == HAS_DPDK
    assert any(name.startswith("pipeline/_twins") and name.endswith(".so") for name in names)


def test_an_installed_wheel_runs_from_an_empty_folder(installed, tmp_path):
    where, toml, shim = say(installed, tmp_path)
    assert pathlib.Path(where).is_relative_to(installed.parent.parent) and toml == configurations()
    checked(installed, "-c", "import pipeline.kernels.twins", cwd=tmp_path)
    if HAS_DPDK:
        path, frames = shim.split()
        assert pathlib.Path(path).is_relative_to(installed.parent.parent) and frames == "32"


def test_an_installed_wheel_runs_from_the_root_of_a_checkout(installed, tmp_path):
    """The checkout's own `pipeline` is in front there, and has no shim: that of the wheel serves."""
    checkout = copy_of_checkout(tmp_path / "checkout")
    where, toml, shim = say(installed, checkout)
    assert pathlib.Path(where).resolve().is_relative_to(checkout) and toml == configurations()
    if HAS_DPDK:
        assert pathlib.Path(shim.split()[0]).is_relative_to(installed.parent.parent)


def test_an_editable_install_runs_from_an_empty_folder(tmp_path):
    checkout, empty = copy_of_checkout(tmp_path / "checkout"), tmp_path / "empty"
    empty.mkdir()
    python = environment_in(tmp_path / "venv")
    install(python, "--editable", checkout)
    for folder in (empty, checkout):
        where, toml, shim = say(python, folder)
        assert pathlib.Path(where).resolve().is_relative_to(checkout) and toml == configurations()
        if HAS_DPDK:
            assert pathlib.Path(shim.split()[0]).is_relative_to(checkout)
    (checkout / "io" / "added_later.py").write_text("ANSWER = 42\n")
    assert checked(python, "-c", "import pipeline.io.added_later as a; print(a.ANSWER)", cwd=empty) == "42\n"


def test_a_checkout_that_was_never_installed_runs_from_its_root(tmp_path):
    checkout = copy_of_checkout(tmp_path / "checkout")
    where, toml, shim = say(environment_in(tmp_path / "venv"), checkout)
    assert pathlib.Path(where).resolve().is_relative_to(checkout) and toml == configurations()
    assert shim == "DPDK is not installed: apt-get install libdpdk-dev, then make install"


def test_without_dpdk_and_compiler_the_install_works_and_says_what_is_missing(tmp_path):
    hidden = {**os.environ, "PKG_CONFIG_LIBDIR": str(tmp_path), "PKG_CONFIG_PATH": str(tmp_path), "CC": str(tmp_path / "cc")}
    done = wheel_of(copy_of_checkout(tmp_path / "source"), tmp_path / "built", env=hidden)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = (tmp_path / "built").glob("*.whl")
    assert built.name.endswith("-py3-none-any.whl")
    python = environment_in(tmp_path / "venv")
    install(python, built)
    assert say(python, tmp_path)[2] == "DPDK is not installed: apt-get install libdpdk-dev, then make install"
    done = run(python, "-c", "import pipeline.kernels.twins", cwd=tmp_path)
    assert done.stderr.splitlines()[-1].endswith("the C twins are not built: make install, with gcc and python3-dev")


@needs_dpdk
def test_an_mbuf_that_dpdk_lays_out_otherwise_fails_the_install(tmp_path):
    source = copy_of_checkout(tmp_path / "source")
    headers = source / "kernels" / "headers.py"
    text = headers.read_text()
    moved = text.replace("[0, 16, 18,", "[0, 18, 16,")
    assert moved != text
    headers.write_text(moved)
    done = wheel_of(source, tmp_path / "built")
    assert done.returncode != 0
    assert "kernels/headers.py: offsetof(struct rte_mbuf, data_off) == 18" in done.stdout + done.stderr
