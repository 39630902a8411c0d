"""What a port receives and sends, as Python sees it: views of packet memory, for tests, tools and notebooks.

    burst = port.rx()
    burst.tcp["seq"]            a column: one sequence number a frame, read and written in packet memory
    burst.tcp["seq"] += 1
    burst[3].tcp.seq = 5        a record
    burst[3].payload[:] = 0     octets

Nothing here copies a packet; a column or record is valid until its frame is sent or released.
"""
import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from .frames import frame_bytes, octets_of, segments_of
from .places import ABSENT, locate


def _values(operand):
    return np.asarray(operand) if isinstance(operand, Column) else operand


class Column(NDArrayOperatorsMixin):
    """One field of one header in every frame of a burst: behaves as an array, and assignment writes packet memory.

    numpy reads it through `__array__` (values in the machine's order); comparison and arithmetic are numpy's.
    """

    def __init__(self, overlay, field, places):
        self._field = overlay[field]
        self._places = places

    def __len__(self):
        return len(self._places)

    def __array__(self, dtype=None, copy=None):
        values = self._field[self._places]
        return values.astype(values.dtype.newbyteorder("=") if dtype is None else dtype)

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **options):
        result = getattr(ufunc, method)(*map(_values, inputs), **options)
        if out is None:
            return result
        for target in out:
            target[:] = result
        return out[0]

    def __getitem__(self, key):
        return np.asarray(self)[key]

    def __setitem__(self, key, values):
        self._field[self._places[key]] = _values(values)

    def __iter__(self):
        return iter(np.asarray(self))

    def __repr__(self):
        return f"Column({np.asarray(self)!r})"


class HeaderView:
    """One header in every frame of a burst; `view["field"]` is a Column, `view["field"] = values` writes it."""

    def __init__(self, name, overlay, places):
        self._name = name
        self._overlay = overlay
        self.places = places
        """Where the header starts in the arena (int64, one a frame), -1 where a frame has none."""

    @property
    def present(self):
        """Which frames have this header (bool, one a frame): `burst[burst.tcp.present]` is a burst of just these."""
        return self.places != ABSENT

    def __getitem__(self, field):
        if field not in self._overlay.dtype.names:
            raise KeyError(f"{self._name} has no field {field!r}; it has {', '.join(self._overlay.dtype.names)}")
        if not self.present.all():
            raise LookupError(f"frame {int(np.argmin(self.present))} of the burst has no {self._name} header; "
                              f"burst[burst.{self._name}.present] leaves such frames out")
        return Column(self._overlay, field, self.places)

    def __setitem__(self, field, values):
        self[field][:] = values


class Frame:
    """One frame of a burst; `.mbuf` and the headers are numpy records on packet memory, in network order."""

    def __init__(self, arena, mbuf):
        self._arena = arena
        self.offset = mbuf
        """Where the mbuf starts in the arena."""

    def _header(self, name):
        place = getattr(locate(self._arena, self.offset), name)
        if place == ABSENT:
            raise LookupError(f"this frame has no {name} header")
        return getattr(self._arena.wire, name)[place]

    @property
    def mbuf(self):
        """The mbuf itself."""
        return self._arena.wire.mbuf[self.offset]

    ethernet = property(lambda self: self._header("ethernet"), doc="The Ethernet header.")
    arp = property(lambda self: self._header("arp"), doc="The ARP packet; LookupError if there is none.")
    ipv4 = property(lambda self: self._header("ipv4"), doc="The IPv4 header; LookupError if there is none.")
    tcp = property(lambda self: self._header("tcp"), doc="The TCP header; LookupError if there is none.")
    icmp = property(lambda self: self._header("icmp"), doc="The ICMP header; LookupError if there is none.")

    @property
    def octets(self):
        """The frame's octets as a view (uint8[n]); of a frame in several segments, those of the first."""
        return octets_of(self._arena, self.offset)

    @property
    def payload(self):
        """What follows the innermost header, without padding, as a view (uint8[n]); first segment only."""
        found = locate(self._arena, self.offset)
        return self._arena.octets[found.payload:found.end]

    @property
    def segments(self):
        """The octets of each segment, as views."""
        return [octets_of(self._arena, mbuf) for mbuf in segments_of(self._arena, self.offset)]

    def __bytes__(self):
        return frame_bytes(self._arena, self.offset)

    def __len__(self):
        return int(self.mbuf.packet_length)


class Burst:
    """Frames that a port received or will send: `mbufs` (int64[n], offsets in the arena) of `pool`.

    `burst[3]` is a Frame; a slice, a mask or a list of indices gives a Burst over the same frames. The frames
    belong to whoever holds the burst until they are sent or `release` is called.
    """

    def __init__(self, mbufs, pool):
        self.mbufs = np.asarray(mbufs, np.int64)
        self.pool = pool

    def __len__(self):
        return len(self.mbufs)

    def __getitem__(self, key):
        if isinstance(key, (int, np.integer)):
            return Frame(self.pool.arena, int(self.mbufs[key]))
        return Burst(self.mbufs[key], self.pool)

    def __iter__(self):
        return (self[number] for number in range(len(self)))

    def _view(self, name):
        found = [getattr(locate(self.pool.arena, int(mbuf)), name) for mbuf in self.mbufs]
        return HeaderView(name, getattr(self.pool.arena.wire, name), np.array(found, np.int64))

    @property
    def mbuf(self):
        """The mbufs themselves: `burst.mbuf["packet_length"]`."""
        return HeaderView("mbuf", self.pool.arena.wire.mbuf, self.mbufs)

    ethernet = property(lambda self: self._view("ethernet"), doc="The Ethernet headers.")
    arp = property(lambda self: self._view("arp"), doc="The ARP packets.")
    ipv4 = property(lambda self: self._view("ipv4"), doc="The IPv4 headers.")
    tcp = property(lambda self: self._view("tcp"), doc="The TCP headers.")
    icmp = property(lambda self: self._view("icmp"), doc="The ICMP headers.")

    def release(self):
        """Frees all frames of the burst, which is empty afterwards."""
        self.pool.release(self.mbufs)
        self.mbufs = self.mbufs[:0]
