"""A Parquet file -> its rows: Parquet says its types itself; they are only narrowed to those that every destination carries."""

from collections.abc import Iterator, Mapping

import pyarrow as pa
import pyarrow.parquet as pq

from fabric_assets.connectors import arrow_types, file_types, nested_types
from fabric_assets.connectors.file_content import prepare
from fabric_assets.connectors.file_faults import build_error
from fabric_assets.connectors.file_listing import FetchedFile
from fabric_assets.connectors.file_piece import Piece, Reading, count_batch_rows
from fabric_assets.connectors.file_types import Fits


class ParquetReader:
    def __init__(self, file: FetchedFile, reading: Reading) -> None:
        self.file, self.reading = file, reading

    def inspect(self) -> Fits:
        with self._open() as parquet:
            return {field.name: _get_fits(field.type) for field in parquet.schema_arrow}

    def read(self, types: Mapping[str, pa.DataType]) -> Iterator[Piece]:
        with self._open() as parquet:
            rows, facts = 0, parquet.metadata
            size = sum(facts.row_group(index).total_byte_size for index in range(facts.num_row_groups))
            try:
                for batch in parquet.iter_batches(batch_size=count_batch_rows(size, facts.num_rows)):
                    yield Piece(pa.Table.from_batches([batch]), rows + 1)
                    rows += batch.num_rows
            except (pa.ArrowException, OSError) as error:
                raise build_error(self.file, self.reading.place, error) from None

    def _open(self) -> pq.ParquetFile:
        content = prepare(self.file, self.reading.stream, self.reading.limits, self.reading.place)
        try:
            return pq.ParquetFile(content.path)
        except (pa.ArrowInvalid, OSError) as error:
            raise build_error(self.file, self.reading.place, error) from None


def _get_fits(kind: pa.DataType) -> frozenset[pa.DataType]:
    if pa.types.is_null(kind):
        return frozenset(file_types.CANDIDATES)
    if getattr(kind, "extension_name", "") == "arrow.uuid":
        return frozenset({arrow_types.TEXT})
    return frozenset({arrow_types.get_carried_type(kind) or nested_types.choose_nested(kind)})
