"""What the connections of a configuration take of memory: the one place that says so."""
import numpy as np

from pipeline import replacement
from pipeline.kernels import connection, flow_table, wheel


def of_connections(configuration):
    """Returns the bytes (int) that the records of all connections take, by what they are for.

    All of it is there from the start and never grows. Records of sessions, held payload, source ports, and what payload kernels
    have of each connection, come on top of it where they are configured.
    """
    connections = configuration.engine.connections
    return {
        "hot": connections * connection.HOT.itemsize,
        "cold, timers": connections * connection.COLD.itemsize,
        "timer wheel": _of_wheel(configuration.kernels, connections),
        "flow table": _of_table(configuration.kernels, connections),
        "opening": configuration.opening_records * connection.OPENING.itemsize,
    }


def _of_table(kernels, connections):
    allocate = replacement.allocator(kernels, "lookup")
    if allocate is flow_table.allocate_buckets:
        return flow_table.buckets_for(connections) * flow_table.BUCKET.itemsize
    return _octets(allocate(connections))


def _of_wheel(kernels, connections):
    allocate = replacement.allocator(kernels, "timers")
    if allocate is wheel.allocate_wheel:
        return wheel.chunks_for(connections) * wheel.CHUNK * wheel.WORD.itemsize
    timers = np.zeros(connections, wheel.TIMER).view(np.recarray)
    return _octets(allocate(connections, timers)) - timers.nbytes


def _octets(made):
    """Returns the bytes of an array, or of all arrays of a NamedTuple."""
    return made.nbytes if isinstance(made, np.ndarray) else sum(_octets(part) for part in made)


def bytes_a_connection(configuration):
    """Returns how many bytes there are for each connection (float)."""
    return sum(of_connections(configuration).values()) / configuration.engine.connections
