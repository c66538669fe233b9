"""The YAML of a `csv_import` source: where files are dropped, how their columns are named, and what each cell must be.

Every rule is about a canonical column, never about a file's own spelling: only `mapping` knows how people name their columns.
"""

import re
import unicodedata
from collections.abc import Iterator
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from typing import Annotated, Literal, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, Field, StringConstraints, WithJsonSchema

from fabric_assets.config.base import NO_CONTROL, CheckedModel, Duration, FabricModel, Flag, Name, Path, Size, Text, Whole
from fabric_assets.config.sources.files import TextEncoding
from fabric_assets.config.sources.models import FolderSource
from fabric_assets.config.sources.rejects import RejectsConfig
from fabric_assets.config.sources.streams import FolderStream, WriteDisposition
from fabric_assets.suggestions import suggest

ColumnType = Literal["text", "bigint", "decimal", "double", "bool", "date", "timestamp"]
Delimiter = Literal[",", ";", "\t", "|"]
DecimalMark = Literal[".", ","]

NUMBERS: tuple[ColumnType, ...] = ("bigint", "decimal", "double")
_CLOCK = re.compile(r"^([01]\d|2[0-3]):[0-5]\d$")
_DIRECTIVES = "YymdbBHIMSfpz"
_CLOCK_DIRECTIVES = "HIMSfpz"
# RE2, which checks the cells in a time that no cell can stretch, lacks these constructs.
_NOT_LINEAR = re.compile(r"(?<!\\)(?:\\\\)*(?:\(\?(?:[=!>(]|<[=!]|P=)|\\[1-9]|[*+?}]\+)")


def _check_timezone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("is no time zone of the IANA database, such as Europe/Berlin") from None
    return value


def _check_clock(value: str) -> str:
    if not _CLOCK.fullmatch(value):
        raise ValueError('must be a time of day in quotes, from 00:00 to 23:59: "08:00"')
    return value


ClockTime = Annotated[str, AfterValidator(_check_clock), WithJsonSchema({"type": "string", "pattern": _CLOCK.pattern, "examples": ["08:00"]})]
Bound = Annotated[int, Field(strict=True)] | Annotated[float, Field(strict=True, allow_inf_nan=False)] | Text
SourceColumn = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=1000, pattern=NO_CONTROL)]
# Not `Text`: a text that cells are compared with may be anything, and blanks count.
CellText = Annotated[str, Field(max_length=1000)]


class ImportLimits(FabricModel):
    """How large a dropped file may be; what is larger is quarantined, whatever it holds."""

    bytes: Size = Field(default=100 * 1000**2, description="Size of its content, unpacked: 500KB, 10MB, 2GB.")
    columns: Whole = Field(default=1000, ge=1, le=16_384, description="Columns of its header.")
    field_chars: Whole = Field(default=32_767, ge=1, le=10_000_000, description="Characters of one cell; a row with a longer one is rejected.")
    rows: Whole = Field(default=1_048_576, ge=1, le=1_000_000_000, description="Rows below its header.")
    name_chars: Whole = Field(default=200, ge=1, le=1000, description="Characters of a column's name in its header.")


class ImportColumn(CheckedModel):
    """What the cells of one canonical column must be; a row with a cell that is not is rejected."""

    type: ColumnType = Field(default="text", description="What the cells are read as.")
    required: Flag = Field(default=False, description="Whether every row must have a value, and every file the column.")
    unique: Flag = Field(default=False, description="Whether a value may be in one row of a file only; the first of several rows is kept.")
    formats: tuple[Text, ...] = Field(default=(), max_length=20, description="Ways a date or timestamp may be written, e.g. %d.%m.%Y.")
    timezone: Annotated[Text, AfterValidator(_check_timezone)] | None = Field(
        default=None, description="Time zone of timestamps without an offset; the column then holds times in UTC."
    )
    accepted: tuple[CellText, ...] = Field(default=(), max_length=10_000, description="The texts that a cell may be.")
    nulls: tuple[CellText, ...] = Field(default=(), max_length=100, description="Texts that stand for no value, e.g. -- or n/a.")
    pattern: Text | None = Field(default=None, description="A regular expression (RE2) that a whole text must match.")
    min: Bound | None = Field(default=None, description="The lowest value allowed.")
    max: Bound | None = Field(default=None, description="The highest value allowed.")
    scale: Whole | None = Field(default=None, ge=0, le=18, description="Digits after the decimal mark of a decimal; default: 9.")

    def find_contradictions(self) -> Iterator[tuple[Path, str]]:
        """Yield the keys that have no meaning for the column's type, and values that are not of its type."""
        allowed: dict[str, tuple[ColumnType, ...]] = {
            "formats": ("date", "timestamp"),
            "timezone": ("timestamp",),
            "accepted": ("text",),
            "pattern": ("text",),
            "min": (*NUMBERS, "date", "timestamp"),
            "max": (*NUMBERS, "date", "timestamp"),
            "scale": ("decimal",),
        }
        for key, types in allowed.items():
            if getattr(self, key) not in (None, ()) and self.type not in types:
                yield (key,), f"is for columns of type {' or '.join(types)}, and this one is {self.type}"
                return
        for index, text in enumerate(self.formats):
            if reason := _find_format_fault(text, self.type):
                yield ("formats", index), reason
        if self.pattern is not None and (reason := _find_pattern_fault(self.pattern)):
            yield ("pattern",), reason
        yield from self._find_bound_faults()

    def get_bound(self, key: Literal["min", "max"]) -> Decimal | date | datetime | None:
        """Return a bound as a value of the column's type.

        Raises:
            ValueError: the bound is not of that type.
        """
        bound = self.min if key == "min" else self.max
        if bound is None:
            return None
        if self.type in NUMBERS:
            try:
                number = Decimal(str(bound))
            except InvalidOperation:
                raise ValueError("must be a number") from None
            if not number.is_finite():
                raise ValueError("must be a number")
            return number
        return date.fromisoformat(str(bound)) if self.type == "date" else datetime.fromisoformat(str(bound))

    def _find_bound_faults(self) -> Iterator[tuple[Path, str]]:
        bounds: dict[str, Decimal | date | datetime | None] = {}
        for key in ("min", "max"):
            try:
                bounds[key] = self.get_bound(key)
            except ValueError:
                yield (key,), f"must be a {self.type if self.type not in NUMBERS else 'number'}"
                return
        if isinstance(low := bounds["min"], datetime) or isinstance(bounds["max"], datetime):
            for key, bound in bounds.items():
                if isinstance(bound, datetime) and (bound.tzinfo is None) != (self.timezone is None):
                    yield (key,), "must have an offset, such as +00:00, where the column has a timezone; without a timezone, it must have no offset"
                    return
        if low is not None and bounds["max"] is not None and low > bounds["max"]:  # type: ignore[operator]
            yield ("max",), "is below min"


class ExpectConfig(FabricModel):
    """When files should have come; the check of the asset fails when they have not."""

    every: Duration = Field(description="Longest time between two files.")
    by: ClockTime | None = Field(default=None, description="Time of day, in the tenant's time zone, by which it should be there: 08:00.")


class CsvStream(FolderStream):
    """Files of one shape -> one table of canonical columns."""

    glob: Text = Field(description="Pattern below the source's path, case ignored, e.g. *.csv; .csv, .tsv, both also as .gz, and .xlsx are read.")
    mapping: dict[SourceColumn, Name] = Field(
        default={}, max_length=2000, description="Column of the file -> canonical column; case and surrounding space are ignored."
    )
    columns: dict[Name, ImportColumn] = Field(
        default={}, max_length=2000, description="The canonical columns; one that the mapping does not name is found by its own name."
    )
    unmapped: Literal["keep", "refuse"] = Field(
        default="keep", description="Columns of a file without a canonical column: keep them in _fabric_unmapped as JSON, or refuse (quarantine) the file."
    )
    on_new_version: Literal["append", "replace_file"] = Field(
        default="replace_file",
        description="A new version of a loaded file (same name, other content): add its rows, or replace those of the earlier one.",
    )
    encoding: TextEncoding | None = Field(
        default=None, description="E.g. cp932 or gb18030. Default: found out, file by file, where it is UTF-8, UTF-16 or Windows-1252."
    )
    delimiter: Delimiter | None = Field(default=None, description="Default: found out by the header, file by file.")
    quote: Literal['"', "'"] | None = Field(default=None, description="Default: found out by the header, file by file.")
    decimal: DecimalMark | None = Field(
        default=None, description="The decimal mark. Default: found out by the numbers; a number that can be read both ways is rejected."
    )
    header: Flag | Annotated[tuple[SourceColumn, ...], Field(min_length=1, max_length=2000)] = Field(
        default=True, description="Whether files begin with their columns' names. false: they come in the order of `columns`; a list: in this order."
    )
    skip_rows: Whole = Field(default=0, ge=0, le=10_000, description="Lines before the header, or without one before the first row.")
    header_row: Whole | None = Field(default=None, ge=1, le=10_000, description="Line of the header, from 1; another way to say skip_rows.")
    sheet: Text | None = Field(default=None, max_length=31, description="Sheet of a workbook; default: the first one.")
    expect: ExpectConfig | None = Field(default=None, description="When files should have come.")
    write_disposition: WriteDisposition | None = Field(
        default=None, description="Default: merge where a primary key is declared; else append, keyed by file and row number."
    )
    rejects: RejectsConfig = Field(default=RejectsConfig(), description="How many rows of a file may be rejected before it is quarantined.")

    def find_contradictions(self) -> Iterator[tuple[Path, str]]:
        """Yield what would lose rows, leave a column without a meaning, or read files outside of the source's folder."""
        yield from super().find_contradictions()
        if self.write_disposition == "replace":
            yield ("write_disposition",), "replace would drop the rows of all earlier files; use append, or merge with a primary_key"
        if not self.mapping and not self.columns:
            yield ("columns",), "the stream needs a mapping or columns to know what its files should hold"
        known = self.get_columns()
        seen: dict[str, str] = {}
        for name, target in self.mapping.items():
            if self.columns and target not in self.columns:
                yield ("mapping", name), f"'{target}' is not one of the columns{suggest(target, self.columns)}"
            if (first := seen.setdefault(fold(name), name)) != name:
                yield ("mapping", name), f"is the same column as {first!r}: case and space are ignored"
        for key in self.primary_key or ():
            if key not in known:
                yield ("primary_key",), f"'{key}' is not one of the columns{suggest(key, known)}"
        yield from self._find_header_contradictions()

    def _find_header_contradictions(self) -> Iterator[tuple[Path, str]]:
        if self.header_row and self.skip_rows:
            yield ("header_row",), "skip_rows says already where the header stands; drop one of the two"
        elif self.header_row and self.header is not True:
            yield ("header_row",), "the files have no header; use skip_rows for lines before their first row"
        folded = [fold(name) for name in self.get_declared_header()]
        if len(set(folded)) < len(folded):
            yield ("header",), "names a column twice; case and space are ignored"
        if folded and not set(folded) & set(self.get_names()):
            yield ("header",), "names none of the stream's columns; name them as `columns` or `mapping` do"

    @property
    def lines_before_header(self) -> int:
        """Lines, or rows of a sheet, that are not read."""
        return self.header_row - 1 if self.header_row else self.skip_rows

    def get_declared_header(self) -> list[str]:
        """List the files' columns in their order, where the files do not name them; empty where they do."""
        return [] if self.header is True else list(self.get_columns()) if self.header is False else list(self.header)

    def get_columns(self) -> dict[str, ImportColumn]:
        """Return the canonical columns: those declared, or else the mapping's columns as texts."""
        return dict(self.columns) or {target: ImportColumn() for target in dict.fromkeys(self.mapping.values())}

    def get_names(self) -> dict[str, str]:
        """Map each column that a file may have, folded, to its canonical column."""
        own = {fold(spelling): column for column in self.get_columns() for spelling in (column, column.replace("_", " "))}
        return own | {fold(name): target for name, target in self.mapping.items()}


class CsvImportSource(FolderSource):
    """Files that people drop: checked, mapped, and loaded once."""

    type: Literal["csv_import"] = Field(description="Files that people drop.")
    limits: ImportLimits = Field(default=ImportLimits(), description="How large a file may be.")
    ready: Literal["stable", "done_file"] = Field(
        default="stable", description="When a file is complete: its size and time stay the same over two looks, or <name>.done lies beside it."
    )
    archive: Flag = Field(default=False, description="Whether loaded files are moved to archive/ below the path.")
    streams: dict[Name, CsvStream] = Field(min_length=1, max_length=2000, description="The files to load, by the name that their rows' table gets.")


def fold(name: str) -> str:
    """Spell a file's column as it is compared: without case, with single spaces, and with accents composed as most programs write them."""
    return unicodedata.normalize("NFC", " ".join(name.split()).casefold())


def _find_format_fault(text: str, kind: ColumnType) -> str:
    found = re.findall(r"%(.?)", text.replace("%%", ""))
    if unknown := [letter for letter in found if letter not in _DIRECTIVES or not letter]:
        return f"%{unknown[0]} is not one of the directives; known: {' '.join('%' + letter for letter in _DIRECTIVES)}"
    if len(set(found)) != len(found):
        return "names a directive twice"
    if not ({"Y", "y"} & set(found) and {"m", "b", "B"} & set(found) and "d" in found):
        return "must name a year, a month and a day: %Y-%m-%d"
    if kind == "date" and set(found) & set(_CLOCK_DIRECTIVES):
        return "names a time of day, which a date has not; use type: timestamp"
    return "needs %p beside %I, as 12-hour times are ambiguous" if ("I" in found) != ("p" in found) else ""


def _find_pattern_fault(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        return f"is no regular expression: {error.msg}"
    return "must not look ahead or behind, refer back or be possessive: RE2 has none of these" if _NOT_LINEAR.search(pattern) else ""


DELIMITERS: tuple[str, ...] = get_args(Delimiter)
