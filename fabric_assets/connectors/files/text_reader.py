"""The base of the readers of CSV and JSON: DuckDB reads texts, and casts them to the types that they fit."""

import sys
from abc import ABC, abstractmethod
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from fabric_assets.connectors.files import columns as file_columns
from fabric_assets.connectors.files import types as file_types
from fabric_assets.connectors.files.content import Content, prepare
from fabric_assets.connectors.files.database import prepare_for_wide, stream
from fabric_assets.connectors.files.faults import build_error
from fabric_assets.connectors.files.listing import FetchedFile
from fabric_assets.connectors.files.piece import Piece, Reading, count_batch_rows
from fabric_assets.connectors.files.salvage import MAX_LINE, PART_BYTES, Fragment, Salvage, cut, number_rows, salvage
from fabric_assets.connectors.files.types import LONGEST, SAMPLE, Fits, TextColumn
from fabric_assets.errors import DataError
from fabric_assets.quoting import quote
from fabric_assets.rows.arrow_types import TEXT

_USUAL_LINE, _WIDE_ROW = 4 * 1024 * 1024, 1024
# The time and memory of a query grow with the square of its expressions, so with more of them the columns are stacked into one.
_MOST_QUESTIONS, _MOST_COLUMNS = 60, 100
_CELLS_AT_ONCE = 2_000_000
# A larger copy is made again when the rows are read, because all files of a run are inspected before the first is read.
_KEPT_COPY = 64 * 1024 * 1024
_SMALL_PART, _SLICE = 8 * 1024 * 1024, 250

_Read = Callable[[Path, Mapping[str, pa.DataType], int], Iterator[pa.Table]]


class TextReader(ABC):
    """A reader of one file of texts."""

    def __init__(self, file: FetchedFile, reading: Reading) -> None:
        self.file, self.reading = file, reading
        self._content = Content(file.path)
        self._columns: list[TextColumn] = []
        self._fits: Fits = {}
        self._rows = 0
        self._salvage: Salvage | None = None
        self._are_parts_small = False

    def inspect(self) -> Fits:
        self._content = self._prepare()
        try:
            self._look()
        except duckdb.Error:
            self._salvage = salvage(self._split(self._content.path), self.file)
            self._are_parts_small = False
            try:
                self._look()
            except duckdb.Error as error:
                raise build_error(self.file, self.reading.where, error) from None
        if self._content.is_copy and (self._salvage or self._content.path.stat().st_size > _KEPT_COPY):
            self._content.path.unlink()
        return self._fits

    def read(self, types: Mapping[str, pa.DataType]) -> Iterator[Piece]:
        gaps = array("q")
        if self._salvage:
            yield from (Piece(None, 0, rejects) for rejects in self._salvage.read_rejects())
            gaps = self._salvage.gaps
        elif not self._content.path.exists():
            self._content = self._prepare()
        yield from (Piece(rows, first) for rows, first in number_rows(self._read(types), gaps))
        if self._content.is_copy:
            self._content.path.unlink(missing_ok=True)

    @property
    def name(self) -> str:
        """The file, for messages."""
        return f"{self.reading.where}: the file {self.file.source.shown}"

    @property
    def path(self) -> Path:
        """The file with the good lines."""
        return self._salvage.path if self._salvage else self._content.path

    @property
    def _longest_line(self) -> int:
        # The size of DuckDB's buffers. A file with a longer line is refused at first, and then read from its copy.
        return MAX_LINE if self._salvage else _USUAL_LINE

    def _prepare(self) -> Content:
        return prepare(self.file, self.reading.stream, self.reading.limits, self.reading.where)

    def _connect(self) -> AbstractContextManager[Any]:
        return self.reading.engine.connect(threads=1) if self._salvage else self.reading.engine.connect()

    def _look(self) -> None:
        with self._connect() as connection:
            self._columns = self._find_columns(connection)
            if len(self._columns) > self.reading.limits.columns:
                raise DataError(
                    f"{self.name} has {len(self._columns):,} columns, more than {self.reading.limits.columns:,}",
                    remedy="split it, or raise the source's limits.columns",
                )
            if not self._columns:
                return
            if self._is_wide:
                prepare_for_wide(connection)
            try:
                for columns in self._slices:
                    fits, self._rows = self._find_fits(connection, columns)
                    self._fits |= fits
            except duckdb.OutOfMemoryException:
                # A vector of 2,048 long rows exceeds the memory, so a few rows are read at a time.
                self._are_parts_small = True
                for columns in self._slices:
                    fits, self._rows = self._find_fits_in_parts(connection, columns)
                    self._fits |= fits
        self._fits = file_types.complete(self._columns, self._fits)

    def _find_fits(self, connection: Any, columns: Sequence[TextColumn]) -> tuple[Fits, int]:
        """Find the types that fit. The first rows rule most candidates out, so the whole file is read only for the others."""
        relation, beginnings = self._relate(self.path, columns), self._select_beginnings(columns)
        with connection.cursor() as other:
            sample = stream(connection, f"select {beginnings} from {relation} limit {SAMPLE + 1}", SAMPLE + 1)
            likely, rows = file_columns.find_fits(other, sample, columns, {column.name: column.candidates for column in columns})
            if rows <= SAMPLE:
                return likely, rows
            candidates = {name: tuple(kind for kind in file_types.CANDIDATES if kind in fits) for name, fits in likely.items()}
            if not self._is_wide and sum(map(len, candidates.values())) <= _MOST_QUESTIONS:
                return file_types.ask(connection, relation, columns, candidates)
            connection.execute("set threads = 1")
            batches = stream(connection, f"select {beginnings} from {relation}", _count_wide_rows(len(columns)))
            return file_columns.find_fits(other, batches, columns, candidates)

    def _find_fits_in_parts(self, connection: Any, columns: Sequence[TextColumn]) -> tuple[Fits, int]:
        connection.execute("set threads = 1")
        beginnings = self._select_beginnings(columns)
        batches = (batch for path in self._cut() for batch in stream(connection, f"select {beginnings} from {self._relate(path, columns)}", SAMPLE))
        with connection.cursor() as other:
            return file_columns.find_fits(other, batches, columns, {column.name: column.candidates for column in columns})

    @property
    def _slices(self) -> Sequence[Sequence[TextColumn]]:
        """The columns that each query reads. A JSON value takes three vectors, a field of a CSV one."""
        if not self._is_sliced:
            return [self._columns]
        return [self._columns[start : start + _SLICE] for start in range(0, len(self._columns), _SLICE)]

    @property
    def _is_sliced(self) -> bool:
        return self._is_wide and bool(self._columns[0].kind)

    @property
    def _is_wide(self) -> bool:
        return len(self._columns) > _MOST_COLUMNS

    def _select_beginnings(self, columns: Sequence[TextColumn]) -> str:
        """The SQL for the beginning of each value, which is enough to find its type."""
        # With thousands of columns, a shortened copy of each takes more memory than it saves.
        texts = [f"{column.text if self._is_wide else f'left({column.text}, {LONGEST + 1})'} as {quote(column.name)}" for column in columns]
        kinds = [f"{column.kind} as {quote(file_columns.KIND + column.name)}" for column in columns if column.kind]
        return ", ".join([*texts, *kinds])

    def _read(self, types: Mapping[str, pa.DataType]) -> Iterator[pa.Table]:
        """Read the rows. A file of long rows is read in parts, because DuckDB prepares up to fifty vectors of rows before it returns the first."""
        if not self._rows:
            return
        size = self.path.stat().st_size
        is_long = size > PART_BYTES and size > self._rows * _WIDE_ROW
        misfits = [column for column in self._columns if types[column.name] not in self._fits[column.name] and types[column.name] != TEXT]
        read = self._read_wide if self._is_wide or len(misfits) * 4 > _MOST_QUESTIONS else self._read_at_once
        done, at_once = 0, count_batch_rows(size, self._rows)
        try:
            try:
                for path in self._cut() if is_long or self._are_parts_small or self._is_sliced else [self.path]:
                    for rows in read(path, types, at_once):
                        yield rows
                        done += rows.num_rows
            except duckdb.OutOfMemoryException:
                if self._are_parts_small:
                    raise
                self._are_parts_small = True
                yield from self._read_rest(read, types, done)
        except duckdb.Error as error:
            raise build_error(self.file, self.reading.where, error) from None

    def _read_rest(self, read: _Read, types: Mapping[str, pa.DataType], done: int) -> Iterator[pa.Table]:
        for path in self._cut():
            for rows in read(path, types, SAMPLE):
                if done < rows.num_rows:
                    yield rows.slice(done)
                done = max(0, done - rows.num_rows)

    def _cut(self) -> Iterator[Path]:
        most = _SMALL_PART if self._are_parts_small or self._is_sliced else PART_BYTES
        rows = _count_wide_rows(len(self._columns)) if self._is_sliced else sys.maxsize
        return cut(self._split(self.path), self.file.path.with_suffix(".part"), most, rows)

    def _read_at_once(self, path: Path, types: Mapping[str, pa.DataType], rows: int) -> Iterator[pa.Table]:
        select = ", ".join(f"{column.build_read(types[column.name], self._fits[column.name])} as {quote(column.name)}" for column in self._columns)
        with self._connect() as connection:
            yield from stream(connection, f"select {select} from {self._relate(path, self._columns)}", rows)

    def _read_wide(self, path: Path, types: Mapping[str, pa.DataType], rows: int) -> Iterator[pa.Table]:
        at_once = min(rows, _count_wide_rows(len(self._columns)))
        with self._connect() as connection, connection.cursor() as other:
            prepare_for_wide(connection)
            for batch in self._read_slices(connection, path) if self._is_sliced else self._read_texts(connection, path, self._columns, at_once):
                yield file_columns.cast(other, batch, self._columns, types, self._fits)

    def _read_slices(self, connection: Any, path: Path) -> Iterator[pa.Table]:
        """Read the rows of a part as one batch."""
        arrays: dict[str, Any] = {}
        for columns in self._slices:
            batch = pa.concat_tables(self._read_texts(connection, path, columns, SAMPLE))
            arrays |= dict(zip(batch.column_names, batch.columns, strict=True))
        yield pa.table(arrays)

    def _read_texts(self, connection: Any, path: Path, columns: Sequence[TextColumn], rows: int) -> Iterator[pa.Table]:
        texts = [f"{column.text} as {quote(column.name)}" for column in columns]
        kinds = [f"{column.kind} as {quote(file_columns.KIND + column.name)}" for column in columns if column.kind]
        return stream(connection, f"select {', '.join([*texts, *kinds])} from {self._relate(path, columns)}", rows)

    @abstractmethod
    def _find_columns(self, connection: Any) -> list[TextColumn]: ...

    @abstractmethod
    def _relate(self, path: Path, columns: Sequence[TextColumn]) -> str:
        """The SQL for a file's rows, with at least these columns."""

    @abstractmethod
    def _split(self, path: Path) -> Iterator[Fragment]: ...


def _count_wide_rows(columns: int) -> int:
    return max(64, _CELLS_AT_ONCE // columns)
