"""A stream's batches -> rows in the columns and types of its tables, and the rows that do not fit.

A batch is shaped as if it had no bad rows: when some are found, the other rows are shaped again without them. So no rejected row adds
a column or decides a type. A batch without bad rows is shaped once.
"""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute makes its functions while it is imported, where no type checker sees them.

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import pyarrow as pa
import pyarrow.compute as pc

from fabric_assets.errors import DataError
from fabric_assets.loading.shaping.frames import Fault, Frame, build_frame, find_faults
from fabric_assets.loading.shaping.json_rows import ROOT_ID, JsonRows
from fabric_assets.loading.shaping.table_types import Layout, TableTypes
from fabric_assets.rows.arrow_types import to_json
from fabric_assets.rows.batches import Batch, Reject, Row, StreamPlan
from fabric_assets.rows.column_names import compose
from fabric_assets.rows.former_forms import find_carried_form
from fabric_assets.rows.mixed_columns import list_values
from fabric_assets.rows.nested_types import spell_spans
from fabric_assets.rows.reports import SchemaChange
from fabric_assets.rows.stream_names import StreamNames
from fabric_assets.rows.value_forms import CURRENT
from fabric_assets.suggestions import build_missing_error


@dataclass(frozen=True)
class Shaped:
    """A shaped batch: `read == loaded + len(rejects)`; rows of child tables are not counted.

    Args:
        tables: table -> rows, columns by their names in the warehouse. A column that an earlier batch of the load has added
            may come with a wider type (bigint, then double). The table's column must then be altered.
    """

    tables: dict[str, pa.Table] = field(default_factory=dict)
    rejects: list[Reject] = field(default_factory=list)
    read: int = 0
    loaded: int = 0


class Shaper:
    """The shaper of one stream's batches, used by one thread.

    Args:
        names: the columns of the stream's fields; the layout is that of the stream's own table and its child tables.
        refuse_nul: whether the destination rejects texts with the character NUL.
        where: tenant, source and stream, for messages.
        value_forms: the version of the forms (value_forms.py) in which the values are written.
    """

    def __init__(
        self,
        plan: StreamPlan,
        *,
        names: StreamNames,
        refuse_nul: bool,
        load_id: str,
        where: str,
        value_forms: int = CURRENT,
    ) -> None:
        self._plan, self._where = plan, where
        self.value_forms, self.refuse_nul = value_forms, refuse_nul
        self._names, layout = names, names.layout
        # Named first, so that the key's columns do not depend on other fields.
        self._key = {names.get_column(plan.name, (compose(name),)): name for name in plan.key}
        declared = plan.declares_columns
        self._types = TableTypes(
            plan.name,
            key=tuple(self._key),
            newest_by=names.find_column(plan.newest_by) if plan.newest_by else None,
            names=names,
            contract=plan.contract,
            declared=declared,
            types={names.find_column(field): kind for field, kind in plan.types.items()},
            where=where,
            value_forms=value_forms,
        )
        self._unread = [names.find_column(name) for name in plan.unread]
        with_root = plan.disposition == "merge" or plan.replaced_by is not None or any(ROOT_ID in columns for columns in layout.values())
        self._json = JsonRows(plan.name, names, load_id=load_id, with_root=with_root, where=where)
        self._read = 0
        self._seen: set[str] = set()

    @property
    def changes(self) -> list[SchemaChange]:
        """The changes to the tables, each once; complete after the last batch."""
        return [*self._names.get_changes(self._types.tables), *self._types.get_changes()]

    @property
    def tables(self) -> Layout:
        """The tables and their columns as they are after the batches so far."""
        return self._types.tables

    def export_names(self) -> str:
        """Export the names of the columns after the last batch, to be saved with the stream's state."""
        return self._names.export(self._types.tables)

    def shape(self, batch: Batch) -> Shaped:
        """Fit a batch to the tables.

        Raises:
            DataError: the whole batch cannot be loaded: two columns have one name, or the contract forbids a change.
            SourceError: the primary key's column is missing.
        """
        if self._names.problem is not None:
            raise self._names.problem
        rows, faults = batch.rows, {}
        size = len(rows)
        positions: Sequence[int] = range(size)
        while True:
            tables, found = self._attempt(rows, positions, is_json=batch.is_json)
            if not found:
                break
            if batch.is_json and not isinstance(rows, list):
                # As objects they are judged and kept like all others.
                rows = rows.to_pylist()
                batch = replace(batch, rows=rows)
                continue
            faults |= {positions[index]: fault for index, fault in found.items()}
            left = [index for index in range(len(positions)) if index not in found]
            positions = [positions[index] for index in left]
            rows = [rows[index] for index in left] if isinstance(rows, list) else rows.take(pa.array(left, pa.int64()))
        self._read += size
        rejects = [*batch.rejects, *self._build_rejects(batch, faults)]
        return Shaped(tables, rejects, read=size + len(batch.rejects), loaded=size - len(faults))

    def _attempt(self, rows: pa.Table | list[Row], positions: Sequence[int], *, is_json: bool) -> tuple[dict[str, pa.Table], dict[int, Fault]]:
        """Shape all rows, or return the faults of those that cannot be loaded."""
        if isinstance(rows, list) or is_json:
            keys = (set().union(*rows) if isinstance(rows, list) else set(rows.column_names)) - self._seen
            self._names.get_columns(self._plan.name, keys)
            if isinstance(rows, list):
                frames, faults = self._json.flatten(rows, [self._read + position for position in positions])
            else:
                frames, faults = [self._json.build_frame(rows, self._read)], {}
            self._types.see(name for key in keys for name in self._names.list_seen(key))
            self._seen |= keys
        else:
            frames, faults = [build_frame(self._plan.name, rows, self._names, self._where, value_forms=self.value_forms)], {}
            self._types.see([*frames[0].columns, *self._unread])
            if self.value_forms < CURRENT:
                self._note_older_forms(rows)
        for frame in frames:
            for row, fault in find_faults(frame, refuse_nul=self.refuse_nul).items():
                faults.setdefault(row, fault)
        for row, fault in self._find_null_keys(frames[0], rows).items():
            faults.setdefault(row, fault)
        if faults or (isinstance(rows, list) and not rows):
            return {}, faults
        return self._types.fit(frames)

    def _note_older_forms(self, rows: pa.Table) -> None:
        for column in rows.schema:
            if form := find_carried_form(column.type):
                self._names.older.forms.setdefault(self._names.find_column(column.name), form)

    def _find_null_keys(self, root: Frame, rows: pa.Table | list[Row]) -> dict[int, Fault]:
        faults: dict[int, Fault] = {}
        for name, label in self._key.items():
            fault = Fault(label, "null_key", f"the primary key {label} is NULL")
            column = root.columns.get(name)
            if column and any(pa.types.is_list(part.type) for part in column.parts):
                raise DataError(f"{self._where}: the primary key {label} holds lists", remedy="let primary_key name columns of single values")
            if column is None:
                self._check_key_is_there(label, rows)
                faults |= dict.fromkeys(range(root.size), fault)
            elif sum(part.null_count for part in column.parts) > root.size * (len(column.parts) - 1):
                there = [part.is_valid() for part in column.parts]
                lacking = pc.invert(there[0])
                for other in there[1:]:
                    lacking = pc.and_(lacking, pc.invert(other))
                faults |= dict.fromkeys(root.find_rows(lacking), fault)
            if isinstance(rows, list):
                faults |= {row: named for row, found in faults.items() if found is fault and (named := _find_nested_key(rows[row], label))}
        return faults

    def _check_key_is_there(self, label: str, rows: pa.Table | list[Row]) -> None:
        known = {key for row in rows for key in row} if isinstance(rows, list) else set(rows.column_names)
        if known and compose(label) not in set(map(compose, known)):
            raise build_missing_error(
                self._where, kind="primary_key column", name=label, known=known, remedy="let primary_key name a column that every row has"
            )

    def _build_rejects(self, batch: Batch, faults: Mapping[int, Fault]) -> list[Reject]:
        if not faults:
            return []
        order = sorted(faults)
        raws = [_dump(batch.rows[index]) for index in order] if isinstance(batch.rows, list) else _dump_table(batch.rows.take(order))
        rejects = []
        for index, raw in zip(order, raws, strict=True):
            number = None if batch.first_row is None else batch.first_row + index
            fault = faults[index]
            rejects.append(Reject(batch.origin, number, fault.column, fault.reason, fault.message, raw, batch.has_fixed_positions))
        return rejects


def _find_nested_key(row: Row, label: str) -> Fault | None:
    """Build the fault of a key that is an object or a list, and so has no column."""
    value = row.get(label)
    if not isinstance(value, dict | list):
        return None
    return Fault(label, "type_mismatch", f"the primary key {label} holds {'an object' if isinstance(value, dict) else 'a list'}, not a single value")


def _dump(row: Row) -> str:
    """Write a row as JSON, whatever values it holds."""
    try:
        text = json.dumps(row, ensure_ascii=False, default=str)
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(row, default=str)
    except RecursionError:
        return json.dumps({key: "..." if isinstance(value, dict | list) else value for key, value in row.items()}, default=str)
    return text


def _dump_table(rows: pa.Table) -> list[str]:
    columns = [list_values(spell_spans(column)) for column in rows.columns]
    return [to_json(dict(zip(rows.column_names, values, strict=True))) or "" for values in zip(*columns, strict=True)]
