"""testpmd, DPDK's own forwarder in C, over net_ring ports looped to themselves: what a script in perf/ compares us with."""
import os
import re
import select
import shutil
import subprocess
import time

import click

from pipeline.io.environment import free_hugepages

PROGRAM = "dpdk-testpmd"
A_RING = 1024
"""Places of a net_ring port's ring (DPDK 22.11 has no other size)."""
MEMORY = 256
"""MiB that one process gets."""
PATIENCE = 30
FOUND = re.compile(r"CPU cycles/packet=([\d.]+)")


class Testpmd:
    """A testpmd on one core, with as many looped ports as it takes to have `mbufs` frames of `octets` octets in turn.

    A stopped one takes no time from the others. Raises ClickException where it is missing or does not start.
    """

    def __init__(self, core, octets, mbufs, burst=32):
        if shutil.which(PROGRAM) is None:
            raise click.ClickException(f"{PROGRAM} is not installed (Debian: apt-get install dpdk-dev); "
                                       "--without-testpmd does without")
        ports = max(mbufs // A_RING, 1)
        self.bursts, self.heard = min(A_RING - 1, mbufs) // burst, ""
        huge = free_hugepages() >= MEMORY
        memory = ["--in-memory", "-m", str(MEMORY)] if huge else ["--no-huge", "-m", str(MEMORY), "--no-shconf"]
        command = ["stdbuf", "-oL", PROGRAM, *memory, "--no-pci", "--no-telemetry", "--lcores", f"0@{core},1@{core}",
                   "--file-prefix", f"proxy-pipeline-testpmd-{os.getpid()}-{octets}", "--log-level", "error",
                   *(word for port in range(ports) for word in ("--vdev", f"net_ring{port}")),
                   "--", "-i", "--nb-cores=1", "--port-topology=loop", "--no-mlockall", f"--burst={burst}",
                   f"--total-num-mbufs={2 * mbufs + 4096}", f"--txpkts={octets}"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.wait_for("testpmd> ")
        self.say("set record-core-cycles on")

    def say(self, words):
        """Gives it a command."""
        self.process.stdin.write(f"{words}\n".encode())
        self.process.stdin.flush()

    def wait_for(self, words):
        """Reads until it has said that; returns what it said up to there."""
        deadline = time.monotonic() + PATIENCE
        while words not in self.heard:
            readable, _, _ = select.select([self.process.stdout], [], [], max(deadline - time.monotonic(), 0))
            more = os.read(self.process.stdout.fileno(), 65536).decode(errors="replace") if readable else ""
            if not more:
                last = self.heard.strip().rpartition("\n")[2]
                self.close()
                raise click.ClickException(f"{PROGRAM} does not answer: {last}")
            self.heard += more
        told, _, self.heard = self.heard.partition(words)
        return told

    def ticks(self, mode, seconds=0.005):
        """Forwards in a mode ("macswap", "5tswap") for a while; returns the ticks a packet of its busy passes."""
        self.say(f"set fwd {mode}")
        self.say(f"start tx_first {self.bursts}")
        time.sleep(seconds)
        self.say("stop")
        told = FOUND.search(self.wait_for("Done."))
        if told is None:
            raise click.ClickException(f"{PROGRAM} has not said how many cycles a packet took")
        return float(told[1])

    def close(self):
        """Ends it."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()
