"""Plays recordings into memory ports while an engine runs: a configuration whose devices are all `pcap:FILE`."""
import threading
import time

from pipeline.errors import RunError
from pipeline.io.memory_pool import MemoryPool
from pipeline.io.pcap_port import PcapPort

STEP = 0.001
"""Seconds between two looks at what is due."""


class CountedPort(PcapPort):
    """A PcapPort that counts like a device does."""

    def __init__(self, pool, number, path, mac=None):
        super().__init__(pool, number, path)
        if mac is not None:
            self.mac = mac
        self.counted = dict.fromkeys(("received_packets", "sent_packets", "received_octets", "sent_octets", "missed",
                                      "receive_errors", "send_errors", "no_mbuf"), 0)

    def statistics(self):
        """Returns counters named like those of a DPDK port (dict)."""
        return dict(self.counted)

    def step(self, until):
        """Feeds what was captured up to `until` (nanoseconds since 1970) and takes away what has been sent."""
        before = self._next
        fed = self.play(until)
        self.counted["received_packets"] += fed
        self.counted["received_octets"] += sum(len(frame) for frame in self.recording.frames[before:before + fed])
        sent = self.taken()
        self.counted["sent_packets"] += len(sent)
        self.counted["sent_octets"] += sum(map(len, sent))


class Playback:
    """Memory ports for the recordings of a `configuration`, and the thread that feeds them on recorded time."""

    def __init__(self, configuration):
        try:
            self.pool = MemoryPool(configuration.engine.mbufs, len(configuration.ports))
            self.ports = [CountedPort(self.pool, number, port.device.partition(":")[2],
                                      None if port.mac is None else int(port.mac.replace(":", ""), 16))
                          for number, port in enumerate(configuration.ports)]
        except ValueError as error:
            raise RunError(str(error)) from error
        starts = [port.recording.times[0] for port in self.ports if len(port.recording.times)]
        self._time = int(min(starts, default=0))
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._play, name="playback", daemon=True)

    def start(self):
        """Starts playing."""
        self._thread.start()

    def _play(self):
        started = time.monotonic_ns()
        while not self._over.wait(STEP):
            for port in self.ports:
                port.step(self._time + time.monotonic_ns() - started)

    def close(self):
        """Stops playing and frees what lies in the rings."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()
        for port in self.ports:
            port.close()
