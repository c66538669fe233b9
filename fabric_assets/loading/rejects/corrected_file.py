"""A file of exported rejects that somebody has corrected -> its rows, by the ids of the rejected rows.

A spreadsheet may have saved it in another dialect of CSV, so the dialect is detected as for any file.
The file is held in memory, within the limits of the sources that it may be for.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fabric_assets.config.sources.imports import CsvStream, ImportColumn, ImportLimits, fold
from fabric_assets.connectors.csv_import.cells import Cells
from fabric_assets.connectors.csv_import.sheets import open_sheet
from fabric_assets.connectors.csv_import.tables import open_text
from fabric_assets.errors import DataError, QuarantinedFile
from fabric_assets.loading.rejects.csv_export import OWN
from fabric_assets.rows.imported_file import REJECT
from fabric_assets.security.formulas import neutralise

_REMEDY = "make one with `fabric rejects export`, and keep this column"


@dataclass(frozen=True)
class CorrectedRow:
    """A row of the corrected file.

    Args:
        line: in the corrected file.
        cells: by the columns' names; without empty ones.
        natives: columns whose cell in the workbook is a number or date, not a text.
    """

    line: int
    cells: Mapping[str, str]
    natives: frozenset[str] = frozenset()


@dataclass
class CorrectedFile:
    """The content of a corrected file.

    Args:
        header: in order; a column without a name has an empty one, and no cells in the rows.
        rows: by the ids of the rejected rows.
        refused: line -> why it is not a row to replay.
    """

    header: list[str]
    rows: dict[str, CorrectedRow] = field(default_factory=dict)
    refused: dict[int, str] = field(default_factory=dict)


def read_corrected(path: Path, name: str, limits: Sequence[ImportLimits]) -> CorrectedFile:
    """Read a corrected file.

    Args:
        name: its ending tells the format.
        limits: of the sources that it may be for; the widest apply.

    Raises:
        DataError: it cannot be read, or holds no rejected rows.
    """
    try:
        header, batches = _open(path, name, _widen(limits))
        corrected = CorrectedFile([_unguard(column) for column in header])
        if len(set(filter(None, corrected.header))) != len(list(filter(None, corrected.header))):
            raise DataError(f"{name}: two of its columns have the same name", remedy="leave one of them out")
        position = next((position for position, column in enumerate(corrected.header) if fold(column) == REJECT), None)
        if position is None:
            raise DataError(f"{name}: the column {REJECT}, with the ids of the rejected rows, is missing", remedy=_REMEDY)
        for cells in batches:
            _add_rows(corrected, cells, position)
    except QuarantinedFile as error:
        raise DataError(f"{name}: {error.message}", remedy="correct the file, then replay it again") from None
    return corrected


def _open(path: Path, name: str, limits: ImportLimits) -> tuple[list[str], Iterator[Cells]]:
    # Not the stream's own config, whose delimiter is for dropped files. The header is recognised by the only column that is always there.
    stream = CsvStream.model_construct(glob="*", columns={REJECT: ImportColumn()})
    lower = name.lower()
    if lower.endswith(".xlsx"):
        sheet = open_sheet(path, stream, limits)
        return sheet.header, sheet.read()
    packed = lower.endswith(".gz")
    text = open_text(path, stream, limits, packed=packed, tabs=lower.removesuffix(".gz").endswith(".tsv"))
    return text.header, text.read()


def _widen(limits: Sequence[ImportLimits]) -> ImportLimits:
    widest = {name: max(getattr(each, name) for each in limits) for name in ImportLimits.model_fields}
    # The export adds our columns to the file's.
    return ImportLimits.model_construct(**{**widest, "columns": widest["columns"] + len(OWN) + 2})


def _unguard(name: str) -> str:
    """Restore a column's name that the export has neutralised, because it looked like a formula."""
    return name[1:] if neutralise(name[1:]) == name else name


def _add_rows(corrected: CorrectedFile, cells: Cells, position: int) -> None:
    corrected.refused.update((bad.line, bad.message) for bad in cells.bad)
    columns = [column.to_pylist() for column in cells.columns]
    natives = [None if mask is None else mask.to_pylist() for mask in cells.natives]
    for index, line in enumerate(cells.lines.to_pylist()):
        row_id = (columns[position][index] or "").strip()
        named = [(number, column) for number, column in enumerate(corrected.header) if column and number != position and columns[number][index] is not None]
        row = CorrectedRow(
            line,
            {column: columns[number][index] for number, column in named},
            frozenset(column for number, column in named if natives and (mask := natives[number]) and mask[index]),
        )
        stray = next((number for number, column in enumerate(corrected.header) if not column and columns[number][index] is not None), None)
        if not row_id:
            corrected.refused[line] = f"{REJECT} is empty"
        elif row_id in corrected.rows:
            corrected.refused[line] = f"duplicate: same rejected row as line {corrected.rows[row_id].line}"
        elif stray is not None:
            corrected.refused[line] = f"column {stray + 1}: a value below no column name"
        else:
            corrected.rows[row_id] = row
