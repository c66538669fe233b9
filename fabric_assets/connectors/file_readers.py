"""A csv, jsonl or parquet file -> its columns' types, then its rows as Arrow tables in the file's own order.

A reader says first what the file holds and reads it second, once the types of all files of the run are known. A line that is
no row of its format ends the load with the file's name and the line, as DuckDB and pyarrow give it: nothing is skipped.
"""

import csv
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from fabric_assets.connectors import arrow_types, file_types
from fabric_assets.connectors.file_listing import FetchedFile
from fabric_assets.connectors.file_types import TextColumn
from fabric_assets.errors import DataError

BATCH_ROWS = 50_000
_DELIMITERS = ",;\t|"
_NUMBERED = re.compile(r"(.+)_\d+")
_LINE = re.compile(r"\bline:?\s+(\d+)", re.IGNORECASE)

Fits = dict[str, frozenset[pa.DataType]]


class Reader(Protocol):
    def inspect(self) -> Fits:
        """The types that each column's values fit, in the file's order of columns."""
        ...

    def read(self, types: Mapping[str, pa.DataType]) -> Iterator[pa.Table]:
        """The rows, in order; columns of other types than asked for are left to the caller."""
        ...


def build_reader(file: FetchedFile, kind: str, *, place: str) -> Reader:
    return {"csv": CsvReader, "jsonl": JsonReader, "parquet": ParquetReader}[kind](file, place)


@dataclass(frozen=True)
class _TextReader:
    """What csv and jsonl share: DuckDB reads texts, and casts to types that are known to fit."""

    file: FetchedFile
    place: str

    def inspect(self) -> Fits:
        with _connect() as connection:
            try:
                relation, columns = self._open(connection)
                return file_types.find_fits(connection, relation, columns) if columns else {}
            except duckdb.Error as error:
                raise _build_error(self.file, self.place, str(error)) from None

    def read(self, types: Mapping[str, pa.DataType]) -> Iterator[pa.Table]:
        with _connect() as connection:
            try:
                relation, columns = self._open(connection)
                if not columns:
                    return
                select = ", ".join(f"{column.build_read(types[column.name])} as {_quote(column.name)}" for column in columns)
                result = connection.execute(f"select {select} from {relation}")
                # DuckDB 1.5 gave the method a new name, and warns about the old one.
                open_reader = getattr(result, "to_arrow_reader", None) or result.fetch_record_batch
                for batch in open_reader(BATCH_ROWS):
                    yield pa.Table.from_batches([batch])
            except duckdb.Error as error:
                raise _build_error(self.file, self.place, str(error)) from None

    def _open(self, connection: Any) -> tuple[str, list[TextColumn]]:
        raise NotImplementedError


class CsvReader(_TextReader):
    """Comma, semicolon, tab or bar, whichever the header has most; quotes and doubled quotes as in RFC 4180."""

    def _open(self, connection: Any) -> tuple[str, list[TextColumn]]:
        header, delimiter = self._read_header()
        if not header:
            return "", []
        columns = ", ".join(f"{_literal(name)}: 'VARCHAR'" for name in header)
        relation = (
            f"read_csv({_literal(str(self.file.path))}, auto_detect=false, columns={{{columns}}}, delim={_literal(delimiter)}, quote='\"', escape='\"',"
            " header=true, comment='', nullstr='', allow_quoted_nulls=false, null_padding=false, ignore_errors=false, strict_mode=true,"
            " max_line_size=67108864)"
        )
        return relation, [TextColumn(name, _quote(name)) for name in header]

    def _read_header(self) -> tuple[list[str], str]:
        try:
            with self.file.path.open(encoding="utf-8-sig", newline="") as lines:
                first = lines.readline(1_000_000)
                delimiter = max(_DELIMITERS, key=lambda mark: (first.count(mark), -_DELIMITERS.index(mark)))
                lines.seek(0)
                header = [name.strip() for name in next(csv.reader(lines, delimiter=delimiter), [])]
        except (UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"{self.place}: the file {self.file.source.name} is no UTF-8 CSV: {error}", remedy="save it as UTF-8") from None
        if doubles := {name for name in header if header.count(name) > 1}:
            raise DataError(f"{self.place}: the header of {self.file.source.name} names {min(doubles)!r} twice", remedy="give each column its own name")
        if any(not name for name in header):
            raise DataError(f"{self.place}: the header of {self.file.source.name} has a column without a name", remedy="name every column in the first line")
        return header, delimiter


class JsonReader(_TextReader):
    """One object a line; nested values stay JSON text."""

    def _open(self, connection: Any) -> tuple[str, list[TextColumn]]:
        if not self.file.source.size:
            return "", []
        options = "format='newline_delimited', maximum_object_size=67108864"
        path = _literal(str(self.file.path))
        found = connection.execute(f"describe select * from read_json({path}, {options}, records=true, maximum_depth=1, sample_size=-1)").fetchall()
        names = [row[0] for row in found]
        self._refuse_case_twins(connection, names)
        columns = ", ".join(f"{_literal(name)}: 'JSON'" for name in names)
        relation = f"read_json({path}, {options}, records=true, columns={{{columns}}})"
        return relation, [TextColumn(name, f"({_quote(name)} ->> '$')", f"json_type({_quote(name)})") for name in names]

    def _refuse_case_twins(self, connection: Any, names: list[str]) -> None:
        """DuckDB gives `ID` beside `id` the name `ID_1`, under which no line has a value."""
        known = {name.lower() for name in names}
        if not any(match and match[1].lower() in known for match in map(_NUMBERED.fullmatch, names)):
            return
        path = _literal(str(self.file.path))
        keys = connection.execute(f"select distinct unnest(json_keys(json)) from read_ndjson_objects({path}, maximum_object_size=67108864)").fetchall()
        real = sorted(key for (key,) in keys)
        twins = [key for key in real if [other.lower() for other in real].count(key.lower()) > 1]
        if twins:
            raise DataError(
                f"{self.place}: the file {self.file.source.name} has keys that differ only in case: {', '.join(twins)}",
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

    def read(self, types: Mapping[str, pa.DataType]) -> Iterator[pa.Table]:
        with self._open() as parquet:
            for batch in parquet.iter_batches(batch_size=BATCH_ROWS):
                yield pa.Table.from_batches([batch])

    def _open(self) -> pq.ParquetFile:
        try:
            return pq.ParquetFile(self.file.path)
        except (pa.ArrowInvalid, OSError) as error:
            raise _build_error(self.file, self.place, str(error)) from None


def _get_parquet_fits(kind: pa.DataType) -> frozenset[pa.DataType]:
    if pa.types.is_null(kind):
        return frozenset(file_types.CANDIDATES)
    carried = arrow_types.get_carried_type(kind) or arrow_types.TEXT
    return frozenset({carried})


def _connect() -> Any:
    connection = duckdb.connect()
    connection.execute("set TimeZone = 'UTC'")
    return connection


def _build_error(file: FetchedFile, place: str, reason: str) -> DataError:
    line = _LINE.search(reason)
    text = " ".join(reason.replace(str(file.path), file.source.name).split("Possible")[0].split())[:400]
    at = f", line {line[1]}" if line else ""
    return DataError(f"{place}: the file {file.source.name}{at} cannot be read: {text}", remedy="correct the file; no row of it has been loaded")


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
