"""Files with everything bad at once, and lines that never end: each row with its one outcome, each file with its reason."""

import gzip
import json
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.connectors.csv_import.imports import drop, get_quarantine

COLUMNS: dict[str, Any] = {
    "day": {"type": "date", "required": True},
    "spend": {"type": "decimal", "scale": 2, "min": 0},
    "clicks": {"type": "bigint"},
    "rate": {"type": "double"},
    "seen": {"type": "timestamp", "timezone": "Europe/Berlin"},
    "note": {},
}
HEADER = "day,spend,clicks,rate,seen,note"
NESTED = '{"a":' * 500 + "1" + "}" * 500
NOON = datetime(2026, 1, 31, 11, tzinfo=UTC)
# A row of the file -> its values, or the column and the reason of its rejection.
POISON: list[tuple[str, tuple[Any, ...]]] = [
    ("2026-01-31,1.5,2,0.5,2026-01-31 12:00,ok", (date(2026, 1, 31), Decimal("1.50"), 2, 0.5, NOON, "ok")),
    ("31.02.2026,1.5,2,0.5,2026-01-31 12:00,no such day", ("day", "bad_date")),
    ("03/04/2026,1.5,2,0.5,2026-01-31 12:00,March or April", ("day", "ambiguous_date")),
    (",1.5,2,0.5,2026-01-31 12:00,no day", ("day", "required")),
    ("2026-01-31,NaN,2,0.5,2026-01-31 12:00,not a number", ("spend", "bad_number")),
    ("2026-01-31,-0.01,2,0.5,2026-01-31 12:00,below nothing", ("spend", "too_low")),
    ("2026-01-31,0.005,2,0.5,2026-01-31 12:00,half a cent", ("spend", "too_precise")),
    ("2026-01-31,1.5,9223372036854775807,0.5,2026-01-31 12:00,largest", (date(2026, 1, 31), Decimal("1.50"), 2**63 - 1, 0.5, NOON, "largest")),
    ("2026-01-31,1.5,9223372036854775808,0.5,2026-01-31 12:00,one more", ("clicks", "out_of_range")),
    ("2026-01-31,1.5,0x10,0.5,2026-01-31 12:00,a programmer's", ("clicks", "bad_number")),
    ("2026-01-31,1.5,2,1e400,2026-01-31 12:00,beyond doubles", ("rate", "out_of_range")),
    ("2026-01-31,1.5,2,inf,2026-01-31 12:00,no number", ("rate", "bad_number")),
    ("2026-01-31,1.5,2,0.5,2026-03-29 02:30,an hour that is not", ("seen", "ambiguous_timestamp")),
    ("2026-01-31,1.5,2,0.5,2026-10-25 02:30,an hour that is twice", ("seen", "ambiguous_timestamp")),
    (
        "2026-01-31,1.5,2,0.5,2026-10-25 02:30+01:00,says which",
        (date(2026, 1, 31), Decimal("1.50"), 2, 0.5, datetime(2026, 10, 25, 1, 30, tzinfo=UTC), "says which"),
    ),
    ("2026-01-31,1.5,2,0.5,2026-01-31 12:00,N\0UL", (None, "nul_byte")),
    ("2026-01-31,1.5,2,0.5,2026-01-31 12:00,\udc00", (None, "bad_encoding")),
    ("2026-01-31,1.5,2,0.5,2026-01-31 12:00", (None, "ragged_row")),
    ("2026-01-31,1,5,2,0.5,2026-01-31 12:00,a decimal comma", (None, "ragged_row")),
    ('2026-01-31,1.5,2,0.5,2026-01-31 12:00,"quoted" twice', (None, "bad_quotes")),
    (
        f'2026-01-31,1.5,2,0.5,2026-01-31 12:00,"{NESTED.replace(chr(34), chr(34) * 2)}"',
        (date(2026, 1, 31), Decimal("1.50"), 2, 0.5, NOON, NESTED),
    ),
    ("2026-01-31,1.5,2,0.5,2026-01-31 12:00," + "x" * 40_000, ("note", "field_too_long")),
    ("2026-01-31,,,,,", (date(2026, 1, 31), None, None, None, None, None)),
]


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_of_a_file_full_of_poison_each_row_has_its_own_outcome(newline: str, encoding: str) -> None:
    content = newline.join([HEADER, *(text for text, _ in POISON)]).encode(encoding, "surrogatepass")
    dropped = drop(content, columns=COLUMNS)
    good = [(line, outcome) for line, (_, outcome) in enumerate(POISON, start=2) if len(outcome) > 2]
    bad = [(line, *outcome) for line, (_, outcome) in enumerate(POISON, start=2) if len(outcome) == 2]
    assert list(zip(dropped.lines, dropped.cells, strict=True)) == good
    assert dropped.reasons == bad
    # What people get back is what they dropped, cell by cell where there are cells.
    raw = {reject.row_number: reject.raw for reject in dropped.rejects}
    assert json.loads(raw[5]) == {"day": None, "spend": "1.5", "clicks": "2", "rate": "0.5", "seen": "2026-01-31 12:00", "note": "no day"}
    assert raw[19] == "2026-01-31,1.5,2,0.5,2026-01-31 12:00"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be", "windows-1252"])
def test_quoted_line_ends_and_semicolons_are_cells_in_every_encoding(encoding: str) -> None:
    text = '"day";"Notiz; groß";spend\r\n2026-01-31;"eins\r\nzwei; ""drei""";1,50\r\n\r\n2026-02-01;"é\n";2,5\r\n'
    columns = {"day": {"type": "date"}, "note": {}, "spend": {"type": "decimal"}}
    dropped = drop(text.encode(encoding), columns=columns, mapping={"notiz; GROSS": "note"})
    assert dropped.cells == [(date(2026, 1, 31), 'eins\r\nzwei; "drei"', Decimal("1.5")), (date(2026, 2, 1), "é\n", Decimal("2.5"))]
    assert dropped.lines == [2, 5]


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ("a,b,,c,a ", "duplicate_header"),
        ("A,a,b,c", "duplicate_header"),
        ("a,b,c,a\u00a0", "duplicate_header"),
        ("a,b,c,,", ""),
        (" a , b ,c", ""),
        ('"a","b","c"', ""),
    ],
)
def test_a_header_gives_each_column_one_name_or_none(header: str, reason: str) -> None:
    content = f"{header}\n1,2,3{',' * (header.count(',') - 2)}\n".encode()
    if reason:
        assert get_quarantine(content)[0] == reason
    else:
        assert drop(content).cells == [("1", "2", "3")]


@pytest.mark.parametrize("name", ["drop.csv.gz", "drop.tsv.gz"])
def test_a_packed_file_without_rows_is_judged_like_any_other(name: str) -> None:
    header = b"a,b,c\n" if "csv" in name else b"a\tb\tc\n"
    assert drop(gzip.compress(header), name).rows == []
    for empty in (b"", b"\n\n"):
        assert get_quarantine(gzip.compress(empty), name)[0] == "empty_file"
    assert get_quarantine(b"", name)[0] == "empty_file"


@pytest.mark.parametrize(
    ("begins", "goes_on", "reason"),
    [
        (b"a,b,c\n1,", b"x", "line_too_long"),
        (b"a,b,c\n1,2,", b",", "line_too_long"),
        (b'a,b,c\n1,2,"', b"x,y,z\n", "unclosed_quote"),
        (b'a,b,c\n1,2,"', b"x", "line_too_long"),
        (b'a,b,c\n1,2,"', b'""', "line_too_long"),
        (b"a,b,c", b"c", "line_too_long"),
    ],
)
def test_ten_gigabytes_that_never_end_are_refused_at_the_first_limit_they_meet(tmp_path: Path, begins: bytes, goes_on: bytes, reason: str) -> None:
    """Ten gigabytes of one line, packed into some megabytes: a gzip file may have as many parts as one likes."""
    file, part = tmp_path / "file", gzip.compress(goes_on * (10_000_000 // len(goes_on)))
    with file.open("wb") as packed:
        packed.write(gzip.compress(begins))
        for _ in range(1_000):
            packed.write(part)
    assert get_quarantine(file, "drop.csv.gz")[0] == "too_large"
    assert get_quarantine(file, "drop.csv.gz", limits={"bytes": "100GB"}, encoding="utf-8")[0] == reason
