"""Connections of the tests whose ends agree on TCP options: a client that offers some, a target that answers with some."""
from tcp.proxy import NUMBER, TARGETS

STAMP = 5_000_000
"""TSval of the client's SYN."""
SACK = [("SAckOK", b"")]
STAMPS = [("Timestamp", (STAMP, 0))]


def scale(shift):
    """Returns the window scale option in a SYN (list)."""
    return [("NOP", None), ("WScale", shift)]


def stamped(value, echo):
    """Returns the timestamps of a segment, as stacks lay them out (list)."""
    return [("NOP", None), ("NOP", None), ("Timestamp", (value, echo))]


def option(segment, name):
    """Returns the value of an option of a Segment, None without it."""
    return dict(each for each in segment.options if len(each) == 2).get(name)


def names(segment):
    """Returns the names of a Segment's options but for padding (set)."""
    return {name for name, _ in segment.options} - {"NOP", "EOL"}


def offer(proxy, options, mss=1460, service=NUMBER, **fields):
    """Returns a client whose handshake offers `options`, and the SYN-ACK that it got."""
    client = proxy.client(service)
    client.send("S", options=options, mss=mss, **fields)
    answer = client.expect("SA", seq=0, ack=1)
    client.send("A", options=stamped(STAMP + 1, option(answer, "Timestamp")[0]) if option(answer, "Timestamp") else [])
    return client, answer


def answered(proxy, agreed, target="a", mss=1460, **fields):
    """Returns the target's End after its SYN-ACK with `agreed`."""
    server = proxy.accept(target)
    server.send("SA", options=agreed, mss=mss, **fields)
    return server


def agree(proxy, offered, agreed, data=b"0 hello", mss=1460, target_mss=1460, window=8192):
    """Returns client, target, SYN-ACK and the held payload as it came, of a connection to target a that has both handshakes."""
    client, answer = offer(proxy, offered, mss)
    stamps = stamped(STAMP + 2, option(answer, "Timestamp")[0]) if option(answer, "Timestamp") else []
    client.send("PA", data, options=stamps, window=window)
    server = answered(proxy, agreed, mss=target_mss)
    return client, server, answer, server.expect("PA", seq=1, ack=1, data=data)


def peek(proxy, target="a"):
    """Returns the first segment that waits for a target, and leaves it there."""
    return next(segments[0] for (to, _), segments in proxy.received.items() if to == TARGETS[target] and segments)
