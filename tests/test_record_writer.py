"""Session records into a file: whole lines, in three formats, and never the end of a run."""
import csv
import json

import pytest

from pipeline.errors import ConfigurationError
from pipeline.record_writer import RecordWriter

RECORD = {"opened": "2026-11-22T10:00:00.000001", "client": "10.1.0.2:40000", "service": "web", "target": "a",
          "proxy": "10.2.0.1:1024", "duration_us": 1500,
          "states": {"client": [["SynReceived", 0], ["Established", 120]], "target": [["SynSent", 130]]},
          "release": {"client": "PassiveClose", "target": "ActiveClose"}, "octets": {"client": 10, "target": 20}}
REFUSED = RECORD | {"target": None, "states": {"client": [["SynReceived", 0]], "target": []}}


def written(path, *batches, kind=None):
    with RecordWriter(path, kind) as writer:
        for batch in batches:
            writer.write(batch)
    return path.read_text()


def test_json_lines_hold_the_records_as_they_are(tmp_path):
    text = written(tmp_path / "r", [RECORD, REFUSED], [], [RECORD])
    assert [json.loads(line) for line in text.splitlines()] == [RECORD, REFUSED, RECORD]


def test_csv_has_one_header_and_nested_values_under_dotted_names(tmp_path):
    path = tmp_path / "r.csv"
    written(path, [RECORD], [REFUSED])
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2
    assert rows[0]["states.client"] == "SynReceived:0 Established:120"
    assert (rows[0]["release.target"], rows[0]["octets.target"], rows[0]["target"]) == ("ActiveClose", "20", "a")
    assert (rows[1]["states.target"], rows[1]["target"]) == ("", "")


def test_text_is_a_line_for_people(tmp_path):
    assert written(tmp_path / "r.txt", [RECORD]) == (
        "2026-11-22T10:00:00.000001  10.1.0.2:40000 -> web -> a from 10.2.0.1:1024  1500 us"
        "  states.client=[SynReceived:0 Established:120]  states.target=SynSent:130"
        "  release.client=PassiveClose  release.target=ActiveClose  octets.client=10  octets.target=20\n")
    assert "10.1.0.2:40000 -> web -> no target  1500 us" in written(tmp_path / "r.txt", [REFUSED])


@pytest.mark.parametrize(("name", "kind", "start"), [("r.csv", None, "opened,"), ("r.txt", None, "2026"),
                                                     ("r.json", None, "{"), ("r.csv", "json", "{"),
                                                     ("r", "csv", "opened,")])
def test_the_format_is_what_is_asked_for_else_what_the_suffix_says(tmp_path, name, kind, start):
    assert written(tmp_path / name, [RECORD], kind=kind).startswith(start)


def test_what_was_written_is_in_the_file_at_once(tmp_path):
    with RecordWriter(tmp_path / "r") as writer:
        writer.write([RECORD])
        assert json.loads((tmp_path / "r").read_text()) == RECORD


def test_a_file_that_cannot_be_opened_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="--records .*/no/r: cannot be written"):
        RecordWriter(tmp_path / "no" / "r")


def test_a_full_disk_is_told_once_and_counted():
    with RecordWriter("/dev/full") as writer:
        writer.write([RECORD, RECORD])
        writer.write([RECORD])
        assert writer.trouble == "/dev/full: no more records are written (No space left on device)"
        assert (writer.written, writer.lost) == (0, 3)
