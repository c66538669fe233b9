"""A CSV file -> typed columns. DuckDB reads the file if it reads it as connectors/csv does, else a copy without bad lines."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fabric_assets.connectors.csv.dialect import Beginning, Dialect, Reading, choose, find_newline, find_unused, list_delimiters, list_good, read_headers
from fabric_assets.connectors.files import csv_header
from fabric_assets.connectors.files.csv_header import Header
from fabric_assets.connectors.files.csv_lines import HEAD, MOST_FIELDS, build_grammar, is_misread, read_head, split_csv
from fabric_assets.connectors.files.salvage import MAX_LINE, Fragment, salvage
from fabric_assets.connectors.files.text_reader import TextReader
from fabric_assets.connectors.files.types import TextColumn
from fabric_assets.errors import DataError
from fabric_assets.quoting import quote, quote_text

_KEEPS_SPELLING = _CLEANS_NAMES = 2
_QUOTED = re.compile(r'"[^"]*"')


class CsvReader(TextReader):
    _dialect = Dialect(",")
    _header: Header | None = None
    # Lines of the original file.
    _header_line, _blank_lines, _is_odd = 0, 0, False

    def _look(self) -> None:
        if self._header is None:
            self._header = self._read_header()
            # DuckDB detects line ends by itself, and may find other lines.
            if self._is_odd or is_misread(self._content.path, self._dialect):
                self._salvage = salvage(self._split(self._content.path), self.file)
        super()._look()

    def _find_columns(self, connection: Any) -> list[TextColumn]:
        assert self._header
        keys, has_numbers = self.reading.stream.primary_key or (), self.reading.value_forms < _KEEPS_SPELLING
        return [TextColumn(name, quote(name), keeps_spelling=name in keys, has_number=name in keys and has_numbers) for name in self._header.columns]

    def _relate(self, path: Path, columns: Sequence[TextColumn]) -> str:
        assert self._header
        named = ", ".join(f"{quote_text(column.name)}: 'VARCHAR'" for column in self._columns)
        lines = f"skip={self._blank_lines}" if path == self._content.path else "new_line='\\n'"
        return (
            f"read_csv({quote_text(str(path))}, auto_detect=false, columns={{{named}}}, delim={quote_text(self._dialect.delimiter)}, quote='\"', escape='\"',"
            f" header={'true' if self._header.has_line else 'false'}, comment='', nullstr='', allow_quoted_nulls=false, null_padding=false,"
            f" ignore_errors=false, strict_mode=true, max_line_size={self._longest_line}, buffer_size={self._longest_line}, {lines})"
        )

    def _split(self, path: Path) -> Iterator[Fragment]:
        assert self._header
        is_original = path == self._content.path
        dialect = self._dialect if is_original else Dialect(self._dialect.delimiter)
        header_line = self._header_line if is_original else int(self._header.has_line)
        return split_csv(path, dialect, columns=len(self._header.columns), header_line=header_line, name=self.name, encoding=self._content.encoding)

    def _read_header(self) -> Header:
        declared, content = self.reading.stream.header, self._content
        text, is_whole = read_head(content.path)
        beginning = Beginning(text, find_newline(text), content.delimiter, content.skipped)
        delimiters = list_delimiters(self.reading.stream.delimiter, content.delimiter)
        readings = read_headers(beginning, delimiters, ('"',), final=is_whole, field_chars=MAX_LINE, most=MOST_FIELDS)
        chosen = _choose(readings, text, len(declared) if isinstance(declared, tuple) else 0) if readings else None
        if chosen is None and not is_whole:
            raise DataError(f"{self.name} has no line that ends within its first {HEAD // 1024**2} MB, or only empty ones", remedy="correct the file")
        self._dialect = chosen.dialect if chosen else Dialect(delimiters[0], newline=beginning.newline, first_line=content.skipped + 1)
        first = chosen.header if chosen else None
        records = build_grammar(self._dialect).scan(text[first.end if first else 0 :], 1, final=is_whole)
        header = csv_header.read_header(
            first,
            [record.cells or [] for record in list_good((record for record in records if record.text), csv_header.SAMPLE)],
            declared,
            delimiter=self._dialect.delimiter,
            name=self.name,
            encoding=content.encoding,
            is_known=self.reading.is_known,
            cleans=self.reading.value_forms >= _CLEANS_NAMES,
            skips=bool(self.reading.stream.skip_rows),
        )
        if not header.columns and text:
            raise DataError(f"{self.name} has nothing but empty lines", remedy="name the columns in its first line, or remove the file")
        if first:
            before = text[: first.end - len(first.text)] if header.has_line else ""
            self._header_line = first.line if header.has_line else 0
            self._blank_lines = first.line - self._dialect.first_line if header.has_line else 0
            self._is_odd = "\r" in first.text or "\n" in first.text or '"' in before
        for note in header.notes[:20]:
            self.reading.report(f"{self.name}: {note}")
        return header


def _choose(readings: Sequence[Reading], text: str, declared: int) -> Reading:
    """The reading whose header has as many cells as names are declared, else the most cells."""

    def count_cells(reading: Reading) -> int:
        # An unreadable header is reported as such, not read as a single column under another delimiter.
        count = len(reading.cells) or _QUOTED.sub("", reading.header.text).count(reading.dialect.delimiter) + 1
        return count + (MOST_FIELDS if declared and len(reading.cells) == declared else 0)

    best = choose(readings, count_cells)
    return best[0] if len(best) == 1 else find_unused(best, text) or best[0]
