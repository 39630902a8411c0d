"""All that a worker's loop works on, in one NamedTuple of arrays; Python makes it, one worker alone changes it."""
from typing import NamedTuple

import numpy as np

from pipeline.kernels import access, batch, connection, faults, outbox, profile, recorder, records, schedule, syn_cookies, wheel
from pipeline.kernels.counters import Counters
from pipeline.kernels.hand_over import Steering
from pipeline.kernels.headers import Packets
from pipeline.kernels.kernel_neighbours import Mailbox
from pipeline.kernels.neighbours import Network
from pipeline.kernels.services import Selection, Targets
from pipeline.kernels.source_ports import SourcePorts

RUN, DRAIN, STOP = 0, 1, 2
"""What `control` asks of a worker: serve; open nothing new and end with the last connection; end at once."""

ORDERS = 1024
"""Rows of the lists that one pass of the loop fills: more than 64 packets and 64 timers can ask for; as often for more packets."""
TIMERS_A_PASS = 64
"""Timers dealt with in one pass; the wheel stands still meanwhile, so that a burst is never kept waiting long."""


class State(NamedTuple):
    """The state of one worker. `device` is a dpdk_device.Device or a memory_device.Device."""

    control: np.ndarray      # int64 [8] the first is RUN, DRAIN or STOP: written by Python, read with acquire
    clock: np.ndarray        # int64 [3] ticks and microseconds of one moment, microseconds << 32 a tick
    idle: np.ndarray         # int64 [2] longest sleep in microseconds (0: spin), empty passes before the first sleep
    device: NamedTuple
    base: np.ndarray         # int64 [1] address of the arena
    packets: Packets
    batch: batch.Batch
    connections: connection.Connections
    selection: Selection
    targets: Targets
    sources: SourcePorts
    network: Network
    wheel: wheel.Wheel
    records: records.Records
    outbox: outbox.Outbox
    requests: connection.Listed   # neighbours to be asked for
    expired: np.ndarray      # int64 [TIMERS_A_PASS]
    fresh: np.ndarray        # int64 [ORDERS] mbufs just allocated
    reserve: np.ndarray      # int64 [3] mbufs that send queues may keep; least that must be free, -1 if not seen yet; too few?
    burst: np.ndarray        # int64 [1] most packets a burst
    faults: faults.Faults
    claims: np.ndarray       # int64 [n, 5] source ports toward targets that are ours and not the kernel's (see kernels.exception)
    mailbox: Mailbox         # what the kernel says of neighbours, where there are exception ports
    inputs: schedule.Inputs
    steering: Steering
    observed: np.ndarray     # int64 [OBSERVED] what the kernel in the slot `observe` has counted
    recorder: recorder.Recorder   # what comes in, where the loop records it
    capture: recorder.Recorder    # what is sent
    profile: profile.Profile
    access: access.Access
    cookies: syn_cookies.SynCookies

    @property
    def counters(self) -> Counters:
        """The worker's counters."""
        return self.connections.counters

    @property
    def budget(self) -> np.ndarray:
        """What may still be sent of resets and challenges (see `Connections`)."""
        return self.connections.budget
