"""JSON objects -> flat rows of a stream's table and of one more table per nested list, as dlt's relational normaliser makes them.

Tables and links are the same as dlt's, and so are the names if dlt's rule gives two fields different ones; a test compares them.
Unlike dlt, it loses no value: dlt keeps only the last of two keys that become one column, and fails at a thousand nested levels.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import pyarrow as pa

from fabric_assets.errors import DataError
from fabric_assets.loading.shaping.frames import Column, Fault, Frame, build_same_name_error
from fabric_assets.loading.shaping.row_ids import build_id, build_ids
from fabric_assets.rows.arrow_types import BIGINT, BOOL, DOUBLE, LARGE, TEXT, to_json
from fabric_assets.rows.batches import Row
from fabric_assets.rows.column_names import compose, join_names, normalize_column, spell_column
from fabric_assets.rows.stream_names import StreamNames

ROW_ID, LOAD_ID, PARENT_ID, LIST_INDEX, ROOT_ID = "_dlt_id", "_dlt_load_id", "_dlt_parent_id", "_dlt_list_idx", "_dlt_root_id"
MAX_DEPTH = 100

_VALUE, _LIST = "value", "list"
_Parts = tuple[str, ...]


@dataclass
class _Table:
    """The flat rows of one table.

    Args:
        roots: for each row the position of the object that it comes from.
    """

    rows: list[Row] = field(default_factory=list)
    roots: list[int] = field(default_factory=list)


class _Level:
    """The columns and tables that the objects at one position of the tree become.

    Args:
        name: of the table for this position.
        table: the parts of the table's name, by the present rule and by dlt's alone.
        path: the keys within one row of the table that lead here.
        label: all keys that lead here, for messages.
    """

    def __init__(self, names: StreamNames, name: str, table: tuple[_Parts, _Parts], path: tuple[str, ...], label: tuple[str, ...], depth: int) -> None:
        self._names, self.name, self._table, self._path, self.label, self.depth = names, name, table, path, label, depth
        self.columns: dict[str, str] = {}
        self._inner: dict[str, _Level] = {}
        self._lists: dict[str, _Level] = {}

    def add_column(self, key: str) -> str:
        self.columns[key] = name = self._names.get_column(self.name, (*self._path, compose(key)))
        return name

    def enter(self, key: str) -> "_Level":
        """Return the level of the objects under a key; their fields are columns of the same table."""
        if key not in self._inner:
            self._inner[key] = _Level(self._names, self.name, self._table, (*self._path, compose(key)), (*self.label, key), self.depth + 1)
        return self._inner[key]

    def enter_list(self, key: str) -> "_Level":
        """Return the level of a list's items, which have their own table."""
        if key not in self._lists:
            path = (*self._path, compose(key))
            present, former = (*self._table[0], *map(spell_column, path)), (*self._table[1], *map(normalize_column, path))
            wanted = join_names(present)
            name = self._names.get_table(self.name, path, wanted, join_names(former))
            table = (present, former) if name == wanted else ((name,), (name,))
            self._lists[key] = _Level(self._names, name, table, (), (*self.label, key), self.depth + 1)
        return self._lists[key]


class _TooDeep(Exception):
    pass


class JsonRows:
    """The flattener of one stream's rows, batch by batch.

    Args:
        with_root: rows of child tables name the root row that they belong to.
    """

    def __init__(self, stream: str, names: StreamNames, *, load_id: str, with_root: bool, where: str) -> None:
        self._load_id, self._with_root, self._where = load_id, with_root, where
        self._root = _Level(names, stream, ((stream,), (stream,)), (), (), 0)
        self._labels: dict[tuple[str, str], dict[str, None]] = {}

    def flatten(self, rows: Sequence[Row], numbers: Iterable[int]) -> tuple[list[Frame], dict[int, Fault]]:
        """Flatten objects.

        Args:
            numbers: the number of each object, counted over the whole load.

        Returns:
            A frame per table, the stream's own first; and the faults of objects that cannot be flattened, by position.

        Raises:
            DataError: two keys of an object are the same name in two Unicode spellings.
        """
        tables: dict[str, _Table] = {self._root.name: _Table()}
        faults: dict[int, Fault] = {}
        for position, (row, number) in enumerate(zip(rows, numbers, strict=True)):
            try:
                self._add_root(row, number, position, tables)
            except _TooDeep:
                faults[position] = Fault(None, "too_deep", f"it is nested more than {MAX_DEPTH} levels deep")
        frames = [self._build_frame(name, table, faults) for name, table in tables.items()]
        return frames, faults

    def build_frame(self, rows: pa.Table, number: int) -> Frame:
        """Build the frame of objects that come as columns.

        Args:
            number: the number of the first object, counted over the whole load.

        Raises:
            DataError: as `flatten`.
        """
        columns: dict[str, Column] = {}
        self._add_columns(zip(rows.column_names, rows.columns, strict=True), self._root, columns)
        size = rows.num_rows
        columns[LOAD_ID] = Column(LOAD_ID, (pa.repeat(pa.scalar(self._load_id, TEXT), size),))
        columns[ROW_ID] = Column(ROW_ID, (build_ids(f"{self._load_id}_{self._root.name}_{number}_{size}", size),))
        return Frame(self._root.name, columns, size, range(size), is_json=True)

    def _add_columns(self, fields: Iterable[tuple[str, Any]], level: _Level, columns: dict[str, Column]) -> None:
        for key, values in fields:
            if values.null_count == len(values):
                continue
            if pa.types.is_struct(values.type):
                names = [field.name for field in values.type]
                self._add_columns(zip(names, values.flatten(), strict=True), level.enter(key), columns)
                continue
            name = level.columns.get(key) or self._add_column(level, key)
            labels = list(self._labels[level.name, name])
            if name in columns:
                raise build_same_name_error(self._where, *labels[:2])
            columns[name] = Column(labels[0], (values,))

    def _add_root(self, row: Row, number: int, position: int, tables: dict[str, _Table]) -> None:
        row_id = build_id(f"{self._load_id}_{self._root.name}_{number}")
        flat, lists = self._flatten(row, self._root)
        flat[LOAD_ID] = self._load_id
        flat[ROW_ID] = row_id
        table = tables[self._root.name]
        table.rows.append(flat)
        table.roots.append(position)
        for level, items in lists.values():
            self._add_items(items, level, row_id, row_id, position, tables)

    def _add_items(self, items: list[Any], level: _Level, parent_id: str, root_id: str, position: int, tables: dict[str, _Table]) -> None:
        if level.depth > MAX_DEPTH:
            raise _TooDeep
        if not items:
            # Without items no columns are known, so no table is made.
            return
        table = tables.setdefault(level.name, _Table())
        for index, item in enumerate(items):
            kind = type(item)
            # A list within a list gets a table between the two.
            flat, lists = self._flatten(item if kind is dict else {_LIST if kind is list else _VALUE: item}, level)
            if self._with_root:
                flat[ROOT_ID] = root_id
            flat[PARENT_ID] = parent_id
            flat[LIST_INDEX] = index
            flat[ROW_ID] = row_id = build_id(f"{parent_id}_{level.name}_{index}")
            table.rows.append(flat)
            table.roots.append(position)
            for inner, values in lists.values():
                self._add_items(values, inner, row_id, root_id, position, tables)

    def _flatten(self, row: Row, level: _Level) -> tuple[Row, dict[str, tuple[_Level, list[Any]]]]:
        flat: Row = {}
        lists: dict[str, tuple[_Level, list[Any]]] = {}
        self._fill(row, level, flat, lists)
        return flat, lists

    def _fill(self, row: Row, level: _Level, flat: Row, lists: dict[str, tuple[_Level, list[Any]]]) -> None:
        columns = level.columns
        for key, value in row.items():
            if value is None:
                continue
            kind = type(value)
            if kind is dict:
                inner = level.enter(key)
                if inner.depth > MAX_DEPTH:
                    raise _TooDeep
                self._fill(value, inner, flat, lists)
                continue
            if kind is list:
                items = level.enter_list(key)
                if items.name in lists:
                    raise build_same_name_error(self._where, ".".join(lists[items.name][0].label), ".".join(items.label))
                lists[items.name] = (items, value)
                continue
            name = columns.get(key) or self._add_column(level, key)
            if name in flat:
                raise build_same_name_error(self._where, *list(self._labels[level.name, name])[:2])
            flat[name] = value

    def _add_column(self, level: _Level, key: str) -> str:
        name = level.add_column(key)
        if name.startswith("_dlt_"):
            raise DataError(
                f"{self._where}: the source has a field {key!r}, a name that the platform reserves",
                remedy="let the source leave the field out, or give it another name",
            )
        self._labels.setdefault((level.name, name), {})[".".join((*level.label, key))] = None
        return name

    def _build_frame(self, name: str, table: _Table, faults: dict[int, Fault]) -> Frame:
        columns = {}
        for column in dict.fromkeys(chain.from_iterable(table.rows)):
            labels = self._labels.get((name, column))
            label = next(iter(labels)) if labels else column
            parts, bad = split_by_type([row.get(column) for row in table.rows], label)
            for index, fault in bad.items():
                faults.setdefault(table.roots[index], fault)
            columns[column] = Column(label, parts)
        return Frame(name, columns, len(table.rows), table.roots, is_json=True)


def split_by_type(values: list[Any], label: str) -> tuple[tuple[pa.Array, ...], dict[int, Fault]]:
    """Split a field's values into one array per type, each as long as the list; the first value's type comes first."""
    kinds = dict.fromkeys(map(type, values))
    kinds.pop(type(None), None)
    faults: dict[int, Fault] = {}
    parts: dict[pa.DataType, list[Any]] = {}
    if len(kinds) == 1:
        parts_of_one = _build_quickly(values, next(iter(kinds)))
        if parts_of_one is not None:
            return (parts_of_one,), faults
    for index, value in enumerate(values):
        if value is None:
            continue
        plain, kind = _get_plain(value)
        if kind is None:
            faults[index] = _describe_fault(value, label)
        else:
            parts.setdefault(kind, [None] * len(values))[index] = plain
    return tuple(pa.array(column, kind) for kind, column in parts.items()), faults


def _build_quickly(values: list[Any], kind: type) -> pa.Array | None:
    """Build an array of values of one type; None if a value has to be checked by itself."""
    if kind not in _SIMPLE:
        return None
    try:
        array = pa.array(values, _SIMPLE[kind])
    except (UnicodeEncodeError, OverflowError):
        return None
    if kind is float:
        total = sum(value for value in values if value is not None)
        return array if total - total == 0 else None
    return array


def _get_plain(value: Any) -> tuple[Any, pa.DataType | None]:
    """Return a value as its array takes it, and the array's type; None as the type if no column can hold the value."""
    kind = type(value)
    if kind is int:
        if -(2**63) <= value < 2**63:
            return value, BIGINT
        return (value, LARGE) if abs(value) < 10**38 else (str(value), TEXT)
    if kind is float:
        return value, DOUBLE if value - value == 0 else None
    if kind is str:
        return value, TEXT if _is_valid(value) else None
    if kind is bool:
        return value, BOOL
    # Values that JSON does not have, from readers with richer rows.
    spelt = to_json(value)
    return spelt, TEXT


def _describe_fault(value: Any, label: str) -> Fault:
    if isinstance(value, float):
        return Fault(label, "bad_number", f"{label} holds NaN, or a number beyond the range of a double")
    return Fault(label, "bad_text", f"{label} holds half of a surrogate pair, which is not valid text")


def _is_valid(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


_SIMPLE: dict[type, pa.DataType] = {str: TEXT, int: BIGINT, float: DOUBLE, bool: BOOL}
