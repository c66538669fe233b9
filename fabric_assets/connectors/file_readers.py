"""A csv, jsonl or parquet file -> its columns' types, then its rows as Arrow tables in the file's own order.

A reader says first what the file holds and reads it second, once the types of all files of the run are known. Lines that are no
rows of the format are found at the first look, and given as rejected rows; the others keep the numbers that they have in the file.
"""

import csv
import re
from abc import ABC, abstractmethod
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any, Protocol

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from fabric_assets.connectors import arrow_types, file_types
from fabric_assets.connectors.batches import Reject
from fabric_assets.connectors.duckdb_files import open_engine
from fabric_assets.connectors.file_faults import build_error
from fabric_assets.connectors.file_listing import FetchedFile
from fabric_assets.connectors.file_salvage import MAX_LINE, PART_BYTES, Fragment, Salvage, cut, is_misread, number_rows, salvage, split_csv, split_json
from fabric_assets.connectors.file_types import TextColumn
from fabric_assets.connectors.suggestions import LONGEST_NAME
from fabric_assets.errors import DataError

BATCH_ROWS, BATCH_BYTES = 50_000, 32 * 1024 * 1024
_USUAL_LINE, _WIDE_ROW = 4 * 1024 * 1024, 1024
_DELIMITERS = ",;\t|"
_NUMBERED = re.compile(r"(.+)_\d+")

Fits = dict[str, frozenset[pa.DataType]]


@dataclass(frozen=True)
class Piece:
    """Rows that follow each other in a file, or lines of it that are no rows.

    Args:
        rows: None for bad lines alone.
        first: the first row's number in the file, from 1.
    """

    rows: pa.Table | None
    first: int
    rejects: tuple[Reject, ...] = ()


class Reader(Protocol):
    def inspect(self) -> Fits:
        """The types that each column's values fit, in the file's order of columns."""
        ...

    def read(self, types: Mapping[str, pa.DataType]) -> Iterator[Piece]:
        """The rows, in order, after an inspection; values that are not of the types asked for stay what they are in the file."""
        ...


def build_reader(file: FetchedFile, kind: str, *, place: str) -> Reader:
    return {"csv": CsvReader, "jsonl": JsonReader, "parquet": ParquetReader}[kind](file, place)


@dataclass
class _TextReader(ABC):
    """What csv and jsonl share: DuckDB reads texts, and casts them to the types that they fit."""

    file: FetchedFile
    place: str
    _columns: list[TextColumn] = field(default_factory=list, init=False)
    _fits: Fits = field(default_factory=dict, init=False)
    _rows: int = field(default=0, init=False)
    _salvage: Salvage | None = field(default=None, init=False)

    def inspect(self) -> Fits:
        try:
            self._look()
        except duckdb.Error:
            self._salvage = salvage(self._split(self.file.path), self.file)
            try:
                self._look()
            except duckdb.Error as error:
                raise build_error(self.file, self.place, error) from None
        return self._fits

    def read(self, types: Mapping[str, pa.DataType]) -> Iterator[Piece]:
        gaps = array("q")
        if self._salvage:
            yield from (Piece(None, 0, rejects) for rejects in self._salvage.read_rejects())
            gaps = self._salvage.gaps
        yield from (Piece(rows, first) for rows, first in number_rows(self._read(types), gaps))

    @property
    def name(self) -> str:
        """The file, for messages."""
        return f"{self.place}: the file {self.file.source.name}"

    @property
    def path(self) -> Path:
        """Where its good lines are."""
        return self._salvage.path if self._salvage else self.file.path

    @property
    def _longest_line(self) -> int:
        # DuckDB makes buffers of it. A file with a longer line is refused at first, and then read from its copy.
        return MAX_LINE if self._salvage else _USUAL_LINE

    def _look(self) -> None:
        with open_engine() as connection:
            self._columns = self._find_columns(connection)
            if self._columns:
                self._fits, self._rows = file_types.find_fits(connection, self._relate(self.path), self._columns)

    def _read(self, types: Mapping[str, pa.DataType]) -> Iterator[pa.Table]:
        """A file of wide rows is read part by part: DuckDB prepares up to fifty vectors of rows before it gives the first."""
        if not self._rows:
            return
        size = self.path.stat().st_size
        is_wide = size > PART_BYTES and size > self._rows * _WIDE_ROW
        select = ", ".join(f"{column.build_read(types[column.name], self._fits[column.name])} as {_quote(column.name)}" for column in self._columns)
        with open_engine() as connection:
            try:
                for path in cut(self._split(self.path), self.file.path.with_suffix(".part")) if is_wide else [self.path]:
                    result = connection.execute(f"select {select} from {self._relate(path)}")
                    # DuckDB 1.5 gave the method a new name, and warns about the old one.
                    open_reader = getattr(result, "to_arrow_reader", None) or result.fetch_record_batch
                    for batch in open_reader(_count_batch_rows(size, self._rows)):
                        yield pa.Table.from_batches([batch])
            except duckdb.Error as error:
                raise build_error(self.file, self.place, error) from None

    @abstractmethod
    def _find_columns(self, connection: Any) -> list[TextColumn]: ...

    @abstractmethod
    def _relate(self, path: Path) -> str:
        """SQL of a file with these columns."""

    @abstractmethod
    def _split(self, path: Path) -> Iterator[Fragment]: ...


class CsvReader(_TextReader):
    """Comma, semicolon, tab or bar, whichever the header has most; quotes and doubled quotes as in RFC 4180."""

    _delimiter: str = ""

    def _find_columns(self, connection: Any) -> list[TextColumn]:
        header, self._delimiter = self._read_header()
        return [TextColumn(name, _quote(name)) for name in header]

    def _relate(self, path: Path) -> str:
        columns = ", ".join(f"{_literal(column.name)}: 'VARCHAR'" for column in self._columns)
        return (
            f"read_csv({_literal(str(path))}, auto_detect=false, columns={{{columns}}}, delim={_literal(self._delimiter)}, quote='\"', escape='\"',"
            " header=true, comment='', nullstr='', allow_quoted_nulls=false, null_padding=false, ignore_errors=false, strict_mode=true,"
            f" max_line_size={self._longest_line}, buffer_size={self._longest_line})"
        )

    def _split(self, path: Path) -> Iterator[Fragment]:
        return split_csv(path, columns=len(self._columns), delimiter=self._delimiter, name=self.name)

    def _read_header(self) -> tuple[list[str], str]:
        with self.file.path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as lines:
            first = lines.readline(1_000_000)
        delimiter = max(_DELIMITERS, key=lambda mark: (first.count(mark), -_DELIMITERS.index(mark)))
        # DuckDB takes a header with a stray quote for the whole file, without a word.
        line = next(split_csv(self.file.path, columns=0, delimiter=delimiter, name=self.name), Fragment("")).text
        try:
            line.encode()
            header = [name.strip() for name in next(csv.reader(StringIO(line, newline=""), delimiter=delimiter, skipinitialspace=True), [])]
        except (UnicodeError, csv.Error) as error:
            raise DataError(f"{self.name} has a header that is no UTF-8 CSV: {error}", remedy="save it as UTF-8") from None
        if not header and self.file.source.size:
            raise DataError(f"{self.name} begins with an empty line", remedy="name the columns in the first line")
        if "\0" in line:
            raise DataError(
                f"{self.name} has a header that holds a NUL: it is no text", remedy="correct the stream's glob or format, or save the file as UTF-8"
            )
        known = Counter(name.lower() for name in header)
        if doubles := {name for name in header if known[name.lower()] > 1}:
            remedy = "give each column its own name; upper and lower case are the same to a warehouse"
            raise DataError(f"{self.name} has a header that names {min(doubles)[:LONGEST_NAME]!r} twice", remedy=remedy)
        if any(not name for name in header):
            raise DataError(f"{self.name} has a header with a column without a name", remedy="name every column in the first line")
        return header, delimiter


class JsonReader(_TextReader):
    """One object a line; nested values stay JSON text."""

    def inspect(self) -> Fits:
        if is_misread(self.file.path):
            self._salvage = salvage(self._split(self.file.path), self.file)
        return super().inspect()

    def _find_columns(self, connection: Any) -> list[TextColumn]:
        if not self.path.stat().st_size:
            return []
        path = _literal(str(self.path))
        found = connection.execute(f"describe select * from read_json({path}, {self._options}, maximum_depth=1, sample_size=-1)").fetchall()
        names = [row[0] for row in found]
        self._refuse_case_twins(connection, names)
        return [TextColumn(name, f"({_quote(name)} ->> '$')", f"json_type({_quote(name)})") for name in names]

    def _relate(self, path: Path) -> str:
        columns = ", ".join(f"{_literal(column.name)}: 'JSON'" for column in self._columns)
        return f"read_json({_literal(str(path))}, {self._options}, columns={{{columns}}})"

    def _split(self, path: Path) -> Iterator[Fragment]:
        return split_json(path, name=self.name)

    @property
    def _options(self) -> str:
        return f"format='newline_delimited', records=true, maximum_object_size={self._longest_line}"

    def _refuse_case_twins(self, connection: Any, names: list[str]) -> None:
        """DuckDB gives `ID` beside `id` the name `ID_1`, under which no line has a value."""
        known = {name.lower() for name in names}
        if not any(match and match[1].lower() in known for match in map(_NUMBERED.fullmatch, names)):
            return
        path = _literal(str(self.path))
        keys = connection.execute(
            f"select distinct unnest(json_keys(json)) from read_ndjson_objects({path}, maximum_object_size={self._longest_line})"
        ).fetchall()
        real = sorted(key for (key,) in keys)
        twins = [key for key in real if [other.lower() for other in real].count(key.lower()) > 1]
        if twins:
            raise DataError(
                f"{self.name} has keys that differ only in case: {', '.join(twins)}",
                remedy="rename one of them; a warehouse takes both for the same column",
            )


@dataclass(frozen=True)
class ParquetReader:
    """Parquet says its types itself; they are only narrowed to those that every destination carries."""

    file: FetchedFile
    place: str

    def inspect(self) -> Fits:
        with self._open() as parquet:
            return {field.name: _get_parquet_fits(field.type) for field in parquet.schema_arrow}

    def read(self, types: Mapping[str, pa.DataType]) -> Iterator[Piece]:
        with self._open() as parquet:
            rows, facts = 0, parquet.metadata
            size = sum(facts.row_group(index).total_byte_size for index in range(facts.num_row_groups))
            try:
                for batch in parquet.iter_batches(batch_size=_count_batch_rows(size, facts.num_rows)):
                    yield Piece(pa.Table.from_batches([batch]), rows + 1)
                    rows += batch.num_rows
            except (pa.ArrowException, OSError) as error:
                raise build_error(self.file, self.place, error) from None

    def _open(self) -> pq.ParquetFile:
        try:
            return pq.ParquetFile(self.file.path)
        except (pa.ArrowInvalid, OSError) as error:
            raise build_error(self.file, self.place, error) from None


def _get_parquet_fits(kind: pa.DataType) -> frozenset[pa.DataType]:
    if pa.types.is_null(kind):
        return frozenset(file_types.CANDIDATES)
    carried = arrow_types.get_carried_type(kind) or arrow_types.TEXT
    return frozenset({carried})


def _count_batch_rows(size: int, rows: int) -> int:
    """As many rows as fit a batch's bytes, going by the mean."""
    return max(1, min(BATCH_ROWS, BATCH_BYTES * rows // max(size, 1)))


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
