"""Ports without DPDK, their kernels in another thread and as plain Python, and recordings played into them."""
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether
from scapy.utils import PcapNgWriter, wrpcap

from pipeline.io.memory_port import MemoryNetwork
from pipeline.io.nic_model import NicModel
from pipeline.io.pcap_port import PcapPort, read_recording
from pipeline.kernels import memory_device, native
from pipeline.kernels.jit import loop


@loop
def bounce(device, stop, mbufs, extra):
    """Sends what port 0 receives out of port 1 and an empty mbuf of its own for each burst, until told to stop."""
    moved = 0
    while True:
        count = memory_device.receive(device, 0, mbufs, 32)
        sent = memory_device.transmit(device, 1, mbufs, 0, count)
        memory_device.release(device, mbufs[sent:], count - sent)
        if count > 0 and memory_device.allocate(device, extra, 1) == 1:
            if memory_device.transmit(device, 1, extra, 0, 1) == 0:
                memory_device.release(device, extra, 1)
        if count == 0:
            if native.load_acquire(native.address_of(stop)) != 0:
                return moved
            memory_device.pause(device, 50)
        moved += count


def nic_of_one_queue(**settings):
    return NicModel(queues=1, **settings)


of_one_worker = pytest.mark.parametrize("made", [MemoryNetwork, nic_of_one_queue])


@of_one_worker
def test_frames_go_in_and_come_out_in_order(made):
    network = made(ports=2, mbufs=64, ring_size=16)
    frames = [bytes([number]) * (60 + number) for number in range(10)]
    assert network.ports[0].feed(frames) == 10 and network.ports[0].waiting == 10
    burst = network.ports[0].rx(4)
    assert [bytes(frame) for frame in burst] == frames[:4] and (burst.mbuf["port"] == 0).all()
    assert network.ports[1].tx(burst) == 4 and network.ports[1].tx(network.ports[0].rx()) == 6
    assert network.ports[1].taken() == frames and network.ports[0].taken() == []
    assert network.pool.available == 64


@of_one_worker
def test_a_full_ring_takes_what_has_room(made):
    network = made(ports=1, mbufs=128, ring_size=16)
    port = network.ports[0]
    assert port.feed([b"x"] * 20) == 16 and port.feed([b"x"]) == 0
    burst = port.rx(16)
    assert port.tx(burst[:10]) == 10 and port.tx(burst[10:]) == 6
    assert port.feed([b"y"] * 4) == 4
    again = port.rx()
    assert port.tx(again) == 0
    again.release()
    assert len(port.taken()) == 16 and network.pool.available == 128


@of_one_worker
def test_closing_frees_what_lies_in_the_rings(made):
    network = made(ports=2, mbufs=64, ring_size=16)
    network.ports[0].feed([b"x"] * 8)
    network.ports[1].tx(network.ports[0].rx(3))
    for port in network.ports:
        port.close()
    assert network.pool.available == 64


def fed(port, frame):
    """Feeds a frame in segments; returns whether ring and pool had room, which a slow worker decides."""
    try:
        return port.feed([frame], segment_length=700) == 1
    except MemoryError:
        return False


@of_one_worker
def test_a_worker_in_another_thread_loses_no_mbuf(made):
    network = made(ports=2, mbufs=512, ring_size=128)
    stop, scratch = np.zeros(1, np.int64), (np.empty(32, np.int64), np.empty(1, np.int64))
    worker = threading.Thread(target=bounce, args=(network.device, stop, *scratch))
    bounce(network.device, np.ones(1, np.int64), *scratch)
    worker.start()
    sent, received = [], []
    try:
        for number in range(3000):
            frame = number.to_bytes(4, "big") * (1 + number % 900)
            while not fed(network.ports[0], frame):
                received += network.ports[1].taken()
            sent.append(frame)
            if number % 5 == 0:
                received += network.ports[1].taken()
    finally:
        stop[0] = 1
        worker.join(30)
    assert not worker.is_alive()
    received += network.ports[1].taken()
    ours = [frame for frame in received if frame]
    assert len(received) > len(ours) > 0
    assert ours == [frame for frame in sent if frame in set(ours)]
    assert network.pool.available == 512


def test_the_device_kernels_run_as_plain_python(tmp_path):
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1", "PIPELINE_CACHE": str(tmp_path)}
    chosen = [f"{__file__}::{name}" for name in ("test_frames_go_in_and_come_out_in_order",
                                                 "test_a_full_ring_takes_what_has_room",
                                                 "test_closing_frees_what_lies_in_the_rings")]
    run = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *chosen], env=environment,
                         capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0 and "6 passed" in run.stdout, run.stdout + run.stderr


def recorded(tmp_path, kind):
    packets = []
    for number in range(5):
        packet = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / IP() / TCP(seq=number)
        packet.time = 1_700_000_000 + number * 0.25
        packets.append(packet)
    path = tmp_path / f"recording.{kind}"
    if kind == "pcap":
        wrpcap(str(path), packets)
    else:
        writer = PcapNgWriter(str(path))
        writer.write(packets)
        writer.close()
    return path, [bytes(packet) for packet in packets]


@pytest.mark.parametrize("kind", ["pcap", "pcapng"])
def test_a_recording_is_played_by_its_times(tmp_path, kind):
    path, frames = recorded(tmp_path, kind)
    network = MemoryNetwork(ports=1, mbufs=64)
    port = PcapPort(network.pool, 0, path)
    start = 1_700_000_000 * 10**9
    assert port.next_time == start and port.remaining == 5
    assert port.play(until=start + 500_000_000) == 3 and port.next_time == start + 750_000_000
    assert [bytes(frame) for frame in port.rx()] == frames[:3]
    assert port.play(until=start + 500_000_000) == 0
    assert port.play() == 2 and port.next_time is None
    assert list(port.rx().tcp["seq"]) == [3, 4]
    assert port.play() == 0


def test_a_bad_recording_is_refused_in_a_sentence_that_names_it(tmp_path):
    path, _ = recorded(tmp_path, "pcap")
    whole = path.read_bytes()
    bad = tmp_path / "bad.pcap"
    for content, said in ((b"", "the capture is damaged"), (b"hello, this is no capture", "not a pcap or pcapng file"),
                          (whole[:20] + (101).to_bytes(4, "little") + whole[24:], "link type is 101, Ethernet")):
        bad.write_bytes(content)
        with pytest.raises(ValueError, match=f"{bad}: .*{said}"):
            read_recording(bad)
    with pytest.raises(ValueError, match="missing.pcap: cannot be read"):
        read_recording(tmp_path / "missing.pcap")
