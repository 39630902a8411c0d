"""Malformed frames through a real DPDK device: `python malformed_devices.py ring|af_packet SEED`, a process of its own.

ring: a net_ring cable, its other end fed with the mbufs themselves. af_packet: net_af_packet on veth, in a network
namespace of our own, fed by packet sockets of the kernel's. Prints what was fed, by kind.
"""
import contextlib
import os
import pathlib
import socket
import subprocess
import sys
import time

import flood
import malformed
import numpy as np

from pipeline import assemble, compose
from pipeline.io import dpdk
from pipeline.io.burst import Burst
from pipeline.io.frame_rows import load, read_rows
from pipeline.io.frames import frame_bytes
from pipeline.io.ring_port import Cable
from pipeline.kernels import native
from pipeline.memory_engine import SECOND
from pipeline.network_namespace import create, delete, entered

SO_RCVBUFFORCE = 33
"""Of asm-generic/socket.h; Python does not name it."""
MBUFS = 1 << 14
PATIENCE = 5.0
"""Seconds within which what was fed has to have come out of the engine's port."""


class DeviceEngine:
    """What flood.Flood asks of an engine, its ports two DPDK ports with a wire each: `send(mbufs)`, `receive()`."""

    def __init__(self, pool, ports, wires):
        self.pool, self.ports, self.wires = pool, ports, wires
        self.macs = [port.mac for port in ports]
        self.now, self.fed = SECOND, 0
        self.state, selects = assemble.make_state(flood.SETTINGS, dpdk.device(pool, ports), pool.arena, self.macs,
                                                  0, 1e9)
        with compose.compiling():
            self.run = compose.compose({}, selects, "dpdk")
            self.run(self.state, 0, 0)

    def feed(self, number, mbufs):
        """Puts frames on the wire to a port."""
        self.fed += len(mbufs)
        self.wires[number].send(mbufs)

    def step(self, microseconds=0):
        """Runs the loop until it has received all that was fed."""
        self.now += microseconds
        deadline = time.monotonic() + PATIENCE
        while True:
            self.run(self.state, 4, self.now)
            if self.state.counters.totals[1] >= self.fed:
                break
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.fed} frames were fed and {self.state.counters.totals[1]} were received")
        self.run(self.state, 4, self.now)

    def take(self, number, width):
        """Takes what came over the wire from a port: rows and lengths."""
        return self.wires[number].receive(width)


class RingWire:
    """The other end of a net_ring port."""

    def __init__(self, port, pool):
        self.port, self.pool = port, pool

    def send(self, mbufs):
        """Hands mbufs over, as they are."""
        if self.port.tx(Burst(mbufs, self.pool)) != len(mbufs):
            raise RuntimeError("the cable is full")

    def receive(self, width):
        """Takes all that lies in the cable."""
        rows, lengths = [np.empty((0, width), np.uint8)], [np.empty(0, np.int64)]
        while len(burst := self.port.rx(64)):
            made = read_rows(self.pool.arena, burst.mbufs, width)
            burst.release()
            rows.append(made[0])
            lengths.append(made[1])
        return np.concatenate(rows), np.concatenate(lengths)


class SocketWire:
    """A packet socket on the other end of a veth pair."""

    def __init__(self, interface, namespace, pool):
        self.pool = pool
        with entered(namespace):
            self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
            self.socket.bind((interface, 0))
        self.socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 25)
        self.socket.setblocking(False)

    def send(self, mbufs):
        """Sends the octets of frames, and frees them."""
        for mbuf in mbufs:
            self.socket.send(frame_bytes(self.pool.arena, int(mbuf)))
        self.pool.release(mbufs)

    def receive(self, width):
        """Takes all that the socket has received; the kernel keeps VLAN tags beside the frame."""
        frames = []
        with contextlib.suppress(BlockingIOError):
            while True:
                frames.append(self.socket.recv(4096))
        rows = np.zeros((len(frames), width), np.uint8)
        for row, frame in zip(rows, frames, strict=True):
            row[:len(frame)] = np.frombuffer(frame, np.uint8)
        return rows, np.array([len(frame) for frame in frames], np.int64)


def delivered(kind):
    """Wraps a kind so that it makes only what the kernel carries over veth and hands to net_af_packet.

    It refuses frames shorter than an Ethernet header, and drops those that end within a VLAN tag. Fragments it keeps
    until they are whole: the device joins a fanout group with PACKET_FANOUT_FLAG_DEFRAG.
    """
    def made(valid, side, count):
        frames = kind(valid, side, count)
        tagged = (frames.rows[:, 12] == 0x81) | (frames.rows[:, 12] == 0x88)
        part = (load(frames.rows, 12, 2) == 0x0800) & (load(frames.rows, 20, 2) & 0x3FFF != 0)
        kept = (frames.lengths >= 14) & ~(tagged & (frames.lengths < 18)) & ~part
        return malformed.Frames(*(column[kept] for column in frames))
    made.__name__ = kind.__name__
    return made


@contextlib.contextmanager
def ring(pool):
    """Two engine's ports and their wires, over net_ring; any kind can be fed."""
    with contextlib.ExitStack() as stack:
        cables = [stack.enter_context(contextlib.closing(Cable(name, pool, 8192))) for name in ("clients", "servers")]
        yield ([cable.ports[0] for cable in cables], [RingWire(cable.ports[1], pool) for cable in cables],
               malformed.EVERY_KIND)


@contextlib.contextmanager
def af_packet(pool):
    """Two engine's ports and their wires, over net_af_packet on veth."""
    namespace = f"malformed-{os.getpid()}"
    create(namespace)
    try:
        with entered(namespace):
            pathlib.Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1")
        for number in (0, 1):
            for words in (f"link add e{number} type veth peer name h{number}", f"link set e{number} up",
                          f"link set h{number} up"):
                subprocess.run(["ip", "-n", namespace, *words.split()], check=True, timeout=10)
        with contextlib.ExitStack() as stack:
            ports = []
            for number in (0, 1):
                with entered(namespace):
                    ports.append(stack.enter_context(contextlib.closing(dpdk.Port(
                        f"net_af_packet{number},iface=e{number},blocksz=65536,framesz=2048,framecnt=2048",
                        f"port{number}", pool))))
            yield (ports, [SocketWire(f"h{number}", namespace, pool) for number in (0, 1)],
                   [delivered(kind) for kind in malformed.ON_THE_WIRE if kind is not malformed.fragments])
    finally:
        delete(namespace)


def main(device, seed):
    """Feeds 12 rounds of each kind, and prints how many frames of each there were."""
    with contextlib.closing(dpdk.Environment(memory=256, hugepages=False)), \
            contextlib.closing(dpdk.Pool("mbufs", MBUFS)) as pool:
        native.use_shim(str(dpdk.PATH))
        with {"ring": ring, "af_packet": af_packet}[device](pool) as (ports, wires, kinds):
            run = flood.Flood(DeviceEngine(pool, ports, wires), seed)
            for _ in range(12):
                for kind in kinds:
                    run.round({kind: 8 if kind is malformed.giants else 40})
            run.finish()
        print(run.fed, run.kinds)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
