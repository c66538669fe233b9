"""A well-quoted block of a CSV file -> its columns as Arrow texts, many times faster than record by record."""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute makes its functions while it is imported, where no type checker sees them.

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pcsv

from fabric_assets.connectors.csv.dialect import Dialect

_WORTH_THREADS = 256 * 1024


def parse(piece: bytes, dialect: Dialect, width: int, *, quoted: bool, skipped: list[tuple[int, str]] | None = None) -> list[pa.Array]:
    """Read a block; empty cells are null.

    Args:
        width: cells of each row.
        quoted: whether it holds a quote.
        skipped: collects the rows of another length with their numbers.

    Raises:
        pyarrow.ArrowInvalid: a row has another length, and `skipped` is not given.
    """
    names = [str(number) for number in range(width)]

    def skip(row: pcsv.InvalidRow) -> str:
        assert skipped is not None
        skipped.append((row.number, row.text))
        return "skip"

    table = pcsv.read_csv(
        pa.py_buffer(piece),
        pcsv.ReadOptions(column_names=names, use_threads=skipped is None and len(piece) >= _WORTH_THREADS),
        pcsv.ParseOptions(
            delimiter=dialect.delimiter,
            quote_char=dialect.quote if quoted else False,
            newlines_in_values=quoted,
            invalid_row_handler=None if skipped is None else skip,
        ),
        pcsv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()), null_values=[""], strings_can_be_null=True, quoted_strings_can_be_null=True, check_utf8=False
        ),
    )
    return [column.combine_chunks() if column.num_chunks != 1 else column.chunk(0) for column in table.columns]


def is_well_quoted(piece: bytes, dialect: Dialect) -> bool:
    """Whether each opening quote begins a field, and each closing one ends it; a doubled quote closes and opens again."""
    size = len(piece)
    array = pa.Array.from_buffers(pa.uint8(), size, [None, pa.py_buffer(piece)])
    found = pc.indices_nonzero(pc.equal(array, pa.scalar(dialect.quote.encode()[0], pa.uint8()))).cast(pa.int64())
    if len(found) % 2:
        return False
    even = pc.multiply(count_from(0, len(found) // 2), 2)
    opened, closed = found.take(even), found.take(pc.add(even, 1))
    ends = pa.array([*dialect.delimiter.encode(), *b"\r\n", *dialect.quote.encode()], pa.uint8())
    before, after = pc.subtract(opened, 1), pc.add(closed, 1)
    before, after = before.filter(pc.greater_equal(before, 0)), after.filter(pc.less(after, size))
    return pc.all(pc.is_in(array.take(before), value_set=ends)).as_py() and pc.all(pc.is_in(array.take(after), value_set=ends)).as_py()


def is_utf8(piece: bytes) -> bool:
    if piece.isascii():
        return True
    try:
        piece.decode()
    except UnicodeDecodeError:
        return False
    return True


def has_longer(column: pa.Array, limit: int) -> bool:
    """Whether one of a column's texts has more characters."""
    # Bytes are at least as many as characters, and cost nothing to count.
    return (pc.max(pc.binary_length(column)).as_py() or 0) > limit and pc.max(pc.utf8_length(column)).as_py() > limit


def count_from(first: int, count: int) -> pa.Array:
    return pc.add(pc.cumulative_sum(pa.repeat(pa.scalar(1, pa.int64()), count)), first - 1)
