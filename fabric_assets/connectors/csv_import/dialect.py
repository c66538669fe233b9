"""The beginning of a CSV file, and the columns it should have -> how it is written.

Delimiter and quote are those under which the header names the most columns that are known, not those that look frequent: data may
be full of commas, a header that reads as expected is no accident. What stays undecided is refused, never guessed.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from fabric_assets.config.sources.imports import DELIMITERS, NUMBERS, CsvStream, ImportColumn, ImportLimits, fold
from fabric_assets.connectors.csv_import.records import Grammar, Record
from fabric_assets.connectors.csv_import.values import BadCell, parse_number
from fabric_assets.errors import QuarantinedFile

SAMPLE_ROWS = 1000
WORKBOOK = "workbook"
# Most numbers, without reading them: what stands before anything but three digits stands before a fraction.
_SURE = re.compile(r"[+-]?[0-9]{1,30}([.,])(?:[0-9]{1,2}|[0-9]{4,30})")
_NAMES = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}


@dataclass(frozen=True)
class Dialect:
    """Args:
    newline: "\\n" (also after "\\r"), or "\\r".
    mark: what stands before a fraction; None where no number says.
    first_line: of the header, or without one of the first row; 2 after a line `sep=;`.
    """

    encoding: str
    delimiter: str = ","
    quote: str = '"'
    newline: str = "\n"
    mark: str | None = None
    first_line: int = 1

    def describe(self) -> str:
        if self.encoding == WORKBOOK:
            return WORKBOOK
        mark = f", decimal {_NAMES[self.mark]}" if self.mark == "," else ""
        return f"{self.encoding}, {_NAMES[self.delimiter]}{mark}"

    def build_grammar(self, limits: ImportLimits) -> Grammar:
        return Grammar(self.delimiter, self.quote, self.newline, field_chars=limits.field_chars, most=limits.columns)


def detect_dialect(head: str, stream: CsvStream, limits: ImportLimits, *, encoding: str, whole: bool, tabs: bool) -> tuple[Dialect, str]:
    """Find how a file is written, and the text that begins with its header.

    Args:
        head: its first characters, as many as one block.
        whole: whether they are all.
        tabs: whether the file's name says that tabs delimit.

    Raises:
        QuarantinedFile: it is empty, has too many columns, or may be written in several ways.
    """
    newline, skipped = _find_newline(head), stream.lines_before_header
    for _ in range(skipped):
        head = head.partition(newline)[2]
    hint, head, first_line = _cut_hint(head, newline)
    first_line += skipped
    if not head.strip(" \t\r\n"):
        raise QuarantinedFile("empty_file", "it is empty")
    delimiters = (stream.delimiter or hint,) if stream.delimiter or hint else ("\t",) if tabs else DELIMITERS
    quotes = (stream.quote,) if stream.quote else _find_quotes(head, newline)
    candidates = [Dialect(encoding, each, quote, newline, first_line=first_line) for each in delimiters if each for quote in quotes]
    dialect = _choose(candidates, head, stream, limits, whole=whole)
    return Dialect(
        encoding, dialect.delimiter, dialect.quote, newline, stream.decimal or _find_mark(dialect, head, stream, limits, whole=whole), first_line
    ), head


def _find_newline(head: str) -> str:
    at = min((found for found in (head.find("\n"), head.find("\r")) if found >= 0), default=0)
    return "\r" if head[at : at + 1] == "\r" and head[at + 1 : at + 2] != "\n" else "\n"


def _cut_hint(head: str, newline: str) -> tuple[str, str, int]:
    """Take off the line `sep=;` that spreadsheets write and understand."""
    line, _, rest = head.partition(newline)
    word, _, mark = line.strip('\r"').partition("=")
    return (mark, rest, 2) if word.lower() == "sep" and mark in DELIMITERS else ("", head, 1)


def _find_quotes(head: str, newline: str) -> tuple[str, ...]:
    first_line = head.lstrip("\r\n ").partition(newline)[0]
    return ('"', "'") if "'" in first_line and '"' not in first_line else ('"',)


def _choose(candidates: Sequence[Dialect], head: str, stream: CsvStream, limits: ImportLimits, *, whole: bool) -> Dialect:
    names, declared = stream.get_names(), stream.get_declared_header()
    scores: dict[Dialect, int] = {}
    fault: QuarantinedFile | None = None
    for dialect in candidates:
        try:
            header = read_header(dialect, head, limits, whole=whole)
        except QuarantinedFile as error:
            fault = fault or error
            continue
        cells = header.cells or []
        # Without a header the one that gives the first row as many cells as there are columns.
        scores[dialect] = int(len(cells) == len(declared)) if declared else len({names[fold(cell)] for cell in cells if fold(cell) in names})
    if fault is not None and not any(scores.values()):
        raise fault
    best = [dialect for dialect in scores if scores[dialect] == max(scores.values())]
    marks: dict[str, Dialect] = {}
    for dialect in best:
        marks.setdefault(dialect.delimiter, dialect)
    if len(marks) == 1 or max(scores.values()) == 0:
        return best[0]
    # Where the header is one column under all of them, a mark that the file does not hold leaves its rows whole.
    first_line = head[: read_header(best[0], head, limits, whole=whole).end]
    unused = [] if any(mark in first_line for mark in marks) else [mark for mark in marks if mark not in head]
    if not unused:
        found = " or ".join(_NAMES[mark] for mark in marks)
        raise QuarantinedFile("unknown_delimiter", f"its delimiter may be {found}", remedy="declare the stream's delimiter")
    return marks[unused[0]]


def read_header(dialect: Dialect, head: str, limits: ImportLimits, *, whole: bool) -> Record:
    """The first record that is not blank.

    Raises:
        QuarantinedFile: there is none, or it is bad.
    """
    for record in dialect.build_grammar(limits).scan(head, dialect.first_line, final=whole):
        if record.cells is None:
            raise QuarantinedFile("bad_header", f"its header is none: {record.message}")
        if any(cell.strip() for cell in record.cells):
            return record
    if whole:
        raise QuarantinedFile("empty_file", "it is empty")
    raise QuarantinedFile("line_too_long", f"its first line has more than {len(head):,} characters")


def _find_mark(dialect: Dialect, head: str, stream: CsvStream, limits: ImportLimits, *, whole: bool) -> str | None:
    """The mark that some of the first rows' numbers cannot do without; None if there is none, or if there are two."""
    names, columns = stream.get_names(), stream.get_columns()
    header, declared = read_header(dialect, head, limits, whole=whole), stream.get_declared_header()
    numbers = [index for index, cell in enumerate(declared or header.cells or ()) if _is_number(names, columns, cell)]
    if not numbers:
        return None
    found = set()
    end = 0 if declared else header.end
    records = dialect.build_grammar(limits).scan(head[end:], dialect.first_line + head.count(dialect.newline, 0, end), final=whole)
    for record in islice(records, SAMPLE_ROWS):
        for index in numbers:
            if record.cells and index < len(record.cells) and ("," in record.cells[index] or "." in record.cells[index]):
                found |= _find_marks(record.cells[index])
    return found.pop() if len(found) == 1 else None


def _is_number(names: Mapping[str, str], columns: Mapping[str, ImportColumn], cell: str) -> bool:
    column = columns.get(names.get(fold(cell), ""))
    return column is not None and column.type in NUMBERS


def _find_marks(text: str) -> set[str]:
    """The one mark with which the text is a number; empty if both or none will do."""
    if match := _SURE.fullmatch(text):
        return {match[1]}
    fit = set()
    for mark in (".", ","):
        try:
            parse_number(text, mark)
            fit.add(mark)
        except BadCell:
            continue
    return fit if len(fit) == 1 else set()
