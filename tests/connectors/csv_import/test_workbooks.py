"""Dropped .xlsx workbooks: what their cells are, and which of them are refused."""

import json
import zipfile
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from fabric_assets.config.sources.imports import CsvStream, ImportLimits
from fabric_assets.connectors.csv_import import sheet_worker
from fabric_assets.connectors.csv_import.sheets import open_sheet
from fabric_assets.errors import InternalError
from tests.connectors.csv_import.imports import Dropped, drop, get_quarantine
from tests.connectors.csv_import.workbooks import row, write_workbook

COLUMNS: dict[str, Any] = {
    "day": {"type": "date", "formats": ["%d.%m.%Y"]},
    "spend": {"type": "decimal", "scale": 2},
    "seen": {"type": "timestamp"},
    "note": {},
    "active": {"type": "bool"},
}
HEADER = row(1, A="Day", B="Spend", C="Seen", D="Note", E="Active")


@pytest.fixture
def book(tmp_path: Path) -> Path:
    return tmp_path / "book"


def read(path: Path, **options: Any) -> Dropped:
    return drop(path, "drop.xlsx", **{"columns": COLUMNS, **options})


def test_numbers_and_dates_are_what_they_are_whatever_is_declared_for_texts(book: Path) -> None:
    rows = row(2, A="date:46053", B="n:1234.5", C="time:46053.5", D="n:5", E="b:1") + row(3, A="31.01.2026", B="1.234,5", C="2026-01-31 12:00", D=" x ", E="ja")
    dropped = read(write_workbook(book, {"One": HEADER + rows}), decimal=",")
    noon = datetime(2026, 1, 31, 12)
    assert dropped.cells == [
        (date(2026, 1, 31), Decimal("1234.50"), noon, "5", True),
        (date(2026, 1, 31), Decimal("1234.50"), noon, " x ", True),
    ]
    assert dropped.lines == [2, 3]
    assert dropped.described == "workbook"


def test_a_number_has_the_15_digits_that_a_spreadsheet_shows(book: Path) -> None:
    dropped = read(write_workbook(book, {"One": row(1, A="Spend", B="X") + row(2, A="n:0.30000000000000004") + row(3, A="percent:0.07") + row(4, A="n:0.125")}))
    assert [cells["spend"] for cells in dropped.rows] == [Decimal("0.30"), Decimal("0.07")]
    assert dropped.reasons == [(4, "Spend", "too_precise")]


def test_rows_keep_their_numbers_and_blank_ones_are_left_out(book: Path) -> None:
    rows = row(3, B="Day", C="Note") + row(5, B="31.01.2026", C="a") + row(7, B="x", C="b") + row(9, C="c", E="beyond") + row(10, B=" ")
    dropped = read(write_workbook(book, {"One": rows}))
    assert (dropped.lines, dropped.rows[0]["note"]) == ([5], "a")
    assert dropped.reasons == [(7, "Day", "bad_date"), (9, "column 4", "unnamed_column")]


def test_a_cell_that_shows_an_error_rejects_its_row(book: Path) -> None:
    rows = row(1, B="Note", C="Spend") + row(2, B="a", C="n:1") + row(3, B="b", C="e:#N/A") + row(4, B="e:#REF!", C="n:2")
    dropped = read(write_workbook(book, {"One": rows, "Two": row(2, B="e:#N/A")}))
    assert [cells["note"] for cells in dropped.rows] == ["a"]
    assert dropped.reasons == [(3, "Spend", "error_cell"), (4, "Note", "error_cell")]
    assert json.loads(dropped.rejects[0].raw) == {"Note": "b", "Spend": None}


@pytest.mark.parametrize("error", ["#SPILL!", "#CALC!", "#GETTING_DATA", "Err:508"])
def test_an_error_of_a_newer_spreadsheet_rejects_its_row_as_any_other(book: Path, error: str) -> None:
    newer = f'<row r="3"><c r="A3" t="e"><f>A2:A9</f><v>{error}</v></c><c r="B3"><v>2</v></c></row>'
    rows = row(1, A="Note", B="Spend") + row(2, A=error, B="n:1") + newer + row(4, A="c", B="n:3")
    dropped = read(write_workbook(book, {"One": rows}))
    assert [(cells["note"], cells["spend"]) for cells in dropped.rows] == [(error, Decimal("1.00")), ("c", Decimal("3.00"))]
    assert dropped.reasons == [(3, "Note", "error_cell")]


@pytest.mark.parametrize("days", ["-1", "-0.25", "-45000.5"])
@pytest.mark.parametrize("kind", ["date", "time"])
def test_a_date_below_zero_which_no_sheet_shows_rejects_its_row(book: Path, days: str, kind: str) -> None:
    rows = row(1, A="Note", B="Spend") + row(2, A=f"{kind}:{days}", B="n:-1") + row(3, A=f"{kind}:0", B="n:-2") + row(4, A=f"{kind}:46053", B="n:3")
    dropped = read(write_workbook(book, {"One": rows}))
    assert [(cells["note"] or "")[:10] for cells in dropped.rows] == ["00:00:00", "2026-01-31"]
    assert dropped.reasons == [(2, "Note", "error_cell")]


@pytest.mark.parametrize("days", ["60", "60.5", "6.0E1"])
@pytest.mark.parametrize("kind", ["date", "time"])
def test_the_day_that_excel_alone_has_rejects_its_row(book: Path, days: str, kind: str) -> None:
    sound = row(3, A=f"{kind}:59", B="n:60") + row(4, A=f"{kind}:61", B="n:60.5") + row(5, A=f"{kind}:0.5", B="n:3")
    dropped = read(write_workbook(book, {"One": row(1, A="Note", B="Spend") + row(2, A=f"{kind}:{days}", B="n:60") + sound}))
    assert [(cells["note"] or "")[:10] for cells in dropped.rows] == ["1900-02-28", "1900-03-01", "12:00:00"]
    assert dropped.reasons == [(2, "Note", "error_cell")]


def formula(reference: str, result: str | None = None, kind: str = "") -> str:
    value, declared = "" if result is None else f"<v>{result}</v>", f' t="{kind}"' if kind else ""
    return f'<c r="{reference}"{declared}><f>A2*2</f>{value}</c>'


@pytest.mark.parametrize("cell", [formula("B3"), formula("B3", ""), '<c r="B3"><f t="shared" si="0"/><v/></c>', formula("B3", kind="str")])
def test_a_formula_that_was_saved_without_its_result_rejects_its_row(book: Path, cell: str) -> None:
    rows = row(1, A="Note", B="Spend") + row(2, A="a", B="n:1") + f'<row r="3"><c r="A3"><v>7</v></c>{cell}</row>' + row(4, A="c", B="n:2")
    dropped = read(write_workbook(book, {"One": rows}))
    assert [cells["note"] for cells in dropped.rows] == ["a", "c"]
    assert dropped.reasons == [(3, "Spend", "no_result")]
    assert "open the workbook" in dropped.rejects[0].message


def test_a_sheet_that_holds_nothing_but_formulas_without_results_is_not_an_empty_one(book: Path) -> None:
    rows = row(1, B="Note", C="Spend") + f'<row r="4">{formula("A4")}{formula("B4")}{formula("C4")}</row>'
    assert read(write_workbook(book, {"One": rows})).reasons == [(4, "Note", "no_result")]


def test_the_result_of_a_formula_is_its_value_and_may_be_an_empty_text(book: Path) -> None:
    rows = row(1, A="Note", B="Spend") + f'<row r="2">{formula("A2", "x", "str")}{formula("B2", "1.5")}</row>'
    rows += f'<row r="3">{formula("A3", "", "str")}{formula("B3", "2.5")}</row>'
    assert [(cells["note"], cells["spend"]) for cells in read(write_workbook(book, {"One": rows})).rows] == [("x", Decimal("1.50")), (None, Decimal("2.50"))]


def test_cells_that_do_not_say_where_they_are_follow_one_another(book: Path) -> None:
    rows = "<row><c t='inlineStr'><is><t>Note</t></is></c><c t='inlineStr'><is><t>Spend</t></is></c></row>"
    rows += (
        "<row><c><v>120210000000000001</v></c><c><v>1</v></c></row><row><c><v>2</v></c><c><f>A2</f></c></row><row><c><v>3</v></c><c t='e'><v>#N/A</v></c></row>"
    )
    dropped = read(write_workbook(book, {"One": rows}))
    assert [cells["note"] for cells in dropped.rows] == ["120210000000000001"]
    assert dropped.reasons == [(3, "Spend", "no_result"), (4, "Spend", "error_cell")]


LONG = ["120210000000000001", "1234567890123456", "23842567890123457", "-9007199254740993", "9223372036854775807"]


@pytest.mark.parametrize("kind", ["text", "bigint", "decimal"])
def test_a_whole_number_keeps_all_the_digits_of_the_file(book: Path, kind: str) -> None:
    rows = row(1, A="id") + "".join(row(number, A=f"n:{digits}") for number, digits in enumerate(LONG, 2))
    dropped = drop(write_workbook(book, {"One": rows}), "drop.xlsx", columns={"id": {"type": kind, **({"scale": 0} if kind == "decimal" else {})}})
    assert [str(cells["id"]) for cells in dropped.rows] == LONG


@pytest.mark.parametrize("kind", ["text", "bigint"])
def test_a_whole_number_whose_last_digits_are_lost_rejects_its_row(book: Path, kind: str) -> None:
    rows = row(1, A="id") + row(2, A="n:1.2021E+17") + row(3, A="n:-9.007199254740993E+15") + row(4, A="n:9.00719925474099E+15") + row(5, A="7")
    dropped = drop(write_workbook(book, {"One": rows}), "drop.xlsx", columns={"id": {"type": kind}})
    assert [str(cells["id"]) for cells in dropped.rows] == ["9007199254740990", "7"]
    assert dropped.reasons == [(2, "id", "too_many_digits"), (3, "id", "too_many_digits")]
    assert "store it as text in the workbook" in dropped.rejects[0].message


@pytest.mark.parametrize("rows", [f'<row r="3">{formula("A3")}</row><row r="2">{formula("A2")}</row>', f'<row r="4000000000">{formula("A4000000000")}</row>'])
def test_rows_that_no_spreadsheet_has_are_refused(book: Path, rows: str) -> None:
    assert get_quarantine(write_workbook(book, {"One": row(1, A="a") + rows}), "drop.xlsx")[0] == "bad_workbook"


def test_the_first_sheet_is_read_or_the_one_that_is_named(book: Path) -> None:
    write_workbook(
        book,
        {"One": row(1, A="Note") + row(2, A="1"), "Zwei &amp; drei": row(1, A="Note") + row(2, A="s:0")},
        shared="<si><r><t>t</t></r><r><t>wo</t></r></si>",
    )
    assert read(book).rows[0]["note"] == "1"
    assert read(book, sheet="Zwei & drei").rows[0]["note"] == "two"
    assert get_quarantine(book, "drop.xlsx", columns=COLUMNS, sheet="Three") == ("no_sheet", "it has no sheet 'Three'; it has: One, Zwei & drei")


def test_a_thousand_pages_of_rows_are_read_in_portions(book: Path) -> None:
    rows = "".join(row(number, A=f"n:{number}") for number in range(2, 25_002))
    dropped = drop(write_workbook(book, {"One": row(1, A="a") + rows}), "drop.xlsx", columns={"a": {"type": "bigint"}})
    assert [cells["a"] for cells in dropped.rows] == dropped.lines == list(range(2, 25_002))


@pytest.mark.parametrize("content", [b"", b"a,b\n1,2\n", b"PK\x03\x04", b"\xd0\xcf\x11\xe0" + bytes(600)])
def test_a_file_that_is_not_a_workbook_is_quarantined(content: bytes) -> None:
    assert get_quarantine(content, "drop.xlsx")[0] == "bad_workbook"


def test_a_zip_file_or_a_workbook_without_sheets_is_quarantined(book: Path) -> None:
    with zipfile.ZipFile(book, "w") as archive:
        archive.writestr("a.csv", "a,b\n1,2\n")
    assert get_quarantine(book, "drop.xlsx")[0] == "bad_workbook"
    assert get_quarantine(write_workbook(book, {"One": ""}), "drop.xlsx")[0] == "empty_file"
    assert get_quarantine(write_workbook(book, {"One": row(1, A="a", B="a")}), "drop.xlsx")[0] == "duplicate_header"
    assert get_quarantine(write_workbook(book, {"One": "<row"}), "drop.xlsx")[0] == "bad_workbook"


# --- workbooks that are small, and want all memory there is


def test_a_cell_in_the_last_corner_is_refused(book: Path) -> None:
    write_workbook(book, {"One": row(1, A="a") + row(1_048_576, XFD="n:1")})
    assert get_quarantine(book, "drop.xlsx")[0] == "too_large"


def test_a_long_text_that_a_thousand_cells_share_is_refused(book: Path) -> None:
    rows = "".join(row(number, A="s:0") for number in range(2, 5_000))
    write_workbook(book, {"One": row(1, A="a") + rows}, shared=f"<si><t>{'x' * 1_000_000}</t></si>")
    assert get_quarantine(book, "drop.xlsx")[0] == "too_large"


def test_entities_that_multiply_are_not_unfolded(book: Path) -> None:
    head = (
        '<?xml version="1.0"?><!DOCTYPE z [<!ENTITY a "aaaaaaaaaa">'
        + "".join(f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefgh", "bcdefghi", strict=True))
        + "]>"
    )
    write_workbook(book, {"One": row(1, A="a") + row(2, A="&i;")}, head=head)
    assert get_quarantine(book, "drop.xlsx", columns={"a": {}})[0] == "bad_workbook"


def test_parts_that_unpack_to_more_than_the_limit_are_refused(book: Path) -> None:
    write_workbook(book, {"One": row(1, A="a") + row(2, A="x")})
    with zipfile.ZipFile(book, "a", zipfile.ZIP_DEFLATED) as archive, archive.open("xl/media/bomb.bin", "w") as part:
        for _ in range(64):
            part.write(bytes(4 * 1024 * 1024))
    assert book.stat().st_size < 300_000
    assert get_quarantine(book, "drop.xlsx", limits={"bytes": "200MB"})[0] == "too_large"


def test_our_own_fault_in_a_sheets_process_is_not_reported_as_the_sheets(book: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "broken_worker.py"
    source = Path(sheet_worker.__file__).read_text()
    broken.write_text(source.replace('if __name__ == "__main__":', '_build_cell = None\nif __name__ == "__main__":'))
    monkeypatch.setattr(sheet_worker, "__file__", str(broken))
    write_workbook(book, {"Sheet1": row(1, A="<v>1</v>") + row(2, A="<v>2</v>")})
    with pytest.raises(InternalError) as caught:
        list(open_sheet(book, CsvStream.model_validate({"glob": "*.xlsx", "columns": {"a": {"type": "text"}}}), ImportLimits()).read())
    assert "it could not be read: a fault of ETL Fabric (TypeError at fabric_assets/connectors/csv_import/sheet_worker.py:" in caught.value.message
    assert "_build_cell(" in caught.value.traceback
