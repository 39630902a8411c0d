"""Fixtures that several test modules share, and how `make test` spreads them over processes."""
import contextlib
import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(__file__))
pytest.register_assert_rewrite("tcp", "dpdk_bed")

collect_ignore = [] if os.environ.get("PIPELINE_SOAK") == "1" else [
    "test_proxy_content.py", "test_proxy_payload_rules.py", "test_proxy_target_states.py", "test_kernel_fuzz.py", "test_proxy_access.py"]
"""Modules of the soak alone: each compiles a loop of its own and then waits for real programs, or kernels anew for a fuzz."""

ON_THE_MACHINE = ("test_bed", "test_command_line", "test_dpdk_", "test_exception_port", "test_path_", "test_proxy_",
                  "test_stats_socket", "test_wire")
"""Modules that use namespaces, huge pages, DPDK or a running engine: one process runs them all, one after the other."""
BESIDE = ("test_dpdk_flow_rules", "test_dpdk_hand_over", "test_dpdk_queues", "test_exception_port", "test_proxy_isolation")
"""Of these those that do not mind what the others do: another process runs them meanwhile."""
LONGEST = ("test_compose", "test_fuzz_splice", "test_option_matrix", "test_malformed", "test_perf_scripts", "test_unjitted",
           "test_jit_cache", "test_payload_cuts", "test_faults", "test_generator", "test_packaging", "test_types", "test_perf_tables")
"""Of the other modules those that take longest, in the order in which they begin: what is left to the end is short."""
NICENESS, POLITENESS = os.getpriority(os.PRIO_PROCESS, 0), 5
"""What this process began with, and what tests that only reckon add: those on the machine shall not wait for a core as well."""


def _module(nodeid):
    return nodeid.partition("::")[0].rpartition("/")[2].removesuffix(".py")


def _is_on_the_machine(nodeid):
    return _module(nodeid).startswith(ON_THE_MACHINE)


def _rank(item):
    module = _module(item.nodeid)
    if _is_on_the_machine(item.nodeid):
        return -1 if module.startswith(BESIDE) else -2
    return LONGEST.index(module) if module in LONGEST else len(LONGEST)


def pytest_collection_modifyitems(items):
    """Puts the tests on the machine first, then the longest modules; each module's own order stays."""
    items.sort(key=_rank)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Lets `make test` use both cores: what has the machine to itself is one scope, what may be beside it one more, each module
    that needs memory alone another.

    Scopes are given out in the order of `pytest_collection_modifyitems`. xdist's own `loadgroup` does not group with
    pytest 9.2: marks no longer come into the node's id.
    """
    from xdist.scheduler import LoadScopeScheduling

    class MachineApart(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            if _module(nodeid).startswith(BESIDE):
                return "beside"
            return "machine" if _is_on_the_machine(nodeid) else _module(nodeid)

    config.option.loadscopereorder = False
    return MachineApart(config, log)


def pytest_runtest_setup(item):
    """Among several processes of tests, those on the machine come first."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        with contextlib.suppress(PermissionError):  # only root may take it back
            os.setpriority(os.PRIO_PROCESS, 0, NICENESS + (0 if _is_on_the_machine(item.nodeid) else POLITENESS))


@pytest.fixture(scope="session")
def environment():
    """DPDK's environment: it starts once a process, so that all tests in a process share one."""
    from dpdk_bed import HUGEPAGES

    from pipeline.io import dpdk

    with contextlib.closing(dpdk.Environment(memory=256, hugepages=HUGEPAGES)) as started:
        yield started


@pytest.fixture
def pool(environment):
    """A pool of dpdk_bed.MBUFS mbufs."""
    from dpdk_bed import MBUFS

    from pipeline.io import dpdk

    with contextlib.closing(dpdk.Pool("mbufs", MBUFS)) as made:
        yield made


@pytest.fixture
def namespace():
    """A network namespace for one test, called dpdk_bed.NAMESPACE."""
    from dpdk_bed import made_namespace

    with made_namespace() as name:
        yield name


@pytest.fixture(scope="session")
def laboratory(request):
    """A running engine between real hosts, in the Layout that the test is parametrised with.

    One for each layout and session: pytest runs all tests of a layout together.
    """
    from peers.laboratory import open_laboratory

    with open_laboratory(request.param) as opened:
        yield opened


@pytest.fixture
def proxy(request):
    """An engine's worker on virtual time (tcp.proxy.Proxy); `tcp.proxy.settings` says with what.

    After the test nothing unexpected may have been sent, and nothing may be lost.
    """
    from tcp.proxy import Proxy

    made = Proxy(**getattr(request, "param", {}))
    yield made
    made.finish()


@pytest.fixture
def proxy_factory():
    """Makes an engine's worker on virtual time with the arguments it is given; see `proxy`."""
    from tcp.proxy import Proxy

    made = []

    def make(**chosen):
        made.append(Proxy(**chosen))
        return made[-1]

    yield make
    for one in made:
        one.finish()
