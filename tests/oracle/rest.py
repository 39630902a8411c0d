"""Frames that belong to no live connection: strays, SYNs to nobody, malformed frames. Not one of them may pass."""
from .ends import CLIENT
from .services import PROXY_ADDRESS, SERVICE_ADDRESS
from .translation import HOST_MACS, PROXY_MACS
from .wire import ACK, FIN, MASK, PSH, RST, SYN, frame

STRAY_NET = 0x0A0100F0
"""Clients from here on open no connections."""


def stray(services, side, identity, dice):
    """Returns a segment of no connection, and the RSTs (control, seq, ack) of which one may answer it."""
    if side == CLIENT:
        service = dice.choice(services)
        port = service.place[1] if dice.random() < 0.6 else dice.randrange(1, 7000)
        source = STRAY_NET + dice.randrange(14), dice.randrange(1024, 65536)
        destination = SERVICE_ADDRESS if dice.random() < 0.95 else SERVICE_ADDRESS ^ 0x80, port
        to_service = port >= 7000
    else:
        target = dice.choice(dice.choice(services).targets)
        source, destination, to_service = target.place, (PROXY_ADDRESS, dice.randrange(1, 10000)), False
    control = dice.choice((ACK, ACK | PSH, FIN | ACK, RST, RST | ACK, SYN | ACK, 0, SYN | FIN) + (() if to_service else (SYN,)))
    seq, ack = dice.randrange(1 << 32), dice.randrange(1 << 32)
    length = dice.choice((0, 0, 1, 30))
    octets = frame((PROXY_MACS[side], HOST_MACS[side]), identity, 0, 64, source, destination, seq, ack, control, 1000, 0, b"",
                   bytes(length))
    return octets, (destination, source), answers(control, seq, ack, length)


def answers(control, seq, ack, length):
    """Returns the RST that answers a segment of no connection (RFC 9293, section 3.10.7.1), as a list: none for a RST."""
    if control & RST:
        return []
    if control & ACK:
        return [(RST, ack, 0)]
    return [(RST | ACK, 0, seq + length + (control & SYN != 0) + (control & FIN) & MASK)]


def malformed(side, identity, dice):
    """Returns a frame with one fault in its headers: it has to be dropped, and is never answered."""
    octets = bytearray(frame((PROXY_MACS[side], HOST_MACS[side]), identity, 0, 64, (STRAY_NET + 1, 999), (SERVICE_ADDRESS, 7000),
                             dice.randrange(1 << 32), 1, ACK, 1000, 0, b"\1\1\1\1", bytes(20)))
    what = dice.randrange(9)
    if what == 0:
        return bytes(octets[:dice.randrange(1, 57)])
    if what == 1:
        octets[14] = dice.choice((0x40, 0x44, 0x4F, 0x35, 0x65, 0))
    elif what == 2:
        octets[46] = dice.choice((0x00, 0x40, 0xF0, 0xC0))
    elif what == 3:
        octets[16:18] = dice.choice((b"\0\0", b"\0\x13", b"\xff\xff", b"\0\x51"))
    elif what == 4:
        octets[20:22] = dice.choice((b"\x20\0", b"\0\1", b"\x1f\xff", b"\x60\0"))
    elif what == 5:
        octets[0:6] = dice.randbytes(6)
    elif what == 6:
        octets[12:14] = dice.choice((b"\x86\xdd", b"\x08\x06", b"\0\0", b"\x88\xa8", b"\x81\0"))
    elif what == 7:
        octets[23] = dice.choice((0, 1, 2, 17, 47, 255))
    else:
        return bytes(octets[:14]) + dice.randbytes(dice.randrange(1, 80))
    return bytes(octets)
