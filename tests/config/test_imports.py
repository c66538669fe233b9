"""What the keys of a csv_import source mean, and which are refused."""

from decimal import Decimal
from typing import Any

import pytest
from pydantic import ValidationError

from fabric_assets.config.sources.imports import CsvImportSource, CsvStream, ImportColumn, ImportLimits

STREAM: dict[str, Any] = {
    "glob": "*.csv",
    "mapping": {"Date": "day", "Spend (EUR)": "spend"},
    "columns": {"day": {"type": "date"}, "spend": {"type": "decimal"}},
}


def build(**changes: Any) -> CsvImportSource:
    return CsvImportSource.model_validate({"type": "csv_import", "path": "inbox/acme/ads", "streams": {"ads": STREAM}, **changes})


def get_refusals(model: Any, body: dict[str, Any]) -> list[str]:
    with pytest.raises(ValidationError) as caught:
        model.model_validate(body)
    return [error["msg"].removeprefix("Value error, ") for error in caught.value.errors()]


def test_sizes_are_written_with_units_or_as_bytes() -> None:
    assert [ImportLimits.model_validate({"bytes": size}).bytes for size in ("500KB", "10MB", "2GB", 7)] == [500_000, 10_000_000, 2_000_000_000, 7]
    for size in ("10", "10 MB", "1.5MB", "10MiB", 0, -1, True, 1.5):
        assert get_refusals(ImportLimits, {"bytes": size})


def test_a_source_has_defaults_that_fit_what_people_drop() -> None:
    source = build()
    stream = source.streams["ads"]
    assert (source.limits.bytes, source.limits.rows, source.ready, source.archive) == (100_000_000, 1_048_576, "stable", False)
    assert (stream.unmapped, stream.on_new_version, stream.disposition, stream.rejects.max) == ("keep", "replace_file", "append", None)
    assert CsvStream.model_validate({**STREAM, "primary_key": "day"}).disposition == "merge"


def test_names_are_folded_and_include_the_columns_own_name() -> None:
    stream = CsvStream.model_validate({"glob": "*", "mapping": {" Spend  (EUR) ": "ad_spend"}, "columns": {"ad_spend": {}, "day": {}}})
    assert stream.get_names() == {"ad_spend": "ad_spend", "ad spend": "ad_spend", "day": "day", "spend (eur)": "ad_spend"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mapping": {"Date": "dya"}}, "'dya' is not one of the columns; did you mean 'day'? known: day, spend"),
        ({"mapping": {"Date": "day", " date": "spend"}}, "is the same column as 'Date': case and space are ignored"),
        ({"primary_key": "id"}, "'id' is not one of the columns; known: day, spend"),
        ({"write_disposition": "replace"}, "replace would drop the rows of all earlier files; use append, or merge with a primary_key"),
        ({"mapping": {}, "columns": {}}, "the stream needs a mapping or columns to know what its files should hold"),
        ({"glob": "../*.csv"}, "must stay below the source's path: no leading / and no .."),
    ],
)
def test_a_stream_that_contradicts_itself_is_refused(changes: dict[str, Any], message: str) -> None:
    assert get_refusals(CsvStream, {**STREAM, **changes}) == [message]


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ({"type": "bigint", "formats": ["%Y"]}, "is for columns of type date or timestamp, and this one is bigint"),
        ({"min": 0}, "is for columns of type bigint or decimal or double or date or timestamp, and this one is text"),
        ({"type": "date", "accepted": ["x"]}, "is for columns of type text, and this one is date"),
        ({"type": "date", "min": "soon"}, "must be a date"),
        ({"type": "decimal", "min": "low"}, "must be a number"),
        ({"type": "decimal", "min": 2, "max": 1}, "is below min"),
        (
            {"type": "timestamp", "min": "2026-01-01 00:00+00:00"},
            "must have an offset, such as +00:00, where the column has a timezone; without a timezone, it must have no offset",
        ),
        ({"type": "timestamp", "timezone": "Europe/Colone"}, "is no time zone of the IANA database, such as Europe/Berlin"),
        ({"type": "date", "formats": ["%Q"]}, "%Q is not one of the directives; known: %Y %y %m %d %b %B %H %I %M %S %f %p %z"),
        ({"type": "date", "formats": ["%d.%m."]}, "must name a year, a month and a day: %Y-%m-%d"),
        ({"type": "date", "formats": ["%Y-%m-%d %H"]}, "names a time of day, which a date has not; use type: timestamp"),
        ({"type": "timestamp", "formats": ["%Y-%m-%d %I:%M"]}, "needs %p beside %I, as 12-hour times are ambiguous"),
        ({"type": "date", "formats": ["%Y-%Y-%m-%d"]}, "names a directive twice"),
        ({"pattern": "("}, "is no regular expression: missing ), unterminated subpattern"),
        ({"pattern": r"(a)\1"}, "must not look ahead or behind, refer back or be possessive: RE2 has none of these"),
        ({"pattern": "(?=a)"}, "must not look ahead or behind, refer back or be possessive: RE2 has none of these"),
    ],
)
def test_a_column_whose_rules_have_no_meaning_is_refused(column: dict[str, Any], message: str) -> None:
    assert get_refusals(ImportColumn, column) == [message]


def test_bounds_are_values_of_their_column() -> None:
    column = ImportColumn.model_validate({"type": "decimal", "min": 0.1, "max": "12.50"})
    assert (column.get_bound("min"), column.get_bound("max")) == (Decimal("0.1"), Decimal("12.50"))


def test_an_inbox_stays_out_of_the_platforms_folders() -> None:
    for path in ("../inbox", "warehouse", "ftp://host/inbox", "s3://key:secret@bucket/inbox"):
        assert get_refusals(CsvImportSource, {"type": "csv_import", "path": path, "streams": {"ads": STREAM}})
    assert build(path="s3://bucket/inbox").path == "s3://bucket/inbox"
