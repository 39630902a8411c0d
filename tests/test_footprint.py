"""What connections take of memory: at most 128 bytes each, and nothing that nobody has counted."""
import numpy as np
import pytest
from tcp.proxy import configuration_text

from pipeline import assemble, configuration
from pipeline.footprint import bytes_a_connection, of_connections
from pipeline.io.memory_port import MemoryNetwork
from pipeline.kernels.memory import LINE

MOST = 128


def configured(connections, **engine):
    """Returns a Configuration for so many connections, without what is counted apart: records."""
    text = configuration_text({}, {"connections": connections, "detailed_records": "false", **engine})
    return configuration.parse(text, "the tests' configuration")


def arrays_in(part):
    """Yields every array of a NamedTuple of them, however deep."""
    for value in part:
        if isinstance(value, tuple):
            yield from arrays_in(value)
        else:
            yield value


def all_bytes(settings):
    """Returns the bytes of all arrays that a worker's state is made of, each once."""
    network = MemoryNetwork(2, 512, 64)
    state, _ = assemble.make_state(settings, network.device, network.arena, [1, 2], 0, 1e9)
    return sum({array.ctypes.data: array.nbytes for array in arrays_in(state) if isinstance(array, np.ndarray)}.values())


@pytest.mark.parametrize("connections", [1 << 15, 1 << 16, 100_000, 1_000_000, 4_000_000, 1 << 24])
def test_a_connection_takes_at_most_128_bytes(connections):
    assert bytes_a_connection(configured(connections)) <= MOST


def test_all_that_grows_with_the_connections_is_counted():
    """Whatever array is made for connections by anybody, here it is found."""
    few, many = configured(100_000), configured(300_000)
    counted = sum(of_connections(many).values()) - sum(of_connections(few).values())
    assert counted <= all_bytes(many) - all_bytes(few) <= counted + 10 * LINE


def test_more_may_be_opening_where_that_is_asked_for():
    more = configured(100_000, opening_connections=100_000)
    assert of_connections(more)["opening"] == 100_000 * 64
    assert configured(100, opening_connections=4096).opening_records == 100 == configured(100).opening_records
    assert (configured(65536).opening_records, configured(32768).opening_records) == (8192, 4096)
