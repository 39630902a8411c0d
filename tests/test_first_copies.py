"""The store of first copies against a plain twin: what is kept, what is given up, and that no piece is lost."""
from hypothesis import given
from hypothesis import strategies as st

import numpy as np

from kernel_bed import generated
from pipeline.kernels.first_copies import NONE, PIECE_BYTES, allocate_first_copies, forget_copies, keep

MASK = 0xFFFFFFFF
PIECES, FLOWS = 5, 6
STARTS = st.sampled_from([0, 7, 2**31 - 3000, 2**32 - 5000, 2**32 - 1])
KEPT = st.tuples(st.just("keep"), st.integers(0, FLOWS - 1), st.sampled_from([1, 2, 500, 1460, 2047, 2048]))
ACKNOWLEDGED = st.tuples(st.just("forget"), st.integers(0, FLOWS - 1), st.integers(0, 3000))
ENDED = st.tuples(st.just("end"), st.integers(0, FLOWS - 1), st.just(0))
ACTS = st.lists(st.one_of(KEPT, KEPT, ACKNOWLEDGED, ENDED), max_size=40)


class Twin:
    """Pieces in the order of their age: lists of flow, place of the first byte in the flow's stream, and bytes."""

    def __init__(self):
        self.pieces, self.sent, self.given_up = [], [0] * FLOWS, 0

    def of(self, flow):
        """Returns the pieces of a flow."""
        return [piece for piece in self.pieces if piece[0] == flow]

    def keep(self, flow, data):
        """Keeps more bytes of a flow, piece by piece."""
        while data:
            mine = self.of(flow)
            if not mine or len(mine[-1][2]) == PIECE_BYTES:
                if len(self.pieces) == PIECES:
                    self.pieces.pop(0)
                    self.given_up += 1
                mine = [[flow, self.sent[flow], b""]]
                self.pieces += mine
            room = PIECE_BYTES - len(mine[-1][2])
            mine[-1][2] += data[:room]
            self.sent[flow] += len(data[:room])
            data = data[room:]

    def forget(self, flow, place):
        """Forgets a flow's pieces that lie before a place of its stream."""
        self.pieces = [piece for piece in self.pieces if piece[0] != flow or piece[1] + len(piece[2]) > place]


def kept_of(copies, flow, start):
    """Returns what a store has of a flow: (place in the stream, bytes) of each piece."""
    found, piece = [], int(copies.first[flow])
    while piece != NONE:
        at = piece * PIECE_BYTES
        place = (int(copies.seq[piece]) - start) & MASK
        found.append((place, copies.octets[at:at + int(copies.length[piece])].tobytes()))
        piece = int(copies.following[piece])
    return found


def by_age(copies):
    """Returns the flows of all pieces in use, the oldest first; the list is the same from both ends."""
    forth, back = [], []
    for found, end, link in ((forth, copies.oldest, copies.younger), (back, copies.youngest, copies.older)):
        piece = int(end[0])
        while piece != NONE:
            found.append(piece)
            piece = int(link[piece])
    assert forth == back[::-1]
    return [int(copies.flow[piece]) for piece in forth]


@generated
@given(ACTS, STARTS)
def test_the_store_keeps_and_gives_up_what_its_twin_does(acts, start):
    copies, twin, given_up = allocate_first_copies(PIECES, FLOWS // 2), Twin(), 0
    for number, (act, flow, amount) in enumerate(acts):
        if act == "keep":
            octets = np.arange(number, number + amount).astype(np.uint8)
            given_up += keep(copies, flow, (start + twin.sent[flow]) & MASK, octets, amount)
            twin.keep(flow, octets.tobytes())
        elif act == "forget":
            place = min(amount + (twin.of(flow) or [[0, 0]])[0][1], twin.sent[flow])
            forget_copies(copies, flow, (start + place) & MASK, False)
            twin.forget(flow, place)
        else:
            forget_copies(copies, flow, 0, True)
            twin.forget(flow, 1 << 40)
        assert given_up == twin.given_up and copies.used[0] == len(twin.pieces)
        assert by_age(copies) == [piece[0] for piece in twin.pieces]
        for each in range(FLOWS):
            assert kept_of(copies, each, start) == [(place, data) for _, place, data in twin.of(each)]
    free, place = [], int(copies.free[0])
    while place != NONE:
        free.append(place)
        place = int(copies.following[place])
    assert len(set(free)) == len(free) == PIECES - len(twin.pieces)
