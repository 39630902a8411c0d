"""Ports of DPDK: any virtual device by its arguments, any NIC by its PCI address."""
import contextlib
import os

import numpy as np

from . import rss
from .burst import Burst
from .devargs import QUEUES_ARGUMENT, VIRTUAL_DEVICE, driver_of, split_by_queue
from .environment import is_pci_address, running_environment
from .kernel_interface import NEEDS_ROOT, check_interface
from .shim import LOG_LEVELS, DpdkError, ask, ffi, lib
from .xdp_program import XdpProgram, silence

MOST_QUEUES = 64
ONCE = "a process can open a queue of an interface only once in its life (DPDK 22.11)"
"""net_af_xdp does not close its socket with the port, nor give back the mbufs that the kernel holds for receiving."""


def _whole(port, key, value, least, most):
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise DpdkError(f"port {port!r}: {key} = {value!r}, a whole number from {least} to {most} is expected")
    return value


class Port:
    """One port, open and started; `device` is what DPDK calls devargs ("net_tap0,iface=dt0") or a PCI address.

    `name`: the engine's name for it; `pool`: where received frames go, a Pool or NodePools, which has one for each queue's
    worker; `queues`: to receive and to send, as many each;
    `rxd`, `txd`: descriptors a queue; `mtu` (octets after the Ethernet header), `mac` (int) and `rss_key` (bytes) are the
    device's own unless given. A virtual device that opens a kernel interface does so in the network namespace of the
    calling thread. DPDK may have several ports for this one, `numbers`: see devargs.split_by_queue.
    `rss`: whether the device spreads TCP over IPv4 over the queues by Toeplitz hash, key and table as we have set them,
    which `rss_key` (bytes) and `rss_table` (int64[entries]) are then; a device without spreads in a way of its own.
    Raises DpdkError, one sentence, when DPDK or the machine refuses; nothing is left open then.
    https://doc.dpdk.org/guides-22.11/nics/index.html
    """

    def __init__(self, device, name, pool, queues=1, rxd=1024, txd=1024, mtu=None, mac=None, promiscuous=False,
                 rss_key=None):
        self._environment = running_environment()
        self.device, self.name, self.pool = device, name, pool
        self.queues = _whole(name, "queues", queues, 1, MOST_QUEUES)
        self.rxd, self.txd = _whole(name, "rxd", rxd, 1, 65535), _whole(name, "txd", txd, 1, 65535)
        if mtu is not None:
            _whole(name, "mtu", mtu, 68, 65535)
        if mac is not None:
            _whole(name, "mac", mac, 1, (1 << 48) - 1)
        rss.check_key(name, rss_key)
        self._title = f"port {name!r} ({device})"
        self.rss, self.rss_key, self.rss_table = False, rss_key, None
        self._started, self._xdp_program, self.numbers = [], None, []
        try:
            self._open()
            self._check_limits()
            for number in self.numbers:
                self._set_up(number, mtu, mac, promiscuous)
        except DpdkError:
            self._remove()
            raise
        self._environment.ports.append(self)

    def _open(self):
        """Makes DPDK open the device, or one for each queue."""
        kind = self.device.split(",")[0]
        if is_pci_address(self.device):
            if self.device.split(",")[0] not in {address.split(",")[0] for address in self._environment.pci}:
                raise DpdkError(f"port {self.name!r}: {kind} was not among the PCI addresses when DPDK started")
            self.numbers.append(ask(f"port {self.name!r}: DPDK has no NIC at {kind}", lib.shim_port_find, kind.encode(),
                                    hint="bind it to vfio-pci with dpdk-devbind.py first"))
            return
        if not VIRTUAL_DEVICE.fullmatch(kind):
            raise DpdkError(f"port {self.name!r}: device = {self.device!r}, a PCI address (0000:01:00.0) or a virtual "
                            f"device (net_tap0,iface=dt0) is expected")
        if lib.shim_port_find(kind.encode()) >= 0:
            raise DpdkError(f"port {self.name!r}: {kind} is open already, give the second one another number")
        driver = driver_of(self.device)
        interface = check_interface(self.name, self.device, self.queues)
        if driver == "net_af_xdp":
            self._xdp_program = XdpProgram(interface)
            if lib.shim_log_level() <= LOG_LEVELS["error"]:
                silence()
        root = "it needs root" if driver in NEEDS_ROOT and os.geteuid() else ""
        for devargs in split_by_queue(self.device, self.queues):
            self.numbers.append(ask(f"{self._title} cannot be opened", lib.shim_port_probe, devargs.encode(), hint=root))

    def _check_limits(self):
        """Compares what was asked for with what the device has."""
        has = self.capabilities
        most = min(has["receive_queues"], has["transmit_queues"])
        if self._each > most:
            argument = QUEUES_ARGUMENT.get(self.driver)
            raise DpdkError(f"{self._title}: queues = {self.queues}, this device has {most}"
                            + (f"; {argument}={self.queues} in its arguments gives it more" if argument else ""))
        for key, asked in (("rxd", self.rxd), ("txd", self.txd)):
            least, most, multiple = (has[f"{key}_{limit}"] for limit in ("least", "most", "multiple"))
            if not least <= asked <= most or asked % max(multiple, 1):
                raise DpdkError(f"{self._title}: {key} = {asked}, this device takes {least} to {most} in "
                                f"steps of {multiple}")

    def _set_up(self, number, mtu, mac, promiscuous):
        """Configures and starts one of DPDK's ports."""
        present = lib.shim_port_mtu(number)
        wanted = mtu or (present if present > 0 else 1500)
        step, has = self._title, self.capabilities
        spreads = ask(f"{step} cannot be configured for {self.queues} queues and an MTU of {wanted}",
                      rss.configure, number, self._each, wanted, has, self.rss_key)
        once = ONCE if self.driver == "net_af_xdp" else ""
        first = self.numbers.index(number) * self._each
        pools = [self.pool.of_worker(queue).address for queue in range(first, first + self._each)]
        ask(f"{step} refuses its queues", lib.shim_port_queues, number, ffi.new("int64_t[]", pools), self._each, self.rxd,
            self.txd, hint=once)
        if mtu is not None and mtu != present:
            ask(f"{step} refuses an MTU of {mtu}", lib.shim_port_set_mtu, number, mtu)
        if mac is not None and mac != lib.shim_port_mac(number):
            ask(f"{step} refuses the MAC address {mac:012x}", lib.shim_port_set_mac, number, mac)
        ask(f"{step} does not start", lib.shim_port_start, number)
        self._started.append(number)
        if promiscuous:
            ask(f"{step} refuses promiscuous mode", lib.shim_port_promiscuous, number, 1)
        taken = rss.spread(number, self._each, has, self.rss_key) if spreads else None
        if taken:
            self.rss, (self.rss_key, self.rss_table) = True, taken

    @property
    def number(self):
        """DPDK's number of the port, of the first where it has several."""
        return self.numbers[0]

    @property
    def _each(self):
        """How many queues each of DPDK's ports has."""
        return self.queues // len(self.numbers)

    @property
    def mac(self):
        """The port's MAC address (int)."""
        return lib.shim_port_mac(self.number)

    @property
    def mtu(self):
        """Most octets of a frame after its Ethernet header."""
        return lib.shim_port_mtu(self.number)

    @property
    def link(self):
        """Whether the link is up, and its speed in Mbit/s (bool, int); an unknown speed is 2^32 - 1."""
        return lib.shim_port_link_up(self.number) == 1, lib.shim_port_link_speed(self.number)

    @property
    def driver(self):
        """Name of the driver, such as net_tap."""
        return ffi.string(lib.shim_port_driver(self.number)).decode()

    def _structure(self, kind, function, number):
        filled = ffi.new(f"struct {kind} *")
        ask(f"{self._title} gives no {kind.removeprefix('shim_')}", function, number, filled)
        return {field: getattr(filled, field) for field, _ in ffi.typeof(f"struct {kind}").fields}

    @property
    def capabilities(self):
        """What the device, or that of each queue, can do: a dict of `struct shim_information` in csrc/dpdk_shim.h."""
        return self._structure("shim_information", lib.shim_port_information, self.number)

    def statistics(self):
        """Returns the device's counters (dict): packets, octets, missed, errors, no_mbuf."""
        each = [self._structure("shim_statistics", lib.shim_port_statistics, number) for number in self.numbers]
        return {field: sum(counted[field] for counted in each) for field in each[0]}

    def rx(self, limit=32, queue=0):
        """Receives at most `limit` frames: a Burst. Only for a queue that no worker polls."""
        mbufs = np.empty(limit, np.int64)
        count = lib.shim_receive(*self.queue_of(queue), mbufs.ctypes.data, limit)
        return Burst(mbufs[:count] - self.pool.arena.base, self.pool)

    def tx(self, burst, queue=0):
        """Sends a Burst; returns how many frames the device took, from the front: the rest stays the caller's."""
        addresses = burst.mbufs + self.pool.arena.base
        return lib.shim_transmit(*self.queue_of(queue), addresses.ctypes.data, len(addresses))

    def queue_of(self, worker):
        """Returns DPDK's number of the port, and of its queue, that the worker of that number (from 0) receives and sends on."""
        if not 0 <= worker < self.queues:
            raise DpdkError(f"{self._title}: worker {worker} has no queue, queues = {self.queues}")
        return self.numbers[worker // self._each], worker % self._each

    def stop(self):
        """Stops receiving and sending; the port can still be asked for its counters."""
        while self._started:
            ask(f"{self._title} does not stop", lib.shim_port_stop, self._started.pop())

    def _remove(self):
        with contextlib.ExitStack() as all_of_it:
            if self._xdp_program:
                all_of_it.callback(self._xdp_program.detach)
            for number in self.numbers:
                all_of_it.callback(ask, f"{self._title} cannot be closed", lib.shim_port_close, number)
            self.stop()

    def close(self):
        """Stops and removes the device; workers must have left it. Does nothing the second time."""
        if self in self._environment.ports:
            self._environment.ports.remove(self)
            self._remove()
