"""A dropped file -> batches of canonical columns and rejected rows. The whole file is checked before the first batch is given.

Some reasons for quarantine show only at the end of a file: its share of rejected rows, a quote that is never closed. Until then its
rows wait in memory, and beyond some megabytes in a file in the load's private folder.
"""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute makes its functions while it is imported, where no type checker sees them.

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from fabric_assets.config.sources.imports import CsvStream, ImportLimits, fold
from fabric_assets.connectors.csv_import.cells import Cells
from fabric_assets.connectors.csv_import.columns import ColumnChecker, Layout, UniqueChecker, get_type, map_columns
from fabric_assets.connectors.csv_import.faults import Faults, build_reject
from fabric_assets.connectors.csv_import.sheets import SheetFile, open_sheet
from fabric_assets.connectors.csv_import.spool import Spool
from fabric_assets.connectors.csv_import.tables import TextFile, open_text
from fabric_assets.errors import QuarantinedFile
from fabric_assets.rows import arrow_types
from fabric_assets.rows.batches import Batch, Reject
from fabric_assets.rows.imported_file import CORRECTED, FILE, HASH, REJECT, ROW, UNMAPPED
from fabric_assets.rows.value_forms import CURRENT

SUFFIXES = (".csv", ".tsv", ".csv.gz", ".tsv.gz", ".xlsx")
_COMMA = ", "
_ESCAPED = r'["\\\x00-\x1f\x7f]'


@dataclass
class CheckedFile:
    """A file that has passed all checks and may be loaded. `read` is always `loaded + rejected`.

    Args:
        described: its dialect, in words.
        unmapped: its columns that match no canonical column.
    """

    described: str
    unmapped: Sequence[str]
    read: int
    loaded: int
    rejected: int
    _spool: Spool
    _stream: str
    _origin: str

    def batches(self) -> Iterator[Batch]:
        """Yield the rows, in order; at least one batch, so that a file without rows creates the table too."""
        for table, rejects in self._spool.read():
            yield Batch(self._stream, table, self._origin, None, rejects)

    def close(self) -> None:
        """Remove the rows that are kept on disk."""
        self._spool.close()


def check_file(
    path: Path, *, name: str, sha256: str, stream_name: str, stream: CsvStream, limits: ImportLimits, folder: Path, value_forms: int = CURRENT
) -> CheckedFile:
    """Read and check a whole file.

    Args:
        value_forms: the version of the forms in which the stream's values are written.
        name: under which people know the file; its suffix names the format.
        folder: private to the load.

    Raises:
        QuarantinedFile: no row of it may be loaded.
    """
    file = _open(path, name, stream, limits, value_forms)
    if REJECT in map(fold, file.header):
        raise QuarantinedFile(CORRECTED, f"it holds exported rejected rows (column {REJECT}), not new ones", remedy="replay it")
    layout = map_columns(file.header, stream)
    checker = RowChecker(layout, stream, file.dialect.mark, name, sha256)
    spool = Spool(folder, checker.schema)
    read = rejected = 0
    try:
        for cells in file.read():
            table, rejects = checker.check(cells)
            read, rejected = read + table.num_rows + len(rejects), rejected + len(rejects)
            if read > limits.rows:
                raise QuarantinedFile("too_many_rows", f"it has more than {limits.rows:,} rows", remedy="split it, or raise the source's limits.rows")
            spool.write(table, rejects)
        if stream.rejects.is_exceeded(read, rejected):
            raise QuarantinedFile("too_many_rejects", f"{rejected:,} of its {read:,} rows are bad, more than {stream.rejects.max}: {_sum_up(spool)}")
    except BaseException:
        spool.close()
        raise
    return CheckedFile(file.dialect.describe(), [file.header[index] for index in layout.unmapped], read, read - rejected, rejected, spool, stream_name, name)


def build_schema(stream: CsvStream) -> pa.Schema:
    """The columns of a file's rows."""
    fields = [(column, get_type(config)) for column, config in stream.get_columns().items()]
    kept = [(UNMAPPED, pa.large_string())] if stream.unmapped == "keep" else []
    return pa.schema([*fields, *kept, (FILE, arrow_types.TEXT), (HASH, arrow_types.TEXT), (ROW, arrow_types.BIGINT)])


def _open(path: Path, name: str, stream: CsvStream, limits: ImportLimits, value_forms: int) -> TextFile | SheetFile:
    lower = name.lower()
    if lower.endswith(".xlsx"):
        return open_sheet(path, stream, limits, value_forms=value_forms)
    if not lower.endswith(SUFFIXES):
        raise QuarantinedFile("unknown_format", f"its suffix is not one of {', '.join(SUFFIXES)}", remedy="save it as CSV or .xlsx")
    packed = lower.endswith(".gz")
    return open_text(path, stream, limits, packed=packed, tabs=lower.removesuffix(".gz").endswith(".tsv"))


def _sum_up(spool: Spool) -> str:
    """The first bad row, as an example."""
    first = next(rejects[0] for _, rejects in spool.read() if rejects)
    return f"line {first.row_number}: {first.message}"[:500]


class RowChecker:
    """A checker of all batches of a file.

    Args:
        mark: the decimal mark of cells that are texts.
        name: of the file, for its rows.
    """

    def __init__(self, layout: Layout, stream: CsvStream, mark: str | None, name: str, sha256: str) -> None:
        columns = stream.get_columns()
        self._layout, self._name, self._sha256 = layout, name, sha256
        self._checkers = {column: ColumnChecker(column, config, mark, column in (stream.primary_key or ())) for column, config in columns.items()}
        self._unique = UniqueChecker({column: index for column, index in layout.columns.items() if index is not None and columns[column].unique})
        self.schema = build_schema(stream)

    def check(self, cells: Cells) -> tuple[pa.Table, list[Reject]]:
        count, faults = len(cells.lines), Faults()
        values: dict[str, pa.Array] = {}
        for index in self._layout.unnamed:
            faults.add(pc.is_valid(cells.columns[index]), index, "unnamed_column", lambda row: "a value below no column name")
        for column, index in self._layout.columns.items():
            if index is None:
                values[column] = pa.nulls(count, self.schema.field(column).type)
            else:
                native = cells.natives[index] if cells.natives else None
                values[column] = self._checkers[column].check(cells.columns[index], native, faults, index)
        self._unique.check(values, cells, faults)
        if UNMAPPED in self.schema.names:
            values[UNMAPPED] = build_json([(self._layout.header[index], cells.columns[index]) for index in self._layout.unmapped], count)
        values[FILE] = pa.repeat(pa.scalar(self._name, pa.string()), count)
        values[HASH] = pa.repeat(pa.scalar(self._sha256, pa.string()), count)
        values[ROW] = cells.lines
        table = pa.table([values[name] for name in self.schema.names], schema=self.schema)
        rejects = [*(build_reject(bad, self._layout.header, self._name) for bad in cells.bad), *faults.build_rejects(cells, self._layout.header, self._name)]
        rejects.sort(key=lambda reject: reject.row_number or 0)
        return (table.filter(faults.build_mask(count)) if len(faults) else table), rejects


def build_json(columns: Sequence[tuple[str, pa.Array]], count: int) -> pa.Array:
    """One JSON object per row, of the columns that have a value in it; null for a row without any."""
    if not columns:
        return pa.nulls(count, pa.large_string())
    # Nulls become empty texts: pyarrow would leave out a row in which all are null.
    parts = [pc.fill_null(_build_members(name, column), "") for name, column in columns]
    joined = pc.utf8_slice_codeunits(pc.binary_join_element_wise(*parts, ""), len(_COMMA))
    return pc.if_else(pc.equal(joined, ""), None, pc.binary_join_element_wise("{", joined, "}", "")).cast(pa.large_string())


def _build_members(name: str, column: pa.Array) -> pa.Array:
    if pc.any(pc.match_substring_regex(column, _ESCAPED)).as_py():
        encoded = column.dictionary_encode()
        texts = pa.array([json.dumps(text, ensure_ascii=False) for text in encoded.dictionary.to_pylist()], pa.string())
        column = texts.take(encoded.indices)
    else:
        column = pc.binary_join_element_wise('"', column, '"', "")
    return pc.binary_join_element_wise(f"{_COMMA}{json.dumps(name, ensure_ascii=False)}: ", column, "")
