"""A Parquet file's row groups -> the memory that reading them takes, found before any page is unpacked.

A reader unpacks whole pages and repeats dictionary values. So 4 KB of Parquet can hold a page of a gigabyte, or ten megabytes in each of a thousand rows. The
sizes are in the pages' headers, in Thrift's compact form.
"""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute makes its functions while it is imported, where no type checker sees them.

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

_LONGEST_HEADER = 1024 * 1024
# Smaller dictionaries are not checked: their values cannot make a batch large.
_SMALL_DICTIONARY = 16 * 1024
# Measured: a dictionary of 300 MB took 1,300 MB to check and to read. A page of 300 MB took 620 MB, plus a few batches.
# On a busy machine a page of 120 MB raised a load into DuckDB to 930 MB.
_LARGE_PAGE, _COPIES_OF_DICTIONARY, _COPIES_OF_PAGE = 8 * 1024 * 1024, 7, 6
_BATCH_BYTES = 64 * 1024 * 1024
_NUMBER_BYTES = 16
_STOP, _TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = 0, 1, 2, 3, 7, 8, 9, 10, 11, 12
_SIZE_FIELD, _PACKED_FIELD, _DATA_FIELD, _DATA_2_FIELD = 2, 3, 5, 8
# The field of a data page's header with the number of its values, including NULLs.
_VALUES_FIELD = 1


def find_memory(path: Path, facts: pq.FileMetaData, most: int) -> int:
    """The bytes of the pages that are unpacked at a time: one page and one dictionary per column, and the copies of large ones.

    Row groups that are too small to take more than `most` are not checked.
    """
    needed = 0
    with path.open("rb") as file:
        for index in range(facts.num_row_groups):
            group = facts.row_group(index)
            if _COPIES_OF_DICTIONARY * sum(group.column(column).total_uncompressed_size for column in range(group.num_columns)) > most:
                needed = max(needed, sum(_measure(file, group, column) for column in range(group.num_columns)))
    return needed


def _measure(file: BinaryIO, group: pq.RowGroupMetaData, index: int) -> int:
    column = group.column(index)
    start = column.dictionary_page_offset if column.has_dictionary_page else column.data_page_offset
    sizes = _read_sizes(file, start, start + column.total_compressed_size)
    dictionary = next(sizes, 0) if column.has_dictionary_page else 0
    page = max(sizes, default=0)
    return max(dictionary * (_COPIES_OF_DICTIONARY if dictionary > _LARGE_PAGE else 1), page * (_COPIES_OF_PAGE if page > _LARGE_PAGE else 1))


def _read_sizes(file: BinaryIO, start: int, end: int) -> Iterator[int]:
    return (size for size, _ in _read_pages(file, start, end))


def _read_pages(file: BinaryIO, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield each page's unpacked size, and the number of its values; 0 for a dictionary."""
    while start < end:
        file.seek(start)
        header = _Header(file.read(_LONGEST_HEADER))
        size, packed, values = header.read()
        if packed < 0 or size < 0:
            raise pa.ArrowInvalid("a page header with a negative size")
        yield size, values
        start += header.position + packed


def find_row_lie(path: Path, parquet: pq.ParquetFile) -> tuple[int, int] | None:
    """Compare the footer's number of rows with that of the pages of each row group; return both numbers if they differ.

    A reader trusts the footer, and would leave out rows. The smallest column that is not nested is counted.
    """
    facts = parquet.metadata
    named = sum(facts.row_group(index).num_rows for index in range(facts.num_row_groups))
    if named != facts.num_rows:
        return facts.num_rows, named
    flat = [column for column in range(facts.num_columns) if parquet.schema.column(column).max_repetition_level == 0]
    if not flat:
        return None
    with path.open("rb") as file:
        for index in range(facts.num_row_groups):
            group = facts.row_group(index)
            column = min((group.column(each) for each in flat), key=lambda each: each.total_compressed_size)
            start = column.dictionary_page_offset if column.has_dictionary_page else column.data_page_offset
            found = sum(values for _, values in _read_pages(file, start, start + column.total_compressed_size))
            if found != group.num_rows:
                return group.num_rows, found
    return None


def count_rows(parquet: pq.ParquetFile, path: Path, rows: int) -> int:
    """The number of rows to read at a time, at most `rows`, so that repeated dictionary values stay within some megabytes."""
    facts, longest = parquet.metadata, 0
    with path.open("rb") as file:
        for index in range(facts.num_row_groups):
            group = facts.row_group(index)
            longest = max(longest, sum(_find_longest(path, file, group, index, column, rows) for column in range(group.num_columns)))
    return max(1, min(rows, _BATCH_BYTES // longest)) if longest else rows


def _find_longest(path: Path, file: BinaryIO, group: pq.RowGroupMetaData, index: int, column: int, rows: int) -> int:
    """The bytes that a column adds to a row: of its longest dictionary value, or of a list's numbers; 0 if they cannot be many."""
    facts = group.column(column)
    per_row = -(-facts.num_values // max(group.num_rows, 1))
    if facts.physical_type != "BYTE_ARRAY":
        # A number that a list repeats is compressed to almost nothing.
        return _NUMBER_BYTES * per_row if per_row > 1 else 0
    if not facts.has_dictionary_page:
        return 0
    # A column without values has a dictionary, but no data page after it.
    size = next(_read_sizes(file, facts.dictionary_page_offset, facts.dictionary_page_offset + facts.total_compressed_size), 0)
    if size <= _SMALL_DICTIONARY or size * min(rows, facts.num_values) <= _BATCH_BYTES:
        return 0
    name = facts.path_in_schema
    with pq.ParquetFile(path, read_dictionary=[name]) as parquet:
        if name not in parquet.schema_arrow.names:
            return size * per_row if size > _LONGEST_HEADER + _SMALL_DICTIONARY or size * per_row > _BATCH_BYTES // 2 else 0
        values = next(parquet.iter_batches(batch_size=1, row_groups=[index], columns=[name])).column(0)
    return pc.max(pc.binary_length(values.dictionary)).as_py() or 0 if pa.types.is_dictionary(values.type) else 0


class _Header:
    """One page header."""

    def __init__(self, content: bytes) -> None:
        self._content, self.position = content, 0

    def read(self) -> tuple[int, int, int]:
        """Read the whole header: the page's size, its compressed size, and the number of values of a data page.

        Raises:
            pa.ArrowInvalid: it is not a page header.
        """
        try:
            found = self._read_struct()
            return found[_SIZE_FIELD], found[_PACKED_FIELD], found.get(_DATA_FIELD, found.get(_DATA_2_FIELD, 0))
        except (IndexError, KeyError, RecursionError):
            raise pa.ArrowInvalid("a page header that is damaged") from None

    def _read_struct(self) -> dict[int, int]:
        numbers: dict[int, int] = {}
        field = 0
        while (head := self._read_byte()) != _STOP:
            field = field + (head >> 4) if head >> 4 else self._read_number()
            value = self._skip(head & 15)
            if value is not None:
                numbers[field] = value
        return numbers

    def _skip(self, kind: int, *, in_list: bool = False) -> int | None:
        if kind in (_TRUE, _FALSE):
            self.position += in_list
        elif kind == _BYTE:
            self.position += 1
        elif kind < _DOUBLE:
            return self._read_number()
        elif kind == _DOUBLE:
            self.position += 8
        elif kind == _BINARY:
            size = self._read_size()
            self.position += size
        elif kind in (_LIST, _SET):
            head = self._read_byte()
            for _ in range(self._read_size() if head >> 4 == 15 else head >> 4):
                self._skip(head & 15, in_list=True)
        elif kind == _STRUCT:
            return self._read_struct().get(_VALUES_FIELD)
        else:
            raise pa.ArrowInvalid("a page header with a field of an unknown type")
        return None

    def _read_byte(self) -> int:
        self.position += 1
        return self._content[self.position - 1]

    def _read_size(self) -> int:
        value = shift = 0
        while True:
            byte = self._read_byte()
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    def _read_number(self) -> int:
        value = self._read_size()
        return (value >> 1) ^ -(value & 1)
