"""The columns of a burst: one fact a column, one packet a row. Parse fills them, the other stages read and mark."""
from typing import NamedTuple

import numpy as np

NO_FLOW = -1
BURST = 256
"""Most packets of a burst."""
KIND_NONE, KIND_TCP, KIND_ARP, KIND_ICMP = 0, 1, 2, 3

PENDING, FORWARD, ABSORB, REFUSE, ANSWER, DROP, REPORT, WAIT, SENT = range(9)
"""Verdicts: PENDING nobody has decided; FORWARD translate and send on; ABSORB done with, not an
error; REFUSE answer with a RST; ANSWER the mbuf has become the reply, or is for the kernel as it is; DROP counted under its reason;
REPORT counted, and its sender is to hear of it by ICMP; WAIT the mbuf lies in the waiting room;
SENT it lies in the outbox."""


class Batch(NamedTuple):
    """int64 columns of at least `BURST` rows. Offsets are bytes from the arena's base; numbers are in host order."""

    mbuf: np.ndarray              # where the mbuf starts; the packet's handle
    port: np.ndarray              # the engine's port it came in by
    out_port: np.ndarray          # the engine's port it leaves by, once ANSWER or FORWARD
    kind: np.ndarray              # KIND_*
    verdict: np.ndarray
    reason: np.ndarray            # DROP_*, where parse has dropped the row
    frame: np.ndarray             # offset of the Ethernet header
    network: np.ndarray           # offset of the IPv4 or ARP header
    transport: np.ndarray         # offset of the TCP or ICMP header
    payload: np.ndarray           # offset of the first payload byte
    payload_length: np.ndarray    # bytes, by the IP header: Ethernet padding is not payload
    source: np.ndarray            # addresses and ports, the key of the look-up
    destination: np.ndarray
    source_port: np.ndarray
    destination_port: np.ndarray
    hash: np.ndarray              # of the key, 32 bits
    flow: np.ndarray              # connection * 2 + side, or NO_FLOW
    seq: np.ndarray
    ack: np.ndarray
    control: np.ndarray           # the eight control bits
    window: np.ndarray            # as on the wire, unscaled
    mss: np.ndarray               # of a SYN's option, 0 without
    scale: np.ndarray             # of a SYN's window scale option, at most 14, -1 without
    sack_permitted: np.ndarray    # 1 where a SYN has the option
    stamps: np.ndarray            # offset of TSval, 0 without timestamps
    above: np.ndarray             # where a SYN opens a connection anew: what our initial number has to lie above, else -1


def allocate_batch(rows):
    """Returns a `Batch` of zeroed columns of `rows` rows."""
    return Batch(*(np.zeros(rows, np.int64) for _ in Batch._fields))
