"""A Parquet file -> its rows. Parquet declares its types; they are only narrowed to those that every destination has."""

from collections.abc import Iterator, Mapping

import pyarrow as pa
import pyarrow.parquet as pq

from fabric_assets.connectors.files import types as file_types
from fabric_assets.connectors.files.content import Content, prepare
from fabric_assets.connectors.files.faults import build_error
from fabric_assets.connectors.files.listing import FetchedFile, refuse_size
from fabric_assets.connectors.files.parquet_pages import count_rows, find_memory, find_row_lie
from fabric_assets.connectors.files.piece import Piece, Reading, count_batch_rows
from fabric_assets.connectors.files.types import Fits
from fabric_assets.errors import DataError
from fabric_assets.rows import arrow_types, nested_types


class ParquetReader:
    def __init__(self, file: FetchedFile, reading: Reading) -> None:
        self.file, self.reading = file, reading
        self._content: Content | None = None

    @property
    def name(self) -> str:
        """The file, for messages."""
        return f"{self.reading.where}: the file {self.file.source.shown}"

    def inspect(self) -> Fits:
        limits = self.reading.limits
        self._content = prepare(self.file, self.reading.stream, limits, self.reading.where)
        with self._open(self._content) as parquet:
            schema = parquet.schema_arrow
            if len(schema.names) > limits.columns:
                raise DataError(
                    f"{self.name} has {len(schema.names):,} columns, more than {limits.columns:,}", remedy="split it, or raise the source's limits.columns"
                )
            refuse_size(_get_size(parquet), limits.bytes, self.name)
            self._refuse_large_pages(self._content, parquet)
            self._refuse_row_lie(self._content, parquet)
            return {field.name: _get_fits(field.type) for field in schema}

    def read(self, types: Mapping[str, pa.DataType]) -> Iterator[Piece]:
        assert self._content
        with self._open(self._content) as parquet:
            done = 0
            try:
                rows = count_rows(parquet, self._content.path, count_batch_rows(_get_size(parquet), parquet.metadata.num_rows))
                for batch in parquet.iter_batches(batch_size=rows):
                    yield Piece(_drop_views(pa.Table.from_batches([batch])), done + 1)
                    done += batch.num_rows
            except (pa.ArrowException, OSError, MemoryError) as error:
                raise self._build_error(error) from None
        if self._content.is_copy:
            self._content.path.unlink(missing_ok=True)

    def _open(self, content: Content) -> pq.ParquetFile:
        try:
            # INT96 counts nanoseconds, which Arrow holds only from 1677 to 2262; it would read other times wrongly.
            return pq.ParquetFile(content.path, coerce_int96_timestamp_unit="us")
        except (pa.ArrowException, OSError) as error:
            raise self._build_error(error) from None

    def _refuse_large_pages(self, content: Content, parquet: pq.ParquetFile) -> None:
        most = self.reading.limits.memory
        try:
            needed = find_memory(content.path, parquet.metadata, most)
        except (pa.ArrowException, OSError) as error:
            raise self._build_error(error) from None
        if needed > most:
            raise DataError(
                f"{self.name} takes {needed:,} bytes of memory to read, more than {most:,}",
                remedy="write it with smaller pages and row groups, or raise the source's limits.memory",
            )

    def _refuse_row_lie(self, content: Content, parquet: pq.ParquetFile) -> None:
        try:
            lie = find_row_lie(content.path, parquet)
        except (pa.ArrowException, OSError) as error:
            raise self._build_error(error) from None
        if lie:
            raise DataError(
                f"{self.name} is damaged: its metadata says {lie[0]:,} rows where there are {lie[1]:,}",
                remedy="write the file again; no row of it has been loaded, because some would be missing",
            )

    def _build_error(self, error: Exception) -> DataError:
        if "crypt" in str(error).lower():
            return DataError(f"{self.name} is an encrypted Parquet file", remedy="write it without encryption")
        return build_error(self.file, self.reading.where, error)


def _get_size(parquet: pq.ParquetFile) -> int:
    """The unpacked size of its content, by its footer."""
    facts = parquet.metadata
    return sum(facts.row_group(index).total_byte_size for index in range(facts.num_row_groups))


def _drop_views(rows: pa.Table) -> pa.Table:
    fields = [field.with_type(nested_types.drop_views(field.type)) for field in rows.schema]
    return rows if fields == list(rows.schema) else rows.cast(pa.schema(fields))


def _get_fits(kind: pa.DataType) -> frozenset[pa.DataType]:
    if pa.types.is_null(kind):
        return frozenset(file_types.CANDIDATES)
    if getattr(kind, "extension_name", "") == "arrow.uuid":
        return frozenset({arrow_types.TEXT})
    return frozenset({arrow_types.get_carried_type(kind) or nested_types.choose_nested(kind)})
