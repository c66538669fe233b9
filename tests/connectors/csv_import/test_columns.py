"""What the cells of a dropped file become in their canonical columns, and why a row is rejected."""

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest

from fabric_assets.config.sources.imports import ImportColumn
from fabric_assets.connectors.csv_import.columns import get_type
from fabric_assets.errors import ConfigurationError
from tests.connectors.csv_import.imports import drop, get_quarantine

D = Decimal
LONG = "12345678901234567890123456789"


def read(column: dict[str, Any], *cells: str, **stream: Any) -> tuple[list[Any], list[str]]:
    """Cells of one column -> the values of those that are good, and the reasons of the others."""
    content = "x;n\n" + "".join(f'"{cell.replace(chr(34), chr(34) * 2)}";{number}\n' for number, cell in enumerate(cells))
    dropped = drop(content.encode(), columns={"x": column, "n": {}}, **stream)
    return [row["x"] for row in dropped.rows], [reject.reason for reject in dropped.rejects]


# --- names


def test_columns_are_found_by_the_mapping_or_their_own_name_whatever_their_case_and_space() -> None:
    columns: dict[str, Any] = {"spend": {}, "campaign_name": {}, "day": {}, "gone": {}}
    stream: dict[str, Any] = {"mapping": {"Spend (EUR)": "spend", "Kampagne": "campaign_name"}, "columns": columns}
    assert drop(b" spend  (eur) ;KAMPAGNE;Day\n1;2;3\n", **stream).rows == [{"spend": "1", "campaign_name": "2", "day": "3", "gone": None}]
    assert drop(b"Spend;Campaign  Name;DAY\n1;2;3\n", **stream).rows == [{"spend": "1", "campaign_name": "2", "day": "3", "gone": None}]
    reason, message = get_quarantine(b"spend;Spend (EUR)\n1;2\n", **stream)
    assert (reason, message) == ("duplicate_header", "its columns 'spend' and 'Spend (EUR)' are both spend")


def test_a_mapping_without_columns_makes_texts() -> None:
    assert drop(b"Date;X\n2026-01-31;1\n", mapping={"date": "day"}).rows == [{"day": "2026-01-31"}]


def test_a_missing_column_quarantines_the_file_only_if_it_is_required() -> None:
    reason, message = get_quarantine(b"a;z\n1;2\n", columns={"a": {}, "b": {"required": True}, "c": {"required": True}})
    assert (reason, message) == ("missing_column", "it lacks the column b, c; it has: a, z")


def test_unmapped_columns_are_kept_as_json_or_refused() -> None:
    content = 'a;Note "x";Ort\n1;"say ""hi""\n\\";Köln\n2;;\n3;plain;\n'.encode()
    dropped = drop(content, columns={"a": {}})
    assert [text and json.loads(text) for text in dropped.unmapped] == [{'Note "x"': 'say "hi"\n\\', "Ort": "Köln"}, None, {'Note "x"': "plain"}]
    reason, message = get_quarantine(content, columns={"a": {}}, unmapped="refuse")
    assert (reason, message) == ("unknown_column", 'no column of the stream is for: Note "x", Ort')


# --- numbers


@pytest.mark.parametrize(
    ("cell", "point", "comma", "unknown"),
    [
        ("0", D(0), D(0), D(0)),
        ("007", D(7), D(7), D(7)),
        ("+5", D(5), D(5), D(5)),
        ("-5", D(-5), D(-5), D(-5)),
        ("\u22125", D(-5), D(-5), D(-5)),
        (" 5 ", D(5), D(5), D(5)),
        ("12.5", D("12.5"), "bad_number", D("12.5")),
        ("12,5", "bad_number", D("12.5"), D("12.5")),
        ("1.234", D("1.234"), D(1234), "ambiguous_number"),
        ("1,234", D(1234), D("1.234"), "ambiguous_number"),
        ("-1,234", D(-1234), D("-1.234"), "ambiguous_number"),
        ("0.125", D("0.125"), "bad_number", D("0.125")),
        ("1.234,56", "bad_number", D("1234.56"), D("1234.56")),
        ("1,234.56", D("1234.56"), "bad_number", D("1234.56")),
        ("1,234,567", D(1234567), "bad_number", D(1234567)),
        ("1.234.567", "bad_number", D(1234567), D(1234567)),
        ("1 234 567,8", "bad_number", D("1234567.8"), D("1234567.8")),
        ("1\u202f234,5", "bad_number", D("1234.5"), D("1234.5")),
        ("1'234.5", D("1234.5"), "bad_number", D("1234.5")),
        ("1,23,456", D(123456), "bad_number", D(123456)),
        ("12,34,567.89", D("1234567.89"), "bad_number", D("1234567.89")),
        ("-1,00,000", D(-100000), "bad_number", D(-100000)),
        ("1'234,567.5", "bad_number", "bad_number", "bad_number"),
        ("12.34.567,89", "bad_number", "bad_number", "bad_number"),
        ("1,2,345", "bad_number", "bad_number", "bad_number"),
        ("0,12,345", "bad_number", "bad_number", "bad_number"),
        ("1,234.567,8", "bad_number", "bad_number", "bad_number"),
        ("12,3456", "bad_number", D("12.3456"), D("12.3456")),
        (".5", D("0.5"), "bad_number", D("0.5")),
        ("5.", D(5), "bad_number", D(5)),
        ("1e3", D(1000), D(1000), D(1000)),
        ("1.5E-2", D("0.015"), "bad_number", D("0.015")),
        ("(12)", D(-12), D(-12), D(-12)),
        ("€ 5", D(5), D(5), D(5)),
        ("-5 €", D(-5), D(-5), D(-5)),
        ("€-5", D(-5), D(-5), D(-5)),
        ("EUR 1,50", "bad_number", D("1.5"), D("1.5")),
        ("5 %", D("0.05"), D("0.05"), D("0.05")),
        ("12.5%", D("0.125"), "bad_number", D("0.125")),
        ("", None, None, None),
        ("  ", None, None, None),
        ("-", "bad_number", "bad_number", "bad_number"),
        (".", "bad_number", "bad_number", "bad_number"),
        ("1 2", "bad_number", "bad_number", "bad_number"),
        ("5-", D(-5), D(-5), D(-5)),
        ("1.234,50-", "bad_number", D("-1234.50"), D("-1234.50")),
        ("5- EUR", D(-5), D(-5), D(-5)),
        ("-5-", "bad_number", "bad_number", "bad_number"),
        ("(5-)", "bad_number", "bad_number", "bad_number"),
        ("\u20135", D(-5), D(-5), D(-5)),
        ("--5", "bad_number", "bad_number", "bad_number"),
        ("NaN", "bad_number", "bad_number", "bad_number"),
        ("inf", "bad_number", "bad_number", "bad_number"),
        ("0x1F", "bad_number", "bad_number", "bad_number"),
        ("1_000", "bad_number", "bad_number", "bad_number"),
        ("\u0661\u0662", "bad_number", "bad_number", "bad_number"),
        ("12abc", "bad_number", "bad_number", "bad_number"),
        ("9" * 101, "bad_number", "bad_number", "bad_number"),
        ("9" * 30, "out_of_range", "out_of_range", "out_of_range"),
        ("1e400", "out_of_range", "out_of_range", "out_of_range"),
        ("1e-10", "too_precise", "too_precise", "too_precise"),
        (f"{LONG}.123456789", D(f"{LONG}.123456789"), "bad_number", D(f"{LONG}.123456789")),
        (f"-{LONG},123456789", "bad_number", D(f"-{LONG}.123456789"), D(f"-{LONG}.123456789")),
    ],
)
@pytest.mark.parametrize("beside", [None, "oops"])
def test_a_number_is_read_in_the_one_way_it_can_be(cell: str, point: Any, comma: Any, unknown: Any, beside: str | None) -> None:
    # If one cell is not valid, the others are read one by one.
    for mark, expected in ((".", point), (",", comma), (None, unknown)):
        # Without a mark declared the file's numbers decide, so this cell is not to be the only one: 1,5 and 2.5 decide nothing.
        percent = "%" if "%" in cell else ""
        others = [f"1,5{percent}", f"2.5{percent}"] if mark is None else []
        values, reasons = read({"type": "decimal"}, cell, *others, *([beside] if beside else []), decimal=mark)
        wanted = [[], [expected]] if isinstance(expected, str) else [[expected], []]
        assert [values[: len(values) - len(others)], reasons[: len(reasons) - bool(beside)]] == wanted


def test_the_numbers_of_a_file_tell_its_decimal_mark() -> None:
    assert read({"type": "decimal"}, "1.234", "1.234,5", "7") == ([D(1234), D("1234.5"), D(7)], [])
    assert read({"type": "decimal"}, "1.234", "2.5", "7") == ([D("1.234"), D("2.5"), D(7)], [])
    assert read({"type": "decimal"}, "1.234", "7") == ([D(7)], ["ambiguous_number"])
    assert read({"type": "double"}, "1.234", "1,5") == ([1234.0, 1.5], [])
    assert read({"type": "bigint"}, "1.234", "7") == ([7], ["ambiguous_number"])


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("9223372036854775807", 2**63 - 1),
        ("-9223372036854775808", -(2**63)),
        ("9223372036854775808", "out_of_range"),
        ("1e30", "out_of_range"),
        ("1,234", 1234),
        ("12.0", 12),
        ("12.", 12),
        ("12.5", "not_whole"),
        ("1e3", 1000),
        ("4.90123E+12", "too_many_digits"),
        ("1E+05", "too_many_digits"),
        ("1e-1", "not_whole"),
        ("5%", "not_whole"),
        ("0X1F", "bad_number"),
    ],
)
@pytest.mark.parametrize("beside", [None, "oops"])
def test_a_whole_number_is_whole(cell: str, expected: Any, beside: str | None) -> None:
    values, reasons = read({"type": "bigint"}, cell, *([beside] if beside else []), decimal=".")
    assert (values or reasons[:1]) == [expected]


def test_a_double_is_the_nearest_one_and_finite() -> None:
    assert read({"type": "double"}, "0.1", "1e308", "-2.5", decimal=".") == ([0.1, 1e308, -2.5], [])
    assert read({"type": "double"}, "1e400", "NaN", "infinity", "1e-400", decimal=".") == ([0.0], ["out_of_range", "bad_number", "bad_number"])


def test_a_decimal_is_never_rounded() -> None:
    assert read({"type": "decimal", "scale": 2}, "1.5", "1.50000", "1.555", decimal=".") == ([D("1.50"), D("1.50")], ["too_precise"])


def test_a_column_holds_one_currency_and_one_kind_of_number() -> None:
    assert read({"type": "decimal"}, "5", "€ 5", "$ 5", "6 €", "EUR 6", decimal=".") == ([D(5), D(5), D(6)], ["mixed_currency", "mixed_currency"])
    assert read({"type": "decimal"}, "5%", "", "6", "7 %", decimal=".") == ([D("0.05"), None, D("0.07")], ["mixed_percent"])
    assert read({"type": "decimal"}, "", "5", "6%", decimal=".") == ([None, D(5)], ["mixed_percent"])


# --- dates, truth values


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("2026-01-31", date(2026, 1, 31)),
        (" 2026-01-31 ", date(2026, 1, 31)),
        ("2026/1/31", date(2026, 1, 31)),
        ("31.01.2026", date(2026, 1, 31)),
        ("1/31/2026", date(2026, 1, 31)),
        ("05.05.2026", date(2026, 5, 5)),
        ("2026-01-31 00:00:00", date(2026, 1, 31)),
        ("2026-01-31T10:00", "bad_date"),
        ("01/02/2026", "ambiguous_date"),
        ("1.2.2026", "ambiguous_date"),
        ("2026-02-29", "bad_date"),
        ("2026-13-01", "bad_date"),
        ("31.31.2026", "bad_date"),
        ("31-01-26", "bad_date"),
        ("31/01-2026", "bad_date"),
        ("20260131", "bad_date"),
        ("46053", "bad_date"),
        ("0000-01-01", "bad_date"),
        ("\u0662\u0660\u0662\u0666-01-01", "bad_date"),
        ("yesterday", "bad_date"),
    ],
)
@pytest.mark.parametrize("beside", [None, "oops"])
def test_a_date_without_formats_is_read_if_it_has_one_meaning(cell: str, expected: Any, beside: str | None) -> None:
    values, reasons = read({"type": "date"}, cell, *([beside] if beside else []))
    assert (values or reasons[:1]) == [expected]


def test_formats_decide() -> None:
    formats = ["%Y-%m-%d", "%d.%m.%Y"]
    assert read({"type": "date", "formats": formats}, "2026-01-31", "1.2.2026", "01/02/2026", "31.12.2026 ") == (
        [date(2026, 1, 31), date(2026, 2, 1), date(2026, 12, 31)],
        ["bad_date"],
    )
    assert read({"type": "date", "formats": ["%d/%m/%Y"]}, "01/02/2026", "2026-02-01") == ([date(2026, 2, 1)], ["bad_date"])
    assert read({"type": "date", "formats": ["%Y-%d-%m"]}, "2026-02-01", "2026-31-01") == ([date(2026, 1, 2), date(2026, 1, 31)], [])
    assert read({"type": "date", "formats": ["%d/%m/%Y", "%m/%d/%Y"]}, "01/02/2026", "31/01/2026", "05/05/2026") == (
        [date(2026, 1, 31), date(2026, 5, 5)],
        ["ambiguous_date"],
    )
    assert read({"type": "date", "formats": ["%d %b %y"]}, "31 Jan 26", "31 Foo 26") == ([date(2026, 1, 31)], ["bad_date"])


def test_a_timestamp_is_naive_or_a_moment_as_its_column_says() -> None:
    assert read({"type": "timestamp"}, "2026-01-31", "2026-01-31T10:30", "2026-01-31 10:30:15.25", "2026-01-31 25:00", "2026-01-31 10:00Z") == (
        [datetime(2026, 1, 31), datetime(2026, 1, 31, 10, 30), datetime(2026, 1, 31, 10, 30, 15, 250000)],
        ["bad_timestamp", "bad_timestamp"],
    )
    zone = {"type": "timestamp", "timezone": "Europe/Berlin"}
    winter, summer = datetime(2026, 1, 31, 9, tzinfo=UTC), datetime(2026, 7, 31, 8, tzinfo=UTC)
    assert read(zone, "2026-01-31 10:00", "2026-07-31 10:00") == ([winter, summer], [])
    assert read(zone, "2026-01-31 10:00", "2026-07-31T10:00:00+0200", "2026-10-25 02:30", "2026-03-29 02:30") == (
        [winter, summer],
        ["ambiguous_timestamp", "ambiguous_timestamp"],
    )
    assert read({"type": "timestamp", "formats": ["%d.%m.%Y %H:%M"]}, "31.01.2026 10:30") == ([datetime(2026, 1, 31, 10, 30)], [])


def test_truth_is_spelt_in_words_or_as_1_and_0() -> None:
    assert read({"type": "bool"}, "true", "FALSE", "Yes", "n", "1", "0", "WAHR", "faux", "", "2", "maybe") == (
        [True, False, True, False, True, False, True, False, None],
        ["bad_bool", "bad_bool"],
    )


# --- rules


def test_each_rule_rejects_with_its_own_reason() -> None:
    assert read({"required": True}, "x", "", "  ") == (["x"], ["required", "required"])
    assert read({"accepted": ["a", "b"]}, "a", "A", "b ", "", "c") == (["a", None], ["not_accepted"] * 3)
    assert read({"pattern": "[a-z]+|x1"}, "abc", "x1", "x12", "abc\n", "") == (["abc", "x1", None], ["pattern", "pattern"])
    assert read({"type": "decimal", "min": 0, "max": 9.5}, "0", "-0.01", "9.5", "9.51", decimal=".") == ([D(0), D("9.5")], ["too_low", "too_high"])
    assert read({"type": "bigint", "min": 0.5, "max": 1e30}, "1", "0", str(2**63 - 1)) == ([1, 2**63 - 1], ["too_low"])
    assert read({"type": "decimal", "scale": 0, "min": 0.5, "max": 1e40}, "1", "0", decimal=".") == ([D(1)], ["too_low"])
    assert read({"type": "double", "max": 1}, "1", "1.1", decimal=".") == ([1.0], ["too_high"])
    assert read({"type": "date", "min": "2026-01-01"}, "2025-12-31", "2026-01-01") == ([date(2026, 1, 1)], ["too_low"])
    assert read({"type": "timestamp", "max": "2026-01-01 12:00"}, "2026-01-01 12:00", "2026-01-01 12:01") == ([datetime(2026, 1, 1, 12)], ["too_high"])
    assert read({"type": "bigint", "nulls": ["--", "n/a"]}, "--", " n/a ", "5", "-") == ([None, None, 5], ["bad_number"])
    assert read({"type": "bigint", "nulls": ["--"], "required": True}, "--") == ([], ["required"])


def test_a_value_that_must_be_unique_counts_in_the_first_row_that_is_good() -> None:
    dropped = drop(b"k,v\n1,x\n1,5\n01,6\n2,7\n,8\n,9\n", columns={"k": {"type": "bigint", "unique": True}, "v": {"type": "bigint"}})
    assert dropped.cells == [(1, 5), (2, 7), (None, 8), (None, 9)]
    assert dropped.reasons == [(2, "v", "bad_number"), (4, "k", "duplicate")]


def test_a_rejected_row_names_each_bad_cell_by_the_files_own_words() -> None:
    dropped = drop(
        "Tag;Kosten;Ort;Extra\nmorgen;-5;Köln;1\n".encode(),
        mapping={"Tag": "day", "Kosten": "spend", "Ort": "city"},
        columns={"day": {"type": "date"}, "spend": {"type": "bigint", "min": 0}, "city": {"accepted": ["Bonn"]}},
    )
    reject = dropped.rejects[0]
    assert (reject.row_number, reject.column, reject.reason) == (2, "Tag", "bad_date")
    assert reject.message == "Tag: 'morgen' is not a date; Kosten: '-5' is below the lowest value allowed, 0; Ort: 'Köln' is not one of: Bonn"
    assert json.loads(reject.raw) == {"Tag": "morgen", "Kosten": "-5", "Ort": "Köln", "Extra": "1"}


def test_too_many_bad_rows_quarantine_the_file() -> None:
    content = b"a\n" + b"1\n" * 18 + b"x\n"
    columns = {"a": {"type": "bigint"}}
    assert len(drop(content, columns=columns, rejects={"max": "10%"}).rejects) == 1
    assert get_quarantine(content + b"y\n", columns=columns, rejects={"max": "5%"}) == (
        "too_many_rejects",
        "2 of its 20 rows are bad, more than 5%: line 20: a: 'x' is not a number",
    )


def test_a_pattern_that_only_python_supports_is_reported_as_the_tenants_mistake() -> None:
    with pytest.raises(ConfigurationError, match="the pattern of column x is not valid in RE2"):
        read({"pattern": r"a{2000}"}, "a")


def test_each_type_has_its_arrow_type() -> None:
    types = {"text": {}, "bigint": {}, "decimal": {"scale": 2}, "double": {}, "bool": {}, "date": {}, "timestamp": {"timezone": "UTC"}}
    assert [str(get_type(ImportColumn.model_validate({"type": kind, **more}))) for kind, more in types.items()] == [
        "string",
        "int64",
        "decimal128(38, 2)",
        "double",
        "bool",
        "date32[day]",
        "timestamp[us, tz=UTC]",
    ]
