"""Text of a CSV file -> its records, each with its line as an editor counts it, and the lines that are not records.

The grammar is RFC 4180 and what programs write beyond it: one space before a quoted field, spaces after it, and quotes within
unquoted fields. If text follows a closing quote, every line of the record is bad. So no line inside a quoted field is
read as a row. No pattern backtracks into what it has matched, so time is linear in the text. The patterns use atomic groups, because
Python before 3.11.5 handles possessively repeated groups wrongly (gh-106052).
"""

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace

BAD_QUOTES, UNCLOSED_QUOTE, BAD_ENCODING, STRAY_LINE_END = "bad_quotes", "unclosed_quote", "bad_encoding", "stray_line_end"


@dataclass(frozen=True, slots=True)
class Record:
    """One record, or one bad line.

    Args:
        line: its first one, from 1.
        end: the position in the text after it.
        cells: None for a bad line.
        span: the first and the last line of the record that a bad line belongs to.
        opened: the line of the quote that is not closed, where that is the reason.
    """

    line: int
    end: int
    text: str
    cells: list[str] | None
    reason: str = ""
    span: tuple[int, int] = (0, 0)
    opened: int = 0

    @property
    def is_blank(self) -> bool:
        """Whether all of its cells are empty or blank."""
        return self.cells is not None and not any(cell and not cell.isspace() for cell in self.cells)

    @property
    def where(self) -> str:
        """The record's lines, for messages."""
        first, last = self.span if self.span[0] else (self.line, self.line)
        return f"line {first}" if first == last else f"lines {first} to {last}"


class Grammar:
    """The grammar of a file's records.

    Args:
        newline: what ends a line: "\\n" (after "\\r" or not), or "\\r".
        field_chars: the longest quoted field that may span lines.
        most: the largest number of cells in a record; a longer record gets one more cell, which holds the rest.
    """

    def __init__(self, delimiter: str, quote: str = '"', newline: str = "\n", *, field_chars: int = sys.maxsize, most: int = sys.maxsize) -> None:
        mark, end = re.escape(delimiter), newline
        body = f"{quote}(?>(?:[^{quote}]++|{quote}{quote})*)"
        field = f"(?: ?{body}{quote} *+|(?! ?{quote})[^{mark}{end}]*+)"
        tail = r"(?=\r*(?:\n|\Z))" if newline == "\n" else r"(?=\r|\Z)"
        self._row = re.compile(rf"{field}(?>(?:{mark}{field})*){tail}")
        self._open = re.compile(rf"(?>(?:{field}{mark})*) ?({body})\Z")
        self._closed = re.compile(rf"(?>(?:{field}{mark})*) ?({body}{quote})")
        self._field = re.compile(rf"({field})({mark}|\r*\Z)")
        self._delimiter, self._quote, self._newline = delimiter, quote, newline
        self._stray = "\r" if newline == "\n" else "\n"
        self._field_chars, self._most = field_chars, most

    def scan(self, text: str, line: int, *, final: bool) -> Iterator[Record]:
        """Split a text into records. Unless the text is final, a record that may continue after its end is left out."""
        position, size = 0, len(text)
        while position < size:
            end = text.find(self._newline, position)
            if end < 0:
                if not final and text.find(self._quote, position) < 0:
                    return
                end = size
            raw = text[position:end]
            if self._quote not in raw:
                yield self._build(raw, line, min(end + 1, size))
                position, line = end + 1, line + 1
                continue
            match = self._row.match(text, position)
            if match is None:
                bad, reason, opened = self._find_bad_end(text, position, final=final)
                if bad is None:
                    return
                yield from self._build_bad(text[position:bad], line, min(bad + 1, size), reason, line + text.count(self._newline, position, opened))
                line, position = line + text.count(self._newline, position, bad) + 1, bad + 1
                continue
            end = match.end()
            after = text.find(self._newline, end)
            if after < 0 and not final:
                return
            position = after + 1 if after >= 0 else size
            raw = match[0]
            yield from self._build_quoted(raw, line, position)
            line += raw.count(self._newline) + 1

    def fit(self, record: Record, least: int, width: int) -> list[str | None] | None:
        """Fit a record's cells to the header's columns, with None for each missing cell; None if the record's length does not fit.

        Empty fields after the last column are ignored. Cells of unnamed columns at the end may be missing.

        Args:
            least: columns up to the last one with a name.
            width: all columns.
        """
        cells = record.cells
        assert cells is not None
        beyond = len(cells) - width
        if beyond > 0:
            return list(cells[:width]) if record.text.endswith(self._delimiter * beyond) and not any(cells[width:]) else None
        return None if len(cells) < least else [*cells, *[None] * -beyond]

    def _find_bad_end(self, text: str, position: int, *, final: bool) -> tuple[int | None, str, int]:
        """The end of a bad line, the reason, and the position of its opening quote. None for the end if the text ends within quotes."""
        opened = self._open.match(text, position)
        found = opened or self._closed.match(text, position)
        assert found is not None
        reason = UNCLOSED_QUOTE if (opened and final) or self._is_runaway(found[1]) else BAD_QUOTES
        if opened and final:
            end = len(text.removesuffix(self._newline))
        elif opened:
            end = text.rfind(self._newline) if reason == UNCLOSED_QUOTE else -1
        else:
            end = text.find(self._newline, found.end())
            end = len(text) if end < 0 and final else end
        return (None if end < 0 else end), reason, found.start(1)

    def _is_runaway(self, field: str) -> bool:
        """Whether a quoted field spans so much text that its quote was probably never closed, so that it contains rows."""
        return len(field) > self._field_chars and self._newline in field

    def _build(self, raw: str, line: int, end: int) -> Record:
        text = raw.rstrip("\r") if self._newline == "\n" else raw
        count = text.count(self._delimiter) + 1
        cells = text.split(self._delimiter) if count <= self._most else text.split(self._delimiter, self._most)
        return self._check(Record(line, end, text, cells), stray=self._stray in text)

    def _build_quoted(self, raw: str, line: int, end: int) -> Iterator[Record]:
        cells: list[str] = []
        at, stray, double = 0, False, self._quote * 2
        while True:
            if len(cells) == self._most:
                cells.append(raw[at:])
                break
            match = self._field.match(raw, at)
            assert match is not None
            cell = match[1]
            if cell.startswith((self._quote, f" {self._quote}")):
                if self._is_runaway(cell):
                    yield from self._build_bad(raw, line, end, UNCLOSED_QUOTE, line + raw.count(self._newline, 0, match.start()))
                    return
                cell = cell.strip(" ")[1:-1].replace(double, self._quote)
            else:
                if not match[2].startswith(self._delimiter) and self._newline == "\n":
                    cell = cell.rstrip("\r")
                stray = stray or self._stray in cell
            cells.append(cell)
            at = match.end()
            if not match[2].startswith(self._delimiter):
                break
        yield self._check(Record(line, end, raw.rstrip("\r") if self._newline == "\n" else raw, cells), stray=stray)

    def _check(self, record: Record, *, stray: bool) -> Record:
        if not _is_unicode(record.text):
            return replace(record, cells=None, reason=BAD_ENCODING)
        return replace(record, cells=None, reason=STRAY_LINE_END) if stray else record

    def _build_bad(self, text: str, line: int, end: int, reason: str, opened: int) -> Iterator[Record]:
        lines = text.split(self._newline)
        span = (line, line + len(lines) - 1)
        for number, part in enumerate(lines, start=line):
            yield Record(number, end, part.rstrip("\r"), None, reason, span, opened)


def _is_unicode(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
