"""Lists of the waiting room whose flows share a head, against plain lists: whoever comes and goes, each keeps its own."""
from hypothesis import given
from hypothesis import strategies as st
from kernel_bed import KernelBed, generated

from pipeline.kernels.batch import WAIT
from pipeline.kernels.waiting_room import (
    NONE,
    allocate_waiting_room,
    come_again,
    first_of,
    send_away,
    take_again,
    wait,
)

BED = KernelBed()
PLACES, MOST, LENGTH = 5, 3, 10
FLOWS = [4, 5, 20, 21, 36, 3]
"""Of these, 4, 20 and 36 share a head, and 5 and 21."""
ACTIONS = st.lists(st.tuples(st.sampled_from(["wait", "wait", "wait", "reach", "all", "away"]), st.sampled_from(FLOWS),
                             st.integers(0, 8)), max_size=30)


def waiting(room, flow):
    """Returns the numbers with which a flow's waiting segments begin, in order."""
    found, place = [], int(first_of(room, flow))
    while place != NONE:
        assert room.flow[place] == flow and len(found) < PLACES
        found.append(int(room.seq[place]))
        place = int(room.following[place])
    return found


def heads_are_sound(room):
    """Every list hangs on the head of its flow, once, and no head has anything else."""
    found = []
    for head, place in enumerate(room.heads):
        while place != NONE:
            assert room.flow[place] & (len(room.heads) - 1) == head
            found.append(int(room.flow[place]))
            place = room.other[place]
    return sorted(found)


@generated
@given(ACTIONS)
def test_flows_that_share_a_head_keep_their_lists(actions):
    room = allocate_waiting_room(PLACES, MOST, 2)
    assert len(room.heads) == 16
    connections, batch, lists = BED.connections._replace(waiting=room), BED.batch, {flow: [] for flow in FLOWS}
    for action, flow, number in actions:
        if action == "wait":
            seq, full = LENGTH * number, sum(map(len, lists.values())) == PLACES or len(lists[flow]) == MOST
            batch.seq[0], batch.payload_length[0], batch.control[0], batch.port[0] = seq, LENGTH, 16, 0
            wait(batch, 0, connections, flow, 7)
            fits = seq not in lists[flow] and not full
            assert (batch.verdict[0] == WAIT) == fits
            lists[flow] = sorted([*lists[flow], *[seq] * fits])
        elif action == "away":
            send_away(connections, flow >> 1)
            lists[flow], lists[flow ^ 1] = [], []
            if flow ^ 1 not in FLOWS:
                del lists[flow ^ 1]
            room.left[0] = 0
        else:
            reach, everything = LENGTH * number, action == "all"
            come_again(connections, flow, reach, everything)
            while lists[flow] and (everything or lists[flow][0] <= reach):
                reach = max(reach, lists[flow].pop(0) + LENGTH)
            take_again(room, 0, batch.mbuf, PLACES)
        assert {flow: waiting(room, flow) for flow in lists} == lists
        assert heads_are_sound(room) == sorted(flow for flow in lists if lists[flow])
        assert room.used[0] == sum(map(len, lists.values()))
