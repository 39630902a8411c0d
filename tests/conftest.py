"""Fixtures that several test modules share."""
import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(__file__))
pytest.register_assert_rewrite("tcp")


ON_THE_MACHINE = ("test_bed", "test_command_line", "test_dpdk_ports", "test_malformed", "test_path_",
                  "test_proxy_", "test_stats_socket", "test_wire")
"""Modules that use namespaces, huge pages, DPDK or a running engine: one process runs them all, one after the other."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Lets `make test` use two cores: what has the machine to itself is one scope, each module that needs memory alone another.

    xdist's own `loadgroup` does not group with pytest 9.2: marks no longer come into the node's id.
    """
    from xdist.scheduler import LoadScopeScheduling

    class MachineApart(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            module = nodeid.partition("::")[0].rpartition("/")[2]
            return "machine" if module.startswith(ON_THE_MACHINE) else module

    return MachineApart(config, log)


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
