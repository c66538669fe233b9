"""A CSV file -> typed columns: comma, semicolon, tab or bar, whichever the header has most; quotes and doubled quotes as in RFC 4180."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fabric_assets.connectors.files import csv_header
from fabric_assets.connectors.files.csv_header import Header
from fabric_assets.connectors.files.salvage import Fragment, split_csv
from fabric_assets.connectors.files.text_reader import TextReader
from fabric_assets.connectors.files.types import TextColumn
from fabric_assets.errors import DataError
from fabric_assets.quoting import quote, quote_text

_KEEPS_SPELLING = _CLEANS_NAMES = 2


class CsvReader(TextReader):
    _delimiter: str = ""
    _header: Header | None = None

    def _find_columns(self, connection: Any) -> list[TextColumn]:
        if self._header is None:
            self._header = self._read_header()
        keys, has_numbers = self.reading.stream.primary_key or (), self.reading.value_forms < _KEEPS_SPELLING
        return [TextColumn(name, quote(name), keeps_spelling=name in keys, has_number=name in keys and has_numbers) for name in self._header.columns]

    def _relate(self, path: Path, columns: Sequence[TextColumn]) -> str:
        named = ", ".join(f"{quote_text(column.name)}: 'VARCHAR'" for column in self._columns)
        return (
            f"read_csv({quote_text(str(path))}, auto_detect=false, columns={{{named}}}, delim={quote_text(self._delimiter)}, quote='\"', escape='\"',"
            f" header={'true' if self._has_line else 'false'}, comment='', nullstr='', allow_quoted_nulls=false, null_padding=false, ignore_errors=false,"
            f" strict_mode=true, max_line_size={self._longest_line}, buffer_size={self._longest_line})"
        )

    def _split(self, path: Path, columns: int | None = -1, *, has_header: bool | None = None) -> Iterator[Fragment]:
        return split_csv(
            path,
            columns=len(self._columns) if columns == -1 else columns,
            delimiter=self._delimiter,
            name=self.name,
            has_header=self._has_line if has_header is None else has_header,
            encoding=self._content.encoding,
            skipped=self._content.skipped,
        )

    @property
    def _has_line(self) -> bool:
        return self._header is None or self._header.has_line

    def _read_header(self) -> Header:
        declared, content = self.reading.stream.header, self._content
        with content.path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as lines:
            first = lines.readline(1_000_000)
        self._delimiter = self.reading.stream.delimiter or content.delimiter or csv_header.find_delimiter(first)
        # DuckDB takes a header with a stray quote for the whole file, without a word.
        header = csv_header.read_header(
            self._split(content.path, None, has_header=declared in (None, True)),
            self._delimiter,
            declared,
            name=self.name,
            encoding=content.encoding,
            is_known=self.reading.is_known,
            cleans=self.reading.value_forms >= _CLEANS_NAMES,
            skips=bool(content.skipped),
        )
        if not header.columns and first:
            raise DataError(f"{self.name} begins with an empty line", remedy="name the columns in the first line, or declare skip_rows")
        for note in header.notes[:20]:
            self.reading.report(f"{self.name}: {note}")
        return header
