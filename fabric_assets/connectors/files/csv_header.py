"""The first records of a CSV file -> its columns' names; a first line that is not a header is refused.

Without this check a file without a header would lose its first row, and each day's file would add new columns. A first line is not a header if it has a
number, a date, a time, or a text that occurs again in its column.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from fabric_assets.config.sources.imports import DELIMITERS
from fabric_assets.connectors.csv.records import BAD_ENCODING, STRAY_LINE_END, Record
from fabric_assets.errors import DataError
from fabric_assets.rows.column_names import drop_hidden
from fabric_assets.suggestions import LONGEST_NAME

SAMPLE = 20
_DECLARE = "declare header: false, or the columns' names as header: [...]; or header: true where this line does name the columns"
_TRUTH = "truth value"
_KINDS = {
    "number": re.compile(r"[-+(]?\s?[$€£¥]?\s?\d[\d.,'\u00a0\u202f ]*([eE][-+]?\d+)?\s?[%€$]?\)?"),
    "date or time": re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}([ T]\d{1,2}:\d{2}.*)?|\d{1,2}:\d{2}(:\d{2}.*)?|\d{4}-\d{2}-\d{2}T.*|\d{4}W\d{2}"),
    _TRUTH: re.compile(r"true|false|yes", re.IGNORECASE),
    "id": re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE),
    "address": re.compile(r"\S+@\S+\.\S+|https?://\S+|\d{1,3}(\.\d{1,3}){3}"),
}
_LABEL = re.compile(r"\d{1,4}")


@dataclass(frozen=True)
class Header:
    """The columns of a CSV file.

    Args:
        columns: their names, in order; empty for an empty file.
        has_line: whether the file's first record names them.
        notes: for each missing or duplicate name, what it was replaced by.
    """

    columns: tuple[str, ...]
    has_line: bool
    notes: tuple[str, ...] = ()


def read_header(
    first: Record | None,
    rows: Sequence[Sequence[str]],
    declared: bool | tuple[str, ...] | None,
    *,
    delimiter: str,
    name: str,
    encoding: str,
    is_known: Callable[[str], bool],
    cleans: bool,
    skips: bool,
) -> Header:
    """Find the columns' names.

    Args:
        first: the first record that is not blank; None for a file without one.
        rows: the first good ones after it.
        declared: the stream's `header`.
        name: of the file, for errors.
        is_known: whether the stream's table has a column of that name.
        cleans: remove invisible characters from names, and compose them (NFC).
        skips: lines before the header are declared.

    Raises:
        DataError: the first line is not a header.
    """
    cells = [drop_hidden(cell) if cleans else cell.strip() for cell in (first.cells or () if first else ())]
    if isinstance(declared, tuple):
        # A line that differs from the names only by case, Unicode form or invisible characters names the columns; it is not a row.
        return Header(declared, [_fold(cell) for cell in cells] == [_fold(name) for name in declared])
    if first is None:
        return Header((), True)
    if declared is False:
        width = len(cells) or max(map(len, rows), default=0)
        return Header(tuple(f"column_{number}" for number in range(1, width + 1)), False)
    _refuse_unreadable(first, name, encoding)
    below = [[cell.strip() for cell in row] for row in rows]
    if declared is None and not all(map(is_known, cells)):
        _refuse_preamble(cells, first.text, below, delimiter, name, skips=skips)
        # A file that was concatenated from several contains their byte order marks.
        others = [row for row in below if [row[0].removeprefix("\ufeff"), *row[1 : len(cells)]] != cells]
        _refuse_row(cells, others, name, is_known)
    return _name_columns(cells, below)


def _fold(name: str) -> str:
    return drop_hidden(name).casefold()


def _refuse_unreadable(first: Record, name: str, encoding: str) -> None:
    if first.reason == BAD_ENCODING:
        wanted = "declare the stream's encoding, e.g. encoding: cp1252, or save it as UTF-8" if encoding == "utf-8" else "correct the stream's encoding"
        raise DataError(f"{name} has a header that is not valid {encoding.upper()}", remedy=wanted)
    if first.reason == STRAY_LINE_END:
        raise DataError(f"{name} has a header with a line end of a different kind than the rest of the file", remedy="correct its first line")
    if first.cells is None:
        raise DataError(f"{name} has a header whose quotes are not closed, or have text right after them", remedy="correct its first line")
    if "\0" in first.text:
        raise DataError(f"{name} has a header that holds a NUL: it is not text", remedy="correct the stream's glob or format, or declare its encoding")


# --- lines that are not a header


def _refuse_preamble(cells: Sequence[str], first: str, rows: Sequence[Sequence[str]], delimiter: str, name: str, *, skips: bool) -> None:
    remedy = "declare how many lines stand before the header: skip_rows; or header: true where this line names the columns"
    if len(cells) > 1 and cells[0] and not any(cells[1:]) and not all(len(row) > 1 and not any(row[1:]) for row in rows):
        raise DataError(f"{name} has a first line that names 1 of {len(cells)} columns", remedy=remedy)
    if len(cells) > 1 or skips:
        return
    texts = [delimiter.join(row) for row in rows]
    for mark in DELIMITERS:
        counts = [text.count(mark) for text in texts]
        if any(count and count == after for count, after in pairwise(counts)) and mark not in first:
            raise DataError(f"{name} has a first line without a delimiter, and lines below it with several fields", remedy=remedy)


def _refuse_row(cells: Sequence[str], rows: Sequence[Sequence[str]], name: str, is_known: Callable[[str], bool]) -> None:
    labels = _find_labels(cells)
    for index, cell in enumerate(cells):
        if not cell or cell in labels or is_known(cell):
            continue
        below = [row[index] for row in rows if index < len(row) and row[index]]
        if kind := _find_kind(cell):
            # Above values of another kind it may be a name: a date above a column of prices.
            if (not below and kind != _TRUTH) or (below and all(_find_kind(value) == kind for value in below)):
                raise DataError(f"{name} has no header: field {index + 1} of its first line is a {kind}, as in the lines below", remedy=_DECLARE)
        elif cell in below and len(cells) > 1:
            raise DataError(f"{name} has no header: field {index + 1} of its first line is a value of the lines below", remedy=_DECLARE)


def _find_kind(cell: str) -> str:
    return next((kind for kind, pattern in _KINDS.items() if pattern.fullmatch(cell)), "")


def _find_labels(cells: Sequence[str]) -> set[str]:
    """Find numbers that name columns: years, or hours and positions that count up, if at least one other name is a word."""
    numbers = [cell for cell in cells if cell and _find_kind(cell)]
    if len(numbers) == len([cell for cell in cells if cell]) or not all(map(_LABEL.fullmatch, numbers)):
        return set()
    values = [int(number) for number in numbers]
    steps = {after - before for before, after in pairwise(values)}
    are_years = all(1800 <= value <= 2200 for value in values)
    if len(set(values)) == len(values) and len(steps) <= 1 and (are_years or len(values) >= 4):
        return set(numbers)
    return set()


# --- names


def _name_columns(cells: list[str], rows: Sequence[Sequence[str]]) -> Header:
    """Number the columns whose names are missing or duplicate. Empty fields after the last name are not columns."""
    while cells and not cells[-1] and len(cells) > 1 and not any(row[len(cells) - 1] for row in rows if len(row) >= len(cells)):
        cells = cells[:-1]
    known, notes, columns = Counter(cell.casefold() for cell in cells if cell), list[str](), list[str]()
    taken = set(known)
    seen = set[str]()
    for number, cell in enumerate(cells, start=1):
        if cell and cell.casefold() not in seen:
            seen.add(cell.casefold())
            columns.append(cell)
            continue
        base = cell or "column"
        follow = number if not cell else 2
        while f"{base}_{follow}".casefold() in taken:
            follow += 1
        columns.append(f"{base}_{follow}")
        taken.add(columns[-1].casefold())
        what = f"has the name of another one, {cell[:LONGEST_NAME]!r}" if cell else "has no name"
        notes.append(f"column {number} {what}, and is called {columns[-1][: LONGEST_NAME + 8]!r}")
    return Header(tuple(columns), True, tuple(notes))
