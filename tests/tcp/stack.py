"""A small TCP of the tests' own, for both ends of a connection over a network that loses and doubles segments."""
from tcp.proxy import signed

MOST = 400
RETRY = 200_000
"""Octets a segment, and microseconds until what is not acknowledged is sent again."""


class Stack:
    """One end: `end` (proxy.End) gives it numbers and frames; it has `data` to send and then closes.

    `frames(now)` is what it has to send, `take` what has come. Its numbers are relative, like those of End.
    """

    def __init__(self, end, data, opens):
        self.end, self.data, self.opens = end, data, opens
        self.sent, self.acknowledged = 0, 0          # of our own numbers, SYN and FIN among them
        self.got, self.early, self.their_end = b"", {}, None
        self.answers, self.due, self.window, self.reset = False, 0, 8192, False

    @property
    def done(self):
        """Says whether both FINs are there and acknowledged."""
        return self.acknowledged == len(self.data) + 2 and self.their_end == len(self.got)

    @property
    def allowed(self):
        """How many of our numbers may be sent by now, SYN and FIN among them."""
        return len(self.data) + 2

    @property
    def _expected(self):
        return 1 + len(self.got) + (self.their_end == len(self.got)) if self.end.other_isn is not None else 0

    def frames(self, now):
        """Returns frames (list of bytes) to be sent at `now`, microseconds."""
        out = []
        if now >= self.due and self.acknowledged < self.sent:
            self.sent = self.acknowledged
        if self.sent == 0 and (self.opens or self.end.other_isn is not None):
            out.append(self._segment("S" if self.opens else "SA", 0, mss=MOST))
            self.sent, self.due, self.answers = 1, now + RETRY, False
        while 0 < self.acknowledged and self.sent < min(self.allowed, self.acknowledged + max(self.window, 1)):
            part = self.data[self.sent - 1:min(self.sent - 1 + MOST, self.allowed - 1)]
            last = self.sent - 1 + len(part) == len(self.data)
            out.append(self._segment("FPA" if last else "PA", self.sent, part))
            self.sent += len(part) + last
            self.due, self.answers = now + RETRY, False
        if self.answers:
            out.append(self._segment("A", self.sent))
        self.answers = False
        return out

    def _segment(self, flags, seq, data=b"", **fields):
        return self.end.segment(flags, data, seq=seq, ack=self._expected, **fields)

    def take(self, segment):
        """Deals with a Segment that has come."""
        if "R" in segment.flags:
            self.reset = True
            return
        if "S" in segment.flags and self.end.other_isn is None:
            self.end.other_isn = segment.seq
        if self.end.other_isn is None:
            return
        if "A" in segment.flags:
            self.acknowledged = max(self.acknowledged, signed(segment.ack - self.end.isn))
            self.sent, self.window = max(self.sent, self.acknowledged), segment.window
        at = (segment.seq - self.end.other_isn) % 2**32 - 1 + ("S" in segment.flags)
        if "F" in segment.flags:
            self.their_end = at + len(segment.data)
        if segment.data:
            self.early[at] = segment.data
        for start in sorted(self.early):
            if start <= len(self.got) < start + len(self.early[start]):
                self.got += self.early[start][len(self.got) - start:]
        self.answers |= bool(segment.data) or "F" in segment.flags or "S" in segment.flags
