"""A batch's rows -> columns that do not have a table's types yet, and the rows that no table can hold."""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute makes its functions while it is imported, where no type checker sees them.

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from fabric_assets.errors import DataError
from fabric_assets.loading.shaping.fitting import plain
from fabric_assets.rows.arrow_types import BINARY, EARLIEST, EARLIEST_DAY, LATEST, LATEST_DAY, TEXT, get_carried_type, to_text
from fabric_assets.rows.column_names import compose, join_names, normalize_column
from fabric_assets.rows.mixed_columns import split
from fabric_assets.rows.nested_types import SOURCE_JSON, find_rows_of_values, is_list, keep_json, parse_json, spell_spans
from fabric_assets.rows.stream_names import StreamNames
from fabric_assets.rows.value_forms import CURRENT

_NUL = re.compile(b"\0")
_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_PER_MICROSECOND = {"s": 1_000_000, "ms": 1_000, "us": 1}


@dataclass(frozen=True)
class Fault:
    """The reason why a row is rejected; see `batches.Reject`."""

    column: str | None
    reason: str
    message: str


@dataclass(frozen=True)
class Column:
    """A column of a frame.

    Args:
        label: its name in the source.
        parts: one array per type of its values, each as long as the frame; no row has a value in two of them.
    """

    label: str
    parts: tuple[Any, ...]


@dataclass(frozen=True)
class Frame:
    """Rows of one table.

    Args:
        columns: by their names in the warehouse.
        roots: for each row the position in the batch of the row that it belongs to; None if these are the rows of the batch.
    """

    table: str
    columns: dict[str, Column]
    size: int
    roots: Sequence[int] | None = None
    is_json: bool = False

    def find_rows(self, mask: Any) -> Iterator[int]:
        """Yield the positions in the batch of the rows that a mask marks."""
        for index in pc.indices_nonzero(mask).to_pylist():
            yield index if self.roots is None else self.roots[index]


def build_frame(table: str, rows: pa.Table, names: StreamNames, where: str, *, value_forms: int = CURRENT) -> Frame:
    """Build a frame of an Arrow table.

    Raises:
        DataError: two of its columns have the same name.
    """
    columns: dict[str, Column] = {}
    if names.is_first:
        _refuse_unclear_owner(table, rows, names, where)
    names.get_columns(table, rows.column_names)
    for label, column in zip(rows.column_names, rows.columns, strict=True):
        name = names.get_column(table, (compose(label),))
        if name in columns:
            raise build_same_name_error(where, columns[name].label, label)
        columns[name] = Column(label, tuple(part for whole in split(column) for part in _part(whole, value_forms)))
    return Frame(table, columns, rows.num_rows)


def _refuse_unclear_owner(table: str, rows: pa.Table, names: StreamNames, where: str) -> None:
    """Raise an error if two fields fit the same column of release FIRST and both have a value in a row.

    That release loaded one of the fields and did not record which. Fields that never have values in the same row shared the column, and
    still do (docs/adr/0018).
    """
    known = [(path, name) for each, path, name in names.list_columns() if each == table]
    paths, owned = {path for path, _ in known}, {name for _, name in known}
    groups: dict[str, list[str]] = {}
    for label in rows.column_names:
        if (compose(label),) not in paths:
            groups.setdefault(join_names((normalize_column(compose(label)),)), []).append(label)
    for column, group in groups.items():
        if len(group) > 1 and column in names.layout.get(table, {}) and column not in owned:
            for one, other in itertools.combinations(group, 2):
                if pc.any(pc.and_(rows[one].is_valid(), rows[other].is_valid())).as_py():
                    raise DataError(
                        f"{where}: {one!r} and {other!r} both fit the column {column!r}, and the earlier release that made it did not record whose it is",
                        remedy=f"name its field, for one load at least, e.g. `rename: {{{one}: {column}}}`; or load the stream anew with --full-refresh",
                    )


def _part(column: Any, value_forms: int) -> tuple[Any, ...]:
    """Split a column into its unwrapped values, and the texts of values that its type cannot hold."""
    name = getattr(column.type, "extension_name", "")
    if name == SOURCE_JSON.extension_name or (name == "arrow.json" and value_forms >= 2):
        return _part_json(column.cast(TEXT), keep_json if name == SOURCE_JSON.extension_name else parse_json)
    column = plain(column, value_forms=value_forms)
    if is_list(column.type) and pa.types.is_time(column.type.value_type):
        return _part_lists_of_times(column)
    return _part_times(column) if pa.types.is_time(column.type) else (column,)


def _part_json(texts: Any, read: Any) -> tuple[Any, ...]:
    if _find_invalid(texts) is not None:
        return (texts,)
    values = read(texts)
    return (values,) if values.null_count == texts.null_count else (values, pc.if_else(values.is_valid(), pa.scalar(None, TEXT), texts))


def _part_times(column: Any) -> tuple[Any, ...]:
    """Split times into times of day, including 24:00:00, and the texts of others: files may hold negative times, which no warehouse takes."""
    fits = pc.invert(_is_no_time_of_day(column))
    if pc.all(fits, min_count=0).as_py():
        return (column,)
    return pc.if_else(fits, column, pa.scalar(None, column.type)), to_text(pc.if_else(fits, pa.scalar(None, column.type), column))


def _part_lists_of_times(column: Any) -> tuple[Any, ...]:
    mask = find_rows_of_values(column, _is_no_time_of_day)
    if mask is None:
        return (column,)
    left = pc.if_else(mask, column, pa.scalar(None, column.type))
    return pc.if_else(mask, pa.scalar(None, column.type), column), to_text(spell_spans(left))


def _is_no_time_of_day(column: Any) -> Any:
    numbers = column.cast(pa.int32() if pa.types.is_time32(column.type) else pa.int64())
    return pc.or_(pc.less(numbers, 0), pc.greater(numbers, 86_400 * _PER_SECOND[column.type.unit]))


def build_same_name_error(where: str, first: str, second: str) -> DataError:
    if first == second:
        return DataError(f"{where}: the source has two columns {first!r}", remedy="leave one of them out, or give it another name at the source")
    return DataError(
        f"{where}: the fields {first!a} and {second!a} are one name in two Unicode spellings (NFC and NFD)",
        remedy="let the source give the field one spelling, or leave one of the two out",
    )


def find_faults(frame: Frame, *, refuse_nul: bool) -> dict[int, Fault]:
    """Find the rows with values that no warehouse column can hold.

    Args:
        refuse_nul: the destination's texts end at a NUL byte.
    """
    faults: dict[int, Fault] = {}
    for column in frame.columns.values():
        for part in column.parts:
            for mask, fault in _find_in_part(part, column.label, is_json=frame.is_json, refuse_nul=refuse_nul):
                for row in frame.find_rows(mask):
                    faults.setdefault(row, fault)
    return faults


def _find_in_part(part: Any, label: str, *, is_json: bool, refuse_nul: bool) -> Iterator[tuple[Any, Fault]]:
    kind = part.type
    if pa.types.is_list(kind) and (values := get_carried_type(kind.value_type)) is not None:
        yield from _find_in_lists(part, label, values, refuse_nul=refuse_nul)
    elif kind == TEXT or get_carried_type(kind) is None:
        # Python's texts have become Arrow's, so they are valid.
        if not is_json and (mask := _find_invalid(part)) is not None:
            yield mask, Fault(label, "bad_text", f"{label} holds bytes that are no UTF-8 text")
        elif kind == TEXT and refuse_nul and _has_nul(part):
            yield pc.match_substring(part, "\0"), Fault(label, "nul_byte", f"{label} holds a NUL byte, which Postgres keeps in no text")
    elif (mask := _find_out_of_range(part)) is not None:
        yield mask, Fault(label, "out_of_range", f"{label} holds an infinite date, or one that no warehouse column reaches")


def _find_in_lists(part: Any, label: str, kind: pa.DataType, *, refuse_nul: bool) -> Iterator[tuple[Any, Fault]]:
    """The faults of the values that lists hold."""
    if kind == TEXT:
        if (mask := _find_invalid(part)) is not None:
            yield mask, Fault(label, "bad_text", f"{label} holds bytes that are no UTF-8 text")
        elif refuse_nul and (mask := find_rows_of_values(part, lambda texts: pc.match_substring(texts, "\0"))) is not None:
            yield mask, Fault(label, "nul_byte", f"{label} holds a NUL byte, which Postgres keeps in no text")
    elif (mask := find_rows_of_values(part, _list_out_of_range)) is not None:
        yield mask, Fault(label, "out_of_range", f"{label} holds an infinite date, or one that no warehouse column reaches")


def _list_out_of_range(values: Any) -> Any:
    found = _find_out_of_range(values)
    return pa.array([False] * len(values), pa.bool_()) if found is None else found


def _find_invalid(part: Any) -> Any:
    try:
        part.validate(full=True)
    except pa.ArrowInvalid:
        values = part.cast(BINARY) if part.type == TEXT else part
        return pa.array([not _is_valid(value) for value in values])
    return None


def _is_valid(value: pa.Scalar) -> bool:
    try:
        plain_value = value.as_py()
        if isinstance(plain_value, bytes):
            plain_value.decode()
    except UnicodeDecodeError:
        return False
    except (ValueError, OverflowError):
        return True
    return True


def _has_nul(part: Any) -> bool:
    for chunk in part.chunks if isinstance(part, pa.ChunkedArray) else [part]:
        _, offsets, texts = chunk.buffers()
        if texts is None or not len(chunk):
            continue
        ends = memoryview(offsets).cast("i")
        if _NUL.search(texts, ends[chunk.offset], ends[chunk.offset + len(chunk)]):
            return True
    return False


def _find_out_of_range(part: Any) -> Any:
    kind = part.type
    if pa.types.is_date32(kind):
        earliest, latest = EARLIEST_DAY, LATEST_DAY
    elif pa.types.is_date64(kind):
        earliest, latest = EARLIEST // 1_000, LATEST // 1_000
    elif pa.types.is_timestamp(kind) and kind.unit in _PER_MICROSECOND:
        earliest, latest = EARLIEST // (unit := _PER_MICROSECOND[kind.unit]), LATEST // unit
    else:
        return None
    bounds = pc.min_max(part)
    if not bounds["min"].is_valid or (bounds["min"].value >= earliest and bounds["max"].value <= latest):
        return None
    raw = part.cast(pa.int32() if pa.types.is_date32(kind) else pa.int64())
    return pc.fill_null(pc.or_(pc.less(raw, earliest), pc.greater(raw, latest)), False)
