"""What the connections of a configuration take of memory: the one place that says so."""
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
        "timer wheel": wheel.chunks_for(connections) * wheel.CHUNK * wheel.WORD.itemsize,
        "flow table": flow_table.buckets_for(connections) * flow_table.BUCKET.itemsize,
        "opening": configuration.opening_records * connection.OPENING.itemsize,
    }


def bytes_a_connection(configuration):
    """Returns how many bytes there are for each connection (float)."""
    return sum(of_connections(configuration).values()) / configuration.engine.connections
