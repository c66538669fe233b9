"""Batches of texts -> the types that their columns fit, and their values as these types; all columns of one type at a time.

DuckDB's time and memory grow with the square of a query's expressions: 300 columns with six types each took 5.7 GiB. So the columns of a
batch are stacked into one column of values. A query asks about that one, however many columns the file has.
"""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute makes its functions while it is imported, where no type checker sees them.

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from fabric_assets.connectors.files.types import Fits, TextColumn
from fabric_assets.rows.arrow_types import TEXT

_STACKED, _CSV, _JSON = "stacked", TextColumn("", "v"), TextColumn("", "v", "t")
KIND = "kind of "


def find_fits(connection: Any, batches: Iterable[pa.Table], columns: Sequence[TextColumn], candidates: Mapping[str, Sequence[pa.DataType]]) -> tuple[Fits, int]:
    """Find which of the candidates all values fit, and count the rows.

    Args:
        batches: texts; of JSON columns also the JSON type, under KIND and the name.
    """
    fits, rows = {name: set(kinds) for name, kinds in candidates.items()}, 0
    for batch in batches:
        rows += batch.num_rows
        groups = defaultdict[frozenset[pa.DataType], list[TextColumn]](list)
        for column in columns:
            if left := frozenset(fits[column.name]):
                groups[left].append(column)
        for kinds, members in groups.items():
            for spelling in {(column.keeps_spelling, column.has_number) for column in members}:
                alike = [column for column in members if (column.keeps_spelling, column.has_number) == spelling]
                if alike and batch.num_rows:
                    _rule_out(connection, batch, alike, list(kinds), fits)
    return {name: frozenset(kinds) for name, kinds in fits.items()}, rows


def _rule_out(connection: Any, batch: pa.Table, columns: Sequence[TextColumn], kinds: Sequence[pa.DataType], fits: dict[str, set[pa.DataType]]) -> None:
    asked = ", ".join(_get_stacked_column(columns[0]).build_fit(kind) for kind in kinds)
    for index, *answers in _query(connection, batch, columns, f"select c, {asked} from {_STACKED} group by c").fetchall():
        fits[columns[index].name] -= {kind for kind, answer in zip(kinds, answers, strict=True) if not answer}


def cast(connection: Any, batch: pa.Table, columns: Sequence[TextColumn], types: Mapping[str, pa.DataType], fits: Fits) -> pa.Table:
    """Read texts as `TextColumn.build_read` does."""
    groups = defaultdict[tuple[pa.DataType, bool, bool, bool], list[TextColumn]](list)
    arrays: dict[str, Any] = {}
    for column in columns:
        if types[column.name] == TEXT:
            arrays[column.name] = batch[column.name]
        else:
            groups[types[column.name], types[column.name] in fits[column.name], column.keeps_spelling, column.has_number].append(column)
    for (wanted, is_fitting, _, _), members in groups.items():
        read = _get_stacked_column(members[0]).build_read(wanted, frozenset([wanted]) if is_fitting else frozenset())
        values = _query(connection, batch, members, f"select {read} as r from {_STACKED}").to_arrow_table()["r"]
        for index, column in enumerate(members):
            arrays[column.name] = values.slice(index * batch.num_rows, batch.num_rows)
    return pa.table({column.name: arrays[column.name] for column in columns})


def _get_stacked_column(column: TextColumn) -> TextColumn:
    stacked = _JSON if column.kind else _CSV
    return TextColumn("", stacked.text, stacked.kind, column.keeps_spelling, column.has_number)


def _query(connection: Any, batch: pa.Table, columns: Sequence[TextColumn], sql: str) -> Any:
    """Query the columns of a batch, stacked into one: `c` is a column's index, `v` its text, `t` its JSON type."""
    indices = pa.concat_arrays([pa.repeat(pa.scalar(index, pa.int32()), batch.num_rows) for index in range(len(columns))])
    stacked = {"c": indices, "v": _stack(batch, [column.name for column in columns])}
    if columns[0].kind:
        stacked["t"] = _stack(batch, [KIND + column.name for column in columns])
    connection.register(_STACKED, pa.table(stacked))
    return connection.execute(sql)


def _stack(batch: pa.Table, names: Sequence[str]) -> pa.ChunkedArray:
    return pa.chunked_array([chunk for name in names for chunk in batch[name].chunks], type=TEXT)
