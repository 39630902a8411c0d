"""RSS: a device spreads what it receives over its queues by the Toeplitz hash and a redirection table.

https://doc.dpdk.org/guides-22.11/prog_guide/toeplitz_hash_lib.html
"""
import numpy as np

from .shim import DpdkError, ask, ffi, lib

SHORTEST_KEY = 16
"""Octets of a key that the hash of TCP over IPv4 reaches (12 of input, and 32 bits at the last of them)."""
USUAL_KEY = 40
"""Octets of a key where the device does not say how many it wants (rte_eth_rss_conf)."""
LONGEST_KEY = 255


def check_key(name, key):
    """Raises DpdkError unless `key`, of port `name`, is None (the device's own) or bytes that a device could take."""
    if key is not None and not (isinstance(key, bytes) and SHORTEST_KEY <= len(key) <= LONGEST_KEY):
        raise DpdkError(f"port {name!r}: rss_key = {key!r}, bytes are expected, {SHORTEST_KEY} at least; most NICs take 40")


def is_offered(has, queues):
    """Returns whether a device of those capabilities can spread TCP over IPv4 over `queues` queues, by a table of ours."""
    return queues > 1 and has["rss_tcp"] == 1 and has["rss_table"] > 0


def fitted(key, octets):
    """Returns a key of the length that a device wants: what is behind SHORTEST_KEY changes no hash of TCP over IPv4."""
    return (key + bytes(octets))[:octets]


def _key_of(number, octets):
    """Returns the key that a device has (bytes)."""
    room = ffi.new("uint8_t[]", octets)
    ask("", lib.shim_rss_key, number, room, octets)
    return bytes(ffi.buffer(room))


def configure(number, queues, mtu, has, key):
    """Configures the DPDK port of that number, with RSS where that is possible; returns whether it is, or -errno."""
    if is_offered(has, queues):
        given = fitted(key, has["rss_key"] or USUAL_KEY) if key else b""
        if lib.shim_port_configure(number, queues, mtu, 1, ffi.from_buffer(given) if given else ffi.NULL, len(given)) == 0:
            return 1
    return lib.shim_port_configure(number, queues, mtu, 0, ffi.NULL, 0)


def spread(number, queues, has, key):
    """Sets the redirection table of a started port to queue = entry % queues; returns key and table as the device has them.

    The key is bytes, the table int64[entries]; None where it did not take both as given. Some devices take a key when they
    are configured, others (net_null) only afterwards.
    """
    table, octets = np.zeros(has["rss_table"], np.int64), has["rss_key"] or USUAL_KEY
    try:
        ask("", lib.shim_rss_spread, number, len(table), queues)
        ask("", lib.shim_rss_table, number, len(table), ffi.cast("int64_t *", table.ctypes.data))
        taken = _key_of(number, octets)
        if key and taken != fitted(key, octets):
            ask("", lib.shim_rss_set_key, number, ffi.from_buffer(fitted(key, octets)), octets)
            taken = _key_of(number, octets)
    except DpdkError:
        return None
    if (table != np.arange(len(table)) % queues).any() or (key and taken != fitted(key, octets)):
        return None
    return taken, table
