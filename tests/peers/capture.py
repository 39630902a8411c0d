"""What passes a host's interface, with the kernel's own time stamps, read by a packet socket of ours (packet(7))."""
import socket
import struct
from typing import NamedTuple

import dpkt

ETH_P_ALL = 3
SO_TIMESTAMPNS = 35
SO_RCVBUFFORCE = 33


class Segment(NamedTuple):
    """A TCP segment: time in seconds, whether this host sent it, and dpkt's view of its two headers."""

    at: float
    sent: bool
    ip: dpkt.ip.IP
    tcp: dpkt.tcp.TCP

    @property
    def control(self):
        """The control bits (dpkt.tcp.TH_*)."""
        return self.tcp.flags

    @property
    def is_first_syn(self):
        """Whether it asks for a connection: SYN without ACK."""
        return self.control & (dpkt.tcp.TH_SYN | dpkt.tcp.TH_ACK) == dpkt.tcp.TH_SYN

    @property
    def is_reset(self):
        """Whether it carries RST."""
        return bool(self.control & dpkt.tcp.TH_RST)


class Capture:
    """Frames at the interface of a host, from the moment of making; up to 64 MB wait in the socket to be read."""

    def __init__(self, bed, host):
        with bed.inside(host):
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
            self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
            self._socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
            self._socket.bind(("eth0", ETH_P_ALL))
        self._socket.setblocking(False)
        self._read = []

    def segments(self):
        """Returns all TCP segments so far (list of Segment), in order."""
        while True:
            try:
                frame, ancillary, _, address = self._socket.recvmsg(65536, 64)
            except BlockingIOError:
                return self._read
            seconds, nanoseconds = struct.unpack("qq", ancillary[0][2][:16])
            packet = dpkt.ethernet.Ethernet(frame).data
            if isinstance(packet, dpkt.ip.IP) and isinstance(packet.data, dpkt.tcp.TCP):
                sent = address[2] == socket.PACKET_OUTGOING
                self._read.append(Segment(seconds + nanoseconds / 1e9, sent, packet, packet.data))

    def close(self):
        """Stop capturing."""
        self._socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()
