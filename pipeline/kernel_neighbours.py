"""Follows the kernel's neighbour table where it does ARP for us, beside exception ports (rtnetlink(7), RTNLGRP_NEIGH).

What changes there goes into the workers' mailboxes (kernels/kernel_neighbours.py); next hops that a worker has no confirmed MAC
address of, the kernel is made to look for. Workers' own tables are only read here.
"""
import errno
import ipaddress
import os
import select
import socket
import threading
import time
from typing import NamedTuple

import numpy as np
import pyroute2
from pyroute2.netlink import rtnl
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.rtnl.iprsocket import MarshalRtnl
from pyroute2.netlink.rtnl.ndmsg import NUD_DELAY, NUD_FAILED, NUD_NOARP, NUD_PERMANENT, NUD_PROBE, NUD_REACHABLE, NUD_STALE

from pipeline.kernels.kernel_neighbours import write_message
from pipeline.kernels.neighbours import INCOMPLETE, PROBING, REACHABLE
from pipeline.network_namespace import enter

LOOK_EVERY = 0.05
"""Seconds between two looks at which next hops the workers want."""
ASK_EVERY = 1.0
"""Seconds between two questions for the same next hop."""
AT_ONCE = 64
"""Questions in one look: as many more wait for the next."""
TRIES = 3
"""Questions for one that no connection has used since; targets and gateways are asked for without end."""
USE = 1
"""NTF_USE: the kernel is to resolve the address as if it had a packet for it (linux/neighbour.h)."""
DATAGRAM, RECEIVE_BUFFER = 1 << 16, 1 << 20
"""Bytes: the most that the kernel says at once, and what may wait to be read."""
CONFIRMED = NUD_REACHABLE | NUD_PERMANENT | NUD_NOARP
UNCONFIRMED = NUD_STALE | NUD_DELAY | NUD_PROBE


class Neighbour(NamedTuple):
    """A neighbour in the kernel's table: port (the engine's number), address, MAC (ints), and NUD_* state."""

    port: int
    address: int
    mac: int
    state: int


class Question(NamedTuple):
    """What was asked for a next hop: how often, when last (seconds), and when it had been used last (tick)."""

    tries: int
    asked: float
    used: int


def state_of(neighbour):
    """Returns the state that a worker's entry is to have, or None where a neighbour's state says nothing."""
    if neighbour.state & CONFIRMED:
        return REACHABLE
    if neighbour.state & UNCONFIRMED:
        return PROBING
    return INCOMPLETE if neighbour.state & NUD_FAILED else None


class KernelNeighbours:
    """Follows the neighbours on the exception ports' interfaces: `indices` maps interface indices to the ports beside.

    `namespace` is that of the interfaces (None: ours). `start` with the workers' states; `error` is what ended the
    thread, if anything did. `say` hears, once, of a request that the kernel refuses.
    """

    def __init__(self, namespace, indices, say=print):
        self.namespace, self.say = namespace, say
        self._refused = False
        self.port_of = indices
        self.index_of = {port: index for index, port in indices.items()}
        self.error = None
        self._states = []
        self._news = {}
        self._questions = {}
        self._told, self._ends = os.pipe()
        self._events = self._requests = None
        self._parser = MarshalRtnl()
        self._thread = threading.Thread(target=self._run, name="kernel's neighbours", daemon=True)

    def start(self, states):
        """Starts following the table for the workers with these states."""
        self._states = states
        self._thread.start()

    def close(self):
        """Ends it."""
        if self._ends is None:
            return
        os.close(self._ends)
        self._ends = None
        if self._thread.is_alive():
            self._thread.join()
        os.close(self._told)

    def _run(self):
        """Follows the table until `close`. The sockets are this thread's: pyroute2 makes one for each thread that uses it.

        Its own way of waiting for events does not go with select: it may have read several and hand out one.
        """
        try:
            if self.namespace:
                enter(self.namespace)
            with pyroute2.IPRoute() as self._requests, socket.socket(socket.AF_NETLINK, socket.SOCK_RAW) as self._events:
                self._events.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
                self._events.bind((0, rtnl.RTMGRP_NEIGH))
                self._follow()
        except Exception as error:  # noqa: BLE001 - whatever it was, the main thread has to hear of it
            self.error = error

    def _follow(self):
        while True:
            ready, _, _ = select.select([self._events, self._told], [], [], LOOK_EVERY)
            if self._told in ready:
                return
            if ready:
                self._hear()
            self._ask(time.monotonic())
            self._tell()

    def _hear(self):
        """Takes what has changed; where the kernel had to leave changes out, the whole table."""
        try:
            messages = [message for message in self._parser.parse(self._events.recv(DATAGRAM)) if message["event"] == "RTM_NEWNEIGH"]
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            messages = self._dump()
        for neighbour in map(self._read, messages):
            self._note(neighbour)

    def _dump(self):
        """Returns netlink's messages about all IPv4 neighbours."""
        return list(self._requests.get_neighbours(family=socket.AF_INET))

    def _read(self, message):
        """Returns the Neighbour in a message of netlink's, or None where it is not on one of our interfaces."""
        address, mac = message.get_attr("NDA_DST"), message.get_attr("NDA_LLADDR") or "0"
        if message["family"] != socket.AF_INET or message["ifindex"] not in self.port_of or not address:
            return None
        return Neighbour(self.port_of[message["ifindex"]], int(ipaddress.IPv4Address(address)), int(mac.replace(":", ""), 16),
                         message["state"])

    def _note(self, neighbour):
        """Keeps what is to be told about a neighbour, for every worker; what is newer takes the place of what is older."""
        state = None if neighbour is None else state_of(neighbour)
        if state is None:
            return
        for number in range(len(self._states)):
            self._news[number, neighbour.address, neighbour.port] = neighbour.mac, state

    def _tell(self):
        """Writes what is to be told into the workers' mailboxes; what finds no room waits."""
        for (number, address, port), (mac, state) in list(self._news.items()):
            if write_message(self._states[number].mailbox, address, port, mac >> 32, mac & 0xFFFFFFFF, state):
                del self._news[number, address, port]

    def _wanted(self):
        """Returns the next hops that workers have no confirmed MAC address of: (address, port) to (wanted always, used)."""
        found = {}
        for state in self._states:
            network = state.network
            entries = network.neighbours[:int(network.known[0])]
            open_ones = (entries["state"] == INCOMPLETE) | (entries["state"] == PROBING)
            for entry in entries[np.flatnonzero(open_ones & (network.exception[entries["port"]] >= 0))]:
                found[int(entry["address"]), int(entry["port"])] = bool(entry["wanted"]), int(entry["used"])
        return found

    def _ask(self, now):
        """Has the kernel look for the next hops that are wanted, each once a second, and takes what it knows of them."""
        wanted = self._wanted()
        self._questions = {place: question for place, question in self._questions.items() if place in wanted}
        due = [place for place, (always, used) in wanted.items() if self._is_due(self._questions.get(place), always, used, now)]
        if not due:
            return
        known = {(neighbour.address, neighbour.port): neighbour for neighbour in map(self._read, self._dump()) if neighbour}
        for place in due[:AT_ONCE]:
            used, before = wanted[place][1], self._questions.get(place)
            tries = before.tries if before is not None and before.used == used else 0
            self._questions[place] = Question(tries + 1, now, used)
            self._note(known.get(place))
            self._resolve(*place, known.get(place))

    @staticmethod
    def _is_due(question, always, used, now):
        if question is None:
            return True
        return now - question.asked >= ASK_EVERY and (always or question.used != used or question.tries < TRIES)

    def _resolve(self, address, port, neighbour):
        """Makes the kernel ask for an address, or probe what it has; not where it does so already."""
        request = {"dst": str(ipaddress.IPv4Address(address)), "ifindex": self.index_of[port], "family": socket.AF_INET}
        try:
            if neighbour is None or neighbour.state in (0, NUD_FAILED):
                self._requests.neigh("replace", state=0, flags=USE, **request)
            elif neighbour.state & NUD_STALE:
                self._requests.neigh("change", state=NUD_PROBE, **request)
        except NetlinkError as error:  # the next question is a second away
            if error.code != errno.ENOENT and not self._refused:  # an entry that has just gone is asked for anew
                self._refused = True
                self.say(f"the kernel does not look for the next hop {request['dst']}: {os.strerror(error.code)} "
                         "(its neighbour table is full, or the exception port's interface is down or gone)")
