"""Every combination of the options of a client with those of a target: all that leaves is checked, by hand and by tshark.

A target is met twice: first by an engine that knows nothing of it, then by one that has learnt what it supports (SPLICE 2.1).
"""
import decimal
import itertools
import shutil
import subprocess

import dpkt
import pytest

from tcp.option_dialogue import Bed, Dialogue, Offer
from tcp.raw_frames import SACK_PERMITTED, SCALE, STAMPS

OFFERS = [Offer(*values) for values in itertools.product((None, 0, 7, 14), (False, True), (False, True),
                                                         (None, 536, 1460, 9000), (False, True))]
WRONG = "tcp.checksum.status != 1 or ip.checksum.status != 1 or _ws.malformed or _ws.expert.severity >= 8388608 or !tcp"
"""tshark's filter: a checksum that is not good, malformed, an expert item of severity error, or no TCP at all."""


def kinds(offer):
    """Returns what an Offer has of the options that are agreed on."""
    return {kind for kind, has in ((SCALE, offer.scale is not None), (SACK_PERMITTED, offer.sack), (STAMPS, offer.stamps),
                                   ("ecn", offer.ecn)) if has}


def answers(client):
    """Returns the targets that differ toward this client: a target is not asked for what the client did not offer."""
    offered = kinds(client)
    return [target for target in OFFERS if kinds(target) <= offered] if offered else OFFERS


class Matrix:
    """One worker that all combinations of this module go through, and the journal of all frames."""

    def __init__(self):
        self.journal, self.done, self.turn = [], set(), 0
        self.bed = Bed(self.journal, held_connections=256)

    def try_all(self, client):
        """Runs the client with all its targets."""
        if client in self.done:
            return
        self.done.add(client)
        for target in answers(client):
            self.bed.forget()
            for again, promised in enumerate((kinds(client), kinds(client) & kinds(target))):
                self.turn += 1
                try:
                    Dialogue(self.bed, client, target, self.turn).run(promised, in_short=again)
                except AssertionError as error:
                    raise AssertionError(f"{client} with {target}, turn {self.turn}: {error}") from error


@pytest.fixture(scope="module")
def matrix():
    """The Matrix of this module; at the end nothing may be lost."""
    made = Matrix()
    yield made
    made.bed.conserved()


@pytest.mark.parametrize("client", OFFERS, ids=str)
def test_rule_2_1_every_combination_of_options(matrix, client):
    matrix.try_all(client)


def write_capture(path, journal):
    """Writes a journal of (microseconds, frame) to a pcap file."""
    with open(path, "wb") as file:
        writer = dpkt.pcap.Writer(file)
        for now, frame in journal:
            writer.writepkt(frame, decimal.Decimal(now) / 1_000_000)


def dissect(path, expression):
    """Returns what tshark says of the frames of a capture that a display filter chooses, its checksums verified."""
    command = ["tshark", "-r", str(path), "-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE",
               "-o", "tcp.try_heuristic_first:FALSE", "-d", "tcp.port==1-65535,data", "-Y", expression]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def test_rule_2_1_tshark_finds_nothing_wrong_in_any_frame(matrix, tmp_path):
    if shutil.which("tshark") is None:
        pytest.skip("tshark is not installed: apt-get install tshark")
    for client in OFFERS:
        matrix.try_all(client)
    write_capture(tmp_path / "all.pcap", matrix.journal)
    assert dissect(tmp_path / "all.pcap", WRONG) == []
    damaged = [(now, frame[:-1] + bytes([frame[-1] ^ 1])) for now, frame in matrix.journal[:5]]
    write_capture(tmp_path / "damaged.pcap", damaged)
    assert len(dissect(tmp_path / "damaged.pcap", WRONG)) == 5, "tshark has not verified the checksums"
