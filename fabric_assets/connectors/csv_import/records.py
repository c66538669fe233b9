"""Text of a CSV file -> its records, each with its line as an editor counts it, and the lines that are none.

The grammar is RFC 4180, and quotes within unquoted fields are themselves. Text after a closing quote makes all lines that its
record spans bad, one by one: nothing inside is taken for a row. No pattern goes back into what it has matched, so time is linear in
the text: by atomic groups, since Python before 3.11.5 gets a group that is repeated possessively wrong (gh-106052).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from fabric_assets.errors import QuarantinedFile


@dataclass(frozen=True, slots=True)
class Record:
    """Args:
    line: its first one, from 1.
    end: where the text goes on after it.
    cells: None for a bad line.
    """

    line: int
    end: int
    text: str
    cells: list[str] | None
    reason: str = ""
    message: str = ""


class Grammar:
    """Args:
    newline: what ends a line: "\\n" (after "\\r" or not), or "\\r".
    field_chars: the longest quoted field that may span lines.
    most: cells of a record; of a longer one only one more is given.
    """

    def __init__(self, delimiter: str, quote: str, newline: str, *, field_chars: int, most: int) -> None:
        mark, end = re.escape(delimiter), newline
        body = f"{quote}(?>(?:[^{quote}]++|{quote}{quote})*)"
        field = f"(?:{body}{quote}|(?!{quote})[^{mark}{end}]*+)"
        tail = r"(?=\r?(?:\n|\Z))" if newline == "\n" else r"(?=\r|\Z)"
        self._row = re.compile(rf"{field}(?>(?:{mark}{field})*){tail}")
        self._open = re.compile(rf"(?>(?:{field}{mark})*)({body})\Z")
        self._closed = re.compile(rf"(?>(?:{field}{mark})*)({body}{quote})")
        self._field = re.compile(rf"({field})({mark}|\r?\Z)")
        self._delimiter, self._quote, self._newline = delimiter, quote, newline
        self._stray = "\r" if newline == "\n" else "\n"
        self._field_chars, self._most = field_chars, most

    def scan(self, text: str, line: int, *, final: bool) -> Iterator[Record]:
        """Split a text into records; what may go on beyond its end is left out unless it is the final one.

        Raises:
            QuarantinedFile: a quote is never closed.
        """
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
                bad = self._find_bad_end(text, position, line, final=final)
                if bad is None:
                    return
                yield from self._build_bad(text[position:bad], line, min(bad + 1, size))
                line, position = line + text.count(self._newline, position, bad) + 1, bad + 1
                continue
            end = match.end()
            after = text.find(self._newline, end)
            if after < 0 and not final:
                return
            position = after + 1 if after >= 0 else size
            raw = match[0]
            yield self._build_quoted(raw, line, position)
            line += raw.count(self._newline) + 1

    def _find_bad_end(self, text: str, position: int, line: int, *, final: bool) -> int | None:
        """Where the line ends that has text after a closing quote; None if the text ends within quotes."""
        opened = self._open.match(text, position)
        found = opened or self._closed.match(text, position)
        assert found is not None
        if (opened and final) or self._is_runaway(found[1]):
            raise _build_unclosed(line + text.count(self._newline, position, found.start(1)))
        if opened:
            return None
        end = text.find(self._newline, found.end())
        return (end if end >= 0 else len(text)) if end >= 0 or final else None

    def _is_runaway(self, field: str) -> bool:
        """Whether a quoted field spans lines for so long that its quote was likely never closed, and rows are inside."""
        return len(field) > self._field_chars and self._newline in field

    def _build(self, raw: str, line: int, end: int) -> Record:
        text = raw.removesuffix("\r") if self._newline == "\n" else raw
        count = text.count(self._delimiter) + 1
        cells = text.split(self._delimiter) if count <= self._most else text.split(self._delimiter, self._most)
        return self._check(Record(line, end, text, cells), stray=self._stray in text)

    def _build_quoted(self, raw: str, line: int, end: int) -> Record:
        cells: list[str] = []
        at, stray, double = 0, False, self._quote * 2
        while len(cells) <= self._most:
            match = self._field.match(raw, at)
            assert match is not None
            cell = match[1]
            if cell.startswith(self._quote):
                if self._is_runaway(cell):
                    raise _build_unclosed(line + raw.count(self._newline, 0, match.start()))
                cell = cell[1:-1].replace(double, self._quote)
            else:
                if not match[2].startswith(self._delimiter) and self._newline == "\n":
                    cell = cell.removesuffix("\r")
                stray = stray or self._stray in cell
            cells.append(cell)
            at = match.end()
            if not match[2].startswith(self._delimiter):
                break
        return self._check(Record(line, end, raw, cells), stray=stray)

    def _check(self, record: Record, *, stray: bool) -> Record:
        if "\0" in record.text:
            return Record(record.line, record.end, record.text, None, "nul_byte", f"line {record.line} holds a NUL byte")
        if not _is_unicode(record.text):
            return Record(record.line, record.end, record.text, None, "bad_encoding", f"line {record.line} holds bytes that the file's encoding lacks")
        if stray:
            return Record(record.line, record.end, record.text, None, "stray_line_end", f"line {record.line} holds a line end of another kind than the file's")
        return record

    def _build_bad(self, text: str, line: int, end: int) -> Iterator[Record]:
        lines = text.split(self._newline)
        at = f"line {line}" if len(lines) == 1 else f"lines {line} to {line + len(lines) - 1}"
        for number, part in enumerate(lines, start=line):
            yield Record(number, end, part.removesuffix("\r"), None, "bad_quotes", f"{at}: text follows a closing quote")


def _build_unclosed(line: int) -> QuarantinedFile:
    return QuarantinedFile("unclosed_quote", f"the quote opened in line {line} is not closed", remedy="close or double the quote, and drop the file again")


def _is_unicode(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
