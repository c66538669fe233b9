"""Any bytes as a CSV or JSON Lines file: each row is read or rejected, with its own number. No value moves to another column."""

import csv
import io
import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabric_assets.config.sources.files import FileLimits, FileStream
from fabric_assets.connectors.files.database import Engine
from fabric_assets.connectors.files.listing import FetchedFile, SourceFile
from fabric_assets.connectors.files.piece import Reading
from fabric_assets.connectors.files.readers import build_reader
from fabric_assets.connectors.files.salvage import MAX_LINE
from fabric_assets.errors import DataError
from fabric_assets.rows.arrow_types import TEXT
from fabric_assets.rows.batches import Reject
from fabric_assets.rows.value_forms import CURRENT

Row = tuple[str | None, ...]
ENGINE = Engine(Path(tempfile.gettempdir()))


def read(content: bytes, kind: str) -> tuple[dict[int, Row], list[Reject]]:
    """The rows by their numbers, and the rejected ones."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "0.data"
        path.write_bytes(content)
        source = SourceFile("a", "1", len(content), 0.0, lambda: path.open("rb"), path)
        stream = FileStream.model_validate({"glob": "a", "format": kind, "header": True} if kind == "csv" else {"glob": "a", "format": kind})
        reader = build_reader(FetchedFile(source, path, ""), Reading(stream, FileLimits(), "here", CURRENT, lambda name: False, lambda message: None, ENGINE))
        types = dict.fromkeys(reader.inspect(), TEXT)
        rows: dict[int, Row] = {}
        rejects: list[Reject] = []
        for piece in reader.read(types):
            rejects += piece.rejects
            if piece.rows is not None:
                found = zip(*(column.to_pylist() for column in piece.rows.columns), strict=True)
                numbered = dict(enumerate(found, start=piece.first))
                assert not numbered.keys() & rows.keys()
                rows |= numbered
    return rows, rejects


def check_numbers(rows: dict[int, Row], rejects: list[Reject]) -> None:
    numbers = [*rows, *(reject.row_number for reject in rejects)]
    assert sorted(numbers) == list(range(1, len(numbers) + 1))


LINES = st.lists(st.text(alphabet='a,"', max_size=8), max_size=8)


@settings(max_examples=75, deadline=None)
@given(LINES, st.sampled_from(["\n", "\r\n"]))
def test_every_line_of_a_csv_is_a_row_or_is_set_aside(lines: list[str], end: str) -> None:
    text = end.join(["id,note", *lines])
    rows, rejects = read(text.encode(), "csv")
    check_numbers(rows, rejects)
    if not rejects:
        expected = [row[:2] for row in csv.reader(io.StringIO(text, newline="")) if row][1:]
        assert [[value or "" for value in row] for row in rows.values()] == expected


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.text(alphabet='xy,"\n\r é', max_size=6), st.text(alphabet='xy,"\n é', min_size=1, max_size=6)), min_size=1, max_size=8), st.data())
def test_good_rows_are_read_as_written_whatever_is_between_them(written: list[tuple[str, str]], data: st.DataObject) -> None:
    text, expected, number = io.StringIO(newline=""), {}, 0
    writer = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerow(("id", "note"))
    for row in written:
        bad = data.draw(st.sampled_from(["", "only one", "one,two,three", '"quoted" text,x', "one,\udce9"]))
        if bad:
            text.write(bad + "\n")
            number += 1
        writer.writerow(row)
        number += 1
        expected[number] = row
    rows, rejects = read(text.getvalue().encode("utf-8", "surrogateescape"), "csv")
    assert rows == expected
    check_numbers(rows, rejects)


JSON_LINES = st.lists(
    st.one_of(
        st.dictionaries(st.sampled_from(["id", "note"]), st.one_of(st.none(), st.integers(), st.text(max_size=5))).map(lambda row: json.dumps(row).encode()),
        st.sampled_from([b"", b"{", b"[]", b"1", b'{"id": 1, "id": 2}', b'{"id": "\\ud800"}', b'{"id": "\xff"}', b'{"id": 1}}']),
    ),
    max_size=8,
)


@settings(max_examples=50, deadline=None)
@given(JSON_LINES)
def test_every_line_of_a_json_lines_file_is_a_row_or_is_set_aside(lines: list[bytes]) -> None:
    good = [json.loads(line) for line in lines if line.startswith(b'{"') and _is_good(line)]
    good += [{} for line in lines if line == b"{}"]
    if not any(good):  # files without a column, or no JSON Lines at all
        return
    rows, rejects = read(b"\n".join(lines), "jsonl")
    check_numbers(rows, rejects)
    assert len(rows) == len(good)


def _is_good(line: bytes) -> bool:
    return line not in (b'{"id": 1, "id": 2}', b'{"id": "\\ud800"}', b'{"id": "\xff"}', b'{"id": 1}}')


def test_a_quote_that_is_never_closed_costs_no_time_and_no_row() -> None:
    lines = [f'{number},"""x"""' for number in range(20_000)]
    rows, rejects = read(("id,note\n" + '1,"open\n' + "\n".join(lines)).encode(), "csv")
    check_numbers(rows, rejects)
    assert len(rows) + len(rejects) == 20_001


def test_a_line_that_is_too_long_is_an_error() -> None:
    with pytest.raises(DataError, match="here: the file a holds a line of more than 32 MB"):
        read(b"id,note\n1,a\n2," + b"x" * MAX_LINE + b"\n", "csv")
