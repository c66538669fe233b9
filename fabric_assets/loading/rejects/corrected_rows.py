"""Corrected rows of one dropped file -> canonical columns, and the rows that are still bad. Rows keep their file and line.

The checks are those of the file itself. A cell that nobody has changed gets its original text back, without the guard against formulas.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from fabric_assets.config.sources.imports import NUMBERS, CsvStream, fold
from fabric_assets.connectors.csv_import.cells import Cells
from fabric_assets.connectors.csv_import.columns import map_columns
from fabric_assets.connectors.csv_import.files import RowChecker
from fabric_assets.connectors.csv_import.values import is_number
from fabric_assets.loading.rejects.corrected_file import CorrectedRow
from fabric_assets.loading.rejects.csv_export import is_own, spell
from fabric_assets.loading.rejects.reader import RejectedRow
from fabric_assets.rows.imported_file import REJECT, ROW, ImportedFile
from fabric_assets.security.formulas import neutralise

_DECIMAL_COMMA = re.compile(r"\A[^;]*, decimal comma")


@dataclass(frozen=True)
class Pair:
    """A rejected row and its correction."""

    reject: RejectedRow
    row: CorrectedRow


@dataclass(frozen=True)
class StillBad:
    """A row that is rejected again.

    Args:
        line: in the corrected file.
        file: the dropped file that the row comes from.
        row_number: its line in the dropped file.
    """

    line: int
    file: str
    row_number: int | None
    reason: str
    message: str


@dataclass
class CheckedRows:
    """The rows that can be loaded, and those that cannot.

    Args:
        table: canonical columns; ROW holds the row's index in `pairs` until it gets its own number.
    """

    table: pa.Table
    pairs: list[Pair]
    bad: list[StillBad] = field(default_factory=list)


@dataclass
class _Cells:
    """The cells of one row in the dropped file's columns: column -> text, and the columns whose cell is a number or date."""

    texts: dict[str, str] = field(default_factory=dict)
    natives: set[str] = field(default_factory=set)
    fault: tuple[str, str] | None = None


def check_rows(pairs: Sequence[Pair], header: Sequence[str], stream: CsvStream, file: ImportedFile) -> CheckedRows:
    """Check the corrected rows of one dropped file, with the checks of the file itself.

    Args:
        header: of the corrected file.
        file: the dropped file that the rows come from.

    Raises:
        QuarantinedFile: the corrected file's columns do not match the stream's.
    """
    assert file.sha256
    columns = _choose_columns(header, stream, pairs)
    read = [_read_cells(pair, columns) for pair in pairs]
    good = [(pair, cells) for pair, cells in zip(pairs, read, strict=True) if cells.fault is None]
    bad = [build_bad(pair, *cells.fault) for pair, cells in zip(pairs, read, strict=True) if cells.fault is not None]
    kept = [name for name in dict.fromkeys(columns.values()) if stream.unmapped == "keep" or _is_known(name, stream) or any(name in c.texts for _, c in good)]
    layout = map_columns(kept, stream)
    texts = [pa.array([cells.texts.get(name) for _, cells in good], pa.string()) for name in kept]
    natives = [pa.array([name in cells.natives for _, cells in good], pa.bool_()) for name in kept]
    checker = RowChecker(layout, stream, _find_mark(kept, stream, file, [cells for _, cells in good]), file.name, file.sha256)
    table, rejects = checker.check(Cells(texts, pa.array(range(len(good)), pa.int64()), [], natives))
    bad += [build_bad(good[reject.row_number or 0][0], reject.reason, reject.message) for reject in rejects]
    return CheckedRows(table, [good[index][0] for index in table.column(ROW).to_pylist()], bad)


def build_bad(pair: Pair, reason: str, message: str) -> StillBad:
    return StillBad(pair.row.line, pair.reject.origin, get_row_number(pair.reject), reason, message)


def get_row_number(reject: RejectedRow) -> int | None:
    """Return the row's line in the dropped file."""
    return reject.row_number if not reject.is_shaped else (reject.parse() or {}).get(ROW)


def _choose_columns(header: Sequence[str], stream: CsvStream, pairs: Sequence[Pair]) -> dict[str, str]:
    """Choose the columns that are the dropped file's: column -> the first one with the same canonical name.

    The corrected file may hold columns of several dropped files side by side.
    """
    names = stream.get_names()
    known = set(names).union(*({fold(name) for name in pair.reject.parse_dropped() or ()} for pair in pairs))
    firsts: dict[str, str] = {}
    own = [name for name in header if name and fold(name) != REJECT and not is_own(name, known)]
    return {name: firsts.setdefault(names.get(fold(name), f" {name}"), name) for name in own}


def _read_cells(pair: Pair, columns: Mapping[str, str]) -> _Cells:
    reject, found = pair.reject, _Cells()
    before = {fold(name): str(spell(value)) for name, value in (reject.parse_dropped() or {}).items() if value is not None}
    for name, first in columns.items():
        text = pair.row.cells.get(name)
        if text is None:
            continue
        original = before.get(fold(name))
        if original is not None and text == neutralise(original):
            text = original
        if f"{name}: a value below no column name" in reject.message:
            found.fault = ("unnamed_column", f"{name}: a value below no column name; clear the cell")
        elif found.texts.get(first, text) != text:
            found.fault = ("two_values", f"{first} and {name} are the same column, and hold two values; clear one")
        found.texts[first] = text
        if name in pair.row.natives or (reject.is_shaped and text == original):
            found.natives.add(first)
    if not found.texts:
        why = "the row was kept as a text only (column raw): write its cells into the columns" if before == {} else "none of its cells has a value"
        found.fault = ("no_value", why)
    return found


def _is_known(name: str, stream: CsvStream) -> bool:
    return fold(name) in stream.get_names()


def _find_mark(kept: Sequence[str], stream: CsvStream, file: ImportedFile, rows: Sequence[_Cells]) -> str | None:
    """Find the decimal mark of the file and of the corrected cells; None if they differ, or if no number has one."""
    if stream.decimal:
        return stream.decimal
    found = {","} if _DECIMAL_COMMA.match(file.message or "") else set[str]()
    names, columns = stream.get_names(), stream.get_columns()
    numbers = [name for name in kept if (target := names.get(fold(name))) and columns[target].type in NUMBERS]
    for text in _list_texts(numbers, rows):
        fit = {mark for mark in (".", ",") if is_number(text, mark)}
        found |= fit if len(fit) == 1 else set()
    return found.pop() if len(found) == 1 else None


def _list_texts(names: Sequence[str], rows: Sequence[_Cells]) -> Iterator[str]:
    for cells in rows:
        yield from (text for name in names if (text := cells.texts.get(name)) and name not in cells.natives and ("," in text or "." in text))
