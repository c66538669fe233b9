"""The beginning of a dropped CSV file, and the columns it should have -> how it is written, and its header.

Delimiter and quote are those under which the header names the most known columns, not the most frequent ones. Data may be full of
commas, but a header with the expected names is not an accident. If several remain possible, the file is refused, never guessed.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from fabric_assets.config.sources.imports import NUMBERS, CsvStream, ImportColumn, ImportLimits, fold
from fabric_assets.connectors.csv.dialect import Beginning, Dialect, Reading, choose, find_beginning, find_unused, list_delimiters, read_headers
from fabric_assets.connectors.csv.foreign_formats import find_markup, is_json
from fabric_assets.connectors.csv.records import BAD_ENCODING, BAD_QUOTES, STRAY_LINE_END, UNCLOSED_QUOTE, Grammar, Record
from fabric_assets.connectors.csv_import.values import BadCell, parse_number
from fabric_assets.errors import QuarantinedFile
from fabric_assets.rows.column_names import drop_hidden

SAMPLE_ROWS = 1000
WORKBOOK = "workbook"
# Most numbers, recognised without parsing: a mark that is not followed by exactly three digits is the decimal mark.
_SURE = re.compile(r"[+-]?[0-9]{1,30}([.,])(?:[0-9]{1,2}|[0-9]{4,30})")
_NAMES = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
# Reason -> what is wrong with a record that has no cells.
FAULTS = {
    BAD_QUOTES: "text follows a closing quote",
    BAD_ENCODING: "it holds bytes that are not valid in the file's encoding",
    STRAY_LINE_END: "it holds a line end of a different kind than the rest of the file",
}


@dataclass(frozen=True)
class TextDialect:
    """How a dropped file is written.

    Args:
        text: None for a workbook.
        mark: the decimal mark; None if no number shows it.
    """

    encoding: str
    text: Dialect | None = None
    mark: str | None = None

    def describe(self) -> str:
        """Describe the dialect in words."""
        if self.text is None:
            return WORKBOOK
        mark = f", decimal {_NAMES[self.mark]}" if self.mark == "," else ""
        return f"{self.encoding}, {_NAMES.get(self.text.delimiter) or repr(self.text.delimiter)}{mark}"


def build_grammar(dialect: Dialect, limits: ImportLimits) -> Grammar:
    return Grammar(dialect.delimiter, dialect.quote, dialect.newline, field_chars=limits.field_chars, most=limits.columns)


def build_unclosed(record: Record) -> QuarantinedFile:
    """Build the refusal of a file with a quote that is never closed."""
    return QuarantinedFile(
        "unclosed_quote", f"the quote opened in line {record.opened} is not closed", remedy="close or double the quote, and drop the file again"
    )


def detect_dialect(head: str, stream: CsvStream, limits: ImportLimits, *, encoding: str, whole: bool, tabs: bool) -> tuple[TextDialect, list[str]]:
    """Find how a file is written, and the cells of its header; of its first row if it has no header.

    Args:
        head: the first block of its text.
        whole: whether the head is the whole text.
        tabs: whether the file's name says that tabs delimit.

    Raises:
        QuarantinedFile: it is empty, is not CSV, or may be written in several ways.
    """
    if foreign := find_markup(head):
        raise QuarantinedFile("not_text", f"it is {foreign.what}, not CSV", remedy=foreign.remedy)
    if is_json(head):
        raise QuarantinedFile("not_text", "it is JSON, not CSV", remedy="save it as CSV")
    beginning = find_beginning(head, stream.lines_before_header)
    if not beginning.text.strip(" \t\r\n"):
        raise QuarantinedFile("empty_file", "it is empty")
    delimiters = ("\t",) if tabs and not (stream.delimiter or beginning.hint) else list_delimiters(stream.delimiter, beginning.hint)
    quotes = (stream.quote,) if stream.quote else _find_quotes(beginning)
    readings = read_headers(beginning, delimiters, quotes, final=whole, field_chars=limits.field_chars, most=limits.columns)
    best, is_known = _choose(readings, stream) if readings else ([], False)
    if not is_known and len(readings) < len(delimiters) * len(quotes):
        # Under some delimiter all records are blank.
        if whole:
            raise QuarantinedFile("empty_file", "it is empty")
        raise QuarantinedFile("line_too_long", f"its first line has more than {len(beginning.text):,} characters")
    chosen = best[0] if len(best) == 1 or not is_known else find_unused(best, beginning.text)
    if chosen is None:
        found = " or ".join(_NAMES[each.dialect.delimiter] for each in best)
        raise QuarantinedFile("unknown_delimiter", f"its delimiter may be {found}", remedy="declare the stream's delimiter")
    if "\0" in chosen.header.text and not stream.get_declared_header():
        raise QuarantinedFile("bad_header", "its header holds a NUL byte", remedy="correct its header")
    mark = stream.decimal or _find_mark(chosen, beginning.text, stream, limits, whole=whole)
    return TextDialect(encoding, chosen.dialect, mark), list(chosen.cells)


def _find_quotes(beginning: Beginning) -> tuple[str, ...]:
    first_line = beginning.text.lstrip("\r\n ").partition(beginning.newline)[0]
    return ('"', "'") if "'" in first_line and '"' not in first_line else ('"',)


def _choose(readings: Sequence[Reading], stream: CsvStream) -> tuple[list[Reading], bool]:
    """The best readings, one for each delimiter, and whether they name a known column."""
    declared = stream.get_declared_header()
    known = {drop_hidden(name): target for name, target in stream.get_names().items()}

    def count_known(reading: Reading) -> int:
        """Count the known columns that a header names. Without a header: 1 if the first row has as many cells as there are columns."""
        if declared:
            return int(len(reading.cells) == len(declared))
        return len({known[name] for cell in reading.cells if (name := fold(drop_hidden(cell))) in known})

    best = choose(readings, count_known)
    if count_known(best[0]):
        return best, True
    if bad := next((each.header for each in readings if each.header.cells is None), None):
        raise _build_header_error(bad)
    # With the most cells, so that a message lists the names separately.
    return choose(readings, lambda reading: len(reading.cells)), False


def _build_header_error(header: Record) -> QuarantinedFile:
    if header.reason == UNCLOSED_QUOTE:
        return build_unclosed(header)
    return QuarantinedFile("bad_header", f"its header cannot be read ({header.where}): {FAULTS[header.reason]}", remedy="correct its header")


def _find_mark(chosen: Reading, text: str, stream: CsvStream, limits: ImportLimits, *, whole: bool) -> str | None:
    """The decimal mark that some numbers of the first rows require; None if no number requires one, or if they require two different ones."""
    names, columns, declared = stream.get_names(), stream.get_columns(), stream.get_declared_header()
    numbers = [index for index, cell in enumerate(declared or chosen.cells) if _is_number(names, columns, cell)]
    if not numbers:
        return None
    found = set()
    end = 0 if declared else chosen.header.end
    for record in islice(build_grammar(chosen.dialect, limits).scan(text[end:], 1, final=whole), SAMPLE_ROWS):
        for index in numbers:
            if record.cells and index < len(record.cells) and ("," in record.cells[index] or "." in record.cells[index]):
                found |= _find_marks(record.cells[index])
    return found.pop() if len(found) == 1 else None


def _is_number(names: Mapping[str, str], columns: Mapping[str, ImportColumn], cell: str) -> bool:
    column = columns.get(names.get(fold(cell), ""))
    return column is not None and column.type in NUMBERS


def _find_marks(text: str) -> set[str]:
    """The only mark with which the text is a number; empty if both marks fit, or neither."""
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
