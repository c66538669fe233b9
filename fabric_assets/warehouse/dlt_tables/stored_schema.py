"""The layout of a raw dataset -> the schema that dlt stores in `_dlt_version`, with dlt's own hash.

dlt is not imported: that costs each load up to a second. tests/warehouse/dlt_tables compares with dlt's own functions.
"""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa

from fabric_assets.rows.arrow_types import BIGINT, BINARY, BOOL, DATE, DOUBLE, TEXT, TIME, TIMESTAMP, TIMESTAMP_UTC
from fabric_assets.rows.column_names import SEPARATOR

ENGINE_VERSION = 11
# Hashes of former versions that dlt keeps.
_MOST_PREVIOUS = 10
_TYPES: dict[pa.DataType, dict[str, Any]] = {
    BOOL: {"data_type": "bool"},
    BIGINT: {"data_type": "bigint"},
    DOUBLE: {"data_type": "double"},
    TEXT: {"data_type": "text"},
    BINARY: {"data_type": "binary"},
    DATE: {"data_type": "date"},
    TIME: {"data_type": "time"},
    TIMESTAMP: {"data_type": "timestamp", "timezone": False},
    TIMESTAMP_UTC: {"data_type": "timestamp"},
}
_ROW_ID, _LOAD_ID, _PARENT_ID, _ROOT_ID, _LIST_INDEX = "_dlt_id", "_dlt_load_id", "_dlt_parent_id", "_dlt_root_id", "_dlt_list_idx"
_ROLES: dict[str, dict[str, Any]] = {
    _ROW_ID: {"unique": True, "row_key": True},
    _LOAD_ID: {},
    _PARENT_ID: {"parent_key": True},
    _ROOT_ID: {"root_key": True},
    _LIST_INDEX: {},
}
_FILLED = {"x-normalizer": {"seen-data": True}}
_SETTINGS = {
    "detections": ["iso_timestamp"],
    "default_hints": {
        "not_null": [_ROW_ID, _ROOT_ID, _PARENT_ID, _LIST_INDEX, _LOAD_ID],
        "parent_key": [_PARENT_ID],
        "root_key": [_ROOT_ID],
        "unique": [_ROW_ID],
        "row_key": [_ROW_ID],
    },
}
Tables = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class TableHints:
    """What dlt's schema says of a stream's table beside its columns.

    Args:
        key: the primary key, as columns of the table.
    """

    disposition: str = "append"
    key: frozenset[str] = frozenset()


class TableText(NamedTuple):
    """A table of the schema as JSON, in its order and sorted."""

    table: Mapping[str, Any]
    text: str
    sorted_text: str


Texts = dict[str, TableText]


def build_tables(layouts: Mapping[str, Mapping[str, pa.DataType]], hints: Mapping[str, TableHints]) -> Tables:
    """Build the tables of dlt's schema, without dlt's own tables. Tables of nested lists name their parent.

    Args:
        layouts: table -> column -> type, in the columns' order.
        hints: of tables that are not of nested lists.
    """
    tables: Tables = {}
    for name, columns in sorted(layouts.items()):
        parent = _find_parent(name, tables) if _PARENT_ID in columns else None
        of_table = hints.get(name, TableHints())
        described = {column: _describe(column, kind, is_key=parent is None and column in of_table.key) for column, kind in columns.items()}
        beside = {"parent": parent} if parent else {"write_disposition": of_table.disposition, "resource": name}
        tables[name] = {"name": name, "columns": described, **beside, **_FILLED}
    return tables


def read_hints(tables: Mapping[str, Mapping[str, Any]]) -> dict[str, TableHints]:
    """Read what `build_tables` was given as hints."""
    return {
        name: TableHints(table["write_disposition"], frozenset(column for column, found in table["columns"].items() if found.get("primary_key")))
        for name, table in tables.items()
        if "write_disposition" in table
    }


def build_schema(name: str, tables: Tables, *, version: int, previous: Sequence[str] = (), texts: Texts | None = None) -> tuple[str, str]:
    """Build the schema's JSON text and its hash.

    Args:
        name: the schema's, which is the source's.
        tables: from `build_tables`.
        previous: the hashes of former versions, the newest first.
        texts: keeps the texts of tables for the next call: each new table of a first load makes a version of all.
    """
    texts = {} if texts is None else texts
    rooted = {root: {_ROW_ID: _ROOT_ID} for root in _list_rooted(tables)}
    relational: dict[str, Any] = {"module": "dlt.common.normalizers.json.relational"}
    if rooted:
        relational["config"] = {"propagation": {"tables": rooted}}
    beside = {
        "engine_version": ENGINE_VERSION,
        "name": name,
        "normalizers": {"names": "snake_case", "json": relational},
        "settings": _SETTINGS,
    }
    everything = {**_OWN_TABLES, **tables}
    for each, table in everything.items():
        if each not in texts or texts[each].table is not table:
            texts[each] = TableText(table, _dump(table), _dump(table, is_sorted=True))
    found = _compute_hash(beside, everything, texts)
    schema = {"version": version, "version_hash": found, "previous_hashes": list(previous[:_MOST_PREVIOUS]), **beside}
    listed = ",".join(f"{_dump(each)}:{texts[each].text}" for each in everything)
    return f'{_dump(schema)[:-1]},"tables":{{{listed}}}}}', found


def _describe(name: str, kind: pa.DataType, *, is_key: bool) -> dict[str, Any]:
    """Describe a column. Only columns of the key and dlt's own ones are said to be without NULL: the tables have no such constraints."""
    role = _ROLES.get(name)
    column = {"name": name, **_get_type(kind), "nullable": role is None and not is_key}
    return {**column, **(role or {}), **({"primary_key": True} if is_key else {})}


def _get_type(kind: pa.DataType) -> dict[str, Any]:
    if pa.types.is_decimal(kind):
        return {"data_type": "decimal", "precision": kind.precision, "scale": kind.scale}
    # JSON, and the destination's own lists.
    return _TYPES.get(kind, {"data_type": "json"})


def _find_parent(name: str, tables: Tables) -> str | None:
    """Find the table with the longest name that a nested table's name begins with; a parent's name sorts before it."""
    parts = name.split(SEPARATOR)
    return next((parent for end in range(len(parts) - 1, 0, -1) if (parent := SEPARATOR.join(parts[:end])) in tables), None)


def _list_rooted(tables: Tables) -> list[str]:
    """List the tables whose row ids dlt hands down to nested tables: the merged ones, and those with nested tables that hold it."""
    rooted = [name for name, table in tables.items() if table.get("write_disposition") == "merge"]
    for table in tables.values():
        root = table
        while "parent" in root:
            root = tables[root["parent"]]
        if root is not table and _ROOT_ID in table["columns"]:
            rooted.append(root["name"])
    return list(dict.fromkeys(rooted))


def _compute_hash(beside: Mapping[str, Any], tables: Tables, texts: Texts) -> str:
    """Compute the hash as dlt does: of the sorted JSON, then of the names of tables and columns in their order.

    Args:
        beside: the schema's other keys, all of which sort before `tables`.
    """
    names = sorted(tables)
    listed = ",".join(f"{_dump(name)}:{texts[name].sorted_text}" for name in names)
    digest = hashlib.sha3_256(f'{_dump(beside, is_sorted=True)[:-1]},"tables":{{{listed}}}}}'.encode())
    for name in names:
        digest.update("".join([name, *tables[name]["columns"]]).encode())
    return base64.b64encode(digest.digest()).decode("ascii")


def _dump(value: object, *, is_sorted: bool = False) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=is_sorted)


def _build_own(name: str, columns: Mapping[str, Mapping[str, Any]], **beside: Any) -> dict[str, Any]:
    return {"name": name, "columns": {column: {"name": column, "nullable": False, **found} for column, found in columns.items()}, "resource": name, **beside}


_TEXT, _BIGINT, _TIMESTAMP, _MAYBE = {"data_type": "text"}, {"data_type": "bigint"}, {"data_type": "timestamp"}, {"nullable": True}
_OWN_TABLES: Tables = {
    "_dlt_version": _build_own(
        "_dlt_version",
        {"version": _BIGINT, "engine_version": _BIGINT, "inserted_at": _TIMESTAMP, "schema_name": _TEXT, "version_hash": _TEXT, "schema": _TEXT},
        write_disposition="skip",
    ),
    "_dlt_loads": _build_own(
        "_dlt_loads",
        {
            "load_id": _TEXT,
            "schema_name": _TEXT | _MAYBE,
            "status": _BIGINT,
            "inserted_at": _TIMESTAMP,
            "schema_version_hash": _TEXT | _MAYBE,
        },
        write_disposition="skip",
    ),
    "_dlt_pipeline_state": _build_own(
        "_dlt_pipeline_state",
        {
            "version": _BIGINT,
            "engine_version": _BIGINT,
            "pipeline_name": _TEXT,
            "state": _TEXT,
            "created_at": _TIMESTAMP,
            "version_hash": _TEXT | _MAYBE,
            _LOAD_ID: _TEXT,
            _ROW_ID: _TEXT | _ROLES[_ROW_ID],
        },
        write_disposition="append",
        file_format="preferred",
        **_FILLED,
    ),
}
