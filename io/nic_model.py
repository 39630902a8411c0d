"""A model of a NIC with several receive queues a port: RSS and steering rules as hardware does them, on memory ports.

No device on a machine without hardware takes rte_flow rules; what steers by them is tested on this. Queue w of every port is
worker w's. What it does with which frame stands in `pipeline.kernels.nic_queue`.
"""
import numpy as np

from pipeline.kernels import memory_device, nic_queue, toeplitz
from pipeline.kernels.headers import overlays

from .frames import write_frames
from .memory_pool import MemoryPool, filling
from .memory_port import MemoryPort
from .steering import FIELDS

MOST_QUEUES = 128
"""Receive queues that a port of an 82599 has."""
MOST_RULES = 2048
"""Rules that a port holds: perfect match filters of an 82599 in 64 KiB of its packet buffer (datasheet, FDIRCTRL.PBALLOC)."""
HEADERS = 128
"""Octets of a frame that its queue depends on, and more: Ethernet, a tag, 60 of IPv4, the ports."""
CODES = {"destination_port": nic_queue.DESTINATION_PORT, "destination_address": nic_queue.DESTINATION_ADDRESS}
COUNTED = {nic_queue.BY_RULE: "steered", nic_queue.BY_PORTS: "hashed_by_ports", nic_queue.BY_ADDRESSES: "hashed_by_addresses",
           nic_queue.UNHASHED: "unhashed"}


def default_table(queues):
    """Returns the redirection table that spreads evenly over `queues` queues, as DPDK's drivers set it: int64[ENTRIES]."""
    return np.arange(toeplitz.ENTRIES, dtype=np.int64) % queues


def checked_table(table, queues):
    """Returns a redirection table as int64[n]; raises ValueError where a NIC with so many queues would not have it."""
    table = np.array(table, np.int64)
    if table.ndim != 1 or table.size < 2 or table.size & (table.size - 1):
        raise ValueError(f"the redirection table has {table.size} entries: a power of two is expected, "
                         f"{toeplitz.ENTRIES} for instance")
    wrong = np.flatnonzero((table < 0) | (table >= queues))
    if len(wrong):
        raise ValueError(f"entry {wrong[0]} of the redirection table is queue {table[wrong[0]]}: "
                         f"there are queues 0 to {queues - 1}")
    return table


class NicModel:
    """`ports` ports of `queues` receive queues each, over one pool of `mbufs` mbufs; to be used as a MemoryNetwork is.

    `devices[w]` is what the kernels of worker w get; `ring_size` (a power of two) is how many frames each queue holds, and
    each worker's ring of what it sends by a port. `key` (bytes) is the RSS key, `table` the redirection table (default:
    `default_table`), both of all ports. Raises ValueError in a sentence for what a NIC could not be.
    """

    def __init__(self, ports=2, queues=2, mbufs=8192, ring_size=1024, key=toeplitz.KEY, table=None):
        if not 1 <= queues <= MOST_QUEUES:
            raise ValueError(f"queues = {queues}: a port has 1 to {MOST_QUEUES}")
        self.queues, self.key = queues, bytes(key)
        self.table = checked_table(default_table(queues) if table is None else table, queues)
        self.spreading = nic_queue.Spreading(
            toeplitz.make_tables(self.key), self.table, *(np.zeros(ports, np.int64) for _ in range(3)),
            *(np.zeros((ports, MOST_RULES), np.int64) for _ in range(2)))
        self.pool = MemoryPool(mbufs, ports, ring_size, workers=queues)
        self.arena, self.devices, self.device = self.pool.arena, self.pool.devices, self.pool.device
        self.ports = [NicPort(self, number) for number in range(ports)]
        self.rules = []

    def check_rule(self, rule):
        """Raises ValueError, one sentence, for a SteeringRule that this NIC would refuse now; rte_flow_validate's part."""
        port, field, value, mask, queue = rule
        width = FIELDS.get(field)
        if not 0 <= port < len(self.ports):
            raise ValueError(f"{rule}: there is no port {port}, the NIC has ports 0 to {len(self.ports) - 1}")
        if width is None:
            raise ValueError(f"{rule}: the NIC cannot look at {field!r}, only at {' or '.join(FIELDS)}")
        if not 0 <= queue < self.queues:
            raise ValueError(f"{rule}: port {port} has no queue {queue}, only 0 to {self.queues - 1}")
        if not 0 < mask < 1 << width:
            raise ValueError(f"{rule}: mask {mask:#x} is none of {field}, which has {width} bits, one of them at least")
        if value & ~mask:
            raise ValueError(f"{rule}: value {value:#x} has bits that mask {mask:#x} has not, it would match nothing")
        others = [other for other in self.rules if other.port == port]
        if any((other.field, other.mask) != (field, mask) for other in others):
            raise ValueError(f"{rule}: the rules of port {port} look at {others[0].field} under mask {others[0].mask:#x}, "
                             "and the NIC has one mask for all rules of a port")
        if any(other.value == value for other in others):
            raise ValueError(f"{rule}: port {port} has a rule for {field} {value:#x} already")
        if len(others) == MOST_RULES:
            raise ValueError(f"{rule}: port {port} has {MOST_RULES} rules already, the NIC holds no more")

    def add_rule(self, rule):
        """Has the NIC follow a SteeringRule from the next frame on; raises ValueError, one sentence, where it would refuse."""
        self.check_rule(rule)
        self.rules.append(rule)
        self._write_rules(rule.port)

    def remove_rule(self, rule):
        """Takes a SteeringRule away; raises ValueError, one sentence, where it is not there."""
        if rule not in self.rules:
            raise ValueError(f"{rule}: the NIC has no such rule")
        self.rules.remove(rule)
        self._write_rules(rule.port)

    def _write_rules(self, port):
        spreading, rules = self.spreading, [rule for rule in self.rules if rule.port == port]
        spreading.field[port] = CODES[rules[0].field] if rules else nic_queue.NO_FIELD
        spreading.mask[port] = rules[0].mask if rules else 0
        spreading.count[port] = len(rules)
        spreading.value[port, :len(rules)] = [rule.value for rule in rules]
        spreading.queue[port, :len(rules)] = [rule.queue for rule in rules]


class NicPort(MemoryPort):
    """One port of a NicModel: `feed` is the wire's end, which never waits: what a queue has no room for is missed."""

    def __init__(self, model, number):
        super().__init__(model.pool, number)
        self.model = model
        self.received, self.missed = np.zeros(model.queues, np.int64), np.zeros(model.queues, np.int64)
        self._octets, self._reasons, self._sent = 0, np.zeros(len(COUNTED), np.int64), np.zeros(2, np.int64)

    def _choose(self, packets, frames, lengths):
        """Returns the queue of each frame (int64[n]), given where it begins in `packets` and its length."""
        queues, reasons = np.zeros(len(frames), np.int64), np.zeros(len(frames), np.int64)
        nic_queue.choose_queues(packets, frames, lengths, self.number, self.model.spreading, queues, reasons)
        self._reasons += np.bincount(reasons, minlength=len(COUNTED))
        return queues

    def feed(self, frames, segment_length=None):
        """Lets workers receive `frames` (bytes each), those of a queue in order; returns how many found room in theirs.

        The others are counted as missed. `segment_length` cuts each frame into chained mbufs of that many octets. Raises
        MemoryError when the pool runs short, with nothing fed.
        """
        heads = np.frombuffer(b"".join(frame[:HEADERS].ljust(HEADERS, b"\0") for frame in frames), np.uint8)
        lengths = np.array([min(len(frame), HEADERS) for frame in frames], np.int64)
        counted = self._reasons.copy()
        queues = self._choose(overlays(heads.copy(), native=True), np.arange(len(frames)) * HEADERS, lengths)
        has_room = np.ones(len(frames), bool)
        for queue, room in enumerate(self._room()):
            has_room[np.flatnonzero(queues == queue)[room:]] = False
        try:
            mbufs = write_frames(self.pool, [frame for frame, kept in zip(frames, has_room, strict=True) if kept], segment_length)
        except MemoryError:
            self._reasons = counted
            raise
        self.missed += np.bincount(queues[~has_room], minlength=len(self.missed))
        return self._enqueue(mbufs, queues[has_room])

    def feed_mbufs(self, mbufs):
        """Lets workers receive the frames whose first mbufs are at `mbufs` (int64[n]); returns how many found room.

        The others are freed and counted as missed. Headers are looked for in the first mbuf of a frame alone.
        """
        records, arena = self.pool.arena.native.mbuf, self.pool.arena
        frames = records["buffer_address"][mbufs].astype(np.int64) - arena.base + records["data_off"][mbufs]
        return self._enqueue(mbufs, self._choose(arena.native, frames, records["data_length"][mbufs].astype(np.int64)))

    def _room(self):
        """Returns how many more frames each queue has room for (list); workers only make it more."""
        return [device.received.slots.shape[1] - filling(device.received, self.number) for device in self.model.devices]

    def _enqueue(self, mbufs, queues):
        """Puts each frame into its queue, frees what has no room; returns how many had."""
        records = self.pool.arena.native.mbuf
        records["port"][mbufs] = self.number
        entered = 0
        for queue, device in enumerate(self.model.devices):
            chosen = mbufs[queues == queue]
            octets = records["packet_length"][chosen].astype(np.int64)
            taken = memory_device.enqueue(device.received, self.number, chosen, 0, len(chosen))
            self.received[queue] += taken
            self.missed[queue] += len(chosen) - taken
            self._octets += int(octets[:taken].sum())
            self.pool.release(chosen[taken:])
            entered += taken
        return int(entered)

    def taken_mbufs(self):
        """Takes what all workers have sent, worker after worker, each in order: offsets of mbufs, which are the caller's."""
        mbufs = super().taken_mbufs()
        self._sent += len(mbufs), int(self.pool.arena.native.mbuf["packet_length"][mbufs].sum())
        return mbufs

    def statistics(self):
        """Returns the port's counters (dict): those of a DPDK port, what has decided on queues, and each queue's (lists)."""
        return {"received_packets": int(self.received.sum()), "sent_packets": int(self._sent[0]),
                "received_octets": self._octets, "sent_octets": int(self._sent[1]), "missed": int(self.missed.sum()),
                "receive_errors": 0, "send_errors": 0, "no_mbuf": 0,
                **{name: int(self._reasons[reason]) for reason, name in COUNTED.items()},
                "queue_packets": self.received.tolist(), "queue_missed": self.missed.tolist()}
