"""Our schema and state -> what dlt computes for the same content, with the installed version of dlt."""

import json
from typing import Any

import pyarrow as pa
import pytest
from dlt.common.schema import Schema
from dlt.common.schema.typing import SCHEMA_ENGINE_VERSION
from dlt.common.schema.utils import generate_version_hash
from dlt.common.versioned_state import decompress_state
from dlt.pipeline.state_sync import PIPELINE_STATE_ENGINE_VERSION, generate_pipeline_state_version_hash, migrate_state_to_current
from hypothesis import given, settings
from hypothesis import strategies as st

from fabric_assets.private_parts import is_verified
from fabric_assets.rows.arrow_types import BIGINT, BINARY, BOOL, DATE, DOUBLE, JSON, TEXT, TIME, TIMESTAMP, TIMESTAMP_UTC
from fabric_assets.warehouse.dlt_tables import pipeline_state, stored_schema
from fabric_assets.warehouse.dlt_tables.stored_schema import TableHints, build_schema, build_tables, read_hints

ROW, CHILD = {"_dlt_load_id": TEXT, "_dlt_id": TEXT}, {"_dlt_id": TEXT, "_dlt_parent_id": TEXT, "_dlt_list_idx": BIGINT, "_dlt_root_id": TEXT}
ORDERS = {
    "orders": {"id": BIGINT, "total": pa.decimal128(18, 3), "at": TIMESTAMP_UTC, "local_at": TIMESTAMP, "tags": pa.list_(TEXT), "doc": JSON, **ROW},
    "orders__lines": {"sku": TEXT, **CHILD},
    "orders__lines__notes": {"value": TEXT, **CHILD},
}
NAMES = st.from_regex(r"[a-z][a-z0-9]{0,5}(_[a-z0-9]{1,3})?", fullmatch=True)
COLUMNS = st.one_of(NAMES, st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8))
TYPES = st.one_of(
    st.sampled_from([BOOL, BIGINT, DOUBLE, TEXT, BINARY, DATE, TIME, TIMESTAMP, TIMESTAMP_UTC, JSON, pa.list_(BIGINT)]),
    st.builds(lambda scale, more: pa.decimal128(max(1, scale + more), scale), st.integers(0, 19), st.integers(0, 19)),
)


@st.composite
def layouts(draw: st.DrawFn) -> tuple[dict[str, dict[str, pa.DataType]], dict[str, TableHints]]:
    """Draw tables, with nested ones, and their hints."""
    tables, hints = {}, {}
    for root in draw(st.lists(NAMES, max_size=4, unique=True)):
        columns = draw(st.dictionaries(COLUMNS, TYPES, max_size=6))
        tables[root] = {**columns, **ROW}
        key = draw(st.frozensets(st.sampled_from(sorted(columns)), max_size=2)) if columns else frozenset[str]()
        hints[root] = TableHints(draw(st.sampled_from(["merge", "append", "replace"])), key)
        parent = root
        for child in draw(st.lists(NAMES, max_size=2)):
            parent = f"{parent}__{child}"
            own = draw(st.sampled_from([CHILD, {name: kind for name, kind in CHILD.items() if name != "_dlt_root_id"}]))
            tables[parent] = {**draw(st.dictionaries(COLUMNS, TYPES, max_size=3)), **own}
    return tables, hints


def load(tables: dict[str, dict[str, pa.DataType]], hints: dict[str, TableHints], **more: Any) -> tuple[dict[str, Any], str]:
    text, found = build_schema("shop", build_tables(tables, hints), version=3, **more)
    return json.loads(text), found


@settings(max_examples=150, deadline=None)
@given(layouts())
def test_the_hash_of_any_layout_is_dlts_and_dlt_changes_nothing_when_it_reads_it(drawn: Any) -> None:
    stored, found = load(*drawn, previous=["a", "b"])
    assert stored["version_hash"] == found == generate_version_hash(json.loads(json.dumps(stored)))
    read = Schema.from_dict(json.loads(json.dumps(stored)))
    assert (read.version, read.version_hash, read.is_modified) == (3, found, False)
    again: Any = read.to_dict()
    assert generate_version_hash(again) == found
    assert {name: list(table["columns"]) for name, table in again["tables"].items() if not name.startswith("_dlt")} == {
        name: list(columns) for name, columns in drawn[0].items()
    }


@settings(max_examples=50, deadline=None)
@given(layouts())
def test_the_hints_are_read_back(drawn: Any) -> None:
    tables, hints = drawn
    found = read_hints(build_tables(tables, hints))
    assert {name: (each.disposition, set(each.key)) for name, each in found.items()} == {
        name: (each.disposition, set(each.key)) for name, each in hints.items()
    }


def test_types_keys_and_references_are_those_of_the_tables() -> None:
    stored, _ = load(ORDERS, {"orders": TableHints("merge", frozenset({"id"}))})
    schema = Schema.from_dict(stored)
    columns = schema.get_table_columns("orders")
    assert {name: {key: value for key, value in column.items() if key not in {"name", "nullable"}} for name, column in columns.items()} == {
        "id": {"data_type": "bigint", "primary_key": True},
        "total": {"data_type": "decimal", "precision": 18, "scale": 3},
        "at": {"data_type": "timestamp"},
        "local_at": {"data_type": "timestamp", "timezone": False},
        "tags": {"data_type": "json"},
        "doc": {"data_type": "json"},
        "_dlt_load_id": {"data_type": "text"},
        "_dlt_id": {"data_type": "text", "unique": True, "row_key": True},
    }
    known: Any = schema.references
    references = {(each["table"], *each["columns"], each["referenced_table"], *each["referenced_columns"]) for each in known}
    assert {
        ("orders__lines", "_dlt_parent_id", "orders", "_dlt_id"),
        ("orders__lines", "_dlt_root_id", "orders", "_dlt_id"),
        ("orders__lines__notes", "_dlt_parent_id", "orders__lines", "_dlt_id"),
        ("orders", "_dlt_load_id", "_dlt_loads", "load_id"),
    } <= references
    assert schema.data_table_names(seen_data_only=True) == ["orders", "orders__lines", "orders__lines__notes"]


def test_a_change_of_the_order_or_of_a_type_changes_the_hash() -> None:
    first = load({"orders": {"a": TEXT, "b": TEXT}}, {})[1]
    assert len({first, load({"orders": {"b": TEXT, "a": TEXT}}, {})[1], load({"orders": {"a": TEXT, "b": BIGINT}}, {})[1]}) == 3


@pytest.mark.parametrize("destination", ["duckdb", "postgres"])
def test_the_state_is_dlts_and_holds_nothing_but_names(destination: str) -> None:
    text, found = pipeline_state.build_state("acme__shop", dataset="acme_raw_shop", schema="shop", destination=destination, layout="h/+=", version=7)
    state = decompress_state(text)
    assert state == {
        "_state_version": 7,
        "_state_engine_version": PIPELINE_STATE_ENGINE_VERSION,
        "_version_hash": found,
        "default_schema_name": "shop",
        "schema_names": ["shop"],
        "dataset_name": "acme_raw_shop",
        "pipeline_name": "acme__shop",
        "destination_type": f"dlt.destinations.{destination}",
        "destination_name": None,
        "etl_fabric": {"layout": "h/+="},
    }
    assert generate_pipeline_state_version_hash(state) == found
    assert migrate_state_to_current("acme__shop", dict(state)) == state
    assert pipeline_state.read_layout(text) == "h/+="


@pytest.mark.parametrize("text", ["", "?", "e30=", "eJyrrgUAAXUA+Q=="])
def test_a_foreign_or_damaged_state_names_no_layout(text: str) -> None:
    assert pipeline_state.read_layout(text) is None


def test_the_engines_are_those_of_the_installed_dlt() -> None:
    assert is_verified("dlt")
    assert (stored_schema.ENGINE_VERSION, pipeline_state.ENGINE_VERSION) == (SCHEMA_ENGINE_VERSION, PIPELINE_STATE_ENGINE_VERSION)
