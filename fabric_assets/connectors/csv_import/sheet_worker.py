"""Reads one sheet of a workbook in a process of its own, whose memory and time are limited and which may be aborted.

A workbook of a kilobyte can name a cell in row 1,048,576, or repeat one long text a million times. The reader allocates memory for
all of it and aborts its process. The first line on standard output names the sheets; each further line is a row, as a JSON array:

- a text is a string;
- a cell that was not a text in the sheet (number, date, truth value) is an array that contains its text;
- a cell that should have a value and has none is an array of null and the reason.

The reader returns errors (#N/A) and formulas without a result as empty cells, and numbers as floats, which hold 15 digits. If a
sheet has such cells, its XML is read as well.
"""

import datetime
import io
import json
import re
import resource
import sys
import traceback
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from xml.parsers import expat

MEMORY = 768 * 1024 * 1024
SECONDS = 120
NO_SHEET, NO_WORKBOOK, OWN_FAULT = 3, 4, 5
_MISTAKES = (TypeError, AttributeError, LookupError, NameError, AssertionError)
NO_RESULT, ERROR = "no_result", "error_cell"
_LAST_ROW = 1_048_576
# Whole numbers below have all their digits in a float.
_EXACT = 2**53
_BLOCK, _OVERLAP = 1024 * 1024, 256
_TELLING = re.compile(rb"""<(?:\w+:)?f[\s/>]|\bt\s*=\s*["']e["']|>\s*-?[0-9]{16,200}\s*<""")
_NO_DATE = re.compile(rb">\s*(?:-|60[\s.<]|6[0-9.]*[eE])")
_ERROR_CELL = re.compile(rb"""(<(?:\w+:)?c\s[^>]*?\bt\s*=\s*["']e["'][^>]*(?<!/)>(?:(?!</(?:\w+:)?c>).)*?<(?:\w+:)?v>)[^<]*(</)""", re.DOTALL)
_LONG = re.compile(r"-?[0-9]{16,}")
# A formula's result of these types may be an empty text.
_TEXTS = ("str", "inlineStr")
_REFERENCE = re.compile(r"([A-Z]{1,3})[0-9]{1,7}")

Cell = str | Sequence[str | None] | None


class Fact(NamedTuple):
    """What the reader does not return of a cell. Line from 1, column from 0."""

    line: int
    column: int
    cell: Sequence[str | None]


def main(path: str, sheet: str, part: str, value_forms: str) -> int:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    import python_calamine as calamine

    try:
        book = calamine.CalamineWorkbook.from_path(path)
        names = [facts.name for facts in book.sheets_metadata if facts.typ == calamine.SheetTypeEnum.WorkSheet]
        print(json.dumps(names))
        if not names or (sheet and sheet not in names):
            return NO_SHEET
        if not part:
            return NO_WORKBOOK
        rows = _open_sheet(book, path, part, sheet or names[0])
        first = (rows.start or (0, 0))[1]
        no_dates = _NoDates(path, part)
        for row in _add_facts(rows.iter_rows(), first, rows.width, _find_facts(path, part), no_dates, spells_hours=int(value_forms) >= 2):
            print(json.dumps(row))
    except (calamine.CalamineError, expat.ExpatError, OSError, ValueError):
        return NO_WORKBOOK
    except _MISTAKES as error:
        line = traceback.extract_tb(error.__traceback__)[-1].lineno
        message = f"it could not be read: a fault of ETL Fabric ({type(error).__name__} at fabric_assets/connectors/csv_import/sheet_worker.py:{line}): {error}"
        json.dump({"message": message, "traceback": traceback.format_exc()}, sys.stderr)
        return OWN_FAULT
    return 0


def _open_sheet(book: Any, path: str, part: str, name: str) -> Any:
    """Open the sheet. The reader knows only the errors of older spreadsheets, so it gets a copy in which newer ones (#SPILL!) are #N/A."""
    import python_calamine as calamine

    try:
        return book.get_sheet_by_name(name)
    except calamine.CalamineError as error:
        if "cell error" not in str(error):
            raise
    return calamine.CalamineWorkbook.from_filelike(_replace_errors(path, part)).get_sheet_by_name(name)


def _replace_errors(path: str, part: str) -> io.BytesIO:
    copy = io.BytesIO()
    with zipfile.ZipFile(path) as book, zipfile.ZipFile(copy, "w") as target:
        for name in book.namelist():
            content = book.read(name)
            target.writestr(name, _ERROR_CELL.sub(rb"\1#N/A\2", content) if name == part else content)
    copy.seek(0)
    return copy


class _NoDates:
    """A finder of numbers that a sheet shows as dates although they are not valid dates.

    The reader returns such a number as a date or time. For one below zero it returns the time of day of its fraction.
    For 60, which only Excel shows as 1900-02-29, it returns the day before.
    """

    def __init__(self, path: str, part: str) -> None:
        self._path, self._part = path, part
        self._found: set[tuple[int, int]] | None = None

    def is_one(self, cell: Any, line: int, column: int) -> bool:
        if not (type(cell) is datetime.time or (isinstance(cell, datetime.date) and (cell.year, cell.month, cell.day) == (1900, 2, 28))):
            return False
        if self._found is None:
            # Only when needed: most sheets have no such cell, and reading their XML takes ten times as long as reading the cells.
            with zipfile.ZipFile(self._path) as book:
                has_any = _has(_NO_DATE, book, self._part)
            facts = _read_xml(self._path, self._part, _SheetXml(no_dates=True)) if has_any else ()
            self._found = {(fact.line, fact.column) for fact in facts}
        return (line, column) in self._found


def _add_facts(rows: Iterator[Sequence[Any]], first: int, width: int, facts: Iterator[Fact], no_dates: _NoDates, *, spells_hours: bool) -> Iterator[list[Cell]]:
    """Yield the rows, completed with the facts that the reader leaves out. Facts may follow its last row.

    Args:
        first: the column in which the rows begin.
        spells_hours: spell durations as the sheet shows them; tables of earlier versions have Python's spelling.

    Raises:
        ValueError: the sheet's rows are not in order.
    """
    line, fact = 0, next(facts, None)
    while (row := next(rows, None)) is not None or fact:
        line += 1
        cells: list[Cell] = [None] * width if row is None else [_build_cell(cell, spells_hours=spells_hours) for cell in row]
        for index, cell in enumerate(row or ()):
            if no_dates.is_one(cell, line, first + index):
                cells[index] = [None, ERROR]
        while fact and fact.line <= line:
            if fact.line < line:
                raise ValueError(fact)
            if 0 <= fact.column - first < width:
                cells[fact.column - first] = fact.cell
            fact = next(facts, None)
        yield cells


def _build_cell(cell: Any, *, spells_hours: bool) -> Cell:
    if isinstance(cell, str):
        return cell or None
    if isinstance(cell, bool):
        return [str(cell).lower()]
    if isinstance(cell, float):
        return [str(int(cell)) if cell.is_integer() and abs(cell) < _EXACT else repr(cell)]
    if isinstance(cell, datetime.datetime):
        return [cell.isoformat(" ")]
    if isinstance(cell, datetime.timedelta) and spells_hours:
        return [_spell_duration(cell)]
    return [cell.isoformat() if isinstance(cell, datetime.date | datetime.time) else str(cell)]


def _spell_duration(span: datetime.timedelta) -> str:
    """Hours, minutes and seconds, as `[h]:mm:ss` shows them; Python counts a negative one back from whole days."""
    sign, span = ("-", -span) if span < datetime.timedelta(0) else ("", span)
    minutes, seconds = divmod(span.days * 86_400 + span.seconds, 60)
    fraction = f".{span.microseconds:06}".rstrip("0") if span.microseconds else ""
    return f"{sign}{minutes // 60}:{minutes % 60:02}:{seconds:02}{fraction}"


# --- the sheet's XML


def _find_facts(path: str, part: str) -> Iterator[Fact]:
    with zipfile.ZipFile(path) as book:
        # Most sheets have no such facts.
        if not _has(_TELLING, book, part):
            return
    yield from _read_xml(path, part, _SheetXml())


def _read_xml(path: str, part: str, sheet: "_SheetXml") -> Iterator[Fact]:
    with zipfile.ZipFile(path) as book, book.open(part) as content:
        while block := content.read(_BLOCK):
            yield from sheet.feed(block)
        yield from sheet.feed(b"", last=True)


def _has(pattern: "re.Pattern[bytes]", book: zipfile.ZipFile, part: str) -> bool:
    """Whether a part contains a pattern. Searching is ten times faster than parsing."""
    with book.open(part) as content:
        rest = b""
        while block := content.read(_BLOCK):
            if pattern.search(rest + block):
                return True
            rest = block[-_OVERLAP:]
    return False


class _SheetXml:
    """The parser of a sheet's XML. A cell without a reference follows the one before.

    Args:
        no_dates: find only the numbers that are not valid dates.
    """

    def __init__(self, *, no_dates: bool = False) -> None:
        self._no_dates = no_dates
        self._parser = expat.ParserCreate()
        self._parser.buffer_text = True
        self._parser.StartElementHandler, self._parser.EndElementHandler = self._start, self._end
        self._parser.StartDoctypeDeclHandler = self._refuse
        self._facts: list[Fact] = []
        self._line = self._column = 0
        self._kind = ""
        self._has_formula, self._value = False, list[str]()
        self._has_value = False

    def feed(self, block: bytes, *, last: bool = False) -> list[Fact]:
        self._parser.Parse(block, last)
        facts, self._facts = self._facts, []
        return facts

    def _refuse(self, *_: object) -> None:
        raise ValueError("a document type, whose entities could multiply")

    def _start(self, name: str, attributes: Mapping[str, str]) -> None:
        match name.rpartition(":")[2]:
            case "row":
                self._line, self._column = int(attributes.get("r", self._line + 1)), -1
                if self._line > _LAST_ROW:
                    raise ValueError(self._line)
            case "c":
                reference = _REFERENCE.fullmatch(attributes.get("r", ""))
                self._column = _count_column(reference[1]) if reference else self._column + 1
                self._kind, self._has_formula, self._has_value = attributes.get("t", "n"), False, False
                self._value.clear()
            case "is":
                self._has_value = True
            case "f":
                self._has_formula = True
            case "v":
                self._has_value = True
                self._parser.CharacterDataHandler = self._value.append

    def _end(self, name: str) -> None:
        match name.rpartition(":")[2]:
            case "v":
                self._parser.CharacterDataHandler = None
            case "c":
                value = "".join(self._value).strip()
                if self._no_dates:
                    if self._kind == "n" and (value.startswith("-") or _is_leap_day(value)):
                        self._note(value)
                elif self._kind == "e":
                    self._note(None, ERROR)
                elif self._has_formula and not value and not (self._has_value and self._kind in _TEXTS):
                    self._note(None, NO_RESULT)
                elif self._kind == "n" and _LONG.fullmatch(value):
                    self._note(value)

    def _note(self, *cell: str | None) -> None:
        self._facts.append(Fact(self._line, self._column, cell))


def _is_leap_day(value: str) -> bool:
    try:
        return 60 <= float(value) < 61
    except ValueError:
        return False


def _count_column(letters: str) -> int:
    column = 0
    for letter in letters:
        column = column * 26 + ord(letter) - 64
    return column - 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
