"""Rows of any type -> rows in their tables' types; the stream's contract decides about values that do not fit.

A table keeps its types. A value that does not fit goes into a variant column (`price__v_text`), as in dlt, or it stops the load, or
its row is rejected. Only a column that this load itself has added may still widen, from whole numbers to fractions or larger ones.
In JSON, 3 and 3.5 may be values of one field.
"""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute makes its functions while it is imported, where no type checker sees them.

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from fabric_assets.config.sources.streams import SchemaContract
from fabric_assets.errors import DataError
from fabric_assets.loading.shaping.fitting import fit
from fabric_assets.loading.shaping.frames import Column, Fault, Frame
from fabric_assets.rows.arrow_types import BIGINT, CANONICAL_NUMBER, DOUBLE, JSON, LARGE, TEXT, TIMESTAMP_UTC, get_carried_type, get_word, to_text
from fabric_assets.rows.column_names import SEPARATOR
from fabric_assets.rows.nested_types import choose_nested
from fabric_assets.rows.reports import SchemaChange
from fabric_assets.rows.stream_names import StreamNames
from fabric_assets.rows.value_forms import CURRENT
from fabric_assets.rows.variant_columns import is_variant, name_variant

Layout = Mapping[str, Mapping[str, pa.DataType]]

# Up to this a double holds every whole number.
_LARGEST_EXACT = 2**53
_LOOKS_LIKE_A_MOMENT = re.compile(r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}")


@dataclass
class _Draft:
    """The tables' types after a batch; valid once none of the batch's rows is rejected.

    Args:
        made: columns of this load whose type may still widen -> whether doubles hold all their values so far exactly.
    """

    types: dict[str, dict[str, pa.DataType]]
    made: dict[tuple[str, str], bool]
    changes: dict[tuple[str, str, str], SchemaChange]
    faults: dict[int, Fault] = field(default_factory=dict)

    def copy(self) -> "_Draft":
        return _Draft({table: dict(columns) for table, columns in self.types.items()}, dict(self.made), dict(self.changes))

    def note(self, change: Literal["column_added", "type_changed"], table: str, column: str, *, before: str = "", after: str = "", values: int = 0) -> None:
        known = self.changes.get((change, table, column)) or SchemaChange(table, column, change, before, after)
        self.changes[change, table, column] = replace(known, values=known.values + values)

    def reject(self, frame: Frame, mask: Any, fault: Fault) -> None:
        for row in frame.find_rows(mask):
            self.faults.setdefault(row, fault)


class TableTypes:
    """The columns of one stream's tables and their types, as they grow with a load.

    Args:
        key: names of the primary key's columns in the warehouse.
        newest_by: the column that tells the newest row of a key.
        names: the columns of the stream's fields, and the tables before the load.
        declared: the source declares its columns.
        types: column of the stream's own table -> the type that the source gives it.
    """

    def __init__(
        self,
        stream: str,
        *,
        key: tuple[str, ...],
        newest_by: str | None = None,
        names: StreamNames,
        contract: SchemaContract,
        declared: bool = False,
        types: Mapping[str, pa.DataType] | None = None,
        where: str,
        value_forms: int = CURRENT,
    ) -> None:
        self._stream, self._key, self._names, self._contract, self._declared, self._where = stream, key, names, contract, declared, where
        self._value_forms, self._newest_by, self._given = value_forms, newest_by, types or {}
        self._layout: Layout = names.layout
        self._now = _Draft({table: dict(columns) for table, columns in self._layout.items()}, {}, {})
        self._seen: set[str] = set()

    @property
    def tables(self) -> Layout:
        """The tables and their columns as they are after the batches so far."""
        return self._now.types

    def see(self, columns: Iterable[str]) -> None:
        """Note a batch's fields. A column of the table that no batch has a field for is gone from the source."""
        self._seen.update(columns)

    def get_changes(self) -> list[SchemaChange]:
        columns = self._layout.get(self._stream, {}) if self._seen else {}
        missing = [
            SchemaChange(self._stream, name, "column_missing", before=get_word(kind), declared=self._declared)
            for name, kind in columns.items()
            if not name.startswith(("_dlt_", "_fabric_")) and not self._is_seen(name) and not is_variant(name, columns)
        ]
        return [*self._now.changes.values(), *missing]

    def fit(self, frames: Iterable[Frame]) -> tuple[dict[str, pa.Table], dict[int, Fault]]:
        """Convert rows to their tables' types: either all rows, or none, with the faults of those that do not fit.

        Raises:
            DataError: the contract forbids a change that they need.
        """
        draft = self._now.copy()
        tables = {frame.table: self._fit_frame(frame, draft) for frame in frames if self._is_welcome(frame, draft)}
        if draft.faults:
            return {}, draft.faults
        self._now = draft
        return tables, {}

    def _is_seen(self, name: str) -> bool:
        """Whether a batch had the column's field, or an object above it: a nested object that is NULL has no fields."""
        parts = name.split(SEPARATOR)
        return any(SEPARATOR.join(parts[:count]) in self._seen for count in range(1, len(parts) + 1))

    def _is_welcome(self, frame: Frame, draft: _Draft) -> bool:
        """Whether a frame's table exists or may be added. A new nested list counts as a new column."""
        if frame.table in draft.types or self._stream not in self._layout:
            return True
        if self._contract.columns == "freeze":
            raise self._build_frozen_error(f"a nested list that became a table {frame.table}", "columns")
        if self._contract.columns == "discard":
            draft.reject(frame, pa.array([True] * frame.size), _build_unexpected(frame.table))
            return False
        draft.note("column_added", self._stream, frame.table, after="table")
        return True

    def _fit_frame(self, frame: Frame, draft: _Draft) -> pa.Table:
        types = draft.types.setdefault(frame.table, {})
        arrays: dict[str, Any] = {}
        for name, column in frame.columns.items():
            if not column.parts:
                continue
            if name not in types and not self._may_add(name, column, frame, draft):
                continue
            values, misfits = self._fit_column(name, column, frame, draft)
            arrays[name] = values
            for variant, parts in misfits.items():
                if variant in frame.columns or self._names.find_owner(frame.table, variant) is not None:
                    raise DataError(
                        f"{self._where}: {column.label} needs the column {variant} for values of another type, and the source has a field of that name",
                        remedy="leave that field out, or load the stream anew with --full-refresh",
                    )
                arrays[variant] = self._fit_variant(variant, Column(column.label, parts), frame, draft)
        if not arrays:
            # Rows without a column of the table still count.
            arrays = {name: pa.nulls(frame.size, kind) for name, kind in list(types.items())[:1]}
        return pa.table(arrays)

    def _may_add(self, name: str, column: Column, frame: Frame, draft: _Draft) -> bool:
        if frame.table not in self._layout or (frame.is_json and name.startswith("_dlt_")):
            return True
        if self._contract.columns == "freeze":
            raise self._build_frozen_error(f"a new column {column.label}{self._describe_rival(name, frame)}", "columns")
        if self._contract.columns == "discard":
            for part in column.parts:
                draft.reject(frame, part.is_valid(), _build_unexpected(column.label))
            return False
        return True

    def _describe_rival(self, name: str, frame: Frame) -> str:
        rival = self._names.find_rival(frame.table, name)
        return f", whose name in the warehouse is that of {rival}" if rival is not None else ""

    def _fit_column(self, name: str, column: Column, frame: Frame, draft: _Draft) -> tuple[Any, dict[str, tuple[Any, ...]]]:
        """Convert a column to its table's type; also return the values for variant columns."""
        kind = self._get_type(name, column, frame, draft)
        if len(column.parts) == 1 and column.parts[0].type == kind:
            return column.parts[0], {}
        arrays, variants = [], {}
        for part in column.parts:
            values, misfits = fit(part, kind, naive_is_utc=frame.is_json)
            arrays.append(values)
            if kind == DOUBLE and part.type == TEXT and frame.table == self._stream and name in self._key:
                draft.reject(frame, _find_other_spellings(part), _build_other_spelling(column.label))
            if misfits is None:
                continue
            if frame.table == self._stream and name in self._key:
                draft.reject(frame, misfits, Fault(column.label, "type_mismatch", f"the primary key {column.label} does not fit its type {get_word(kind)}"))
            elif self._contract.data_type == "freeze":
                raise self._build_frozen_error(f"{get_word(part.type)} in the column {column.label}, whose type is {get_word(kind)}", "data_type")
            elif self._contract.data_type == "discard":
                draft.reject(frame, misfits, Fault(column.label, "type_mismatch", f"{column.label} does not fit its type {get_word(kind)}"))
            else:
                left = pc.if_else(misfits, part, pa.scalar(None, part.type))
                draft.note("type_changed", frame.table, name, before=get_word(kind), after=get_word(part.type), values=len(left) - left.null_count)
                left = left if frame.is_json else to_text(left)
                variant = name_variant(name, left.type)
                variants[variant] = (*variants.get(variant, ()), left)
        return pc.coalesce(*arrays), variants

    def _fit_variant(self, name: str, column: Column, frame: Frame, draft: _Draft) -> Any:
        types = draft.types[frame.table]
        if name not in types:
            types[name] = column.parts[0].type
        fitted = [fit(part, types[name]) for part in column.parts]
        if any(misfits is not None for _, misfits in fitted):
            raise DataError(
                f"{self._where}: {column.label} does not fit its column, and the remaining values do not fit the type {get_word(types[name])} of {name} either",
                remedy="load the stream anew with --full-refresh, so that its types are chosen again",
            )
        return pc.coalesce(*(values for values, _ in fitted))

    def _get_type(self, name: str, column: Column, frame: Frame, draft: _Draft) -> pa.DataType:
        """Return the type of a column; a new column's type is chosen, that of a column of this load may be widened."""
        types, key = draft.types[frame.table], (frame.table, name)
        known = types.get(name)
        if known is None:
            is_json = frame.is_json and not name.startswith("_dlt_")
            keeps = self._value_forms >= 2 and frame.table == self._stream and name in self._key and name != self._newest_by
            given = self._given.get(name) if frame.table == self._stream else None
            types[name] = kind = given or _choose(column.parts, is_json=is_json, keeps_spelling=keeps, value_forms=self._value_forms)
            if frame.table in self._layout and not (frame.is_json and name.startswith("_dlt_")):
                draft.note("column_added", frame.table, name, after=get_word(kind))
            if kind == BIGINT and not given:
                draft.made[key] = _is_exact(column.parts)
            return kind
        if known != BIGINT or key not in draft.made:
            return known
        draft.made[key] &= _is_exact(column.parts)
        kind = _widen(column.parts, exact=draft.made[key])
        if kind != BIGINT:
            types[name] = kind
            del draft.made[key]
            if ("column_added", *key) in draft.changes:
                draft.changes["column_added", *key] = SchemaChange(frame.table, name, "column_added", after=get_word(kind))
        return kind

    def _build_frozen_error(self, change: str, entry: str) -> DataError:
        return DataError(
            f"{self._where}: the source has {change}, and schema_contract.{entry} is freeze",
            remedy=f"see whether the change is meant; then let schema_contract.{entry} be evolve for a load, or load the stream anew with --full-refresh",
        )


def _choose(parts: tuple[Any, ...], *, is_json: bool, keeps_spelling: bool, value_forms: int) -> pa.DataType:
    """Choose the type of a new column: its first value's type, but wide enough for all numbers, and a timestamp if all texts are.

    Args:
        keeps_spelling: the column is a key, in which two spellings of one time are two values.
    """
    kind = parts[0].type
    first = get_carried_type(kind) or (choose_nested(kind) if value_forms >= 2 else TEXT)
    if not is_json:
        return JSON if kind == JSON else first
    if first in (BIGINT, DOUBLE, LARGE):
        return _widen(parts, exact=_is_exact(parts)) if first != DOUBLE else DOUBLE
    if first == TEXT and not keeps_spelling and len(parts) == 1 and _LOOKS_LIKE_A_MOMENT.match(pc.drop_null(parts[0])[0].as_py()):
        _, misfits = fit(parts[0], TIMESTAMP_UTC, naive_is_utc=True)
        return TEXT if misfits is not None else TIMESTAMP_UTC
    return first


def _widen(parts: tuple[Any, ...], *, exact: bool) -> pa.DataType:
    """Return the type of a column of whole numbers that must hold these values too."""
    kinds = {part.type for part in parts if part.null_count < len(part)}
    if DOUBLE in kinds and exact:
        return DOUBLE
    return LARGE if LARGE in kinds else BIGINT


def _is_exact(parts: tuple[Any, ...]) -> bool:
    """Whether doubles hold the whole numbers among the values exactly."""
    if any(part.type == LARGE for part in parts):
        return False
    bounds = [pc.min_max(part).as_py() for part in parts if part.type == BIGINT]
    return all(bound["min"] is None or (bound["min"] >= -_LARGEST_EXACT and bound["max"] <= _LARGEST_EXACT) for bound in bounds)


def _find_other_spellings(texts: Any) -> Any:
    """Mark the texts that are numbers, but not in the canonical spelling."""
    is_canonical = pc.and_(pc.match_substring_regex(texts, f"^{CANONICAL_NUMBER}$"), pc.not_equal(texts, "-0"))
    return pc.and_(pc.match_substring_regex(texts, r"^[-+]?[0-9]+(\.[0-9]*)?([eE][-+]?[0-9]+)?$"), pc.invert(is_canonical))


def _build_other_spelling(label: str) -> Fault:
    return Fault(
        label,
        "other_spelling",
        f"the primary key {label} is stored as a number, and another spelling of a number may be another key (10.10 and 10.1)."
        " Load the stream anew with --full-refresh, which keeps the keys of a CSV as they are written",
    )


def _build_unexpected(label: str) -> Fault:
    return Fault(label, "unexpected_column", f"the table has no column for {label}, and schema_contract.columns is discard")
