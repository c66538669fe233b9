"""A CSV file of UTF-8 text -> its records. If DuckDB refuses or would misread the file, its good and bad fragments."""

import re
from collections.abc import Iterator
from pathlib import Path

from fabric_assets.connectors.csv.dialect import Dialect
from fabric_assets.connectors.csv.records import BAD_ENCODING, Grammar, Record
from fabric_assets.connectors.files.salvage import BAD_BYTES, MAX_LINE, Fragment, build_length_error

_BLOCK, HEAD = 1024 * 1024, 4 * 1024 * 1024
# This much stays in the processor's cache.
_LOOK_BYTES = 256 * 1024
# Beyond any file's limit of columns; a row with more fields is an error.
MOST_FIELDS = 20_000
# Several times as fast as a search for each of the two texts.
_SUSPECT = re.compile(rb'" [ "]')
_JOINED = re.compile(rb'([^"]?)("+) +"', re.DOTALL)


def build_grammar(dialect: Dialect) -> Grammar:
    return Grammar(dialect.delimiter, dialect.quote, dialect.newline, field_chars=MAX_LINE, most=MOST_FIELDS)


def read_head(path: Path) -> tuple[str, bool]:
    """Read the beginning of a file; return it, and whether it is the whole file."""
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as opened:
        return opened.read(HEAD), not opened.read(1)


def read_records(path: Path, dialect: Dialect, name: str) -> Iterator[Record]:
    """Read a file record by record.

    Args:
        dialect: its `first_line` is the number of the file's first line.

    Raises:
        DataError: a line is longer than MAX_LINE.
    """
    grammar, line, rest = build_grammar(dialect), dialect.first_line, ""
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as opened:
        block = opened.read(_BLOCK)
        while block or rest:
            following = opened.read(_BLOCK) if block else ""
            text, end = rest + block, 0
            for record in grammar.scan(text, line, final=not following):
                end = record.end
                if len(record.text) > MAX_LINE and record.cells is not None:
                    raise build_length_error(name)
                yield record
            line += text.count(dialect.newline, 0, end)
            rest, block = text[end:], following
            if len(rest) > MAX_LINE and rest.find(dialect.newline) < 0:
                raise build_length_error(name)


def split_csv(path: Path, dialect: Dialect, *, columns: int, header_line: int, name: str, encoding: str) -> Iterator[Fragment]:
    """Split a file into fragments, its header first.

    Args:
        header_line: line of the header; 0 without one.
        name: of the file, for errors.
        encoding: of the original, for messages.

    Raises:
        DataError: a line is longer than MAX_LINE.
    """
    grammar = build_grammar(dialect)
    for record in read_records(path, dialect, name):
        if record.line < header_line:
            continue
        if record.line == header_line or (not record.text and record.cells is not None and columns != 1):
            yield Fragment(record.text + "\n", is_row=False)
        elif record.reason == BAD_ENCODING:
            yield Fragment(record.text, "bad_encoding", f"line {record.line} {BAD_BYTES.format(encoding.upper())}")
        elif record.cells is None:
            message = f"{record.where}: a quote that is not closed, or text right after one, or a line end of another kind"
            yield Fragment(record.text, "bad_csv", message)
        elif grammar.fit(record, columns, columns) is None:
            yield Fragment(record.text, "ragged_row", f"line {record.line}: {columns} fields expected, {len(record.cells)} found")
        else:
            yield Fragment(record.text + "\n")


def is_misread(path: Path, dialect: Dialect) -> bool:
    """Whether DuckDB may silently misread a file.

    It joins two quoted texts with spaces between them, and may ignore a line end of a different kind than the rest of the file.
    """
    if dialect.newline == "\r":
        return True  # Too rare for a closer check.
    delimiter = dialect.delimiter.encode()
    with path.open("rb") as file:
        while lines := file.read(_LOOK_BYTES) + file.readline():
            if b"\r" in lines and lines.count(b"\r") != lines.count(b"\r\n"):
                return True
            if b'" ' in lines and _SUSPECT.search(lines) and any(_may_close(found, delimiter) for found in _JOINED.finditer(lines)):
                return True
    return False


def _may_close(found: re.Match[bytes], delimiter: bytes) -> bool:
    """Whether a quote may close a field: it is not just an opening quote, and not a doubled one within a field."""
    before, quotes = found[1] or b"\n", len(found[2])
    is_first = before in (b"\n", b"\r", b" ", delimiter)
    return quotes != 1 if is_first else quotes % 2 == 1
