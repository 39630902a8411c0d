"""Where a next hop is: routes, our own addresses, and the neighbour table that ARP keeps (RFC 826, RFC 1122 2.3.2).

Connections hold the number of a neighbour, never a MAC address: a gateway whose MAC changes is followed by all of its
connections at once. Entries are never given to another address.
"""
from typing import NamedTuple

import numpy as np
from numpy import int64

from .connection import NO_NEIGHBOUR
from .jit import kernel
from .native import record_at

UNUSED, INCOMPLETE, REACHABLE, PROBING, STATIC = range(5)
NEIGHBOUR_STATES = ("unused", "incomplete", "reachable", "probing", "static")
"""A packet can be sent to a neighbour that is REACHABLE, PROBING (its last answer is old) or STATIC."""

NEIGHBOUR = np.dtype([
    ("address", "u4"), ("mac_low", "u4"), ("mac_high", "u2"), ("port", "u2"),
    ("state", "u1"), ("wanted", "u1"), ("tries", "u2"),
    ("confirmed", "u4"), ("asked", "u4"), ("used", "u4"),
])
"""`wanted`: a target or gateway, kept fresh always; others while in use. Times are ticks."""

PROBE_AFTER, ASK_EVERY, TRIES = 3000, 100, 3
"""Ticks: a neighbour not heard of for 30 s is asked again, once a second; three times in vain and it is INCOMPLETE."""


class Network(NamedTuple):
    """Interfaces, addresses, routes and neighbours. Addresses and MAC halves are int64 in host order.

    Exception ports have the last numbers.
    """

    mac_high: np.ndarray         # [ports]
    mac_low: np.ndarray          # [ports]
    mtu: np.ndarray              # [ports] bytes of an IP packet
    exception: np.ndarray        # [ports] the exception port beside a port, -1 without: the kernel has the port's addresses
    beside: np.ndarray           # [ports] of an exception port, the port beside which it is; -1 of all others
    mss: np.ndarray              # [1] what fits every port: the least MTU less the headers of IPv4 and TCP
    own_address: np.ndarray      # [n] addresses that are ours
    own_port: np.ndarray         # [n] the port that answers for it, -1 for every port
    own_network: np.ndarray      # [k] prefixes of which all addresses are ours, beside those
    own_mask: np.ndarray         # [k]
    own_network_port: np.ndarray  # [k] the port that answers for them, -1 for every port
    route_network: np.ndarray    # [m] longest prefix first
    route_mask: np.ndarray       # [m]
    route_gateway: np.ndarray    # [m] 0 where on-link
    route_port: np.ndarray       # [m]
    route_source: np.ndarray     # [m] our address on that port, the sender of ARP requests
    neighbours: np.ndarray       # NEIGHBOUR [capacity]
    slots: np.ndarray            # int64 [power of two, twice the capacity or more] open addressing, -1 empty
    known: np.ndarray            # int64 [1] neighbours in use
    announced: np.ndarray        # int64 [1] how often our addresses have been announced
    duplicate: np.ndarray        # int64 [3] last host found with an address of ours: address, MAC halves


@kernel
def route_to(network, address):
    """Returns the number of the route for an address (the longest prefix), or -1."""
    for route in range(network.route_network.shape[0]):
        if address & network.route_mask[route] == network.route_network[route]:
            return route
    return -1


@kernel
def owns(network, address, port):
    """Says whether `address` is ours, as seen from `port`; a port of -1 asks for any."""
    for number in range(network.own_address.shape[0]):
        if network.own_address[number] == address:
            owner = network.own_port[number]
            return port < 0 or owner < 0 or owner == port
    for number in range(network.own_network.shape[0]):
        if address & network.own_mask[number] == network.own_network[number]:
            owner = network.own_network_port[number]
            return port < 0 or owner < 0 or owner == port
    return False


@kernel
def _home(network, address):
    # An odd multiplier below 2**31: the product stays within 63 bits, as plain NumPy wants it.
    return ((address * 0x5BD1E995) >> 8) & (network.slots.shape[0] - 1)


@kernel
def find_neighbour(network, address):
    """Returns the number of the neighbour with this address, or NO_NEIGHBOUR."""
    mask = network.slots.shape[0] - 1
    slot = _home(network, address)
    while network.slots[slot] >= 0:
        number = network.slots[slot]
        if int64(record_at(network.neighbours, number).address) == address:
            return number
        slot = (slot + 1) & mask
    return NO_NEIGHBOUR


@kernel
def add_neighbour(network, address, port):
    """Returns the number of the neighbour with this address, made INCOMPLETE if new; NO_NEIGHBOUR if full."""
    number = find_neighbour(network, address)
    if number != NO_NEIGHBOUR:
        return number
    number = network.known[0]
    if number >= network.neighbours.shape[0]:
        return NO_NEIGHBOUR
    mask = network.slots.shape[0] - 1
    slot = _home(network, address)
    while network.slots[slot] >= 0:
        slot = (slot + 1) & mask
    network.slots[slot] = number
    network.known[0] = number + 1
    entry = record_at(network.neighbours, number)
    entry.address = address
    entry.port = port
    entry.state = INCOMPLETE
    return number


@kernel
def hear(network, number, mac_high, mac_low, tick):
    """Records that a neighbour has just been heard of at this MAC; returns whether it had another before."""
    entry = record_at(network.neighbours, number)
    if entry.state == STATIC:
        return False
    moved = entry.state >= REACHABLE and (int64(entry.mac_high) != mac_high or int64(entry.mac_low) != mac_low)
    entry.mac_high = mac_high
    entry.mac_low = mac_low
    entry.state = REACHABLE
    entry.tries = 0
    entry.confirmed = tick
    return moved


@kernel
def next_hop(network, address):
    """Returns the number of the neighbour through which `address` is reached, or NO_NEIGHBOUR without a route."""
    route = route_to(network, address)
    if route < 0:
        return NO_NEIGHBOUR
    gateway = network.route_gateway[route]
    return add_neighbour(network, gateway if gateway != 0 else address, network.route_port[route])
