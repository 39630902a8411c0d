"""Which transitions the fuzz has seen, and which it has to see."""
import collections

from .ends import STATES

SIDES = ("client", "target")


class Coverage:
    """Counts (state before, who, what) -> state after."""

    def __init__(self):
        self.seen, self.shares = collections.Counter(), collections.Counter()

    def count(self, before, side, kind, after):
        """Notes one transition; `side` is an end or None for the clock."""
        self.seen[STATES[before], "clock" if side is None else SIDES[side], kind, STATES[after]] += 1

    def add(self, other):
        """Takes in what another run has counted."""
        self.seen.update(other.seen)
        self.shares.update(other.shares)

    def lines(self):
        """Returns the table as text: what changes a state first, then what does not, states in their order."""
        order = {name: number for number, name in enumerate(STATES)}
        rows = sorted(self.seen.items(), key=lambda row: (row[0][0] == row[0][3], order[row[0][0]], row[0][1:]))
        return [f"{before:13} {who:7} {kind:12} -> {after:13} {count:9,}" for (before, who, kind, after), count in rows]

    def missing(self):
        """Returns the transitions of REQUIRED that were not seen."""
        return [each for each in REQUIRED if each not in self.seen]


def _table(text):
    required = []
    for line in text.strip().splitlines():
        before, who, kinds, after = (part.strip() for part in line.split("|"))
        required += [(before, one, kind.strip(), after) for one in who.split("/") for kind in kinds.split(",")]
    return required


REQUIRED = _table("""
free         | client        | SYN                                   | syn_received
syn_received | client        | ACK, data                             | first_data
syn_received | client        | RST exact                             | free
syn_received | client        | SYN, ACK, no ACK, RST inside, RST outside | syn_received
syn_received | clock         | time-out                              | free
first_data   | client        | data, data FIN                        | connecting
first_data   | client        | data                                  | first_data
first_data   | client        | FIN                                   | fin_wait
first_data   | client        | RST exact                             | free
first_data   | client        | data                                  | free
first_data   | client        | SYN, ACK, no ACK, RST inside, RST outside | first_data
first_data   | clock         | time-out                              | free
connecting   | client        | RST exact                             | free
connecting   | client        | ACK, data, FIN, SYN, no ACK, RST inside, RST outside | connecting
connecting   | target        | SYN-ACK                               | established
connecting   | target        | SYN-ACK                               | half_closed
connecting   | target        | SYN-ACK, ACK, SYN, RST outside        | connecting
connecting   | clock         | time-out                              | free
fin_wait     | client        | ACK                                   | free
established  | client/target | ACK, data, SYN, no ACK, RST inside, RST outside | established
established  | client/target | FIN, data FIN                         | half_closed
established  | client/target | RST exact                             | free
established  | target        | RST exact                             | connecting
established  | clock         | time-out                              | free
half_closed  | client/target | ACK, data, FIN, SYN, no ACK, RST inside, RST outside | half_closed
half_closed  | client/target | FIN, data FIN                         | fin_wait
half_closed  | client/target | RST exact                             | free
half_closed  | clock         | time-out                              | free
fin_wait     | client/target | ACK, data, FIN, SYN, no ACK, RST inside, RST outside | fin_wait
fin_wait     | client/target | ACK                                   | time_wait
fin_wait     | client/target | RST exact                             | free
fin_wait     | clock         | time-out                              | free
time_wait    | client/target | ACK, data, FIN, no ACK                | time_wait
time_wait    | client        | SYN                                   | syn_received
time_wait    | clock         | time-out                              | free
""")
"""From SPLICE 1 to 4 and RFC 9293, section 3.10.7: state before | who | what | state after."""
