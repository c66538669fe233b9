"""Files of other shapes: without a header, with lines before it, as other programs pack workbooks, names with unseen characters."""

import unicodedata
import zipfile
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from fabric_assets.connectors.csv_import.inbox import spell_glob
from fabric_assets.errors import QuarantinedFile
from tests.connectors.csv_import.imports import drop
from tests.connectors.csv_import.workbooks import row, write_workbook

ROWS = {"columns": {"day": {}, "id": {"type": "bigint"}, "price": {"type": "decimal"}}}


# --- without a header


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
@pytest.mark.parametrize("header", [False, ["Day", "ID", "price"]])
def test_a_file_without_a_header_loses_no_row(mark: str, header: Any) -> None:
    text = "2026-01-01,4711,5.50\n2026-01-01,4712,6.00\n".replace(",", mark)
    found = drop(text.encode(), header=header, **ROWS)
    assert found.cells == [("2026-01-01", 4711, Decimal("5.50")), ("2026-01-01", 4712, Decimal("6.00"))]
    assert found.lines == [1, 2]


def test_a_header_that_is_declared_is_in_the_files_order_and_may_have_more() -> None:
    found = drop(b"x;1;2026-01-01\n", header=["other", "id", "day"], **ROWS)
    assert found.cells == [("2026-01-01", 1, None)]
    assert found.unmapped == ['{"other": "x"}']


def test_a_row_of_another_length_is_rejected_alone() -> None:
    found = drop(b"d;1;2\nd;1\nd;1;2;3\nd;2;3\n", header=False, **ROWS)
    assert found.lines == [1, 4]
    assert [(line, reason) for line, _, reason in found.reasons] == [(2, "ragged_row"), (3, "ragged_row")]


def test_the_first_row_may_have_a_quoted_line_break_and_blank_lines_before_it() -> None:
    found = drop(b'\n\n"a\nb",1,2.5\nc,2,3.5\n', header=False, **ROWS)
    assert found.cells == [("a\nb", 1, Decimal("2.5")), ("c", 2, Decimal("3.5"))]
    assert found.lines == [3, 5]


def test_the_numbers_of_a_file_without_a_header_tell_its_decimal_mark() -> None:
    assert drop(b"a;1;1.234\nb;2;2,5\n", header=False, **ROWS).cells == [("a", 1, Decimal(1234)), ("b", 2, Decimal("2.5"))]


def test_a_sheet_without_a_header_loses_no_row(tmp_path: Path) -> None:
    book = write_workbook(tmp_path / "a.xlsx", {"S": row(1, A="x", B="n:1") + row(2, A="y", B="n:2")})
    found = drop(book, "a.xlsx", header=False, **ROWS)
    assert found.cells == [("x", 1, None), ("y", 2, None)]
    assert found.lines == [1, 2]


# --- lines before the header

PREAMBLE = 'Bank export "daily;\nAccount: 123\n\n'


@pytest.mark.parametrize("where", [{"skip_rows": 3}, {"header_row": 4}])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_lines_before_the_header_are_skipped_whatever_they_hold(where: dict[str, int], newline: str, encoding: str) -> None:
    text = f"{PREAMBLE}day;id;price\nx;1;2,5\ny;2;3,5\n".replace("\n", newline)
    found = drop(text.encode(encoding), **where, **ROWS)
    assert found.cells == [("x", 1, Decimal("2.5")), ("y", 2, Decimal("3.5"))]
    assert (found.lines, found.reasons) == ([5, 6], [])


def test_lines_before_the_first_row_of_a_file_without_a_header_are_skipped() -> None:
    found = drop(f"{PREAMBLE}x;1;2,5\n".encode(), skip_rows=3, header=False, **ROWS)
    assert (found.cells, found.lines, found.reasons) == ([("x", 1, Decimal("2.5"))], [4], [])


def test_the_rows_above_the_header_of_a_sheet_are_skipped(tmp_path: Path) -> None:
    book = write_workbook(tmp_path / "a.xlsx", {"S": row(1, A="Report of id") + row(3, A="day", B="id") + row(4, A="x", B="n:1")})
    found = drop(book, "a.xlsx", skip_rows=2, **ROWS)
    assert (found.cells, found.lines, found.reasons) == ([("x", 1, None)], [4], [])


def test_a_file_of_nothing_but_lines_to_skip_is_empty() -> None:
    with pytest.raises(QuarantinedFile, match="it is empty"):
        drop(b"a\nb\n", skip_rows=3, **ROWS)


# --- names


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("declared", ["NFC", "NFD"])
def test_a_letter_with_an_accent_is_one_however_it_is_composed(form: str, declared: str) -> None:
    name = unicodedata.normalize(declared, "Größe é")
    content = unicodedata.normalize(form, "größe É;x\n1;2\n").encode()
    assert drop(content, columns={"size": {"type": "bigint"}}, mapping={name: "size"}).cells == [(1,)]


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("declared", ["NFC", "NFD"])
def test_a_file_is_found_however_its_name_is_composed(tmp_path: Path, form: str, declared: str) -> None:
    name = unicodedata.normalize(form, "Umsätze é.csv")
    (tmp_path / name).write_text("a\n1\n")
    matching = {path.name for pattern in spell_glob(unicodedata.normalize(declared, "umsätze*.CSV")) for path in tmp_path.glob(pattern)}
    assert matching == {name}


def test_invisible_characters_are_spelt_out_in_messages() -> None:
    with pytest.raises(QuarantinedFile) as caught:
        drop("\u200bdays;i\u00adds\n1;2\n".encode(), delimiter=";", **ROWS)
    assert "none of its columns is known: '\\u200bdays', 'i\\xadds'" in caught.value.message


@pytest.mark.parametrize("header", ["\u200ba,b\u00ad,c\u200e", "\ufeff\ufeffa,b,c", "A\u2060,\u200f b,c"])
@pytest.mark.parametrize("form", ["csv", "xlsx"])
def test_invisible_characters_in_a_columns_name_are_ignored(tmp_path: Path, header: str, form: str) -> None:
    if form == "csv":
        dropped = drop(f"{header}\n1,2,3\n".encode())
    else:
        cells = dict(zip("ABC", header.split(","), strict=True))
        dropped = drop(write_workbook(tmp_path / "book.xlsx", {"One": row(1, **cells) + row(2, A="1", B="2", C="3")}), "drop.xlsx")
    assert (dropped.cells, dropped.unmapped) == ([("1", "2", "3")], [None])


def test_two_columns_that_differ_only_by_invisible_characters_are_refused() -> None:
    with pytest.raises(QuarantinedFile, match="are both a"):
        drop("a,a\u200b,b\n1,2,3\n".encode())


@pytest.mark.parametrize("cell", ["5,-", "5.-", "1.000,-", "1'000.-", "EUR 5,-", "12,- €", "5,\u2212"])
@pytest.mark.parametrize("decimal", [None, ",", "."])
def test_a_dash_instead_of_cents_is_not_a_minus(cell: str, decimal: str | None) -> None:
    options = {"decimal": decimal} if decimal else {}
    dropped = drop(f'a,b,c\n"{cell}",x,y\n'.encode(), columns={"a": {"type": "decimal"}, "b": {}, "c": {}}, **options)
    assert dropped.rows == []
    assert dropped.reasons in ([(2, "a", "ambiguous_number")], [(2, "a", "bad_number")])


@pytest.mark.parametrize("cell", ["5-", "5,00-", "1.000,50-"])
def test_a_minus_behind_all_digits_is_one(cell: str) -> None:
    dropped = drop(f'a,b,c\n"{cell}",x,y\n'.encode(), columns={"a": {"type": "decimal"}, "b": {}, "c": {}}, decimal=",")
    assert [row["a"] < 0 for row in dropped.rows] == [True]


# --- keys


@pytest.mark.parametrize("cell", ["4.90123E+12", "4,90123E+12", "1E+05", " 4.90123E+12 "])
def test_a_key_that_a_spreadsheet_has_cut_is_rejected(cell: str) -> None:
    found = drop(f"a;b\n{cell};{cell}\n007;x\n1e5;y\n10e4;z\n".encode(), columns={"a": {}, "b": {}}, primary_key="a")
    assert found.cells == [("007", "x"), ("1e5", "y"), ("10e4", "z")]
    assert found.reasons == [(2, "a", "too_many_digits")]


# --- workbooks


@pytest.mark.parametrize(("cell", "reason"), [("date:45000", "bad_number"), ("time:45000.5", "bad_number"), ("b:1", "bad_number")])
@pytest.mark.parametrize("kind", ["decimal", "double", "bigint"])
def test_a_date_or_a_truth_value_in_a_column_of_numbers_rejects_its_row_alone(tmp_path: Path, cell: str, reason: str, kind: str) -> None:
    rows = row(1, A="n", B="note") + row(2, A=cell, B="bad") + row(3, A="n:2", B="good")
    found = drop(write_workbook(tmp_path / "a.xlsx", {"S": rows}), "a.xlsx", columns={"n": {"type": kind}, "note": {}})
    assert [values[1] for values in found.cells] == ["good"]
    assert found.reasons == [(2, "n", reason)]


SPANS = """<styleSheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><numFmts count="1">
<numFmt numFmtId="164" formatCode="[h]:mm"/></numFmts>
<cellXfs count="2"><xf numFmtId="0"/><xf numFmtId="164" applyNumberFormat="1"/></cellXfs></styleSheet>"""


@pytest.mark.parametrize(("days", "spelt"), [("1.5", "36:00:00"), ("-0.5", "-12:00:00"), ("100.25", "2406:00:00"), ("0.000011574074", "0:00:01")])
def test_a_duration_is_spelt_in_hours_as_the_sheet_shows_it(tmp_path: Path, days: str, spelt: str) -> None:
    rows = row(1, A="a") + f'<row r="2"><c r="A2" s="1"><v>{days}</v></c></row>'
    assert drop(write_workbook(tmp_path / "a.xlsx", {"S": rows}, styles=SPANS), "a.xlsx").cells == [(spelt, None, None)]


@pytest.mark.parametrize("change", ["strict", "backslashes", "elsewhere"])
def test_a_workbook_is_read_however_its_parts_are_named(tmp_path: Path, change: str) -> None:
    plain = write_workbook(tmp_path / "plain.xlsx", {"S": row(1, A="a") + row(2, A="x")})
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(tmp_path / "a.xlsx", "w") as target:
        for part in source.namelist():
            text = source.read(part).decode()
            if change == "strict":
                text = text.replace("http://schemas.openxmlformats.org/spreadsheetml/2006/main", "http://purl.oclc.org/ooxml/spreadsheetml/main")
                text = text.replace("http://schemas.openxmlformats.org/officeDocument/2006/", "http://purl.oclc.org/ooxml/officeDocument/")
            name = part.replace("/", "\\") if change == "backslashes" else part
            if change == "elsewhere":
                name, text = name.replace("xl/", "book/"), text.replace("xl/workbook.xml", "book/workbook.xml")
            target.writestr(name, text)
    assert drop(tmp_path / "a.xlsx", "a.xlsx").cells == [("x", None, None)]
